/*
 * descriptors: what services registered by name, as their descriptor sets have it.
 *
 * A set may be that of a whole platform: a service's part has the files that define its own gRPC
 * services, and those that these import. The bytes of a file are passed on as they are, so that a
 * tool sees what was published.
 */
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/text.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/compile/descriptor.h"
#include "controlplane/compile/services.h"
#include "controlplane/source/decode.h"

#include "trilane/parts/v1/parts.pb-c.h"

static int name_cmp(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

/* Sorted, each once, as protobuf-c wants them. */
static MUST_CHECK struct err pack_names(struct cp_compiler *c, struct service_names *names,
                                        size_t *out_count, char ***out)
{
    char **packed = NULL;
    size_t count = 0;
    TRY(arena_calloc(c->arena, names->count + 1, sizeof(*packed), (void **)&packed));
    if (names->count > 0) {
        qsort(names->items, names->count, sizeof(*names->items), name_cmp);
    }
    for (size_t i = 0; i < names->count; i++) {
        if (i == 0 || !slice_eq(names->items[i - 1], names->items[i])) {
            packed[count++] = cp_str(names->items[i]);
        }
    }
    *out_count = count;
    *out = packed;
    return OK;
}

/* ---- which files ---- */

static struct cp_pos set_pos(const struct cp_service *service)
{
    return service->descriptor_file.text.size > 0 ? service->descriptor_file.at
                                                  : service->descriptor_inline.at;
}

static void refuse_set(struct cp_compiler *c, const struct cp_service *service, struct slice why)
{
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_DESCRIPTOR_MALFORMED, set_pos(service),
                                        "the descriptor set is not valid: %.*s", SLICE_ARG(why));
    cp_diag_expect(c->diags, diag, "a file made by protoc --include_imports --descriptor_set_out");
}

static void refuse_name(struct cp_compiler *c, struct cp_pos at, struct slice name)
{
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_MESSAGE_UNKNOWN, at,
                                        "the descriptor set does not define %.*s", SLICE_ARG(name));
    cp_diag_expect(c->diags, diag, "a set made with --include_imports that has it");
}

/* Marks what the wanted ones import, until nothing is left to mark; false: one is missing. */
static bool want_imports(struct cp_compiler *c, const struct cp_service *service,
                         struct service_files *files)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < files->count; i++) {
            const struct service_names *imports = &files->items[i].imports;
            for (size_t k = 0; files->items[i].wanted && k < imports->count; k++) {
                struct service_file *import = service_files_named(files, imports->items[k]);
                if (import == NULL) {
                    refuse_name(c, set_pos(service), imports->items[k]);
                    return false;
                }
                more = more || !import->wanted;
                import->wanted = true;
            }
        }
    }
    return true;
}

/* Marks the files that the service's part has; false: the set lacks one. */
static bool want_files(struct cp_compiler *c, const struct cp_service *service,
                       struct service_files *files)
{
    bool whole = true;
    for (size_t i = 0; i < service->grpc_services.count; i++) {
        const struct cp_text *name = &service->grpc_services.items[i];
        struct service_file *file = service_files_defining(files, name->text);
        if (file == NULL) {
            refuse_name(c, name->at, name->text);
            whole = false;
        } else {
            file->wanted = true;
        }
    }
    return whole && want_imports(c, service, files);
}

/* ---- methods that are named ---- */

static bool serves(const struct cp_service *service, struct slice name)
{
    for (size_t i = 0; i < service->grpc_services.count; i++) {
        if (slice_eq(service->grpc_services.items[i].text, name)) {
            return true;
        }
    }
    return false;
}

/* Which methods of a service somebody else speaks of: those of a rule, or of a limit. */
struct mention {
    const struct cp_service *of;
    const struct cp_texts *methods;
};

struct mentions {
    struct mention *items; /* by service. */
    size_t count;
    size_t capacity;
};

static MUST_CHECK struct err add_mention(struct mentions *all, const struct cp_target *target,
                                         const struct cp_texts *methods)
{
    const struct cp_service *of = (const struct cp_service *)target->service.to;
    if (of == NULL || of->descriptor_set.ptr == NULL || methods->count == 0) {
        return OK; /* a glob of services, too: each of them may have other methods. */
    }
    TRY(array_room(&all->items, all->count, &all->capacity, sizeof(struct mention)));
    all->items[all->count++] = (struct mention){.of = of, .methods = methods};
    return OK;
}

static int mention_cmp(const void *x, const void *y)
{
    uintptr_t a = (uintptr_t)((const struct mention *)x)->of;
    uintptr_t b = (uintptr_t)((const struct mention *)y)->of;
    return (a > b) - (a < b);
}

static MUST_CHECK struct err find_mentions(const struct cp_model *model, struct mentions *out)
{
    const struct cp_resources *all = &model->of[CP_KIND_POLICY];
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_policy *policy = (const struct cp_policy *)all->items[i];
        for (size_t k = 0; k < policy->rules.count; k++) {
            TRY(add_mention(out, &policy->target, &policy->rules.items[k].methods));
        }
    }
    all = &model->of[CP_KIND_RATE_LIMIT];
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_rate_limit *limit = (const struct cp_rate_limit *)all->items[i];
        TRY(add_mention(out, &limit->target, &limit->methods));
    }
    if (out->count > 1) {
        qsort(out->items, out->count, sizeof(struct mention), mention_cmp);
    }
    return OK;
}

/* A method of a gRPC service that the set defines, and that has no such method: it would fit no
 * call. What else it may be routed, nobody knows. */
static void check_method(struct cp_compiler *c, const struct cp_service *service,
                         const struct service_files *files, const struct cp_text *method)
{
    struct slice text = method->text;
    struct slice name = text.size == 0 ? text : slice_from(text, 1);
    name = slice_head(name, slice_find(name, '/'));
    if (text_is_glob(text) || !serves(service, name)) {
        return;
    }
    size_t front = name.size + 2; /* "/package.Service/" */
    struct cp_near near = cp_near_to(slice_from(text, front));
    struct slice nearest = {0};
    for (size_t i = 0; i < files->method_count; i++) {
        const struct service_method *defined = &files->methods[i];
        if (slice_eq(defined->path, text)) {
            return;
        }
        if (slice_eq(defined->service, name)) {
            struct slice before = near.best;
            cp_near_offer(&near, slice_from(defined->path, front));
            nearest = near.best.ptr == before.ptr ? nearest : defined->path;
        }
    }
    if (cp_diags_pass_over(c->diags)) {
        return;
    }
    struct cp_diag *diag = cp_diags_add(
        c->diags, CP_DIAG_FITS_NOTHING, method->at, "%.*s of Service \"%.*s\" has no method %.*s",
        SLICE_ARG(name), SLICE_ARG(service->meta.name.text), SLICE_ARG(text));
    cp_diag_expect(c->diags, diag, "a method that its descriptor set defines");
    cp_diag_nearest(c->diags, diag, nearest);
}

static void check_methods(struct cp_compiler *c, const struct cp_service *service,
                          const struct service_files *files, const struct mentions *mentions)
{
    for (size_t i = 0; i < service->methods.count; i++) {
        const struct cp_texts *names = &service->methods.items[i].names;
        for (size_t k = 0; k < names->count; k++) {
            check_method(c, service, files, &names->items[k]);
        }
    }
    const struct mention key = {.of = service};
    const struct mention *at =
        mentions->count == 0
            ? NULL
            : bsearch(&key, mentions->items, mentions->count, sizeof(struct mention), mention_cmp);
    while (at != NULL && at > mentions->items && at[-1].of == service) {
        at--;
    }
    const struct mention *end = mentions->items + mentions->count;
    for (; at != NULL && at < end && at->of == service; at++) {
        for (size_t k = 0; k < at->methods->count; k++) {
            check_method(c, service, files, &at->methods->items[k]);
        }
    }
}

/* ---- the part ---- */

static int file_cmp(const void *x, const void *y)
{
    const struct service_file *a = x;
    const struct service_file *b = y;
    return slice_cmp(a->name, b->name);
}

static MUST_CHECK struct err pack_file(struct cp_compiler *c, struct service_file *file,
                                       Trilane__Parts__V1__DescriptorFile **out)
{
    Trilane__Parts__V1__DescriptorFile *packed = NULL;
    struct slice bytes = {0};
    TRY(arena_calloc(c->arena, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__descriptor_file__init(packed);
    TRY(arena_dup(c->arena, file->bytes, &bytes));
    packed->name = cp_str(file->name);
    packed->proto.data = (uint8_t *)proto_text((const char *)bytes.ptr);
    packed->proto.len = bytes.size;
    TRY(pack_names(c, &file->imports, &packed->n_imports, &packed->imports));
    TRY(pack_names(c, &file->symbols, &packed->n_symbols, &packed->symbols));
    *out = packed;
    return OK;
}

static MUST_CHECK struct err pack_methods(struct cp_compiler *c, const struct cp_service *service,
                                          const struct service_files *files,
                                          Trilane__Parts__V1__ServiceDescriptors *part)
{
    struct service_names all = {0};
    struct service_names streams = {0};
    size_t room = (files->method_count + 1) * sizeof(struct slice);
    TRY(arena_alloc(c->arena, room, (void **)&all.items));
    TRY(arena_alloc(c->arena, room, (void **)&streams.items));
    for (size_t i = 0; i < files->method_count; i++) {
        const struct service_method *method = &files->methods[i];
        if (!serves(service, method->service)) {
            continue;
        }
        all.items[all.count++] = method->path;
        if (method->streams) {
            streams.items[streams.count++] = method->path;
        }
    }
    TRY(pack_names(c, &all, &part->n_methods, &part->methods));
    return pack_names(c, &streams, &part->n_streams, &part->streams);
}

static MUST_CHECK struct err emit(struct cp_compiler *c, const struct cp_service *service,
                                  struct service_files *files)
{
    Trilane__Parts__V1__ServiceDescriptors part;
    trilane__parts__v1__service_descriptors__init(&part);
    struct slice id = {0};
    TRY(cp_target_id(c->arena, &service->meta, &id));
    part.service = cp_str(id);
    TRY(pack_methods(c, service, files, &part));
    TRY(arena_calloc(c->arena, files->count + 1, sizeof(*part.files), (void **)&part.files));
    qsort(files->items, files->count, sizeof(*files->items), file_cmp);
    for (size_t i = 0; i < files->count; i++) {
        if (files->items[i].wanted) {
            TRY(pack_file(c, &files->items[i], &part.files[part.n_files++]));
        }
    }
    cp_needs(c, CAPABILITY_SERVICE_DESCRIPTORS, true);
    return cp_emit(c, CP_PART_SCHEMAS, id, &part.base, service->meta.at);
}

/* ---- all of them ---- */

/* The set is judged whole, as a Topic's is: a tool would stumble over what contradicts itself. */
static MUST_CHECK struct err judge(struct cp_compiler *c, const struct cp_service *service,
                                   bool *out_valid)
{
    auto_buf struct buf fault = BUF_MAX(1024);
    struct descriptor_set set = {0};
    struct err e = descriptor_read(service->descriptor_set, c->arena, &fault, &set);
    descriptor_set_free(&set);
    *out_valid = err_ok(e);
    if (e.code != E_MALFORMED) {
        return e;
    }
    refuse_set(c, service, buf_slice(&fault));
    return OK;
}

static MUST_CHECK struct err compile_service(struct cp_compiler *c,
                                             const struct cp_service *service,
                                             const struct mentions *mentions,
                                             struct service_files *files)
{
    bool valid = false;
    TRY(judge(c, service, &valid));
    if (!valid) {
        return OK;
    }
    struct err e = service_files_read(service->descriptor_set, c->arena, files);
    if (e.code == E_MALFORMED) {
        refuse_set(c, service, SLICE_LIT("a file of it does not parse, or is there twice"));
        return OK;
    }
    TRY(e);
    if (!want_files(c, service, files)) {
        return OK;
    }
    check_methods(c, service, files, mentions);
    return emit(c, service, files);
}

struct err cp_compile_descriptors(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_SERVICE];
    struct mentions mentions = {0};
    struct err e = find_mentions(c->model, &mentions);
    for (size_t i = 0; i < all->count && err_ok(e); i++) {
        struct service_files files = {0};
        const struct cp_service *service = (const struct cp_service *)all->items[i];
        bool has = cp_is_whole(&service->meta) && service->descriptor_set.ptr != NULL &&
                   service->grpc_services.count > 0;
        e = has ? compile_service(c, service, &mentions, &files) : OK;
        service_files_free(&files);
    }
    free(mentions.items);
    return e;
}
