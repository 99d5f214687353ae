/* envelope: see envelope.h. One row a field; the walker of common/proto does the rest. */
#include "common/bus/envelope.h"

#include "common/base/limits.h"
#include "common/base/text.h"

enum place_kind { PLACE_TEXT, PLACE_BYTES, PLACE_U32, PLACE_I64, PLACE_MAP, PLACE_MESSAGE };

struct place {
    uint32_t number;
    enum place_kind kind;
    size_t offset; /* of the member; of a map: of its counter. */
    size_t count;  /* of a message's own places. */
    const struct place *places;
};

#define AT(member) offsetof(struct envelope, member)

static const struct place security_places[] = {
    {1, PLACE_TEXT, AT(key_id), 0, NULL},
    {2, PLACE_TEXT, AT(scheme), 0, NULL},
    {3, PLACE_BYTES, AT(signature), 0, NULL},
};

static const struct place schema_places[] = {
    {1, PLACE_TEXT, AT(schema_version), 0, NULL},
    {2, PLACE_BYTES, AT(schema_fingerprint), 0, NULL},
};

/* In the order of proto/trilane/bus/v1/bus.proto: place k - 1 is field k. */
static const struct place envelope_places[] = {
    {1, PLACE_TEXT, AT(trace_id), 0, NULL},
    {2, PLACE_TEXT, AT(event_id), 0, NULL},
    {3, PLACE_TEXT, AT(canonical_type), 0, NULL},
    {4, PLACE_BYTES, AT(payload), 0, NULL},
    {5, PLACE_MAP, AT(trait_count), 0, NULL},
    {6, PLACE_MAP, AT(header_count), 0, NULL},
    {7, PLACE_U32, AT(envelope_version), 0, NULL},
    {8, PLACE_I64, AT(expires_at_ms), 0, NULL},
    {9, PLACE_U32, AT(priority), 0, NULL},
    {10, PLACE_MESSAGE, 0, 3, security_places},
    {11, PLACE_MESSAGE, 0, 2, schema_places},
    {12, PLACE_MAP, AT(extension_count), 0, NULL},
    {13, PLACE_TEXT, AT(key), 0, NULL},
    {14, PLACE_TEXT, AT(tenant), 0, NULL},
    {15, PLACE_I64, AT(time_ms), 0, NULL},
    {16, PLACE_TEXT, AT(source), 0, NULL},
};

enum { ENVELOPE_PLACES = sizeof(envelope_places) / sizeof(envelope_places[0]) };

static struct err take_fields(struct slice bytes, const struct place *places, size_t count,
                              struct envelope *e);
static struct err take(const struct wire_field *field, const struct place *place,
                       struct envelope *e);
static struct err take_entry(const struct wire_field *field, const struct place *place,
                             struct envelope *e);
static struct err read_entry(struct slice bytes, bool value_is_text, struct slice *out_key,
                             struct slice *out_value);

struct err envelope_decode(struct slice bytes, struct envelope *out)
{
    if (bytes.size > limits.envelope_bytes) {
        return FAIL(E_MESSAGE_TOO_LARGE);
    }
    struct envelope e = {.bytes = bytes};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field field;
        if (!err_ok(wire_next(&w, &field))) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        if (field.number > ENVELOPE_PLACES) {
            continue; /* unknown: kept, passed over. */
        }
        const struct place *place = &envelope_places[field.number - 1];
        if (place->kind != PLACE_MESSAGE) {
            TRY(take(&field, place, &e));
        } else if (field.type == WIRE_BYTES) {
            TRY(take_fields(field.bytes, place->places, place->count, &e));
        } else {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
    }
    *out = e;
    return OK;
}

/* A message inside: its fields merge into those of an earlier occurrence. */
static struct err take_fields(struct slice bytes, const struct place *places, size_t count,
                              struct envelope *e)
{
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field field;
        if (!err_ok(wire_next(&w, &field))) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        if (field.number <= count) {
            TRY(take(&field, &places[field.number - 1], e));
        }
    }
    return OK;
}

static struct err take(const struct wire_field *field, const struct place *place,
                       struct envelope *e)
{
    bool number = place->kind == PLACE_U32 || place->kind == PLACE_I64;
    if (field->type != (number ? WIRE_VARINT : WIRE_BYTES)) {
        return FAIL(E_ENVELOPE_MALFORMED);
    }
    void *member = (uint8_t *)e + place->offset;
    switch (place->kind) {
    case PLACE_TEXT:
        if (field->bytes.size > ENVELOPE_TEXT_MAX) {
            return FAIL(E_MESSAGE_TOO_LARGE);
        }
        if (!text_is_utf8(field->bytes)) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        *(struct slice *)member = field->bytes;
        return OK;
    case PLACE_BYTES:
        *(struct slice *)member = field->bytes;
        return OK;
    case PLACE_U32:
        *(uint32_t *)member = (uint32_t)field->value;
        return OK;
    case PLACE_I64:
        *(int64_t *)member = (int64_t)field->value;
        return OK;
    case PLACE_MAP:
        return take_entry(field, place, e);
    case PLACE_MESSAGE:
        break;
    }
    return FAIL(E_ENVELOPE_MALFORMED);
}

static struct err take_entry(const struct wire_field *field, const struct place *place,
                             struct envelope *e)
{
    uint32_t *count = (uint32_t *)(void *)((uint8_t *)e + place->offset);
    if (*count >= limits.envelope_headers) {
        return FAIL(E_MESSAGE_TOO_LARGE);
    }
    struct slice key;
    struct slice value;
    TRY(read_entry(field->bytes, place->number != ENVELOPE_EXTENSIONS, &key, &value));
    (*count)++;
    return OK;
}

/* A key or value that is not there is empty, as protobuf says. */
static struct err read_entry(struct slice bytes, bool value_is_text, struct slice *out_key,
                             struct slice *out_value)
{
    struct slice parts[2] = {{bytes.ptr, 0}, {bytes.ptr, 0}};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field field;
        if (!err_ok(wire_next(&w, &field))) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        if (field.number > 2) {
            continue;
        }
        if (field.type != WIRE_BYTES) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        parts[field.number - 1] = field.bytes;
    }
    if (!text_is_utf8(parts[0]) || (value_is_text && !text_is_utf8(parts[1]))) {
        return FAIL(E_ENVELOPE_MALFORMED);
    }
    *out_key = parts[0];
    *out_value = parts[1];
    return OK;
}

/* ---- maps ---- */

struct envelope_walk envelope_walk(const struct envelope *envelope, enum envelope_map map)
{
    return (struct envelope_walk){.at = wire_of(envelope->bytes), .map = map};
}

bool envelope_walk_next(struct envelope_walk *walk, struct slice *out_key, struct slice *out_value)
{
    while (wire_more(&walk->at)) {
        struct wire_field field;
        if (!err_ok(wire_next(&walk->at, &field))) {
            return false; /* cannot be: the bytes were decoded. */
        }
        if (field.number == (uint32_t)walk->map) {
            return err_ok(read_entry(field.bytes, /* value_is_text= */ false, out_key, out_value));
        }
    }
    return false;
}

bool envelope_find(const struct envelope *envelope, enum envelope_map map, struct slice key,
                   struct slice *out_value)
{
    struct envelope_walk walk = envelope_walk(envelope, map);
    struct slice at_key;
    struct slice value;
    bool found = false;
    while (envelope_walk_next(&walk, &at_key, &value)) {
        if (slice_eq(at_key, key)) {
            *out_value = value;
            found = true;
        }
    }
    return found;
}

/* ---- adding ---- */

static struct err add_text(struct buf *out, uint32_t number, struct slice text)
{
    return text.size == 0 ? OK : wire_add_bytes(out, number, text);
}

static struct err add_number(struct buf *out, uint32_t number, uint64_t value)
{
    return value == 0 ? OK : wire_add_varint(out, number, value);
}

static struct err add_all(const struct envelope_addition *a, struct buf *out)
{
    TRY(add_text(out, 1, a->trace_id));
    TRY(add_text(out, 2, a->event_id));
    for (size_t i = 0; i < a->header_count; i++) {
        TRY(wire_add_entry(out, ENVELOPE_HEADERS, a->headers[i].key, a->headers[i].value));
    }
    TRY(add_number(out, 7, a->envelope_version));
    TRY(add_text(out, 14, a->tenant));
    TRY(add_number(out, 15, (uint64_t)a->time_ms));
    return add_text(out, 16, a->source);
}

struct err envelope_append(const struct envelope_addition *addition, struct buf *out)
{
    size_t before = out->size;
    struct err err = add_all(addition, out);
    if (!err_ok(err)) {
        out->size = before;
    }
    return err;
}
