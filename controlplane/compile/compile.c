/* compile: the order of the parts, and what they share. See compile.h. */
#include "controlplane/compile/compile.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/snapshot/format.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/source/source.h"

enum { COMPILED_BYTES_MAX = 2047 << 20 };

/* ---- what the parts share ---- */

struct err cp_compiled_add(struct cp_compiled *compiled, struct cp_part part)
{
    TRY(array_room(&compiled->parts, compiled->part_count, &compiled->part_capacity,
                   sizeof(struct cp_part)));
    TRY(arena_dup(&compiled->arena, part.key, &part.key));
    compiled->parts[compiled->part_count++] = part;
    return OK;
}

struct err cp_emit_bytes(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                         struct slice bytes)
{
    struct cp_part part = {.kind = kind, .key = key};
    TRY(arena_dup(c->arena, bytes, &part.bytes));
    part.former = part.bytes;
    return cp_compiled_add(c->out, part);
}

/* Packs a part into the arena. What is too large is told, and is no failure here: *out stays. */
static MUST_CHECK struct err pack(struct cp_compiler *c, struct slice key,
                                  const ProtobufCMessage *message, struct cp_pos at,
                                  struct slice *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (key.size > PART_KEY_MAX || size > PART_MAX) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_PART_TOO_LARGE, at,
                                            "part %.*s is too large", SLICE_ARG(key));
        cp_diag_expect(c->diags, diag, "at most %d bytes", PART_MAX);
        return OK;
    }
    uint8_t *to = NULL;
    TRY(arena_alloc(c->arena, size, (void **)&to));
    size_t written = protobuf_c_message_pack(message, to);
    CHECK(written == size);
    *out = slice_of(to, size);
    return OK;
}

struct err cp_emit_both(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                        const ProtobufCMessage *message, const ProtobufCMessage *former,
                        struct cp_pos at)
{
    struct cp_part part = {.kind = kind, .key = key};
    TRY(pack(c, key, message, at, &part.bytes));
    part.former = part.bytes;
    if (former != message) {
        TRY(pack(c, key, former, at, &part.former));
    }
    return cp_compiled_add(c->out, part);
}

struct err cp_emit(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                   const ProtobufCMessage *message, struct cp_pos at)
{
    return cp_emit_both(c, kind, key, message, message, at);
}

const struct cp_meta *cp_target_of(const struct cp_target *target)
{
    const struct cp_meta *to = target->service.to;
    to = to != NULL ? to : target->topic.to;
    return to != NULL ? to : target->egress.to;
}

/* The glob that a target is, and of which kind of resources; empty: it is none. */
static struct slice glob_of(const struct cp_target *target, enum cp_kind *out_kind)
{
    const struct cp_ref *ref = target->service.text.size > 0 ? &target->service
                               : target->topic.text.size > 0 ? &target->topic
                                                             : &target->egress;
    *out_kind = ref == &target->service ? CP_KIND_SERVICE
                : ref == &target->topic ? CP_KIND_TOPIC
                                        : CP_KIND_EGRESS;
    return text_is_glob(ref->text) ? ref->text : (struct slice){0};
}

bool cp_policy_is_about(const struct cp_policy *policy, const struct cp_meta *target)
{
    enum cp_kind kind = CP_KIND_COUNT;
    struct slice glob = glob_of(&policy->target, &kind);
    struct slice own = policy->meta.tenant.text;
    if (glob.size == 0) {
        return cp_target_of(&policy->target) == target;
    }
    if (kind != target->kind) {
        return false;
    }
    if (slice_find(glob, '/') < glob.size) { /* with a tenant that it may speak of: check.c. */
        return text_glob(glob, target->key);
    }
    return (slice_eq(own, SLICE_LIT("-")) || slice_eq(own, target->tenant.text)) &&
           text_glob(glob, kind == CP_KIND_TOPIC ? target->key : target->name.text);
}

static const char *front_of(enum cp_kind kind)
{
    return kind == CP_KIND_SERVICE ? "service/" : kind == CP_KIND_TOPIC ? "topic/" : "egress/";
}

struct err cp_target_id(struct arena *arena, const struct cp_meta *target, struct slice *out)
{
    const struct slice pieces[] = {slice_str(front_of(target->kind)), target->key};
    return arena_join(arena, pieces, 2, out);
}

struct err cp_policy_target_id(struct arena *arena, const struct cp_policy *policy,
                               struct slice *out)
{
    enum cp_kind kind = CP_KIND_COUNT;
    struct slice glob = glob_of(&policy->target, &kind);
    struct slice own = policy->meta.tenant.text;
    if (glob.size == 0) {
        return cp_target_id(arena, cp_target_of(&policy->target), out);
    }
    bool whole =
        kind == CP_KIND_TOPIC || slice_eq(own, SLICE_LIT("-")) || slice_find(glob, '/') < glob.size;
    const struct slice pieces[] = {slice_str(front_of(kind)), whole ? (struct slice){0} : own,
                                   whole ? (struct slice){0} : SLICE_LIT("/"), glob};
    return arena_join(arena, pieces, 4, out);
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

void cp_compiled_sort(struct cp_compiled *compiled)
{
    qsort(compiled->parts, compiled->part_count, sizeof(struct cp_part), part_cmp);
    for (size_t i = 1; i < compiled->part_count; i++) {
        CHECK(part_cmp(&compiled->parts[i - 1], &compiled->parts[i]) < 0);
    }
}

static MUST_CHECK struct err compile_parts(struct cp_compiler *c)
{
    TRY(cp_compile_routing(c));
    TRY(cp_compile_trust(c));
    TRY(cp_compile_revocations(c));
    TRY(cp_compile_authorisation(c));
    TRY(cp_compile_limits(c));
    TRY(cp_compile_transport(c));
    TRY(cp_compile_egress(c));
    TRY(cp_compile_schemas(c));
    TRY(cp_compile_descriptors(c));
    TRY(cp_compile_bus(c));
    TRY(cp_compile_positions(c));
    if (c->diags->count + c->diags->dropped > 0) {
        cp_diags_sort(c->diags);
        return FAIL(E_SOURCE_INVALID);
    }
    cp_compiled_sort(c->out);
    return OK;
}

static MUST_CHECK struct err compile_all(struct cp_compiler *c)
{
    TRY(compile_parts(c));
    TRY(c->inventory ? cp_compile_inventory(c) : OK);
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
                            .inventory = options->inventory,
                            .arena = &compiled->arena,
                            .out = compiled};
    struct err e = compile_all(&c);
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
        cp_inventory_unref(compiled->revocations);
        arena_free(&compiled->arena);
        free(compiled->parts);
        free(compiled);
    }
}

bool cp_compiled_has_inventory(const struct cp_compiled *compiled)
{
    return compiled->has_inventory;
}

size_t cp_compiled_bytes(const struct cp_compiled *compiled)
{
    size_t bytes = sizeof(*compiled) + compiled->arena.total;
    bytes += compiled->revocations == NULL ? 0 : compiled->revocations->arena.total;
    return bytes + compiled->part_capacity * sizeof(*compiled->parts);
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

uint32_t cp_compiled_format_least(const struct cp_compiled *compiled)
{
    bool many_domains = (compiled->capabilities & (uint64_t)CAPABILITY_TRUST_DOMAINS) != 0;
    return many_domains ? SNAPSHOT_FORMAT : SNAPSHOT_FORMAT_LEAST;
}

struct slice cp_compiled_environment(const struct cp_compiled *compiled)
{
    return compiled->environment;
}

bool cp_compiled_is_strict(const struct cp_compiled *compiled)
{
    return compiled->strict;
}
