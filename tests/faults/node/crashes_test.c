/* Shows that a node killed at any step of an apply starts again on a valid snapshot, not older
 * than the one that it last reported GOOD; that it starts with everything else dead; and that a
 * full disk, a lost NATS and a snapshot that kills it leave last-good serving, and fail no call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/snapshot/disk.h"
#include "dataplane/apply/apply.h"

#include "tests/faults/node/rig.h"
#include "tests/support/cmocka.h"

static struct rig rig;

static int set_up(void **state)
{
    (void)state;
    rig_start(&rig);
    rig_publish(&rig);
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_wait_status(&rig, 1, SNAP_GOOD);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_end(&rig);
    return 0;
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* `./run test --long` asks for the counts that the issue names. */
static bool is_long(void)
{
    return getenv("TRILANE_TEST_LONG") != NULL; /* NOLINT(concurrency-mt-unsafe) */
}

/* ---- SIGKILL at every step ---- */

#define STEP_NAME(name, text) #name,
static const char *const points[] = {
    DP_APPLY_STEPS(STEP_NAME) "disk.pack_append",
    "disk.pack_appended",
    "disk.pack_sync",
    "disk.floor_create",
    "disk.floor_write",
    "disk.floor_sync",
    "disk.floor_rename",
    "disk.floor_dir_sync",
    "disk.floor_done",
};
#undef STEP_NAME

/* Keeps heads coming until the node has died. */
static void beat_until_dead(const char *point)
{
    uint64_t until_ns = clock_mono_ns() + UINT64_C(60000000000);
    while (!rig_node_died(&rig)) {
        if (clock_mono_ns() > until_ns) {
            fail_msg("the node lives on past %s", point);
        }
        rig_heartbeat(&rig);
        pause_ms(50);
    }
}

static void killed_at_every_step(void **state)
{
    (void)state;
    size_t count = sizeof(points) / sizeof(points[0]);
    for (size_t round = 0; round < (is_long() ? 10 * count : count); round++) {
        size_t i = round % count;
        uint64_t good = rig.version;
        char fault[64];
        (void)snprintf(fault, sizeof(fault), "%s:kill", points[i]);
        rig_node_kill(&rig);
        rig_node_start(&rig, fault);
        rig_publish(&rig);
        beat_until_dead(points[i]);
        rig_node_start(&rig, NULL);
        /* It serves before any head comes: from its disk alone. */
        struct rig_dump d = {0};
        while (!rig_dump(&rig, &d) || d.version == 0) {
            pause_ms(5);
        }
        if (d.version < good || d.version > rig.version) {
            fail_msg("%s: version %llu after the restart, %llu was GOOD", points[i],
                     (unsigned long long)d.version, (unsigned long long)good);
        }
        rig_heartbeat(&rig);
        rig_wait_version(&rig, rig.version);
        rig_wait_status(&rig, rig.version, SNAP_GOOD);
    }
}

/* ---- a snapshot that kills ---- */

static void three_deaths_fall_back(void **state)
{
    (void)state;
    rig_node_kill(&rig);
    rig_node_start(&rig, "swap:kill");
    rig_wait_version(&rig, 1);
    rig_publish(&rig);
    beat_until_dead("swap");
    for (int i = 0; i < 3; i++) {
        rig_node_start(&rig, "load:kill");
        beat_until_dead("load");
    }
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_heartbeat(&rig);
    rig_wait_refusal(&rig, "CRASHED_NODE", 0);
    rig_wait_status_code(&rig, E_CRASHED_NODE);
    assert_true(rig_ready(&rig));
    rig_publish(&rig);
    rig_wait_version(&rig, 3);
    rig_wait_status(&rig, 3, SNAP_GOOD);
}

/* ---- the disk ---- */

static uint64_t pack_size(void)
{
    char path[256];
    struct stat s;
    (void)snprintf(path, sizeof(path), "%s/data/state/pack", rig.directory);
    assert_int_equal(stat(path, &s), 0);
    return (uint64_t)s.st_size;
}

static void disk_full(void **state)
{
    (void)state;
    rig_node_kill(&rig);
    rig.file_bytes_max = pack_size() + 64;
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_traffic_start(&rig);
    rig_publish(&rig);
    rig_wait_refusal(&rig, "PERSIST_FAILED", 0);
    rig_wait_status_code(&rig, E_PERSIST_FAILED);
    assert_true(rig_metric(&rig, "trilane_snapshot_refusals_total{code=\"PERSIST_FAILED\"}") >= 1);
    assert_true(rig_log_has(&rig, "code=PERSIST_FAILED"));
    struct rig_dump d;
    assert_true(rig_dump(&rig, &d));
    assert_int_equal(d.version, 1);
    assert_true(rig_ready(&rig));
    rig_traffic_end(&rig);
    /* Room again: a restart with it goes on from last-good. */
    rig_node_kill(&rig);
    rig.file_bytes_max = 0;
    rig_node_start(&rig, NULL);
    rig_heartbeat(&rig);
    rig_wait_version(&rig, 2);
    rig_wait_status(&rig, 2, SNAP_GOOD);
}

static void disk_refuses_at_every_step(void **state)
{
    (void)state;
    static const char *const faults[] = {"disk.pack_append:error", "disk.pack_sync:error",
                                         "persist:error"};
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        uint64_t good = rig.version;
        rig_node_kill(&rig);
        rig_node_start(&rig, faults[i]);
        rig_wait_version(&rig, good);
        rig_publish(&rig);
        rig_wait_refusal(&rig, i < 2 ? "PERSIST_FAILED" : "IO", 0);
        assert_true(rig_ready(&rig));
        rig_node_kill(&rig);
        rig_node_start(&rig, NULL);
        rig_heartbeat(&rig);
        rig_wait_version(&rig, rig.version);
        rig_wait_status(&rig, rig.version, SNAP_GOOD);
    }
}

/* ---- NATS ---- */

static void starts_with_all_else_dead(void **state)
{
    (void)state;
    assert_int_equal(rig_node_stop(&rig), 0);
    rig_nats_kill(&rig);
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_traffic_start(&rig);
    assert_true(rig_ready(&rig));
    rig_wait_state(&rig, "STALE");
    rig_nats_start(&rig);
    rig_buckets(&rig);
    rig_publish(&rig);
    rig_wait_version(&rig, 2);
    rig_wait_status(&rig, 2, SNAP_GOOD);
    rig_traffic_end(&rig);
}

static void nats_away_and_back(void **state)
{
    (void)state;
    rig_traffic_start(&rig);
    rig_nats_kill(&rig);
    uint64_t away_s = is_long() ? 15 : 3;
    uint64_t until_ns = clock_mono_ns() + away_s * UINT64_C(1000000000);
    while (clock_mono_ns() < until_ns) {
        assert_true(rig_ready(&rig));
        pause_ms(100);
    }
    rig_wait_state(&rig, "STALE");
    assert_true(rig_log_has(&rig, "state=STALE"));
    assert_true(rig_metric(&rig, "trilane_snapshot_state{state=\"STALE\"}") == 1);
    rig_nats_start(&rig);
    rig_buckets(&rig);
    rig_publish(&rig);
    rig_wait_version(&rig, 2);
    rig_wait_state(&rig, "GOOD");
    rig_traffic_end(&rig);
}

static void wait_log(const char *text)
{
    uint64_t until_ns = clock_mono_ns() + UINT64_C(60000000000);
    while (!rig_log_has(&rig, text)) {
        assert_true(clock_mono_ns() < until_ns);
        pause_ms(10);
    }
}

static void nats_lost_during_an_apply(void **state)
{
    (void)state;
    rig_node_kill(&rig);
    rig.log_level = "debug";
    rig_node_start(&rig, "chunks:pause=5000");
    rig_wait_version(&rig, 1);
    rig_traffic_start(&rig);
    rig_publish(&rig);
    wait_log("step=manifest"); /* what it had on its disk took no steps. */
    rig_nats_kill(&rig);
    rig_wait_refusal(&rig, "CONTENT_UNANSWERED", 0);
    assert_true(rig_ready(&rig));
    struct rig_dump d;
    assert_true(rig_dump(&rig, &d));
    assert_int_equal(d.version, 1);
    rig_nats_start(&rig);
    rig_buckets(&rig);
    rig_heartbeat(&rig);
    rig_wait_version(&rig, 2);
    rig_traffic_end(&rig);
}

/* Takes the nodes' bucket away, and listens in its place: a status has no answer. */
static void lose_nodes_bucket(struct queue *heard, struct bus_subscription **out)
{
    char subject[KV_BUCKET_MAX + 32];
    (void)snprintf(subject, sizeof(subject), "$KV.%s.>", rig.nodes.bucket);
    assert_true(err_ok(queue_init(heard, 1, /* wake= */ NULL, /* wake_ctx= */ NULL)));
    struct slice all = slice_str(subject);
    assert_true(err_ok(bus_subscribe(rig.bus, all, (struct slice){0}, heard, NULL, out)));
    char delete[KV_BUCKET_MAX + 32];
    (void)snprintf(delete, sizeof(delete), "$JS.API.STREAM.DELETE.KV_%s", rig.nodes.bucket);
    struct bus_outgoing message = {.subject = slice_str(delete)};
    assert_true(err_ok(bus_publish(rig.bus, &message)));
}

static void a_status_without_an_answer_holds_up_no_head(void **state)
{
    (void)state;
    struct queue heard;
    struct bus_subscription *subscription = NULL;
    rig_node_kill(&rig);
    rig.fetch_timeout_ms = 15000;
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    lose_nodes_bucket(&heard, &subscription);
    wait_log("event=status-not-sent");
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig);
        uint64_t start_ns = clock_mono_ns();
        rig_wait_version(&rig, rig.version);
        assert_true(clock_mono_ns() - start_ns < UINT64_C(10000000000));
    }
    bus_unsubscribe(rig.bus, subscription);
    queue_free(&heard, bus_message_drop);
}

/* ---- a release before ---- */

/* Publishes a version that asks for what no release can do yet, and stores it as a node of that
 * release would. */
static void store_newer(uint8_t out_digest[DIGEST_SIZE])
{
    char directory[160];
    uint8_t environment[ENVIRONMENT_SIZE];
    struct disk *disk = NULL;
    struct content *c = content_sample(1);
    c->capabilities = UINT64_C(1) << 62;
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    struct snap_set *set = version_set(&rig.publisher, v, NULL);
    (void)snprintf(directory, sizeof(directory), "%s/data/state", rig.directory);
    snap_environment(SLICE_LIT(PUBLISHER_ENVIRONMENT), environment);
    const struct disk_options options = {
        .directory = directory, .environment = environment, .lock_fd = -1};
    const struct disk_apply apply = {
        .manifest = buf_slice(&v->manifest), .set = set, .epoch = rig.epoch};
    assert_true(err_ok(disk_open(&options, &disk)));
    assert_true(err_ok(disk_commit(disk, &apply)));
    disk_close(disk);
    publisher_put_version(&rig.snapshots, v);
    memcpy(out_digest, v->digest, DIGEST_SIZE);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
}

/* It serves neither half of it nor the version before, however often it is killed. */
static void a_downgraded_node_waits(void **state)
{
    (void)state;
    uint8_t digest[DIGEST_SIZE];
    assert_int_equal(rig_node_stop(&rig), 0);
    store_newer(digest);
    for (int i = 0; i < 4; i++) {
        struct head_plan plan = {.version = rig.version, .digest = digest};
        rig_head(&rig, &plan);
        rig_node_start(&rig, NULL);
        rig_wait_refusal(&rig, "CAPABILITY_MISSING", 0);
        rig_wait_status_code(&rig, E_CAPABILITY_MISSING);
        struct rig_dump d;
        assert_true(rig_dump(&rig, &d));
        assert_int_equal(d.version, 0);
        assert_false(rig_ready(&rig));
        rig_node_kill(&rig);
    }
    rig_node_start(&rig, NULL);
    rig_publish(&rig);
    rig_wait_version(&rig, 3);
    rig_wait_status(&rig, 3, SNAP_GOOD);
    assert_true(rig_ready(&rig));
}

/* ---- many, and the end ---- */

static void many_versions_in_a_row(void **state)
{
    (void)state;
    rig_traffic_start(&rig);
    for (int i = 0; i < 25; i++) {
        rig_publish(&rig);
    }
    rig_wait_version(&rig, rig.version);
    rig_wait_state(&rig, "GOOD");
    struct rig_dump d;
    assert_true(rig_dump(&rig, &d));
    assert_true(d.live <= 3);
    rig_traffic_end(&rig);
    assert_int_equal(rig_node_stop(&rig), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_at_every_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(three_deaths_fall_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(disk_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(disk_refuses_at_every_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(starts_with_all_else_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nats_away_and_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nats_lost_during_an_apply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_status_without_an_answer_holds_up_no_head, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_downgraded_node_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_versions_in_a_row, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
