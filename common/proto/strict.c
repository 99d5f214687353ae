/*
 * Strict decoding: protobuf-c's generated structs, filled by a reader of our own that takes the
 * canonical form alone. What it takes needs no second look: fields ascend, so each is met once and
 * a list stands in one piece; what a canonical writer would not have written ends the reading.
 *
 * protobuf-c's own decoder takes more, so what it read had to be walked and encoded again to judge
 * it, and it asks the heap for each string. A message here lies in a few blocks.
 */
#include "common/proto/strict.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/base/text.h"

enum {
    DEPTH_MAX = 16, /* our messages nest five deep at most; deeper is a mistake of ours. */
    ALIGN = 8,      /* of what lies in a block. */
    BLOCK_LEAST = 256,
    VARINT_MAX = 10,
    NUMBER_MAX = (1 << 29) - 1,
};

/* ---- memory ---- */

/* A piece of a message's memory; behind the first one lies the message itself. */
struct block {
    struct block *next;
    size_t size; /* bytes behind this header. */
    size_t used;
};
_Static_assert(sizeof(struct block) % ALIGN == 0, "what lies behind it is aligned");

struct reading {
    const struct proto_rules *rules;
    struct block *first;
    struct block *last;
    size_t block_size; /* of the next block, unless more is asked for at once. */
    size_t left;       /* bytes that may still be handed out. */
};

static void blocks_free(struct block *block)
{
    while (block != NULL) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
}

static MUST_CHECK struct err add_block(struct reading *r, size_t least)
{
    size_t size = least > r->block_size ? least : r->block_size;
    size = size > r->left ? r->left : size; /* 'least' is not above it. */
    struct block *block = malloc(sizeof(*block) + size);
    if (block == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *block = (struct block){.size = size};
    if (r->last == NULL) {
        r->first = block;
    } else {
        r->last->next = block;
    }
    r->last = block;
    return OK;
}

/* Hands out memory; what is above the cap would be a message made to fill the heap. */
static MUST_CHECK struct err take(struct reading *r, size_t count, size_t size, void **out)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > r->left) {
        CHECK(r->rules->malformed != E_OK);
        return FAIL(r->rules->malformed);
    }
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    bytes = bytes > r->left ? r->left : bytes; /* the last loan of all may end unaligned. */
    if (r->last == NULL || r->last->size - r->last->used < bytes) {
        TRY(add_block(r, bytes));
    }
    *out = (uint8_t *)(r->last + 1) + r->last->used;
    r->last->used += bytes;
    r->left -= bytes;
    return OK;
}

/* ---- the wire ---- */

/* A varint of any length, but in as few bytes as it takes. */
static MUST_CHECK struct err read_long_varint(const struct reading *r, struct slice *rest,
                                              uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < rest->size && i < VARINT_MAX; i++) {
        uint8_t byte = rest->ptr[i];
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            bool longer = byte == 0 && i > 0;
            bool over = i == VARINT_MAX - 1 && byte > 1;
            *rest = slice_from(*rest, i + 1);
            *out = value;
            return longer || over ? FAIL(r->rules->malformed) : OK;
        }
    }
    return FAIL(r->rules->malformed);
}

static MUST_CHECK inline struct err read_varint(const struct reading *r, struct slice *rest,
                                                uint64_t *out)
{
    const uint8_t *p = rest->ptr;
    if (rest->size > 0 && p[0] < 0x80) { /* nearly all of them. */
        *out = p[0];
        *rest = slice_from(*rest, 1);
        return OK;
    }
    if (rest->size > 1 && p[1] - 1U < 0x7f) { /* the sizes of chunks are of two bytes, */
        *out = (p[0] & 0x7fU) | (uint32_t)p[1] << 7;
        *rest = slice_from(*rest, 2);
        return OK;
    }
    if (rest->size > 2 && p[1] >= 0x80 && p[2] - 1U < 0x7f) { /* and of three. */
        *out = (p[0] & 0x7fU) | (p[1] & 0x7fU) << 7 | (uint32_t)p[2] << 14;
        *rest = slice_from(*rest, 3);
        return OK;
    }
    return read_long_varint(r, rest, out);
}

static MUST_CHECK struct err read_tag(const struct reading *r, struct slice *rest,
                                      uint32_t *out_number, ProtobufCWireType *out_type)
{
    uint64_t tag = 0;
    TRY(read_varint(r, rest, &tag));
    if (tag >> 3 == 0 || tag >> 3 > NUMBER_MAX) {
        return FAIL(r->rules->malformed);
    }
    *out_number = (uint32_t)(tag >> 3);
    *out_type = (ProtobufCWireType)(tag & 7);
    return OK;
}

static MUST_CHECK struct err read_bytes(const struct reading *r, struct slice *rest,
                                        struct slice *out)
{
    uint64_t size = 0;
    TRY(read_varint(r, rest, &size));
    if (size > rest->size) {
        return FAIL(r->rules->malformed);
    }
    *out = slice_head(*rest, (size_t)size);
    *rest = slice_from(*rest, (size_t)size);
    return OK;
}

/* ---- one value ---- */

static MUST_CHECK struct err read_message(struct reading *r, const ProtobufCMessageDescriptor *type,
                                          struct slice bytes, int depth, ProtobufCMessage **out);

/* Writes a number to where its field lies; the types that docs/formats.md allows. */
static MUST_CHECK inline struct err store_number(const struct reading *r, ProtobufCType type,
                                                 uint64_t value, void *to)
{
    uint32_t narrow = (uint32_t)value;
    protobuf_c_boolean truth = value != 0;
    bool fits = true;
    switch (type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        memcpy(to, &value, sizeof(value));
        return OK;
    case PROTOBUF_C_TYPE_UINT32:
        fits = value == narrow;
        memcpy(to, &narrow, sizeof(narrow));
        break;
    case PROTOBUF_C_TYPE_INT32: /* negative ones take ten bytes. */
    case PROTOBUF_C_TYPE_ENUM:
        fits = value == (uint64_t)(int64_t)(int32_t)narrow;
        memcpy(to, &narrow, sizeof(narrow));
        break;
    case PROTOBUF_C_TYPE_BOOL:
        fits = value <= 1;
        memcpy(to, &truth, sizeof(truth));
        break;
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        CHECK(false); /* a number of a type that formats do not use. */
    }
    return fits ? OK : FAIL(r->rules->malformed);
}

/* Bytes that an item takes in its struct, or in its list. */
static size_t item_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        break;
    }
    CHECK(false); /* an item of a type that formats do not use. */
    return 0;
}

/* A text, which ends where its NUL stands; or bytes as they are. */
static MUST_CHECK struct err store_copy(struct reading *r, ProtobufCType type, struct slice bytes,
                                        void *to)
{
    bool text = type == PROTOBUF_C_TYPE_STRING;
    if (text && (slice_find(bytes, '\0') < bytes.size || !text_is_utf8(bytes))) {
        return FAIL(r->rules->malformed);
    }
    void *copy = NULL;
    TRY(take(r, bytes.size + text, 1, &copy));
    if (bytes.size > 0) {
        memcpy(copy, bytes.ptr, bytes.size);
    }
    if (text) {
        ((uint8_t *)copy)[bytes.size] = '\0';
        memcpy(to, &copy, sizeof(copy));
    } else {
        memcpy(to, &(ProtobufCBinaryData){bytes.size, copy}, sizeof(ProtobufCBinaryData));
    }
    return OK;
}

static bool is_number(ProtobufCType type)
{
    return type != PROTOBUF_C_TYPE_STRING && type != PROTOBUF_C_TYPE_BYTES &&
           type != PROTOBUF_C_TYPE_MESSAGE;
}

/* One item with a size before it: text, bytes or a message. */
static MUST_CHECK struct err store_item(struct reading *r, const ProtobufCFieldDescriptor *field,
                                        struct slice bytes, int depth, void *to)
{
    if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return store_copy(r, field->type, bytes, to);
    }
    ProtobufCMessage *child = NULL;
    TRY(read_message(r, field->descriptor, bytes, depth + 1, &child));
    memcpy(to, &child, sizeof(child));
    return OK;
}

/* ---- one field ---- */

/* A field that stands alone: what is there has a value other than its default. */
static MUST_CHECK struct err read_single(struct reading *r, const ProtobufCFieldDescriptor *field,
                                         struct slice *rest, int depth, void *to)
{
    struct slice bytes = {0};
    uint64_t value = 0;
    if (is_number(field->type)) {
        TRY(read_varint(r, rest, &value));
        return value == 0 ? FAIL(r->rules->malformed) : store_number(r, field->type, value, to);
    }
    TRY(read_bytes(r, rest, &bytes));
    if (bytes.size == 0 && field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return FAIL(r->rules->malformed);
    }
    return store_item(r, field, bytes, depth, to);
}

/* Those of a list, as protobuf-c keeps them. */
struct items {
    void *at;
    size_t count;
};

/* A list of numbers, packed; never empty. */
static MUST_CHECK struct err read_packed(struct reading *r, const ProtobufCFieldDescriptor *field,
                                         struct slice *rest, struct items *out)
{
    CHECK((field->flags & PROTOBUF_C_FIELD_FLAG_PACKED) != 0);
    struct slice packed = {0};
    uint8_t *items = NULL;
    size_t size = item_size(field->type);
    size_t count = 0;
    TRY(read_bytes(r, rest, &packed));
    for (size_t i = 0; i < packed.size; i++) {
        count += packed.ptr[i] < 0x80;
    }
    if (count == 0) {
        return FAIL(r->rules->malformed);
    }
    TRY(take(r, count, size, (void **)&items));
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 0;
        TRY(read_varint(r, &packed, &value));
        TRY(store_number(r, field->type, value, items + i * size));
    }
    *out = (struct items){.at = items, .count = count};
    return packed.size == 0 ? OK : FAIL(r->rules->malformed);
}

/* Counts the items of a list that stands one behind the other, each behind the tag 'tag'. */
static MUST_CHECK struct err count_items(const struct reading *r, struct slice tag,
                                         struct slice rest, size_t *out)
{
    struct slice item = {0};
    size_t count = 1; /* the cursor is behind the tag of the first one. */
    TRY(read_bytes(r, &rest, &item));
    while (slice_starts(rest, tag)) {
        rest = slice_from(rest, tag.size);
        TRY(read_bytes(r, &rest, &item));
        count++;
    }
    *out = count;
    return OK;
}

static MUST_CHECK struct err read_items(struct reading *r, const ProtobufCFieldDescriptor *field,
                                        struct slice tag, struct slice *rest, int depth,
                                        struct items *out)
{
    uint8_t *items = NULL;
    size_t size = item_size(field->type);
    size_t count = 0;
    TRY(count_items(r, tag, *rest, &count));
    TRY(take(r, count, size, (void **)&items));
    for (size_t i = 0; i < count; i++) {
        struct slice bytes = {0};
        *rest = slice_from(*rest, i == 0 ? 0 : tag.size);
        TRY(read_bytes(r, rest, &bytes));
        TRY(store_item(r, field, bytes, depth, items + i * size));
    }
    *out = (struct items){.at = items, .count = count};
    return OK;
}

/* The field behind 'tag', which the cursor has passed. */
static MUST_CHECK struct err read_field(struct reading *r, const ProtobufCFieldDescriptor *field,
                                        struct slice tag, struct slice *rest, int depth,
                                        ProtobufCMessage *m)
{
    uint8_t *base = (uint8_t *)m;
    void *to = base + field->offset;
    bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    bool number = is_number(field->type);
    ProtobufCWireType wanted =
        list || !number ? PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED : PROTOBUF_C_WIRE_TYPE_VARINT;
    if ((ProtobufCWireType)(tag.ptr[0] & 7) != wanted) {
        return FAIL(r->rules->malformed);
    }
    if (!list) {
        return read_single(r, field, rest, depth, to);
    }
    struct items items = {0};
    TRY(number ? read_packed(r, field, rest, &items)
               : read_items(r, field, tag, rest, depth, &items));
    memcpy(base + field->quantifier_offset, &items.count, sizeof(items.count));
    memcpy(to, &items.at, sizeof(items.at));
    return OK;
}

/* ---- fields that are not known ---- */

static MUST_CHECK struct err skip_value(const struct reading *r, ProtobufCWireType type,
                                        struct slice *rest)
{
    struct slice bytes = {0};
    uint64_t value = 0;
    size_t size = type == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
    switch (type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(r, rest, &value);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return read_bytes(r, rest, &bytes);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        if (rest->size < size) {
            return FAIL(r->rules->malformed);
        }
        *rest = slice_from(*rest, size);
        return OK;
    }
    return FAIL(r->rules->malformed); /* groups, and what is no type. */
}

/* One that is known has its place before those that are not. */
static bool is_ignorable(const ProtobufCMessageDescriptor *type, uint32_t number)
{
    return number >= PROTO_IGNORABLE_FIELD &&
           protobuf_c_message_descriptor_get_field(type, number) == NULL;
}

static MUST_CHECK struct err read_ignorable(struct reading *r,
                                            const ProtobufCMessageDescriptor *type,
                                            struct slice *rest, ProtobufCMessageUnknownField *out)
{
    struct slice value = {0};
    TRY(read_tag(r, rest, &out->tag, &out->wire_type));
    if (!is_ignorable(type, out->tag)) {
        return FAIL(r->rules->malformed); /* behind a higher one. */
    }
    value = *rest;
    TRY(skip_value(r, out->wire_type, rest));
    out->len = value.size - rest->size;
    void *copy = NULL;
    TRY(take(r, out->len, 1, &copy));
    memcpy(copy, value.ptr, out->len);
    out->data = copy;
    return OK;
}

/* Fields from PROTO_IGNORABLE_FIELD on, to the end: kept, so that encoding gives them back. */
static MUST_CHECK struct err read_ignorables(struct reading *r, struct slice rest,
                                             ProtobufCMessage *m)
{
    size_t count = 0;
    for (struct slice at = rest; at.size > 0; count++) {
        uint32_t number = 0;
        ProtobufCWireType type = PROTOBUF_C_WIRE_TYPE_VARINT;
        TRY(read_tag(r, &at, &number, &type));
        TRY(skip_value(r, type, &at));
    }
    TRY(take(r, count, sizeof(*m->unknown_fields), (void **)&m->unknown_fields));
    for (size_t i = 0; i < count; i++) {
        TRY(read_ignorable(r, m->descriptor, &rest, &m->unknown_fields[i]));
    }
    m->n_unknown_fields = (unsigned)count;
    return OK;
}

/* ---- a message ---- */

/* Recursion follows the types, which do not recur. */
static struct err read_message(struct reading *r, const ProtobufCMessageDescriptor *type,
                               struct slice bytes, int depth, ProtobufCMessage **out)
{
    CHECK(depth < DEPTH_MAX);
    ProtobufCMessage *m = NULL;
    TRY(take(r, 1, type->sizeof_message, (void **)&m));
    type->message_init(m);
    unsigned next = 0; /* fields before it were met, or are left out. */
    for (struct slice rest = bytes; rest.size > 0;) {
        struct slice tag = rest;
        uint32_t number = 0;
        ProtobufCWireType wire = PROTOBUF_C_WIRE_TYPE_VARINT;
        TRY(read_tag(r, &rest, &number, &wire));
        while (next < type->n_fields && type->fields[next].id < number) {
            next++;
        }
        if (next < type->n_fields && type->fields[next].id == number) {
            tag = slice_head(tag, tag.size - rest.size);
            TRY(read_field(r, &type->fields[next++], tag, &rest, depth, m));
            continue;
        }
        if (is_ignorable(type, number) && next == type->n_fields) {
            TRY(read_ignorables(r, tag, m));
            break;
        }
        bool met = protobuf_c_message_descriptor_get_field(type, number) != NULL;
        return FAIL(met ? r->rules->malformed : r->rules->unknown);
    }
    *out = m;
    return OK;
}

struct err proto_decode(const ProtobufCMessageDescriptor *type, struct slice bytes,
                        const struct proto_rules *rules, ProtobufCMessage **out)
{
    /* Texts and numbers take about as much as on the wire, messages their struct. */
    struct reading r = {.rules = rules,
                        .block_size = type->sizeof_message + BLOCK_LEAST + bytes.size,
                        .left = type->sizeof_message + rules->memory_max};
    ProtobufCMessage *m = NULL;
    struct err e = read_message(&r, type, bytes, /* depth= */ 0, &m);
    if (!err_ok(e)) {
        blocks_free(r.first);
        return e;
    }
    CHECK((void *)m == (void *)(r.first + 1)); /* proto_free() finds the blocks before it. */
    *out = m;
    return OK;
}

struct err proto_encode(const ProtobufCMessage *message, struct buf *out)
{
    uint8_t *at = NULL;
    size_t size = protobuf_c_message_get_packed_size(message);
    TRY(buf_reserve(out, size == 0 ? 1 : size, &at));
    size_t written = protobuf_c_message_pack(message, at);
    CHECK(written == size);
    buf_commit(out, size);
    return OK;
}

void proto_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        blocks_free((struct block *)(void *)message - 1);
    }
}
