/*
 * nodes: many nodes in one process, for what is measured of publishing.
 *
 * Each has the apply thread of a node, with its feed, its disk, its models and its signed status;
 * in place of workers it has a holder that adopts a model at once. Each has a connection to NATS of
 * its own, or many share one.
 *
 * It makes their status keys, writes the public halves where the control plane looks for them, says
 * "ready", and then takes commands on standard input, one a line; its end ends the program:
 *
 *     wait VERSION MS   until every node serves that version or a later one, or the time is over;
 *                       answers a line "swap NODE VERSION NS" (CLOCK_MONOTONIC) for each swap since
 *                       the last wait, then "done", or "late" and how many are behind
 *     count             answers one line of JSON: sums over the nodes, since the start
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/settings.h"
#include "dataplane/apply/apply.h"
#include "dataplane/request/metrics.h"

#include "tests/bench/nodes/sync.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

enum {
    NODES_MAX = 10000,
    CONNECTIONS_MAX = 1000,
    PATH_SIZE = 512,
    URL_SIZE = 256,
    LINE_SIZE = 256,
    SWAPS_MAX = 4 << 20,
    SERIES_MAX = 16, /* of a metric: no request is served here. */
    ROOT_MAX = 128 << 10,
    FILES_BESIDE = 256,
    FILES_EACH = 5, /* directory, lock, pack, wake-up; the floor while it is written. */
};

static const struct setting_row rows[] = {
    {"environment", "NAME", NULL, "environment", SETTING_TEXT},
    {"nats-urls", "URL", NULL, "a \"%\" in it stands for the node's id", SETTING_TEXT},
    {"connections", "COUNT", "0", "that the nodes share; 0: one each", SETTING_TEXT},
    {"trust-root", "FILE", NULL, "root", SETTING_TEXT},
    {"state-dir", "DIRECTORY", NULL, "in it a node has its own", SETTING_TEXT},
    {"node-keys", "DIRECTORY", NULL, "gets ID.pub of each node", SETTING_TEXT},
    {"prefix", "NAME", "node-", "what ids begin with; a number follows", SETTING_TEXT},
    {"first", "NUMBER", "0", "of the first node", SETTING_TEXT},
    {"count", "COUNT", "1", "of nodes", SETTING_TEXT},
    {"silent", NULL, NULL, "no status is sent", SETTING_FLAG},
    {"no-sync", NULL, NULL, "nothing that is written is synced", SETTING_FLAG},
    {"log-level", "LEVEL", "warn", "error, warn, info, debug", SETTING_TEXT},
};
enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

struct node {
    char id[KEY_NAME_MAX + 1];
    char state_dir[PATH_SIZE];
    struct key_pair key;
    struct dp_apply *apply;
    struct dp_model *model;   /* what its workers would serve; under the lock of 'here'. */
    _Atomic uint64_t version; /* its version; written under that lock. */
};

struct swap {
    uint32_t node;
    uint64_t version;
    uint64_t at_ns;
};

static struct {
    const struct settings *settings;
    struct node *nodes;
    size_t count;
    struct bus *buses[CONNECTIONS_MAX];
    size_t bus_count;
    struct buf root;
    struct metrics_family families[DP_METRIC_COUNT];
    struct metrics *metrics; /* a shard a node. */
    struct {
        struct lock lock;
        pthread_cond_t reached;
        uint64_t wanted GUARDED; /* version that main waits for. */
        size_t behind GUARDED;   /* nodes below it. */
        struct swap *swaps GUARDED;
        size_t swap_count GUARDED;
        size_t swap_capacity GUARDED;
    } shared;
} here;

static _Noreturn void give_up(const char *what, struct err e)
{
    (void)fprintf(stderr, "bench-nodes: %s: %s (%s)\n", what, err_name(e.code),
                  e.where == NULL ? "" : e.where);
    exit(1);
}

static void must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        give_up(what, e);
    }
}

static uint64_t number(const char *name, uint64_t max)
{
    uint64_t value = 0;
    const char *text = settings_get(here.settings, name);
    if (!slice_to_u64(slice_str(text), &value) || value > max) {
        (void)fprintf(stderr, "bench-nodes: %s: expected a number up to %" PRIu64 "\n", name, max);
        exit(2);
    }
    return value;
}

static const char *text(const char *name)
{
    const char *value = settings_get(here.settings, name);
    if (value == NULL) {
        (void)fprintf(stderr, "bench-nodes: %s is missing\n", name);
        exit(2);
    }
    return value;
}

/* ---- in place of workers ---- */

static void record(const struct node *n) REQUIRES(here.shared.lock)
{
    if (here.shared.swap_count == here.shared.swap_capacity) {
        CHECK(here.shared.swap_capacity < SWAPS_MAX);
        here.shared.swap_capacity = here.shared.swap_capacity * 2 + 1024;
        here.shared.swaps =
            realloc(here.shared.swaps, here.shared.swap_capacity * sizeof(*here.shared.swaps));
        CHECK(here.shared.swaps != NULL);
    }
    here.shared.swaps[here.shared.swap_count++] =
        (struct swap){(uint32_t)(n - here.nodes), n->version, clock_mono_ns()};
}

static void swap(void *ctx, struct dp_model *model)
{
    struct node *n = ctx;
    lock_take(&here.shared.lock);
    struct dp_model *before = n->model;
    bool was_behind = n->version < here.shared.wanted;
    n->model = dp_model_ref(model);
    n->version = dp_model_version(model);
    record(n);
    if (was_behind && n->version >= here.shared.wanted) {
        here.shared.behind--;
        CHECK(pthread_cond_signal(&here.shared.reached) == 0);
    }
    lock_drop(&here.shared.lock);
    dp_model_unref(before);
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served(void *ctx)
{
    const struct node *n = ctx;
    return n->version;
}

/* ---- set up ---- */

/* As the node's own table, with room for no requests: a shard of it is megabytes. */
static void make_metrics(void)
{
    for (size_t i = 0; i < DP_METRIC_COUNT; i++) {
        here.families[i] = dp_metric_families[i];
        uint32_t series = here.families[i].series_max;
        here.families[i].series_max = series > SERIES_MAX ? SERIES_MAX : series;
    }
    must(metrics_new(here.families, DP_METRIC_COUNT, here.count, &here.metrics), "metrics");
}

static void open_bus(const char *id)
{
    char url[URL_SIZE];
    char name[KEY_NAME_MAX + 16];
    char inbox[KEY_NAME_MAX + 16];
    size_t size = 0;
    for (const char *at = text("nats-urls"); *at != '\0'; at++) {
        const char one[2] = {*at, '\0'};
        const char *piece = *at == '%' ? id : one;
        size += (size_t)snprintf(url + size, sizeof(url) - size, "%s", piece);
        CHECK(size < sizeof(url));
    }
    (void)snprintf(name, sizeof(name), "bench-nodes %s", id);
    (void)snprintf(inbox, sizeof(inbox), "_INBOX.%s", id);
    struct bus_config config = {.urls = url, .name = name, .inbox_prefix = inbox};
    CHECK(here.bus_count < CONNECTIONS_MAX);
    must(bus_open(&config, &here.buses[here.bus_count++]), "NATS");
}

/* Written anew by each run: a node of this program lives as long as the program. */
static void write_public(const struct node *n)
{
    char path[PATH_SIZE];
    auto_buf struct buf line = BUF_MAX(LINE_SIZE);
    (void)snprintf(path, sizeof(path), "%s/%s.pub", text("node-keys"), n->id);
    must(key_public_print(&n->key.public, &line), "key");
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fwrite(line.ptr, 1, line.size, file) == line.size);
    CHECK(fclose(file) == 0);
}

static void start_node(struct node *n, size_t index)
{
    uint64_t shared = number("connections", CONNECTIONS_MAX);
    (void)snprintf(n->id, sizeof(n->id), "%s%" PRIu64, text("prefix"),
                   number("first", UINT32_MAX) + index);
    (void)snprintf(n->state_dir, sizeof(n->state_dir), "%s/%s", text("state-dir"), n->id);
    must(key_pair_new(KEY_ROLE_NODE, slice_str(n->id), &n->key), "key");
    write_public(n);
    if (shared == 0 || index < shared) {
        open_bus(n->id);
    }
    struct dp_apply_config config = {
        .environment = slice_str(text("environment")),
        .node = slice_str(n->id),
        .state_dir = n->state_dir,
        .trust_root = buf_slice(&here.root),
        .key = settings_flag(here.settings, "silent") ? NULL : &n->key,
        .bus = here.buses[index % here.bus_count],
        .workers = {.swap = swap, .fresh = fresh, .served = served, .ctx = n},
        .metrics = here.metrics,
        .shard = metrics_shard(here.metrics, index),
    };
    must(dp_apply_start(&config, &n->apply), n->id);
}

static void allow_files(void)
{
    rlim_t wanted = here.count * FILES_EACH + FILES_BESIDE;
    struct rlimit files;
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    if (files.rlim_cur >= wanted) {
        return;
    }
    files.rlim_cur = wanted;
    files.rlim_max = files.rlim_max < wanted ? wanted : files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
        (void)fprintf(stderr, "bench-nodes: %zu descriptors are not allowed\n", (size_t)wanted);
        exit(1);
    }
}

static void read_root(void)
{
    uint8_t bytes[ROOT_MAX];
    FILE *file = fopen(text("trust-root"), "re");
    size_t size = file == NULL ? 0 : fread(bytes, 1, sizeof(bytes), file);
    here.root = BUF_MAX(ROOT_MAX);
    must(size == 0 ? FAIL(E_NOT_FOUND) : buf_add(&here.root, slice_of(bytes, size)), "trust-root");
    (void)fclose(file);
}

static void start(void)
{
    here.count = number("count", NODES_MAX);
    here.nodes = calloc(here.count, sizeof(*here.nodes));
    CHECK(here.count > 0 && here.nodes != NULL);
    allow_files();
    make_metrics();
    read_root();
    (void)mkdir(text("state-dir"), 0700);
    for (size_t i = 0; i < here.count; i++) {
        start_node(&here.nodes[i], i);
    }
    for (size_t i = 0; i < here.bus_count; i++) {
        must(bus_wait_connected(here.buses[i], 10000), "NATS");
    }
}

static void stop_node(struct node *n)
{
    dp_apply_stop(n->apply); /* no swap comes behind it. */
    lock_take(&here.shared.lock);
    struct dp_model *model = n->model;
    n->model = NULL;
    lock_drop(&here.shared.lock);
    dp_model_unref(model);
    dp_apply_free(n->apply);
    key_pair_wipe(&n->key);
}

static void stop(void)
{
    for (size_t i = 0; i < here.count; i++) {
        stop_node(&here.nodes[i]);
    }
    for (size_t i = 0; i < here.bus_count; i++) {
        bus_close(here.buses[i]);
    }
    metrics_free(here.metrics);
    buf_free(&here.root);
    free(here.nodes);
    lock_take(&here.shared.lock);
    free(here.shared.swaps);
    lock_drop(&here.shared.lock);
}

/* ---- commands ---- */

static void wait_behind(uint64_t version, uint64_t wait_ms) REQUIRES(here.shared.lock)
{
    uint64_t end_ns = clock_mono_ns() + wait_ms * NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(end_ns / NS_PER_S),
                             .tv_nsec = (long)(end_ns % NS_PER_S)};
    here.shared.wanted = version;
    here.shared.behind = 0;
    for (size_t i = 0; i < here.count; i++) {
        here.shared.behind += here.nodes[i].version < version;
    }
    int waited = 0;
    while (here.shared.behind > 0 && waited == 0) { /* ends: by the last node, or by time. */
        waited = pthread_cond_timedwait(&here.shared.reached, &here.shared.lock.m, &until);
    }
}

static void do_wait(uint64_t version, uint64_t wait_ms)
{
    lock_take(&here.shared.lock);
    wait_behind(version, wait_ms);
    for (size_t i = 0; i < here.shared.swap_count; i++) {
        const struct swap *s = &here.shared.swaps[i];
        (void)printf("swap %s %" PRIu64 " %" PRIu64 "\n", here.nodes[s->node].id, s->version,
                     s->at_ns);
    }
    here.shared.swap_count = 0;
    size_t behind = here.shared.behind;
    lock_drop(&here.shared.lock);
    (void)printf(behind == 0 ? "done\n" : "late %zu\n", behind);
}

static void do_count(void)
{
    uint64_t applies = 0;
    uint64_t refusals = 0;
    uint64_t least = UINT64_MAX;
    size_t live = 0;
    enum err_code code = E_OK;
    for (size_t i = 0; i < here.count; i++) {
        struct dp_apply_status status;
        dp_apply_status(here.nodes[i].apply, &status);
        applies += status.applies;
        refusals += status.refusals;
        live += status.live_snapshots;
        least = status.version < least ? status.version : least;
        code = status.last_code == E_OK ? code : status.last_code;
    }
    metrics_id fetched = metrics_plain(here.metrics, DP_METRIC_SNAPSHOT_FETCHED);
    (void)printf("{\"nodes\": %zu, \"applies\": %" PRIu64 ", \"refusals\": %" PRIu64
                 ", \"least\": %" PRIu64 ", \"fetched_bytes\": %" PRId64
                 ", \"live_snapshots\": %zu, \"last_code\": \"%s\"}\n",
                 here.count, applies, refusals, least, metrics_value(here.metrics, fetched), live,
                 err_name(code));
}

static void take_commands(void)
{
    char line[LINE_SIZE];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strncmp(line, "wait ", 5) == 0) {
            char *rest = NULL;
            uint64_t version = strtoull(line + 5, &rest, 10);
            uint64_t wait_ms = strtoull(rest, &rest, 10);
            do_wait(version, wait_ms);
        } else if (strcmp(line, "count\n") == 0) {
            do_count();
        } else {
            (void)printf("what?\n");
        }
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    auto_buf struct buf message = BUF_MAX(4096);
    struct settings *settings = NULL;
    struct err e = settings_load(rows, ROW_COUNT, argc - 1, argv + 1, &settings, &message);
    if (!err_ok(e)) {
        (void)fprintf(stderr, "bench-nodes: %.*s\n", SLICE_ARG(buf_slice(&message)));
        return 2;
    }
    enum log_level level = LOG_WARN;
    here.settings = settings;
    if (!log_level_find(slice_str(text("log-level")), &level)) {
        (void)fprintf(stderr, "bench-nodes: log-level is none\n");
        return 2;
    }
    log_level_set(level);
    sync_skip(settings_flag(settings, "no-sync"));
    ids_init();
    lock_init(&here.shared.lock);
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&here.shared.reached, &monotonic) == 0);
    start();
    (void)printf("ready\n");
    (void)fflush(stdout);
    take_commands();
    stop();
    settings_free(settings);
    return 0;
}
