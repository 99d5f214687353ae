/* front_h2: see front_h2.h. */
#include "dataplane/runtime/front_h2.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/grpc.h"
#include "common/net/grpc_web.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/health.h"
#include "dataplane/runtime/input.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/reflection.h"
#include "dataplane/runtime/web_h2.h"
#include "dataplane/runtime/worker.h"

/* ---- what an exchange is ---- */

/* In which names a byte may stand. */
enum { IN_METHOD = 1, IN_SERVICE = 2 };

static uint8_t name_bytes[256];

/* Filled before main() runs, so that look-ups need no check and threads no care. */
__attribute__((constructor)) static void fill_name_bytes(void)
{
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    for (size_t i = 0; i + 1 < sizeof(all); i++) {
        name_bytes[(uint8_t)all[i]] = IN_METHOD | IN_SERVICE;
    }
    name_bytes['.'] = IN_SERVICE;
}

/* Letters, digits, '_' and, in a service's name, '.'; neither begins nor ends with a dot. */
static bool is_name(struct slice s, uint8_t where)
{
    uint8_t common = where;
    for (size_t i = 0; i < s.size; i++) {
        common &= name_bytes[s.ptr[i]];
    }
    return s.size > 0 && common != 0 && s.ptr[0] != '.' && s.ptr[s.size - 1] != '.';
}

bool dp_grpc_path(struct slice path, struct slice *out_service)
{
    if (path.size == 0 || path.ptr[0] != '/') {
        return false;
    }
    struct slice rest = slice_from(path, 1);
    size_t slash = slice_find(rest, '/');
    struct slice service = slice_head(rest, slash);
    if (!is_name(service, IN_SERVICE) || !is_name(slice_from(rest, slash + 1), IN_METHOD)) {
        return false;
    }
    *out_service = service;
    return true;
}

static const struct dp_lane *find_lane(const struct dp_worker *w, struct slice service)
{
    if (dp_reflection_serves(service)) {
        return &dp_reflection_lane;
    }
    bool is_bus = slice_eq(service, SLICE_LIT("trilane.bus.v1.Bus"));
    return w->config->lanes[is_bus ? DP_LANE_CANONICAL : DP_LANE_OPERATOR];
}

/* ---- answers that are no request of a lane ---- */

static void refuse_early(const struct dp_caller_conn *c, struct h2_stream *s, struct err why)
{
    const struct dp_early early = {
        .conn = c,
        .protocol = "http2",
        .why = why,
        .path = h2_fields_value(h2_stream_fields(s), H2_TOKEN_PATH),
    };
    const struct grpc_refusal refusal = dp_early_grpc(&early);
    grpc_refuse(s, &refusal);
}

/* A caller that speaks HTTP/2 but not gRPC understands a status of HTTP, and a line of text. */
static void refuse_http(const struct dp_caller_conn *c, struct h2_stream *s, struct err why,
                        struct slice text)
{
    enum { STATUS_MAX = 12, FIELDS = 5 };
    const struct h2_fields *asked = h2_stream_fields(s);
    bool is_head = slice_eq(h2_fields_value(asked, H2_TOKEN_METHOD), SLICE_LIT("HEAD"));
    const struct dp_early early = {
        .conn = c,
        .protocol = "http2",
        .why = why,
        .http_status = err_http_status(why.code),
        .path = h2_fields_value(asked, H2_TOKEN_PATH),
    };
    struct http1_refusal told = dp_early_note(&early);
    char status[STATUS_MAX];
    (void)snprintf(status, sizeof(status), "%d", early.http_status);
    struct h2_field fields[FIELDS] = {
        h2_field_of(H2_TOKEN_STATUS, slice_str(status)),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("text/plain")),
        h2_field_static(H2_TOKEN_X_TRILANE_CODE, slice_str(err_name(why.code))),
    };
    size_t count = 3;
    if (told.explain.size > 0) {
        fields[count++] = h2_field_of(H2_TOKEN_X_TRILANE_EXPLAIN, told.explain);
    }
    if (why.code == E_METHOD_NOT_ALLOWED) {
        fields[count++] = h2_field_named(SLICE_LIT("allow"), DP_EARLY_METHODS);
    }
    struct err e = h2_stream_respond(s, fields, count, is_head);
    if (err_ok(e) && !is_head) {
        e = h2_stream_send(s, text, /* end= */ true);
    }
    if (!err_ok(e)) {
        h2_stream_reset(s, H2_INTERNAL_ERROR);
    }
}

/* ---- the front's table ---- */

struct grpc_refusal dp_front_refusal(struct dp_request *rq)
{
    bool limited = rq->err.code == E_RATE_LIMITED;
    bool later = limited || rq->err.code == E_OVERLOADED;
    uint64_t retry_ms = later && rq->retry_ns > 0 ? rq->retry_ns / 1000000 + 1 : 0;
    struct slice sentence = rq->sentence;
    if (limited && sentence.size == 0) {
        struct err e = arena_printf(&rq->arena, &sentence, "limit %.*s: retry in %" PRIu64 " ms",
                                    SLICE_ARG(rq->limit), retry_ms);
        sentence = err_ok(e) ? sentence : (struct slice){0};
    }
    return (struct grpc_refusal){
        .code = rq->err.code,
        .sentence = sentence,
        .rule = rq->err.code == E_POLICY_DENIED ? rq->verdict.rule : (struct slice){0},
        .explain = dp_request_explain(rq),
        .version = rq->model == NULL ? 0 : dp_model_version(rq->model),
        .retry_ms = retry_ms,
    };
}

static void refuse(struct dp_request *rq)
{
    CHECK(rq->stream != NULL);
    struct grpc_refusal refusal = dp_front_refusal(rq);
    grpc_refuse(rq->stream, &refusal);
    rq->grpc_status = err_grpc_status(rq->err.code);
    rq->http_status = 200;
}

static void ended(struct dp_request *rq)
{
    h2_stream_attach(rq->stream, /* events= */ NULL, /* user= */ NULL);
    rq->stream = NULL;
}

static const struct dp_front front = {.name = "grpc", .refuse = refuse, .ended = ended};

/* ---- from a stream to a request ---- */

static void start_request(struct dp_caller_conn *c, struct h2_stream *s, const struct dp_lane *lane)
{
    struct dp_worker *w = c->port->worker;
    struct dp_request *rq = NULL;
    struct err e = dp_request_start(&w->pool, &front, c, lane, &rq);
    if (!err_ok(e)) {
        refuse_early(c, s, e);
        return;
    }
    rq->stream = s;
    rq->caller_stream = dp_caller_stream_h2(s);
    e = dp_input_h2(rq, h2_stream_fields(s), c);
    if (!err_ok(e)) {
        dp_request_refuse(rq, e);
        return;
    }
    (void)dp_request_run(rq);
}

static void refuse_method(const struct dp_caller_conn *c, struct h2_stream *s)
{
    refuse_http(c, s, FAIL(E_METHOD_NOT_ALLOWED), SLICE_LIT("gRPC is POST\n"));
}

static bool is_web(const struct h2_fields *fields)
{
    struct slice suffix = {0};
    return grpc_web_content_type(h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE), &suffix) !=
           GRPC_WEB_NONE;
}

/* What pages send through a browser; true when it was that. */
static bool answer_page(struct dp_caller_conn *c, struct h2_stream *s,
                        const struct h2_fields *fields, bool end)
{
    if (dp_port_is_proxy(c->port->id)) {
        return false;
    }
    if (dp_web_h2_is_preflight(fields)) {
        dp_web_h2_preflight(c, s, fields);
        return true;
    }
    if (!is_web(fields)) {
        return false;
    }
    if (!slice_eq(h2_fields_value(fields, H2_TOKEN_METHOD), SLICE_LIT("POST"))) {
        refuse_method(c, s);
        return true;
    }
    struct err e = dp_web_h2_request(c, s, fields, end);
    if (!err_ok(e)) {
        refuse_early(c, s, e);
    }
    return true;
}

static void request(struct h2_conn *conn, struct h2_stream *s, const struct h2_fields *fields,
                    bool end)
{
    struct dp_caller_conn *c = h2_conn_user(conn);
    struct dp_worker *w = c->port->worker;
    struct slice service = {0};
    if (answer_page(c, s, fields, end)) {
        return;
    }
    if (!grpc_is_content_type(h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE))) {
        refuse_http(c, s, FAIL(E_CONTENT_TYPE),
                    SLICE_LIT("this port speaks gRPC: content-type: application/grpc\n"));
        return;
    }
    if (!slice_eq(h2_fields_value(fields, H2_TOKEN_METHOD), SLICE_LIT("POST"))) {
        refuse_method(c, s);
        return;
    }
    if (!dp_grpc_path(h2_fields_value(fields, H2_TOKEN_PATH), &service)) {
        refuse_early(c, s, FAIL(E_NO_ROUTE));
        return;
    }
    if (!slice_eq(h2_fields_value(fields, H2_TOKEN_TE), SLICE_LIT("trailers"))) {
        /* A proxy that drops 'te' drops trailers, too: the status would be lost. */
        refuse_early(c, s, FAIL(E_PROTOCOL_ERROR));
        return;
    }
    if (slice_eq(service, SLICE_LIT("grpc.health.v1.Health"))) {
        dp_health_request(w, s, fields, end);
        return;
    }
    const struct dp_lane *lane = find_lane(w, service);
    if (lane == NULL || dp_port_is_proxy(c->port->id)) {
        refuse_early(c, s, FAIL(E_NO_ROUTE));
        return;
    }
    start_request(c, s, lane);
}

static void too_large(struct h2_conn *conn, struct h2_stream *s, const struct h2_fields *fields)
{
    const struct dp_caller_conn *c = h2_conn_user(conn);
    if (grpc_is_content_type(h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE))) {
        refuse_early(c, s, FAIL(E_HEADERS_TOO_LARGE));
    } else {
        refuse_http(c, s, FAIL(E_HEADERS_TOO_LARGE), SLICE_LIT("too much of header fields\n"));
    }
}

/* A reset says nothing; whoever asks the node for its latest refusals finds it. */
static void refused(struct h2_conn *conn, struct err why)
{
    const struct dp_early early = {.conn = h2_conn_user(conn), .protocol = "http2", .why = why};
    (void)dp_early_note(&early);
}

static void closed(struct h2_conn *conn, struct err why)
{
    (void)why;
    dp_caller_conn_free(h2_conn_user(conn));
}

static const struct h2_conn_events events = {
    .request = request, .too_large = too_large, .refused = refused, .closed = closed};

struct err dp_front_h2_start(struct dp_caller_conn *c, struct slice first)
{
    struct net_conn *net = c->net;
    c->net = NULL;
    return h2_server_new(c->port->worker->h2, &net, first, &events, c, &c->h2);
}
