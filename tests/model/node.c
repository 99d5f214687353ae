/* node: see node.h. */
#include "tests/model/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/identity/ceremony.h"
#include "dataplane/apply/fault.h"
#include "dataplane/request/metrics.h"

#include "tests/model/ledger.h"
#include "tests/model/world.h"

enum { FILE_MAX = 64 << 20 };

/* A worker comes to its mailbox at once, or after a long turn. */
#define ADOPT_NS (2 * SIM_MS)
#define ADOPT_LATE_NS (2 * SIM_SECOND)

static struct node *node_self(void)
{
    return (struct node *)sim_self();
}

/* ---- fault points of the apply thread ---- */

struct err dp_fault(const char *point)
{
    char label[64];
    (void)snprintf(label, sizeof(label), "apply.%s", point);
    sim_point(label);
    return OK;
}

static void path_of(const struct node *n, const char *file, char out[NODE_PATH + 16])
{
    (void)snprintf(out, NODE_PATH + 16, "%s/%s", n->directory, file);
}

static void read_file(const struct node *n, const char *file, struct buf *out)
{
    char path[NODE_PATH + 16];
    path_of(n, file, path);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    *out = BUF_MAX(FILE_MAX);
    if (fd < 0) {
        return;
    }
    uint8_t *room = NULL;
    CHECK(fstat(fd, &info) == 0);
    CHECK(err_ok(buf_reserve(out, (size_t)info.st_size + 1, &room)));
    ssize_t size = read(fd, room, (size_t)info.st_size);
    CHECK(size == info.st_size);
    buf_commit(out, (size_t)size);
}

static void write_file(const struct node *n, const char *file, struct slice bytes)
{
    char path[NODE_PATH + 16];
    path_of(n, file, path);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes.ptr, bytes.size) == (ssize_t)bytes.size);
}

static off_t size_of(const struct node *n, const char *file)
{
    char path[NODE_PATH + 16];
    struct stat info;
    path_of(n, file, path);
    return stat(path, &info) == 0 ? info.st_size : 0;
}

/* What would be there after a power cut from here on. */
static void note_synced(struct node *n, enum disk_step step)
{
    struct node_synced *s = &n->synced;
    if (step == DISK_FLOOR_CREATE) { /* the pack was synced just before. */
        s->pack_size = size_of(n, "pack");
    } else if (step == DISK_FLOOR_RENAME) {
        buf_free(&s->floor);
        read_file(n, "floor", &s->floor);
    } else if (step == DISK_FLOOR_DONE) {
        buf_free(&s->floor);
    } else if (step == DISK_COMPACT_RENAME) {
        buf_free(&s->pack);
        read_file(n, "pack", &s->pack);
    } else if (step == DISK_COMPACT_DONE) {
        buf_free(&s->pack);
        s->pack_size = size_of(n, "pack");
    }
}

int dp_fault_disk(enum disk_step step)
{
#define X(name, text) [DISK_##name] = "disk." #name,
    static const char *const labels[DISK_STEP_COUNT] = {DISK_STEP_LIST(X)};
#undef X
    struct node *n = node_self();
    note_synced(n, step);
    sim_point(labels[step]);
    return n->disk_is_full ? ENOSPC : 0;
}

/* ---- the workers ---- */

static void swap(void *ctx, struct dp_model *model)
{
    struct node *n = ctx;
    ledger_served(n->name, model);
    for (size_t i = 0; i < NODE_WORKERS; i++) {
        dp_model_unref(n->workers[i].next);
        n->workers[i].next = dp_model_ref(model);
    }
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served(void *ctx)
{
    return node_serves(ctx);
}

uint64_t node_serves(const struct node *node)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < NODE_WORKERS; i++) {
        const struct dp_model *model = node->workers[i].model;
        uint64_t version = model == NULL ? 0 : dp_model_version(model);
        least = version < least ? version : least;
    }
    return least;
}

static bool has_something_to_do(void *ctx)
{
    const struct node *n = ctx;
    bool handed = n->stops;
    for (size_t i = 0; i < NODE_WORKERS; i++) {
        handed = handed || n->workers[i].next != NULL;
    }
    return handed;
}

static void adopt(struct node *n)
{
    struct node_worker *w = &n->workers[sim_random(NODE_WORKERS)];
    if (w->next != NULL) {
        dp_model_unref(w->model);
        w->model = TAKE_PTR(w->next);
        dp_apply_wake(n->apply);
    }
}

static void give_back(struct node *n)
{
    for (size_t i = 0; i < NODE_WORKERS; i++) {
        dp_model_unref(TAKE_PTR(n->workers[i].model));
        dp_model_unref(TAKE_PTR(n->workers[i].next));
    }
}

/* ---- a life ---- */

static void body(void *ctx)
{
    struct node *n = ctx;
    struct dp_apply_config config = {
        .environment = SLICE_LIT(WORLD_ENVIRONMENT),
        .node = slice_str(n->name),
        .state_dir = n->directory,
        .trust_root = world_first_root(),
        .key = &n->key,
        .bus = n->bus,
        .workers = {.swap = swap, .fresh = fresh, .served = served, .ctx = n},
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, 0),
    };
    struct dp_apply *apply = NULL;
    struct err e = dp_apply_start(&config, &apply);
    if (!err_ok(e)) {
        sim_fail("%s does not start: %s at %s", n->name, err_name(e.code), e.where);
    }
    n->apply = apply;
    while (!n->stops) {
        (void)sim_wait(has_something_to_do, n, SIM_NEVER);
        sim_sleep(sim_random(sim_chance(30) ? ADOPT_LATE_NS : ADOPT_NS));
        adopt(n);
    }
    n->apply = NULL;
    dp_apply_stop(apply);
    give_back(n);
    dp_apply_free(apply);
    n->machine.process.locked_count = 0; /* closed already. */
    sim_kill(&n->machine.process);
}

static void on_death(struct sim_process *process)
{
    struct node *n = (struct node *)process;
    n->apply = NULL;
    n->seen = NULL;
    n->crashed = false;
    memset(n->workers, 0, sizeof(n->workers));
}

void node_init(struct node *node, unsigned index, const char *directory, const char *keys)
{
    char path[NODE_PATH + 32];
    *node = (struct node){.index = index};
    (void)snprintf(node->name, sizeof(node->name), "dp-%u", index);
    (void)snprintf(node->directory, sizeof(node->directory), "%s/%s", directory, node->name);
    (void)snprintf(path, sizeof(path), "%s/%s.pub", keys, node->name);
    CHECK(err_ok(key_pair_new(KEY_ROLE_NODE, slice_str(node->name), &node->key)));
    CHECK(err_ok(cp_key_write_public(path, &node->key.public)));
    CHECK(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &node->metrics)));
    node->machine.process.name = node->name;
    node->machine.process.clock = sim_clock_draw();
    node->machine.process.on_death = on_death;
}

void node_start(struct node *node)
{
    struct bus *bus = calloc(1, sizeof(*bus)); /* another one in each life. */
    CHECK(bus != NULL);
    *bus = (struct bus){.process = &node->machine.process, .link = &node->machine.nats};
    node->bus = bus;
    node->stops = false;
    sim_start(&node->machine.process, body, node);
}

void node_stop(struct node *node)
{
    node->stops = true;
}

/* ---- its disk ---- */

void node_cut_power(struct node *node)
{
    struct node_synced *s = &node->synced;
    CHECK(!node->machine.process.alive);
    if (s->pack.ptr != NULL && sim_chance(500)) {
        write_file(node, "pack", buf_slice(&s->pack));
        s->pack_size = (off_t)s->pack.size;
    }
    if (s->floor.ptr != NULL && sim_chance(500)) {
        write_file(node, "floor", buf_slice(&s->floor));
    }
    buf_free(&s->pack);
    buf_free(&s->floor);
    off_t size = size_of(node, "pack");
    if (size > s->pack_size) {
        char path[NODE_PATH + 16];
        path_of(node, "pack", path);
        off_t kept = s->pack_size + (off_t)sim_random((uint64_t)(size - s->pack_size) + 1);
        CHECK(truncate(path, kept) == 0);
    }
}

void node_wipe(struct node *node)
{
    static const char *const files[] = {"pack", "floor", "lock", "pack.new", "floor.new"};
    CHECK(!node->machine.process.alive);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[NODE_PATH + 16];
        path_of(node, files[i], path);
        (void)unlink(path);
    }
    buf_free(&node->synced.pack);
    buf_free(&node->synced.floor);
    node->synced = (struct node_synced){0};
    node->high = (struct node_high){0};
}

/* ---- what must hold ---- */

#define LLU(n) ((unsigned long long)(n))

/* A root with a floor that was stepped to sets the numbers, once. */
static bool stepped_to_floor(struct node *n, const struct judge *j)
{
    struct root_floor floor;
    if (j->root.version == n->high.root_version ||
        !world_floor(n->high.root_version, j->root.version, &floor)) {
        return false;
    }
    sim_note("%s steps to the floor of root %llu", n->name, LLU(j->root.version));
    n->high.epoch = floor.epoch;
    n->high.sequence = 0;
    n->high.version = floor.version;
    n->high.disk_epoch = floor.epoch;
    n->high.served = 0;
    return true;
}

static void check_numbers(struct node *n, const struct judge *j, const struct disk_floor *floor)
{
    struct node_high *h = &n->high;
    if (j->root.version < h->root_version) {
        sim_fail("%s goes back from root %llu to %llu", n->name, LLU(h->root_version),
                 LLU(j->root.version));
    }
    (void)stepped_to_floor(n, j);
    /* What was accepted is kept in memory; the disk has the epoch of what was applied. */
    bool same_life = n->high_life == n->machine.process.life;
    bool lower = j->epoch < h->epoch || (j->epoch == h->epoch && j->sequence < h->sequence);
    if (same_life && lower) {
        sim_fail("%s goes back from head %llu.%llu to %llu.%llu", n->name, LLU(h->epoch),
                 LLU(h->sequence), LLU(j->epoch), LLU(j->sequence));
    }
    if (j->version < h->version) {
        sim_fail("%s goes back from floor %llu to %llu", n->name, LLU(h->version), LLU(j->version));
    }
    if (floor->epoch < h->disk_epoch) {
        sim_fail("%s goes back from epoch %llu to %llu on its disk", n->name, LLU(h->disk_epoch),
                 LLU(floor->epoch));
    }
    h->root_version = j->root.version;
    h->disk_epoch = floor->epoch;
    h->epoch = j->epoch;
    h->sequence = j->sequence;
    h->version = j->version;
    n->high_life = n->machine.process.life;
}

static void check_model(struct node *n, const struct dp_apply *a, const struct disk_floor *floor)
{
    if (a->model == NULL) {
        /* What it refuses later, before there is another one, does not change why. */
        n->crashed = n->crashed || a->standing.last_code == E_CRASHED_NODE ||
                     refused_has(&floor->refused, floor->present.digest);
        if (!a->standing.starting && n->high.committed && !n->crashed) {
            sim_fail("%s serves nothing: %s", n->name, err_name(a->standing.last_code));
        }
        return;
    }
    if (a->model == n->seen) {
        return;
    }
    uint64_t version = dp_model_version(a->model);
    if (version < n->high.served && !a->fell_back) {
        sim_fail("%s goes back from version %llu to %llu", n->name, LLU(n->high.served),
                 LLU(version));
    }
    n->high.served = version > n->high.served ? version : n->high.served;
    n->high.committed = true;
    n->seen = a->model;
}

void node_check(struct node *node)
{
    const struct dp_apply *a = node->apply;
    if (node->machine.process.alive && a != NULL) {
        const struct disk_floor *floor = disk_floor(a->disk);
        check_numbers(node, &a->judge, floor);
        check_model(node, a, floor);
    }
}
