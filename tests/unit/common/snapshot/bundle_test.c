/* bundle: what is written is found by its key; any other bytes are no bundle. */
#include "common/snapshot/bundle.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/cmocka.h"

/* A header, "k" with two bytes, "chunk.0a" with none. */
static const uint8_t golden[] = "TRLB\x01\x00\x02\x00"
                                "\x01\x00\x02\x00\x00\x00"
                                "kab"
                                "\x08\x00\x00\x00\x00\x00"
                                "chunk.0a";
enum { GOLDEN_SIZE = sizeof(golden) - 1, FORMAT_AT = 4, COUNT_AT = 6, FIRST_SIZES_AT = 8 };

static const struct bundle_value two[] = {
    {SLICE_INIT("k"), SLICE_INIT("ab")},
    {SLICE_INIT("chunk.0a"), {NULL, 0}},
};

static void is_written_as_the_format_says(void **state)
{
    (void)state;
    auto_buf struct buf out = BUF_MAX(GOLDEN_SIZE);
    assert_int_equal(bundle_write(two, 2, &out).code, E_OK);
    assert_int_equal(out.size, GOLDEN_SIZE);
    assert_memory_equal(out.ptr, golden, GOLDEN_SIZE);
}

static void values_are_found_by_key(void **state)
{
    (void)state;
    struct bundle b;
    struct slice value;
    assert_int_equal(bundle_read(slice_of(golden, GOLDEN_SIZE), &b).code, E_OK);
    assert_int_equal(b.count, 2);
    assert_true(bundle_find(&b, SLICE_LIT("k"), &value) && slice_eq(value, SLICE_LIT("ab")));
    assert_true(bundle_find(&b, SLICE_LIT("chunk.0a"), &value) && value.size == 0);
    assert_false(bundle_find(&b, SLICE_LIT("chunk.0b"), &value));
    assert_false(bundle_find(&b, SLICE_LIT(""), &value));
}

static void the_first_of_two_counts(void **state)
{
    (void)state;
    struct bundle_value twice[] = {{SLICE_INIT("k"), SLICE_INIT("first")},
                                   {SLICE_INIT("k"), SLICE_INIT("second")}};
    auto_buf struct buf out = BUF_MAX(1024);
    struct bundle b;
    struct slice value;
    assert_int_equal(bundle_write(twice, 2, &out).code, E_OK);
    assert_int_equal(bundle_read(buf_slice(&out), &b).code, E_OK);
    assert_true(bundle_find(&b, SLICE_LIT("k"), &value) && slice_eq(value, SLICE_LIT("first")));
}

static void expect_malformed(const uint8_t *bytes, size_t size)
{
    /* On the heap, so that a byte read behind the end is seen. */
    uint8_t *own = malloc(size + (size == 0));
    struct bundle b = {.count = 1};
    assert_non_null(own);
    memcpy(own, bytes, size);
    assert_int_equal(bundle_read(slice_of(own, size), &b).code, E_MALFORMED);
    assert_int_equal(b.count, 0);
    free(own);
}

static void cut_short_or_followed_is_malformed(void **state)
{
    (void)state;
    uint8_t longer[GOLDEN_SIZE + 1] = {0};
    memcpy(longer, golden, GOLDEN_SIZE);
    expect_malformed(longer, sizeof(longer));
    for (size_t size = 0; size < GOLDEN_SIZE; size++) {
        expect_malformed(golden, size);
    }
}

static void headers_and_sizes_are_judged(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t byte;
    } wrong[] = {
        {0, 't'},
        {FORMAT_AT, 2},
        {FORMAT_AT, 0},
        {COUNT_AT, 0},
        {COUNT_AT, 1},
        {COUNT_AT, 3},
        {COUNT_AT + 1, 0xff},
        {FIRST_SIZES_AT, 0},
        {FIRST_SIZES_AT, BUNDLE_KEY_MAX + 1},
        {FIRST_SIZES_AT + 1, 0xff},
        {FIRST_SIZES_AT + 2, 3},
        {FIRST_SIZES_AT + 5, 0xff},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t bytes[GOLDEN_SIZE];
        memcpy(bytes, golden, GOLDEN_SIZE);
        bytes[wrong[i].at] = wrong[i].byte;
        expect_malformed(bytes, GOLDEN_SIZE);
    }
}

static void what_no_bundle_holds_is_not_written(void **state)
{
    (void)state;
    struct bundle_value many[BUNDLE_VALUES_MAX + 1];
    char key[BUNDLE_KEY_MAX + 1];
    memset(key, 'k', sizeof(key));
    for (size_t i = 0; i <= BUNDLE_VALUES_MAX; i++) {
        many[i] = (struct bundle_value){slice_of(key, BUNDLE_KEY_MAX), SLICE_LIT("v")};
    }
    auto_buf struct buf out = BUF_MAX(1 << 20);
    struct bundle b;
    assert_int_equal(bundle_write(many, BUNDLE_VALUES_MAX, &out).code, E_OK);
    assert_int_equal(bundle_read(buf_slice(&out), &b).code, E_OK);
    assert_int_equal(bundle_write(many, BUNDLE_VALUES_MAX + 1, &out).code, E_USAGE);
    assert_int_equal(bundle_write(many, 0, &out).code, E_USAGE);
    many[0].key = slice_of(key, sizeof(key));
    assert_int_equal(bundle_write(many, 1, &out).code, E_USAGE);
    many[0].key = (struct slice){0};
    assert_int_equal(bundle_write(many, 1, &out).code, E_USAGE);
    auto_buf struct buf narrow = BUF_MAX(GOLDEN_SIZE - 1);
    assert_int_equal(bundle_write(two, 2, &narrow).code, E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_written_as_the_format_says),
        cmocka_unit_test(values_are_found_by_key),
        cmocka_unit_test(the_first_of_two_counts),
        cmocka_unit_test(cut_short_or_followed_is_malformed),
        cmocka_unit_test(headers_and_sizes_are_judged),
        cmocka_unit_test(what_no_bundle_holds_is_not_written),
    };
    return cmocka_run_group_tests_name("snapshot.bundle", tests, NULL, NULL);
}
