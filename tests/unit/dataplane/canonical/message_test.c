/* message: requests of the bus service, cut, doubled and past their bounds; responses as bytes. */
#include "dataplane/canonical/message.h"

#include "tests/support/cmocka.h"

#define BYTES(text) slice_of(text, sizeof(text) - 1)

static void test_publish(void **state)
{
    (void)state;
    struct slice envelope = {0};
    assert_int_equal(canon_publish_decode(BYTES("\x0a\x03"
                                                "abc"),
                                          &envelope)
                         .code,
                     E_OK);
    assert_true(slice_eq(envelope, SLICE_LIT("abc")));
    /* Unknown fields are passed over; an empty envelope is one. */
    assert_int_equal(canon_publish_decode(BYTES("\x10\x07\x0a\x00\x1a\x01x"), &envelope).code,
                     E_OK);
    assert_int_equal(envelope.size, 0);
    envelope = SLICE_LIT("untouched");
    const struct slice bad[] = {BYTES(""),
                                BYTES("\x10\x01"),
                                BYTES("\x08\x01"),
                                BYTES("\x0a\x04"
                                      "abc"),
                                BYTES("\x0a\x01"
                                      "a\x0a\x01"
                                      "b"),
                                BYTES("\x0a"),
                                BYTES("\x00\x01"),
                                BYTES("\x0a\x01"
                                      "a\x80")};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(canon_publish_decode(bad[i], &envelope).code, E_ENVELOPE_MALFORMED);
    }
    assert_true(slice_eq(envelope, SLICE_LIT("untouched")));
}

static struct canon_item next(struct wire *at)
{
    struct canon_item item;
    bool found = false;
    assert_int_equal(canon_subscribe_next(at, &item, &found).code, E_OK);
    assert_true(found);
    return item;
}

static void test_subscribe_items_in_order(void **state)
{
    (void)state;
    struct wire at = wire_of(BYTES("\x12\x01"
                                   "7\x28\x01\x1a\x06\x0a\x01"
                                   "8\x10\xf4\x03\x20\x05"
                                   "\x1a\x05\x0a\x01"
                                   "9\x18\x01\x0a\x00"));
    struct canon_item item = next(&at);
    assert_int_equal(item.ask, CANON_ASK_ACK);
    assert_true(slice_eq(item.delivery, SLICE_LIT("7")));
    item = next(&at);
    assert_int_equal(item.ask, CANON_ASK_NACK);
    assert_true(slice_eq(item.delivery, SLICE_LIT("8")));
    assert_int_equal(item.delay_ms, 500);
    assert_false(item.terminate);
    item = next(&at);
    assert_int_equal(item.ask, CANON_ASK_CREDIT);
    assert_int_equal(item.credit, 5);
    item = next(&at);
    assert_int_equal(item.ask, CANON_ASK_NACK);
    assert_true(item.terminate);
    item = next(&at);
    assert_int_equal(item.ask, CANON_ASK_OPEN);
    bool found = true;
    assert_int_equal(canon_subscribe_next(&at, &item, &found).code, E_OK);
    assert_false(found);
}

static void test_subscribe_refused(void **state)
{
    (void)state;
    const struct slice bad[] = {BYTES("\x08\x01"),         BYTES("\x10\x01"),
                                BYTES("\x22\x01x"),        BYTES("\x1a\x02\x08\x01"),
                                BYTES("\x1a\x02\x12\x00"), BYTES("\x1a\x01\x0a"),
                                BYTES("\x12\x05x"),        BYTES("\xff")};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wire at = wire_of(bad[i]);
        struct canon_item item;
        bool found = false;
        assert_int_equal(canon_subscribe_next(&at, &item, &found).code, E_PROTOCOL_ERROR);
        assert_false(found);
    }
}

static void add_type(struct buf *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(wire_add_bytes(b, 2, SLICE_LIT("User.v2")).code, E_OK);
    }
}

static void test_open(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(4096);
    struct canon_open open;
    assert_int_equal(wire_add_bytes(&b, 1, SLICE_LIT("billing")).code, E_OK);
    assert_int_equal(wire_add_varint(&b, 3, 50).code, E_OK);
    assert_int_equal(wire_add_varint(&b, 4, 1).code, E_OK);
    add_type(&b, CANON_TYPES_MAX);
    assert_int_equal(canon_open_decode(buf_slice(&b), &open).code, E_OK);
    assert_true(slice_eq(open.consumer, SLICE_LIT("billing")));
    assert_int_equal(open.type_count, CANON_TYPES_MAX);
    assert_int_equal(open.credit, 50);
    assert_true(open.from_start);
    add_type(&b, 1);
    assert_int_equal(canon_open_decode(buf_slice(&b), &open).code, E_SUBSCRIPTION_INVALID);
    assert_int_equal(canon_open_decode(BYTES("\x08\x01"), &open).code, E_PROTOCOL_ERROR);
    assert_int_equal(canon_open_decode(BYTES(""), &open).code, E_OK);
    assert_int_equal(open.type_count, 0);
}

static void test_responses(void **state)
{
    (void)state;
    auto_buf struct buf out = BUF_MAX(64);
    const struct canon_publish_answer done = {
        .event_id = SLICE_LIT("e"), .sequence = 300, .stream = SLICE_LIT("S"), .duplicate = true};
    assert_int_equal(canon_publish_answer(&done, &out).code, E_OK);
    assert_true(slice_eq(buf_slice(&out), BYTES("\0\0\0\0\x0b\x0a\x01"
                                                "e\x10\xac\x02\x1a\x01"
                                                "S\x20\x01")));
    buf_clear(&out);
    const struct canon_publish_answer refused = {
        .code = SLICE_LIT("C"), .sentence = SLICE_LIT("s"), .explain = SLICE_LIT("i")};
    assert_int_equal(canon_publish_answer(&refused, &out).code, E_OK);
    assert_true(slice_eq(buf_slice(&out), BYTES("\0\0\0\0\x0b\x2a\x09\x0a\x01"
                                                "C\x12\x01"
                                                "s\x1a\x01"
                                                "i")));
    buf_clear(&out);
    const struct canon_delivery_answer delivery = {
        .delivery = 12, .envelope = SLICE_LIT("ab"), .sequence = 5, .attempt = 1};
    assert_int_equal(canon_delivery_answer(&delivery, &out).code, E_OK);
    assert_true(slice_eq(buf_slice(&out), BYTES("\0\0\0\0\x0c\x0a\x02"
                                                "12\x12\x02"
                                                "ab\x18\x05\x20\x01")));
    buf_clear(&out);
    assert_int_equal(canon_opened_answer(&out).code, E_OK);
    assert_true(slice_eq(buf_slice(&out), BYTES("\0\0\0\0\x02\x28\x01")));
}

static void test_response_that_does_not_fit_leaves_nothing(void **state)
{
    (void)state;
    char text[64] = {0};
    const struct canon_delivery_answer delivery = {.delivery = 1,
                                                   .envelope = slice_of(text, sizeof(text))};
    for (size_t max = 0; max < 70; max++) {
        auto_buf struct buf out = BUF_MAX(max + 1);
        assert_int_equal(buf_add_byte(&out, 'x').code, E_OK);
        assert_int_equal(canon_delivery_answer(&delivery, &out).code, E_TOO_LARGE);
        assert_int_equal(out.size, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_subscribe_items_in_order),
        cmocka_unit_test(test_subscribe_refused),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_response_that_does_not_fit_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
