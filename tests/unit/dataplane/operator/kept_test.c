/* Proves that what is kept comes back whole, small or large, and never more than the bound. */
#include "dataplane/operator/kept.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"

enum { MAX = 2000 };

static struct op_kept kept;

static int set_up(void **state)
{
    (void)state;
    memset(&kept, 0xee, sizeof(kept)); /* as an arena lends it. */
    op_kept_init(&kept, MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    op_kept_free(&kept);
    return 0;
}

static void add(size_t from, size_t size)
{
    uint8_t bytes[MAX];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)((from + i) * 7);
    }
    assert_true(err_ok(op_kept_add(&kept, slice_of(bytes, size))));
}

static void expect(size_t size)
{
    struct slice all = op_kept_slice(&kept);
    assert_int_equal(all.size, size);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(all.ptr[i], (uint8_t)(i * 7));
    }
}

static void small_takes_no_memory(void **state)
{
    (void)state;
    expect(0);
    add(0, 0);
    add(0, 500);
    add(500, 12);
    expect(OP_KEPT_SMALL);
    assert_null(kept.large.ptr);
}

static void large_moves(void **state)
{
    (void)state;
    add(0, 500);
    add(500, 13);
    expect(513);
    assert_non_null(kept.large.ptr);
    add(513, 1);
    expect(514);
    op_kept_free(&kept);
    expect(0);
    add(0, 600);
    expect(600);
}

static void the_bound_holds(void **state)
{
    (void)state;
    uint8_t byte = 0;
    add(0, 400);
    add(400, MAX - 400);
    assert_int_equal(op_kept_add(&kept, slice_of(&byte, 1)).code, E_TOO_LARGE);
    expect(MAX);
    op_kept_free(&kept);
    op_kept_init(&kept, 10);
    add(0, 10);
    assert_int_equal(op_kept_add(&kept, slice_of(&byte, 1)).code, E_TOO_LARGE);
    expect(10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_takes_no_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_bound_holds, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
