/* text: hex both ways; names at their bounds; UTF-8 judged for every sequence of up to three bytes
 * and the edges of four; globs against a plain recursive matcher; distances. */
#include "common/base/text.h"

#include <string.h>

#include "tests/support/cmocka.h"

#define S(text) SLICE_LIT(text)

static void hex_and_back(void **state)
{
    (void)state;
    uint8_t bytes[256];
    uint8_t back[256];
    char hex[513];
    for (size_t i = 0; i < 256; i++) {
        bytes[i] = (uint8_t)i;
    }
    text_hex(slice_of(bytes, 256), hex);
    assert_int_equal(strlen(hex), 512);
    assert_memory_equal(hex, "000102", 6);
    assert_true(err_ok(text_unhex(slice_str(hex), back, 256)));
    assert_memory_equal(bytes, back, 256);
    assert_true(err_ok(text_unhex(S("aBcD"), back, 2)));
    assert_int_equal(back[0], 0xab);
    assert_int_equal(back[1], 0xcd);
}

static void bad_hex_changes_nothing(void **state)
{
    (void)state;
    uint8_t out[2] = {7, 8};
    static const struct slice refused[] = {
        SLICE_INIT(""),     SLICE_INIT("ab"),   SLICE_INIT("abc"),  SLICE_INIT("abcde"),
        SLICE_INIT("abcg"), SLICE_INIT("ab d"), SLICE_INIT("0x12"), SLICE_INIT("abcdef")};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_int_equal(text_unhex(refused[i], out, 2).code, E_MALFORMED);
        assert_int_equal(out[0], 7);
        assert_int_equal(out[1], 8);
    }
    assert_true(err_ok(text_unhex(S(""), out, 0)));
}

static void names(void **state)
{
    (void)state;
    char name[65];
    (void)memset(name, 'a', sizeof(name));
    assert_true(text_is_name(slice_of(name, 1)));
    assert_true(text_is_name(slice_of(name, 63)));
    assert_false(text_is_name(slice_of(name, 64)));
    assert_true(text_is_name(S("a-0-z9")));
    assert_true(text_is_name(S("0")));
    static const struct slice refused[] = {
        SLICE_INIT(""),    SLICE_INIT("-"),       SLICE_INIT("-a"),  SLICE_INIT("a-"),
        SLICE_INIT("A"),   SLICE_INIT("a_b"),     SLICE_INIT("a.b"), SLICE_INIT("a b"),
        SLICE_INIT("a\0"), SLICE_INIT("\xc3\xa4")};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_false(text_is_name(refused[i]));
    }
}

/* Decodes by the definition of RFC 3629: pattern, then shortest form, surrogates and range. */
static bool one_character(const uint8_t *b, size_t size)
{
    static const uint8_t masks[] = {0x80, 0xe0, 0xf0, 0xf8};
    static const uint8_t marks[] = {0x00, 0xc0, 0xe0, 0xf0};
    static const uint32_t lowest[] = {0, 0x80, 0x800, 0x10000};
    if (size == 0 || size > 4 || (b[0] & masks[size - 1]) != marks[size - 1]) {
        return false;
    }
    uint32_t point = b[0] & (uint8_t)~masks[size - 1];
    for (size_t i = 1; i < size; i++) {
        if ((b[i] & 0xc0) != 0x80) {
            return false;
        }
        point = point << 6 | (b[i] & 0x3f);
    }
    return point >= lowest[size - 1] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
}

/* Valid when it splits into characters: at most four bytes, so three cuts. */
static bool valid(const uint8_t *b, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t step = 1;
        while (step <= 4 && at + step <= size && !one_character(b + at, step)) {
            step++;
        }
        if (step > 4 || at + step > size) {
            return false;
        }
        at += step;
    }
    return true;
}

static void utf8_of_up_to_three_bytes(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 1U << 24; n++) {
        uint8_t b[3] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
        size_t size = n < 256 ? 1 : n < 65536 ? 2 : 3;
        const uint8_t *at = b + 3 - size;
        if (text_is_utf8(slice_of(at, size)) != valid(at, size)) {
            fail_msg("%zu bytes, %06x", size, n);
        }
    }
}

static void utf8_of_four_bytes(void **state)
{
    (void)state;
    static const uint8_t edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90,
                                    0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    const size_t count = sizeof(edges);
    for (size_t n = 0; n < 256 * count * count * count; n++) {
        uint8_t b[4] = {(uint8_t)(n % 256), edges[n / 256 % count], edges[n / 256 / count % count],
                        edges[n / 256 / count / count]};
        assert_int_equal(text_is_utf8(slice_of(b, 4)), valid(b, 4));
    }
    assert_true(text_is_utf8(slice_of(NULL, 0)));
}

/* The definition of a glob, for short inputs only. */
static bool plain_glob(const char *p, const char *t)
{
    if (*p == '\0') {
        return *t == '\0';
    }
    if (*p == '*') {
        return plain_glob(p + 1, t) || (*t != '\0' && plain_glob(p, t + 1));
    }
    return *t != '\0' && (*p == '?' || *p == *t) && plain_glob(p + 1, t + 1);
}

/* The n-th text over an alphabet, of at most 'size' letters; false past the last. */
static bool nth_text(size_t n, const char *alphabet, size_t size, char *out)
{
    size_t base = strlen(alphabet) + 1;
    bool ended = false;
    size_t length = 0;
    for (size_t i = 0; i < size; i++, n /= base) {
        if (n % base == 0) {
            ended = true;
        } else if (ended) {
            return false; /* a gap: not a text of this numbering. */
        } else {
            out[length++] = alphabet[n % base - 1];
        }
    }
    out[length] = '\0';
    return true;
}

static void globs_agree_with_the_definition(void **state)
{
    (void)state;
    char pattern[6];
    char text[6];
    for (size_t p = 0; p < 3125; p++) {
        if (!nth_text(p, "ab*?", 5, pattern)) {
            continue;
        }
        for (size_t t = 0; t < 243; t++) {
            if (nth_text(t, "ab", 5, text) &&
                text_glob(slice_str(pattern), slice_str(text)) != plain_glob(pattern, text)) {
                fail_msg("pattern \"%s\", text \"%s\"", pattern, text);
            }
        }
    }
}

static void a_hostile_glob_ends(void **state)
{
    (void)state;
    char pattern[2000];
    char text[20000];
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = i % 2 == 0 ? '*' : 'a';
    }
    (void)memset(text, 'a', sizeof(text));
    assert_true(text_glob(slice_of(pattern, sizeof(pattern)), slice_of(text, sizeof(text))));
    pattern[sizeof(pattern) - 1] = 'b';
    assert_false(text_glob(slice_of(pattern, sizeof(pattern)), slice_of(text, sizeof(text))));
}

static void a_glob_has_a_front(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        size_t front;
    } rows[] = {{"", 0}, {"*", 0}, {"?a", 0}, {"ab", 2}, {"ab*", 2}, {"a?b*", 1}, {"ab*c?", 2}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct slice pattern = slice_str(rows[i].pattern);
        assert_true(slice_eq(text_glob_front(pattern), slice_head(pattern, rows[i].front)));
        assert_int_equal(text_is_glob(pattern), rows[i].front < pattern.size);
    }
}

static void distances(void **state)
{
    (void)state;
    assert_int_equal(text_distance(S(""), S("")), 0);
    assert_int_equal(text_distance(S(""), S("abc")), 3);
    assert_int_equal(text_distance(S("abc"), S("")), 3);
    assert_int_equal(text_distance(S("polcies"), S("policies")), 1);
    assert_int_equal(text_distance(S("polciies"), S("policies")), 1); /* two swapped. */
    assert_int_equal(text_distance(S("kitten"), S("sitting")), 3);
    assert_int_equal(text_distance(S("abc"), S("xyz")), 3);
    uint8_t long_text[65] = {0};
    assert_int_equal(text_distance(slice_of(long_text, 64), S("")), 64);
    assert_true(text_distance(slice_of(long_text, 65), S("")) == SIZE_MAX);
    assert_true(text_distance(S(""), slice_of(long_text, 65)) == SIZE_MAX);
}

static void expect_base64(const char *text, const char *bytes)
{
    uint8_t out[64] = {0};
    size_t size = 99;
    assert_true(err_ok(text_unbase64(slice_str(text), out, &size)));
    assert_true(slice_eq(slice_of(out, size), slice_str(bytes)));
}

/* RFC 4648, section 10; and all bits of the alphabet. */
static void base64_is_read(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zm8=", "fo"},
        {"Zm9v", "foo"},
        {"Zm9vYg==", "foob"},
        {"Zm9vYmE=", "fooba"},
        {"Zm9vYmFy", "foobar"},
        {"//79/A==", "\xff\xfe\xfd\xfc"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect_base64(rows[i][0], rows[i][1]);
    }
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t out[48 + 1] = {0}; /* the last character is looked at with what follows. */
    size_t size = 0;
    assert_true(err_ok(text_unbase64(slice_str(alphabet), out, &size)));
    assert_int_equal(size, 48);
    for (size_t i = 0; i < 64; i++) { /* character i stands for the number i. */
        size_t bit = 6 * i;
        uint32_t two = (uint32_t)out[bit / 8] << 8 | out[bit / 8 + 1];
        assert_int_equal(two >> (10 - bit % 8) & 63, i);
    }
}

static void base64_is_whole(void **state)
{
    (void)state;
    static const char *const wrong[] = {"Z",    "Zg",   "Zg=",      "Zh==",  "Zm9=",
                                        "====", "=g==", "Z===",     "Zm9v ", "Zm9vY",
                                        "Zm-v", "Zm_v", "Zg==Zg==", "Zm\n9"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t out[64];
        size_t size = 99;
        struct err e = text_unbase64(slice_str(wrong[i]), out, &size);
        assert_int_equal(e.code, E_MALFORMED);
        assert_int_equal(size, 99);
    }
    uint8_t out[3];
    size_t size = 99;
    for (unsigned c = 0; c < 256; c++) {
        uint8_t text[4] = {'A', (uint8_t)c, 'A', 'A'};
        bool fits = strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
                           (int)c) != NULL &&
                    c != 0;
        assert_int_equal(err_ok(text_unbase64(slice_of(text, 4), out, &size)), fits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_read),
        cmocka_unit_test(base64_is_whole),
        cmocka_unit_test(hex_and_back),
        cmocka_unit_test(bad_hex_changes_nothing),
        cmocka_unit_test(names),
        cmocka_unit_test(utf8_of_up_to_three_bytes),
        cmocka_unit_test(utf8_of_four_bytes),
        cmocka_unit_test(globs_agree_with_the_definition),
        cmocka_unit_test(a_hostile_glob_ends),
        cmocka_unit_test(a_glob_has_a_front),
        cmocka_unit_test(distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
