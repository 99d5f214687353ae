/* Proves which statuses count: of whom, in which order, of which time; that a flood in a node's
 * name costs one verification a second; and that made-up names keep nobody out. */
#include "controlplane/fleet/roll.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "controlplane/identity/ceremony.h"

#include "tests/support/cmocka.h"

#define MS UINT64_C(1000000)
#define WALL_MS 1700000000000LL

enum { NODES = 3 };

static char directory[] = "/tmp/trilane-roll-XXXXXX";
static uint8_t environment[ENVIRONMENT_SIZE];
static struct key_pair pairs[NODES]; /* of node-0 … */
static struct cp_roll *roll;
static struct cp_roll_now now;

static int setup(void **state)
{
    (void)state;
    now = (struct cp_roll_now){.mono_ns = 1000000 * MS, .wall_ms = WALL_MS};
    return err_ok(cp_roll_new("prod", directory, &roll)) ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    cp_roll_free(roll);
    return 0;
}

static void pass_ms(uint64_t ms)
{
    now.mono_ns += ms * MS;
    now.wall_ms += (int64_t)ms;
}

static struct cp_roll_member member_of(size_t index, bool removed)
{
    struct cp_roll_member m = {.proved = true, .removed = removed};
    (void)snprintf(m.id, sizeof(m.id), "node-%zu", index);
    memcpy(m.status_key, pairs[index].public.bytes, KEY_PUBLIC_SIZE);
    return m;
}

static void enrol(size_t index, bool removed)
{
    struct cp_roll_member m = member_of(index, removed);
    cp_roll_enrol(roll, &m, 1, &now);
}

/* A status of a node, signed by a pair. */
static struct buf sealed(const struct key_pair *by, const char *node, uint64_t count, int64_t at_ms)
{
    struct status s = {.version = count,
                       .epoch = count,
                       .sequence = count,
                       .state = SNAP_GOOD,
                       .at_ms = at_ms,
                       .format = 1,
                       .count = count};
    struct buf out = BUF_MAX(4096);
    (void)snprintf(s.node, sizeof(s.node), "%s", node);
    assert_int_equal(status_seal(&s, environment, by, &out).code, E_OK);
    return out;
}

static void offer_as(const char *id, const struct key_pair *by, const char *node, uint64_t count,
                     int64_t at_ms)
{
    struct buf bytes = sealed(by, node, count, at_ms);
    cp_roll_offer(roll, slice_str(id), buf_slice(&bytes), &now);
    buf_free(&bytes);
}

static void offer(uint64_t count)
{
    offer_as("node-0", &pairs[0], "node-0", count, now.wall_ms);
}

static void recall(uint64_t count, int64_t at_ms)
{
    struct buf bytes = sealed(&pairs[0], "node-0", count, at_ms);
    cp_roll_recall(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    buf_free(&bytes);
}

static struct cp_status_counters counters(void)
{
    struct cp_status_counters c;
    cp_roll_counters(roll, &c);
    return c;
}

static struct cp_fleet_tally tally(void)
{
    struct cp_fleet_tally found;
    cp_roll_tally(roll, &now, &found);
    return found;
}

/* The node as the list has it; all zero when it is not there. */
static struct cp_fleet_node listed(const char *id)
{
    struct cp_fleet_node *nodes = NULL;
    struct cp_fleet_node found = {.verified = false};
    size_t count = 0;
    assert_int_equal(cp_roll_list(roll, &now, &nodes, &count).code, E_OK);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(nodes[i].id, id) == 0) {
            found = nodes[i];
        }
    }
    free(nodes);
    return found;
}

/* ---- health ---- */

static void offer_health(uint64_t count, uint32_t numbers, uint32_t degraded)
{
    struct status s = {.version = count,
                       .node = "node-0",
                       .state = SNAP_GOOD,
                       .at_ms = now.wall_ms,
                       .format = 1,
                       .health_count = numbers,
                       .count = count};
    for (uint32_t i = 0; i < numbers; i++) {
        s.health[i] = i == STATUS_HEALTH_DEGRADED ? degraded : 77;
    }
    struct buf bytes = BUF_MAX(4096);
    assert_int_equal(status_seal(&s, environment, &pairs[0], &bytes).code, E_OK);
    cp_roll_offer(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    buf_free(&bytes);
    pass_ms(2000);
}

/* A node of the release before says no numbers, one of the next says more of them. */
static void health_is_what_is_known_of_it(void **state)
{
    (void)state;
    enrol(0, false);
    static const struct {
        uint32_t numbers;
        uint32_t degraded;
        uint64_t counted;
    } rows[] = {{0, 0, 0}, {1, 0, 0}, {1, 2, 1}, {3, 5, 1}, {STATUS_HEALTH_MAX, 0, 0}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        offer_health(10 + i, rows[i].numbers, rows[i].degraded);
        struct cp_fleet_node node = listed("node-0");
        assert_true(node.verified && node.live);
        assert_int_equal(node.status.version, 10 + i);
        assert_int_equal(cp_fleet_degraded(&node.status), rows[i].degraded);
        assert_int_equal(tally().degraded, rows[i].counted);
    }
}

/* ---- whose ---- */

static void a_status_is_the_enrolled_keys(void **state)
{
    (void)state;
    enrol(0, false);
    enrol(1, false);
    assert_string_equal(listed("node-0").id, ""); /* enrolled, and silent. */
    assert_int_equal(tally().heard, 0);
    offer(7);
    assert_int_equal(tally().heard, 1);
    assert_int_equal(tally().live, 1);
    assert_true(listed("node-0").verified);
    assert_true(listed("node-0").live);
    assert_int_equal(listed("node-0").status.version, 7);
    pass_ms(2000);
    offer_as("node-0", &pairs[1], "node-0", 8, now.wall_ms); /* another node's key, */
    pass_ms(2000);
    offer_as("node-0", &pairs[1], "node-1", 8, now.wall_ms); /* another node's status, */
    pass_ms(2000);
    offer_as("node-1", &pairs[0], "node-0", 9, now.wall_ms); /* and ours under another name. */
    assert_int_equal(counters().unverified, 3);
    assert_int_equal(listed("node-0").status.version, 7);
    assert_false(listed("node-1").verified);
    assert_int_equal(listed("node-1").why, E_UNAUTHENTICATED);
}

static void a_key_file_enrols_by_hand(void **state)
{
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/node-2.pub", directory);
    assert_int_equal(cp_key_write_public(path, &pairs[2].public).code, E_OK);
    offer_as("node-2", &pairs[2], "node-2", 1, now.wall_ms);
    assert_true(listed("node-2").verified);
    assert_int_equal(unlink(path), 0);
    pass_ms(2000);
    offer_as("node-2", &pairs[2], "node-2", 2, now.wall_ms);
    assert_int_equal(counters().unverified, 1);
}

/* A row that no certificate of ours stands behind: it may be of a release before, or of whoever
 * can write to the database. */
static void enrol_unproved(size_t index, const struct key_pair *key)
{
    struct cp_roll_member m = member_of(index, /* removed= */ false);
    m.proved = false;
    memset(m.status_key, 0, KEY_PUBLIC_SIZE);
    if (key != NULL) {
        memcpy(m.status_key, key->public.bytes, KEY_PUBLIC_SIZE);
    }
    cp_roll_enrol(roll, &m, 1, &now);
}

static void a_row_alone_is_believed_in_nothing(void **state)
{
    (void)state;
    struct cp_fleet_order order;
    const struct cp_fleet_order any = {.epoch = UINT64_MAX, .version = UINT64_MAX};
    enrol_unproved(0, &pairs[0]);
    offer(7);
    struct cp_fleet_node node = listed("node-0");
    assert_false(node.verified);
    assert_int_equal(node.why, E_CERTIFICATE_MISSING);
    assert_true(node.claimed && node.live); /* what needs more than it can do is held up. */
    assert_int_equal(node.status.version, 7);
    assert_int_equal(tally().live, 0);
    cp_roll_order(roll, &now, &any, &order);
    assert_int_equal(order.version, 0);
    assert_int_equal(counters().accepted, 0);
    assert_int_equal(counters().unverified, 1);
    pass_ms(2000);
    offer_as("node-0", &pairs[1], "node-0", 8, now.wall_ms); /* a stranger. */
    assert_true(listed("node-0").claimed);
    assert_int_equal(listed("node-0").age_ms, 2000);
    /* It renewed: what it said was its own. */
    enrol(0, false);
    node = listed("node-0");
    assert_true(node.verified && node.live && !node.claimed);
    assert_int_equal(node.why, E_OK);
    assert_int_equal(tally().live, 1);
    pass_ms(2000);
    offer(8);
    assert_int_equal(counters().accepted, 1);
}

static void what_nobody_believes_drowns_nothing(void **state)
{
    (void)state;
    struct cp_fleet_order order;
    const struct cp_fleet_order most = {.epoch = 5, .version = 5};
    enrol(0, false);
    enrol(1, false);
    offer_as("node-0", &pairs[0], "node-0", 5, now.wall_ms);
    offer_as("node-1", &pairs[1], "node-1", 6, now.wall_ms);
    cp_roll_order(roll, &now, &most, &order);
    assert_int_equal(order.epoch, 5);
    assert_int_equal(order.sequence, 5);
    assert_int_equal(order.version, 5);
}

static void a_row_alone_takes_no_nodes_place(void **state)
{
    (void)state;
    char path[256];
    enrol(0, false);
    offer(1);
    enrol_unproved(0, &pairs[1]);
    assert_true(listed("node-0").verified);
    pass_ms(2000);
    offer_as("node-0", &pairs[1], "node-0", 2, now.wall_ms);
    assert_int_equal(listed("node-0").status.version, 1);
    pass_ms(2000);
    offer(3);
    assert_int_equal(listed("node-0").status.version, 3);
    assert_true(listed("node-0").verified);
    /* Nor that of one that was enrolled by hand. */
    (void)snprintf(path, sizeof(path), "%s/node-2.pub", directory);
    assert_int_equal(cp_key_write_public(path, &pairs[2].public).code, E_OK);
    enrol_unproved(2, &pairs[1]);
    offer_as("node-2", &pairs[1], "node-2", 9, now.wall_ms);
    assert_false(listed("node-2").claimed);
    pass_ms(2000);
    offer_as("node-2", &pairs[2], "node-2", 1, now.wall_ms);
    assert_true(listed("node-2").verified);
    enrol_unproved(2, &pairs[1]);
    assert_true(listed("node-2").verified);
    assert_int_equal(unlink(path), 0);
    /* A row that says no key. */
    enrol_unproved(1, NULL);
    offer_as("node-1", &pairs[1], "node-1", 1, now.wall_ms);
    assert_false(listed("node-1").verified || listed("node-1").claimed);
    assert_int_equal(listed("node-1").why, E_CERTIFICATE_MISSING);
}

static void a_removed_node_counts_no_more(void **state)
{
    (void)state;
    enrol(0, false);
    offer(1);
    assert_true(listed("node-0").live);
    enrol(0, true);
    assert_false(listed("node-0").live);
    assert_int_equal(tally().heard, 1);
    assert_int_equal(tally().live, 0);
    assert_int_equal(listed("node-0").why, E_NODE_REMOVED);
    uint64_t verified = counters().verified;
    for (uint64_t i = 2; i < 5; i++) {
        pass_ms(2000);
        offer(i);
    }
    assert_int_equal(counters().removed, 3);
    assert_int_equal(counters().verified, verified);
    recall(9, now.wall_ms);
    assert_false(listed("node-0").verified);
}

/* It joined anew: what its old key says, and said, is not its word. */
static void another_key_is_another_node(void **state)
{
    (void)state;
    enrol(0, false);
    offer(1000);
    struct cp_roll_member m = member_of(0, false);
    memcpy(m.status_key, pairs[1].public.bytes, KEY_PUBLIC_SIZE);
    cp_roll_enrol(roll, &m, 1, &now);
    assert_false(listed("node-0").verified);
    pass_ms(2000);
    offer(1001);
    assert_false(listed("node-0").verified);
    pass_ms(2000);
    struct key_pair renamed = pairs[1];
    (void)snprintf(renamed.public.name, sizeof(renamed.public.name), "node-0");
    offer_as("node-0", &renamed, "node-0", 5, now.wall_ms); /* it counts from anew. */
    assert_true(listed("node-0").verified);
    assert_int_equal(listed("node-0").status.version, 5);
}

static void a_new_node_waits_for_the_store(void **state)
{
    (void)state;
    offer(1);
    assert_true(cp_roll_wants_members(roll));
    assert_int_equal(counters().verified, 0);
    enrol(0, false); /* as it joined a moment ago. */
    pass_ms(1000);
    (void)cp_roll_turn(roll, &now);
    assert_true(listed("node-0").verified);
    assert_int_equal(counters().unverified, 0);
    offer_as("node-1", &pairs[1], "node-1", 1, now.wall_ms); /* one that nobody enrols. */
    assert_true(cp_roll_wants_members(roll));
    pass_ms(1000);
    (void)cp_roll_turn(roll, &now);
    assert_int_equal(counters().unverified, 1);
    offer_as("node-1", &pairs[1], "node-1", 2, now.wall_ms);
    assert_false(cp_roll_wants_members(roll)); /* the store is not asked for it again. */
}

/* ---- in which order ---- */

static void counts_only_grow(void **state)
{
    (void)state;
    enrol(0, false);
    offer(10);
    static const uint64_t replays[] = {10, 9, 1};
    for (size_t i = 0; i < sizeof(replays) / sizeof(replays[0]); i++) {
        pass_ms(1000);
        offer(replays[i]);
    }
    assert_int_equal(counters().replayed, 3);
    assert_int_equal(listed("node-0").status.version, 10);
    pass_ms(1000);
    offer(11);
    assert_int_equal(listed("node-0").status.version, 11);
    assert_int_equal(counters().accepted, 2);
}

/* What lay in the bucket is where the count goes on after a restart of the control plane. */
static void what_lay_in_the_bucket_counts(void **state)
{
    (void)state;
    enrol(0, false);
    recall(50, now.wall_ms - 3600000);
    assert_true(listed("node-0").verified);
    assert_false(listed("node-0").live); /* an hour old. */
    assert_in_range(listed("node-0").age_ms, 999999,
                    3600000);          /* since the clock's start, at most. */
    recall(50, now.wall_ms - 3600000); /* read again after a reconnect: no replay. */
    recall(49, now.wall_ms - 3600000);
    assert_int_equal(counters().replayed, 0);
    pass_ms(1000);
    offer(50);
    pass_ms(1000);
    offer(20);
    assert_int_equal(counters().replayed, 2);
    pass_ms(1000);
    offer(51);
    assert_true(listed("node-0").live);
}

static void statuses_are_of_now(void **state)
{
    (void)state;
    int64_t tolerance_ms = (int64_t)limits.clock_tolerance_ms;
    int64_t beat_ms = (int64_t)(limits.status_interval_ms + limits.status_interval_ms / 5);
    static const struct {
        int64_t off_beats;
        int64_t off_tolerances;
        int64_t more;
        bool counts;
    } cases[] = {{0, 1, 0, true}, {0, 1, 1, false}, {-1, -1, 0, true}, {-1, -1, -1, false}};
    enrol(0, false);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = counters().accepted;
        pass_ms(1000);
        int64_t at_ms = now.wall_ms + cases[i].off_beats * beat_ms +
                        cases[i].off_tolerances * tolerance_ms + cases[i].more;
        offer_as("node-0", &pairs[0], "node-0", 100 + i, at_ms);
        assert_int_equal(counters().accepted - before, cases[i].counts);
    }
    assert_int_equal(counters().skewed, 2);
    pass_ms(1000);
    recall(1000, now.wall_ms + tolerance_ms + 1); /* a count from the future would lock it out. */
    offer(200);
    pass_ms(1000);
    (void)cp_roll_turn(roll, &now);
    assert_int_equal(listed("node-0").status.version, 200);
}

/* ---- how often ---- */

static void a_flood_costs_one_verification_a_second(void **state)
{
    (void)state;
    enum { SECONDS = 5, A_SECOND = 10000 };
    enrol(0, false);
    enrol(1, false);
    struct buf forged = sealed(&pairs[1], "node-0", 1, now.wall_ms);
    for (int i = 0; i < SECONDS * A_SECOND; i++) {
        cp_roll_offer(roll, SLICE_LIT("node-0"), buf_slice(&forged), &now);
        now.mono_ns += 1000 * MS / A_SECOND;
        if (i % 100 == 0) {
            (void)cp_roll_turn(roll, &now);
        }
    }
    buf_free(&forged);
    now.wall_ms += SECONDS * 1000;
    assert_in_range(counters().verified, 1, SECONDS + 1);
    assert_in_range(counters().superseded, SECONDS * (A_SECOND - 200), SECONDS * A_SECOND);
    uint64_t before = counters().verified;
    offer_as("node-1", &pairs[1], "node-1", 1, now.wall_ms); /* others do not wait for it. */
    assert_int_equal(counters().verified, before + 1);
    assert_true(listed("node-1").live);
}

static void the_latest_wins(void **state)
{
    (void)state;
    enrol(0, false);
    offer(1);
    for (uint64_t i = 2; i <= 5; i++) {
        offer(i);
    }
    assert_int_equal(listed("node-0").status.version, 1);
    pass_ms(990);
    assert_in_range(cp_roll_turn(roll, &now), 10, 11); /* when to come again. */
    assert_int_equal(listed("node-0").status.version, 1);
    pass_ms(10);
    assert_int_equal(cp_roll_turn(roll, &now), UINT64_MAX);
    assert_int_equal(listed("node-0").status.version, 5);
    assert_int_equal(counters().superseded, 3);
    assert_int_equal(counters().verified, 2);
}

/* ---- how many ---- */

static void made_up_names_have_few_places(void **state)
{
    (void)state;
    struct buf bytes = sealed(&pairs[0], "node-0", 1, now.wall_ms);
    for (int i = 0; i < 1000; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "made-up-%d", i);
        cp_roll_offer(roll, slice_str(id), buf_slice(&bytes), &now);
    }
    assert_int_equal(counters().unknown, 1000 - CP_ROLL_UNKNOWN_MAX);
    enrol(0, false); /* a real one comes in all the same. */
    cp_roll_offer(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    assert_true(listed("node-0").verified);
    pass_ms(1000);
    (void)cp_roll_turn(roll, &now);
    assert_int_equal(counters().unverified, CP_ROLL_UNKNOWN_MAX);
    pass_ms((CP_ROLL_UNKNOWN_KEPT_S + 1) * UINT64_C(1000)); /* and they are forgotten. */
    enrol(0, false);
    offer_as("made-up-999", &pairs[1], "node-1", 1, now.wall_ms);
    assert_int_equal(counters().unknown, 1000 - CP_ROLL_UNKNOWN_MAX);
    buf_free(&bytes);
}

static void what_is_no_status_is_refused(void **state)
{
    (void)state;
    uint8_t large[1000] = {0};
    enrol(0, false);
    cp_roll_offer(roll, SLICE_LIT("not a name"), SLICE_LIT("x"), &now);
    cp_roll_offer(roll, SLICE_LIT(""), SLICE_LIT("x"), &now);
    assert_int_equal(counters().unknown, 2);
    cp_roll_offer(roll, SLICE_LIT("node-0"), SLICE_LIT("x"), &now);
    assert_int_equal(counters().unverified, 1);
    cp_roll_offer(roll, SLICE_LIT("node-0"), slice_of(large, sizeof(large)), &now);
    assert_int_equal(counters().crowded, 1); /* larger than any status: it does not wait. */
}

static void members_are_walked(void **state)
{
    (void)state;
    char id[KEY_NAME_MAX + 1];
    size_t at = 0;
    size_t count = 0;
    enrol(0, false);
    enrol(1, true);
    enrol(2, false);
    offer_as("made-up", &pairs[0], "node-0", 1, now.wall_ms);
    while (cp_roll_next_member(roll, &at, id)) {
        assert_true(strcmp(id, "node-0") == 0 || strcmp(id, "node-2") == 0);
        count++;
    }
    assert_int_equal(count, 2);
}

static void a_missing_chunk_wants_a_restore(void **state)
{
    (void)state;
    enrol(0, false);
    struct status s = {.node = "node-0",
                       .state = SNAP_REFUSED,
                       .code = E_CHUNK_MISSING,
                       .at_ms = now.wall_ms,
                       .count = 1,
                       .format = 1};
    struct buf bytes = BUF_MAX(4096);
    assert_int_equal(status_seal(&s, environment, &pairs[0], &bytes).code, E_OK);
    cp_roll_recall(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    assert_false(cp_roll_wants_restore(roll)); /* it may have been long ago. */
    buf_clear(&bytes);
    s.count = 2;
    assert_int_equal(status_seal(&s, environment, &pairs[0], &bytes).code, E_OK);
    pass_ms(1000);
    cp_roll_offer(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    assert_true(cp_roll_wants_restore(roll));
    assert_false(cp_roll_wants_restore(roll));
    assert_int_equal(tally().refusing, 1);
    s.code = E_HEAD_UNSIGNED; /* by a key of a root that it does not find. */
    s.count = 3;
    buf_clear(&bytes);
    assert_int_equal(status_seal(&s, environment, &pairs[0], &bytes).code, E_OK);
    pass_ms(1000);
    cp_roll_offer(roll, SLICE_LIT("node-0"), buf_slice(&bytes), &now);
    assert_true(cp_roll_wants_restore(roll));
    enrol(1, false);
    offer_as("node-1", &pairs[1], "node-1", 1, now.wall_ms);
    assert_int_equal(tally().live, 2);
    assert_int_equal(tally().refusing, 1);
    pass_ms(60 * 60 * UINT64_C(1000));
    assert_int_equal(tally().heard, 2);
    assert_int_equal(tally().refusing, 0); /* nobody lives. */
    buf_free(&bytes);
}

/* ---- from other threads ---- */

static void *list_often(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < 300; i++) {
        struct cp_fleet_node *nodes = NULL;
        struct cp_roll_now moment = {.mono_ns = UINT64_MAX / 2, .wall_ms = WALL_MS};
        size_t count = 0;
        CHECK(err_ok(cp_roll_list(roll, &moment, &nodes, &count)));
        free(nodes);
        struct cp_status_counters c;
        cp_roll_counters(roll, &c);
    }
    return NULL;
}

static void others_may_look(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, list_often, NULL), 0);
    for (uint64_t i = 1; i < 200; i++) {
        enrol(i % NODES, i % 50 == 0);
        offer(i);
        pass_ms(700);
        (void)cp_roll_turn(roll, &now);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    snap_environment(SLICE_LIT("prod"), environment);
    for (size_t i = 0; i < NODES; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "node-%zu", i);
        CHECK(err_ok(key_pair_new(KEY_ROLE_NODE, slice_str(name), &pairs[i])));
    }
    const struct CMUnitTest tests[] = {
        TEST(health_is_what_is_known_of_it),
        TEST(a_status_is_the_enrolled_keys),
        TEST(a_key_file_enrols_by_hand),
        TEST(a_row_alone_is_believed_in_nothing),
        TEST(what_nobody_believes_drowns_nothing),
        TEST(a_row_alone_takes_no_nodes_place),
        TEST(a_removed_node_counts_no_more),
        TEST(another_key_is_another_node),
        TEST(a_new_node_waits_for_the_store),
        TEST(counts_only_grow),
        TEST(what_lay_in_the_bucket_counts),
        TEST(statuses_are_of_now),
        TEST(a_flood_costs_one_verification_a_second),
        TEST(the_latest_wins),
        TEST(made_up_names_have_few_places),
        TEST(what_is_no_status_is_refused),
        TEST(members_are_walked),
        TEST(a_missing_chunk_wants_a_restore),
        TEST(others_may_look),
    };
    int failed = cmocka_run_group_tests_name("fleet.roll", tests, NULL, NULL);
    return rmdir(directory) == 0 ? failed : 1;
}
