/*
 * One call through the operator lane, top to bottom:
 *
 *     start -> attempt ->  bytes both ways  -> trailers -> finish
 *              ^  another one, when nothing was forwarded of this one  |  any failure -> fail
 *
 * Bytes are given back to the sender's window when they left towards the receiver, so that a slow
 * receiver stops the sender, and a stream holds at most one window. gRPC messages are watched, not
 * touched. grpc-status is read where it is: in the trailers.
 *
 * A small request is kept until an attempt is chosen: the one whose answer the caller gets. Until
 * then it can be sent again, because the upstream certainly did nothing with it (attempt.c), or
 * because the method's policy says so (retry.c): for that the head of an answer is held back until
 * a message or the status is there. What is kept is held: its window is given back when it is
 * forgotten.
 */
#include "dataplane/operator/call.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "dataplane/operator/call_impl.h"
#include "dataplane/operator/fields.h"
#include "dataplane/operator/mirror.h"
#include "dataplane/request/request.h"

static void fail(struct op_call *call, struct err why);
static void finish(struct op_call *call, struct err how);

/* ---- start ---- */

static const struct dp_caller_events caller_events;

static void idle_check(struct net_timer *timer, void *ctx);
static void retry_due(struct net_timer *timer, void *ctx);
static void hedge_due(struct net_timer *timer, void *ctx);

struct op_state *op_call_state(const struct op_call *call)
{
    return call->rq->pool->lanes[DP_LANE_OPERATOR];
}

static struct net_loop *loop_of(const struct op_call *call)
{
    return call->rq->pool->loop;
}

/* What the method's policy says of trying more than once. */
static MUST_CHECK struct err begin_retry(struct op_call *call)
{
    struct dp_request *rq = call->rq;
    const struct dp_method_policy *policy = dp_cluster_method(rq->cluster, rq->method);
    if (policy == NULL) {
        return OK;
    }
    struct op_retry *retry = NULL;
    struct op_budget *budget = NULL;
    struct op_state *state = op_call_state(call);
    struct slice key = h2_fields_value(call->caller->fields, H2_TOKEN_IDEMPOTENCY_KEY);
    TRY(arena_alloc(&rq->arena, sizeof(*retry), (void **)&retry));
    TRY(op_budgets_open(state->budgets, rq->cluster, &budget));
    op_retry_begin(retry, policy, budget, policy->idempotent || key.size > 0);
    retry->began_ns = net_loop_now_ns(loop_of(call));
    net_timer_init(&retry->timer, policy->hedged ? hedge_due : retry_due, call);
    call->retry = retry;
    if (policy->hedged) {
        retry->latency_key = op_latency_key(rq->cluster->target.id, rq->method);
        if (op_retry_hedge_delay(retry, state->latencies)) {
            net_timer_arm(loop_of(call), &retry->timer, retry->hedge_ms);
        }
    }
    return OK;
}

static void begin_idle(struct op_call *call)
{
    call->idle_ms = call->rq->transport->idle_timeout_ms;
    net_timer_init(&call->idle_timer, idle_check, call);
    if (call->idle_ms != 0) {
        op_call_heard(call);
        net_timer_arm(loop_of(call), &call->idle_timer, call->idle_ms);
    }
}

struct err op_call_start(struct dp_request *rq)
{
    CHECK(rq->caller_stream.way != NULL);
    void *memory = NULL;
    TRY(arena_alloc(&rq->arena, sizeof(struct op_call), &memory));
    struct op_call *call = memory;
    (void)memset(call, 0, offsetof(struct op_call, first));
    call->rq = rq;
    op_kept_init(&call->kept, op_call_state(call)->h2, limits.stream_buffer_bytes);
    call->caller = &rq->caller_stream;
    call->up.message_max = rq->transport->request_message_bytes;
    call->down.message_max = rq->transport->response_message_bytes;
    call->caller_ended = dp_caller_received_end(call->caller);
    TRY(rq->cluster->method_count == 0 ? OK : begin_retry(call));
    begin_idle(call);
    rq->lane_state = call;
    dp_caller_attach(call->caller, &caller_events, call);
    if (rq->route->mirror_per_mille != 0) {
        call->mirror = op_mirror_start(op_call_state(call)->mirrors, rq);
    }
    op_attempt_init(&call->first, call, /* number: */ 0);
    call->live = &call->first;
    op_attempt_start(&call->first);
    return OK;
}

/* Armed anew when it runs, not with each byte. */
static void idle_check(struct net_timer *timer, void *ctx)
{
    struct op_call *call = ctx;
    uint64_t silent_ms = (net_loop_now_ns(loop_of(call)) - call->heard_ns) / 1000000;
    if (silent_ms >= call->idle_ms) {
        fail(call, FAIL(E_TIMEOUT));
        return;
    }
    net_timer_arm(loop_of(call), timer, call->idle_ms - silent_ms);
}

void op_call_heard(struct op_call *call)
{
    call->heard_ns = net_loop_now_ns(loop_of(call));
}

/* ---- which attempt it is ---- */

static void drop(struct op_call *call, struct op_attempt *attempt)
{
    struct op_attempt **at = &call->live;
    while (*at != attempt) { /* ends: it is among them. */
        at = &(*at)->next;
    }
    *at = attempt->next;
    op_attempt_drop(attempt);
    attempt->next = call->spare;
    call->spare = attempt;
}

/* What it would have said is not said any more. */
static void give_up(struct op_call *call, struct op_attempt *attempt)
{
    drop(call, attempt);
    call->rq->sentence = (struct slice){0};
}

static void drop_others(struct op_call *call, const struct op_attempt *but)
{
    struct op_attempt *a = call->live;
    while (a != NULL) {
        struct op_attempt *next = a->next;
        if (a != but) {
            drop(call, a);
        }
        a = next;
    }
}

void op_call_note_upstream(struct dp_request *rq, const struct op_endpoint *endpoint)
{
    struct slice text = op_endpoint_text(endpoint);
    if (!slice_eq(rq->upstream, text) && !err_ok(arena_dup(&rq->arena, text, &rq->upstream))) {
        rq->upstream = (struct slice){0};
    }
}

static void settle_retry(struct op_call *call, struct op_attempt *chosen)
{
    net_timer_cancel(loop_of(call), &call->retry->timer);
    if (chosen->timed) {
        net_timer_cancel(loop_of(call), &chosen->timer);
    }
    op_retry_settle(call->retry);
    if (chosen->asked) {
        op_call_note_upstream(call->rq, chosen->endpoint);
    }
}

/* The caller gets this one's answer: what is kept is given up, and its window given back. */
static void choose(struct op_call *call, struct op_attempt *attempt)
{
    if (call->chosen != NULL) {
        return;
    }
    call->chosen = attempt;
    drop_others(call, attempt);
    op_kept_free(&call->kept);
    dp_caller_consume(call->caller, attempt->sent);
    if (call->retry != NULL) {
        settle_retry(call, attempt);
    }
}

/* The first attempt that the upstream has. */
static struct op_attempt *first_asked(const struct op_call *call)
{
    struct op_attempt *a = call->live;
    while (a != NULL && a->upstream == NULL) {
        a = a->next;
    }
    return a;
}

/* Keeping holds the caller's window: it must never hold so much that the caller stops. */
static void choose_if_much(struct op_call *call)
{
    uint64_t max = limits.replay_bytes < limits.stream_window_bytes / 2
                       ? limits.replay_bytes
                       : limits.stream_window_bytes / 2;
    if (call->chosen == NULL && op_kept_size(&call->kept) > max) {
        struct op_attempt *first = first_asked(call);
        if (first != NULL) {
            choose(call, first);
        }
    }
}

void op_call_asked(struct op_attempt *attempt)
{
    op_call_note_upstream(attempt->call->rq, attempt->endpoint);
    choose_if_much(attempt->call);
}

/* ---- another attempt ---- */

static MUST_CHECK struct err take_attempt(struct op_call *call, struct op_attempt **out)
{
    struct op_attempt *attempt = call->spare;
    if (attempt == NULL) {
        return arena_alloc(&call->rq->arena, sizeof(**out), (void **)out);
    }
    call->spare = attempt->next;
    *out = attempt;
    return OK;
}

/* The call may be over when this returns. */
static void start_another(struct op_call *call, enum op_count what)
{
    struct op_attempt *attempt = NULL;
    struct err err = take_attempt(call, &attempt);
    if (!err_ok(err)) {
        if (call->live == NULL) {
            fail(call, err);
        }
        return;
    }
    op_attempt_init(attempt, call, call->retry->made++);
    call->rq->attempts = call->retry->made;
    struct op_attempt **at = &call->live;
    while (*at != NULL) { /* ends: they are few. */
        at = &(*at)->next;
    }
    *at = attempt;
    call->may_repeat = true;
    call->refused = OK;
    op_budget_count(call->retry->budget, what);
    op_attempt_start(attempt);
}

/* A node that drains begins nothing. True: what it had is over, too. */
static bool drained(struct op_call *call)
{
    if (!op_call_state(call)->draining) {
        return false;
    }
    if (call->live == NULL) {
        fail(call, FAIL(E_DRAINING));
    }
    return true;
}

static void retry_due(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct op_call *call = ctx;
    if (!drained(call)) {
        start_another(call, OP_COUNT_RETRY);
    }
}

static bool retried(struct op_call *call, struct op_attempt *a, const struct op_failure *failure)
{
    uint64_t pause_ms = 0;
    if (op_call_state(call)->draining ||
        !op_retry_next(call->retry, failure, dp_request_left_ms(call->rq), &pause_ms)) {
        return false;
    }
    give_up(call, a);
    net_timer_arm(loop_of(call), &call->retry->timer, pause_ms);
    return true;
}

static void arm_hedge(struct op_call *call)
{
    if (call->retry->hedge_ms > 0) {
        net_timer_arm(loop_of(call), &call->retry->timer, call->retry->hedge_ms);
    }
}

static void hedge_due(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct op_call *call = ctx;
    struct op_retry *retry = call->retry;
    if (drained(call) || !op_retry_may(retry)) {
        return;
    }
    if (!op_retry_take_hedge(retry)) {
        retry->hedge_ms *= 2;
        arm_hedge(call); /* who waits longer is asked for again, and is in more need. */
        return;
    }
    arm_hedge(call);
    start_another(call, OP_COUNT_HEDGE);
}

/* The call goes on by the others; what this one had of the budget is free. */
static void leave_to_others(struct op_call *call, struct op_attempt *a)
{
    if (a->number > 0) {
        op_retry_give_hedge(call->retry);
    }
    give_up(call, a);
}

/* A failure that is not fatal has the next attempt start at once, or when the upstream says. A node
 * that drains begins none, and leaves those that are under way alone. */
static bool hedged(struct op_call *call, struct op_attempt *a, const struct op_failure *failure)
{
    struct op_retry *retry = call->retry;
    bool others = call->live != a || a->next != NULL;
    if (others && !failure->sent) {
        leave_to_others(call, a);
        return true;
    }
    if (!op_retry_names(retry, failure)) {
        op_retry_unnamed(retry, failure);
        return false;
    }
    uint64_t wait_ms = 0;
    enum op_pushback said = op_retry_hedge_failed(retry, failure, &wait_ms);
    bool may_begin = wait_ms < dp_request_left_ms(call->rq) && !op_call_state(call)->draining;
    if (may_begin && op_retry_take_place(retry, /* first= */ a->number == 0)) {
        give_up(call, a);
        if (said == OP_PUSHBACK_WAIT) {
            retry->paid = true;
            net_timer_arm(loop_of(call), &retry->timer, wait_ms);
        } else {
            arm_hedge(call);
            start_another(call, OP_COUNT_HEDGE);
        }
        return true;
    }
    if (others) {
        leave_to_others(call, a);
    }
    return others;
}

/* What would fail anew in the same way, or not for want of an upstream, is this node's. */
static bool is_ours(struct err why)
{
    return !err_ok(why) && why.code != E_UPSTREAM_CONNECT && why.code != E_UPSTREAM_RESET &&
           why.code != E_UPSTREAM_MALFORMED && why.code != E_NO_HEALTHY_ENDPOINT &&
           why.code != E_TIMEOUT;
}

/* Whether the call goes on without this attempt. */
static bool goes_on(struct op_call *call, struct op_attempt *a, const struct op_over *how)
{
    int status = err_ok(how->why) ? a->status : err_grpc_status(how->why.code);
    const struct op_failure failure = {
        .status = status,
        .sent = a->asked,
        .timed_out = how->timed_out || (status == GRPC_DEADLINE_EXCEEDED && a->timed),
        .ours = is_ours(how->why),
        .pushback =
            how->fields == NULL ? NULL : h2_fields_get(how->fields, H2_TOKEN_GRPC_RETRY_PUSHBACK)};
    if (call->chosen != NULL) {
        return false;
    }
    return call->retry->policy.hedged ? hedged(call, a, &failure) : retried(call, a, &failure);
}

/* The answer that the caller gets is a good one: what was measured, and who won. */
static void note_success(struct op_call *call)
{
    struct op_retry *retry = call->retry;
    if (retry == NULL || call->chosen->noted) {
        return;
    }
    call->chosen->noted = true;
    op_budget_note(retry->budget, /* succeeded= */ true);
    if (retry->policy.hedged) {
        uint64_t us = (net_loop_now_ns(loop_of(call)) - retry->began_ns) / 1000;
        op_latency_add(op_latencies_get(op_call_state(call)->latencies, retry->latency_key), us);
        if (call->chosen->number > 0) {
            op_budget_count(retry->budget, OP_COUNT_WON);
        }
    }
}

/* ---- bytes from the caller to the upstream ---- */

/* As long as no attempt is chosen all have what is kept, and that is sent without another copy. */
static MUST_CHECK struct err keep_and_send(struct op_call *call, struct slice bytes, bool end)
{
    size_t before = op_kept_size(&call->kept);
    struct err err = op_kept_add(&call->kept, bytes);
    for (struct op_attempt *a = call->live; a != NULL && err_ok(err); a = a->next) {
        if (a->upstream != NULL) {
            err = op_kept_send(&call->kept, before, a->upstream, end);
        }
    }
    return err;
}

static MUST_CHECK struct err send_on(struct op_call *call, struct slice bytes, bool end)
{
    if (call->chosen == NULL) {
        return keep_and_send(call, bytes, end);
    }
    struct h2_stream *upstream = call->chosen->upstream;
    return upstream == NULL ? OK : h2_stream_send(upstream, bytes, end);
}

static void caller_data(struct dp_caller_stream *s, struct slice bytes, bool end)
{
    struct op_call *call = s->user;
    call->rq->request_bytes += bytes.size;
    call->caller_ended = call->caller_ended || end;
    op_call_heard(call);
    call->fed_ns = call->heard_ns;
    struct err err = grpc_scan(&call->up, bytes);
    if (err_ok(err) && end) {
        err = grpc_scan_end(&call->up);
    }
    if (err_ok(err)) {
        err = send_on(call, bytes, end);
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err);
        return;
    }
    choose_if_much(call);
    if (call->mirror != NULL) {
        op_mirror_send(call->mirror, bytes, end);
    }
}

void op_call_sent(struct op_attempt *attempt, size_t bytes)
{
    if (attempt->call->chosen == NULL) {
        attempt->sent += bytes;
    } else {
        dp_caller_consume(attempt->call->caller, bytes);
    }
}

static void caller_reset(struct dp_caller_stream *s)
{
    struct op_call *call = s->user;
    dp_request_cancel(call->rq);
}

/* ---- the answer's head ---- */

/* With 'end' it is a trailers-only answer. */
static MUST_CHECK struct err answer_head(struct op_call *call, const struct h2_fields *fields,
                                         bool end)
{
    struct h2_field *head = NULL;
    char previous[16];
    TRY(arena_alloc(&call->rq->arena, ((size_t)fields->count + 2) * sizeof(*head), (void **)&head));
    size_t count = op_response_fields(fields, head);
    if (call->chosen->number > 0) { /* gRPC A6: the caller hears of it, too. */
        int size = snprintf(previous, sizeof(previous), "%" PRIu32, call->chosen->number);
        head[count++] =
            h2_field_of(H2_TOKEN_GRPC_PREVIOUS_ATTEMPTS, slice_of(previous, (size_t)size));
    }
    TRY(dp_caller_respond(call->caller, head, count, end));
    call->rq->answered = true;
    call->rq->http_status = 200;
    return OK;
}

/* A head alone says nothing of the status. While the call could still be tried again, and the
 * caller waits for nothing before it goes on, it is held back. */
static bool holds_head(const struct op_call *call)
{
    return call->chosen == NULL && call->retry != NULL && call->caller_ended &&
           (op_retry_may(call->retry) || call->live->next != NULL);
}

void op_call_head(struct op_attempt *attempt, const struct h2_fields *fields)
{
    struct op_call *call = attempt->call;
    if (holds_head(call)) {
        return; /* it stays with the stream. */
    }
    choose(call, attempt);
    struct err err = answer_head(call, fields, /* end: */ false);
    if (!err_ok(err)) {
        fail(call, err);
    }
}

/* ---- bytes from the upstream to the caller ---- */

static MUST_CHECK struct err forward(struct op_call *call, struct op_attempt *attempt,
                                     struct slice bytes)
{
    choose(call, attempt);
    note_success(call);
    if (!call->rq->answered) {
        TRY(answer_head(call, h2_stream_fields(attempt->upstream), /* end: */ false));
    }
    call->rq->response_bytes += bytes.size;
    TRY(grpc_scan(&call->down, bytes));
    if (call->mirror != NULL) {
        op_mirror_answer(call->mirror, bytes);
    }
    return dp_caller_send(call->caller, bytes);
}

void op_call_data(struct op_attempt *attempt, struct slice bytes, bool end)
{
    struct op_call *call = attempt->call;
    struct err err = bytes.size > 0 ? forward(call, attempt, bytes) : OK;
    if (err_ok(err) && end) {
        err = FAIL(E_UPSTREAM_MALFORMED); /* a gRPC answer ends with trailers. */
    }
    if (err_ok(err)) {
        return;
    }
    if (err.code == E_MALFORMED || err.code == E_UPSTREAM_MALFORMED) {
        attempt->end = OP_END_FAILED;
        err = FAIL(E_UPSTREAM_MALFORMED);
    }
    op_call_over(attempt, &(struct op_over){.why = err});
}

static void caller_sent(struct dp_caller_stream *s, size_t bytes)
{
    struct op_call *call = s->user;
    if (call->chosen != NULL && call->chosen->upstream != NULL) {
        h2_stream_consume(call->chosen->upstream, bytes);
    }
}

/* ---- trailers ---- */

static MUST_CHECK struct err answer_end(struct op_call *call, const struct op_over *how)
{
    if (how->trailers_only) {
        return answer_head(call, how->fields, /* end: */ true);
    }
    struct h2_field *trailers = NULL;
    TRY(grpc_scan_end(&call->down));
    if (!call->rq->answered) {
        TRY(answer_head(call, h2_stream_fields(call->chosen->upstream), /* end: */ false));
    }
    TRY(arena_alloc(&call->rq->arena, ((size_t)how->fields->count + 1) * sizeof(*trailers),
                    (void **)&trailers));
    size_t count = op_response_fields(how->fields, trailers);
    return dp_caller_trailers(call->caller, trailers, count);
}

void op_call_over(struct op_attempt *attempt, const struct op_over *how)
{
    struct op_call *call = attempt->call;
    if (call->retry != NULL && goes_on(call, attempt, how)) {
        return;
    }
    choose(call, attempt);
    struct err err = how->why;
    if (err_ok(err)) {
        err = answer_end(call, how);
        if (err.code == E_MALFORMED) { /* it ended in the midst of a message. */
            attempt->end = OP_END_FAILED;
            err = FAIL(E_UPSTREAM_MALFORMED);
        }
    }
    if (!err_ok(err)) {
        fail(call, err);
        return;
    }
    call->rq->grpc_status = attempt->status;
    if (attempt->status == GRPC_OK) {
        note_success(call);
    }
    finish(call, OK);
}

/* ---- how it ends ---- */

/* Of those that are under way none answered in time, when that is why. */
static void note_timeout(struct op_call *call, struct err why)
{
    bool late = why.code == E_DEADLINE_EXCEEDED || why.code == E_TIMEOUT;
    for (struct op_attempt *a = call->live; late && a != NULL; a = a->next) {
        if (a->end == OP_END_GIVEN_UP && !a->answers) {
            a->end = OP_END_TIMEOUT;
        }
    }
}

static void let_go(struct op_call *call, struct err how)
{
    net_timer_cancel(loop_of(call), &call->idle_timer);
    op_kept_free(&call->kept);
    note_timeout(call, how);
    drop_others(call, /* but: */ NULL);
    if (call->retry != NULL) {
        net_timer_cancel(loop_of(call), &call->retry->timer);
        op_retry_end(call->retry);
    }
    if (call->mirror != NULL) {
        op_mirror_detach(call->mirror, err_ok(how) ? call->rq->grpc_status : -1);
    }
}

/* The caller has the whole answer. */
static void finish(struct op_call *call, struct err how)
{
    let_go(call, how);
    call->rq->lane_state = NULL;
    dp_request_done(call->rq, how);
}

/* The call ends with a refusal of ours: by the front, or as trailers of an answer that began. */
static void fail(struct op_call *call, struct err why)
{
    struct dp_request *rq = call->rq;
    why = dp_request_why(rq, why);
    let_go(call, why);
    rq->lane_state = NULL;
    if (rq->answered && !rq->caller_gone) {
        const struct grpc_refusal refusal = {
            .code = why.code,
            .sentence = rq->sentence,
            .rule = why.code == E_POLICY_DENIED ? rq->verdict.rule : (struct slice){0},
            .version = dp_model_version(rq->model),
            .explain = dp_request_explain(rq)};
        dp_caller_refuse(call->caller, &refusal);
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

static const struct dp_caller_events caller_events = {
    .data = caller_data, .sent = caller_sent, .reset = caller_reset};
