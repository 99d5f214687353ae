/* descriptor: see descriptor.h. Numbers are those of google/protobuf/descriptor.proto. */
#include "controlplane/compile/descriptor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/text.h"
#include "common/proto/wire.h"

enum {
    SET_FILE = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_SYNTAX = 12,
    MESSAGE_NAME = 1,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    FIELD_NAME = 1,
    FIELD_NUMBER = 3,
    FIELD_LABEL = 4,
    FIELD_TYPE = 5,
    FIELD_TYPE_NAME = 6,
    LABEL_REQUIRED = 2,
    LABEL_REPEATED = 3,
    TYPE_STRING = 9,
    TYPE_GROUP = 10,
    TYPE_MESSAGE = 11,
    TYPE_MAX = 18,
    FIELD_NUMBER_MAX = (1 << 29) - 1,
};

struct reading {
    struct arena *arena;
    struct buf *fault;
    struct descriptor_set *set;
    bool proto3; /* of the file at hand. */
};

__attribute__((format(printf, 2, 3))) static struct err refuse(struct reading *r,
                                                               const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_clear(r->fault);
    struct err e = buf_add_str(r->fault, text);
    return err_ok(e) ? FAIL(E_MALFORMED) : e;
}

/* The next field; what does not parse is named by where it is. */
static MUST_CHECK struct err next(struct reading *r, struct wire *w, struct wire_field *out)
{
    size_t at = (size_t)(w->at - w->start);
    return err_ok(wire_next(w, out)) ? OK : refuse(r, "byte %zu of a message does not parse", at);
}

static MUST_CHECK struct err read_name(struct reading *r, const struct wire_field *f,
                                       struct slice *out)
{
    bool fits = f->type == WIRE_BYTES && f->bytes.size <= 512 && text_is_utf8(f->bytes) &&
                slice_find(f->bytes, '\0') == f->bytes.size;
    if (!fits) {
        return refuse(r, "a name is not text of at most 512 bytes");
    }
    return arena_dup(r->arena, f->bytes, out);
}

static MUST_CHECK struct err judge_field(struct reading *r, struct slice message,
                                         struct descriptor_field *field)
{
    if (field->number < 1 || field->number > FIELD_NUMBER_MAX || field->type < 1 ||
        field->type > TYPE_MAX) {
        return refuse(r, "field \"%.*s\" of %.*s has no valid number or type",
                      SLICE_ARG(field->name), SLICE_ARG(message));
    }
    bool nested = field->type == TYPE_MESSAGE || field->type == TYPE_GROUP;
    if (nested && (field->type_name.size < 2 || field->type_name.ptr[0] != '.')) {
        return refuse(r, "field \"%.*s\" of %.*s names no full type", SLICE_ARG(field->name),
                      SLICE_ARG(message));
    }
    field->type_name = nested ? slice_from(field->type_name, 1) : (struct slice){0};
    field->utf8 = field->type == TYPE_STRING && r->proto3;
    return OK;
}

static MUST_CHECK struct err read_field(struct reading *r, struct slice message, struct slice bytes,
                                        struct descriptor_field *out)
{
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(r, &w, &f));
        bool number = f.type == WIRE_VARINT;
        if (f.number == FIELD_NAME) {
            TRY(read_name(r, &f, &out->name));
        } else if (f.number == FIELD_TYPE_NAME) {
            TRY(read_name(r, &f, &out->type_name));
        } else if (f.number == FIELD_NUMBER && number) {
            out->number = f.value > FIELD_NUMBER_MAX ? 0 : (uint32_t)f.value;
        } else if (f.number == FIELD_TYPE && number) {
            out->type = f.value > TYPE_MAX ? 0 : (uint32_t)f.value;
        } else if (f.number == FIELD_LABEL && number) {
            out->repeated = f.value == LABEL_REPEATED;
            out->required = f.value == LABEL_REQUIRED;
        }
    }
    return judge_field(r, message, out);
}

static int field_cmp(const void *x, const void *y)
{
    const struct descriptor_field *a = x;
    const struct descriptor_field *b = y;
    return (a->number > b->number) - (a->number < b->number);
}

/* Name and number of fields come first: nested messages need the whole name. */
static MUST_CHECK struct err read_head(struct reading *r, struct slice scope, struct slice bytes,
                                       struct descriptor_message *out)
{
    struct slice name = {0};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(r, &w, &f));
        out->field_count += f.number == MESSAGE_FIELD;
        if (f.number == MESSAGE_NAME) {
            TRY(read_name(r, &f, &name));
        }
    }
    if (name.size == 0 || scope.size + name.size > 512) {
        return refuse(r, "a message of \"%.*s\" has no name, or a too long one", SLICE_ARG(scope));
    }
    return arena_printf(r->arena, &out->name, "%.*s%s%.*s", SLICE_ARG(scope),
                        scope.size > 0 ? "." : "", SLICE_ARG(name));
}

static MUST_CHECK struct err keep_message(struct reading *r, struct descriptor_message *message)
{
    if (message->field_count > 1) {
        qsort(message->fields, message->field_count, sizeof(struct descriptor_field), field_cmp);
    }
    for (size_t i = 1; i < message->field_count; i++) {
        if (message->fields[i].number == message->fields[i - 1].number) {
            return refuse(r, "%.*s has number %u twice", SLICE_ARG(message->name),
                          message->fields[i].number);
        }
    }
    if (r->set->messages.count >= DESCRIPTOR_MESSAGES_MAX) {
        return refuse(r, "it has more than %d messages", DESCRIPTOR_MESSAGES_MAX);
    }
    if (map_get(&r->set->messages, message->name) != NULL) {
        return refuse(r, "%.*s is defined twice", SLICE_ARG(message->name));
    }
    return map_put(&r->set->messages, message->name, message, /* out_old= */ NULL);
}

/* A message and those inside it. Recursion ends at DESCRIPTOR_DEPTH_MAX. */
static MUST_CHECK struct err read_message(struct reading *r, struct slice scope, struct slice bytes,
                                          int depth)
{
    if (depth >= DESCRIPTOR_DEPTH_MAX) {
        return refuse(r, "messages nest deeper than %d", DESCRIPTOR_DEPTH_MAX);
    }
    struct descriptor_message *message = NULL;
    TRY(arena_calloc(r->arena, 1, sizeof(*message), (void **)&message));
    message->index = UINT32_MAX;
    TRY(read_head(r, scope, bytes, message));
    TRY(arena_calloc(r->arena, message->field_count + 1, sizeof(struct descriptor_field),
                     (void **)&message->fields));
    struct wire w = wire_of(bytes);
    size_t count = 0;
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(r, &w, &f));
        if (f.number != MESSAGE_FIELD && f.number != MESSAGE_NESTED) {
            continue;
        }
        if (f.type != WIRE_BYTES) {
            return refuse(r, "a member of %.*s is no message", SLICE_ARG(message->name));
        }
        if (f.number == MESSAGE_FIELD) {
            TRY(read_field(r, message->name, f.bytes, &message->fields[count++]));
        } else {
            TRY(read_message(r, message->name, f.bytes, depth + 1));
        }
    }
    return keep_message(r, message);
}

static MUST_CHECK struct err read_file(struct reading *r, struct slice bytes)
{
    struct slice package = {0};
    struct slice syntax = {0};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(r, &w, &f));
        if (f.number == FILE_PACKAGE) {
            TRY(read_name(r, &f, &package));
        } else if (f.number == FILE_SYNTAX) {
            TRY(read_name(r, &f, &syntax));
        }
    }
    r->proto3 = slice_eq(syntax, SLICE_LIT("proto3"));
    if (!r->proto3 && syntax.size > 0 && !slice_eq(syntax, SLICE_LIT("proto2"))) {
        return refuse(r, "syntax \"%.*s\" is not known", SLICE_ARG(syntax));
    }
    w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(r, &w, &f));
        if (f.number == FILE_MESSAGE && f.type == WIRE_BYTES) {
            TRY(read_message(r, package, f.bytes, /* depth= */ 0));
        }
    }
    return OK;
}

struct err descriptor_read(struct slice bytes, struct arena *arena, struct buf *fault,
                           struct descriptor_set *out)
{
    *out = (struct descriptor_set){0};
    struct reading r = {.arena = arena, .fault = fault, .set = out};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(next(&r, &w, &f));
        if (f.number == SET_FILE && f.type == WIRE_BYTES) {
            TRY(read_file(&r, f.bytes));
        } else if (f.number == SET_FILE) {
            return refuse(&r, "a file of the set is no message");
        }
    }
    return OK;
}

void descriptor_set_free(struct descriptor_set *set)
{
    map_free(&set->messages);
}
