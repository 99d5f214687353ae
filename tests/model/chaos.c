/* chaos: see chaos.h. */
#include "tests/model/chaos.h"

#include <stdio.h>
#include <string.h>

#include "common/base/check.h"

#include "tests/model/database.h"
#include "tests/model/intruder.h"
#include "tests/model/ledger.h"
#include "tests/model/world.h"

/* What can go wrong. 'begin' does it to replica or node 'who', with 'size' of its own meaning;
 * 'end' (when the length is over) mends it. name, what it does to the world */
#define FAULTS(X)                                                                                  \
    X(replica_dies, "SIGKILL at a point; started again later")                                     \
    X(replica_dies_publishing, "SIGKILL at a point of the publisher's")                            \
    X(replica_stops, "SIGSTOP at a point, up to ten leases")                                       \
    X(replica_ends, "SIGTERM; started again later")                                                \
    X(replicas_die, "SIGKILL of all three")                                                        \
    X(signer_dies, "the signer's process is killed")                                               \
    X(replica_without_nats, "no way between a replica and NATS, one way or both")                  \
    X(replica_without_database, "no way between a replica and the database")                       \
    X(replica_clock, "a replica's wall clock jumps")                                               \
    X(node_dies, "SIGKILL at a point of the apply thread")                                         \
    X(node_dies_writing, "SIGKILL at a step of the disk")                                          \
    X(node_loses_power, "the same, and what was not synced is lost")                               \
    X(node_is_wiped, "and its disk is replaced")                                                   \
    X(node_stops, "SIGSTOP at a point")                                                            \
    X(node_ends, "SIGTERM; started again later")                                                   \
    X(node_disk_is_full, "no write reaches the disk")                                              \
    X(node_without_nats, "no way between a node and NATS, one way or both")                        \
    X(node_is_deaf, "its subscription is silently dead")                                           \
    X(node_clock, "a node's wall clock jumps")                                                     \
    X(nats_is_down, "no server runs")                                                              \
    X(nats_answers_get_lost, "writes are done, done later, or not done, and nobody says so")       \
    X(nats_loses, "hints are lost, doubled, late and out of order")                                \
    X(nats_is_behind, "reads come from replicas that are behind")                                  \
    X(nats_races, "of two conditional writes at once both may pass")                               \
    X(bucket_is_full, "the bucket takes nothing more")                                             \
    X(bucket_key_goes, "a key is purged: a marker lies there, or nothing")                         \
    X(bucket_is_purged, "all keys are purged")                                                     \
    X(bucket_is_destroyed, "made again, it begins with sequence 1")                                \
    X(bucket_goes_back, "it is restored to what it was some time ago")                             \
    X(database_is_down, "no replica reaches it")                                                   \
    X(database_answers_get_lost, "commits whose answer is lost")                                   \
    X(database_clock, "its clock jumps")                                                           \
    X(database_goes_back, "it is restored to what it was some time ago")                           \
    X(root_changes, "a new root, with a replica's new keys")                                       \
    X(intruder, "somebody with access to NATS, and perhaps with a key")

#define X(name, text) FAULT_##name,
enum fault_kind { FAULTS(X) FAULT_KIND_COUNT };
#undef X

struct fault {
    enum fault_kind kind;
    uint64_t at_ns;
    uint64_t length_ns;
    uint64_t who;
    uint64_t size; /* random: the fault makes of it what it needs. */
    bool happens;
};

static struct {
    struct fault faults[FAULTS_MAX];
    size_t count;
    bool over; /* all is mended: what would end a fault now has nothing to do. */
} chaos;

static struct replica *replica_of(const struct fault *f)
{
    return &world.replicas[f->who % REPLICAS];
}

static struct node *node_of(const struct fault *f)
{
    return &world.nodes[f->who % NODES];
}

/* ---- processes ---- */

static void strike(struct sim_process *p, const char *where, uint64_t size)
{
    p->strikes = where;
    p->dies_in = 1 + (unsigned)(size % 40);
}

static void stop(struct sim_process *p, const struct fault *f)
{
    p->strikes = NULL;
    p->stops_in = 1 + (unsigned)(f->size % 60);
    p->stops_ns = f->length_ns;
}

/* Started again, unless it never came to its point. */
static void raise_replica(const struct fault *f)
{
    struct replica *r = replica_of(f);
    r->machine.process.dies_in = 0;
    if (!r->machine.process.alive) {
        replica_start(r);
    }
}

static void begin_replica_dies(const struct fault *f)
{
    strike(&replica_of(f)->machine.process, NULL, f->size);
}

/* The points of whoever puts content and rows; a beat has few of these. */
static void begin_replica_dies_publishing(const struct fault *f)
{
    static const char *const where[] = {"kv.write", "db.version", "db.sources", "db.proposal",
                                        "signer",   "db.publish", "db.cosign",  "kv.ensure"};
    strike(&replica_of(f)->machine.process, where[f->size % 8], f->size / 8 % 6);
}

static void begin_replica_stops(const struct fault *f)
{
    stop(&replica_of(f)->machine.process, f);
}

static void begin_replica_ends(const struct fault *f)
{
    if (replica_of(f)->machine.process.alive) {
        replica_stop(replica_of(f));
    }
}

static void begin_replicas_die(const struct fault *f)
{
    (void)f;
    for (size_t i = 0; i < REPLICAS; i++) {
        sim_kill(&world.replicas[i].machine.process);
    }
}

static void end_replicas_die(const struct fault *f)
{
    struct fault each = *f;
    for (each.who = 0; each.who < REPLICAS; each.who++) {
        raise_replica(&each);
    }
}

static void begin_signer_dies(const struct fault *f)
{
    replica_of(f)->signer_dies = true;
}

static void raise_node(const struct fault *f)
{
    struct node *n = node_of(f);
    n->machine.process.dies_in = 0;
    if (!n->machine.process.alive) {
        node_start(n);
    }
}

static void begin_node_dies(const struct fault *f)
{
    strike(&node_of(f)->machine.process, f->size % 2 == 0 ? "apply." : NULL, f->size / 2);
}

static void begin_node_dies_writing(const struct fault *f)
{
    strike(&node_of(f)->machine.process, "disk.", f->size % 24);
}

static void begin_node_loses_power(const struct fault *f)
{
    strike(&node_of(f)->machine.process, "disk.", f->size % 24);
}

static void end_node_loses_power(const struct fault *f)
{
    sim_kill(&node_of(f)->machine.process);
    node_cut_power(node_of(f));
    raise_node(f);
}

static void begin_node_is_wiped(const struct fault *f)
{
    sim_kill(&node_of(f)->machine.process);
}

static void end_node_is_wiped(const struct fault *f)
{
    sim_kill(&node_of(f)->machine.process);
    node_wipe(node_of(f));
    raise_node(f);
}

static void begin_node_stops(const struct fault *f)
{
    stop(&node_of(f)->machine.process, f);
}

static void begin_node_ends(const struct fault *f)
{
    if (node_of(f)->machine.process.alive) {
        node_stop(node_of(f));
    }
}

static void begin_node_disk_is_full(const struct fault *f)
{
    node_of(f)->disk_is_full = true;
}

static void end_node_disk_is_full(const struct fault *f)
{
    node_of(f)->disk_is_full = false;
}

/* ---- ways and clocks ---- */

static void cut(struct machine *m, const struct fault *f)
{
    m->nats = (struct nats_link){.way = f->size % 2 == 0 ? NATS_LOST : NATS_DEAF,
                                 .since_ns = sim_now_ns()};
}

static void begin_replica_without_nats(const struct fault *f)
{
    cut(&replica_of(f)->machine, f);
}

static void end_replica_without_nats(const struct fault *f)
{
    replica_of(f)->machine.nats.way = NATS_UP;
}

static void begin_node_without_nats(const struct fault *f)
{
    cut(&node_of(f)->machine, f);
}

static void end_node_without_nats(const struct fault *f)
{
    node_of(f)->machine.nats.way = NATS_UP;
}

static void begin_replica_without_database(const struct fault *f)
{
    replica_of(f)->machine.database_is_cut = true;
}

static void end_replica_without_database(const struct fault *f)
{
    replica_of(f)->machine.database_is_cut = false;
}

static int64_t jump_of(const struct fault *f)
{
    static const int64_t jumps_ms[] = {-3600000, 3600000, -60000, 60000, -20000,
                                       20000,    -4000,   4000,   -500,  500};
    return jumps_ms[f->size % (sizeof(jumps_ms) / sizeof(jumps_ms[0]))];
}

static void begin_replica_clock(const struct fault *f)
{
    replica_of(f)->machine.process.clock.wall_offset_ms += jump_of(f);
}

static void begin_node_clock(const struct fault *f)
{
    node_of(f)->machine.process.clock.wall_offset_ms += jump_of(f);
}

static void begin_database_clock(const struct fault *f)
{
    database_clock.wall_offset_ms += jump_of(f);
}

/* ---- NATS ---- */

static void begin_node_is_deaf(const struct fault *f)
{
    nats_deafen(&node_of(f)->machine.process);
}

static void begin_nats_is_down(const struct fault *f)
{
    (void)f;
    nats_faults.down = true;
}

static void end_nats_is_down(const struct fault *f)
{
    (void)f;
    nats_faults.down = false;
}

static void begin_nats_answers_get_lost(const struct fault *f)
{
    nats_faults.unknown_per_mille = 50 + (unsigned)(f->size % 400);
}

static void end_nats_answers_get_lost(const struct fault *f)
{
    (void)f;
    nats_faults.unknown_per_mille = 0;
}

static void begin_nats_loses(const struct fault *f)
{
    nats_faults.lost_per_mille = (unsigned)(f->size % 1001);
    nats_faults.doubled_per_mille = (unsigned)(f->size / 1001 % 500);
    nats_faults.delay_ns = (f->size / 500500 % 8) * SIM_SECOND;
}

static void end_nats_loses(const struct fault *f)
{
    (void)f;
    nats_faults.lost_per_mille = 0;
    nats_faults.doubled_per_mille = 0;
    nats_faults.delay_ns = 3 * SIM_MS;
}

static void begin_nats_is_behind(const struct fault *f)
{
    nats_faults.behind_ns = (1 + f->size % 60) * SIM_SECOND;
}

static void end_nats_is_behind(const struct fault *f)
{
    (void)f;
    nats_faults.behind_ns = 0;
}

static void begin_nats_races(const struct fault *f)
{
    (void)f;
    nats_faults.races = true;
}

static void end_nats_races(const struct fault *f)
{
    (void)f;
    nats_faults.races = false;
}

static void begin_bucket_is_full(const struct fault *f)
{
    (void)f;
    nats_faults.full = true;
}

static void end_bucket_is_full(const struct fault *f)
{
    (void)f;
    nats_faults.full = false;
}

static void begin_bucket_key_goes(const struct fault *f)
{
    static const char *const prefixes[] = {"head", "manifest.", "chunk.", "root."};
    struct slice key;
    struct slice value;
    if (!nats_any_of(WORLD_SNAPSHOTS, prefixes[f->size % 4], &key, &value)) {
        return;
    }
    if (f->size / 4 % 2 == 0) {
        nats_mark(WORLD_SNAPSHOTS, key);
    } else {
        nats_forget(WORLD_SNAPSHOTS, key);
    }
}

static void begin_bucket_is_purged(const struct fault *f)
{
    (void)f;
    nats_forget(WORLD_SNAPSHOTS, (struct slice){0});
}

static void begin_bucket_is_destroyed(const struct fault *f)
{
    if (f->size % 4 == 0) {
        nats_destroy(WORLD_NODES);
    }
    nats_destroy(WORLD_SNAPSHOTS);
}

static void begin_bucket_goes_back(const struct fault *f)
{
    (void)f;
    nats_backup(WORLD_SNAPSHOTS);
}

static void end_bucket_goes_back(const struct fault *f)
{
    (void)f;
    nats_restore(WORLD_SNAPSHOTS);
}

/* ---- the database ---- */

static void begin_database_is_down(const struct fault *f)
{
    (void)f;
    database_faults.down = true;
}

static void end_database_is_down(const struct fault *f)
{
    (void)f;
    database_faults.down = false;
}

static void begin_database_answers_get_lost(const struct fault *f)
{
    database_faults.unknown_per_mille = 20 + (unsigned)(f->size % 200);
}

static void end_database_answers_get_lost(const struct fault *f)
{
    (void)f;
    database_faults.unknown_per_mille = 0;
}

static void begin_database_goes_back(const struct fault *f)
{
    (void)f;
    database_backup();
}

static void end_database_goes_back(const struct fault *f)
{
    (void)f;
    database_restore();
}

/* ---- keys ---- */

static void begin_root_changes(const struct fault *f)
{
    if (world.root_count + 2 < ROOTS_MAX) {
        world_rekey(replica_of(f));
        world_next_root(/* floor= */ NULL);
    }
}

static void begin_intruder(const struct fault *f)
{
    intruder_strike(f->size);
}

void chaos_revoke(void)
{
    struct cp_lease row = {0};
    struct cp_store *store = database_store();
    if (!intruder_has_key()) {
        return;
    }
    CHECK(err_ok(store->ops->lease_read(store, WORLD_ENVIRONMENT, &row)));
    struct root_floor floor = {.epoch = row.epoch, .version = ledger_newest()};
    world_rekey(&world.replicas[INTRUDER_VICTIM]);
    world_next_root(intruder_went_far() ? &floor : NULL);
}

/* ---- the table ---- */

typedef void fault_fn(const struct fault *f);

struct fault_row {
    const char *name;
    fault_fn *begin;
    fault_fn *end; /* NULL: nothing is left to mend. */
};

#define ROW(name, mend) [FAULT_##name] = {#name, begin_##name, mend}
static const struct fault_row rows[FAULT_KIND_COUNT] = {
    ROW(replica_dies, raise_replica),
    ROW(replica_dies_publishing, raise_replica),
    ROW(replica_stops, NULL),
    ROW(replica_ends, raise_replica),
    ROW(replicas_die, end_replicas_die),
    ROW(signer_dies, NULL),
    ROW(replica_without_nats, end_replica_without_nats),
    ROW(replica_without_database, end_replica_without_database),
    ROW(replica_clock, NULL),
    ROW(node_dies, raise_node),
    ROW(node_dies_writing, raise_node),
    ROW(node_loses_power, end_node_loses_power),
    ROW(node_is_wiped, end_node_is_wiped),
    ROW(node_stops, NULL),
    ROW(node_ends, raise_node),
    ROW(node_disk_is_full, end_node_disk_is_full),
    ROW(node_without_nats, end_node_without_nats),
    ROW(node_is_deaf, NULL),
    ROW(node_clock, NULL),
    ROW(nats_is_down, end_nats_is_down),
    ROW(nats_answers_get_lost, end_nats_answers_get_lost),
    ROW(nats_loses, end_nats_loses),
    ROW(nats_is_behind, end_nats_is_behind),
    ROW(nats_races, end_nats_races),
    ROW(bucket_is_full, end_bucket_is_full),
    ROW(bucket_key_goes, NULL),
    ROW(bucket_is_purged, NULL),
    ROW(bucket_is_destroyed, NULL),
    ROW(bucket_goes_back, end_bucket_goes_back),
    ROW(database_is_down, end_database_is_down),
    ROW(database_answers_get_lost, end_database_answers_get_lost),
    ROW(database_clock, NULL),
    ROW(database_goes_back, end_database_goes_back),
    ROW(root_changes, NULL),
    ROW(intruder, NULL),
};
#undef ROW

static void run_begin(void *ctx)
{
    const struct fault *f = ctx;
    if (f->happens && !chaos.over) {
        sim_note("fault: %s, %llu, for %llu ms", rows[f->kind].name, (unsigned long long)f->who,
                 (unsigned long long)(f->length_ns / SIM_MS));
        rows[f->kind].begin(f);
    }
}

static void run_end(void *ctx)
{
    const struct fault *f = ctx;
    if (f->happens && !chaos.over && rows[f->kind].end != NULL) {
        sim_note("mended: %s, %llu", rows[f->kind].name, (unsigned long long)f->who);
        rows[f->kind].end(f);
    }
}

/* ---- drawing ---- */

struct favourites {
    enum fault_kind kinds[4];
    size_t count;
};

static enum fault_kind find_kind(struct slice name)
{
    int kind = 0;
    while (kind < FAULT_KIND_COUNT && !slice_eq(name, slice_str(rows[kind].name))) {
        kind++;
    }
    CHECK(kind < FAULT_KIND_COUNT);
    return (enum fault_kind)kind;
}

/* "a b c" */
static struct favourites find_favourites(const char *names)
{
    struct favourites found = {0};
    struct slice rest = slice_str(names);
    while (rest.size > 0) {
        struct slice name = slice_head(rest, slice_find(rest, ' '));
        CHECK(found.count < 4);
        found.kinds[found.count++] = find_kind(name);
        rest = slice_from(rest, name.size + 1);
    }
    return found;
}

/* Some schedules are full of a few kinds, others have a bit of everything. */
static struct favourites draw_favourites(void)
{
    struct favourites drawn = {.count = sim_chance(500) ? 0 : sim_between(1, 4)};
    for (size_t i = 0; i < drawn.count; i++) {
        drawn.kinds[i] = (enum fault_kind)sim_random(FAULT_KIND_COUNT);
    }
    return drawn;
}

static enum fault_kind draw_kind(const struct favourites *favourites)
{
    if (favourites->count > 0 && sim_chance(800)) {
        return favourites->kinds[sim_random(favourites->count)];
    }
    return (enum fault_kind)sim_random(FAULT_KIND_COUNT);
}

static uint64_t draw_length_ns(void)
{
    static const uint64_t most_ms[] = {300, 3000, 10000, 25000};
    return sim_between(1, most_ms[sim_random(4)]) * SIM_MS;
}

size_t chaos_begin(uint64_t end_ns, uint64_t left_out, const char *favourites)
{
    struct favourites drawn = favourites == NULL ? draw_favourites() : find_favourites(favourites);
    memset(&chaos, 0, sizeof(chaos));
    intruder_begin();
    if (intruder_has_key()) {
        ledger_leak_head_key();
    }
    chaos.count = sim_between(2, 24);
    CHECK(chaos.count <= FAULTS_MAX);
    for (size_t i = 0; i < chaos.count; i++) {
        struct fault *f = &chaos.faults[i];
        *f = (struct fault){.kind = draw_kind(&drawn),
                            .at_ns = sim_random(end_ns),
                            .length_ns = draw_length_ns(),
                            .who = sim_random(64),
                            .size = sim_random(UINT64_MAX),
                            .happens = (left_out & UINT64_C(1) << i) == 0};
        sim_at(f->at_ns, run_begin, f);
        sim_at(f->at_ns + f->length_ns, run_end, f);
    }
    return chaos.count;
}

void chaos_end(void)
{
    chaos.over = true;
}

void chaos_print(uint64_t left_out)
{
    for (size_t i = 0; i < chaos.count; i++) {
        const struct fault *f = &chaos.faults[i];
        if ((left_out & UINT64_C(1) << i) == 0) {
            (void)printf("  %8.3f s  %s, %llu, for %.3f s\n", (double)f->at_ns / 1e9,
                         rows[f->kind].name, (unsigned long long)f->who,
                         (double)f->length_ns / 1e9);
        }
    }
}
