/* buf: content survives growth, the bound holds to the byte, a refusal changes nothing. */
#include "common/base/buf.h"

#include <string.h>

#include "tests/support/cmocka.h"

static void grows_to_its_bound_and_no_further(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(1000);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(err_ok(buf_add_byte(&b, (uint8_t)i)));
    }
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(b.ptr[i], (uint8_t)i);
    }
    assert_int_equal(buf_add_byte(&b, 1).code, E_TOO_LARGE);
    assert_int_equal(buf_addf(&b, "%d", 1).code, E_TOO_LARGE);
    assert_int_equal(buf_add_str(&b, "x").code, E_TOO_LARGE);
    uint8_t *at = NULL;
    assert_int_equal(buf_reserve(&b, 1, &at).code, E_TOO_LARGE);
    assert_null(at);
    assert_int_equal(b.size, 1000);
    assert_true(err_ok(buf_add(&b, slice_of(NULL, 0))));
}

static void a_large_piece_is_whole_or_not_there(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(300);
    uint8_t piece[300];
    (void)memset(piece, 'x', sizeof(piece));
    assert_true(err_ok(buf_add_str(&b, "ab")));
    assert_int_equal(buf_add(&b, slice_of(piece, 299)).code, E_TOO_LARGE);
    assert_int_equal(b.size, 2);
    assert_true(err_ok(buf_add(&b, slice_of(piece, 298))));
    assert_int_equal(b.size, 300);
}

static void a_bound_of_zero_takes_nothing(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(0);
    assert_int_equal(buf_add_byte(&b, 1).code, E_TOO_LARGE);
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&b, &text)));
    assert_string_equal(text, "");
}

static void format_and_cstr(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(64);
    assert_true(err_ok(buf_addf(&b, "%s=%d", "a", 7)));
    assert_true(err_ok(buf_addf(&b, ";%03u", 4U)));
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&b, &text)));
    assert_string_equal(text, "a=7;004");
    assert_int_equal(b.size, 7);
}

static void reserve_commit_drop(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(64);
    uint8_t *at = NULL;
    assert_true(err_ok(buf_reserve(&b, 6, &at)));
    (void)memcpy(at, "abcdef", 6);
    assert_int_equal(b.size, 0);
    buf_commit(&b, 4);
    assert_true(slice_eq(buf_slice(&b), SLICE_LIT("abcd")));
    buf_drop(&b, 0);
    buf_drop(&b, 3);
    assert_true(slice_eq(buf_slice(&b), SLICE_LIT("d")));
    buf_drop(&b, 1);
    assert_int_equal(b.size, 0);
    assert_true(err_ok(buf_add_str(&b, "z")));
    buf_clear(&b);
    assert_int_equal(b.size, 0);
}

static void free_keeps_the_bound(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(3);
    assert_true(err_ok(buf_add_str(&b, "abc")));
    buf_free(&b);
    assert_int_equal(b.size, 0);
    assert_true(err_ok(buf_add_str(&b, "abc")));
    assert_int_equal(buf_add_str(&b, "d").code, E_TOO_LARGE);
    buf_free(&b);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_to_its_bound_and_no_further),
        cmocka_unit_test(a_large_piece_is_whole_or_not_there),
        cmocka_unit_test(a_bound_of_zero_takes_nothing),
        cmocka_unit_test(format_and_cstr),
        cmocka_unit_test(reserve_commit_drop),
        cmocka_unit_test(free_keeps_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
