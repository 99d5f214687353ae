/* operator: the lane's table, and how a request finds its cluster. What comes then is call.c. */
#include "dataplane/operator/operator.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "dataplane/operator/budget.h"
#include "dataplane/operator/call.h"
#include "dataplane/operator/latency.h"
#include "dataplane/operator/mirror.h"
#include "dataplane/operator/upstream.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

static void stop(void *state)
{
    struct op_state *s = state;
    op_mirrors_free(s->mirrors); /* first: what they copy is under way at upstreams. */
    op_budgets_free(s->budgets);
    op_latencies_free(s->latencies);
    op_upstreams_free(s->upstreams);
    free(s);
}

static MUST_CHECK struct err fill(const struct dp_lane_host *host, struct op_state *state)
{
    state->h2 = host->h2;
    TRY(op_upstreams_new(host, &state->upstreams));
    TRY(op_budgets_new(host, &state->budgets));
    TRY(op_latencies_new(&state->latencies));
    state->replays = metrics_plain(dp_request_metrics_set(host->metrics), DP_METRIC_REPLAYS);
    return op_mirrors_new(host, state->upstreams, &state->mirrors);
}

static struct err start(const struct dp_lane_host *host, void **out_state)
{
    struct op_state *state = calloc(1, sizeof(*state));
    struct err e = state == NULL ? FAIL(E_NO_MEMORY) : fill(host, state);
    if (!err_ok(e) && state != NULL) {
        stop(state);
    }
    if (err_ok(e)) {
        *out_state = state;
    }
    return e;
}

static void look(void *state, bool trust)
{
    op_upstreams_look(((struct op_state *)state)->upstreams, trust);
}

static void measure(void *state)
{
    op_upstreams_measure(((struct op_state *)state)->upstreams);
}

/* A call in a pause ends when that does. */
static void drain(void *state)
{
    ((struct op_state *)state)->draining = true;
}

/* The same draw gives the same cluster when a request is routed again. */
static struct slice by_weight(const struct dp_route *route, uint64_t draw)
{
    uint64_t at = draw % route->weight_sum;
    size_t i = 0;
    while (at >= route->targets[i].weight) {
        at -= route->targets[i++].weight;
    }
    CHECK(i < route->target_count);
    return route->targets[i].cluster;
}

/* A stream whose caller sets no deadline, where neither the Route does: it is bounded by silence.
 */
static bool lasts(const struct dp_request *rq)
{
    return rq->in.timeout.size == 0 && rq->in.timeout_ms.size == 0 && rq->route_timeout_ms == 0 &&
           rq->transport->idle_timeout_ms != 0 &&
           dp_model_method_streams(rq->model, rq->cluster, rq->in.path);
}

static struct err route(struct dp_request *rq)
{
    const struct dp_route_query query = {.host = rq->in.host,
                                         .path = rq->in.path,
                                         .method = rq->in.http_method,
                                         .tenant = rq->caller->tenant,
                                         .header = rq->in.header,
                                         .ctx = rq->in.header_ctx};
    const struct dp_route *found = dp_model_route(rq->model, &query);
    if (found == NULL) {
        return FAIL(E_NO_ROUTE);
    }
    if (rq->in.origin.size > 0 &&
        !dp_cors_allows(found->cors, rq->in.origin, rq->in.spiffe.size > 0)) {
        return FAIL(E_ORIGIN_DENIED); /* another route of this path lets it ask, not this one. */
    }
    const struct dp_cluster *cluster = dp_model_cluster(rq->model, by_weight(found, rq->draw));
    CHECK(cluster != NULL); /* the model was judged by it. */
    rq->route = found;
    rq->cluster = cluster;
    rq->target = &cluster->target;
    rq->transport = dp_model_transport(rq->model, found->transport.size > 0 ? found->transport
                                                                            : cluster->transport);
    rq->route_timeout_ms = found->timeout_ms;
    rq->method = rq->in.path;
    rq->verb = DP_VERB_CALL;
    rq->unbounded = lasts(rq);
    return OK;
}

const struct dp_lane dp_operator_lane = {.id = DP_LANE_OPERATOR,
                                         .name = "operator",
                                         .start = start,
                                         .stop = stop,
                                         .route = route,
                                         .forward = op_call_start,
                                         .abort = op_call_abort,
                                         .look = look,
                                         .measure = measure,
                                         .drain = drain};
