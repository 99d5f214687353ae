/* compile: the order of the parts, and what they share. See compile.h. */
#include "controlplane/compile/compile.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/snapshot/format.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/source/source.h"

enum { COMPILED_BYTES_MAX = 2047 << 20 };

/* ---- what the parts share ---- */

/* Room for a part of that size at the end; its bytes are the caller's to write. */
static MUST_CHECK struct err add_part(struct cp_compiler *c, enum cp_part_kind kind,
                                      struct slice key, size_t size, uint8_t **out_bytes)
{
    struct cp_compiled *out = c->out;
    TRY(array_room(&out->parts, out->part_count, &out->part_capacity, sizeof(struct cp_part)));
    struct cp_part part = {.kind = kind};
    TRY(arena_dup(c->arena, key, &part.key));
    TRY(arena_alloc(c->arena, size, (void **)out_bytes));
    part.bytes = slice_of(*out_bytes, size);
    out->parts[out->part_count++] = part;
    return OK;
}

struct err cp_emit_bytes(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                         struct slice bytes)
{
    uint8_t *to = NULL;
    TRY(add_part(c, kind, key, bytes.size, &to));
    (void)memcpy(to, bytes.ptr, bytes.size);
    return OK;
}

struct err cp_emit(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                   const ProtobufCMessage *message, struct cp_pos at)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (key.size > PART_KEY_MAX || size > PART_MAX) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_PART_TOO_LARGE, at,
                                            "part %.*s is too large", SLICE_ARG(key));
        cp_diag_expect(c->diags, diag, "at most %d bytes", PART_MAX);
        return OK;
    }
    uint8_t *to = NULL;
    TRY(add_part(c, kind, key, size, &to));
    size_t written = protobuf_c_message_pack(message, to);
    CHECK(written == size);
    return OK;
}

const struct cp_meta *cp_target_of(const struct cp_target *target)
{
    const struct cp_meta *to = target->service.to;
    to = to != NULL ? to : target->topic.to;
    return to != NULL ? to : target->egress.to;
}

struct err cp_target_id(struct arena *arena, const struct cp_meta *target, struct slice *out)
{
    const char *front = target->kind == CP_KIND_SERVICE ? "service/"
                        : target->kind == CP_KIND_TOPIC ? "topic/"
                                                        : "egress/";
    const struct slice pieces[] = {slice_str(front), target->key};
    return arena_join(arena, pieces, 2, out);
}

struct err cp_strings(struct cp_compiler *c, const struct cp_texts *texts, size_t *out_count,
                      char ***out)
{
    char **strings = NULL;
    TRY(arena_calloc(c->arena, texts->count + 1, sizeof(char *), (void **)&strings));
    for (size_t i = 0; i < texts->count; i++) {
        strings[i] = cp_str(texts->items[i].text);
    }
    *out_count = texts->count;
    *out = strings;
    return OK;
}

/* ---- compiling ---- */

static int part_cmp(const void *x, const void *y)
{
    const struct cp_part *a = x;
    const struct cp_part *b = y;
    int order = (a->kind > b->kind) - (a->kind < b->kind);
    return order != 0 ? order : slice_cmp(a->key, b->key);
}

static MUST_CHECK struct err compile_parts(struct cp_compiler *c)
{
    TRY(cp_compile_routing(c));
    TRY(cp_compile_trust(c));
    TRY(cp_compile_authorisation(c));
    TRY(cp_compile_limits(c));
    TRY(cp_compile_transport(c));
    TRY(cp_compile_egress(c));
    TRY(cp_compile_schemas(c));
    TRY(cp_compile_bus(c));
    TRY(cp_compile_positions(c));
    if (c->diags->count + c->diags->dropped > 0) {
        cp_diags_sort(c->diags);
        return FAIL(E_SOURCE_INVALID);
    }
    qsort(c->out->parts, c->out->part_count, sizeof(struct cp_part), part_cmp);
    for (size_t i = 1; i < c->out->part_count; i++) {
        CHECK(part_cmp(&c->out->parts[i - 1], &c->out->parts[i]) < 0);
    }
    return OK;
}

static MUST_CHECK struct err compile_all(struct cp_compiler *c, bool inventory)
{
    TRY(compile_parts(c));
    TRY(inventory ? cp_compile_inventory(c) : OK);
    const struct cp_environment *environment =
        (const struct cp_environment *)c->model->of[CP_KIND_ENVIRONMENT].items[0];
    c->out->strict = environment->security == 1;
    return arena_dup(c->arena, environment->meta.name.text, &c->out->environment);
}

struct err cp_compile(const struct cp_model *model, struct cp_diags *diags,
                      const struct cp_compile_options *options, struct cp_compiled **out)
{
    struct cp_compiled *compiled = calloc(1, sizeof(struct cp_compiled));
    if (compiled == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    arena_init(&compiled->arena, 256 << 10, COMPILED_BYTES_MAX);
    struct cp_compiler c = {.model = model,
                            .diags = diags,
                            .reuse = options->reuse,
                            .arena = &compiled->arena,
                            .out = compiled};
    struct err e = compile_all(&c, options->inventory);
    if (!err_ok(e)) {
        cp_compiled_free(compiled);
        return e;
    }
    *out = compiled;
    return OK;
}

struct err cp_compile_set(const struct cp_source_set *set, struct cp_diags *diags,
                          const struct cp_compile_options *options, struct cp_compiled **out)
{
    struct cp_model *model = NULL;
    struct cp_reuse *reuse = options->reuse;
    TRY(cp_source_load(set, diags, reuse == NULL ? NULL : reuse->sources, &model));
    struct err e = cp_compile(model, diags, options, out);
    cp_model_free(model);
    return e;
}

void cp_compiled_free(struct cp_compiled *compiled)
{
    if (compiled != NULL) {
        for (size_t i = 0; i < compiled->inventory_count; i++) {
            cp_inventory_unref(compiled->inventories[i]);
        }
        arena_free(&compiled->arena);
        free(compiled->parts);
        free(compiled);
    }
}

bool cp_compiled_has_inventory(const struct cp_compiled *compiled)
{
    return compiled->has_inventory;
}

const struct cp_part *cp_compiled_parts(const struct cp_compiled *compiled, size_t *out_count)
{
    *out_count = compiled->part_count;
    return compiled->parts;
}

uint64_t cp_compiled_capabilities(const struct cp_compiled *compiled)
{
    return compiled->capabilities;
}

struct slice cp_compiled_environment(const struct cp_compiled *compiled)
{
    return compiled->environment;
}

bool cp_compiled_is_strict(const struct cp_compiled *compiled)
{
    return compiled->strict;
}
