/* compile: the order of the parts, and what they share. See compile.h. */
#include "controlplane/compile/compile.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/snapshot/format.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/source/source.h"

enum { COMPILED_BYTES_MAX = 2047 << 20 };

/* ---- what the parts share ---- */

struct err cp_grow(struct arena *arena, void **items, size_t count, size_t *capacity,
                   size_t item_size)
{
    if (count < *capacity) {
        return OK;
    }
    size_t wanted = *capacity == 0 ? 32 : 2 * *capacity;
    uint8_t *bigger = NULL;
    TRY(arena_calloc(arena, wanted, item_size, (void **)&bigger));
    const uint8_t *old = *items;
    for (size_t i = 0; i < count * item_size; i++) {
        bigger[i] = old[i];
    }
    *items = bigger;
    *capacity = wanted;
    return OK;
}

struct err cp_emit(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                   const ProtobufCMessage *message, struct cp_pos at)
{
    auto_buf struct buf packed = BUF_MAX(PART_MAX);
    struct err e = key.size > PART_KEY_MAX ? FAIL(E_TOO_LARGE) : proto_encode(message, &packed);
    if (e.code == E_TOO_LARGE) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_PART_TOO_LARGE, at,
                                            "part %.*s is too large", SLICE_ARG(key));
        cp_diag_expect(c->diags, diag, "at most %d bytes", PART_MAX);
        return OK;
    }
    TRY(e);
    struct cp_compiled *out = c->out;
    void *parts = out->parts;
    TRY(cp_grow(c->arena, &parts, out->part_count, &out->part_capacity, sizeof(struct cp_part)));
    out->parts = parts;
    struct cp_part part = {.kind = kind};
    TRY(arena_dup(c->arena, key, &part.key));
    TRY(arena_dup(c->arena, buf_slice(&packed), &part.bytes));
    out->parts[out->part_count++] = part;
    return OK;
}

const struct cp_meta *cp_target_of(const struct cp_target *target)
{
    const struct cp_meta *to = target->service.to;
    to = to != NULL ? to : target->topic.to;
    return to != NULL ? to : target->egress.to;
}

struct err cp_target_id(struct cp_compiler *c, const struct cp_meta *target, struct slice *out)
{
    const char *front = target->kind == CP_KIND_SERVICE ? "service"
                        : target->kind == CP_KIND_TOPIC ? "topic"
                                                        : "egress";
    return arena_printf(c->arena, out, "%s/%.*s", front, SLICE_ARG(target->key));
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
    TRY(cp_compile_inventory(c));
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

struct err cp_compile(const struct cp_model *model, struct cp_diags *diags,
                      struct cp_compiled **out)
{
    struct cp_compiled *compiled = calloc(1, sizeof(struct cp_compiled));
    if (compiled == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    arena_init(&compiled->arena, 256 << 10, COMPILED_BYTES_MAX);
    struct cp_compiler c = {
        .model = model, .diags = diags, .arena = &compiled->arena, .out = compiled};
    struct err e = compile_parts(&c);
    if (err_ok(e)) {
        e = arena_dup(&compiled->arena, model->of[CP_KIND_ENVIRONMENT].items[0]->name.text,
                      &compiled->environment);
    }
    if (!err_ok(e)) {
        cp_compiled_free(compiled);
        return e;
    }
    *out = compiled;
    return OK;
}

struct err cp_compile_set(const struct cp_source_set *set, struct cp_diags *diags,
                          struct cp_compiled **out)
{
    struct cp_model *model = NULL;
    TRY(cp_source_load(set, diags, &model));
    struct err e = cp_compile(model, diags, out);
    cp_model_free(model);
    return e;
}

void cp_compiled_free(struct cp_compiled *compiled)
{
    if (compiled != NULL) {
        arena_free(&compiled->arena);
        free(compiled);
    }
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
