/* world: see world.h. */
#include "tests/model/world.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"

#include "tests/model/database.h"
#include "tests/model/ledger.h"

enum { PATH_SIZE = 256 };

#define ROOT_NOT_AFTER_MS INT64_C(4000000000000)

struct world world;

static char node_keys[PATH_SIZE];
static char first_root[PATH_SIZE];

static void must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        sim_fail("%s: %s at %s", what, err_name(e.code), e.where);
    }
}

/* ---- roots ---- */

static void seal_root(struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    struct container_signature signature;
    *out = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    must(root_encode(&world.root, &body), "a root");
    must(container_sign(CONTAINER_ROOT, world.root.environment_id, buf_slice(&body),
                        &world.root_key, &signature),
         "a root");
    must(container_seal(CONTAINER_ROOT, world.root.environment_id, buf_slice(&body), &signature, 1,
                        out),
         "a root");
}

/* The first one is trusted by the file that it lies in. */
static void write_root(const struct buf *bytes)
{
    (void)snprintf(first_root, sizeof(first_root), "%s/root.1", world.directory);
    auto_close int fd = open(first_root, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes->ptr, bytes->size) == (ssize_t)bytes->size);
}

void world_next_root(const struct root_floor *floor)
{
    struct root *r = &world.root;
    *r = (struct root){.version = r->version + 1, .not_after_ms = ROOT_NOT_AFTER_MS};
    (void)snprintf(r->environment, sizeof(r->environment), "%s", WORLD_ENVIRONMENT);
    snap_environment(SLICE_LIT(WORLD_ENVIRONMENT), r->environment_id);
    must(root_add_key(r, &world.root_key.public, 0), "a root key");
    for (size_t i = 0; i < REPLICAS; i++) {
        must(root_add_key(r, &world.replicas[i].manifest_key.public, 0), "a manifest key");
        must(root_add_key(r, &world.replicas[i].head_key.public, 0), "a head key");
    }
    r->ring.thresholds[KEY_ROLE_ROOT] = 1;
    r->ring.thresholds[KEY_ROLE_MANIFEST] = MANIFEST_THRESHOLD;
    r->ring.thresholds[KEY_ROLE_HEAD] = 1;
    r->has_floor = floor != NULL;
    if (floor != NULL) {
        r->floor = *floor;
    }
    CHECK(world.root_count < ROOTS_MAX);
    struct buf *bytes = &world.roots[world.root_count++];
    seal_root(bytes);
    if (r->version == 1) {
        write_root(bytes);
    }
    world_publish_roots();
    sim_note("root %llu is signed", (unsigned long long)r->version);
}

void world_rekey(struct replica *replica)
{
    replica_rekey(replica, ++world.rekeys);
}

const char *world_first_root_path(void)
{
    return first_root;
}

struct slice world_first_root(void)
{
    return buf_slice(&world.roots[0]);
}

const char *world_node_keys(void)
{
    return node_keys;
}

void world_publish_roots(void)
{
    struct cp_store *store = database_store();
    sim_clock_borrow(&database_clock);
    for (size_t i = 0; i < world.root_count; i++) {
        must(store->ops->root_put(store, WORLD_ENVIRONMENT, i + 1, buf_slice(&world.roots[i])),
             "a root is published");
    }
    sim_clock_borrow(NULL);
}

bool world_verifies(struct slice manifest, const uint8_t digest[DIGEST_SIZE])
{
    struct container c;
    struct container_signers signers;
    uint8_t found[DIGEST_SIZE];
    if (!err_ok(container_read(manifest, CONTAINER_MANIFEST, world.root.environment_id, &c))) {
        return false;
    }
    container_body_digest(&c, found);
    bool verifies = false;
    for (size_t i = 0; i < world.root_count; i++) {
        struct root root;
        must(root_open(buf_slice(&world.roots[i]), &root), "a root");
        verifies =
            verifies || err_ok(container_verify(&c, &root.ring, KEY_ROLE_MANIFEST, &signers));
    }
    return verifies && memcmp(found, digest, sizeof(found)) == 0;
}

bool world_floor(uint64_t from_version, uint64_t to_version, struct root_floor *out)
{
    bool found = false;
    for (uint64_t version = from_version + 1; version <= to_version; version++) {
        struct root root;
        must(root_open(buf_slice(&world.roots[version - 1]), &root), "a root");
        if (root.has_floor) {
            *out = root.floor;
            found = true;
        }
    }
    return found;
}

/* ---- beginning, healing ---- */

void world_begin(const char *directory)
{
    memset(&world, 0, sizeof(world));
    world.directory = directory;
    (void)snprintf(node_keys, sizeof(node_keys), "%s/nodes", directory);
    CHECK(mkdir(node_keys, 0700) == 0);
    nats_begin();
    database_begin(directory);
    ledger_begin();
    must(key_pair_new(KEY_ROLE_ROOT, SLICE_LIT("root"), &world.root_key), "the root key");
    for (unsigned i = 0; i < REPLICAS; i++) {
        replica_init(&world.replicas[i], i, directory);
    }
    for (unsigned i = 0; i < NODES; i++) {
        node_init(&world.nodes[i], i, directory, node_keys);
    }
    world_next_root(/* floor= */ NULL);
    world_heal();
}

static void heal_machine(struct machine *m)
{
    m->nats = (struct nats_link){.way = NATS_UP};
    m->database_is_cut = false;
    m->process.dies_in = 0;
    m->process.stops_in = 0;
    m->process.strikes = NULL;
    m->process.paused_until_ns = 0;
    m->process.clock.wall_offset_ms = 0;
}

void world_heal(void)
{
    world_publish_roots();
    nats_faults = (struct nats_faults){.delay_ns = 3 * SIM_MS};
    database_faults = (struct database_faults){0};
    database_clock.wall_offset_ms = 0;
    for (size_t i = 0; i < REPLICAS; i++) {
        struct replica *r = &world.replicas[i];
        heal_machine(&r->machine);
        if (r->stops) { /* it is on its way out. */
            sim_kill(&r->machine.process);
        }
        if (!r->machine.process.alive) {
            replica_start(r);
        }
    }
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &world.nodes[i];
        heal_machine(&n->machine);
        n->disk_is_full = false;
        if (n->stops) {
            sim_kill(&n->machine.process);
        }
        if (!n->machine.process.alive) {
            node_start(n);
        }
    }
}

/* ---- looking ---- */

void world_check(void)
{
    for (size_t i = 0; i < NODES; i++) {
        node_check(&world.nodes[i]);
    }
}

struct asked {
    struct cp_leader *leader;
    struct cp_leader_status status;
};

static void read_status(void *ctx)
{
    struct asked *asked = ctx;
    cp_leader_status(asked->leader, &asked->status);
}

static struct cp_leader_status leader_status(const struct replica *r)
{
    struct asked asked = {.leader = r->leader};
    union { /* its clocks are read, nothing of it is written to. */
        const struct sim_process *given;
        struct sim_process *wanted;
    } process = {.given = &r->machine.process};
    if (r->machine.process.alive && r->leader != NULL) {
        sim_inside(process.wanted, read_status, &asked);
    }
    return asked.status;
}

struct replica *world_leader(void)
{
    for (size_t i = 0; i < REPLICAS; i++) {
        if (leader_status(&world.replicas[i]).leads) {
            return &world.replicas[i];
        }
    }
    return NULL;
}

static bool node_converged(const struct node *n, bool crashes_count, char *out, size_t size)
{
    const struct dp_apply *a = n->apply;
    if (a == NULL) {
        (void)snprintf(out, size, "%s is not up", n->name);
        return false;
    }
    uint64_t boot_ns = sim_mono_ns(&n->machine.process.clock);
    enum snap_state state = dp_standing_state(&a->standing, boot_ns);
    (void)snprintf(out, size, "%s serves %llu of %llu, is %s and says %s of %s", n->name,
                   (unsigned long long)node_serves(n), (unsigned long long)ledger_newest(),
                   snap_state_name(state), err_name(a->standing.code), a->standing.object);
    if (!crashes_count && a->standing.code == E_CRASHED_NODE) {
        return true;
    }
    return node_serves(n) == ledger_newest() && (state == SNAP_GOOD || state == SNAP_APPLIED);
}

bool world_converged(bool crashes_count, char *out, size_t size)
{
    for (size_t i = 0; i < NODES; i++) {
        if (!node_converged(&world.nodes[i], crashes_count, out, size)) {
            return false;
        }
    }
    return true;
}

bool world_store_is_behind(void)
{
    const struct replica *leader = world_leader();
    return leader != NULL && leader_status(leader).code == E_STORE_BEHIND;
}
