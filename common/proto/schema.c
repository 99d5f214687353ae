/*
 * schema: see schema.h. The check is one loop over a stack of open messages; a field's table entry
 * is found by its number, and nothing is read twice but the text of strings.
 */
#include "common/proto/schema.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "common/proto/wire.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* google.protobuf.FieldDescriptorProto.Type */
enum field_type {
    TYPE_DOUBLE = 1,
    TYPE_FLOAT,
    TYPE_INT64,
    TYPE_UINT64,
    TYPE_INT32,
    TYPE_FIXED64,
    TYPE_FIXED32,
    TYPE_BOOL,
    TYPE_STRING,
    TYPE_GROUP,
    TYPE_MESSAGE,
    TYPE_BYTES,
    TYPE_UINT32,
    TYPE_ENUM,
    TYPE_SFIXED32,
    TYPE_SFIXED64,
    TYPE_SINT32,
    TYPE_SINT64,
    TYPE_COUNT
};

static const uint8_t wire_types[TYPE_COUNT] = {
    [TYPE_DOUBLE] = WIRE_FIXED64,   [TYPE_FLOAT] = WIRE_FIXED32, [TYPE_INT64] = WIRE_VARINT,
    [TYPE_UINT64] = WIRE_VARINT,    [TYPE_INT32] = WIRE_VARINT,  [TYPE_FIXED64] = WIRE_FIXED64,
    [TYPE_FIXED32] = WIRE_FIXED32,  [TYPE_BOOL] = WIRE_VARINT,   [TYPE_STRING] = WIRE_BYTES,
    [TYPE_GROUP] = WIRE_GROUP,      [TYPE_MESSAGE] = WIRE_BYTES, [TYPE_BYTES] = WIRE_BYTES,
    [TYPE_UINT32] = WIRE_VARINT,    [TYPE_ENUM] = WIRE_VARINT,   [TYPE_SFIXED32] = WIRE_FIXED32,
    [TYPE_SFIXED64] = WIRE_FIXED64, [TYPE_SINT32] = WIRE_VARINT, [TYPE_SINT64] = WIRE_VARINT,
};

/* Numbers below this are looked up in a table; a field's place there is 16 bits. */
enum { DIRECT_NUMBERS = 64, FIELDS_MAX = 65535 };

struct field {
    uint32_t number;
    uint32_t message;      /* index, for messages and groups. */
    uint64_t required_bit; /* 0: not required. */
    uint8_t type;
    bool repeated;
    bool utf8;
};

struct message {
    struct slice name;
    const struct field *fields; /* numbers ascending. */
    size_t field_count;
    uint64_t required;               /* bits of all that are. */
    uint16_t direct[DIRECT_NUMBERS]; /* index + 1 of the field with that number; 0: none. */
};

struct schema {
    struct slice type;
    struct slice full_name;
    struct slice fingerprint;
    struct message *messages;
    size_t message_count;
    struct field *fields;
    uint8_t *text; /* what the slices point into. */
};

/* ---- building ---- */

typedef const struct Trilane__Parts__V1__Schema part_schema;
typedef const struct Trilane__Parts__V1__SchemaMessage part_message;
typedef const struct Trilane__Parts__V1__SchemaField part_field;

static struct err judge_part(part_schema *part, size_t *out_fields, size_t *out_text);
static struct slice keep_text(uint8_t **at, struct slice text);
static void fill_message(struct message *to, part_message *from, struct field *fields);
static bool field_has_children(uint8_t type);

struct err schema_build(const struct Trilane__Parts__V1__Schema *part, struct schema **out)
{
    size_t field_count = 0;
    size_t text_size = 0;
    TRY(judge_part(part, &field_count, &text_size));
    struct schema *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->message_count = part->n_messages;
    s->messages = calloc(part->n_messages, sizeof(*s->messages));
    s->fields = calloc(field_count + 1, sizeof(*s->fields));
    s->text = malloc(text_size + 1);
    if (s->messages == NULL || s->fields == NULL || s->text == NULL) {
        schema_free(s);
        return FAIL(E_NO_MEMORY);
    }
    uint8_t *text = s->text;
    s->type = keep_text(&text, slice_str(part->type));
    s->full_name = keep_text(&text, slice_str(part->full_name));
    s->fingerprint = keep_text(&text, slice_of(part->fingerprint.data, part->fingerprint.len));
    struct field *fields = s->fields;
    for (size_t i = 0; i < part->n_messages; i++) {
        s->messages[i].name = keep_text(&text, slice_str(part->messages[i]->name));
        fill_message(&s->messages[i], part->messages[i], fields);
        fields += part->messages[i]->n_fields;
    }
    CHECK(text == s->text + text_size);
    CHECK(fields == s->fields + field_count);
    *out = s;
    return OK;
}

void schema_free(struct schema *schema)
{
    if (schema == NULL) {
        return;
    }
    free(schema->messages);
    free(schema->fields);
    free(schema->text);
    free(schema);
}

static struct err judge_field(part_schema *part, part_field *field, uint32_t above)
{
    if (field->number <= above || field->number > WIRE_NUMBER_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    if (field->type < TYPE_DOUBLE || field->type >= TYPE_COUNT) {
        return FAIL(E_PART_MALFORMED);
    }
    if (field_has_children((uint8_t)field->type) && field->message >= part->n_messages) {
        return FAIL(E_PART_MALFORMED);
    }
    return OK;
}

static struct err judge_message(part_schema *part, part_message *message)
{
    uint32_t above = 0;
    size_t required = 0;
    if (message->n_fields > FIELDS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < message->n_fields; i++) {
        TRY(judge_field(part, message->fields[i], above));
        above = message->fields[i]->number;
        required += message->fields[i]->required ? 1 : 0;
    }
    return required > SCHEMA_REQUIRED_MAX ? FAIL(E_PART_MALFORMED) : OK;
}

/* Refuses tables that cannot be walked; says how much they hold. */
static struct err judge_part(part_schema *part, size_t *out_fields, size_t *out_text)
{
    if (part->n_messages == 0 || part->n_messages > SCHEMA_MESSAGES_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    size_t fields = 0;
    size_t text = strlen(part->type) + strlen(part->full_name) + part->fingerprint.len;
    for (size_t i = 0; i < part->n_messages; i++) {
        TRY(judge_message(part, part->messages[i]));
        fields += part->messages[i]->n_fields;
        text += strlen(part->messages[i]->name);
    }
    *out_fields = fields;
    *out_text = text;
    return OK;
}

static struct slice keep_text(uint8_t **at, struct slice text)
{
    struct slice kept = slice_of(*at, text.size);
    if (text.size > 0) {
        memcpy(*at, text.ptr, text.size);
    }
    *at += text.size;
    return kept;
}

static void fill_message(struct message *to, part_message *from, struct field *fields)
{
    unsigned required = 0;
    to->fields = fields;
    to->field_count = from->n_fields;
    for (size_t i = 0; i < from->n_fields; i++) {
        part_field *f = from->fields[i];
        fields[i] = (struct field){.number = f->number,
                                   .message = f->message,
                                   .type = (uint8_t)f->type,
                                   .repeated = f->repeated_field != 0,
                                   .utf8 = f->utf8 != 0};
        if (f->required) {
            fields[i].required_bit = UINT64_C(1) << required++;
            to->required |= fields[i].required_bit;
        }
        if (f->number < DIRECT_NUMBERS) {
            to->direct[f->number] = (uint16_t)(i + 1);
        }
    }
}

static bool field_has_children(uint8_t type)
{
    return type == TYPE_MESSAGE || type == TYPE_GROUP;
}

struct slice schema_type(const struct schema *schema)
{
    return schema->type;
}

struct slice schema_full_name(const struct schema *schema)
{
    return schema->full_name;
}

struct slice schema_fingerprint(const struct schema *schema)
{
    return schema->fingerprint;
}

/* ---- checking ---- */

struct frame {
    const struct message *message;
    const uint8_t *end; /* of its bytes; of a group: of the message around it. */
    uint64_t missing;   /* required fields that were not seen yet. */
    uint32_t group;     /* number of the group that this is, or 0. */
};

struct walk {
    const struct schema *schema;
    struct wire at;
    struct schema_fault fault;
    size_t field_offset;
    uint32_t field;
    size_t depth;
    struct frame frames[SCHEMA_DEPTH_MAX];
};

static struct err walk_field(struct walk *w);
static struct err walk_known(struct walk *w, const struct field *field, enum wire_type type);
static struct err open_frame(struct walk *w, const struct field *field, const uint8_t *end);
static struct err close_frame(struct walk *w);
static const struct field *find_field(const struct message *message, uint32_t number);
static struct err refuse(struct walk *w, enum schema_fault_kind kind);

struct err schema_check(const struct schema *schema, struct slice payload,
                        struct schema_fault *out_fault)
{
    struct walk w = {.schema = schema, .at = wire_of(payload), .depth = 1};
    w.frames[0] = (struct frame){
        .message = &schema->messages[0], .end = w.at.end, .missing = schema->messages[0].required};
    struct err err = OK;
    while (err_ok(err) && w.depth > 0) { /* ends: each turn takes a byte or closes a frame. */
        err = wire_more(&w.at) ? walk_field(&w) : close_frame(&w);
    }
    if (!err_ok(err) && out_fault != NULL) {
        *out_fault = w.fault;
    }
    return err;
}

static struct frame *top(struct walk *w)
{
    CHECK(w->depth > 0);
    return &w->frames[w->depth - 1];
}

/* Takes one field, or opens the message that it is, or closes the group that ends here. */
static struct err walk_field(struct walk *w)
{
    enum wire_type type = WIRE_VARINT;
    uint32_t number = 0;
    w->field_offset = (size_t)(w->at.at - w->at.start);
    w->field = 0;
    if (!err_ok(wire_read_tag(&w->at, &number, &type))) {
        return refuse(w, SCHEMA_FAULT_WIRE);
    }
    w->field = number;
    if (type == WIRE_GROUP_END) {
        if (top(w)->group != number) {
            return refuse(w, SCHEMA_FAULT_WIRE);
        }
        top(w)->group = 0; /* closed in due form. */
        return close_frame(w);
    }
    const struct field *field = find_field(top(w)->message, number);
    if (field != NULL) {
        return walk_known(w, field, type);
    }
    struct wire_field unknown;
    return err_ok(wire_read_value(&w->at, number, type, &unknown)) ? OK
                                                                   : refuse(w, SCHEMA_FAULT_WIRE);
}

/* Whether packed bytes are a whole number of values. */
static bool packed_is_whole(const struct field *field, struct slice bytes)
{
    uint8_t type = wire_types[field->type];
    if (type != WIRE_VARINT) {
        return bytes.size % (type == WIRE_FIXED32 ? 4 : 8) == 0;
    }
    struct wire at = wire_of(bytes);
    uint64_t value = 0;
    while (wire_more(&at)) {
        if (!err_ok(wire_read_varint(&at, &value))) {
            return false;
        }
    }
    return true;
}

static struct err walk_known(struct walk *w, const struct field *field, enum wire_type type)
{
    bool packed = field->repeated && type == WIRE_BYTES && wire_types[field->type] != WIRE_BYTES &&
                  field->type != TYPE_GROUP;
    if (!packed && wire_types[field->type] != (uint8_t)type) {
        return refuse(w, SCHEMA_FAULT_TYPE);
    }
    top(w)->missing &= ~field->required_bit;
    if (field->type == TYPE_GROUP) {
        return open_frame(w, field, w->at.end);
    }
    struct wire_field value;
    if (!err_ok(wire_read_value(&w->at, field->number, type, &value))) {
        return refuse(w, SCHEMA_FAULT_WIRE);
    }
    if (packed) {
        return packed_is_whole(field, value.bytes) ? OK : refuse(w, SCHEMA_FAULT_PACKED);
    }
    if (field->type == TYPE_MESSAGE) {
        const uint8_t *end = w->at.at;
        w->at.at -= value.bytes.size; /* back to the first byte of the content. */
        return open_frame(w, field, end);
    }
    if (field->type == TYPE_STRING && field->utf8 && !text_is_utf8(value.bytes)) {
        return refuse(w, SCHEMA_FAULT_UTF8);
    }
    return OK;
}

static struct err open_frame(struct walk *w, const struct field *field, const uint8_t *end)
{
    if (w->depth == SCHEMA_DEPTH_MAX) {
        return refuse(w, SCHEMA_FAULT_DEPTH);
    }
    const struct message *message = &w->schema->messages[field->message];
    w->frames[w->depth++] = (struct frame){.message = message,
                                           .end = end,
                                           .missing = message->required,
                                           .group = field->type == TYPE_GROUP ? field->number : 0};
    w->at.end = end;
    return OK;
}

/* The message on top is at its end: it must be complete, and a group closed by its own tag. */
static struct err close_frame(struct walk *w)
{
    struct frame *frame = top(w);
    if (frame->group != 0) {
        w->field = frame->group;
        return refuse(w, SCHEMA_FAULT_WIRE);
    }
    if (frame->missing != 0) {
        const struct field *field = frame->message->fields;
        while ((field->required_bit & frame->missing) == 0) { /* ends: one of them has the bit. */
            field++;
        }
        w->field = field->number;
        w->field_offset = (size_t)(w->at.at - w->at.start);
        return refuse(w, SCHEMA_FAULT_REQUIRED);
    }
    w->depth--;
    w->at.end = w->depth == 0 ? w->at.at : top(w)->end;
    return OK;
}

static const struct field *find_field(const struct message *message, uint32_t number)
{
    if (number < DIRECT_NUMBERS) {
        uint16_t place = message->direct[number];
        return place == 0 ? NULL : &message->fields[place - 1];
    }
    size_t low = 0;
    size_t high = message->field_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (message->fields[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < message->field_count && message->fields[low].number == number;
    return found ? &message->fields[low] : NULL;
}

static struct err refuse(struct walk *w, enum schema_fault_kind kind)
{
    w->fault = (struct schema_fault){.kind = kind,
                                     .field = w->field,
                                     .offset = w->field_offset,
                                     .message = top(w)->message->name};
    return FAIL(E_PAYLOAD_MALFORMED);
}

const char *schema_fault_text(enum schema_fault_kind kind)
{
    switch (kind) {
    case SCHEMA_FAULT_NONE:
        return "no fault";
    case SCHEMA_FAULT_WIRE:
        return "bytes that are no protobuf fields";
    case SCHEMA_FAULT_TYPE:
        return "a field of another wire type than its schema says";
    case SCHEMA_FAULT_PACKED:
        return "a packed field that is cut short";
    case SCHEMA_FAULT_UTF8:
        return "a string that is not UTF-8";
    case SCHEMA_FAULT_REQUIRED:
        return "a required field is missing";
    case SCHEMA_FAULT_DEPTH:
        return "messages nested too deep";
    case SCHEMA_FAULT_COUNT:
        break;
    }
    return "";
}
