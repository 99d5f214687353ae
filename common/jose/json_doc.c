/* json_doc: see json_doc.h. */
#include "common/jose/json_doc.h"

#include <stdlib.h>

#include "common/base/text.h"

struct reader {
    uint8_t *at;
    uint8_t *end;
    struct json_doc_value *values;
    size_t count;
    size_t capacity;
    unsigned depth;
};

static MUST_CHECK struct err read_value(struct reader *r);

static void skip_space(struct reader *r)
{
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) {
        r->at++;
    }
}

/* Takes the byte when it is the next one. */
static bool take(struct reader *r, uint8_t byte)
{
    bool is_next = r->at < r->end && *r->at == byte;
    r->at += is_next ? 1 : 0;
    return is_next;
}

static MUST_CHECK struct err add(struct reader *r, enum json_doc_kind kind,
                                 struct json_doc_value **out)
{
    if (r->count == r->capacity) {
        return FAIL(E_TOO_LARGE);
    }
    *out = &r->values[r->count++];
    **out = (struct json_doc_value){.kind = kind, .span = 1};
    return OK;
}

/* ---- strings ---- */

/* Four hex digits. */
static bool read_unit(struct reader *r, uint32_t *out)
{
    uint8_t bytes[2];
    if (r->end - r->at < 4 || !err_ok(text_unhex(slice_of(r->at, 4), bytes, sizeof(bytes)))) {
        return false;
    }
    r->at += 4;
    *out = (uint32_t)bytes[0] << 8 | bytes[1];
    return true;
}

/* Behind "\u": one unit, or two that are a pair (RFC 8259, 7). */
static MUST_CHECK struct err read_code_point(struct reader *r, uint32_t *out)
{
    uint32_t low = 0;
    if (!read_unit(r, out) || *out == 0 || (*out >= 0xdc00 && *out <= 0xdfff)) {
        return FAIL(E_MALFORMED);
    }
    if (*out < 0xd800 || *out > 0xdbff) {
        return OK;
    }
    if (!take(r, '\\') || !take(r, 'u') || !read_unit(r, &low) || low < 0xdc00 || low > 0xdfff) {
        return FAIL(E_MALFORMED);
    }
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return OK;
}

/* Writes a code point as UTF-8, which is shorter than its escape; returns where it ends. */
static uint8_t *put_utf8(uint8_t *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (uint8_t)c;
        return to;
    }
    if (c < 0x800) {
        *to++ = (uint8_t)(0xc0 | c >> 6);
    } else if (c < 0x10000) {
        *to++ = (uint8_t)(0xe0 | c >> 12);
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    } else {
        *to++ = (uint8_t)(0xf0 | c >> 18);
        *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    }
    *to++ = (uint8_t)(0x80 | (c & 0x3f));
    return to;
}

/* Behind a backslash: writes what it stands for to *to. */
static MUST_CHECK struct err read_escape(struct reader *r, uint8_t **to)
{
    static const char from[] = "\"\\/bfnrt";
    static const char stands_for[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end) {
        return FAIL(E_MALFORMED);
    }
    uint8_t c = *r->at++;
    if (c == 'u') {
        uint32_t point = 0;
        TRY(read_code_point(r, &point));
        *to = put_utf8(*to, point);
        return OK;
    }
    const char *found = c == 0 ? NULL : strchr(from, c);
    if (found == NULL) {
        return FAIL(E_MALFORMED);
    }
    *(*to)++ = (uint8_t)stands_for[found - from];
    return OK;
}

/* Unescapes in place: what a string stands for is never longer than how it is written. */
static MUST_CHECK struct err read_string(struct reader *r)
{
    struct json_doc_value *value = NULL;
    TRY(add(r, JSON_DOC_STRING, &value));
    uint8_t *start = ++r->at; /* the quote was seen. */
    uint8_t *to = start;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at < 0x20) {
            return FAIL(E_MALFORMED);
        }
        if (take(r, '\\')) {
            TRY(read_escape(r, &to));
        } else {
            *to++ = *r->at++;
        }
    }
    if (!take(r, '"')) {
        return FAIL(E_MALFORMED);
    }
    value->text = slice_of(start, (size_t)(to - start));
    return OK;
}

/* ---- numbers and words ---- */

static size_t take_digits(struct reader *r)
{
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        r->at++;
    }
    return (size_t)(r->at - start);
}

/* [-] int [frac] [exp], as RFC 8259, 6 has them. */
static MUST_CHECK struct err read_number(struct reader *r)
{
    struct json_doc_value *value = NULL;
    TRY(add(r, JSON_DOC_NUMBER, &value));
    const uint8_t *start = r->at;
    (void)take(r, '-');
    bool whole = take(r, '0') || take_digits(r) > 0;
    if (whole && take(r, '.')) {
        whole = take_digits(r) > 0;
    }
    if (whole && (take(r, 'e') || take(r, 'E'))) {
        (void)(take(r, '+') || take(r, '-'));
        whole = take_digits(r) > 0;
    }
    value->text = slice_of(start, (size_t)(r->at - start));
    return whole ? OK : FAIL(E_MALFORMED);
}

static MUST_CHECK struct err read_word(struct reader *r)
{
    static const struct {
        struct slice text;
        enum json_doc_kind kind;
    } words[] = {{SLICE_INIT("true"), JSON_DOC_BOOL},
                 {SLICE_INIT("false"), JSON_DOC_BOOL},
                 {SLICE_INIT("null"), JSON_DOC_NULL}};
    struct slice rest = slice_of(r->at, (size_t)(r->end - r->at));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_starts(rest, words[i].text)) {
            struct json_doc_value *value = NULL;
            TRY(add(r, words[i].kind, &value));
            value->text = slice_head(rest, words[i].text.size);
            r->at += words[i].text.size;
            return OK;
        }
    }
    return FAIL(E_MALFORMED);
}

/* ---- arrays and objects ---- */

/* Whether the name that was read last is another one's of the same object. */
static bool is_double(const struct reader *r, size_t object, size_t name)
{
    for (size_t i = object + 1; i < name; i += 1 + r->values[i + 1].span) {
        if (slice_eq(r->values[i].text, r->values[name].text)) {
            return true;
        }
    }
    return false;
}

static MUST_CHECK struct err read_member(struct reader *r, size_t object)
{
    size_t name = r->count;
    skip_space(r);
    if (r->at == r->end || *r->at != '"') {
        return FAIL(E_MALFORMED);
    }
    TRY(read_string(r));
    if (is_double(r, object, name)) {
        return FAIL(E_MALFORMED);
    }
    skip_space(r);
    return take(r, ':') ? read_value(r) : FAIL(E_MALFORMED);
}

static MUST_CHECK struct err read_items(struct reader *r, enum json_doc_kind kind, uint8_t close)
{
    struct json_doc_value *value = NULL;
    size_t index = r->count;
    TRY(add(r, kind, &value));
    r->at++; /* the bracket was seen. */
    skip_space(r);
    if (take(r, close)) {
        return OK;
    }
    do {
        TRY(kind == JSON_DOC_OBJECT ? read_member(r, index) : read_value(r));
        skip_space(r);
    } while (take(r, ','));
    value->span = (uint32_t)(r->count - index);
    return take(r, close) ? OK : FAIL(E_MALFORMED);
}

/* Recursion ends at JSON_DOC_DEPTH_MAX. */
static struct err read_value(struct reader *r)
{
    skip_space(r);
    if (r->at == r->end || r->depth == JSON_DOC_DEPTH_MAX) {
        return FAIL(E_MALFORMED);
    }
    r->depth++;
    struct err e = *r->at == '{'   ? read_items(r, JSON_DOC_OBJECT, '}')
                   : *r->at == '[' ? read_items(r, JSON_DOC_ARRAY, ']')
                   : *r->at == '"' ? read_string(r)
                   : *r->at == '-' || (*r->at >= '0' && *r->at <= '9') ? read_number(r)
                                                                       : read_word(r);
    r->depth--;
    return e;
}

struct err json_doc_parse(uint8_t *text, size_t size, struct json_doc_value *values,
                          size_t capacity)
{
    struct reader r = {.at = text, .end = text + size, .values = values, .capacity = capacity};
    if (size == 0 || !text_is_utf8(slice_of(text, size))) {
        return FAIL(E_MALFORMED);
    }
    TRY(read_value(&r));
    skip_space(&r);
    return r.at == r.end ? OK : FAIL(E_MALFORMED);
}

/* ---- walking ---- */

const struct json_doc_value *json_doc_get(const struct json_doc_value *object, struct slice name)
{
    if (object == NULL || object->kind != JSON_DOC_OBJECT) {
        return NULL;
    }
    for (uint32_t i = 1; i < object->span; i += 1 + object[i + 1].span) {
        if (slice_eq(object[i].text, name)) {
            return &object[i + 1];
        }
    }
    return NULL;
}

bool json_doc_text(const struct json_doc_value *object, struct slice name, struct slice *out)
{
    const struct json_doc_value *value = json_doc_get(object, name);
    if (value == NULL || value->kind != JSON_DOC_STRING) {
        return false;
    }
    *out = value->text;
    return true;
}

bool json_doc_next(const struct json_doc_value *array, const struct json_doc_value **at)
{
    if (array == NULL || array->kind != JSON_DOC_ARRAY) {
        return false;
    }
    const struct json_doc_value *next = *at == NULL ? array + 1 : *at + (*at)->span;
    if (next == array + array->span) {
        return false;
    }
    *at = next;
    return true;
}

bool json_doc_u53(const struct json_doc_value *value, uint64_t *out)
{
    enum { NUMBER_MAX = 40 };
    char text[NUMBER_MAX + 1];
    if (value == NULL || value->kind != JSON_DOC_NUMBER || value->text.size > NUMBER_MAX) {
        return false;
    }
    (void)memcpy(text, value->text.ptr, value->text.size);
    text[value->text.size] = '\0';
    double number = strtod(text, NULL);
    if (!(number >= 0 && number <= 9007199254740992.0)) {
        return false;
    }
    *out = (uint64_t)number;
    return true;
}
