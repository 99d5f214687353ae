/*
 * methods: which methods of a service are tried more than once, and how.
 *
 * Each name becomes a row of its own. The rows are sorted so that the node takes the first that
 * matches: exact names, then globs, longer ones before shorter ones. So the order in which the
 * resource lists them means nothing.
 */
#include <stdlib.h>

#include "common/base/text.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum {
    ATTEMPTS_MAX = 5,    /* gRPC A6: more count as that many. */
    BACKOFF_GROWTH = 10, /* where nothing bounds it. */
    UNAVAILABLE = 14
};

struct row {
    struct slice name;
    const struct cp_method *method;
};

static int row_cmp(const void *x, const void *y)
{
    const struct row *a = x;
    const struct row *b = y;
    int order = (int)text_is_glob(a->name) - (int)text_is_glob(b->name);
    order = order != 0 ? order : (a->name.size < b->name.size) - (a->name.size > b->name.size);
    return order != 0 ? order : slice_cmp(a->name, b->name);
}

static uint32_t attempts(uint64_t said)
{
    return said < ATTEMPTS_MAX ? (uint32_t)said : ATTEMPTS_MAX;
}

/* The choices begin behind OK. */
static uint32_t codes(uint64_t said)
{
    return (uint32_t)said << 1;
}

static MUST_CHECK struct err make(struct cp_compiler *c, const struct row *row,
                                  Trilane__Parts__V1__MethodPolicy **out)
{
    Trilane__Parts__V1__MethodPolicy *made = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*made), (void **)&made));
    trilane__parts__v1__method_policy__init(made);
    const struct cp_retry *retry = &row->method->retry;
    const struct cp_hedging *hedging = &row->method->hedging;
    made->name = cp_str(row->name);
    made->idempotent = row->method->idempotent != 0;
    made->hedged = hedging->at.line > 0;
    if (made->hedged) {
        made->attempts = attempts(hedging->attempts);
        made->codes = codes(hedging->codes);
        made->delay_ms = (uint32_t)hedging->delay_ms;
        made->percentile = made->delay_ms > 0 ? 0 : (uint32_t)hedging->percentile;
    } else {
        made->attempts = attempts(retry->attempts);
        made->codes = retry->codes == 0 ? 1U << UNAVAILABLE : codes(retry->codes);
        made->try_timeout_ms = (uint32_t)retry->try_timeout_ms;
        made->backoff_ms = (uint32_t)retry->backoff_ms;
        made->backoff_max_ms =
            (uint32_t)(retry->backoff_max_ms > 0 ? retry->backoff_max_ms
                                                 : BACKOFF_GROWTH * retry->backoff_ms);
        made->multiplier = (uint32_t)retry->multiplier;
    }
    *out = made;
    return OK;
}

static MUST_CHECK struct err list_rows(struct cp_compiler *c, const struct cp_methods *methods,
                                       struct row **out, size_t *out_count)
{
    size_t count = 0;
    for (size_t i = 0; i < methods->count; i++) {
        count += methods->items[i].names.count;
    }
    TRY(arena_calloc(c->arena, count + 1, sizeof(**out), (void **)out));
    for (size_t i = 0; i < methods->count; i++) {
        const struct cp_method *method = &methods->items[i];
        for (size_t k = 0; k < method->names.count; k++) {
            (*out)[(*out_count)++] =
                (struct row){.name = method->names.items[k].text, .method = method};
        }
    }
    qsort(*out, count, sizeof(**out), row_cmp);
    return OK;
}

static MUST_CHECK struct err pack_budget(struct cp_compiler *c, const struct cp_retry_budget *from,
                                         Trilane__Parts__V1__RetryBudget **out)
{
    TRY(arena_calloc(c->arena, 1, sizeof(**out), (void **)out));
    trilane__parts__v1__retry_budget__init(*out);
    (*out)->max_tokens = (uint32_t)from->max_tokens;
    (*out)->ratio_per_mille = (uint32_t)from->ratio_per_mille;
    (*out)->active_percent = (uint32_t)from->active_percent;
    (*out)->min_concurrent = (uint32_t)from->min_concurrent;
    (*out)->hedges_per_mille = (uint32_t)from->hedges_per_mille;
    return OK;
}

struct err cp_pack_methods(struct cp_compiler *c, const struct cp_service *service,
                           Trilane__Parts__V1__Cluster *cluster)
{
    if (service->methods.count == 0) {
        return OK;
    }
    struct row *rows = NULL;
    size_t count = 0;
    TRY(list_rows(c, &service->methods, &rows, &count));
    TRY(arena_calloc(c->arena, count + 1, sizeof(*cluster->methods), (void **)&cluster->methods));
    for (size_t i = 0; i < count; i++) {
        TRY(make(c, &rows[i], &cluster->methods[i]));
    }
    cluster->n_methods = count;
    TRY(pack_budget(c, &service->retry_budget, &cluster->retry_budget));
    cp_needs(c, CAPABILITY_RETRIES, /* used= */ true);
    return OK;
}
