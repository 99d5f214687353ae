/*
 * schema: a protobuf message type as tables, and the check of bytes against it.
 *
 * Shape      built once from a part of a snapshot: one block of memory with all messages that the
 *            type reaches; low field numbers are looked up directly, others by bisection.
 * Ownership  schema_build() gives a schema that schema_free() frees; it keeps nothing of the part.
 * Threads    immutable once built; any number of threads check.
 * Errors     schema_build(): E_PART_MALFORMED for tables that contradict themselves, E_NO_MEMORY.
 *            schema_check(): E_PAYLOAD_MALFORMED, with the field and the byte in *out_fault.
 * Source     protobuf.dev, "Encoding". What is checked: docs/canonical.md. Where we are stricter
 *            than a parser: a known field of another wire type is refused, not kept as unknown; a
 *            required field must be in each occurrence of its message, also where they merge.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct schema;
struct Trilane__Parts__V1__Schema;

/* As parsers have it by default; and what one message may have. */
enum { SCHEMA_DEPTH_MAX = 100, SCHEMA_REQUIRED_MAX = 64, SCHEMA_MESSAGES_MAX = 65536 };

enum schema_fault_kind {
    SCHEMA_FAULT_NONE,
    SCHEMA_FAULT_WIRE,     /* the bytes are no fields. */
    SCHEMA_FAULT_TYPE,     /* a known field of another wire type. */
    SCHEMA_FAULT_PACKED,   /* a packed field whose bytes are no whole number of values. */
    SCHEMA_FAULT_UTF8,     /* a string that is not UTF-8. */
    SCHEMA_FAULT_REQUIRED, /* a required field is not there. */
    SCHEMA_FAULT_DEPTH,    /* messages nested deeper than SCHEMA_DEPTH_MAX. */
    SCHEMA_FAULT_COUNT
};

struct schema_fault {
    enum schema_fault_kind kind;
    uint32_t field;       /* number; 0 when the bytes give none. */
    size_t offset;        /* of the field in the payload; of the message's end when one lacks. */
    struct slice message; /* name of the message that it is in; the schema's. */
};

MUST_CHECK struct err schema_build(const struct Trilane__Parts__V1__Schema *part,
                                   struct schema **out);
void schema_free(struct schema *schema); /* accepts NULL. */

/* "User.v2", "acme.users.v2.User", and the descriptor's fingerprint; the schema's. */
struct slice schema_type(const struct schema *schema);
struct slice schema_full_name(const struct schema *schema);
struct slice schema_fingerprint(const struct schema *schema);

/* Whether 'payload' is a well-formed message of the type. 'out_fault' may be NULL. */
MUST_CHECK struct err schema_check(const struct schema *schema, struct slice payload,
                                   struct schema_fault *out_fault);

/* "a string that is not UTF-8", …: for the caller's refusal. */
const char *schema_fault_text(enum schema_fault_kind kind);
