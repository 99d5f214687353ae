/* front_http1: see front_http1.h. */
#include "dataplane/runtime/front_http1.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/net/http1_server.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/input.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/worker.h"

/* ---- the front's table ---- */

static size_t refusal_fields(const struct dp_request *rq, char version[24], char retry[24],
                             struct http1_field *out)
{
    size_t n = 0;
    out[n++] = (struct http1_field){SLICE_LIT("content-type"), SLICE_LIT("application/json")};
    out[n++] = (struct http1_field){SLICE_LIT("x-trilane-code"), slice_str(err_name(rq->err.code))};
    if (rq->err.code == E_POLICY_DENIED && rq->verdict.rule.size > 0) {
        out[n++] = (struct http1_field){SLICE_LIT("x-trilane-rule"), rq->verdict.rule};
    }
    if (rq->model != NULL) {
        (void)snprintf(version, 24, "%" PRIu64, dp_model_version(rq->model));
        out[n++] = (struct http1_field){SLICE_LIT("x-trilane-version"), slice_str(version)};
    }
    if (rq->err.code == E_RATE_LIMITED) {
        (void)snprintf(retry, 24, "%" PRIu64, rq->retry_ns / 1000000000 + 1);
        out[n++] = (struct http1_field){SLICE_LIT("retry-after"), slice_str(retry)};
    }
    return n;
}

static void refuse(struct dp_request *rq)
{
    CHECK(rq->exchange != NULL);
    char version[24];
    char retry[24];
    struct http1_field fields[5];
    size_t count = refusal_fields(rq, version, retry, fields);
    char body[512];
    int size = snprintf(body, sizeof(body), "{\"code\":\"%s\",\"message\":\"%s\",\"fix\":\"%s\"}\n",
                        err_name(rq->err.code), err_text(rq->err.code), err_fix(rq->err.code));
    CHECK(size > 0 && (size_t)size < sizeof(body));
    unsigned status = (unsigned)err_http_status(rq->err.code);
    rq->http_status = (int)status;
    if (!err_ok(http1_respond(rq->exchange, status, fields, count, slice_of(body, (size_t)size)))) {
        http1_exchange_abort(rq->exchange);
    }
}

static void ended(struct dp_request *rq)
{
    if (rq->exchange != NULL) {
        http1_exchange_set_user(rq->exchange, /* user= */ NULL);
    }
    rq->exchange = NULL;
}

/* A tunnel is known by its request alone: that is what a drain waits for and ends. */
static void taken(struct dp_request *rq)
{
    rq->exchange = NULL;
    dp_caller_conn_free(rq->front_state);
}

static const struct dp_front front = {
    .name = "http", .refuse = refuse, .ended = ended, .taken = taken};

/* ---- exchanges ---- */

static void answer_error(struct http1_exchange *x, struct err why)
{
    if (!err_ok(http1_respond_error(x, why))) {
        http1_exchange_abort(x);
    }
}

static void head(struct http1_exchange *x, void *ctx)
{
    struct dp_caller_conn *c = ctx;
    struct dp_worker *w = c->port->worker;
    const struct dp_lane *lane = w->config->lanes[DP_LANE_PROXY];
    if (!dp_port_is_proxy(c->port->id) || lane == NULL) {
        answer_error(x, FAIL(E_NO_ROUTE));
        return;
    }
    struct dp_request *rq = NULL;
    struct err e = dp_request_start(&w->pool, &front, c, lane, &rq);
    if (!err_ok(e)) {
        answer_error(x, e);
        return;
    }
    rq->exchange = x;
    http1_exchange_set_user(x, rq);
    e = dp_input_http1(rq, http1_exchange_head(x), c);
    if (!err_ok(e)) {
        dp_request_refuse(rq, e);
        return;
    }
    (void)dp_request_run(rq);
}

static struct dp_request *request_of(struct http1_exchange *x)
{
    struct dp_request *rq = http1_exchange_user(x);
    return rq == NULL || rq->exchange_events == NULL ? NULL : rq;
}

static void body(struct http1_exchange *x, void *ctx, struct slice bytes)
{
    (void)ctx;
    struct dp_request *rq = request_of(x);
    if (rq != NULL && rq->exchange_events->body != NULL) {
        rq->exchange_events->body(rq, bytes);
    }
}

static void end(struct http1_exchange *x, void *ctx)
{
    (void)ctx;
    struct dp_request *rq = request_of(x);
    if (rq != NULL && rq->exchange_events->end != NULL) {
        rq->exchange_events->end(rq);
    }
}

static void drained(struct http1_exchange *x, void *ctx)
{
    (void)ctx;
    struct dp_request *rq = request_of(x);
    if (rq != NULL && rq->exchange_events->drained != NULL) {
        rq->exchange_events->drained(rq);
    }
}

/* The exchange is over before the request: its caller has left. */
static void gone(struct http1_exchange *x, void *ctx, struct err why)
{
    (void)ctx;
    (void)why;
    struct dp_request *rq = http1_exchange_user(x);
    if (rq != NULL) {
        dp_request_cancel(rq);
    }
}

static const struct http1_server_handler handler = {
    .head = head, .body = body, .end = end, .drained = drained, .gone = gone};

static void closed(void *ctx)
{
    dp_caller_conn_free(ctx);
}

struct err dp_front_http1_start(struct dp_caller_conn *c, struct slice first)
{
    struct http1_server_options options = {.handler = &handler, .ctx = c, .closed = closed};
    TRY(http1_server_start(c->net, &options, first, &c->http1));
    c->net = NULL;
    return OK;
}
