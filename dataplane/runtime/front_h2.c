/* front_h2: see front_h2.h. */
#include "dataplane/runtime/front_h2.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/net/grpc.h"
#include "common/net/grpc_web.h"
#include "dataplane/request/refusals.h"
#include "dataplane/request/request.h"
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

/* What no request was made of is kept, too, as far as it is known. */
static void keep_early(struct dp_worker *w, const struct h2_stream *s, struct dp_refusal *entry)
{
    const struct dp_caller_conn *c = h2_conn_user(h2_stream_conn(s));
    struct slice path = h2_fields_value(h2_stream_fields(s), H2_TOKEN_PATH);
    entry->time_ms = clock_wall_ms();
    entry->boot_ms = clock_boot_ns() / 1000000;
    entry->grpc_status = (int16_t)err_grpc_status((enum err_code)entry->code);
    entry->http_status = 200;
    dp_refusal_set(entry, DP_REFUSAL_METHOD, slice_head(path, slice_find(path, '?')));
    dp_refusal_set(entry, DP_REFUSAL_PEER, slice_str(c->peer));
    dp_refusals_add(w->refusals, entry);
}

static void refuse_early(struct dp_worker *w, struct h2_stream *s, enum err_code code)
{
    dp_worker_count_early(w, "http2", code);
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    struct dp_refusal entry = {
        .id = dp_refusals_id(w->refusals),
        .code = (int32_t)code,
        .version = model == NULL ? 0 : dp_model_version(model),
    };
    char id[DP_REFUSAL_ID_SIZE + 1];
    dp_refusal_id_format(entry.id, id);
    struct grpc_refusal refusal = {
        .code = code,
        .version = entry.version,
        .explain = entry.id == 0 ? (struct slice){0} : slice_of(id, DP_REFUSAL_ID_SIZE),
    };
    keep_early(w, s, &entry);
    grpc_refuse(s, &refusal);
}

/* A caller that speaks HTTP/2 but not gRPC understands a status of HTTP, and a line of text. */
static void answer_http(struct h2_stream *s, const struct h2_fields *asked, struct slice status,
                        struct slice text)
{
    bool is_head = slice_eq(h2_fields_value(asked, H2_TOKEN_METHOD), SLICE_LIT("HEAD"));
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, status),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("text/plain")),
    };
    struct err e = h2_stream_respond(s, fields, 2, is_head);
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
        refuse_early(w, s, e.code);
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

static void refuse_method(struct dp_worker *w, struct h2_stream *s, const struct h2_fields *fields)
{
    dp_worker_count_early(w, "http2", E_METHOD_NOT_ALLOWED);
    answer_http(s, fields, SLICE_LIT("405"), SLICE_LIT("gRPC is POST\n"));
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
        refuse_method(c->port->worker, s, fields);
        return true;
    }
    struct err e = dp_web_h2_request(c, s, fields, end);
    if (!err_ok(e)) {
        refuse_early(c->port->worker, s, e.code);
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
        dp_worker_count_early(w, "http2", E_CONTENT_TYPE);
        answer_http(s, fields, SLICE_LIT("415"),
                    SLICE_LIT("this port speaks gRPC: content-type: application/grpc\n"));
        return;
    }
    if (!slice_eq(h2_fields_value(fields, H2_TOKEN_METHOD), SLICE_LIT("POST"))) {
        refuse_method(w, s, fields);
        return;
    }
    if (!dp_grpc_path(h2_fields_value(fields, H2_TOKEN_PATH), &service)) {
        refuse_early(w, s, E_NO_ROUTE);
        return;
    }
    if (!slice_eq(h2_fields_value(fields, H2_TOKEN_TE), SLICE_LIT("trailers"))) {
        /* A proxy that drops 'te' drops trailers, too: the status would be lost. */
        refuse_early(w, s, E_PROTOCOL_ERROR);
        return;
    }
    if (slice_eq(service, SLICE_LIT("grpc.health.v1.Health"))) {
        dp_health_request(w, s, fields, end);
        return;
    }
    const struct dp_lane *lane = find_lane(w, service);
    if (lane == NULL || dp_port_is_proxy(c->port->id)) {
        refuse_early(w, s, E_NO_ROUTE);
        return;
    }
    start_request(c, s, lane);
}

static void closed(struct h2_conn *conn, struct err why)
{
    (void)why;
    dp_caller_conn_free(h2_conn_user(conn));
}

static const struct h2_conn_events events = {.request = request, .closed = closed};

struct err dp_front_h2_start(struct dp_caller_conn *c, struct slice first)
{
    struct net_conn *net = c->net;
    c->net = NULL;
    return h2_server_new(c->port->worker->h2, &net, first, &events, c, &c->h2);
}
