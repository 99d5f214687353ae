/* build: see build.h. The bin, and the way from a set to a model; links are made in link.c. */
#include "dataplane/apply/build.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/scope.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/model_impl.h"

enum { MODEL_ARENA_BLOCK = 64 << 10 };

/* Far above what the format's bounds can lead to: a guard on arithmetic, not a limit. */
#define MODEL_ARENA_MAX ((size_t)4 << 30)

struct dp_model_bin {
    dp_model_wake_fn *wake;
    void *wake_ctx;
    struct {
        struct lock lock;
        struct dp_model *dead GUARDED; /* nobody refers to these. */
        size_t live GUARDED;           /* all that were made and not freed. */
    } shared;
};

/* ---- the bin ---- */

struct err dp_model_bin_new(dp_model_wake_fn *wake, void *wake_ctx, struct dp_model_bin **out)
{
    struct dp_model_bin *bin = calloc(1, sizeof(*bin));
    if (bin == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    bin->wake = wake;
    bin->wake_ctx = wake_ctx;
    lock_init(&bin->shared.lock);
    *out = bin;
    return OK;
}

void dp_model_bin_free(struct dp_model_bin *bin)
{
    if (bin == NULL) {
        return;
    }
    (void)dp_model_bin_sweep(bin);
    CHECK(dp_model_bin_live(bin) == 0);
    lock_free(&bin->shared.lock);
    free(bin);
}

static void model_free(struct dp_model *model)
{
    dp_model_unlink(model);
    for (size_t i = 0; i < DP_MODEL_STREAMS; i++) {
        struct dp_model_stream *stream = &model->streams[i];
        for (size_t k = 0; k < stream->count; k++) {
            dp_part_unref(stream->parts[k].part);
        }
        free(stream->parts);
    }
    arena_free(&model->arena);
    snap_set_unref(model->set);
    free(model);
}

size_t dp_model_bin_sweep(struct dp_model_bin *bin)
{
    lock_take(&bin->shared.lock);
    struct dp_model *dead = TAKE_PTR(bin->shared.dead);
    lock_drop(&bin->shared.lock);
    size_t freed = 0;
    while (dead != NULL) {
        struct dp_model *next = dead->bin_next;
        model_free(dead);
        dead = next;
        freed++;
    }
    lock_take(&bin->shared.lock);
    bin->shared.live -= freed;
    lock_drop(&bin->shared.lock);
    return freed;
}

size_t dp_model_bin_live(struct dp_model_bin *bin)
{
    lock_take(&bin->shared.lock);
    size_t live = bin->shared.live;
    lock_drop(&bin->shared.lock);
    return live;
}

struct dp_model *dp_model_ref(struct dp_model *model)
{
    lock_take(&model->bin->shared.lock);
    CHECK(model->refs > 0);
    model->refs++;
    lock_drop(&model->bin->shared.lock);
    return model;
}

void dp_model_unref(struct dp_model *model)
{
    if (model == NULL) {
        return;
    }
    struct dp_model_bin *bin = model->bin;
    lock_take(&bin->shared.lock);
    CHECK(model->refs > 0);
    bool last = --model->refs == 0;
    if (last) {
        model->bin_next = bin->shared.dead;
        bin->shared.dead = model;
    }
    lock_drop(&bin->shared.lock);
    if (last && bin->wake != NULL) {
        bin->wake(bin->wake_ctx);
    }
}

/* ---- from a set to a model ---- */

static const uint32_t stream_kinds[DP_MODEL_STREAMS] = {
    STREAM_ROUTING,   STREAM_TRUST,  STREAM_REVOCATIONS, STREAM_AUTHORISATION, STREAM_LIMITS,
    STREAM_TRANSPORT, STREAM_EGRESS, STREAM_SCHEMAS,     STREAM_BUS,
};

bool dp_model_knows_stream(uint32_t kind)
{
    return kind == STREAM_POSITIONS || dp_part_stream(kind);
}

struct snap_set *dp_model_set(const struct dp_model *model)
{
    return model->set;
}

static struct err stream_reserve(struct dp_model_stream *stream)
{
    if (stream->count < stream->capacity) {
        return OK;
    }
    size_t capacity = stream->capacity == 0 ? 64 : stream->capacity * 2;
    void *grown = realloc(stream->parts, capacity * sizeof(*stream->parts));
    if (grown == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    stream->parts = grown;
    stream->capacity = capacity;
    return OK;
}

/*
 * The part of the same key and bytes in the stream before, or NULL. Both streams ascend, so *at
 * only moves forward. Bytes in a kept chunk are known to be the same without a look at them.
 */
static struct dp_part *find_kept(const struct dp_model_stream *before, size_t *at,
                                 const struct snap_part *wanted)
{
    while (*at < before->count && slice_cmp(before->parts[*at].key, wanted->key) < 0) {
        (*at)++;
    }
    if (*at == before->count || !slice_eq(before->parts[*at].key, wanted->key)) {
        return NULL;
    }
    bool same = wanted->kept || slice_eq(before->parts[*at].bytes, wanted->bytes);
    return same ? before->parts[*at].part : NULL;
}

static void report_object(struct dp_build_report *report, uint32_t stream, struct slice key)
{
    const char *name = stream_kind_name(stream);
    (void)snprintf(report->object, sizeof(report->object), "%s %.*s", name == NULL ? "?" : name,
                   SLICE_ARG(key));
}

static struct err build_stream(struct dp_model *model, struct dp_model_stream *stream,
                               const struct dp_model_stream *before, struct dp_build_report *report)
{
    static const struct dp_model_stream none = {0};
    struct snap_cursor cursor = {0};
    struct snap_part found;
    size_t at = 0;
    stream->format = snap_set_format(model->set, stream->kind);
    before =
        before->format == stream->format ? before : &none; /* bytes mean another thing there. */
    while (snap_set_next(model->set, stream->kind, &cursor, &found)) {
        TRY(stream_reserve(stream));
        struct dp_part *part = find_kept(before, &at, &found);
        if (part != NULL) {
            part = dp_part_ref(part);
        } else {
            const struct part from = {.key = found.key, .bytes = found.bytes};
            struct err e = dp_part_new(stream->kind, stream->format, &from, &part);
            if (!err_ok(e)) {
                report_object(report, stream->kind, found.key);
                return e;
            }
            report->parts_built++;
        }
        report->parts++;
        stream->parts[stream->count++] =
            (struct dp_model_part){.part = part, .key = found.key, .bytes = found.bytes};
    }
    return OK;
}

static struct err fill(struct dp_model *model, const struct dp_model *previous,
                       struct dp_build_report *report)
{
    static const struct dp_model_stream none = {0};
    for (size_t i = 0; i < DP_MODEL_STREAMS; i++) {
        model->streams[i].kind = stream_kinds[i];
        TRY(build_stream(model, &model->streams[i],
                         previous == NULL ? &none : &previous->streams[i], report));
    }
    uint32_t stream = 0;
    struct slice key = {0};
    struct err e = dp_model_link(model, &stream, &key);
    if (!err_ok(e)) {
        report_object(report, stream, key);
    }
    return e;
}

struct err dp_model_build(struct dp_model_bin *bin, struct snap_set *set,
                          const struct dp_model *previous, struct dp_model **out,
                          struct dp_build_report *report)
{
    *report = (struct dp_build_report){0};
    struct dp_model *model = calloc(1, sizeof(*model));
    if (model == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    model->bin = bin;
    model->refs = 1;
    model->set = snap_set_ref(set);
    arena_init(&model->arena, MODEL_ARENA_BLOCK, MODEL_ARENA_MAX);
    struct err e = fill(model, previous, report);
    if (!err_ok(e)) {
        model_free(model);
        return e.code == E_NO_MEMORY ? (struct err){E_OUT_OF_MEMORY, e.where} : e;
    }
    lock_take(&bin->shared.lock);
    bin->shared.live++;
    lock_drop(&bin->shared.lock);
    *out = model;
    return OK;
}
