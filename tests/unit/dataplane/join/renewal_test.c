/* Proves that a renewal that failed is tried again whatever the wall clock does meanwhile. What a
 * renewal does is in tests/faults/node/join_test.py. */
#include "dataplane/join/renewal.h"

#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"

enum { DAY_S = 86400 };

/* Looks of 5 ms each. */
enum { LOOKS_MAX = 6000 };

/* Until so many tries failed, and the next one has its time. */
static struct dp_renewal_status wait_failures(struct dp_renewal *renewal, uint64_t failures,
                                              int64_t after_s)
{
    struct dp_renewal_status s = {.code = E_OK};
    for (int i = 0; i < LOOKS_MAX; i++) {
        dp_renewal_status(renewal, &s);
        if (s.failures >= failures && s.next_s > after_s) {
            return s;
        }
        struct timespec t = {.tv_nsec = 5000000};
        (void)nanosleep(&t, NULL);
    }
    fail_msg("%llu tries failed", (unsigned long long)s.failures);
    return s;
}

static void renewed(void *ctx)
{
    (void)ctx;
    abort(); /* nobody certifies here. */
}

static void a_clock_that_goes_back_puts_no_try_off(void **state)
{
    (void)state;
    int64_t now_s = clock_wall_ms() / 1000;
    const struct dp_self self = {.environment = "prod", .node = "edge-1"};
    /* Due for days, also where the clock goes back to. */
    const struct dp_self_cert cert = {
        .serial = "1",
        .says_key = true,
        .times = {.made_s = now_s - (int64_t)20 * DAY_S, .ends_s = now_s - (int64_t)5 * DAY_S}};
    struct metrics *metrics = NULL;
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &metrics)));
    const struct dp_renewal_config config = {.data_dir = "/nonexistent", /* so each try fails. */
                                             .self = &self,
                                             .cert = &cert,
                                             .metrics = metrics,
                                             .shard = metrics_shard(metrics, 0),
                                             .renewed = renewed};
    struct dp_renewal *renewal = NULL;
    assert_true(err_ok(dp_renewal_start(&config, &renewal)));
    struct dp_renewal_status s = wait_failures(renewal, 1, cert.times.ends_s);
    clock_shift_for_test(/* mono_ns= */ 0, /* wall_ms= */ -(int64_t)DAY_S * 1000);
    s = wait_failures(renewal, s.failures + 1, cert.times.ends_s);
    assert_int_not_equal(s.code, E_OK);
    assert_true(s.next_s < now_s); /* it is said by the clock as it is. */
    dp_renewal_stop(renewal);
    clock_shift_for_test(/* mono_ns= */ 0, /* wall_ms= */ 0);
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clock_that_goes_back_puts_no_try_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
