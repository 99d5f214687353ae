/* overload: a queue that stands has a share of what comes refused, until it is short again; a burst
 * that passes has nothing refused. */
#include "dataplane/request/overload.h"

#include "tests/support/cmocka.h"

enum { TARGET_MS = 20, REQUESTS = 1000 };

#define MS UINT64_C(1000000)

/* Some draws, evenly spread. */
static uint64_t draw_of(unsigned i)
{
    return (uint64_t)i * 2654435761U;
}

/* How many of a thousand requests are refused that come in 'ms' behind a queue of delay_ms. */
static unsigned shed(struct dp_overload *o, uint64_t *now_ns, uint64_t ms, uint64_t delay_ms)
{
    unsigned count = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint64_t retry_ns = 0;
        *now_ns += ms * MS / REQUESTS;
        if (dp_overload_sheds(o, *now_ns, delay_ms * MS, draw_of(i), &retry_ns)) {
            assert_in_range(retry_ns, 500 * MS, 1500 * MS);
            count++;
        }
    }
    return count;
}

static void off_without_a_target(void **state)
{
    (void)state;
    struct dp_overload o = {.target_ns = 0};
    uint64_t now_ns = 7 * MS;
    assert_int_equal(shed(&o, &now_ns, 2000, 10000), 0);
}

static void a_standing_queue_is_cut(void **state)
{
    (void)state;
    struct dp_overload o = {.target_ns = TARGET_MS * MS};
    uint64_t now_ns = 7 * MS;
    assert_int_equal(shed(&o, &now_ns, 1000, TARGET_MS), 0); /* in time. */
    unsigned first = shed(&o, &now_ns, 1000, TARGET_MS + 1);
    assert_in_range(first, 100, 500); /* it grows. */
    unsigned then = shed(&o, &now_ns, 1000, TARGET_MS + 1);
    assert_true(then > first + 200);
    (void)shed(&o, &now_ns, 2000, TARGET_MS + 1);
    assert_in_range(shed(&o, &now_ns, 1000, TARGET_MS + 1), 880, 920); /* some pass always. */
    (void)shed(&o, &now_ns, 2500, 1);
    assert_int_equal(shed(&o, &now_ns, 1000, 1), 0); /* it is over. */
}

static void a_long_queue_is_cut_at_once(void **state)
{
    (void)state;
    struct dp_overload o = {.target_ns = TARGET_MS * MS};
    uint64_t now_ns = 7 * MS;
    (void)shed(&o, &now_ns, 100, 10 * TARGET_MS);
    (void)shed(&o, &now_ns, 300, 10 * TARGET_MS);
    assert_true(shed(&o, &now_ns, 100, 10 * TARGET_MS) > 700);
}

static void a_burst_passes(void **state)
{
    (void)state;
    struct dp_overload o = {.target_ns = TARGET_MS * MS};
    uint64_t now_ns = 7 * MS;
    for (int i = 0; i < 20; i++) { /* long turns, and a short one in each interval. */
        uint64_t retry_ns = 0;
        now_ns += 45 * MS;
        assert_false(dp_overload_sheds(&o, now_ns, 45 * MS, 0, &retry_ns));
        now_ns += 45 * MS;
        assert_false(dp_overload_sheds(&o, now_ns, 1, 0, &retry_ns));
    }
    /* A long turn behind a silence says nothing of now. */
    uint64_t retry_ns = 0;
    for (int i = 0; i < 20; i++) {
        now_ns += 1000 * MS;
        assert_false(dp_overload_sheds(&o, now_ns, 500 * MS, 0, &retry_ns));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_without_a_target),
        cmocka_unit_test(a_standing_queue_is_cut),
        cmocka_unit_test(a_long_queue_is_cut_at_once),
        cmocka_unit_test(a_burst_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
