/*
 * wire: protobuf's wire format, walked and appended to, without knowing the message.
 *
 * Shape      a cursor over borrowed bytes gives one field at a time; appending goes to a buf.
 * Units      bytes; numbers as the wire has them (zigzag is undone by wire_zigzag()).
 * Ownership  fields borrow from the bytes that are walked. Nothing is allocated.
 * Threads    pure values; any thread.
 * Errors     E_MALFORMED: a cut or overlong varint, a length past the end, field number 0 or past
 *            2^29-1, wire type 6 or 7, a group that is not closed, closed twice, or nested deeper
 *            than WIRE_GROUP_DEPTH_MAX. Past an error the cursor is of no use.
 * Source     protobuf.dev, "Encoding". Varints may be longer than needed, up to ten bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3, /* as a field: the whole group, its contents in 'bytes'. */
    WIRE_GROUP_END = 4,
    WIRE_FIXED32 = 5
};

enum { WIRE_GROUP_DEPTH_MAX = 64, WIRE_VARINT_MAX = 10, WIRE_NUMBER_MAX = (1 << 29) - 1 };

struct wire {
    const uint8_t *start; /* where offsets count from. */
    const uint8_t *at;
    const uint8_t *end;
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     /* of varint and fixed ones; 0 else. */
    struct slice bytes; /* content of WIRE_BYTES and WIRE_GROUP; empty else. */
    size_t offset;      /* of the field's tag, from the start. */
};

static inline struct wire wire_of(struct slice bytes)
{
    return (struct wire){bytes.ptr, bytes.ptr, bytes.ptr + bytes.size};
}

static inline bool wire_more(const struct wire *w)
{
    return w->at != w->end;
}

/* Reads the field at the cursor and moves behind it; only while wire_more(). */
MUST_CHECK struct err wire_next(struct wire *w, struct wire_field *out);

/* The parts of wire_next(), for walkers that know more: each moves the cursor behind it. */
MUST_CHECK struct err wire_read_varint(struct wire *w, uint64_t *out);
MUST_CHECK struct err wire_read_tag(struct wire *w, uint32_t *out_number, enum wire_type *out_type);
/* Reads a field's content behind its tag, groups included, into *out (but number and offset). */
MUST_CHECK struct err wire_read_value(struct wire *w, uint32_t number, enum wire_type type,
                                      struct wire_field *out);

static inline int64_t wire_zigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* Bytes that a varint takes. */
static inline size_t wire_varint_size(uint64_t value)
{
    return value == 0 ? 1 : (size_t)(64 - __builtin_clzll(value) + 6) / 7;
}

/* Bytes that wire_add_bytes() adds for a content of that size. */
size_t wire_bytes_size(uint32_t number, size_t content_size);

/* Append one field. E_TOO_LARGE, E_NO_MEMORY from the buf, which keeps its content. */
MUST_CHECK struct err wire_add_varint(struct buf *out, uint32_t number, uint64_t value);
MUST_CHECK struct err wire_add_fixed32(struct buf *out, uint32_t number, uint32_t value);
MUST_CHECK struct err wire_add_fixed64(struct buf *out, uint32_t number, uint64_t value);
MUST_CHECK struct err wire_add_bytes(struct buf *out, uint32_t number, struct slice bytes);
/* An entry of a map whose keys and values are strings or bytes. */
MUST_CHECK struct err wire_add_entry(struct buf *out, uint32_t number, struct slice key,
                                     struct slice value);
/* The head of a field whose content of that size the caller appends next. */
MUST_CHECK struct err wire_add_head(struct buf *out, uint32_t number, size_t content_size);
