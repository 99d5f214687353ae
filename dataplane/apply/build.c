/* build: see build.h. The bin, and the way from one set's model to the next one's; the tables are
 * link.c's. */
#include "dataplane/apply/build.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/decode.h"
#include "dataplane/apply/model_impl.h"

enum { LOCALITY_MAX = 63 };

/* No lock, and nobody is woken: a worker lets go of a model in the middle of its turn, and who
 * sweeps looks soon enough. */
struct dp_model_bin {
    char region[LOCALITY_MAX + 1];
    char zone[LOCALITY_MAX + 1];
    struct {
        _Atomic(struct dp_model *) dead; /* nobody refers to these; newest first. */
        atomic_size_t live;              /* all that were made and not freed. */
    } shared;
};

/* ---- the bin ---- */

struct err dp_model_bin_new(struct dp_model_bin **out)
{
    struct dp_model_bin *bin = calloc(1, sizeof(*bin));
    if (bin == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *out = bin;
    return OK;
}

void dp_model_bin_place(struct dp_model_bin *bin, const struct dp_locality *here)
{
    (void)snprintf(bin->region, sizeof(bin->region), "%.*s",
                   SLICE_ARG(slice_head(here->region, LOCALITY_MAX)));
    (void)snprintf(bin->zone, sizeof(bin->zone), "%.*s",
                   SLICE_ARG(slice_head(here->zone, LOCALITY_MAX)));
}

void dp_model_bin_free(struct dp_model_bin *bin)
{
    if (bin == NULL) {
        return;
    }
    (void)dp_model_bin_sweep(bin);
    CHECK(dp_model_bin_live(bin) == 0);
    free(bin);
}

static void model_free(struct dp_model *model)
{
    dp_model_free_tables(model);
    snap_set_unref(model->set);
    free(model);
}

size_t dp_model_bin_sweep(struct dp_model_bin *bin)
{
    struct dp_model *dead = atomic_exchange(&bin->shared.dead, NULL);
    size_t freed = 0;
    while (dead != NULL) {
        struct dp_model *next = dead->bin_next;
        model_free(dead);
        dead = next;
        freed++;
    }
    atomic_fetch_sub(&bin->shared.live, freed);
    return freed;
}

size_t dp_model_bin_live(struct dp_model_bin *bin)
{
    return atomic_load(&bin->shared.live);
}

struct dp_model *dp_model_ref(struct dp_model *model)
{
    refs_take(&model->refs);
    return model;
}

void dp_model_unref(struct dp_model *model)
{
    if (model == NULL || !refs_drop(&model->refs)) {
        return;
    }
    struct dp_model_bin *bin = model->bin;
    model->bin_next = atomic_load(&bin->shared.dead);
    while (!atomic_compare_exchange_weak(&bin->shared.dead, &model->bin_next, model)) {
    }
}

/* ---- from a set to a model ---- */

static const uint32_t stream_kinds[] = {
    STREAM_ROUTING,   STREAM_TRUST,  STREAM_REVOCATIONS, STREAM_AUTHORISATION, STREAM_LIMITS,
    STREAM_TRANSPORT, STREAM_EGRESS, STREAM_SCHEMAS,     STREAM_BUS,
};
enum { STREAM_COUNT = sizeof(stream_kinds) / sizeof(stream_kinds[0]) };

bool dp_model_knows_stream(uint32_t kind)
{
    return kind == STREAM_POSITIONS || dp_part_stream(kind);
}

struct snap_set *dp_model_set(const struct dp_model *model)
{
    return model->set;
}

static void report_object(struct dp_build_report *report, uint32_t stream, struct slice key)
{
    const char *name = stream_kind_name(stream);
    (void)snprintf(report->object, sizeof(report->object), "%s %.*s", name == NULL ? "?" : name,
                   SLICE_ARG(key));
}

/* One part that is otherwise than before. */
struct change {
    struct dp_part *old;   /* borrowed of the model before; NULL: it is new. */
    struct dp_part *fresh; /* a reference; NULL: it is gone. */
};

/* The way from a model to the next one. */
struct edit {
    struct dp_model *model;
    const struct dp_model *previous; /* NULL: none. */
    const struct dp_environment *environment;
    struct change *changes; /* owned. */
    size_t count;
    size_t capacity;
    struct dp_build_report *report;
};

static void edit_free(struct edit *edit)
{
    for (size_t i = 0; i < edit->count; i++) {
        dp_part_unref(edit->changes[i].fresh);
    }
    free(edit->changes);
}

static struct err change_build(struct edit *edit, uint32_t stream, const struct snap_change *from,
                               struct change *out)
{
    const struct dp_part_from part = {.stream = stream,
                                      .format = snap_set_format(edit->model->set, stream),
                                      .part = {.key = from->key, .bytes = from->now},
                                      .environment = edit->environment,
                                      .here = {.region = slice_str(edit->model->bin->region),
                                               .zone = slice_str(edit->model->bin->zone)}};
    if (from->had) {
        enum dp_part_kind kind = dp_part_kind(stream, from->key);
        out->old = trie_get(&edit->previous->parts[kind], from->key);
        CHECK(out->old != NULL);
    }
    if (!from->has) {
        return OK;
    }
    struct err e = dp_part_new(&part, &out->fresh);
    if (!err_ok(e)) {
        bool missing =
            edit->environment == NULL && dp_part_kind(stream, from->key) == DP_PART_CALLER;
        report_object(edit->report, stream, missing ? DP_ENVIRONMENT_KEY : from->key);
        return e;
    }
    edit->report->parts_built++;
    return OK;
}

static bool same_domains(const struct dp_environment *a, const struct dp_environment *b)
{
    bool same = a != NULL && b != NULL && slice_eq(a->trust_domain, b->trust_domain) &&
                a->trust_domain_count == b->trust_domain_count;
    for (size_t i = 0; same && i < a->trust_domain_count; i++) {
        same = slice_eq(a->trust_domains[i], b->trust_domains[i]);
    }
    return same;
}

/* Callers are named in the environment's domains, and built anew when these are others: its part
 * is the first of its stream. */
static void note_environment(struct edit *edit, const struct change *change, bool *whole)
{
    const struct dp_part *any = change->fresh != NULL ? change->fresh : change->old;
    if (any != NULL && any->kind == DP_PART_ENVIRONMENT) {
        const struct dp_environment *before = edit->environment;
        edit->environment = change->fresh == NULL ? NULL : &change->fresh->as.environment;
        *whole = *whole || !same_domains(before, edit->environment);
    }
}

/* Builds what the stream has otherwise than before. */
static struct err build_stream(struct edit *edit, uint32_t stream)
{
    struct snap_set *before = edit->previous == NULL ? NULL : edit->previous->set;
    struct snap_diff at = {0};
    struct snap_change found;
    while (snap_set_diff(before, edit->model->set, stream, &at, &found)) {
        struct change change = {0};
        TRY(array_room(&edit->changes, edit->count, &edit->capacity, sizeof(*edit->changes)));
        TRY(change_build(edit, stream, &found, &change));
        edit->changes[edit->count++] = change;
        note_environment(edit, &change, &at.whole);
    }
    return OK;
}

static struct err refuse(struct edit *edit, const struct dp_part *part, struct err e)
{
    report_object(edit->report, dp_part_stream_of(part->kind), part->key);
    return e;
}

/* What is gone or comes anew is taken out, before anything takes its names. */
static struct err link_changes(struct edit *edit)
{
    for (size_t i = 0; i < edit->count; i++) {
        if (edit->changes[i].old != NULL) {
            TRY(dp_model_take(edit->model, edit->changes[i].old));
        }
    }
    for (size_t i = 0; i < edit->count; i++) {
        struct dp_part *part = edit->changes[i].fresh;
        struct err e = part == NULL ? OK : dp_model_add(edit->model, part);
        if (!err_ok(e)) {
            return refuse(edit, part, e);
        }
    }
    return OK;
}

static struct err judge_part(void *ctx, struct slice key, void *value)
{
    struct edit *edit = ctx;
    struct err e = dp_model_judge(edit->model, value);
    (void)key;
    return err_ok(e) ? OK : refuse(edit, value, e);
}

static bool is_gone(const struct change *change)
{
    return change->old != NULL && dp_model_is_named(change->old->kind) && change->fresh == NULL;
}

static struct err judge_fresh(struct edit *edit, enum dp_part_kind kind)
{
    for (size_t i = 0; i < edit->count; i++) {
        struct dp_part *part = edit->changes[i].fresh;
        if (part != NULL && part->kind == kind) {
            TRY(judge_part(edit, part->key, part));
        }
    }
    return OK;
}

/* What a new part names is looked for; and when something is gone, by whom it is still named. */
static struct err judge_changes(struct edit *edit)
{
    bool gone = false;
    for (size_t i = 0; i < edit->count; i++) {
        gone = gone || is_gone(&edit->changes[i]);
    }
    for (int i = 0; i < DP_PART_KIND_COUNT; i++) {
        enum dp_part_kind kind = (enum dp_part_kind)i;
        if (dp_model_names(kind)) {
            TRY(gone ? trie_walk(&edit->model->parts[i], judge_part, edit)
                     : judge_fresh(edit, kind));
        }
    }
    return OK;
}

static bool touches_trust(const struct change *change)
{
    enum dp_part_kind kind = change->fresh != NULL ? change->fresh->kind : change->old->kind;
    return kind == DP_PART_EGRESS || kind == DP_PART_TRANSPORT;
}

static void look_for_trust(struct edit *edit)
{
    bool touched = false;
    for (size_t i = 0; i < edit->count; i++) {
        touched = touched || touches_trust(&edit->changes[i]);
    }
    if (touched) {
        edit->model->needs_system_trust = dp_model_look_for_trust(edit->model);
    }
}

static struct err edit_run(struct edit *edit)
{
    for (size_t i = 0; i < STREAM_COUNT; i++) {
        TRY(build_stream(edit, stream_kinds[i]));
    }
    TRY(link_changes(edit));
    if (edit->model->environment == NULL) {
        report_object(edit->report, STREAM_TRUST, DP_ENVIRONMENT_KEY);
        return FAIL(E_PART_MALFORMED);
    }
    TRY(judge_changes(edit));
    look_for_trust(edit);
    for (size_t i = 0; i < DP_PART_KIND_COUNT; i++) {
        edit->report->parts += edit->model->parts[i].count;
    }
    return OK;
}

static struct err fill(struct dp_model *model, const struct dp_model *previous,
                       struct dp_build_report *report)
{
    struct edit edit = {.model = model, .previous = previous, .report = report};
    dp_model_init_tables(model);
    if (previous != NULL) {
        dp_model_copy_tables(model, previous);
        edit.environment = previous->environment;
    }
    struct err e = edit_run(&edit);
    edit_free(&edit);
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
    refs_init(&model->refs);
    model->set = snap_set_ref(set);
    struct err e = fill(model, previous, report);
    if (!err_ok(e)) {
        model_free(model);
        return e.code == E_NO_MEMORY ? (struct err){E_OUT_OF_MEMORY, e.where} : e;
    }
    atomic_fetch_add(&bin->shared.live, 1);
    *out = model;
    return OK;
}
