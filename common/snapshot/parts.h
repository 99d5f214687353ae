/*
 * parts: a stream is parts one after the other, keys ascending by bytes.
 *
 * Shape      key size u16 | part size u32 | key | part, little-endian.
 * Ownership  slices borrow from the bytes that are walked.
 * Threads    pure functions; any thread.
 * Errors     PART_MALFORMED for what does not fit, is out of order or there twice; E_USAGE when
 *            a writer gives keys out of order; E_TOO_LARGE past the bound of the buf.
 * Source     docs/formats.md; kinds, keys and messages are listed in parts.proto.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"

struct part {
    struct slice key;
    struct slice bytes;
};

/* Whole size of a part in its stream. */
static inline uint64_t part_size(const struct part *p)
{
    return PART_HEADER_SIZE + (uint64_t)p->key.size + p->bytes.size;
}

/* Walks 'rest'; start with the stream's bytes and an empty 'last'. */
struct part_iter {
    struct slice rest;
    struct slice last; /* key of the part before. */
};

/* Takes the next part. PART_MALFORMED; at the end *out_more is false and *out untouched. */
MUST_CHECK struct err part_next(struct part_iter *it, struct part *out, bool *out_more);

/* Reads one part at the start of 'bytes', bounds only, no order. PART_MALFORMED. */
MUST_CHECK struct err part_read(struct slice bytes, struct part *out);

/* Sizes of a part from its first PART_HEADER_SIZE bytes. PART_MALFORMED past the bounds. */
MUST_CHECK struct err part_read_sizes(struct slice bytes, struct part *out_sizes);

/* Appends parts in ascending order of keys. */
struct part_writer {
    struct buf *out;
    struct slice last; /* borrowed: the key that was added last must live on. */
    bool started;
};
MUST_CHECK struct err part_add(struct part_writer *w, struct slice key, struct slice bytes);

/* Decodes the message of one part: PART_MALFORMED, CAPABILITY_MISSING, E_NO_MEMORY. */
MUST_CHECK struct err part_decode(const ProtobufCMessageDescriptor *type, struct slice bytes,
                                  ProtobufCMessage **out);

/* The message of a kind's part with this key; NULL when this build knows none. */
const ProtobufCMessageDescriptor *part_message(uint32_t kind, struct slice key);
