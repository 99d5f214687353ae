/* front_http1: see front_http1.h. */
#include "dataplane/runtime/front_http1.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/net/http1_server.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/input.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/worker.h"

enum { REFUSAL_BODY_MAX = 4096 };

/* ---- the front's table ---- */

/* A proxy asks for credentials in its own way, so that clients know whom they are for. */
static bool is_proxy_form(const struct dp_request *rq)
{
    enum http1_form form = http1_exchange_head(rq->exchange)->form;
    return form == HTTP1_ABSOLUTE || form == HTTP1_AUTHORITY;
}

/* Other credentials might do. */
static bool asks_for_credentials(const struct dp_request *rq)
{
    return rq->err.code == E_UNAUTHENTICATED || rq->err.code == E_IDENTITY_REVOKED;
}

static unsigned refusal_status(const struct dp_request *rq)
{
    return asks_for_credentials(rq) && is_proxy_form(rq) ? 407
                                                         : (unsigned)err_http_status(rq->err.code);
}

static size_t refusal_fields(struct dp_request *rq, char version[24], char retry[24],
                             struct http1_field *out)
{
    struct slice explain = dp_request_explain(rq);
    size_t n = 0;
    out[n++] = (struct http1_field){SLICE_LIT("content-type"), SLICE_LIT("application/json")};
    out[n++] = (struct http1_field){SLICE_LIT("x-trilane-code"), slice_str(err_name(rq->err.code))};
    if (rq->err.code == E_POLICY_DENIED && rq->verdict.rule.size > 0) {
        out[n++] = (struct http1_field){SLICE_LIT("x-trilane-rule"), rq->verdict.rule};
    }
    if (explain.size > 0) {
        out[n++] = (struct http1_field){SLICE_LIT("x-trilane-explain"), explain};
    }
    if (rq->model != NULL) {
        (void)snprintf(version, 24, "%" PRIu64, dp_model_version(rq->model));
        out[n++] = (struct http1_field){SLICE_LIT("x-trilane-version"), slice_str(version)};
    }
    if (asks_for_credentials(rq)) {
        out[n++] = (struct http1_field){is_proxy_form(rq) ? SLICE_LIT("proxy-authenticate")
                                                          : SLICE_LIT("www-authenticate"),
                                        SLICE_LIT("Bearer realm=\"trilane\"")};
    }
    bool later = rq->err.code == E_RATE_LIMITED || rq->err.code == E_OVERLOADED;
    if (later && rq->retry_ns > 0) {
        (void)snprintf(retry, 24, "%" PRIu64, rq->retry_ns / 1000000000 + 1);
        out[n++] = (struct http1_field){SLICE_LIT("retry-after"), slice_str(retry)};
    }
    return n;
}

/* Texts of ERR_LIST, and names of resources: nothing in them needs escaping. */
static struct err refusal_body(struct dp_request *rq, struct buf *out)
{
    enum err_code code = rq->err.code;
    TRY(buf_addf(out, "{\"code\":\"%s\",\"message\":\"%s\",\"fix\":\"%s\"", err_name(code),
                 err_text(code), err_fix(code)));
    if (code == E_POLICY_DENIED && rq->verdict.rule.size > 0) {
        TRY(buf_addf(out, ",\"rule\":\"%.*s\"", SLICE_ARG(rq->verdict.rule)));
    }
    if (code == E_RATE_LIMITED || code == E_LIMIT_KEY_MISSING) {
        TRY(buf_addf(out, ",\"limit\":\"%.*s\"", SLICE_ARG(rq->limit)));
    }
    struct slice explain = dp_request_explain(rq);
    if (explain.size > 0) {
        TRY(buf_addf(out, ",\"explain\":\"%.*s\"", SLICE_ARG(explain)));
    }
    if (rq->model != NULL) {
        TRY(buf_addf(out, ",\"version\":%" PRIu64, dp_model_version(rq->model)));
    }
    return buf_add_str(out, "}\n");
}

static void refuse(struct dp_request *rq)
{
    CHECK(rq->exchange != NULL);
    char version[24];
    char retry[24];
    struct http1_field fields[7];
    size_t count = refusal_fields(rq, version, retry, fields);
    auto_buf struct buf body = BUF_MAX(REFUSAL_BODY_MAX);
    unsigned status = refusal_status(rq);
    rq->http_status = (int)status;
    struct err e = refusal_body(rq, &body);
    if (err_ok(e)) {
        e = http1_respond(rq->exchange, status, fields, count, buf_slice(&body));
    }
    if (!err_ok(e)) {
        http1_exchange_abort(rq->exchange);
    }
}

static void ended(struct dp_request *rq)
{
    struct dp_caller_conn *c = rq->front_state;
    if (rq->exchange != NULL) {
        http1_exchange_set_user(rq->exchange, /* user= */ NULL);
    } else if (c->tunnel == rq) {
        dp_caller_conn_free(c);
    }
    rq->exchange = NULL;
}

/* A drain waits for a tunnel's request, and ends that. */
static struct err take(struct dp_request *rq, struct net_conn **out_conn, struct buf *early)
{
    struct dp_input_copy copy;
    TRY(dp_input_copy(rq, &copy));
    TRY(http1_exchange_take_conn(rq->exchange, 200, /* fields= */ NULL, /* field_count= */ 0,
                                 out_conn, early));
    rq->in = copy.in;
    rq->correlation = copy.correlation;
    rq->request_id = copy.request_id;
    rq->exchange = NULL;
    dp_caller_conn_tunnel(rq->front_state, *out_conn, rq);
    return OK;
}

static const struct dp_front front = {
    .name = "http", .refuse = refuse, .ended = ended, .take = take};

/* ---- exchanges ---- */

static struct http1_refusal refused(void *ctx, struct http1_exchange *x, unsigned status,
                                    struct err why)
{
    return dp_early_refused(ctx, x == NULL ? NULL : http1_exchange_user(x), status, why);
}

static void answer_error(struct http1_exchange *x, struct dp_caller_conn *c, struct err why)
{
    const struct dp_early early = {
        .conn = c, .protocol = "http1", .why = why, .path = http1_exchange_head(x)->target};
    dp_early_answer(&early, x);
}

static void head(struct http1_exchange *x, void *ctx)
{
    struct dp_caller_conn *c = ctx;
    struct dp_worker *w = c->port->worker;
    const struct dp_lane *lane = w->config->lanes[DP_LANE_PROXY];
    if (lane == NULL) {
        answer_error(x, c, FAIL(E_HTTP_VERSION));
        return;
    }
    struct dp_request *rq = NULL;
    struct err e = dp_request_start(&w->pool, &front, c, lane, &rq);
    if (!err_ok(e)) {
        answer_error(x, c, e);
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

static bool has_left(struct err why)
{
    return err_ok(why) || why.code == E_CLOSED || why.code == E_IO;
}

/* The exchange is over before the request: its caller has left, or was refused by the server for
 * what it sent behind the head. */
static void gone(struct http1_exchange *x, void *ctx, struct err why)
{
    (void)ctx;
    struct dp_request *rq = http1_exchange_user(x);
    if (rq == NULL) {
        return;
    }
    if (has_left(why)) {
        dp_request_cancel(rq);
        return;
    }
    if (!rq->answered) {
        rq->http_status = err_http_status(why.code);
    }
    dp_request_break(rq, why);
}

static const struct http1_server_handler handler = {
    .head = head,
    .body = body,
    .end = end,
    .drained = drained,
    .gone = gone,
    .refused = refused,
};

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
