/*
 * schemas: the payload's message and all that it reaches, as tables for walking the wire.
 *
 * Messages are numbered in the order in which a walk from the payload meets them, fields by
 * number; so the part depends on what the messages are, not on how the set lists them.
 */
#include <stdlib.h>

#include "common/base/array.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/compile/descriptor.h"
#include "controlplane/source/decode.h"

#include "trilane/parts/v1/parts.pb-c.h"

struct walk {
    struct cp_compiler *c;
    struct descriptor_set *set;
    struct descriptor_message **met; /* in the order of their indexes; owned. */
    size_t count;
    size_t capacity;
    struct slice missing; /* a type that the set does not define. */
};

/* The message of that name, numbered; NULL when the set lacks it. */
static MUST_CHECK struct err meet(struct walk *w, struct slice name,
                                  struct descriptor_message **out)
{
    struct descriptor_message *message = map_get(&w->set->messages, name);
    *out = message;
    if (message == NULL) {
        w->missing = name;
        return OK;
    }
    if (message->index == UINT32_MAX) {
        TRY(array_room(&w->met, w->count, &w->capacity, sizeof(*w->met)));
        message->index = (uint32_t)w->count;
        w->met[w->count++] = message;
    }
    return OK;
}

static MUST_CHECK struct err pack_field(struct walk *w, const struct descriptor_field *field,
                                        Trilane__Parts__V1__SchemaField **out)
{
    Trilane__Parts__V1__SchemaField *packed = NULL;
    TRY(arena_calloc(w->c->arena, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__schema_field__init(packed);
    packed->number = field->number;
    packed->type = field->type;
    packed->repeated_field = field->repeated;
    packed->required = field->required;
    packed->utf8 = field->utf8;
    if (field->type_name.size > 0) {
        struct descriptor_message *message = NULL;
        TRY(meet(w, field->type_name, &message));
        packed->message = message == NULL ? 0 : message->index;
    }
    *out = packed;
    return OK;
}

static MUST_CHECK struct err pack_message(struct walk *w, const struct descriptor_message *message,
                                          Trilane__Parts__V1__SchemaMessage **out)
{
    Trilane__Parts__V1__SchemaMessage *packed = NULL;
    TRY(arena_calloc(w->c->arena, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__schema_message__init(packed);
    packed->name = cp_str(message->name);
    TRY(arena_calloc(w->c->arena, message->field_count + 1, sizeof(*packed->fields),
                     (void **)&packed->fields));
    for (size_t i = 0; i < message->field_count; i++) {
        TRY(pack_field(w, &message->fields[i], &packed->fields[i]));
    }
    packed->n_fields = message->field_count;
    *out = packed;
    return OK;
}

/* Packs messages as they are met; packing one may meet more. */
static MUST_CHECK struct err pack_messages(struct walk *w, Trilane__Parts__V1__Schema *part)
{
    size_t capacity = 0;
    for (size_t i = 0; i < w->count; i++) {
        TRY(array_room(&part->messages, i, &capacity, sizeof(*part->messages)));
        TRY(pack_message(w, w->met[i], &part->messages[i]));
        part->n_messages = i + 1;
    }
    return OK;
}

/* The fingerprint is of the tables themselves: what was not there when it was taken is empty. */
static MUST_CHECK struct err set_fingerprint(struct cp_compiler *c,
                                             Trilane__Parts__V1__Schema *part)
{
    auto_buf struct buf packed = BUF_MAX(64 << 20);
    TRY(proto_encode(&part->base, &packed));
    TRY(arena_alloc(c->arena, DIGEST_SIZE, (void **)&part->fingerprint.data));
    ids_digest(buf_slice(&packed), part->fingerprint.data);
    part->fingerprint.len = DIGEST_SIZE;
    return OK;
}

static struct cp_pos descriptor_pos(const struct cp_topic *topic)
{
    return topic->descriptor_file.text.size > 0 ? topic->descriptor_file.at
                                                : topic->descriptor_inline.at;
}

/* The message of the set that is nearest in name. */
static struct slice nearest_message(const struct descriptor_set *set, struct slice name)
{
    struct cp_near near = cp_near_to(name);
    size_t at = 0;
    for (const struct map_entry *e = map_next(&set->messages, &at); e != NULL;
         e = map_next(&set->messages, &at)) {
        cp_near_offer(&near, e->key);
    }
    return near.best;
}

static void refuse_missing(struct cp_compiler *c, const struct cp_topic *topic,
                           const struct descriptor_set *set, struct slice missing)
{
    bool root = slice_eq(missing, topic->message.text);
    struct cp_diag *diag = cp_diags_add(
        c->diags, CP_DIAG_MESSAGE_UNKNOWN, root ? topic->message.at : descriptor_pos(topic),
        "the descriptor set does not define %.*s", SLICE_ARG(missing));
    cp_diag_expect(c->diags, diag, "a set made with --include_imports that has the message");
    cp_diag_nearest(c->diags, diag, root ? nearest_message(set, missing) : (struct slice){0});
}

static MUST_CHECK struct err emit_schema(struct walk *w, const struct cp_topic *topic,
                                         Trilane__Parts__V1__Schema *part)
{
    struct descriptor_message *root = NULL;
    TRY(meet(w, topic->message.text, &root));
    TRY(pack_messages(w, part));
    if (w->missing.size > 0) {
        refuse_missing(w->c, topic, w->set, w->missing);
        return OK;
    }
    part->type = cp_str(topic->meta.key);
    part->full_name = cp_str(topic->message.text);
    TRY(set_fingerprint(w->c, part));
    return cp_emit(w->c, CP_PART_SCHEMAS, topic->meta.key, &part->base, topic->meta.at);
}

static MUST_CHECK struct err compile_schema(struct cp_compiler *c, const struct cp_topic *topic,
                                            struct descriptor_set *set)
{
    Trilane__Parts__V1__Schema part;
    trilane__parts__v1__schema__init(&part);
    struct walk w = {.c = c, .set = set};
    struct err e = emit_schema(&w, topic, &part);
    free(part.messages);
    free(w.met);
    return e;
}

static MUST_CHECK struct err compile_topic(struct cp_compiler *c, const struct cp_topic *topic,
                                           struct descriptor_set *set)
{
    auto_buf struct buf fault = BUF_MAX(1024);
    struct err e = descriptor_read(topic->descriptor_set, c->arena, &fault, set);
    if (e.code == E_MALFORMED) {
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_DESCRIPTOR_MALFORMED, descriptor_pos(topic),
                         "the descriptor set is not valid: %.*s", SLICE_ARG(buf_slice(&fault)));
        cp_diag_expect(c->diags, diag,
                       "a file made by protoc --include_imports "
                       "--descriptor_set_out");
        return OK;
    }
    TRY(e);
    return topic->message.text.size == 0 ? OK : compile_schema(c, topic, set);
}

struct err cp_compile_schemas(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_TOPIC];
    for (size_t i = 0; i < all->count; i++) {
        struct descriptor_set set = {0};
        const struct cp_topic *topic = (const struct cp_topic *)all->items[i];
        struct err e = topic->descriptor_set.ptr == NULL ? OK : compile_topic(c, topic, &set);
        descriptor_set_free(&set);
        TRY(e);
    }
    return OK;
}
