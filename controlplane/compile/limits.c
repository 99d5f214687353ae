/* limits: all rate limits of a target, in one part. */
#include <stdlib.h>

#include "common/base/map.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { NS_PER_S = 1000000000 };

struct row {
    struct slice target;
    const struct cp_rate_limit *limit;
};

static int row_cmp(const void *x, const void *y)
{
    const struct row *a = x;
    const struct row *b = y;
    int order = slice_cmp(a->target, b->target);
    return order != 0 ? order : slice_cmp(a->limit->meta.id, b->limit->meta.id);
}

/* What the rate gives in a second, at least one. */
static uint32_t burst_of(const struct cp_rate_limit *limit)
{
    uint64_t burst = limit->burst > 0 ? limit->burst : NS_PER_S / limit->period_ns;
    return burst < 1 ? 1 : (uint32_t)burst;
}

static MUST_CHECK struct err make_limit(struct cp_compiler *c, const struct cp_rate_limit *limit,
                                        Trilane__Parts__V1__Limit **out)
{
    Trilane__Parts__V1__Limit *made = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*made), (void **)&made));
    trilane__parts__v1__limit__init(made);
    made->id = cp_str(limit->meta.id);
    TRY(cp_strings(c, &limit->methods, &made->n_methods, &made->methods));
    TRY(cp_strings(c, &limit->by_headers, &made->n_headers, &made->headers));
    made->by = (uint32_t)limit->by << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER;
    made->on_unknown = (Trilane__Parts__V1__LimitUnknown)limit->on_unknown;
    made->period_ns = limit->period_ns;
    made->burst = limit->period_ns == 0 ? 0 : burst_of(limit);
    made->concurrency = (uint32_t)limit->concurrency;
    made->quota = limit->quota & ((UINT64_C(1) << CP_QUOTA_BITS) - 1);
    made->window = (Trilane__Parts__V1__LimitWindow)(limit->quota >> CP_QUOTA_BITS);
    made->shared = limit->scope == 1;
    cp_needs(c, CAPABILITY_LIMIT_SHARED, made->shared);
    cp_needs(c, CAPABILITY_LIMIT_SHARED_KEYS,
             made->shared && (made->by != 0 || made->n_headers > 0));
    bool by_service = (limit->by & (1U << CP_BY_SERVICE)) != 0;
    cp_needs(c, CAPABILITY_LIMIT_KEYS, made->by != 0);
    cp_needs(c, CAPABILITY_LIMIT_VALUES,
             by_service || made->n_headers > 0 || made->on_unknown != 0);
    cp_needs(c, CAPABILITY_LIMIT_CONCURRENCY, made->concurrency > 0);
    cp_needs(c, CAPABILITY_LIMIT_QUOTAS, made->quota > 0);
    *out = made;
    return OK;
}

static MUST_CHECK struct err compile_target(struct cp_compiler *c, const struct row *rows,
                                            size_t count)
{
    Trilane__Parts__V1__LimitTarget part;
    trilane__parts__v1__limit_target__init(&part);
    TRY(arena_calloc(c->arena, count, sizeof(*part.limits), (void **)&part.limits));
    for (size_t i = 0; i < count; i++) {
        TRY(make_limit(c, rows[i].limit, &part.limits[i]));
    }
    part.n_limits = count;
    part.target = cp_str(rows[0].target);
    return cp_emit(c, CP_PART_LIMITS, rows[0].target, &part.base, rows[0].limit->meta.at);
}

/* A tenant may not slow down the others on what all of them share. */
static bool reaches_others(struct cp_compiler *c, const struct cp_rate_limit *limit)
{
    const struct cp_meta *target = cp_target_of(&limit->target);
    bool shared = target != NULL && slice_eq(target->tenant.text, SLICE_LIT("-"));
    if (!shared || slice_eq(limit->meta.tenant.text, SLICE_LIT("-")) ||
        limit->meta.tenant.text.size == 0) {
        return false;
    }
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_REFERENCE_FOREIGN, limit->target.at,
                     "a limit of tenant \"%.*s\" on %.*s would limit every tenant",
                     SLICE_ARG(limit->meta.tenant.text), SLICE_ARG(target->key));
    cp_diag_expect(c->diags, diag, "a RateLimit of the platform, by: [tenant]");
    return true;
}

struct err cp_compile_limits(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_RATE_LIMIT];
    struct row *rows = NULL;
    size_t count = 0;
    TRY(arena_calloc(c->arena, all->count + 1, sizeof(struct row), (void **)&rows));
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_rate_limit *limit = (const struct cp_rate_limit *)all->items[i];
        if (!reaches_others(c, limit) && cp_is_whole(&limit->meta)) {
            rows[count].limit = limit;
            TRY(cp_target_id(c->arena, cp_target_of(&limit->target), &rows[count].target));
            count++;
        }
    }
    qsort(rows, count, sizeof(struct row), row_cmp);
    for (size_t first = 0, end = 0; first < count; first = end) {
        while (end < count && slice_eq(rows[end].target, rows[first].target)) {
            end++;
        }
        TRY(compile_target(c, rows + first, end - first));
    }
    return OK;
}
