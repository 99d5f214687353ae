/* message: see message.h. */
#include "dataplane/canonical/message.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/net/grpc.h"

/* ---- requests ---- */

struct err canon_publish_decode(struct slice request, struct slice *out_envelope)
{
    struct wire w = wire_of(request);
    struct slice envelope = {0};
    bool found = false;
    while (wire_more(&w)) {
        struct wire_field field;
        if (!err_ok(wire_next(&w, &field))) {
            return FAIL(E_ENVELOPE_MALFORMED);
        }
        if (field.number != 1) {
            continue;
        }
        if (field.type != WIRE_BYTES || found) {
            return FAIL(E_ENVELOPE_MALFORMED); /* two would have to be merged. */
        }
        envelope = field.bytes;
        found = true;
    }
    if (!found) {
        return FAIL(E_ENVELOPE_MALFORMED);
    }
    *out_envelope = envelope;
    return OK;
}

static MUST_CHECK struct err expect(const struct wire_field *field, enum wire_type type)
{
    return field->type == type ? OK : FAIL(E_PROTOCOL_ERROR);
}

static MUST_CHECK struct err next_field(struct wire *at, struct wire_field *field)
{
    return err_ok(wire_next(at, field)) ? OK : FAIL(E_PROTOCOL_ERROR);
}

static MUST_CHECK struct err decode_nack(struct slice bytes, struct canon_item *item)
{
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field field;
        TRY(next_field(&w, &field));
        if (field.number == 1) {
            TRY(expect(&field, WIRE_BYTES));
            item->delivery = field.bytes;
        } else if (field.number == 2) {
            TRY(expect(&field, WIRE_VARINT));
            item->delay_ms = (uint32_t)field.value;
        } else if (field.number == 3) {
            TRY(expect(&field, WIRE_VARINT));
            item->terminate = field.value != 0;
        }
    }
    return OK;
}

/* *out_found is false for a field that means nothing to us. */
static MUST_CHECK struct err decode_item(const struct wire_field *field, struct canon_item *item,
                                         bool *out_found)
{
    *item = (struct canon_item){0};
    *out_found = field->number >= 1 && field->number <= 4;
    if (!*out_found) {
        return OK;
    }
    TRY(expect(field, field->number == 4 ? WIRE_VARINT : WIRE_BYTES));
    switch (field->number) {
    case 1:
        item->ask = CANON_ASK_OPEN;
        item->open = field->bytes;
        return OK;
    case 2:
        item->ask = CANON_ASK_ACK;
        item->delivery = field->bytes;
        return OK;
    case 3:
        item->ask = CANON_ASK_NACK;
        return decode_nack(field->bytes, item);
    default:
        item->ask = CANON_ASK_CREDIT;
        item->credit = (uint32_t)field->value;
        return OK;
    }
}

struct err canon_subscribe_next(struct wire *at, struct canon_item *out, bool *out_found)
{
    bool found = false;
    while (wire_more(at) && !found) {
        struct wire_field field;
        TRY(next_field(at, &field));
        TRY(decode_item(&field, out, &found));
    }
    *out_found = found;
    return OK;
}

static MUST_CHECK struct err decode_open_field(const struct wire_field *field,
                                               struct canon_open *open)
{
    switch (field->number) {
    case 1:
        open->consumer = field->bytes;
        return expect(field, WIRE_BYTES);
    case 2:
        if (open->type_count == CANON_TYPES_MAX) {
            return FAIL(E_SUBSCRIPTION_INVALID);
        }
        open->types[open->type_count++] = field->bytes;
        return expect(field, WIRE_BYTES);
    case 3:
        open->credit = (uint32_t)field->value;
        return expect(field, WIRE_VARINT);
    case 4:
        open->from_start = field->value != 0;
        return expect(field, WIRE_VARINT);
    default:
        return OK;
    }
}

struct err canon_open_decode(struct slice bytes, struct canon_open *out)
{
    struct canon_open open = {0};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field field;
        TRY(next_field(&w, &field));
        TRY(decode_open_field(&field, &open));
    }
    *out = open;
    return OK;
}

/* ---- responses ---- */

/* Lets room for the prefix, which end_message() writes; returns where the message begins. */
static MUST_CHECK struct err begin_message(struct buf *out, size_t *out_start)
{
    static const uint8_t nothing[GRPC_PREFIX_BYTES];
    *out_start = out->size;
    return buf_add(out, slice_of(nothing, sizeof(nothing)));
}

static void end_message(struct buf *out, size_t start)
{
    CHECK(out->size - start >= GRPC_PREFIX_BYTES);
    CHECK(out->size - start - GRPC_PREFIX_BYTES <= UINT32_MAX);
    grpc_prefix_write((uint32_t)(out->size - start - GRPC_PREFIX_BYTES), out->ptr + start);
}

static MUST_CHECK struct err add_text(struct buf *out, uint32_t number, struct slice text)
{
    return text.size == 0 ? OK : wire_add_bytes(out, number, text);
}

static MUST_CHECK struct err add_number(struct buf *out, uint32_t number, uint64_t value)
{
    return value == 0 ? OK : wire_add_varint(out, number, value);
}

static MUST_CHECK struct err add_refusal(const struct canon_publish_answer *a, struct buf *out)
{
    if (a->code.size == 0) {
        return OK;
    }
    size_t size = wire_bytes_size(1, a->code.size);
    size += a->sentence.size == 0 ? 0 : wire_bytes_size(2, a->sentence.size);
    size += a->explain.size == 0 ? 0 : wire_bytes_size(3, a->explain.size);
    TRY(wire_add_head(out, 5, size));
    TRY(wire_add_bytes(out, 1, a->code));
    TRY(add_text(out, 2, a->sentence));
    return add_text(out, 3, a->explain);
}

static MUST_CHECK struct err add_publish_answer(const struct canon_publish_answer *a,
                                                struct buf *out)
{
    size_t start = 0;
    TRY(begin_message(out, &start));
    TRY(add_text(out, 1, a->event_id));
    TRY(add_number(out, 2, a->sequence));
    TRY(add_text(out, 3, a->stream));
    TRY(add_number(out, 4, a->duplicate ? 1 : 0));
    TRY(add_refusal(a, out));
    end_message(out, start);
    return OK;
}

static MUST_CHECK struct err add_delivery_answer(const struct canon_delivery_answer *a,
                                                 struct buf *out)
{
    char id[24];
    int id_size = snprintf(id, sizeof(id), "%" PRIu64, a->delivery);
    CHECK(id_size > 0);
    size_t start = 0;
    TRY(begin_message(out, &start));
    TRY(wire_add_bytes(out, 1, slice_of(id, (size_t)id_size)));
    TRY(wire_add_bytes(out, 2, a->envelope));
    TRY(add_number(out, 3, a->sequence));
    TRY(add_number(out, 4, a->attempt));
    end_message(out, start);
    return OK;
}

static MUST_CHECK struct err add_opened_answer(struct buf *out)
{
    size_t start = 0;
    TRY(begin_message(out, &start));
    TRY(wire_add_varint(out, 5, 1));
    end_message(out, start);
    return OK;
}

/* Nothing of a response that did not fit stays behind. */
static struct err whole(struct buf *out, size_t before, struct err err)
{
    if (!err_ok(err)) {
        out->size = before;
    }
    return err;
}

struct err canon_publish_answer(const struct canon_publish_answer *answer, struct buf *out)
{
    size_t before = out->size;
    return whole(out, before, add_publish_answer(answer, out));
}

struct err canon_delivery_answer(const struct canon_delivery_answer *answer, struct buf *out)
{
    size_t before = out->size;
    return whole(out, before, add_delivery_answer(answer, out));
}

struct err canon_opened_answer(struct buf *out)
{
    size_t before = out->size;
    return whole(out, before, add_opened_answer(out));
}
