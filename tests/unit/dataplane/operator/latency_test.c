/* Proves that a percentile is found within an eighth, that what is new counts more, and that a
 * table of bounded size forgets the method that was asked for longest ago. */
#include "dataplane/operator/latency.h"

#include "tests/support/cmocka.h"

static struct op_latencies *all;

static int set_up(void **state)
{
    (void)state;
    assert_true(err_ok(op_latencies_new(&all)));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    op_latencies_free(all);
    return 0;
}

static void add(uint64_t key, uint64_t us, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        op_latency_add(op_latencies_get(all, key), us);
    }
}

static uint64_t percentile(uint64_t key, uint32_t percent)
{
    uint64_t us = 0;
    return op_latency_percentile(op_latencies_get(all, key), percent, &us) ? us : 0;
}

static void a_few_records_say_nothing(void **state)
{
    (void)state;
    uint64_t us = 7;
    add(1, 500, 99);
    assert_false(op_latency_percentile(op_latencies_get(all, 1), 95, &us));
    assert_int_equal(us, 7);
    add(1, 500, 1);
    assert_true(op_latency_percentile(op_latencies_get(all, 1), 95, &us));
}

/* From the first bucket to behind the last one. */
static void each_value_is_within_an_eighth(void **state)
{
    (void)state;
    uint64_t key = 1;
    for (uint64_t us = 1; us < UINT64_C(60000000); us = us * 5 / 4 + 1, key++) {
        add(key, us, 100);
        uint64_t got = percentile(key, 50);
        assert_true(got > us);
        assert_true(got <= us + us / 8 + 8);
    }
    add(key, UINT64_MAX, 100);
    assert_true(percentile(key, 99) > UINT64_C(60000000));
}

static void a_percentile_leaves_the_rest_behind(void **state)
{
    (void)state;
    add(1, 1000, 94);
    add(1, 50000, 6);
    assert_true(percentile(1, 94) < 1200);
    assert_true(percentile(1, 95) > 50000);
}

static void what_is_new_counts_more(void **state)
{
    (void)state;
    add(1, 1000, 4096);
    assert_true(percentile(1, 50) < 1200);
    add(1, 80000, 2200); /* half of what was, and this: most of it. */
    assert_true(percentile(1, 50) > 80000);
}

static void who_was_asked_for_longest_ago_makes_room(void **state)
{
    (void)state;
    enum { SAME_SET = 128, WAYS = 4 };
    for (uint64_t i = 1; i <= WAYS; i++) {
        add(i * SAME_SET, 1000, 100);
    }
    assert_true(percentile(SAME_SET, 50) > 0); /* asked for again: the second goes. */
    assert_int_equal(percentile((WAYS + 1) * SAME_SET, 50), 0); /* a fifth. */
    assert_true(percentile(SAME_SET, 50) > 0);
    assert_true(percentile(WAYS * SAME_SET, 50) > 0);
    assert_int_equal(percentile(2 * SAME_SET, 50), 0);
}

static void methods_of_clusters_have_keys_of_their_own(void **state)
{
    (void)state;
    uint64_t one = op_latency_key(SLICE_LIT("service/a/b"), SLICE_LIT("/x.Y/Z"));
    assert_true(one != 0);
    assert_true(one == op_latency_key(SLICE_LIT("service/a/b"), SLICE_LIT("/x.Y/Z")));
    assert_true(one != op_latency_key(SLICE_LIT("service/a/c"), SLICE_LIT("/x.Y/Z")));
    assert_true(one != op_latency_key(SLICE_LIT("/x.Y/Z"), SLICE_LIT("service/a/b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_few_records_say_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_value_is_within_an_eighth, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_percentile_leaves_the_rest_behind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_new_counts_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_was_asked_for_longest_ago_makes_room, set_up,
                                        tear_down),
        cmocka_unit_test(methods_of_clusters_have_keys_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
