/* guard: thrown by misses or by time of a whole second, not by few decisions; held, then back by
 * itself; off without thresholds. */
#include "dataplane/request/guard.h"

#include "tests/support/cmocka.h"

#define SECOND UINT64_C(1000000000)

/* A second of decisions from 'from_ns', of which every 'miss_every'th misses; then the next one. */
static void second_of(struct dp_guard *g, uint64_t from_ns, unsigned count, unsigned miss_every,
                      uint64_t took_ns)
{
    for (unsigned i = 0; i < count; i++) {
        dp_guard_note(g, from_ns + i, /* cached= */ i % miss_every != 0,
                      i % 100 == 0 ? took_ns : 0);
    }
    dp_guard_note(g, from_ns + SECOND, /* cached= */ true, /* took_ns= */ 0);
}

static void is_off_without_thresholds(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    second_of(&g, SECOND, 5000, 1, 1000000);
    assert_false(dp_guard_is_fast(&g, 2 * SECOND));
}

static void is_thrown_by_misses(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    dp_guard_set(&g, &(struct dp_guardrails){.miss_percent = 50, .hold_ms = 5000});
    second_of(&g, SECOND, 2000, 2, 1000000); /* a half: not more than that. */
    assert_false(dp_guard_is_fast(&g, 2 * SECOND));
    second_of(&g, 3 * SECOND, DP_GUARD_DECISIONS_LEAST - 1, 1, 0); /* too few. */
    assert_false(dp_guard_is_fast(&g, 4 * SECOND));
    second_of(&g, 5 * SECOND, DP_GUARD_DECISIONS_LEAST, 1, 0);
    assert_true(dp_guard_is_fast(&g, 6 * SECOND));
    assert_true(dp_guard_is_fast(&g, 11 * SECOND - 1));
    assert_false(dp_guard_is_fast(&g, 11 * SECOND)); /* by itself. */
    assert_int_equal(g.trips[DP_GUARD_MISSES], 1);
    second_of(&g, 12 * SECOND, 2000, 10, 0); /* it began anew. */
    assert_false(dp_guard_is_fast(&g, 13 * SECOND));
    second_of(&g, 14 * SECOND, 2000, 1, 0);
    assert_true(dp_guard_is_fast(&g, 15 * SECOND));
    assert_int_equal(g.trips[DP_GUARD_MISSES], 2);
    assert_int_equal(g.trips[DP_GUARD_TIME], 0);
}

static void is_thrown_by_time(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    dp_guard_set(&g, &(struct dp_guardrails){.decision_us = 10, .hold_ms = 1000});
    second_of(&g, SECOND, 2000, 1, 10000);
    assert_false(dp_guard_is_fast(&g, 2 * SECOND));
    second_of(&g, 3 * SECOND, 2000, 1, 10001);
    assert_true(dp_guard_is_fast(&g, 4 * SECOND));
    assert_int_equal(g.trips[DP_GUARD_TIME], 1);
}

/* The same thresholds again, which each snapshot brings, change nothing; others begin anew. */
static void other_thresholds_begin_anew(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    struct dp_guardrails rails = {.miss_percent = 50, .hold_ms = 5000};
    dp_guard_set(&g, &rails);
    second_of(&g, SECOND, 2000, 2, 0);
    second_of(&g, 3 * SECOND, 2000, 1, 0);
    dp_guard_set(&g, &rails);
    assert_true(dp_guard_is_fast(&g, 4 * SECOND));
    rails.miss_percent = 60;
    dp_guard_set(&g, &rails);
    assert_false(dp_guard_is_fast(&g, 4 * SECOND));
    assert_int_equal(g.trips[DP_GUARD_MISSES], 1); /* what was counted stays. */
}

/* What a snapshot empties is filled again: that says nothing of those who ask. */
static void an_empty_cache_throws_nothing(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    const struct dp_guardrails rails = {.miss_percent = 50, .hold_ms = 5000};
    for (unsigned i = 1; i < 10; i++) {
        dp_guard_set(&g, &rails);
        second_of(&g, 2 * i * SECOND, 2000, 1, 0);
        assert_false(dp_guard_is_fast(&g, (2 * i + 1) * SECOND));
    }
    second_of(&g, 20 * SECOND, 2000, 1, 0); /* it stays empty. */
    assert_true(dp_guard_is_fast(&g, 21 * SECOND));
}

/* Snapshots that follow each other within a second leave the time to judge by. */
static void snapshots_without_end_hide_no_time(void **state)
{
    (void)state;
    struct dp_guard g = {0};
    const struct dp_guardrails rails = {.miss_percent = 50, .decision_us = 10, .hold_ms = 5000};
    for (unsigned i = 0; i < 20; i++) {
        dp_guard_set(&g, &rails);
        for (unsigned k = 0; k < 1000; k++) {
            dp_guard_note(&g, SECOND + i * SECOND / 4 + k, /* cached= */ false,
                          k % 100 == 0 ? 20000 : 0);
        }
    }
    assert_int_equal(g.trips[DP_GUARD_MISSES], 0);
    assert_true(g.trips[DP_GUARD_TIME] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_off_without_thresholds),
        cmocka_unit_test(is_thrown_by_misses),
        cmocka_unit_test(is_thrown_by_time),
        cmocka_unit_test(other_thresholds_begin_anew),
        cmocka_unit_test(an_empty_cache_throws_nothing),
        cmocka_unit_test(snapshots_without_end_hide_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
