/* array: grows, keeps what is in it, and says when it cannot. */
#include "common/base/array.h"

#include <stdint.h>
#include <stdlib.h>

#include "tests/support/cmocka.h"

static void keeps_what_is_in_it(void **state)
{
    (void)state;
    uint32_t *items = NULL;
    size_t capacity = 0;
    for (size_t count = 0; count < 1000; count++) {
        assert_true(err_ok(array_room(&items, count, &capacity, sizeof(*items))));
        assert_true(count < capacity);
        items[count] = (uint32_t)count * 3;
    }
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(items[i], i * 3);
    }
    free(items);
}

static void moves_only_when_it_is_full(void **state)
{
    (void)state;
    uint8_t *items = NULL;
    size_t capacity = 0;
    assert_true(err_ok(array_room(&items, 0, &capacity, 1)));
    size_t first = capacity;
    assert_true(first > 1);
    assert_true(err_ok(array_room(&items, first - 1, &capacity, 1)));
    assert_int_equal(capacity, first);
    assert_true(err_ok(array_room(&items, first, &capacity, 1)));
    assert_int_equal(capacity, 2 * first);
    free(items);
}

static void refuses_what_has_no_size(void **state)
{
    (void)state;
    uint8_t one = 1;
    uint8_t *items = &one;
    size_t capacity = SIZE_MAX / 2;
    struct err e = array_room(&items, capacity, &capacity, 16);
    assert_int_equal(e.code, E_NO_MEMORY);
    assert_ptr_equal(items, &one);
    assert_int_equal(capacity, SIZE_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_is_in_it),
        cmocka_unit_test(moves_only_when_it_is_full),
        cmocka_unit_test(refuses_what_has_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
