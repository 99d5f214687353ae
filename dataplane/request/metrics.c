/* metrics: see metrics.h. */
#include "dataplane/request/metrics.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/map.h"
#include "dataplane/request/request.h"

const struct metrics_family dp_metric_families[DP_METRIC_COUNT] = {
#define X(id, name, kind, series, scale, help, ...)                                                \
    [DP_METRIC_##id] = {name, help, METRICS_##kind, {__VA_ARGS__}, series, scale},
    DP_METRICS(X)
#undef X
};

enum {
    LATENCY_PLACES = 1024,
    LIMITED_PLACES = 256,
    LANES_MAX = DP_LANE_COUNT + 1, /* reflection's is one more. */
    TIMED_ONE_IN = 256             /* requests: then the clocks cost them nothing. */
};

/* Which series a call belongs to, so that the set's lock is taken once for each. */
struct latency_place {
    const struct dp_caller *caller; /* NULL: free. */
    const struct dp_target *target;
    uint64_t method; /* hash. */
    uint64_t epoch;  /* of all places, when it was put; another one: forgotten. */
    metrics_id id;
};

/* Which series a refusal of a limit belongs to: there are most of them when there is least time. */
struct limited_place {
    uint64_t limit; /* hash. */
    enum dp_limit_why why;
    metrics_id id; /* 0: free. */
};

/* Of turns of the loop, by either clock. */
struct turn_series {
    metrics_id mono;
    metrics_id thread;
};

struct dp_request_metrics {
    struct metrics *set;
    struct metrics_shard *shard;
    metrics_id open;
    metrics_id decisions[2]; /* by cached. */
    metrics_id decision_time;
    metrics_id shadow[2];    /* by what it would do: deny, allow. */
    metrics_id fast[2];      /* by verdict. */
    metrics_id redecided[2]; /* by going on. */
    struct turn_series swap_turns;
    struct turn_series request_turns;
    metrics_id queue_delay;
    uint32_t begun;   /* requests; wraps. */
    uint32_t decided; /* decisions; wraps. */
    uint64_t epoch;
    struct lane_series {
        const struct dp_lane *lane; /* NULL: free. */
        metrics_id codes[E_COUNT];  /* 0: not made yet. */
        metrics_id request_bytes;
        metrics_id response_bytes;
    } lanes[LANES_MAX];
    struct latency_place places[LATENCY_PLACES];
    struct limited_place limited[LIMITED_PLACES];
};

static metrics_id one_label(struct metrics *set, enum dp_metric metric, const char *value)
{
    return metrics_series(set, metric, (const struct slice[]){slice_str(value)});
}

struct err dp_request_metrics_new(struct metrics *metrics, struct metrics_shard *shard,
                                  struct dp_request_metrics **out)
{
    struct dp_request_metrics *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    m->set = metrics;
    m->shard = shard;
    m->open = metrics_plain(metrics, DP_METRIC_REQUESTS_OPEN);
    m->decisions[0] = one_label(metrics, DP_METRIC_DECISIONS, "false");
    m->decisions[1] = one_label(metrics, DP_METRIC_DECISIONS, "true");
    m->decision_time = metrics_plain(metrics, DP_METRIC_DECISION_TIME);
    m->shadow[0] = one_label(metrics, DP_METRIC_SHADOW, "deny");
    m->shadow[1] = one_label(metrics, DP_METRIC_SHADOW, "allow");
    m->fast[0] = one_label(metrics, DP_METRIC_GUARD_DECISIONS, "false");
    m->fast[1] = one_label(metrics, DP_METRIC_GUARD_DECISIONS, "true");
    m->redecided[0] = one_label(metrics, DP_METRIC_REDECIDED, "ended");
    m->redecided[1] = one_label(metrics, DP_METRIC_REDECIDED, "goes_on");
    m->swap_turns.mono = metrics_plain(metrics, DP_METRIC_SNAPSHOT_TURN);
    m->swap_turns.thread = metrics_plain(metrics, DP_METRIC_SNAPSHOT_TURN_CPU);
    m->queue_delay = metrics_plain(metrics, DP_METRIC_QUEUE_DELAY);
    m->request_turns.mono = metrics_plain(metrics, DP_METRIC_REQUEST_TURN);
    m->request_turns.thread = metrics_plain(metrics, DP_METRIC_REQUEST_TURN_CPU);
    *out = m;
    return OK;
}

void dp_request_metrics_free(struct dp_request_metrics *m)
{
    free(m);
}

/* The series of a lane. */
static struct lane_series *lane_series(struct dp_request_metrics *m, const struct dp_lane *lane)
{
    size_t at = 0;
    while (m->lanes[at].lane != NULL && m->lanes[at].lane != lane) {
        at++;
        CHECK(at < LANES_MAX);
    }
    struct lane_series *series = &m->lanes[at];
    if (series->lane == NULL) {
        series->lane = lane;
        series->request_bytes = one_label(m->set, DP_METRIC_REQUEST_BYTES, lane->name);
        series->response_bytes = one_label(m->set, DP_METRIC_RESPONSE_BYTES, lane->name);
    }
    return series;
}

/* The subjects of an issuer are one series: there may be any number of them, and they come and go.
 */
static metrics_id latency_series(struct dp_request_metrics *m, const struct dp_request *rq)
{
    const struct dp_caller *caller =
        rq->caller->counted_as == NULL ? rq->caller : rq->caller->counted_as;
    uint64_t method = map_hash(rq->method);
    uint64_t place = method ^ ((uintptr_t)caller >> 4) ^ ((uintptr_t)rq->target >> 6);
    struct latency_place *at = &m->places[place % LATENCY_PLACES];
    if (at->caller != caller || at->target != rq->target || at->method != method ||
        at->epoch != m->epoch) {
        const struct slice values[] = {rq->method, caller->id, rq->target->id};
        *at = (struct latency_place){.caller = caller,
                                     .target = rq->target,
                                     .method = method,
                                     .epoch = m->epoch,
                                     .id = metrics_series(m->set, DP_METRIC_RPC_LATENCY, values)};
    }
    return at->id;
}

void dp_request_metrics_add(struct dp_request_metrics *m, const struct dp_request *rq)
{
    struct lane_series *series = lane_series(m, rq->lane);
    if (series->codes[rq->err.code] == 0) {
        const struct slice values[] = {slice_str(rq->lane->name),
                                       slice_str(err_name(rq->err.code))};
        series->codes[rq->err.code] = metrics_series(m->set, DP_METRIC_REQUESTS, values);
    }
    metrics_add(m->shard, series->codes[rq->err.code], 1);
    metrics_add(m->shard, series->request_bytes, (int64_t)rq->request_bytes);
    metrics_add(m->shard, series->response_bytes, (int64_t)rq->response_bytes);
    if (rq->verb == DP_VERB_CALL && rq->verdict.allow && rq->target != NULL) {
        uint64_t ns = net_loop_now_ns(rq->pool->loop) - rq->started_ns;
        metrics_record(m->shard, latency_series(m, rq), ns / 1000);
    }
}

void dp_request_metrics_clear(struct dp_request_metrics *m)
{
    m->epoch++;
}

struct dp_metrics_turn dp_request_metrics_turn_begin(void)
{
    return (struct dp_metrics_turn){.mono_ns = clock_mono_ns(), .thread_ns = clock_thread_ns()};
}

static void record(struct dp_request_metrics *m, const struct turn_series *series,
                   const struct dp_metrics_turn *turn)
{
    metrics_record(m->shard, series->thread, clock_thread_ns() - turn->thread_ns);
    metrics_record(m->shard, series->mono, clock_mono_ns() - turn->mono_ns);
}

void dp_request_metrics_turn_end(struct dp_request_metrics *m, const struct dp_metrics_turn *turn)
{
    record(m, &m->swap_turns, turn);
}

bool dp_request_metrics_times(struct dp_request_metrics *m)
{
    return ++m->begun % TIMED_ONE_IN == 0; /* the first one meets a cold node. */
}

void dp_request_metrics_took(struct dp_request_metrics *m, const struct dp_metrics_turn *turn)
{
    record(m, &m->request_turns, turn);
}

void dp_request_metrics_open(struct dp_request_metrics *m, int by)
{
    metrics_add(m->shard, m->open, by);
}

bool dp_request_metrics_times_decision(struct dp_request_metrics *m)
{
    return ++m->decided % TIMED_ONE_IN == 0;
}

void dp_request_metrics_decision(struct dp_request_metrics *m, const struct dp_verdict *verdict,
                                 uint64_t took_ns)
{
    metrics_add(m->shard, m->decisions[verdict->cached], 1);
    if (took_ns > 0) {
        metrics_record(m->shard, m->decision_time, took_ns);
    }
    if (verdict->fast) {
        metrics_add(m->shard, m->fast[verdict->allow], 1);
    }
    if (verdict->shadow.size > 0) {
        metrics_add(m->shard, m->shadow[!verdict->allow], 1);
    }
}

void dp_request_metrics_redecided(struct dp_request_metrics *m, bool goes_on)
{
    metrics_add(m->shard, m->redecided[goes_on], 1);
}

void dp_request_metrics_waited(struct dp_request_metrics *m, uint64_t delay_ns)
{
    metrics_record(m->shard, m->queue_delay, delay_ns);
}

void dp_request_metrics_limited(struct dp_request_metrics *m, struct slice limit,
                                enum dp_limit_why why)
{
    static const char *const labels[DP_LIMIT_WHY_COUNT] = {
#define X(name, label) [DP_LIMIT_##name] = label,
        DP_LIMIT_WHY_LIST(X)
#undef X
    };
    uint64_t hash = map_hash(limit);
    struct limited_place *at = &m->limited[(hash + why) % LIMITED_PLACES];
    if (at->id == 0 || at->limit != hash || at->why != why) {
        const struct slice values[] = {limit, slice_str(labels[why])};
        *at =
            (struct limited_place){.limit = hash,
                                   .why = why,
                                   .id = metrics_series(m->set, DP_METRIC_LIMIT_REFUSALS, values)};
    }
    metrics_add(m->shard, at->id, 1);
}

struct metrics *dp_request_metrics_set(struct dp_request_metrics *m)
{
    return m->set;
}

struct metrics_shard *dp_request_metrics_shard(struct dp_request_metrics *m)
{
    return m->shard;
}

void dp_metrics_derive(struct metrics *metrics, struct metrics_shard *shard)
{
    int64_t missed = metrics_value(metrics, one_label(metrics, DP_METRIC_DECISIONS, "false"));
    int64_t hit = metrics_value(metrics, one_label(metrics, DP_METRIC_DECISIONS, "true"));
    int64_t ratio = missed + hit == 0 ? 0 : hit * 1000000 / (missed + hit);
    metrics_set(shard, metrics_plain(metrics, DP_METRIC_DECISION_HIT_RATIO), ratio);
}
