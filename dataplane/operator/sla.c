/* sla: see sla.h. */
#include "dataplane/operator/sla.h"

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/net/loop.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/degraded.h"
#include "dataplane/request/metrics.h"

enum {
    JUDGE_BATCH = 512, /* slots that one turn looks at. */
    LEAST_SHARE = OP_WHOLE_SHARE / 8,
    ROUNDS_OF_DOUBT = 6, /* with too few answers, until the endpoint is asked for more. */
};

/*
 * Tells the node that an endpoint of the service is degraded, or that none is. What finds no room
 * among the node's is told again when the set is judged next.
 */
static void tell(struct op_set *set)
{
    struct dp_degraded *node = set->ups->host->degraded;
    bool is = set->degraded > 0;
    if (node == NULL || is == set->says_degraded) {
        return;
    }
    if (is) {
        set->says_degraded = err_ok(dp_degraded_add(node, set->cluster));
    } else {
        dp_degraded_remove(node, set->cluster);
        set->says_degraded = false;
    }
}

static void degraded_moved(struct op_set *set, int by)
{
    CHECK(by > 0 || set->degraded > 0);
    set->degraded = by > 0 ? set->degraded + 1 : set->degraded - 1;
    metrics_set(dp_request_metrics_shard(set->ups->host->metrics), set->metrics.degraded_now,
                (int64_t)set->degraded);
}

static void say(const struct op_endpoint *e, const char *what)
{
    LOG(LOG_INFO, "operator", what, LOG_STR("endpoint", e->text),
        LOG_SLICE("cluster", e->set->cluster), LOG_U64("late", e->pace.late),
        LOG_U64("answers", e->pace.answers));
}

void op_sla_note(struct op_endpoint *e, const struct op_outcome *how)
{
    uint64_t most_ns = e->set->sla.latency_ms * UINT64_C(1000000);
    uint64_t took_ns = how->first_ns != 0 ? how->first_ns : how->took_ns;
    if (most_ns == 0 || how->end == OP_END_FAILED) {
        return; /* how soon it fails is the outlier detection's. */
    }
    if (how->end == OP_END_TIMEOUT && how->hurried && took_ns <= most_ns) {
        return; /* it had no time to be late. */
    }
    e->pace.answers++;
    e->pace.late += how->end == OP_END_TIMEOUT || took_ns > most_ns;
}

/* ---- judging ---- */

static void take_half(struct op_endpoint *e)
{
    struct op_pace *pace = &e->pace;
    if (pace->share == 0) {
        degraded_moved(e->set, 1);
        tell(e->set);
        say(e, "endpoint-degraded");
        pace->share = OP_WHOLE_SHARE;
    }
    pace->share = pace->share / 2 < LEAST_SHARE ? LEAST_SHARE : pace->share / 2;
}

static void give_back(struct op_endpoint *e)
{
    struct op_pace *pace = &e->pace;
    if (pace->share == 0) {
        return;
    }
    pace->share *= 2;
    if (pace->share >= OP_WHOLE_SHARE) {
        pace->share = 0;
        degraded_moved(e->set, -1);
        tell(e->set);
        say(e, "endpoint-in-time");
    }
}

static bool misses(const struct op_endpoint *e)
{
    uint64_t late = (uint64_t)e->pace.late * 100;
    return late > (uint64_t)e->pace.answers * (100 - e->set->sla.percentile);
}

static void judge(struct op_endpoint *e)
{
    struct op_pace *pace = &e->pace;
    bool enough = pace->answers >= e->set->sla.requests;
    if (!enough && ++pace->rounds < ROUNDS_OF_DOUBT) {
        return; /* what it has is kept for the next round. */
    }
    if (enough && misses(e)) {
        take_half(e);
    } else {
        give_back(e);
    }
    *pace = (struct op_pace){.share = pace->share};
}

void op_sla_judge(struct net_timer *timer, void *ctx)
{
    struct op_set *set = ctx;
    uint64_t next_ms = 1;
    for (size_t i = 0; i < JUDGE_BATCH && set->pace_at < set->count; i++) {
        struct op_endpoint *e = set->slots[set->pace_at++];
        if (e != NULL) {
            judge(e);
        }
    }
    if (set->pace_at >= set->count) {
        set->pace_at = 0;
        next_ms = set->sla.interval_ms;
        tell(set);
    }
    net_timer_arm(set->ups->host->loop, timer, next_ms);
}

/* ---- slots ---- */

void op_sla_begin(struct op_set *set)
{
    set->pace_at = 0;
    set->degraded = 0;
    metrics_set(dp_request_metrics_shard(set->ups->host->metrics), set->metrics.degraded_now, 0);
    if (set->sla.latency_ms == 0) {
        net_timer_cancel(set->ups->host->loop, &set->pace_timer);
        tell(set);
    } else {
        net_timer_arm(set->ups->host->loop, &set->pace_timer, set->sla.interval_ms);
    }
}

void op_sla_joined(struct op_endpoint *e)
{
    if (e->set->sla.latency_ms == 0) {
        e->pace = (struct op_pace){0};
    }
    if (e->pace.share != 0) {
        degraded_moved(e->set, 1);
    }
}

void op_sla_filled(struct op_set *set)
{
    tell(set);
}

void op_sla_end(struct op_set *set)
{
    set->degraded = 0;
    tell(set);
}
