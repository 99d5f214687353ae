/*
 * One call through the operator lane, top to bottom:
 *
 *     start -> find_connection -> request ->  bytes both ways  -> trailers -> finish
 *              next endpoint _^                                     any failure -> fail
 *
 * Bytes are given back to the sender's window when they left towards the receiver, so that a slow
 * receiver stops the sender, and a stream holds at most one window. gRPC messages are watched, not
 * touched. grpc-status is read where it is: in the trailers.
 */
#include "dataplane/operator/call.h"

#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "dataplane/operator/fields.h"
#include "dataplane/operator/upstream.h"
#include "dataplane/request/request.h"

struct op_call {
    struct dp_request *rq;
    struct h2_stream *caller;   /* NULL once it is closed. */
    struct h2_stream *upstream; /* NULL until the request is sent, and once it is closed. */
    struct op_wait wait;
    struct op_endpoint *endpoint; /* of the present attempt. */
    struct buf held;              /* what the caller sent while there was no connection. */
    struct grpc_scan up;          /* messages to the upstream. */
    struct grpc_scan down;        /* messages to the caller. */
    uint32_t attempt;
    bool caller_ended; /* the caller's side is whole. */
};

static void find_connection(struct op_call *call);
static void fail(struct op_call *call, struct err why);
static void finish(struct op_call *call, struct err how);

/* ---- start ---- */

static const struct h2_stream_events caller_events;
static const struct h2_stream_events upstream_events;

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why);

struct err op_call_start(struct dp_request *rq)
{
    CHECK(rq->stream != NULL);
    void *memory = NULL;
    TRY(arena_calloc(&rq->arena, 1, sizeof(struct op_call), &memory));
    struct op_call *call = memory;
    *call = (struct op_call){.rq = rq,
                             .caller = rq->stream,
                             .wait = {.ready = connected, .ctx = call},
                             .held = BUF_MAX(limits.stream_buffer_bytes),
                             .up = {.message_max = rq->transport->request_message_bytes},
                             .down = {.message_max = rq->transport->response_message_bytes},
                             .caller_ended = h2_stream_received_end(rq->stream)};
    rq->lane_state = call;
    h2_stream_attach(rq->stream, &caller_events, call);
    find_connection(call);
    return OK;
}

/* ---- find_connection: an endpoint, and room on a connection to it ---- */

static void send_request(struct op_call *call, struct h2_conn *conn);

/* Takes the endpoints in turn until one has a connection, or has us wait for one. */
static void find_connection(struct op_call *call)
{
    struct dp_request *rq = call->rq;
    struct op_upstreams *ups = rq->pool->lanes[DP_LANE_OPERATOR];
    for (;;) { /* ends: op_upstreams_pick() fails when every endpoint had its attempt. */
        struct err err = rq->cluster == NULL ? FAIL(E_NO_HEALTHY_ENDPOINT)
                                             : op_upstreams_pick(ups, rq->cluster, rq->transport,
                                                                 dp_model_version(rq->model),
                                                                 call->attempt, &call->endpoint);
        struct h2_conn *conn = NULL;
        if (err_ok(err)) {
            call->attempt++;
            err = op_wait_start(&call->wait, call->endpoint, dp_request_left_ms(rq), &conn);
            if (err.code == E_UPSTREAM_CONNECT) {
                op_endpoint_report(call->endpoint, /* reached: */ false);
                continue;
            }
        }
        if (!err_ok(err)) {
            fail(call, err);
        } else if (conn != NULL) {
            send_request(call, conn);
        }
        return;
    }
}

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why)
{
    struct op_call *call = wait->ctx;
    if (err_ok(why)) {
        send_request(call, conn);
    } else if (why.code == E_UPSTREAM_CONNECT) {
        op_endpoint_report(call->endpoint, /* reached: */ false);
        find_connection(call);
    } else {
        fail(call, why);
    }
}

/* ---- request: the head goes on, and what was held ---- */

static void send_request(struct op_call *call, struct h2_conn *conn)
{
    struct dp_request *rq = call->rq;
    if (rq->caller == NULL) {
        fail(call, FAIL(E_POLICY_DENIED)); /* denied by a swap while it waited. */
        return;
    }
    const struct h2_fields *received = h2_stream_fields(call->caller);
    void *memory = NULL;
    struct err err = arena_alloc(
        &rq->arena, (received->count + (size_t)OP_FIELDS_OURS) * sizeof(struct h2_field), &memory);
    bool end = call->caller_ended && call->held.size == 0;
    if (err_ok(err)) {
        struct op_fields_room room;
        size_t count = op_request_fields(rq, received, &room, memory);
        err = h2_conn_request(conn, memory, count, end, &upstream_events, call, &call->upstream);
    }
    if (err_ok(err)) {
        op_endpoint_report(call->endpoint, /* reached: */ true);
        err = arena_dup(&rq->arena, op_endpoint_text(call->endpoint), &rq->upstream);
    }
    if (err_ok(err) && call->held.size > 0) {
        err = h2_stream_send(call->upstream, buf_slice(&call->held), call->caller_ended);
        buf_free(&call->held);
    }
    if (!err_ok(err)) {
        fail(call, err);
    }
}

/* ---- bytes from the caller to the upstream ---- */

static void caller_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_call *call = h2_stream_user(s);
    call->rq->request_bytes += bytes.size;
    call->caller_ended = call->caller_ended || end;
    struct err err = grpc_scan(&call->up, bytes);
    if (err_ok(err) && end) {
        err = grpc_scan_end(&call->up);
    }
    if (err_ok(err)) {
        err = call->upstream != NULL ? h2_stream_send(call->upstream, bytes, end)
                                     : buf_add(&call->held, bytes);
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err);
    }
}

/* A gRPC request has no trailers; what comes as such only ends it. */
static void caller_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields;
    caller_data(s, (struct slice){0}, /* end: */ true);
}

static void upstream_sent(struct h2_stream *s, size_t bytes)
{
    struct op_call *call = h2_stream_user(s);
    if (call->caller != NULL) {
        h2_stream_consume(call->caller, bytes);
    }
}

static void caller_reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct op_call *call = h2_stream_user(s);
    dp_request_cancel(call->rq);
}

/* ---- the answer's head ---- */

static MUST_CHECK struct err answer_head(struct op_call *call, const struct h2_fields *fields,
                                         bool end)
{
    void *memory = NULL;
    TRY(arena_alloc(&call->rq->arena, ((size_t)fields->count + 1) * sizeof(struct h2_field),
                    &memory));
    size_t count = op_response_fields(fields, memory);
    TRY(h2_stream_respond(call->caller, memory, count, end));
    call->rq->answered = true;
    call->rq->http_status = 200;
    return OK;
}

static void note_status(struct op_call *call, const struct h2_fields *fields)
{
    call->rq->grpc_status = (int)grpc_status_parse(h2_fields_value(fields, H2_TOKEN_GRPC_STATUS));
}

static void upstream_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct op_call *call = h2_stream_user(s);
    struct slice status = h2_fields_value(fields, H2_TOKEN_STATUS);
    struct slice type = h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE);
    bool has_grpc_status = h2_fields_get(fields, H2_TOKEN_GRPC_STATUS) != NULL;
    if (!slice_eq(status, SLICE_LIT("200")) || !grpc_is_content_type(type) ||
        (end && !has_grpc_status)) {
        fail(call, FAIL(E_UPSTREAM_MALFORMED)); /* some server, but none that speaks gRPC. */
        return;
    }
    struct err err = answer_head(call, fields, end);
    if (!err_ok(err)) {
        fail(call, err);
    } else if (end) {
        note_status(call, fields);
        finish(call, OK);
    }
}

/* ---- bytes from the upstream to the caller ---- */

static void upstream_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_call *call = h2_stream_user(s);
    call->rq->response_bytes += bytes.size;
    struct err err = grpc_scan(&call->down, bytes);
    if (err_ok(err) && bytes.size > 0) {
        err = h2_stream_send(call->caller, bytes, /* end: */ false);
    }
    if (err_ok(err) && end) {
        err = FAIL(E_UPSTREAM_MALFORMED); /* a gRPC answer ends with trailers. */
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_UPSTREAM_MALFORMED) : err);
    }
}

static void caller_sent(struct h2_stream *s, size_t bytes)
{
    struct op_call *call = h2_stream_user(s);
    if (call->upstream != NULL) {
        h2_stream_consume(call->upstream, bytes);
    }
}

/* ---- trailers ---- */

static void upstream_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct op_call *call = h2_stream_user(s);
    void *memory = NULL;
    struct err err = grpc_scan_end(&call->down);
    if (err_ok(err) && h2_fields_get(fields, H2_TOKEN_GRPC_STATUS) == NULL) {
        err = FAIL(E_UPSTREAM_MALFORMED);
    }
    if (err_ok(err)) {
        err = arena_alloc(&call->rq->arena, ((size_t)fields->count + 1) * sizeof(struct h2_field),
                          &memory);
    }
    if (err_ok(err)) {
        size_t count = op_response_fields(fields, memory);
        err = h2_stream_trailers(call->caller, memory, count);
    }
    if (err_ok(err)) {
        note_status(call, fields);
        finish(call, OK);
    } else {
        fail(call, err.code == E_MALFORMED ? FAIL(E_UPSTREAM_MALFORMED) : err);
    }
}

static void upstream_reset(struct h2_stream *s, struct h2_reset why)
{
    struct op_call *call = h2_stream_user(s);
    bool can_go_elsewhere = why.unprocessed && !call->rq->answered && call->up.bytes == 0 &&
                            call->up.have == 0 && !call->caller_ended;
    call->upstream = NULL;
    if (can_go_elsewhere) {
        find_connection(call); /* nothing of it was sent but the head. */
        return;
    }
    fail(call, why.too_large ? FAIL(E_HEADERS_TOO_LARGE) : FAIL(E_UPSTREAM_RESET));
}

/* ---- how it ends ---- */

static void let_go(struct op_call *call)
{
    op_wait_cancel(&call->wait);
    buf_free(&call->held);
    if (call->upstream != NULL) {
        struct h2_stream *upstream = call->upstream;
        call->upstream = NULL;
        h2_stream_attach(upstream, /* events: */ NULL, /* user: */ NULL);
        if (!h2_stream_received_end(upstream) || !h2_stream_sent_end(upstream)) {
            h2_stream_reset(upstream, H2_CANCEL);
        }
    }
}

/* The caller has the whole answer. */
static void finish(struct op_call *call, struct err how)
{
    let_go(call);
    call->rq->lane_state = NULL;
    dp_request_done(call->rq, how);
}

/* The call ends with a refusal of ours: by the front, or as trailers of an answer that began. */
static void fail(struct op_call *call, struct err why)
{
    struct dp_request *rq = call->rq;
    let_go(call);
    rq->lane_state = NULL;
    if (rq->answered && !rq->caller_gone) {
        const struct grpc_refusal refusal = {
            .code = why.code, .rule = rq->verdict.rule, .version = dp_model_version(rq->model)};
        grpc_refuse(call->caller, &refusal);
        rq->grpc_status = err_grpc_status(why.code);
    }
    if (rq->answered) {
        dp_request_done(rq, why);
    } else {
        dp_request_fail(rq, why);
    }
}

void op_call_abort(struct dp_request *rq, struct err why)
{
    struct op_call *call = rq->lane_state;
    CHECK(call != NULL);
    fail(call, why);
}

static const struct h2_stream_events caller_events = {
    .data = caller_data, .trailers = caller_trailers, .sent = caller_sent, .reset = caller_reset};

static const struct h2_stream_events upstream_events = {.headers = upstream_headers,
                                                        .data = upstream_data,
                                                        .trailers = upstream_trailers,
                                                        .sent = upstream_sent,
                                                        .reset = upstream_reset};
