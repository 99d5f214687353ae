/* budget: see budget.h. */
#include "dataplane/operator/budget.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/net/loop.h"
#include "common/net/timer.h"
#include "dataplane/request/metrics.h"

enum {
    UNUSED_MS = 60000,
    SWEEP_MS = 60000,
    SWEEP_BATCH = 256, /* budgets that a turn looks at. */
    THOUSAND = 1000,
    DENIALS_MAX = 16 /* behind them nothing is left. */
};

struct op_budgets {
    const struct dp_lane_host *host;
    struct map by_id;
    struct op_budget *all;       /* the same as a list. */
    struct op_budget **sweep_at; /* where the sweep goes on; NULL: it begins anew. */
    struct net_timer sweep_timer;
};

/* ---- all of a worker ---- */

static uint64_t now_of(const struct op_budgets *all)
{
    return net_loop_now_ns(all->host->loop);
}

static void budget_free(struct op_budget *budget)
{
    slice_free(budget->id);
    free(budget);
}

static bool is_unused(const struct op_budget *budget, uint64_t now_ns)
{
    return budget->open == 0 && now_ns - budget->used_ns >= UNUSED_MS * UINT64_C(1000000);
}

static void sweep(struct net_timer *timer, void *ctx)
{
    struct op_budgets *all = ctx;
    uint64_t now_ns = now_of(all);
    all->sweep_at = all->sweep_at == NULL ? &all->all : all->sweep_at;
    for (size_t i = 0; i < SWEEP_BATCH && *all->sweep_at != NULL; i++) {
        struct op_budget *budget = *all->sweep_at;
        if (!is_unused(budget, now_ns)) {
            all->sweep_at = &budget->next;
            continue;
        }
        *all->sweep_at = budget->next;
        (void)map_remove(&all->by_id, budget->id);
        budget_free(budget);
    }
    bool done = *all->sweep_at == NULL;
    if (done) {
        all->sweep_at = NULL;
    }
    net_timer_arm(all->host->loop, timer, done ? SWEEP_MS : 1);
}

struct err op_budgets_new(const struct dp_lane_host *host, struct op_budgets **out)
{
    struct op_budgets *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    all->host = host;
    net_timer_init(&all->sweep_timer, sweep, all);
    net_timer_arm(host->loop, &all->sweep_timer, SWEEP_MS);
    *out = all;
    return OK;
}

void op_budgets_free(struct op_budgets *all)
{
    if (all == NULL) {
        return;
    }
    net_timer_cancel(all->host->loop, &all->sweep_timer);
    while (all->all != NULL) {
        struct op_budget *budget = all->all;
        all->all = budget->next;
        budget_free(budget);
    }
    map_free(&all->by_id);
    free(all);
}

size_t op_budgets_count(const struct op_budgets *all)
{
    return all->by_id.count;
}

static MUST_CHECK struct err make(struct op_budgets *all, const struct dp_cluster *cluster,
                                  struct op_budget **out)
{
    struct op_budget *budget = calloc(1, sizeof(*budget));
    if (budget == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    budget->all = all;
    op_budget_init(budget, &cluster->retry_budget);
    budget->id = slice_of(slice_dup(cluster->target.id), cluster->target.id.size);
    struct err e = map_put(&all->by_id, budget->id, budget, /* out_old= */ NULL);
    if (!err_ok(e)) {
        budget_free(budget);
        return e;
    }
    budget->next = all->all;
    all->all = budget;
    *out = budget;
    return OK;
}

struct err op_budgets_open(struct op_budgets *all, const struct dp_cluster *cluster,
                           struct op_budget **out)
{
    struct op_budget *budget = map_get(&all->by_id, cluster->target.id);
    if (budget == NULL) {
        TRY(make(all, cluster, &budget));
    }
    op_budget_enter(budget, &cluster->retry_budget);
    budget->used_ns = now_of(all);
    *out = budget;
    return OK;
}

void op_budget_close(struct op_budget *budget)
{
    CHECK(budget->open > 0);
    budget->open--;
    budget->used_ns = now_of(budget->all);
}

/* ---- one ---- */

void op_budget_init(struct op_budget *budget, const struct dp_retry_budget *rules)
{
    budget->rules = *rules;
    budget->tokens = rules->max_tokens * THOUSAND;
    budget->hedges = OP_HEDGES_SAVED * THOUSAND;
}

static uint32_t at_most(uint32_t value, uint32_t max)
{
    return value < max ? value : max;
}

void op_budget_enter(struct op_budget *budget, const struct dp_retry_budget *rules)
{
    if (budget->rules.max_tokens != rules->max_tokens) { /* as full as it was. */
        budget->tokens =
            (uint32_t)((uint64_t)budget->tokens * rules->max_tokens / budget->rules.max_tokens);
    }
    budget->rules = *rules;
    budget->hedges = at_most(budget->hedges + rules->hedges_per_mille, OP_HEDGES_SAVED * THOUSAND);
    budget->open++;
}

void op_budget_note(struct op_budget *budget, bool succeeded)
{
    uint32_t max = budget->rules.max_tokens * THOUSAND;
    if (succeeded) {
        budget->tokens = at_most(budget->tokens + budget->rules.ratio_per_mille, max);
    } else {
        budget->tokens -= at_most(budget->tokens, THOUSAND);
    }
}

bool op_budget_has_tokens(const struct op_budget *budget)
{
    return budget->tokens > budget->rules.max_tokens * THOUSAND / 2;
}

/* What Envoy calls a retry budget: those in flight in relation to all. */
static bool has_room(const struct op_budget *budget)
{
    uint64_t share = (uint64_t)budget->open * budget->rules.active_percent / 100;
    return budget->further <
           (share > budget->rules.min_concurrent ? share : budget->rules.min_concurrent);
}

bool op_budget_take_retry(struct op_budget *budget, enum op_count *out_why)
{
    if (!op_budget_has_tokens(budget)) {
        *out_why = OP_COUNT_DENIED_TOKENS;
        return false;
    }
    if (!has_room(budget)) {
        *out_why = OP_COUNT_DENIED_CONCURRENCY;
        return false;
    }
    budget->further++;
    return true;
}

bool op_budget_take_hedge(struct op_budget *budget, uint32_t denials, enum op_count *out_why)
{
    uint32_t reserve = denials < DENIALS_MAX ? (OP_HEDGES_SAVED * THOUSAND / 2U) >> denials : 0;
    if (budget->hedges < reserve + THOUSAND) {
        *out_why = OP_COUNT_DENIED_SHARE;
        return false;
    }
    if (!op_budget_take_retry(budget, out_why)) {
        return false;
    }
    budget->hedges -= THOUSAND;
    return true;
}

void op_budget_give(struct op_budget *budget, uint32_t count)
{
    CHECK(count <= budget->further);
    budget->further -= count;
}

/* ---- counting ---- */

static const struct {
    enum dp_metric metric;
    const char *label;
} count_rows[OP_COUNT_COUNT] = {
    [OP_COUNT_RETRY] = {DP_METRIC_ATTEMPTS, "retry"},
    [OP_COUNT_HEDGE] = {DP_METRIC_ATTEMPTS, "hedge"},
    [OP_COUNT_DENIED_TOKENS] = {DP_METRIC_ATTEMPTS_DENIED, "tokens"},
    [OP_COUNT_DENIED_CONCURRENCY] = {DP_METRIC_ATTEMPTS_DENIED, "concurrency"},
    [OP_COUNT_DENIED_SHARE] = {DP_METRIC_ATTEMPTS_DENIED, "share"},
    [OP_COUNT_DENIED_PUSHBACK] = {DP_METRIC_ATTEMPTS_DENIED, "pushback"},
    [OP_COUNT_WON] = {DP_METRIC_ATTEMPTS, "hedge-won"},
};

void op_budget_count(struct op_budget *budget, enum op_count what)
{
    struct dp_request_metrics *metrics = budget->all->host->metrics;
    if (budget->counts[what] == 0) {
        const struct slice values[] = {budget->id, slice_str(count_rows[what].label)};
        budget->counts[what] =
            metrics_series(dp_request_metrics_set(metrics), count_rows[what].metric, values);
    }
    metrics_add(dp_request_metrics_shard(metrics), budget->counts[what], 1);
}
