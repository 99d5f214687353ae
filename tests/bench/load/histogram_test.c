/* histogram: what it gives back lies within its error of what was put in, up to its bound. */
#include "tests/bench/load/histogram.h"

#include <stdbool.h>
#include <string.h>

#include "tests/support/cmocka.h"

/* Of the test's, since one is 26 KiB. */
static struct histogram h;

static int empty_it(void **state)
{
    (void)state;
    (void)memset(&h, 0, sizeof(h));
    return 0;
}

static void an_empty_one_says_zero(void **state)
{
    (void)state;
    assert_int_equal(histogram_at(&h, 50), 0);
    assert_int_equal(histogram_at(&h, 100), 0);
}

/* 1 to 1000, each once: percentile p is 10 * p. */
static void percentiles_of_known_values(void **state)
{
    (void)state;
    for (uint64_t us = 1; us <= 1000; us++) {
        histogram_add(&h, us);
    }
    assert_int_equal(h.total, 1000);
    assert_int_equal(h.sum_us, 500500);
    assert_int_equal(h.max_us, 1000);
    assert_in_range(histogram_at(&h, 50), 500, 504);
    assert_in_range(histogram_at(&h, 99), 990, 998);
    assert_int_equal(histogram_at(&h, 10), 100); /* below 256 each value has its own bucket. */
    assert_int_equal(histogram_at(&h, 100), 1000);
}

static void one_late_answer_is_in_the_last_percentile_alone(void **state)
{
    (void)state;
    for (int i = 0; i < 999; i++) {
        histogram_add(&h, 100);
    }
    histogram_add(&h, 3000000);
    assert_int_equal(histogram_at(&h, 99.9), 100);
    assert_int_equal(histogram_at(&h, 100), 3000000);
}

/* Around every power of two: never below the value, never above it by more than 1/128. */
static void error_is_bounded_at_every_edge(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 32; bit++) {
        for (int off = -1; off <= 1; off++) {
            uint64_t us = (UINT64_C(1) << bit) + (uint64_t)(int64_t)off;
            (void)empty_it(state);
            histogram_add(&h, us);
            histogram_add(&h, UINT64_MAX >> 1); /* so that the maximum caps nothing. */
            uint64_t got = histogram_at(&h, 25);
            assert_true(got >= us && got - us <= us / 128);
        }
    }
}

static void past_the_bound_it_says_the_maximum(void **state)
{
    (void)state;
    histogram_add(&h, UINT64_C(1) << 32);
    histogram_add(&h, UINT64_C(1) << 40);
    assert_int_equal(histogram_at(&h, 50), UINT64_C(1) << 40);
    assert_int_equal(h.total, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_one_says_zero, empty_it),
        cmocka_unit_test_setup(percentiles_of_known_values, empty_it),
        cmocka_unit_test_setup(one_late_answer_is_in_the_last_percentile_alone, empty_it),
        cmocka_unit_test_setup(error_is_bounded_at_every_edge, empty_it),
        cmocka_unit_test_setup(past_the_bound_it_says_the_maximum, empty_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
