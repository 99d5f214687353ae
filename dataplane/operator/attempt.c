/*
 * One attempt, top to bottom:
 *
 *     start -> find_connection -> request -> what the upstream answers -> over, or dropped
 *              next endpoint _^ <-- nobody saw it _|
 *
 * What the upstream certainly did nothing with is sent again (gRPC A6, transparent retries): here,
 * since it is no further attempt to anybody.
 */
#include "dataplane/operator/attempt.h"

#include <inttypes.h>

#include "common/base/check.h"
#include "dataplane/operator/call_impl.h"
#include "dataplane/operator/fields.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum {
    SHOWN_TYPE_BYTES = 64,
    REPLAYS_MAX = 5 /* of one call: a request that never left may be sent any number of times. */
};

static const struct h2_stream_events upstream_events;

static void find_connection(struct op_attempt *a);
static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why);

void op_attempt_init(struct op_attempt *attempt, struct op_call *call, uint32_t number)
{
    *attempt = (struct op_attempt){.call = call, .number = number, .end = OP_END_GIVEN_UP};
    attempt->wait.ready = connected;
    attempt->wait.ctx = attempt;
}

static uint32_t try_timeout_ms(const struct op_attempt *a)
{
    const struct op_retry *retry = a->call->retry;
    return retry == NULL ? 0 : retry->policy.try_timeout_ms;
}

static void timed_out(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct op_attempt *a = ctx;
    a->end = OP_END_TIMEOUT;
    op_call_over(a, &(struct op_over){.why = FAIL(E_TIMEOUT), .timed_out = true});
}

/* Its time is its own: that for finding a connection, too. */
void op_attempt_start(struct op_attempt *attempt)
{
    struct net_loop *loop = attempt->call->rq->pool->loop;
    uint32_t ms = try_timeout_ms(attempt);
    if (ms != 0) {
        attempt->until_ns = net_loop_now_ns(loop) + ms * UINT64_C(1000000);
        net_timer_init(&attempt->timer, timed_out, attempt);
        net_timer_arm(loop, &attempt->timer, ms);
        attempt->timed = true;
    }
    find_connection(attempt);
}

static void over(struct op_attempt *a, struct err why)
{
    op_call_over(a, &(struct op_over){.why = why});
}

/* ---- find_connection: an endpoint, and room on a connection to it ---- */

static void send_request(struct op_attempt *a, struct h2_conn *conn);

static MUST_CHECK struct err pick_untried(struct op_attempt *a)
{
    return op_upstreams_pick(op_call_state(a->call)->upstreams, a->call->rq, &a->call->tries,
                             &a->endpoint);
}

/* Once all were tried: those again where no other attempt of the call is under way; where there is
 * no such endpoint, all. */
static MUST_CHECK struct err pick_again(struct op_attempt *a)
{
    struct op_call *call = a->call;
    call->tries = (struct op_tries){0};
    for (const struct op_attempt *other = call->live; other != NULL; other = other->next) {
        if (other != a && (other->asked || other->wait.endpoint != NULL)) {
            op_tries_add(&call->tries, other->endpoint);
        }
    }
    struct err err = pick_untried(a);
    if (err.code == E_NO_HEALTHY_ENDPOINT && call->tries.count > 0) {
        call->tries = (struct op_tries){0};
        err = pick_untried(a);
    }
    return err;
}

/* The next endpoint; when there is none left, why the last one was none. */
static MUST_CHECK struct err pick(struct op_attempt *a)
{
    struct op_call *call = a->call;
    if (call->rq->cluster == NULL) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    struct err err = pick_untried(a);
    if (err.code == E_NO_HEALTHY_ENDPOINT && call->may_repeat) {
        call->may_repeat = false;
        err = pick_again(a);
    }
    if (err.code != E_NO_HEALTHY_ENDPOINT || err_ok(call->refused)) {
        return err;
    }
    call->rq->sentence = call->refused_why;
    return call->refused;
}

static void refused(struct op_attempt *a, struct err why)
{
    op_endpoint_report(a->endpoint, /* reached: */ false);
    op_call_note_upstream(a->call->rq, a->endpoint);
    a->call->refused = why;
    a->call->refused_why = op_endpoint_why(a->endpoint);
}

/* Takes the endpoints in turn until one has a connection, or has us wait for one. */
static void find_connection(struct op_attempt *a)
{
    for (;;) { /* ends: pick() fails when every endpoint was tried. */
        struct h2_conn *conn = NULL;
        struct err err = pick(a);
        if (!err_ok(err)) {
            over(a, err);
            return;
        }
        err = op_wait_start(&a->wait, a->endpoint, dp_request_left_ms(a->call->rq), &conn);
        if (err.code == E_UPSTREAM_CONNECT) {
            refused(a, err);
            continue;
        }
        if (!err_ok(err)) {
            over(a, err);
        } else if (conn != NULL) {
            send_request(a, conn);
        }
        return;
    }
}

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why)
{
    struct op_attempt *a = wait->ctx;
    if (err_ok(why)) {
        send_request(a, conn);
    } else if (why.code == E_UPSTREAM_CONNECT) {
        refused(a, why);
        find_connection(a);
    } else if (why.code == E_DRAINING) {
        op_tries_forget(&a->call->tries, a->endpoint); /* it has another address or certificate. */
        find_connection(a);
    } else {
        over(a, why);
    }
}

/* ---- request: the head goes on, and what is kept ---- */

/* What the upstream is told of the attempt. */
static struct op_fields_try fields_try(const struct op_attempt *a)
{
    const struct dp_request *rq = a->call->rq;
    return (struct op_fields_try){
        .until_ns = a->timed && a->until_ns < rq->deadline_ns ? a->until_ns : rq->deadline_ns,
        .previous = a->number};
}

/* Whether the end of its time would say nothing of the endpoint: its caller has little, or earlier
 * attempts left it little. perTryTimeout is the service's own word. */
static bool is_hurried(const struct op_attempt *a, const struct op_fields_try *how)
{
    const struct dp_request *rq = a->call->rq;
    uint64_t now_ns = net_loop_now_ns(rq->pool->loop);
    uint64_t left_ns = rq->deadline_ns > now_ns ? rq->deadline_ns - now_ns : 0;
    bool little = left_ns < DP_REQUEST_HURRY_MS * UINT64_C(1000000) &&
                  left_ns < (rq->deadline_ns - rq->started_ns) / 2;
    return how->until_ns == rq->deadline_ns && (rq->hurried || little);
}

static MUST_CHECK struct err open_upstream(struct op_attempt *a, struct h2_conn *conn, bool end)
{
    struct op_call *call = a->call;
    const struct h2_fields *received = call->caller->fields;
    if (call->head == NULL) {
        TRY(arena_alloc(&call->rq->arena,
                        (received->count + (size_t)OP_FIELDS_OURS) * sizeof(struct h2_field),
                        (void **)&call->head));
    }
    struct op_fields_room room;
    struct op_fields_try how = fields_try(a);
    a->hurried = is_hurried(a, &how);
    size_t count = op_request_fields(call->rq, received, &how, &room, call->head);
    TRY(h2_conn_request(conn, call->head, count, end, &a->upstream));
    h2_stream_attach(a->upstream, &upstream_events, a);
    return OK;
}

static void send_request(struct op_attempt *a, struct h2_conn *conn)
{
    struct op_call *call = a->call;
    struct net_loop *loop = call->rq->pool->loop;
    bool keeps = op_kept_size(&call->kept) > 0;
    CHECK(call->chosen == NULL);
    CHECK(a->sent == 0);
    struct err err = open_upstream(a, conn, call->caller_ended && !keeps);
    if (err_ok(err)) {
        op_endpoint_report(a->endpoint, /* reached: */ true);
        op_attempt_begin(a->endpoint);
        a->asked = true;
        a->asked_ns = net_loop_now_ns(loop);
        a->first_ns = 0;
        if (keeps) {
            err = op_kept_send(&call->kept, /* skip: */ 0, a->upstream, call->caller_ended);
        }
    }
    if (!err_ok(err)) {
        over(a, err);
        return;
    }
    op_call_asked(a);
}

/* ---- what the upstream answers ---- */

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

static void answered(struct op_attempt *a, const struct h2_fields *fields, bool trailers_only)
{
    a->end = OP_END_ANSWERED;
    a->status = (int)grpc_status_parse(h2_fields_value(fields, H2_TOKEN_GRPC_STATUS));
    op_call_over(a, &(struct op_over){.fields = fields, .trailers_only = trailers_only});
}

/* How long the upstream has had all that the caller sent: what that takes its time for is not the
 * upstream's. Never zero. */
static uint64_t since_fed_ns(const struct op_attempt *a)
{
    const struct op_call *call = a->call;
    uint64_t from_ns = call->fed_ns > a->asked_ns ? call->fed_ns : a->asked_ns;
    uint64_t ns = net_loop_now_ns(call->rq->pool->loop) - from_ns;
    return ns == 0 ? 1 : ns;
}

static void upstream_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct op_attempt *a = h2_stream_user(s);
    op_call_heard(a->call);
    a->first_ns = since_fed_ns(a);
    if (!is_grpc_answer(fields, end)) {
        say_what_came(a->call->rq, fields);
        a->end = OP_END_FAILED;
        over(a, FAIL(E_UPSTREAM_MALFORMED)); /* some server, but none that speaks gRPC. */
        return;
    }
    a->answers = true;
    if (end) {
        answered(a, fields, /* trailers_only: */ true);
    } else {
        op_call_head(a, fields);
    }
}

static void upstream_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_attempt *a = h2_stream_user(s);
    op_call_heard(a->call);
    op_call_data(a, bytes, end);
}

static void upstream_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct op_attempt *a = h2_stream_user(s);
    op_call_heard(a->call);
    if (h2_fields_get(fields, H2_TOKEN_GRPC_STATUS) != NULL) {
        answered(a, fields, /* trailers_only: */ false);
        return;
    }
    a->end = OP_END_FAILED;
    over(a, FAIL(E_UPSTREAM_MALFORMED));
}

static void upstream_sent(struct h2_stream *s, size_t bytes)
{
    op_call_sent(h2_stream_user(s), bytes);
}

/* ---- reset, or sent once more ---- */

/* An upstream that has taken all there is of a request, and waits for the rest, is not late. */
static void note_starved(struct op_attempt *a, const struct h2_stream *upstream)
{
    a->starved = !a->call->caller_ended && h2_stream_queued(upstream) == 0;
}

/* What the endpoint hears of it: a caller ejects nobody by not going on. */
static enum op_end told_end(const struct op_attempt *a)
{
    bool late = a->end == OP_END_TIMEOUT ||
                (a->end == OP_END_ANSWERED && a->status == GRPC_DEADLINE_EXCEEDED);
    return late && a->starved ? OP_END_GIVEN_UP : a->end;
}

static void release(struct op_attempt *a)
{
    if (a->asked) {
        const struct op_outcome how = {.end = told_end(a),
                                       .grpc_status = a->status,
                                       .took_ns = since_fed_ns(a),
                                       .first_ns = a->first_ns,
                                       .hurried = a->hurried};
        a->asked = false;
        op_attempt_end(a->endpoint, &how);
    }
    if (a->timed) {
        net_timer_cancel(a->call->rq->pool->loop, &a->timer);
        a->timed = false;
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

/* gRPC A6: once what the peer's library saw and its application did not; what never left, again
 * and again. */
static bool may_replay(const struct op_call *call, struct h2_reset why)
{
    return why.unprocessed && call->chosen == NULL && call->replays < REPLAYS_MAX &&
           (why.unsent || !call->refused_once);
}

static void replay(struct op_attempt *a, struct h2_reset why)
{
    struct op_call *call = a->call;
    const struct op_state *state = op_call_state(call);
    metrics_add(dp_request_metrics_shard(call->rq->pool->metrics), state->replays, 1);
    a->end = why.unsent ? OP_END_FAILED : OP_END_GIVEN_UP; /* who drains has not failed. */
    release(a);
    a->end = OP_END_GIVEN_UP;
    a->sent = 0;
    call->replays++;
    call->refused_once = call->refused_once || !why.unsent;
    call->may_repeat = true;
    op_attempt_start(a);
}

static void upstream_reset(struct h2_stream *s, struct h2_reset why)
{
    struct op_attempt *a = h2_stream_user(s);
    a->upstream = NULL;
    note_starved(a, s);
    if (may_replay(a->call, why)) {
        replay(a, why);
        return;
    }
    if (why.too_large) {
        over(a, FAIL(E_HEADERS_TOO_LARGE)); /* it was us who ended it. */
        return;
    }
    say_how_it_ended(a->call->rq, why);
    struct err err = dp_request_why(a->call->rq, FAIL(E_UPSTREAM_RESET));
    a->end = err.code == E_DEADLINE_EXCEEDED ? OP_END_TIMEOUT : OP_END_FAILED;
    over(a, err);
}

void op_attempt_drop(struct op_attempt *attempt)
{
    op_wait_cancel(&attempt->wait);
    if (attempt->upstream != NULL) {
        struct h2_stream *upstream = attempt->upstream;
        attempt->upstream = NULL;
        note_starved(attempt, upstream);
        h2_stream_attach(upstream, /* events: */ NULL, /* user: */ NULL);
        if (!h2_stream_received_end(upstream) || !h2_stream_sent_end(upstream)) {
            h2_stream_reset(upstream, H2_CANCEL);
        }
    }
    release(attempt);
}

static const struct h2_stream_events upstream_events = {.headers = upstream_headers,
                                                        .data = upstream_data,
                                                        .trailers = upstream_trailers,
                                                        .sent = upstream_sent,
                                                        .reset = upstream_reset};
