/* Proves that a request of reflection is read as protobuf reads it, whatever is asked for, and that
 * answers are what a client decodes. */
#include "common/proto/reflection.h"

#include <string.h>

#include "common/proto/wire.h"

#include "tests/support/cmocka.h"

#define EXPECT_OK(call) assert_true(err_ok(call))

static void requests_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        enum reflection_ask ask;
        const char *name;
        const char *host;
    } cases[] = {
        {"", 0, REFLECTION_NOTHING, "", ""},
        {"\x1a\x03"
         "a.b",
         5, REFLECTION_FILE, "a.b", ""},
        {"\x22\x03"
         "a.B",
         5, REFLECTION_SYMBOL, "a.B", ""},
        {"\x0a\x01h\x3a\x00", 5, REFLECTION_LIST, "", "h"},
        {"\x3a\x01*", 3, REFLECTION_LIST, "", ""},
        {"\x2a\x00", 2, REFLECTION_EXTENSION, "", ""},
        {"\x32\x01x", 3, REFLECTION_EXTENSIONS, "", ""},
        {"\x1a\x01"
         "f\x22\x01s",
         6, REFLECTION_SYMBOL, "s", ""}, /* the last one counts. */
        {"\x1a\x01"
         "f\x78\x01",
         5, REFLECTION_FILE, "f", ""}, /* of a later version. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reflection_request request;
        EXPECT_OK(reflection_read(slice_of(cases[i].bytes, cases[i].size), &request));
        assert_int_equal(request.ask, cases[i].ask);
        assert_true(slice_eq(request.name, slice_str(cases[i].name)));
        assert_true(slice_eq(request.host, slice_str(cases[i].host)));
    }
}

static void what_is_no_request_is_refused(void **state)
{
    (void)state;
    static const struct slice bad[] = {
        {(const uint8_t *)"\x1a\x05"
                          "ab",
         4},                                  /* cut. */
        {(const uint8_t *)"\x18\x01", 2},     /* a number for a name. */
        {(const uint8_t *)"\x22\x01\xff", 3}, /* no UTF-8. */
        {(const uint8_t *)"\x0a\x01\x80", 3},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct reflection_request request;
        assert_int_equal(reflection_read(bad[i], &request).code, E_MALFORMED);
    }
}

/* The field at the cursor, which must have this number and hold bytes. */
static struct slice take(struct wire *w, uint32_t number)
{
    struct wire_field f;
    EXPECT_OK(wire_next(w, &f));
    assert_int_equal(f.number, number);
    assert_int_equal(f.type, WIRE_BYTES);
    return f.bytes;
}

static void answers_are_what_a_client_decodes(void **state)
{
    (void)state;
    const struct slice names[] = {SLICE_LIT("a.A"), SLICE_LIT("b.B")};
    const struct reflection_request request = {.ask = REFLECTION_LIST, .host = SLICE_LIT("h")};
    auto_buf struct buf out = BUF_MAX(4096);
    EXPECT_OK(reflection_add_asked(&out, SLICE_LIT("asked"), &request));
    EXPECT_OK(reflection_add_services(&out, names, 2));
    EXPECT_OK(reflection_add_files(&out, names, 2));
    EXPECT_OK(reflection_add_error(&out, 5, SLICE_LIT("gone")));
    struct wire w = wire_of(buf_slice(&out));
    assert_true(slice_eq(take(&w, 1), SLICE_LIT("h")));
    assert_true(slice_eq(take(&w, 2), SLICE_LIT("asked")));
    struct wire list = wire_of(take(&w, 6));
    for (size_t i = 0; i < 2; i++) {
        struct wire service = wire_of(take(&list, 1));
        assert_true(slice_eq(take(&service, 1), names[i]));
        assert_false(wire_more(&service));
    }
    assert_false(wire_more(&list));
    struct wire files = wire_of(take(&w, 4));
    assert_true(slice_eq(take(&files, 1), names[0]));
    assert_true(slice_eq(take(&files, 1), names[1]));
    assert_false(wire_more(&files));
    struct wire error = wire_of(take(&w, 7));
    struct wire_field code;
    EXPECT_OK(wire_next(&error, &code));
    assert_int_equal(code.value, 5);
    assert_true(slice_eq(take(&error, 2), SLICE_LIT("gone")));
    assert_false(wire_more(&w));
}

static void an_answer_over_its_bound_is_refused(void **state)
{
    (void)state;
    const struct slice name = SLICE_LIT("a.long.name.of.a.Service");
    auto_buf struct buf out = BUF_MAX(16);
    assert_int_equal(reflection_add_services(&out, &name, 1).code, E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_read),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(answers_are_what_a_client_decodes),
        cmocka_unit_test(an_answer_over_its_bound_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
