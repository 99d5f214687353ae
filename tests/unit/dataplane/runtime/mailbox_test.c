/* Proves that a mailbox hands over the latest model only, on the loop's thread, whoever puts. */
#include "dataplane/runtime/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "common/net/loop.h"
#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"

enum { VERSIONS = 40, HANDOVERS = 1000, WAIT_MS = 20000 };

static struct publisher publisher;
static struct dp_model_bin *bin;
static struct net_loop *loop;
static struct dp_mailbox mailbox;
static uint64_t served;
static bool done;
static atomic_size_t taken;

static struct dp_model *new_model(uint64_t version)
{
    struct content *c = content_sample(1);
    struct version *v = version_new(&publisher, c, version, NULL);
    struct snap_set *set = version_set(&publisher, v, NULL);
    struct dp_model *model = NULL;
    struct dp_build_report report;
    assert_true(err_ok(dp_model_build(bin, set, NULL, &model, &report)));
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    return model;
}

/* For as long as one more is taken now and then: how long all of them take is the machine's. */
static bool run_until_done(void)
{
    size_t before = 0;
    do {
        before = atomic_load(&taken);
    } while (!net_loop_run_until(loop, &done, WAIT_MS) && atomic_load(&taken) > before);
    return done;
}

/* Versions only ever grow, and the last one always comes. */
static void arrived(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
    struct dp_model *model = dp_mailbox_take(&mailbox);
    if (model == NULL) {
        return;
    }
    assert_true(dp_model_version(model) > served);
    served = dp_model_version(model);
    (void)atomic_fetch_add(&taken, 1);
    dp_mailbox_adopted(&mailbox, served);
    done = served == VERSIONS;
    dp_model_unref(model);
}

static int set_up(void **state)
{
    (void)state;
    publisher_init(&publisher);
    assert_true(err_ok(dp_model_bin_new(&bin)));
    assert_true(err_ok(net_loop_new(&loop)));
    dp_mailbox_init(&mailbox, loop, arrived, NULL);
    served = 0;
    atomic_store(&taken, 0);
    done = false;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dp_mailbox_close(&mailbox);
    net_loop_free(loop);
    dp_mailbox_free(&mailbox);
    dp_model_bin_free(bin);
    publisher_free(&publisher);
    return 0;
}

static void *put_all(void *ctx)
{
    (void)ctx;
    for (uint64_t version = 1; version <= VERSIONS; version++) {
        struct dp_model *model = new_model(version);
        dp_mailbox_put(&mailbox, model);
        dp_model_unref(model);
        assert_true(dp_mailbox_version(&mailbox) <= version);
    }
    return NULL;
}

static void the_latest_comes(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, put_all, NULL), 0);
    assert_true(run_until_done());
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(dp_mailbox_version(&mailbox), VERSIONS);
}

static void arrived_again(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
    struct dp_model *model = dp_mailbox_take(&mailbox);
    if (model != NULL) {
        dp_mailbox_adopted(&mailbox, dp_model_version(model));
        dp_model_unref(model);
        done = atomic_fetch_add(&taken, 1) + 1 == HANDOVERS;
    }
}

/* Each is put when the one before was taken: whoever puts may meet the worker anywhere between
 * waking up and going to sleep. */
static void *hand_over(void *ctx)
{
    (void)ctx;
    struct dp_model *models[] = {new_model(1), new_model(2)};
    for (size_t i = 0; i < HANDOVERS; i++) {
        dp_mailbox_put(&mailbox, models[i % 2]);
        dp_mailbox_fresh(&mailbox, i);
        while (atomic_load(&taken) == i) {
            (void)sched_yield();
        }
    }
    dp_model_unref(models[0]);
    dp_model_unref(models[1]);
    return NULL;
}

static void every_one_is_taken(void **state)
{
    (void)state;
    dp_mailbox_free(&mailbox);
    dp_mailbox_init(&mailbox, loop, arrived_again, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hand_over, NULL), 0);
    bool all = run_until_done();
    atomic_store(&taken, all ? HANDOVERS : SIZE_MAX); /* else the other one would wait for ever. */
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(all);
    assert_int_equal(dp_mailbox_version(&mailbox), 2);
}

/* Who puts may have lost the core in the middle of it. */
static void the_worker_waits_for_no_lock(void **state)
{
    (void)state;
    struct dp_model *model = new_model(1);
    dp_mailbox_put(&mailbox, model);
    lock_take(&mailbox.posters.lock);
    struct dp_model *got = dp_mailbox_take(&mailbox);
    dp_mailbox_adopted(&mailbox, 1);
    assert_int_equal(dp_mailbox_content_ns(&mailbox), 0);
    lock_drop(&mailbox.posters.lock);
    assert_ptr_equal(got, model);
    assert_int_equal(dp_mailbox_version(&mailbox), 1);
    dp_model_unref(got);
    dp_model_unref(model);
}

static void what_nobody_took_is_dropped(void **state)
{
    (void)state;
    struct dp_model *model = new_model(1);
    dp_mailbox_put(&mailbox, model);
    dp_mailbox_put(&mailbox, model);
    dp_model_unref(model);
    assert_int_equal(dp_model_bin_sweep(bin), 0);
    assert_int_equal(dp_mailbox_version(&mailbox), 0);
    dp_model_unref(dp_mailbox_take(&mailbox));
    assert_int_equal(dp_model_bin_sweep(bin), 1);
}

static void a_closed_one_wakes_nobody(void **state)
{
    (void)state;
    struct dp_model *model = new_model(1);
    dp_mailbox_close(&mailbox);
    dp_mailbox_put(&mailbox, model);
    dp_model_unref(model);
    assert_false(net_loop_run_until(loop, &done, 20));
    assert_int_equal(served, 0);
}

static void freshness_is_kept(void **state)
{
    (void)state;
    assert_int_equal(dp_mailbox_content_ns(&mailbox), 0);
    dp_mailbox_fresh(&mailbox, 77);
    assert_int_equal(dp_mailbox_content_ns(&mailbox), 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_latest_comes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_one_is_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_worker_waits_for_no_lock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_nobody_took_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_one_wakes_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(freshness_is_kept, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
