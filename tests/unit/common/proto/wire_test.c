/* wire: fields come as they were written; what is cut, overlong or unclosed is refused. */
#include "common/proto/wire.h"

#include "tests/support/cmocka.h"

#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void round_trip(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(256);
    assert_int_equal(wire_add_varint(&b, 1, UINT64_MAX).code, E_OK);
    assert_int_equal(wire_add_fixed32(&b, 2, 0x01020304).code, E_OK);
    assert_int_equal(wire_add_fixed64(&b, WIRE_NUMBER_MAX, 7).code, E_OK);
    assert_int_equal(wire_add_bytes(&b, 16, SLICE_LIT("hello")).code, E_OK);
    assert_int_equal(wire_add_entry(&b, 6, SLICE_LIT("k"), SLICE_LIT("v")).code, E_OK);
    struct wire w = wire_of(buf_slice(&b));
    struct wire_field f;
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(f.number == 1 && f.type == WIRE_VARINT && f.value == UINT64_MAX && f.offset == 0);
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(f.number == 2 && f.type == WIRE_FIXED32 && f.value == 0x01020304);
    assert_int_equal(f.offset, 11);
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(f.number == WIRE_NUMBER_MAX && f.type == WIRE_FIXED64 && f.value == 7);
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(f.number == 16 && slice_eq(f.bytes, SLICE_LIT("hello")));
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(slice_eq(f.bytes, BYTES(0x0a, 1, 'k', 0x12, 1, 'v')));
    assert_false(wire_more(&w));
    assert_int_equal(wire_bytes_size(16, 5), 8);
    assert_int_equal(wire_zigzag(1), -1);
    assert_int_equal(wire_zigzag(UINT64_MAX), INT64_MIN);
}

static void varint_sizes(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits <= 64; bits++) {
        uint64_t value = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
        auto_buf struct buf b = BUF_MAX(32);
        assert_int_equal(wire_add_varint(&b, 1, value).code, E_OK);
        assert_int_equal(b.size, 1 + wire_varint_size(value));
        struct wire w = wire_of(buf_slice(&b));
        struct wire_field f;
        assert_int_equal(wire_next(&w, &f).code, E_OK);
        assert_true(f.value == value);
    }
}

static struct err walk(struct slice bytes)
{
    struct wire w = wire_of(bytes);
    struct wire_field f;
    while (wire_more(&w)) {
        TRY(wire_next(&w, &f));
    }
    return OK;
}

static void refuses(void **state)
{
    (void)state;
    const struct slice bad[] = {
        BYTES(0x08),                      /* a tag and no value. */
        BYTES(0x00, 0x01),                /* field number 0. */
        BYTES(0x0e, 0x01),                /* wire type 6. */
        BYTES(0x0f, 0x01),                /* wire type 7. */
        BYTES(0x0c),                      /* an end without a beginning. */
        BYTES(0x0b),                      /* a group that is not closed. */
        BYTES(0x0b, 0x14),                /* closed by another number. */
        BYTES(0x0a, 0x02, 'x'),           /* a length past the end. */
        BYTES(0x0d, 1, 2, 3),             /* three bytes of four. */
        BYTES(0x09, 1, 2, 3, 4, 5, 6, 7), /* seven of eight. */
        BYTES(0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), /* 2^64-1 long. */
        BYTES(0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02), /* 65 bits. */
        BYTES(0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00),
        BYTES(0x80, 0x80, 0x80, 0x80, 0x10, 0x00), /* field number 2^29. */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(walk(bad[i]).code, E_MALFORMED);
    }
    assert_int_equal(walk(BYTES(0x08, 0x80, 0x00)).code, E_OK); /* longer than need be. */
}

static void groups_are_one_field(void **state)
{
    (void)state;
    struct slice bytes = BYTES(0x0b, 0x13, 0x08, 0x05, 0x14, 0x0a, 0x01, 'x', 0x0c, 0x08, 0x01);
    struct wire w = wire_of(bytes);
    struct wire_field f;
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_true(f.number == 1 && f.type == WIRE_GROUP);
    assert_true(slice_eq(f.bytes, BYTES(0x13, 0x08, 0x05, 0x14, 0x0a, 0x01, 'x')));
    assert_int_equal(wire_next(&w, &f).code, E_OK);
    assert_int_equal(f.offset, 9);
}

static struct err nested(size_t depth)
{
    uint8_t bytes[2 * (WIRE_GROUP_DEPTH_MAX + 1)];
    memset(bytes, 0x0b, depth);
    memset(bytes + depth, 0x0c, depth);
    return walk(slice_of(bytes, 2 * depth));
}

static void groups_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(nested(WIRE_GROUP_DEPTH_MAX).code, E_OK);
    assert_int_equal(nested(WIRE_GROUP_DEPTH_MAX + 1).code, E_MALFORMED);
}

static void a_full_buf_keeps_its_content(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(8);
    assert_int_equal(wire_add_bytes(&b, 1, SLICE_LIT("1234567")).code, E_TOO_LARGE);
    assert_int_equal(b.size, 0);
    assert_int_equal(wire_add_bytes(&b, 1, SLICE_LIT("123456")).code, E_OK);
    assert_int_equal(wire_add_varint(&b, 1, 1).code, E_TOO_LARGE);
    assert_int_equal(b.size, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(varint_sizes),
        cmocka_unit_test(refuses),
        cmocka_unit_test(groups_are_one_field),
        cmocka_unit_test(groups_are_bounded),
        cmocka_unit_test(a_full_buf_keeps_its_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
