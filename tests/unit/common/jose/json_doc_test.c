/* Proves that JSON is taken as RFC 8259 has it and in no other way, that what two readers could
 * read in two ways is refused, and that walking finds what is there. */
#include "common/jose/json_doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"

enum { CAPACITY = 64, TEXT_MAX = 512 };

static struct json_doc_value values[CAPACITY];
static uint8_t text[TEXT_MAX];

static struct err parse(const char *json, size_t size)
{
    assert_true(size <= sizeof(text));
    memcpy(text, json, size);
    return json_doc_parse(text, size, values, CAPACITY);
}

static void expect(const char *json, enum err_code code)
{
    struct err e = parse(json, strlen(json));
    if (e.code != code) {
        fail_msg("%s: %s, not %s", json, err_name(e.code), err_name(code));
    }
}

static void what_is_json(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        "0",
        "-1",
        "1.5e+3",
        "1E2",
        "true",
        "false",
        "null",
        "\"\"",
        " [ 1 , 2 ]\r\n\t",
        "{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":2}]}",
        "\"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        expect(good[i], E_OK);
    }
}

static void what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "{]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "0x10",
        "NaN",
        "Infinity",
        "tru",
        "truer",
        "nul",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud83dx\"",
        "{} {}",
        "[1]]",
        "\xef\xbb\xbf{}",
        "\"\xc3\"",
        "\"\xed\xa0\x80\"",
        "// a\n1",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect(bad[i], E_MALFORMED);
    }
    assert_int_equal(parse("\"a\0b\"", 5).code, E_MALFORMED);
}

/* Also when they are written in two ways, and whatever lies between them. */
static void a_name_twice(void **state)
{
    (void)state;
    expect("{\"a\":1,\"a\":2}", E_MALFORMED);
    expect("{\"a\":1,\"b\":{\"c\":[1,{\"d\":2}]},\"\\u0061\":2}", E_MALFORMED);
    expect("[{\"x\":{\"alg\":1,\"al\\u0067\":1}}]", E_MALFORMED);
    expect("{\"a\":1,\"A\":2,\"aa\":3,\"\":4}", E_OK);
}

static void bounds(void **state)
{
    (void)state;
    char deep[TEXT_MAX];
    for (int depth = JSON_DOC_DEPTH_MAX - 1; depth <= JSON_DOC_DEPTH_MAX + 1; depth++) {
        (void)snprintf(deep, sizeof(deep), "%.*s%.*s", depth, "[[[[[[[[[[[[[[[[", depth,
                       "]]]]]]]]]]]]]]]]");
        expect(deep, depth <= JSON_DOC_DEPTH_MAX ? E_OK : E_MALFORMED);
    }
    char zeros[TEXT_MAX] = "";
    for (size_t i = 0; i < CAPACITY; i++) {
        (void)memcpy(zeros + 2 * i, "0,", 2);
    }
    for (int count = CAPACITY - 1; count <= CAPACITY; count++) { /* and the array itself. */
        char wide[TEXT_MAX];
        (void)snprintf(wide, sizeof(wide), "[%.*s]", 2 * count - 1, zeros);
        expect(wide, count < CAPACITY ? E_OK : E_TOO_LARGE);
    }
}

/* No piece of a text is a text, nor does it lead past its end (ASan sees that). */
static void every_prefix(void **state)
{
    (void)state;
    const char *json =
        "{\"a\":[1,-2.5e3,true,null,\"x\\u00e9\\ud83d\\ude00\"],\"b\":{\"c\":\"d\"}}";
    for (size_t size = 0; size < strlen(json); size++) {
        uint8_t *exact = malloc(size == 0 ? 1 : size);
        memcpy(exact, json, size);
        assert_int_equal(json_doc_parse(exact, size, values, CAPACITY).code, E_MALFORMED);
        free(exact);
    }
}

static void walking(void **state)
{
    (void)state;
    struct slice found = {0};
    expect("{\"a\":[1,[2,3],{\"b\":4}],\"s\":\"\\u00e9\\n\",\"o\":{\"s\":\"in\"},\"n\":12.9}",
           E_OK);
    const struct json_doc_value *array = json_doc_get(values, SLICE_LIT("a"));
    const struct json_doc_value *at = NULL;
    assert_true(json_doc_next(array, &at));
    assert_true(slice_eq(at->text, SLICE_LIT("1")));
    assert_true(json_doc_next(array, &at));
    assert_int_equal(at->kind, JSON_DOC_ARRAY);
    assert_true(json_doc_next(array, &at));
    assert_true(slice_eq(json_doc_get(at, SLICE_LIT("b"))->text, SLICE_LIT("4")));
    assert_false(json_doc_next(array, &at));
    assert_true(json_doc_text(values, SLICE_LIT("s"), &found));
    assert_true(slice_eq(found, SLICE_LIT("\xc3\xa9\n")));
    assert_true(json_doc_text(json_doc_get(values, SLICE_LIT("o")), SLICE_LIT("s"), &found));
    assert_true(slice_eq(found, SLICE_LIT("in")));
    assert_false(json_doc_text(values, SLICE_LIT("n"), &found));
    assert_null(json_doc_get(values, SLICE_LIT("b")));
    assert_null(json_doc_get(array, SLICE_LIT("a")));
    assert_null(json_doc_get(NULL, SLICE_LIT("a")));
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint64_t value;
        bool taken;
    } rows[] = {{"0", 0, true},
                {"1300819380", 1300819380, true},
                {"1300819380.999", 1300819380, true},
                {"1.3e9", 1300000000, true},
                {"9007199254740992", UINT64_C(9007199254740992), true},
                {"9007199254740994", 0, false},
                {"1e300", 0, false},
                {"-1", 0, false},
                {"\"1\"", 0, false},
                {"0.00000000000000000000000000000000000000000001", 0, false},
                {"null", 0, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t value = 0;
        expect(rows[i].json, E_OK);
        assert_int_equal(json_doc_u53(values, &value), rows[i].taken);
        assert_int_equal(value, rows[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json), cmocka_unit_test(what_is_none),
        cmocka_unit_test(a_name_twice), cmocka_unit_test(bounds),
        cmocka_unit_test(every_prefix), cmocka_unit_test(walking),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests_name("json_doc", tests, NULL, NULL);
}
