/* wire: see wire.h. Groups are skipped with a stack of their numbers, not by recursion. */
#include "common/proto/wire.h"

#include "common/base/check.h"

static struct err skip_group(struct wire *w, uint32_t number, struct slice *out_content);
static struct err skip_value(struct wire *w, enum wire_type type);
static size_t put_varint(uint8_t *to, uint64_t value);

struct err wire_next(struct wire *w, struct wire_field *out)
{
    size_t offset = (size_t)(w->at - w->start);
    uint32_t number = 0;
    enum wire_type type = WIRE_VARINT;
    TRY(wire_read_tag(w, &number, &type));
    TRY(wire_read_value(w, number, type, out));
    out->number = number;
    out->offset = offset;
    return OK;
}

struct err wire_read_varint(struct wire *w, uint64_t *out)
{
    if (w->at != w->end && *w->at < 0x80) { /* most are one byte. */
        *out = *w->at++;
        return OK;
    }
    uint64_t value = 0;
    const uint8_t *at = w->at;
    for (unsigned shift = 0; shift < 7 * WIRE_VARINT_MAX; shift += 7) {
        if (at == w->end) {
            return FAIL(E_MALFORMED);
        }
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1) {
            return FAIL(E_MALFORMED); /* more than 64 bits. */
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            w->at = at;
            *out = value;
            return OK;
        }
    }
    return FAIL(E_MALFORMED);
}

struct err wire_read_tag(struct wire *w, uint32_t *out_number, enum wire_type *out_type)
{
    uint64_t tag = 0;
    TRY(wire_read_varint(w, &tag));
    uint64_t number = tag >> 3;
    if (number == 0 || number > WIRE_NUMBER_MAX || (tag & 7) > WIRE_FIXED32) {
        return FAIL(E_MALFORMED);
    }
    *out_number = (uint32_t)number;
    *out_type = (enum wire_type)(tag & 7);
    return OK;
}

static struct err read_fixed(struct wire *w, size_t size, uint64_t *out)
{
    if ((size_t)(w->end - w->at) < size) {
        return FAIL(E_MALFORMED);
    }
    uint64_t value = 0;
    for (size_t i = size; i > 0; i--) {
        value = value << 8 | w->at[i - 1];
    }
    w->at += size;
    *out = value;
    return OK;
}

static struct err read_bytes(struct wire *w, struct slice *out)
{
    uint64_t size = 0;
    TRY(wire_read_varint(w, &size));
    if (size > (uint64_t)(w->end - w->at)) {
        return FAIL(E_MALFORMED);
    }
    *out = slice_of(w->at, (size_t)size);
    w->at += size;
    return OK;
}

struct err wire_read_value(struct wire *w, uint32_t number, enum wire_type type,
                           struct wire_field *out)
{
    out->type = type;
    out->value = 0;
    out->bytes = (struct slice){0};
    switch (type) {
    case WIRE_VARINT:
        return wire_read_varint(w, &out->value);
    case WIRE_FIXED64:
        return read_fixed(w, 8, &out->value);
    case WIRE_BYTES:
        return read_bytes(w, &out->bytes);
    case WIRE_GROUP:
        return skip_group(w, number, &out->bytes);
    case WIRE_FIXED32:
        return read_fixed(w, 4, &out->value);
    case WIRE_GROUP_END:
        break;
    }
    return FAIL(E_MALFORMED); /* an end without a beginning. */
}

/* Moves behind the end tag of a group whose start tag was read. */
static struct err skip_group(struct wire *w, uint32_t number, struct slice *out_content)
{
    uint32_t open[WIRE_GROUP_DEPTH_MAX];
    size_t depth = 0;
    open[depth++] = number;
    const uint8_t *start = w->at;
    const uint8_t *content_end = start;
    while (depth > 0) { /* ends: each turn takes at least a byte, or fails. */
        uint32_t inner = 0;
        enum wire_type type = WIRE_VARINT;
        content_end = w->at;
        TRY(wire_read_tag(w, &inner, &type));
        if (type == WIRE_GROUP_END) {
            if (inner != open[depth - 1]) {
                return FAIL(E_MALFORMED);
            }
            depth--;
        } else if (type == WIRE_GROUP) {
            if (depth == WIRE_GROUP_DEPTH_MAX) {
                return FAIL(E_MALFORMED);
            }
            open[depth++] = inner;
        } else {
            TRY(skip_value(w, type));
        }
    }
    *out_content = slice_of(start, (size_t)(content_end - start));
    return OK;
}

/* Moves behind a value that is no group. */
static struct err skip_value(struct wire *w, enum wire_type type)
{
    CHECK(type != WIRE_GROUP);
    uint64_t value = 0;
    struct slice bytes;
    if (type == WIRE_VARINT) {
        return wire_read_varint(w, &value);
    }
    if (type == WIRE_BYTES) {
        return read_bytes(w, &bytes);
    }
    return read_fixed(w, type == WIRE_FIXED32 ? 4 : 8, &value);
}

size_t wire_bytes_size(uint32_t number, size_t content_size)
{
    return wire_varint_size((uint64_t)number << 3) + wire_varint_size(content_size) + content_size;
}

struct err wire_add_varint(struct buf *out, uint32_t number, uint64_t value)
{
    uint8_t field[2 * WIRE_VARINT_MAX];
    size_t size = put_varint(field, (uint64_t)number << 3 | WIRE_VARINT);
    size += put_varint(field + size, value);
    return buf_add(out, slice_of(field, size));
}

static struct err add_fixed(struct buf *out, uint32_t number, enum wire_type type, uint64_t value)
{
    uint8_t field[WIRE_VARINT_MAX + 8];
    size_t size = put_varint(field, (uint64_t)number << 3 | type);
    size_t end = size + (type == WIRE_FIXED32 ? 4 : 8);
    for (; size < end; size++) {
        field[size] = (uint8_t)value;
        value >>= 8;
    }
    return buf_add(out, slice_of(field, size));
}

struct err wire_add_fixed32(struct buf *out, uint32_t number, uint32_t value)
{
    return add_fixed(out, number, WIRE_FIXED32, value);
}

struct err wire_add_fixed64(struct buf *out, uint32_t number, uint64_t value)
{
    return add_fixed(out, number, WIRE_FIXED64, value);
}

struct err wire_add_head(struct buf *out, uint32_t number, size_t content_size)
{
    uint8_t head[2 * WIRE_VARINT_MAX];
    size_t size = put_varint(head, (uint64_t)number << 3 | WIRE_BYTES);
    size += put_varint(head + size, content_size);
    return buf_add(out, slice_of(head, size));
}

struct err wire_add_bytes(struct buf *out, uint32_t number, struct slice bytes)
{
    size_t size = wire_bytes_size(number, bytes.size);
    uint8_t *to = NULL;
    TRY(buf_reserve(out, size, &to)); /* all or nothing. */
    TRY(wire_add_head(out, number, bytes.size));
    return buf_add(out, bytes);
}

struct err wire_add_entry(struct buf *out, uint32_t number, struct slice key, struct slice value)
{
    size_t content = wire_bytes_size(1, key.size) + wire_bytes_size(2, value.size);
    uint8_t *to = NULL;
    TRY(buf_reserve(out, wire_bytes_size(number, content), &to));
    TRY(wire_add_head(out, number, content));
    TRY(wire_add_bytes(out, 1, key));
    return wire_add_bytes(out, 2, value);
}

static size_t put_varint(uint8_t *to, uint64_t value)
{
    size_t size = 0;
    while (value >= 0x80) {
        to[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    to[size++] = (uint8_t)value;
    return size;
}
