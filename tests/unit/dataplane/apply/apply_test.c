/* Proves that the apply thread serves its disk without a bus, says how it stands, gives models
 * back, and owns its directory alone. What it does with heads is in walk_test.c and in
 * tests/faults/node. */
#include "dataplane/apply/apply.h"

#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/lock.h"
#include "common/snapshot/disk.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"

struct world {
    char directory[64];
    struct publisher publisher;
    struct metrics *metrics;
    struct {
        struct lock lock;
        struct dp_model *model GUARDED; /* what the workers would serve. */
        uint64_t version GUARDED;
    } shared;
};

static struct world w;

static void swap(void *ctx, struct dp_model *model)
{
    (void)ctx;
    lock_take(&w.shared.lock);
    struct dp_model *before = w.shared.model;
    w.shared.model = dp_model_ref(model);
    w.shared.version = dp_model_version(model);
    lock_drop(&w.shared.lock);
    dp_model_unref(before);
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served(void *ctx)
{
    (void)ctx;
    lock_take(&w.shared.lock);
    uint64_t version = w.shared.version;
    lock_drop(&w.shared.lock);
    return version;
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    lock_init(&w.shared.lock);
    (void)snprintf(w.directory, sizeof(w.directory), "/tmp/trilane-apply-XXXXXX");
    assert_non_null(mkdtemp(w.directory));
    publisher_init(&w.publisher);
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    return 0;
}

static int remove_entry(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    /* Nobody else walks a tree in this process. */
    /* NOLINTNEXTLINE(concurrency-mt-unsafe) */
    (void)nftw(w.directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    metrics_free(w.metrics);
    publisher_free(&w.publisher);
    lock_free(&w.shared.lock);
    return 0;
}

/* As an earlier life of the node left it. */
static void write_disk(uint64_t number)
{
    struct content *c = content_sample(1);
    struct version *v = version_new(&w.publisher, c, number, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT(PUBLISHER_ENVIRONMENT), environment);
    struct disk_options options = {
        .directory = w.directory,
        .environment = environment,
        .trust_root = buf_slice(&w.publisher.root_bytes),
        .lock_fd = -1,
    };
    struct disk *disk = NULL;
    assert_true(err_ok(disk_open(&options, &disk)));
    struct disk_apply apply = {.manifest = buf_slice(&v->manifest), .set = set, .epoch = 3};
    assert_true(err_ok(disk_commit(disk, &apply)));
    assert_true(err_ok(disk_mark_good(disk)));
    disk_close(disk);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
}

static struct err start(struct dp_apply **out)
{
    struct dp_apply_config config = {
        .environment = SLICE_LIT(PUBLISHER_ENVIRONMENT),
        .node = SLICE_LIT("node-1"),
        .state_dir = w.directory,
        .trust_root = buf_slice(&w.publisher.root_bytes),
        .workers = {.swap = swap, .fresh = fresh, .served = served},
        .metrics = w.metrics,
        .shard = metrics_shard(w.metrics, 0),
    };
    return dp_apply_start(&config, out);
}

static void stop(struct dp_apply *apply)
{
    lock_take(&w.shared.lock);
    struct dp_model *model = w.shared.model;
    w.shared.model = NULL;
    lock_drop(&w.shared.lock);
    dp_apply_stop(apply);
    dp_model_unref(model);
    dp_apply_free(apply);
}

/* Looks of 5 ms each. */
enum { LOOKS_MAX = 6000 };

static struct dp_apply_status wait_state(struct dp_apply *apply, enum snap_state state)
{
    struct dp_apply_status s = {0};
    for (int i = 0; i < LOOKS_MAX; i++) {
        dp_apply_status(apply, &s);
        if (s.state == state) {
            return s;
        }
        struct timespec t = {.tv_nsec = 5000000};
        (void)nanosleep(&t, NULL);
    }
    fail_msg("state %s never came; it is %s", snap_state_name(state), snap_state_name(s.state));
    return s;
}

static void serves_its_disk(void **state)
{
    (void)state;
    write_disk(12);
    struct dp_apply *apply = NULL;
    assert_true(err_ok(start(&apply)));
    /* No head was accepted in this life: what is served is stale, and is served. */
    struct dp_apply_status s = wait_state(apply, SNAP_STALE);
    assert_int_equal(s.version, 12);
    assert_int_equal(s.code, E_OK);
    assert_int_equal(s.contact_age_ms, -1);
    assert_int_equal(s.content_age_ms, -1);
    assert_int_equal(s.root_version, 1);
    assert_int_equal(s.live_snapshots, 1);
    struct dp_model *model = dp_apply_model(apply);
    assert_true(dp_model_has_tenant(model, SLICE_LIT("acme")));
    dp_model_unref(model);
    dp_apply_drain(apply);
    (void)wait_state(apply, SNAP_DRAINING);
    stop(apply);
}

/* From the first look on it says that it loads, and not that it has nothing. */
static void says_that_it_loads(void **state)
{
    (void)state;
    write_disk(12);
    assert_int_equal(setenv("TRILANE_FAULT", "start:pause=200", 1), 0);
    struct dp_apply *apply = NULL;
    struct dp_apply_status s = {0};
    assert_true(err_ok(start(&apply)));
    for (int i = 0; i < LOOKS_MAX && s.state != SNAP_STALE; i++) {
        dp_apply_status(apply, &s);
        assert_true(s.state == SNAP_STARTING || s.state == SNAP_STALE);
        struct timespec t = {.tv_nsec = 5000000};
        (void)nanosleep(&t, NULL);
    }
    assert_int_equal(s.state, SNAP_STALE);
    assert_int_equal(unsetenv("TRILANE_FAULT"), 0);
    stop(apply);
}

static void has_nothing_to_serve(void **state)
{
    (void)state;
    struct dp_apply *apply = NULL;
    assert_true(err_ok(start(&apply)));
    struct dp_apply_status s = wait_state(apply, SNAP_NONE);
    assert_int_equal(s.version, 0);
    assert_null(dp_apply_model(apply));
    stop(apply);
}

static void owns_its_directory(void **state)
{
    (void)state;
    struct dp_apply *apply = NULL;
    struct dp_apply *second = NULL;
    assert_true(err_ok(start(&apply)));
    assert_int_equal(start(&second).code, E_CONFLICT);
    assert_null(second);
    stop(apply);
}

static void needs_a_root(void **state)
{
    (void)state;
    buf_clear(&w.publisher.root_bytes);
    struct dp_apply *apply = NULL;
    assert_int_equal(start(&apply).code, E_ROOT_MISSING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(serves_its_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_that_it_loads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(has_nothing_to_serve, set_up, tear_down),
        cmocka_unit_test_setup_teardown(owns_its_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(needs_a_root, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
