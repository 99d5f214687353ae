/* limit_part: the limits of a target, from their part. */
#include <stdlib.h>

#include "common/base/map.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/request/limit_impl.h"

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

static MUST_CHECK struct err copy_rate(const part_limit *from, struct dp_limit *to)
{
    to->kind = DP_LIMIT_OF_RATE;
    to->cost = from->period_ns;
    if (from->burst == 0 ||
        __builtin_mul_overflow(from->period_ns, (uint64_t)from->burst, &to->budget) ||
        to->budget > LIMIT_BUDGET_MAX_NS) {
        return FAIL(E_PART_MALFORMED);
    }
    return from->shared ? dp_budget_hold(to->id, to->cost, to->budget, &to->shared) : OK;
}

/* A sixty-fourth, four at least, so that few requests wait for a disk. */
static uint32_t reserve_of(uint64_t quota)
{
    enum { PARTS = 64, LEAST = 4, MOST = 1 << 20 };
    uint64_t part = quota / PARTS < LEAST ? LEAST : quota / PARTS;
    part = part < MOST ? part : MOST;
    return (uint32_t)(part < quota ? part : quota);
}

static MUST_CHECK struct err copy_quota(const part_limit *from, struct dp_limit *to)
{
    if (from->window < TRILANE__PARTS__V1__LIMIT_WINDOW__LIMIT_WINDOW_HOUR ||
        from->window > TRILANE__PARTS__V1__LIMIT_WINDOW__LIMIT_WINDOW_MONTH ||
        from->quota >> DP_QUOTA_COUNT_BITS != 0) {
        return FAIL(E_PART_MALFORMED);
    }
    to->kind = DP_LIMIT_OF_QUOTA;
    to->budget = from->quota;
    to->window = (enum dp_quota_unit)from->window;
    to->reserve = reserve_of(from->quota);
    return OK;
}

static MUST_CHECK struct err copy_limit(const part_limit *from, struct dp_limit *to)
{
    uint32_t known =
        DP_LIMIT_BY(CALLER) | DP_LIMIT_BY(TENANT) | DP_LIMIT_BY(METHOD) | DP_LIMIT_BY(SERVICE);
    int measures = (from->period_ns != 0) + (from->concurrency != 0) + (from->quota != 0);
    bool shared_else = from->shared && from->period_ns == 0;
    if (from->id[0] == '\0' || measures != 1 || shared_else || (from->by & ~known) != 0 ||
        from->n_headers > DP_LIMIT_HEADERS_MAX ||
        from->on_unknown > TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < from->n_headers; i++) {
        if (from->headers[i][0] == '\0') {
            return FAIL(E_PART_MALFORMED);
        }
    }
    *to = (struct dp_limit){.id = slice_str(from->id),
                            .hash = map_hash(slice_str(from->id)),
                            .methods = from->methods,
                            .method_count = from->n_methods,
                            .headers = from->headers,
                            .header_count = from->n_headers,
                            .by = from->by,
                            .keyed = from->by != 0 || from->n_headers > 0,
                            .on_unknown = from->on_unknown,
                            .kind = DP_LIMIT_OF_CONCURRENCY,
                            .cost = 1,
                            .budget = from->concurrency};
    return from->period_ns != 0 ? copy_rate(from, to)
           : from->quota != 0   ? copy_quota(from, to)
                                : OK;
}

static MUST_CHECK struct err copy_limits(const part_target *from, struct dp_limit_target *to)
{
    size_t held = 0;
    for (size_t i = 0; i < from->n_limits; i++) {
        TRY(copy_limit(from->limits[i], &to->limits[i]));
        held += to->limits[i].kind == DP_LIMIT_OF_CONCURRENCY;
        to->calendar |= to->limits[i].kind == DP_LIMIT_OF_QUOTA;
    }
    return held <= DP_LIMIT_HELD_MAX ? OK : FAIL(E_PART_MALFORMED);
}

static void drop_budgets(struct dp_limit_target *target, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dp_budget_drop(target->limits[i].shared);
    }
}

struct err dp_limit_build(struct slice part, struct dp_limit_target **out)
{
    ProtobufCMessage *message = NULL;
    const struct proto_rules rules = {.memory_max = part.size * PART_MEMORY_FACTOR,
                                      .malformed = E_PART_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    TRY(proto_decode(&trilane__parts__v1__limit_target__descriptor, part, &rules, &message));
    const part_target *from = (const part_target *)message;
    struct err err;
    struct dp_limit_target *t = NULL;
    if (from->target[0] == '\0' || from->n_limits == 0 || from->n_limits > DP_LIMITS_MAX) {
        err = FAIL(E_PART_MALFORMED);
    } else {
        t = calloc(1, sizeof(*t) + from->n_limits * sizeof(t->limits[0]));
        err = t == NULL ? FAIL(E_NO_MEMORY) : copy_limits(from, t);
    }
    if (!err_ok(err)) {
        drop_budgets(t, t == NULL ? 0 : from->n_limits);
        free(t);
        proto_free(message);
        return err;
    }
    t->part = message;
    t->id = slice_str(from->target);
    t->limit_count = from->n_limits;
    *out = t;
    return OK;
}

void dp_limit_free(struct dp_limit_target *target)
{
    if (target != NULL) {
        drop_budgets(target, target->limit_count);
        proto_free(target->part);
        free(target);
    }
}

struct slice dp_limit_target_id(const struct dp_limit_target *target)
{
    return target->id;
}
