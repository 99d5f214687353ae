/*
 * text: hex, base64 and names, as they cross the program's edge.
 *
 * Units      sizes in bytes, without the NUL that is written behind text.
 * Threads    pure functions; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

/* Writes 2 * size lower-case hex digits and a NUL to 'out'. */
void text_hex(struct slice bytes, char *out);

/* Reads exactly 2 * size hex digits into 'out'. E_MALFORMED when they are not that. */
MUST_CHECK struct err text_unhex(struct slice hex, uint8_t *out, size_t size);

/*
 * Reads base64 with its padding into 'out', which has room for text.size / 4 * 3 bytes. E_MALFORMED
 * for another character, a group that is not whole, or bits behind the last byte that are not zero;
 * then 'out' holds what came before it.
 */
MUST_CHECK struct err text_unbase64(struct slice text, uint8_t *out, size_t *out_size);

/* Whether 's' is a resource name: [a-z0-9-], 1 to 63 characters, no hyphen at an end. */
bool text_is_name(struct slice s);

/* Whether 's' is valid UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool text_is_utf8(struct slice s);

/*
 * Matches a glob: '*' any run of characters, '?' one; all else itself. Linear in
 * text.size * pattern.size at worst, no recursion.
 */
bool text_glob(struct slice pattern, struct slice text);

/* The front of a glob that stands for itself; and whether there is more than that. */
struct slice text_glob_front(struct slice pattern);
bool text_is_glob(struct slice pattern);

/* Damerau-Levenshtein distance of two short names (<= 64 bytes); SIZE_MAX when one is longer. */
size_t text_distance(struct slice a, struct slice b);
