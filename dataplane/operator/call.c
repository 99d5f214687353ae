/*
 * One call through the operator lane, top to bottom:
 *
 *     start -> find_connection -> request ->  bytes both ways  -> trailers -> finish
 *              next endpoint _^ <-- nobody saw it _|                any failure -> fail
 *
 * Bytes are given back to the sender's window when they left towards the receiver, so that a slow
 * receiver stops the sender, and a stream holds at most one window. gRPC messages are watched, not
 * touched. grpc-status is read where it is: in the trailers.
 *
 * A small request is kept until its answer begins, so that it can be sent again when the upstream
 * certainly did nothing with it (gRPC A6, transparent retries). What is kept is held: its window
 * is given back when it is forgotten.
 */
#include "dataplane/operator/call.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "dataplane/operator/fields.h"
#include "dataplane/operator/kept.h"
#include "dataplane/operator/upstream.h"
#include "dataplane/request/request.h"

enum { SHOWN_TYPE_BYTES = 64 };

struct op_call {
    struct dp_request *rq;
    struct h2_stream *caller;
    struct h2_stream *upstream; /* NULL until the request is sent, and once it is closed. */
    struct op_wait wait;
    struct op_endpoint *endpoint; /* of the present attempt. */
    struct op_tries tries;
    struct err refused;    /* why the endpoint that was tried last has no connection. */
    struct grpc_scan up;   /* messages to the upstream. */
    struct grpc_scan down; /* messages to the caller. */
    size_t sent;           /* bytes of 'kept' that left towards the upstream. */
    struct net_timer idle_timer;
    uint32_t idle_ms;  /* the longest silence; zero: any. */
    uint64_t heard_ns; /* when either side sent something last. */
    bool keeps;        /* 'kept' is all that the caller sent so far. */
    bool replayed;     /* it was sent again: once is enough. */
    bool may_repeat;   /* the endpoint that refused it may be asked again, when no other is left. */
    bool caller_ended; /* the caller's side is whole. */
    struct op_kept kept;
};

static void find_connection(struct op_call *call);
static void fail(struct op_call *call, struct err why);
static void finish(struct op_call *call, struct err how);

/* ---- start ---- */

static const struct h2_stream_events caller_events;
static const struct h2_stream_events upstream_events;

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why);
static void idle_check(struct net_timer *timer, void *ctx);

struct err op_call_start(struct dp_request *rq)
{
    CHECK(rq->stream != NULL);
    void *memory = NULL;
    TRY(arena_alloc(&rq->arena, sizeof(struct op_call), &memory));
    struct op_call *call = memory;
    (void)memset(call, 0, offsetof(struct op_call, kept));
    op_kept_init(&call->kept, limits.stream_buffer_bytes);
    call->rq = rq;
    call->caller = rq->stream;
    call->wait.ready = connected;
    call->wait.ctx = call;
    call->up.message_max = rq->transport->request_message_bytes;
    call->down.message_max = rq->transport->response_message_bytes;
    call->keeps = true;
    call->caller_ended = h2_stream_received_end(rq->stream);
    call->idle_ms = rq->transport->idle_timeout_ms;
    net_timer_init(&call->idle_timer, idle_check, call);
    if (call->idle_ms != 0) {
        call->heard_ns = net_loop_now_ns(rq->pool->loop);
        net_timer_arm(rq->pool->loop, &call->idle_timer, call->idle_ms);
    }
    rq->lane_state = call;
    h2_stream_attach(rq->stream, &caller_events, call);
    find_connection(call);
    return OK;
}

/* Armed anew when it runs, not with each byte. */
static void idle_check(struct net_timer *timer, void *ctx)
{
    struct op_call *call = ctx;
    struct net_loop *loop = call->rq->pool->loop;
    uint64_t silent_ms = (net_loop_now_ns(loop) - call->heard_ns) / 1000000;
    if (silent_ms >= call->idle_ms) {
        fail(call, FAIL(E_TIMEOUT));
        return;
    }
    net_timer_arm(loop, timer, call->idle_ms - silent_ms);
}

static void heard(struct op_call *call)
{
    call->heard_ns = net_loop_now_ns(call->rq->pool->loop);
}

/* ---- find_connection: an endpoint, and room on a connection to it ---- */

static void send_request(struct op_call *call, struct h2_conn *conn);

static MUST_CHECK struct err pick_untried(struct op_call *call)
{
    struct dp_request *rq = call->rq;
    return op_upstreams_pick(rq->pool->lanes[DP_LANE_OPERATOR], rq, &call->tries, &call->endpoint);
}

/* The next endpoint; when there is none left, why the last one was none. */
static MUST_CHECK struct err pick(struct op_call *call)
{
    if (call->rq->cluster == NULL) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    struct err err = pick_untried(call);
    if (err.code == E_NO_HEALTHY_ENDPOINT && call->may_repeat) {
        call->may_repeat = false;
        call->tries = (struct op_tries){0};
        err = pick_untried(call);
    }
    bool none_left = err.code == E_NO_HEALTHY_ENDPOINT && !err_ok(call->refused);
    return none_left ? call->refused : err;
}

static void refused(struct op_call *call, struct err why)
{
    op_endpoint_report(call->endpoint, /* reached: */ false);
    call->refused = why;
}

/* Takes the endpoints in turn until one has a connection, or has us wait for one. */
static void find_connection(struct op_call *call)
{
    for (;;) { /* ends: pick() fails when every endpoint was tried. */
        struct h2_conn *conn = NULL;
        struct err err = pick(call);
        if (!err_ok(err)) {
            fail(call, err);
            return;
        }
        err = op_wait_start(&call->wait, call->endpoint, dp_request_left_ms(call->rq), &conn);
        if (err.code == E_UPSTREAM_CONNECT) {
            refused(call, err);
            continue;
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
        refused(call, why);
        find_connection(call);
    } else if (why.code == E_DRAINING) {
        call->tries = (struct op_tries){0}; /* the endpoint has another address or certificate. */
        find_connection(call);
    } else {
        fail(call, why);
    }
}

/* ---- request: the head goes on, and what is kept ---- */

/* The request will not be sent again: what is kept is given up, and its window given back. */
static void forget(struct op_call *call)
{
    if (call->keeps) {
        call->keeps = false;
        op_kept_free(&call->kept);
        h2_stream_consume(call->caller, call->sent);
    }
}

/* Keeping holds the caller's window: it must never hold so much that the caller stops. */
static void forget_if_much(struct op_call *call)
{
    uint64_t max = limits.replay_bytes < limits.stream_window_bytes / 2
                       ? limits.replay_bytes
                       : limits.stream_window_bytes / 2;
    if (call->keeps && op_kept_slice(&call->kept).size > max) {
        forget(call);
    }
}

static MUST_CHECK struct err open_upstream(struct op_call *call, struct h2_conn *conn, bool end)
{
    struct dp_request *rq = call->rq;
    const struct h2_fields *received = h2_stream_fields(call->caller);
    void *memory = NULL;
    TRY(arena_alloc(&rq->arena,
                    (received->count + (size_t)OP_FIELDS_OURS) * sizeof(struct h2_field), &memory));
    struct op_fields_room room;
    size_t count = op_request_fields(rq, received, &room, memory);
    TRY(h2_conn_request(conn, memory, count, end, &call->upstream));
    h2_stream_attach(call->upstream, &upstream_events, call);
    return OK;
}

static void send_request(struct op_call *call, struct h2_conn *conn)
{
    struct slice kept = op_kept_slice(&call->kept);
    bool end = call->caller_ended && kept.size == 0;
    CHECK(call->keeps);
    CHECK(call->sent == 0);
    struct err err = open_upstream(call, conn, end);
    if (err_ok(err)) {
        op_endpoint_report(call->endpoint, /* reached: */ true);
        err = arena_dup(&call->rq->arena, op_endpoint_text(call->endpoint), &call->rq->upstream);
    }
    if (err_ok(err) && kept.size > 0) {
        err = h2_stream_send(call->upstream, kept, call->caller_ended);
    }
    if (!err_ok(err)) {
        fail(call, err);
        return;
    }
    forget_if_much(call);
}

/* ---- bytes from the caller to the upstream ---- */

static void caller_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_call *call = h2_stream_user(s);
    call->rq->request_bytes += bytes.size;
    call->caller_ended = call->caller_ended || end;
    heard(call);
    struct err err = grpc_scan(&call->up, bytes);
    if (err_ok(err) && end) {
        err = grpc_scan_end(&call->up);
    }
    if (err_ok(err) && call->keeps) {
        err = op_kept_add(&call->kept, bytes);
    }
    if (err_ok(err) && call->upstream != NULL) {
        err = h2_stream_send(call->upstream, bytes, end);
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err);
    } else if (call->upstream != NULL) {
        forget_if_much(call);
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
    if (call->keeps) {
        call->sent += bytes;
    } else {
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

static bool is_grpc_answer(const struct h2_fields *fields, bool end)
{
    return slice_eq(h2_fields_value(fields, H2_TOKEN_STATUS), SLICE_LIT("200")) &&
           grpc_is_content_type(h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE)) &&
           (!end || h2_fields_get(fields, H2_TOKEN_GRPC_STATUS) != NULL);
}

/* The refusal's sentence; without room for it, the code's own text must do. */
static void say_what_came(struct dp_request *rq, const struct h2_fields *fields)
{
    struct slice sentence = {0};
    struct slice type = h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE);
    struct err e = arena_printf(&rq->arena, &sentence,
                                "the upstream does not answer in gRPC: status %.*s, type \"%.*s\"",
                                SLICE_ARG(h2_fields_value(fields, H2_TOKEN_STATUS)),
                                SLICE_ARG(slice_head(type, SHOWN_TYPE_BYTES)));
    if (err_ok(e)) {
        rq->sentence = sentence;
    }
}

static void upstream_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct op_call *call = h2_stream_user(s);
    heard(call);
    if (!is_grpc_answer(fields, end)) {
        say_what_came(call->rq, fields);
        fail(call, FAIL(E_UPSTREAM_MALFORMED)); /* some server, but none that speaks gRPC. */
        return;
    }
    forget(call);
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
    heard(call);
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

/* Without room for the sentence the code's own text must do. */
static void say_how_it_ended(struct dp_request *rq, struct h2_reset why)
{
    struct slice sentence = {0};
    struct err e =
        arena_printf(&rq->arena, &sentence, "the upstream %s, HTTP/2 code %" PRIu32,
                     why.by_peer ? "reset the call" : "is gone or broke HTTP/2", why.code);
    if (err_ok(e)) {
        rq->sentence = sentence;
    }
}

static void upstream_reset(struct h2_stream *s, struct h2_reset why)
{
    struct op_call *call = h2_stream_user(s);
    call->upstream = NULL;
    if (why.unprocessed && call->keeps && !call->replayed) {
        call->replayed = true;
        call->may_repeat = true;
        call->sent = 0;
        find_connection(call);
        return;
    }
    if (why.too_large) {
        fail(call, FAIL(E_HEADERS_TOO_LARGE)); /* it was us who ended it. */
        return;
    }
    say_how_it_ended(call->rq, why);
    fail(call, FAIL(E_UPSTREAM_RESET));
}

/* ---- how it ends ---- */

static void let_go(struct op_call *call)
{
    op_wait_cancel(&call->wait);
    net_timer_cancel(call->rq->pool->loop, &call->idle_timer);
    op_kept_free(&call->kept);
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
            .code = why.code,
            .sentence = rq->sentence,
            .rule = why.code == E_POLICY_DENIED ? rq->verdict.rule : (struct slice){0},
            .version = dp_model_version(rq->model)};
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
