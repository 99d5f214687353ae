/* services: see services.h. Numbers are those of google/protobuf/descriptor.proto. */
#include "controlplane/compile/services.h"

#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/text.h"
#include "common/proto/wire.h"

enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    NAME = 1, /* of a message, an enum, a service, a method. */
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    SERVICE_METHOD = 2,
    METHOD_CLIENT_STREAMS = 5,
    METHOD_SERVER_STREAMS = 6,
    NAME_MAX_BYTES = 512,
};

struct reading {
    struct arena *arena;
    struct service_files *files;
    struct service_file *file;
    size_t symbols;
};

static MUST_CHECK struct err add_name(struct service_names *names, struct slice name)
{
    TRY(array_room(&names->items, names->count, &names->capacity, sizeof(*names->items)));
    names->items[names->count++] = name;
    return OK;
}

/* With a NUL behind it, as protobuf-c wants texts. */
static MUST_CHECK struct err read_name(const struct reading *r, const struct wire_field *f,
                                       struct slice *out)
{
    bool fits = f->type == WIRE_BYTES && f->bytes.size <= NAME_MAX_BYTES &&
                text_is_utf8(f->bytes) && slice_find(f->bytes, '\0') == f->bytes.size;
    return fits ? arena_dup(r->arena, f->bytes, out) : FAIL(E_MALFORMED);
}

/* The full name of what 'bytes' define in a scope; it becomes a symbol of the file. */
static MUST_CHECK struct err define(struct reading *r, struct slice scope, struct slice bytes,
                                    struct slice *out)
{
    struct slice name = {0};
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        if (f.number == NAME) {
            TRY(read_name(r, &f, &name));
        }
    }
    if (name.size == 0 || scope.size + name.size > NAME_MAX_BYTES ||
        ++r->symbols > SERVICE_SYMBOLS_MAX) {
        return FAIL(E_MALFORMED);
    }
    TRY(arena_printf(r->arena, out, "%.*s%s%.*s", SLICE_ARG(scope), scope.size > 0 ? "." : "",
                     SLICE_ARG(name)));
    return add_name(&r->file->symbols, *out);
}

/* A message and those inside it. Recursion ends at SERVICE_DEPTH_MAX. */
static MUST_CHECK struct err read_message(struct reading *r, struct slice scope, struct slice bytes,
                                          int depth)
{
    struct slice name = {0};
    struct slice inner = {0};
    if (depth >= SERVICE_DEPTH_MAX) {
        return FAIL(E_MALFORMED);
    }
    TRY(define(r, scope, bytes, &name));
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        if (f.number == MESSAGE_NESTED && f.type == WIRE_BYTES) {
            TRY(read_message(r, name, f.bytes, depth + 1));
        } else if (f.number == MESSAGE_ENUM && f.type == WIRE_BYTES) {
            TRY(define(r, name, f.bytes, &inner));
        }
    }
    return OK;
}

static MUST_CHECK struct err read_method(struct reading *r, struct slice service,
                                         struct slice bytes)
{
    struct service_files *all = r->files;
    struct slice symbol = {0};
    struct service_method method = {.service = service};
    TRY(define(r, service, bytes, &symbol));
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        bool streams = f.number == METHOD_CLIENT_STREAMS || f.number == METHOD_SERVER_STREAMS;
        method.streams |= streams && f.type == WIRE_VARINT && f.value != 0;
    }
    TRY(arena_printf(r->arena, &method.path, "/%.*s/%.*s", SLICE_ARG(service),
                     SLICE_ARG(slice_from(symbol, service.size + 1))));
    TRY(array_room(&all->methods, all->method_count, &all->method_capacity, sizeof(method)));
    all->methods[all->method_count++] = method;
    return OK;
}

static MUST_CHECK struct err read_service(struct reading *r, struct slice bytes)
{
    struct slice name = {0};
    TRY(define(r, r->file->package, bytes, &name));
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        if (f.number == SERVICE_METHOD && f.type == WIRE_BYTES) {
            TRY(read_method(r, name, f.bytes));
        }
    }
    return OK;
}

static MUST_CHECK struct err read_definition(struct reading *r, const struct wire_field *f)
{
    struct slice name = {0};
    if (f->type != WIRE_BYTES) {
        return OK;
    }
    switch (f->number) {
    case FILE_MESSAGE:
        return read_message(r, r->file->package, f->bytes, /* depth= */ 0);
    case FILE_ENUM:
        return define(r, r->file->package, f->bytes, &name);
    case FILE_SERVICE:
        return read_service(r, f->bytes);
    default:
        return OK;
    }
}

/* Names come first: definitions need the package, wherever it stands. */
static MUST_CHECK struct err read_head(struct reading *r, struct slice bytes)
{
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        struct slice import = {0};
        TRY(wire_next(&w, &f));
        if (f.number == FILE_NAME) {
            TRY(read_name(r, &f, &r->file->name));
        } else if (f.number == FILE_PACKAGE) {
            TRY(read_name(r, &f, &r->file->package));
        } else if (f.number == FILE_DEPENDENCY) {
            TRY(read_name(r, &f, &import));
            TRY(add_name(&r->file->imports, import));
        }
    }
    return r->file->name.size == 0 ? FAIL(E_MALFORMED) : OK;
}

static MUST_CHECK struct err read_file(struct reading *r, struct slice bytes)
{
    struct service_files *all = r->files;
    TRY(array_room(&all->items, all->count, &all->capacity, sizeof(*all->items)));
    r->file = &all->items[all->count++];
    *r->file = (struct service_file){.bytes = bytes};
    TRY(read_head(r, bytes));
    if (service_files_named(all, r->file->name) != r->file) {
        return FAIL(E_MALFORMED); /* there twice. */
    }
    struct wire w = wire_of(bytes);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        TRY(read_definition(r, &f));
    }
    return OK;
}

struct err service_files_read(struct slice set, struct arena *arena, struct service_files *out)
{
    *out = (struct service_files){0};
    struct reading r = {.arena = arena, .files = out};
    struct wire w = wire_of(set);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        if (f.number == SET_FILE && f.type == WIRE_BYTES) {
            TRY(read_file(&r, f.bytes));
        }
    }
    return OK;
}

void service_files_free(struct service_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].imports.items);
        free(files->items[i].symbols.items);
    }
    free(files->items);
    free(files->methods);
    *files = (struct service_files){0};
}

struct service_file *service_files_named(const struct service_files *files, struct slice name)
{
    for (size_t i = 0; i < files->count; i++) {
        if (slice_eq(files->items[i].name, name)) {
            return &files->items[i];
        }
    }
    return NULL;
}

struct service_file *service_files_defining(const struct service_files *files, struct slice symbol)
{
    for (size_t i = 0; i < files->count; i++) {
        const struct service_names *symbols = &files->items[i].symbols;
        for (size_t k = 0; k < symbols->count; k++) {
            if (slice_eq(symbols->items[k], symbol)) {
                return &files->items[i];
            }
        }
    }
    return NULL;
}
