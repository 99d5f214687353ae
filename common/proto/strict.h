/*
 * strict: protobuf messages read so that nothing in them is passed over.
 *
 * Shape      protobuf-c's generated messages, filled by a decoder of our own; it takes at most
 *            'memory_max' bytes of heap beside the message's own struct, which an empty message
 *            takes, too, in a few blocks.
 * Ownership  proto_decode() gives a message that proto_free() gives back, and nothing else.
 * Threads    any.
 * Errors     the code that the caller names for bytes that do not parse, and another one for a
 *            field below 100 that is not known here, at any depth: such a field may restrict.
 * Source     docs/formats.md, "Encoding". Only the canonical form is taken: what is decoded and
 *            encoded again gives the same bytes. That refuses a doubled field, a default that is
 *            spelled out, a NUL inside a string and a varint that is longer than it need be.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/* Unknown fields from this number on are passed over; below it they are refused. */
enum { PROTO_IGNORABLE_FIELD = 100 };

struct proto_rules {
    size_t memory_max;       /* bytes of heap beside the message's own struct. */
    enum err_code malformed; /* the bytes do not parse, or not in canonical form. */
    enum err_code unknown;   /* a field below PROTO_IGNORABLE_FIELD is not known here. */
};

/*
 * Decodes 'bytes' as a message of 'type' into *out, which the caller gives to proto_free().
 * Fails with the codes of 'rules', and with E_NO_MEMORY when the heap is full.
 */
MUST_CHECK struct err proto_decode(const ProtobufCMessageDescriptor *type, struct slice bytes,
                                   const struct proto_rules *rules, ProtobufCMessage **out);

/* Appends the canonical form: fields ascending, defaults left out, scalars packed. */
MUST_CHECK struct err proto_encode(const ProtobufCMessage *message, struct buf *out);

/* Frees a decoded message; NULL is fine. */
void proto_free(ProtobufCMessage *message);

static inline void proto_free_scoped(ProtobufCMessage **message)
{
    proto_free(*message);
    *message = NULL;
}

/* protobuf-c's fields are not const, though encoding only reads them. */
static inline char *proto_text(const char *text)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = text};
    return cast.out;
}

static inline ProtobufCBinaryData proto_binary(const uint8_t *bytes, size_t size)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } cast = {.in = bytes};
    return (ProtobufCBinaryData){.len = size, .data = cast.out};
}

#define auto_proto __attribute__((cleanup(proto_free_scoped)))
