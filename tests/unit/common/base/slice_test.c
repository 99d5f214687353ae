/* slice: comparing, cutting and reading numbers, at and past every edge. */
#include "common/base/slice.h"

#include <stdlib.h>

#include "tests/support/cmocka.h"

#define S(text) SLICE_LIT(text)

static const struct slice none = {NULL, 0};

static void equality_needs_size_and_bytes(void **state)
{
    (void)state;
    assert_true(slice_eq(none, none));
    assert_true(slice_eq(none, S("")));
    assert_true(slice_eq(S("abc"), S("abc")));
    assert_false(slice_eq(S("abc"), S("abd")));
    assert_false(slice_eq(S("abc"), S("ab")));
    assert_false(slice_eq(S("ab\0c"), S("ab\0d")));
}

static void order_is_by_bytes_then_size(void **state)
{
    (void)state;
    static const struct slice sorted[] = {SLICE_INIT(""),     SLICE_INIT("\0"),  SLICE_INIT("A"),
                                          SLICE_INIT("AA"),   SLICE_INIT("a"),   SLICE_INIT("ab"),
                                          SLICE_INIT("\x7f"), SLICE_INIT("\xff")};
    const size_t count = sizeof(sorted) / sizeof(sorted[0]);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            int order = slice_cmp(sorted[i], sorted[k]);
            assert_int_equal(order < 0, i < k);
            assert_int_equal(order > 0, i > k);
        }
    }
    assert_int_equal(slice_cmp(none, S("")), 0);
}

static void starts_and_ends(void **state)
{
    (void)state;
    assert_true(slice_starts(S("abc"), S("ab")));
    assert_true(slice_starts(S("abc"), S("abc")));
    assert_true(slice_starts(none, none));
    assert_false(slice_starts(S("abc"), S("b")));
    assert_false(slice_starts(S("ab"), S("abc")));
    assert_true(slice_ends(S("abc"), S("bc")));
    assert_true(slice_ends(none, none));
    assert_false(slice_ends(S("abc"), S("ab")));
    assert_false(slice_ends(S("c"), S("bc")));
}

static void cuts_stay_inside(void **state)
{
    (void)state;
    struct slice s = S("abc");
    assert_true(slice_eq(slice_from(s, 0), s));
    assert_true(slice_eq(slice_from(s, 2), S("c")));
    assert_int_equal(slice_from(s, 3).size, 0);
    assert_int_equal(slice_from(s, SIZE_MAX).size, 0);
    assert_int_equal(slice_from(none, 0).size, 0);
    assert_int_equal(slice_from(none, 7).size, 0);
    assert_int_equal(slice_head(s, 0).size, 0);
    assert_true(slice_eq(slice_head(s, 2), S("ab")));
    assert_true(slice_eq(slice_head(s, 9), s));
}

static void find_gives_the_first_or_the_size(void **state)
{
    (void)state;
    assert_int_equal(slice_find(S("a.b.c"), '.'), 1);
    assert_int_equal(slice_find(S("abc"), '.'), 3);
    assert_int_equal(slice_find(none, '.'), 0);
}

static void case_folds_ascii_only(void **state)
{
    (void)state;
    assert_true(slice_eq_nocase(S("Content-Type"), S("cONTENT-tYPE")));
    assert_false(slice_eq_nocase(S("a"), S("b")));
    assert_false(slice_eq_nocase(S("a"), S("ab")));
    assert_false(slice_eq_nocase(S("\xc3\xa4"), S("\xc3\x84"))); /* a and A with dots. */
    assert_false(slice_eq_nocase(S("@"), S("`")));               /* beside the letters. */
    assert_false(slice_eq_nocase(S("["), S("{")));
}

static void trim_takes_both_ends(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"", ""},          {" \t ", ""},      {"a", "a"},
                                          {" a b\t", "a b"}, {"\ta\n ", "a\n"}, {"a  ", "a"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_true(slice_eq(slice_trim(slice_str(rows[i][0])), slice_str(rows[i][1])));
    }
    assert_int_equal(slice_trim((struct slice){0}).size, 0);
}

static void numbers_are_decimal_and_fit(void **state)
{
    (void)state;
    uint64_t n = 5;
    assert_true(slice_to_u64(S("0"), &n));
    assert_int_equal(n, 0);
    assert_true(slice_to_u64(S("007"), &n));
    assert_int_equal(n, 7);
    assert_true(slice_to_u64(S("18446744073709551615"), &n));
    assert_true(n == UINT64_MAX);
    static const struct slice refused[] = {SLICE_INIT(""),
                                           SLICE_INIT("-1"),
                                           SLICE_INIT("+1"),
                                           SLICE_INIT(" 1"),
                                           SLICE_INIT("1 "),
                                           SLICE_INIT("0x1"),
                                           SLICE_INIT("1.0"),
                                           SLICE_INIT("1a"),
                                           SLICE_INIT("18446744073709551616"),
                                           SLICE_INIT("99999999999999999999"),
                                           SLICE_INIT("000000000000000000001")};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_false(slice_to_u64(refused[i], &n));
        assert_true(n == UINT64_MAX);
    }
}

static void dup_ends_with_nul(void **state)
{
    (void)state;
    char *copy = slice_dup(S("abc"));
    assert_string_equal(copy, "abc");
    free(copy);
    copy = slice_dup(none);
    assert_string_equal(copy, "");
    slice_free(slice_of(copy, 0));
    slice_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_needs_size_and_bytes),
        cmocka_unit_test(order_is_by_bytes_then_size),
        cmocka_unit_test(starts_and_ends),
        cmocka_unit_test(cuts_stay_inside),
        cmocka_unit_test(find_gives_the_first_or_the_size),
        cmocka_unit_test(case_folds_ascii_only),
        cmocka_unit_test(trim_takes_both_ends),
        cmocka_unit_test(numbers_are_decimal_and_fit),
        cmocka_unit_test(dup_ends_with_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
