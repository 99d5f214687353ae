/*
 * json_doc: one JSON text of an outsider, judged strictly and walked in place.
 *
 * Shape      a flat array of values in the order of the text, each of which says how many values
 *            it spans. A member of an object is its name, a string, and behind it its value.
 * Units      bytes.
 * Ownership  the caller owns text and array; strings are unescaped inside of the text and borrow
 *            from it. Nothing is allocated.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED: no JSON, a name twice in one object, text that is not UTF-8, half of a
 *            surrogate pair, a NUL in a string, or nested deeper than JSON_DOC_DEPTH_MAX.
 *            E_TOO_LARGE: more values than the array has room for.
 * Source     RFC 8259; of two members with one name RFC 8725, 2.6 and RFC 7515, 4 say why not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

enum { JSON_DOC_DEPTH_MAX = 12 };

enum json_doc_kind {
    JSON_DOC_NULL,
    JSON_DOC_BOOL,
    JSON_DOC_NUMBER,
    JSON_DOC_STRING,
    JSON_DOC_ARRAY,
    JSON_DOC_OBJECT,
};

struct json_doc_value {
    struct slice text; /* of a string what it stands for, of others as written; arrays and objects
                          have none. */
    uint32_t span;     /* values from this one to behind it: 1 and all that is in it. */
    enum json_doc_kind kind;
};

/* Reads the whole of a text into 'values', at least one; values[0] is the outermost. The text is
 * written over, on failure, too. */
MUST_CHECK struct err json_doc_parse(uint8_t *text, size_t size, struct json_doc_value *values,
                                     size_t capacity);

/* The value of an object's member; NULL: there is none, or 'object' is none (or NULL). */
const struct json_doc_value *json_doc_get(const struct json_doc_value *object, struct slice name);

/* The same for a string's text: false when it is absent or no string. */
bool json_doc_text(const struct json_doc_value *object, struct slice name, struct slice *out);

/* Walks the items of an array: *at NULL at first; false behind the last, or for what is none. */
bool json_doc_next(const struct json_doc_value *array, const struct json_doc_value **at);

/* A number that lies between 0 and 2^53, without its fraction; false for any other. */
bool json_doc_u53(const struct json_doc_value *value, uint64_t *out);
