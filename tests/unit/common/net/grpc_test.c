/* Proves: framing is watched and messages are put together under every split, bounds and broken
 * flags are refused where they stand, and timeouts, statuses and messages keep their meaning. */
#include "common/net/grpc.h"

#include <stdint.h>
#include <string.h>

#include "tests/support/cmocka.h"

enum { MESSAGES = 4 };
static const char *const bodies[MESSAGES] = {"", "a", "hello", "the last message"};

static size_t stream_make(uint8_t *out)
{
    size_t at = 0;
    for (size_t i = 0; i < MESSAGES; i++) {
        size_t size = strlen(bodies[i]);
        grpc_prefix_write((uint32_t)size, out + at);
        memcpy(out + at + GRPC_PREFIX_BYTES, bodies[i], size);
        at += GRPC_PREFIX_BYTES + size;
    }
    return at;
}

/* Cuts the stream into pieces of 'step' bytes, and once more at 'cut'. */
static void scan_in_pieces(struct slice stream, size_t step, size_t cut)
{
    struct grpc_scan scan = {.message_max = 16};
    for (size_t at = 0; at < stream.size;) {
        size_t size = at < cut && at + step > cut ? cut - at : step;
        struct slice piece = slice_head(slice_from(stream, at), size);
        assert_true(err_ok(grpc_scan(&scan, piece)));
        at += piece.size;
    }
    assert_true(err_ok(grpc_scan_end(&scan)));
    assert_int_equal(scan.messages, MESSAGES);
    assert_int_equal(scan.bytes, 0 + 1 + 5 + 16);
    assert_false(scan.compressed);
}

static void read_in_pieces(struct slice stream, size_t step, size_t cut)
{
    struct grpc_reader reader;
    grpc_reader_init(&reader, 16);
    size_t found_count = 0;
    for (size_t at = 0; at < stream.size;) {
        size_t size = at < cut && at + step > cut ? cut - at : step;
        struct slice piece = slice_head(slice_from(stream, at), size);
        at += piece.size;
        bool found = true;
        while (found) {
            struct slice message;
            assert_true(err_ok(grpc_reader_next(&reader, &piece, &message, &found)));
            if (found) {
                assert_true(slice_eq(message, slice_str(bodies[found_count])));
                found_count++;
            }
        }
        assert_int_equal(piece.size, 0);
    }
    assert_int_equal(found_count, MESSAGES);
    assert_true(err_ok(grpc_scan_end(&reader.scan)));
    grpc_reader_free(&reader);
}

static void every_split_gives_the_same_messages(void **state)
{
    (void)state;
    uint8_t bytes[128];
    struct slice stream = slice_of(bytes, stream_make(bytes));
    for (size_t step = 1; step <= stream.size; step++) {
        for (size_t cut = 0; cut <= stream.size; cut++) {
            scan_in_pieces(stream, step, cut);
            read_in_pieces(stream, step, cut);
        }
    }
}

static void bounds_and_flags_are_refused(void **state)
{
    (void)state;
    struct grpc_scan scan = {.message_max = 16};
    assert_true(err_ok(grpc_scan(&scan, slice_of("\1\0\0\0\20", 5))));
    assert_true(scan.compressed);
    assert_int_equal(grpc_scan_end(&scan).code, E_MALFORMED); /* inside a message. */
    scan = (struct grpc_scan){.message_max = 16};
    assert_int_equal(grpc_scan(&scan, slice_of("\0\0\0\0\21", 5)).code, E_MESSAGE_TOO_LARGE);
    assert_int_equal(grpc_scan(&scan, slice_of("x", 1)).code, E_MESSAGE_TOO_LARGE);
    scan = (struct grpc_scan){.message_max = UINT64_MAX};
    assert_true(err_ok(grpc_scan(&scan, slice_of("\0\377\377\377\377", 5))));
    assert_int_equal(scan.left, UINT32_MAX);
    scan = (struct grpc_scan){.message_max = 16};
    assert_int_equal(grpc_scan(&scan, slice_of("\2\0\0\0\0", 5)).code, E_MALFORMED);
    scan = (struct grpc_scan){.message_max = 16};
    assert_true(err_ok(grpc_scan(&scan, slice_of("\0\0", 2))));
    assert_int_equal(grpc_scan_end(&scan).code, E_MALFORMED); /* inside a prefix. */
    struct grpc_reader reader;
    grpc_reader_init(&reader, 16);
    struct slice in = slice_of("\0\0\0\0\21", 5);
    struct slice message;
    bool found = false;
    assert_int_equal(grpc_reader_next(&reader, &in, &message, &found).code, E_MESSAGE_TOO_LARGE);
    grpc_reader_free(&reader);
}

static void messages_are_escaped_both_ways(void **state)
{
    (void)state;
    char out[64];
    size_t size = grpc_message_encode(SLICE_LIT("100% f\xc3\xbcr\n"), out, sizeof(out));
    assert_true(slice_eq(slice_of(out, size), SLICE_LIT("100%25 f%C3%BCr%0A")));
    char back[64];
    size = grpc_message_decode(slice_of(out, size), back, sizeof(back));
    assert_true(slice_eq(slice_of(back, size), SLICE_LIT("100% f\xc3\xbcr\n")));
    size = grpc_message_decode(SLICE_LIT("%zz%4"), back, sizeof(back));
    assert_true(slice_eq(slice_of(back, size), SLICE_LIT("%zz%4")));
    size = grpc_message_encode(SLICE_LIT("ab\xc3\xbc"), out, 7); /* not room for both escapes. */
    assert_true(slice_eq(slice_of(out, size), SLICE_LIT("ab")));
    size = grpc_message_encode(SLICE_LIT("\xff\xfe"), out, 6);
    assert_true(slice_eq(slice_of(out, size), SLICE_LIT("%FF%FE")));
    for (int byte = 0; byte < 256; byte++) {
        uint8_t one = (uint8_t)byte;
        size = grpc_message_encode(slice_of(&one, 1), out, sizeof(out));
        size = grpc_message_decode(slice_of(out, size), back, sizeof(back));
        assert_true(slice_eq(slice_of(back, size), slice_of(&one, 1)));
    }
}

static void statuses_map(void **state)
{
    (void)state;
    for (int status = 0; status <= 16; status++) {
        struct slice text = grpc_status_text((enum grpc_status)status);
        assert_int_equal(grpc_status_parse(text), status);
    }
    assert_int_equal(grpc_status_parse(SLICE_LIT("17")), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_parse(SLICE_LIT("")), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_parse(SLICE_LIT("-1")), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_of_http(503), GRPC_UNAVAILABLE);
    assert_int_equal(grpc_status_of_http(404), GRPC_UNIMPLEMENTED);
    assert_int_equal(grpc_status_of_http(200), GRPC_UNKNOWN);
    assert_true(grpc_is_content_type(SLICE_LIT("application/grpc")));
    assert_true(grpc_is_content_type(SLICE_LIT("application/grpc+proto")));
    assert_true(grpc_is_content_type(SLICE_LIT("Application/gRPC; charset=utf-8")));
    assert_false(grpc_is_content_type(SLICE_LIT("application/grpc-web")));
    assert_false(grpc_is_content_type(SLICE_LIT("application/json")));
    assert_false(grpc_is_content_type(SLICE_LIT("")));
}

static void refusals_carry_their_details(void **state)
{
    (void)state;
    struct grpc_refusal_room room;
    struct h2_field fields[GRPC_REFUSAL_FIELDS];
    struct grpc_refusal bare = {.code = E_NO_ROUTE};
    assert_int_equal(grpc_refusal_fields(&bare, &room, fields), 5);
    assert_true(slice_eq(fields[2].value, SLICE_LIT("12")));
    assert_true(slice_eq(fields[3].value, slice_str(err_text(E_NO_ROUTE))));
    assert_true(slice_eq(fields[4].value, SLICE_LIT("NO_ROUTE")));
    struct grpc_refusal full = {.code = E_POLICY_DENIED,
                                .sentence = SLICE_LIT("no\n"),
                                .rule = SLICE_LIT("r1"),
                                .explain = SLICE_LIT("0123456789ab"),
                                .version = UINT64_MAX,
                                .retry_ms = 40};
    assert_int_equal(grpc_refusal_fields(&full, &room, fields), GRPC_REFUSAL_FIELDS);
    assert_true(slice_eq(fields[3].value, SLICE_LIT("no%0A")));
    assert_true(slice_eq(fields[6].name, SLICE_LIT("x-trilane-explain")));
    assert_true(slice_eq(fields[6].value, SLICE_LIT("0123456789ab")));
    assert_true(slice_eq(fields[7].value, SLICE_LIT("18446744073709551615")));
    assert_true(slice_eq(fields[8].name, SLICE_LIT("grpc-retry-pushback-ms")));
    assert_true(slice_eq(fields[8].value, SLICE_LIT("40")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_gives_the_same_messages),
        cmocka_unit_test(bounds_and_flags_are_refused),
        cmocka_unit_test(messages_are_escaped_both_ways),
        cmocka_unit_test(statuses_map),
        cmocka_unit_test(refusals_carry_their_details),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
