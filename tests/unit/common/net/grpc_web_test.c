/* Proves: content types of gRPC-Web are told apart, base64 in pieces decodes to the same bytes
 * however it is cut and padded and refuses what has another form, and sections of fields are read
 * and written strictly. */
#include "common/net/grpc_web.h"

#include <stdint.h>
#include <string.h>

#include "common/net/grpc.h"

#include "tests/support/cmocka.h"

/* ---- content types ---- */

static void expect_type(const char *type, enum grpc_web_kind kind, const char *suffix)
{
    struct slice found = {0};
    assert_int_equal(grpc_web_content_type(slice_str(type), &found), kind);
    if (kind != GRPC_WEB_NONE) {
        assert_true(slice_eq(found, slice_str(suffix)));
    }
}

static void types_are_told_apart(void **state)
{
    (void)state;
    expect_type("application/grpc-web", GRPC_WEB_BINARY, "");
    expect_type("application/grpc-web+proto", GRPC_WEB_BINARY, "+proto");
    expect_type("Application/GRPC-Web+json; charset=utf-8", GRPC_WEB_BINARY, "+json");
    expect_type("application/grpc-web-text", GRPC_WEB_TEXT, "");
    expect_type("application/grpc-web-text+proto ;x=y", GRPC_WEB_TEXT, "+proto");
    expect_type("application/grpc", GRPC_WEB_NONE, "");
    expect_type("application/grpc+proto", GRPC_WEB_NONE, "");
    expect_type("application/grpc-webby", GRPC_WEB_NONE, "");
    expect_type("application/grpc-web+", GRPC_WEB_NONE, "");
    expect_type("application/grpc-web+a b", GRPC_WEB_NONE, "");
    expect_type("application/grpc-web-text-more", GRPC_WEB_NONE, "");
    expect_type("", GRPC_WEB_NONE, "");
    assert_false(grpc_is_content_type(SLICE_LIT("application/grpc-web+proto")));
}

static void the_first_type_that_is_taken(void **state)
{
    (void)state;
    assert_int_equal(grpc_web_accepted(SLICE_LIT("application/grpc-web-text")), GRPC_WEB_TEXT);
    assert_int_equal(grpc_web_accepted(SLICE_LIT("text/html, application/grpc-web+proto")),
                     GRPC_WEB_BINARY);
    assert_int_equal(grpc_web_accepted(SLICE_LIT("*/*")), GRPC_WEB_NONE);
    assert_int_equal(grpc_web_accepted((struct slice){0}), GRPC_WEB_NONE);
}

/* ---- base64 ---- */

enum { BYTES_MAX = 64 };

/* Feeds pieces of 'step' characters; E_OK when all of it decodes. */
static enum err_code decode_in_pieces(const char *text, size_t step, uint8_t *out, size_t *out_size)
{
    struct grpc_web_decoder decoder = {0};
    size_t size = strlen(text);
    *out_size = 0;
    for (size_t at = 0; at < size; at += step) {
        struct slice piece = slice_head(slice_of(text + at, size - at), step);
        while (piece.size > 0) {
            size_t wrote = 0;
            struct err e =
                grpc_web_decode(&decoder, &piece, out + *out_size, /* capacity= */ 5, &wrote);
            if (!err_ok(e)) {
                return e.code;
            }
            *out_size += wrote;
        }
    }
    return grpc_web_decode_end(&decoder).code;
}

static void expect_bytes(const char *text, const char *bytes)
{
    uint8_t out[BYTES_MAX + 8];
    for (size_t step = 1; step <= strlen(text); step++) {
        size_t size = 0;
        assert_int_equal(decode_in_pieces(text, step, out, &size), E_OK);
        assert_int_equal(size, strlen(bytes));
        assert_memory_equal(out, bytes, size);
    }
}

/* A sender pads where it flushes: each piece is base64 of its own. */
static void padding_in_the_middle(void **state)
{
    (void)state;
    expect_bytes("aGVsbG8=", "hello");
    expect_bytes("aGV5", "hey");
    expect_bytes("aA==ZQ==bGxv", "hello");
    expect_bytes("aGVsbG8=aGVsbG8=", "hellohello");
    expect_bytes("", "");
}

static void what_is_no_base64(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "aGVsbG8",  "a",    "aGVs\n", "aGV-", "aG=s",     "=aaa", "a===",
        "aGVsbG9=", "aB==", "====",   "aGV ", "aA==Z===", "_w==",
    };
    uint8_t out[BYTES_MAX];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        for (size_t step = 1; step <= strlen(wrong[i]); step++) {
            size_t size = 0;
            assert_int_equal(decode_in_pieces(wrong[i], step, out, &size), E_MALFORMED);
        }
    }
}

static void encoded_and_decoded(void **state)
{
    (void)state;
    uint8_t bytes[BYTES_MAX];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 37 + 200);
    }
    for (size_t size = 0; size <= sizeof(bytes) - 8; size++) {
        char text[BYTES_MAX * 2] = {0};
        uint8_t out[BYTES_MAX + 8];
        size_t out_size = 0;
        grpc_web_encode(slice_of(bytes, size), text);
        assert_int_equal(strlen(text), grpc_web_encoded_size(size));
        assert_int_equal(decode_in_pieces(text, 3, out, &out_size), E_OK);
        assert_int_equal(out_size, size);
        assert_memory_equal(out, bytes, size);
    }
}

/* ---- sections of fields ---- */

static void fields_are_written_and_read(void **state)
{
    (void)state;
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
        h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0")),
        h2_field_named(SLICE_LIT("x-more"), SLICE_LIT("a b")),
        h2_field_static(H2_TOKEN_GRPC_MESSAGE, SLICE_LIT("")),
    };
    auto_buf struct buf out = BUF_MAX(1024);
    assert_true(err_ok(grpc_web_write_fields(&out, fields, 4)));
    static const char wanted[] = "\x80\0\0\0\x2d"
                                 "grpc-status: 0\r\nx-more: a b\r\ngrpc-message: \r\n";
    assert_int_equal(out.size, sizeof(wanted) - 1);
    assert_memory_equal(out.ptr, wanted, out.size);
    struct slice section = slice_from(buf_slice(&out), GRPC_PREFIX_BYTES);
    for (size_t i = 1; i < 4; i++) {
        struct slice name = {0};
        struct slice value = {0};
        bool found = false;
        assert_true(err_ok(grpc_web_next_field(&section, &name, &value, &found)));
        assert_true(found);
        assert_true(slice_eq(name, fields[i].name));
        assert_true(slice_eq(value, fields[i].value));
    }
    assert_int_equal(section.size, 0);
}

static void a_field_that_would_split_is_not_written(void **state)
{
    (void)state;
    const struct h2_field fields[] = {
        h2_field_named(SLICE_LIT("x-fine"), SLICE_LIT("1")),
        h2_field_named(SLICE_LIT("x-bad"), SLICE_LIT("1\r\ngrpc-status: 0")),
    };
    auto_buf struct buf out = BUF_MAX(1024);
    assert_int_equal(grpc_web_write_fields(&out, fields, 2).code, E_USAGE);
    assert_int_equal(out.size, 0);
    struct buf small = BUF_MAX(GRPC_PREFIX_BYTES + 3);
    assert_int_equal(grpc_web_write_fields(&small, fields, 1).code, E_TOO_LARGE);
    assert_int_equal(small.size, 0);
    buf_free(&small);
}

static void what_is_no_section(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "a: b",        "a: b\n",    "a b\r\n",      ": b\r\n",      "a : b\r\n",   "\r\n",
        "a: b\rc\r\n", " a: b\r\n", "a: b\r\n\r\n", "a\x7f: b\r\n", "a: \x01\r\n",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct slice section = slice_str(wrong[i]);
        struct err e = OK;
        bool found = true;
        while (err_ok(e) && found) {
            struct slice name = {0};
            struct slice value = {0};
            e = grpc_web_next_field(&section, &name, &value, &found);
        }
        assert_int_equal(e.code, E_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_told_apart),
        cmocka_unit_test(the_first_type_that_is_taken),
        cmocka_unit_test(padding_in_the_middle),
        cmocka_unit_test(what_is_no_base64),
        cmocka_unit_test(encoded_and_decoded),
        cmocka_unit_test(fields_are_written_and_read),
        cmocka_unit_test(a_field_that_would_split_is_not_written),
        cmocka_unit_test(what_is_no_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
