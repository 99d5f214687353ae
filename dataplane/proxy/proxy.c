/* proxy: the lane's table, and how a request finds its Egress. What comes then is exchange.c. */
#include "dataplane/proxy/proxy.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/net/http1_server.h"
#include "common/net/tls.h"
#include "dataplane/proxy/exchange.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

static struct err start(const struct dp_lane_host *host, void **out_state)
{
    struct px_worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    w->host = host;
    w->tunnels = metrics_plain(dp_request_metrics_set(host->metrics), DP_METRIC_PROXY_TUNNELS);
    *out_state = w;
    return OK;
}

static void stop(void *state)
{
    struct px_worker *w = state;
    CHECK(w->tunnel_count == 0);
    net_tls_unref(w->outside);
    free(w);
}

/* ---- where to ---- */

/* The three forms; on this port there is nothing else. */
static struct err find_destination(struct dp_request *rq, struct px_destination *out)
{
    const struct http1_head *head = http1_exchange_head(rq->exchange);
    switch (head->form) {
    case HTTP1_ABSOLUTE:
        return px_destination_url(head->target, &rq->arena, out);
    case HTTP1_AUTHORITY:
        return px_destination_authority(head->target, &rq->arena, out);
    case HTTP1_ORIGIN:
        return slice_eq(rq->in.path, SLICE_LIT("/v1/fetch"))
                   ? px_destination_fetch(rq->in.query, &rq->arena, out)
                   : FAIL(E_NO_ROUTE);
    case HTTP1_ASTERISK:
        break;
    }
    return FAIL(E_NO_ROUTE);
}

/* Read once: a later swap decides anew about the same destination. */
static struct err find_exchange(struct dp_request *rq, struct px_exchange **out)
{
    struct px_exchange *x = rq->lane_state;
    if (x == NULL) {
        TRY(arena_calloc(&rq->arena, 1, sizeof(*x), (void **)&x));
        TRY(find_destination(rq, &x->to));
        x->rq = rq;
        x->worker = rq->pool->lanes[DP_LANE_PROXY];
        rq->lane_state = x;
    }
    x->egress = NULL;
    *out = x;
    return OK;
}

/* ---- whether the Egress allows it ---- */

static bool has_port(const struct dp_egress *egress, uint16_t port)
{
    for (size_t i = 0; i < egress->port_count; i++) {
        if (egress->ports[i] == port) {
            return true;
        }
    }
    return false;
}

/* Case tells methods apart (RFC 9110, 9.1), and not every server goes by that: it would take for
 * DELETE what passes by a rule that denies it. */
static bool is_in_capitals(struct slice method)
{
    for (size_t i = 0; i < method.size; i++) {
        if (method.ptr[i] >= 'a' && method.ptr[i] <= 'z') {
            return false;
        }
    }
    return true;
}

/* TRACE has a server send back what we wrote, credentials and all: it never goes out. */
static bool has_method(const struct dp_egress *egress, struct slice method)
{
    if (!is_in_capitals(method)) {
        return false;
    }
    if (egress->method_count == 0) {
        return !slice_eq(method, SLICE_LIT("CONNECT")) && !slice_eq(method, SLICE_LIT("TRACE"));
    }
    for (size_t i = 0; i < egress->method_count; i++) {
        if (slice_eq(egress->methods[i], method)) {
            return !slice_eq(method, SLICE_LIT("TRACE"));
        }
    }
    return false;
}

/* What goes through a tunnel has no path that we see: CONNECT has to be named instead. */
static bool has_path(const struct dp_egress *egress, const struct px_destination *to)
{
    if (egress->path_count == 0 || to->tunnel) {
        return true;
    }
    for (size_t i = 0; i < egress->path_count; i++) {
        if (px_path_below(to->path, egress->paths[i])) {
            return true;
        }
    }
    return false;
}

static struct err route(struct dp_request *rq)
{
    struct px_exchange *x = NULL;
    TRY(find_exchange(rq, &x));
    struct slice method = x->to.tunnel ? SLICE_LIT("CONNECT") : rq->in.http_method;
    const struct dp_egress *egress =
        dp_model_egress(rq->model, rq->caller->tenant, x->to.host, x->to.port);
    if (egress == NULL) {
        return FAIL(E_EGRESS_UNKNOWN);
    }
    rq->target = &egress->target;
    rq->method = method;
    if (!has_port(egress, x->to.port) || !has_method(egress, method) || !has_path(egress, &x->to)) {
        return FAIL(E_EGRESS_METHOD);
    }
    x->egress = egress;
    rq->transport = dp_model_transport(rq->model, egress->transport);
    rq->verb = DP_VERB_FETCH;
    rq->unbounded = x->to.tunnel;
    if (x->addr_next == 0) {
        return OK;
    }
    /* After a swap: what was dialled must be allowed by the new Egress, too. */
    TRY(px_exchange_judge(x, &x->addrs[x->addr_next - 1]));
    return px_exchange_judge_peer(x);
}

const struct dp_lane dp_proxy_lane = {.id = DP_LANE_PROXY,
                                      .name = "proxy",
                                      .start = start,
                                      .stop = stop,
                                      .route = route,
                                      .forward = px_exchange_start,
                                      .abort = px_exchange_abort};
