/* operator: the lane's table, and how a request finds its cluster. What comes then is call.c. */
#include "dataplane/operator/operator.h"

#include "common/base/check.h"
#include "dataplane/operator/call.h"
#include "dataplane/operator/upstream.h"
#include "dataplane/request/request.h"

static struct err start(const struct dp_lane_host *host, void **out_state)
{
    struct op_upstreams *ups = NULL;
    TRY(op_upstreams_new(host, &ups));
    *out_state = ups;
    return OK;
}

static void stop(void *state)
{
    op_upstreams_free(state);
}

static void look(void *state, bool trust)
{
    op_upstreams_look(state, trust);
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
    return OK;
}

const struct dp_lane dp_operator_lane = {.id = DP_LANE_OPERATOR,
                                         .name = "operator",
                                         .start = start,
                                         .stop = stop,
                                         .route = route,
                                         .forward = op_call_start,
                                         .abort = op_call_abort,
                                         .look = look};
