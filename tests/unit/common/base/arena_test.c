/* arena: loans are aligned and apart, the bound counts every byte from the heap, a reset keeps one
 * block. */
#include "common/base/arena.h"

#include <string.h>

#include "tests/support/cmocka.h"

enum { BLOCK = 256 };

static void loans_are_aligned_and_apart(void **state)
{
    (void)state;
    auto_arena struct arena a;
    arena_init(&a, BLOCK, 1 << 20);
    uint8_t *loans[200];
    for (size_t i = 0; i < 200; i++) {
        void *loan = NULL;
        assert_true(err_ok(arena_alloc(&a, i, &loan)));
        assert_int_equal((uintptr_t)loan % 16, 0);
        loans[i] = loan;
        (void)memset(loan, (int)i, i);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(loans[i][k], i);
        }
    }
}

static void calloc_zeroes_and_checks_the_product(void **state)
{
    (void)state;
    auto_arena struct arena a;
    arena_init(&a, BLOCK, 4096);
    void *loan = NULL;
    assert_true(err_ok(arena_alloc(&a, 64, &loan)));
    (void)memset(loan, 0xff, 64);
    arena_reset(&a);
    assert_true(err_ok(arena_calloc(&a, 8, 8, &loan)));
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(((uint8_t *)loan)[i], 0);
    }
    void *untouched = &a;
    assert_int_equal(arena_calloc(&a, SIZE_MAX / 2, 3, &untouched).code, E_NO_MEMORY);
    assert_int_equal(arena_calloc(&a, SIZE_MAX, 1, &untouched).code, E_NO_MEMORY);
    assert_ptr_equal(untouched, &a);
}

static void the_bound_holds(void **state)
{
    (void)state;
    auto_arena struct arena a;
    arena_init(&a, BLOCK, 1000);
    void *loan = NULL;
    size_t count = 0;
    while (err_ok(arena_alloc(&a, 100, &loan))) {
        count++;
        assert_true(a.total <= 1000);
    }
    assert_in_range(count, 4, 9);
    assert_true(a.full);
    arena_reset(&a);
    assert_false(a.full);
    assert_int_equal(arena_alloc(&a, 1001, &loan).code, E_NO_MEMORY);
    assert_int_equal(arena_alloc(&a, SIZE_MAX, &loan).code, E_NO_MEMORY);
    assert_int_equal(arena_alloc(&a, SIZE_MAX - 15, &loan).code, E_NO_MEMORY);
    assert_true(a.full);
    assert_true(err_ok(arena_alloc(&a, 100, &loan)));
}

static void a_large_loan_gets_its_own_block(void **state)
{
    (void)state;
    auto_arena struct arena a;
    arena_init(&a, BLOCK, 1 << 20);
    void *small = NULL;
    void *large = NULL;
    assert_true(err_ok(arena_alloc(&a, 16, &small)));
    assert_true(err_ok(arena_alloc(&a, 100000, &large)));
    (void)memset(large, 1, 100000);
    assert_true(a.total > 100000);
    arena_reset(&a);
    assert_true(a.total < 1000);
    void *again = NULL;
    assert_true(err_ok(arena_alloc(&a, 16, &again)));
    assert_ptr_equal(again, small);
}

static void dup_and_printf_end_with_nul(void **state)
{
    (void)state;
    auto_arena struct arena a;
    arena_init(&a, BLOCK, 4096);
    struct slice copy;
    assert_true(err_ok(arena_dup(&a, SLICE_LIT("abc"), &copy)));
    assert_string_equal((const char *)copy.ptr, "abc");
    assert_int_equal(copy.size, 3);
    assert_true(err_ok(arena_dup(&a, slice_of(NULL, 0), &copy)));
    assert_string_equal((const char *)copy.ptr, "");
    assert_true(err_ok(arena_printf(&a, &copy, "%d-%s", 12, "x")));
    assert_string_equal((const char *)copy.ptr, "12-x");
    assert_int_equal(copy.size, 4);
    assert_int_equal(arena_dup(&a, slice_of("", SIZE_MAX), &copy).code, E_NO_MEMORY);
    assert_int_equal(arena_printf(&a, &copy, "%5000d", 1).code, E_NO_MEMORY);
    assert_int_equal(copy.size, 4);
}

static void free_is_safe_twice(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, BLOCK, 4096);
    arena_reset(&a);
    arena_free(&a);
    void *loan = NULL;
    assert_true(err_ok(arena_alloc(&a, 1, &loan)));
    arena_free(&a);
    assert_int_equal(a.total, 0);
    arena_free(&a);
}

static void joins_pieces(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 256, 1024);
    const struct slice pieces[] = {SLICE_LIT("acme"), SLICE_LIT("/"), {0}, SLICE_LIT("web")};
    struct slice out = {0};
    assert_true(err_ok(arena_join(&a, pieces, 4, &out)));
    assert_true(slice_eq(out, SLICE_LIT("acme/web")));
    assert_int_equal(out.ptr[out.size], '\0');
    assert_true(err_ok(arena_join(&a, pieces, 0, &out)));
    assert_int_equal(out.size, 0);
    const struct slice large[] = {slice_of(a.first, 1000), slice_of(a.first, 24)};
    struct err e = arena_join(&a, large, 2, &out);
    assert_int_equal(e.code, E_NO_MEMORY);
    assert_int_equal(out.size, 0);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loans_are_aligned_and_apart),
        cmocka_unit_test(calloc_zeroes_and_checks_the_product),
        cmocka_unit_test(the_bound_holds),
        cmocka_unit_test(a_large_loan_gets_its_own_block),
        cmocka_unit_test(dup_and_printf_end_with_nul),
        cmocka_unit_test(free_is_safe_twice),
        cmocka_unit_test(joins_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
