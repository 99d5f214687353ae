/*
 * grpc_web: what gRPC-Web puts on top of HTTP: its content types, base64 in pieces, and sections
 * of fields that travel in the body.
 *
 * Shape      pure functions, and a decoder of a stream of base64 that keeps at most one group.
 * Units      bytes.
 * Ownership  slices are borrowed for the call, unless a function says otherwise.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED for what is no base64 and no section of fields.
 * Source     gRPC Web (grpc/grpc, doc/PROTOCOL-WEB.md); RFC 4648, section 4. A sender may pad
 *            wherever it flushes, so padding ends a group, not the stream.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/h2_field.h"

enum grpc_web_kind { GRPC_WEB_NONE, GRPC_WEB_BINARY, GRPC_WEB_TEXT };

/* Flag of a frame whose payload is fields: the last one of an answer is its trailers. */
enum { GRPC_WEB_FIELDS_FLAG = 0x80 };

/*
 * Which of the two a content type is; *out_suffix is what stands behind it, "+proto" or empty. What
 * comes behind a ';' is passed over.
 */
enum grpc_web_kind grpc_web_content_type(struct slice value, struct slice *out_suffix);

/* The first of the two in a list of types (RFC 9110, 12.5.1: "accept"); NONE: neither is there. */
enum grpc_web_kind grpc_web_accepted(struct slice accept);

/* ---- base64 ---- */

/* Zeroed is a start. */
struct grpc_web_decoder {
    uint32_t bits;  /* of the group that is open. */
    uint8_t have;   /* characters of it, padding counted. */
    uint8_t padded; /* how many of those are padding. */
};

/*
 * Takes characters from the front of *in until it is empty or 'out' has no room for another group
 * (three bytes); returns in *out_size how many were written.
 */
MUST_CHECK struct err grpc_web_decode(struct grpc_web_decoder *d, struct slice *in, uint8_t *out,
                                      size_t capacity, size_t *out_size);

/* The stream ended: E_MALFORMED inside of a group. */
MUST_CHECK struct err grpc_web_decode_end(const struct grpc_web_decoder *d);

/* Characters that so many bytes take, padding with them; and writes them. */
static inline size_t grpc_web_encoded_size(size_t bytes)
{
    return (bytes + 2) / 3 * 4;
}
void grpc_web_encode(struct slice bytes, char *out);

/* ---- sections of fields ---- */

/*
 * Appends a frame of fields, "name: value" CR LF each; pseudo fields are left out. Whole or not at
 * all: E_USAGE for a field that must not be written so, and the errors of buf_add().
 */
MUST_CHECK struct err grpc_web_write_fields(struct buf *out, const struct h2_field *fields,
                                            size_t count);

/*
 * Takes the next field off a section of that form, with the white space around its value taken
 * off; *out_found is false at its end. Names come as they were sent.
 */
MUST_CHECK struct err grpc_web_next_field(struct slice *section, struct slice *out_name,
                                          struct slice *out_value, bool *out_found);
