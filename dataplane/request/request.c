/*
 * The life of a request, top to bottom.
 *
 * Read the table, then the functions under it in the same order. Each step does one thing, then
 * names the next step. Only this file decides the order; what it calls never looks back. All steps
 * run in one go, without waiting, until the lane has the request; the lane then ends it.
 */
#include "dataplane/request/request.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/context/context.h"
#include "common/context/timeout.h"
#include "dataplane/request/access.h"
#include "dataplane/request/identity.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/pool.h"

/* step, what it settles. The diagram in docs/architecture.md follows this table. */
#define DP_STEPS(X)                                                                                \
    X(admit, "is there a snapshot and room, and in which context does this run?")                  \
    X(identify, "who asks, and for which tenant?")                                                 \
    X(route, "what is asked for, and until when?")                                                 \
    X(authorize, "may this caller do this?")                                                       \
    X(limit, "is there budget left for it?")                                                       \
    X(forward, "the lane does the work and answers")                                               \
    X(reply, "a refusal goes back in the caller's protocol")                                       \
    X(account, "count it, write the access-log line, release everything")

struct dp_step {
    const char *name;
    enum dp_step_next (*run)(struct dp_request *rq);
};

#define X(name, what) static enum dp_step_next step_##name(struct dp_request *rq);
DP_STEPS(X)
#undef X

#define X(name, what) static const struct dp_step dp_step_##name = {#name, step_##name};
DP_STEPS(X)
#undef X

static enum dp_step_next go(struct dp_request *rq, const struct dp_step *next)
{
    CHECK(next != NULL);
    rq->step = next;
    return DP_STEP_MORE;
}

/* Every failure before the lane answered leaves by this door: answered, counted, logged once. */
static enum dp_step_next go_fail(struct dp_request *rq, struct err err)
{
    CHECK(err.code != E_OK);
    CHECK(rq->err.code == E_OK);
    rq->err = err;
    return go(rq, &dp_step_reply);
}

static enum dp_step_next run_steps(struct dp_request *rq)
{
    enum dp_step_next next = DP_STEP_MORE;
    while (next == DP_STEP_MORE) {
        next = rq->step->run(rq);
    }
    return next;
}

enum dp_step_next dp_request_run(struct dp_request *rq)
{
    struct dp_request_metrics *metrics = rq->pool->metrics; /* 'rq' may be over behind its steps. */
    if (rq->step != NULL) {
        return run_steps(rq);
    }
    rq->step = &dp_step_admit;
    if (!dp_request_metrics_times(metrics)) {
        return run_steps(rq);
    }
    struct dp_metrics_turn turn = dp_request_metrics_turn_begin();
    enum dp_step_next next = run_steps(rq);
    dp_request_metrics_took(metrics, &turn);
    return next;
}

void dp_request_refuse(struct dp_request *rq, struct err why)
{
    CHECK(rq->step == NULL);
    (void)go_fail(rq, why);
    CHECK(dp_request_run(rq) == DP_STEP_DONE);
}

/* An id from outside is kept when it is short and printable; else we make one. */
static MUST_CHECK struct err choose_id(struct dp_request *rq, struct slice from_caller,
                                       struct slice *out)
{
    if (context_id_valid(from_caller)) {
        *out = from_caller;
        return OK;
    }
    char text[CONTEXT_ID_SIZE + 1];
    context_id_make(text);
    return arena_dup(&rq->arena, slice_of(text, CONTEXT_ID_SIZE), out);
}

/* Calls of grpc.health.v1 and of the admin port come by here never. */
static bool is_shed(struct dp_request *rq)
{
    struct net_loop *loop = rq->pool->loop;
    uint64_t delay_ns = net_loop_lag_ns(loop);
    dp_request_metrics_waited(rq->pool->metrics, delay_ns);
    uint64_t draw = hash_mix(rq->draw + 1); /* who is shed is none of where the others go. */
    return dp_overload_sheds(&rq->pool->overload, net_loop_now_ns(loop), delay_ns, draw,
                             &rq->retry_ns);
}

static enum dp_step_next step_admit(struct dp_request *rq)
{
    struct trace parent = trace_accept(rq->in.traceparent, (struct slice){0},
                                       /* sampled: */ false, &rq->trace_known);
    rq->trace = rq->trace_known ? trace_child(&parent) : parent;
    struct err err = choose_id(rq, rq->in.request_id, &rq->request_id);
    if (!err_ok(err)) {
        return go_fail(rq, err);
    }
    rq->correlation = context_id_valid(rq->in.correlation) ? rq->in.correlation : rq->request_id;
    if (rq->pool->draining) {
        return go_fail(rq, FAIL(E_DRAINING));
    }
    if (!dp_request_pin(rq)) {
        return go_fail(rq, FAIL(E_NOT_READY));
    }
    if (rq->pool->stale) {
        return go_fail(rq, FAIL(E_SNAPSHOT_STALE));
    }
    if (is_shed(rq)) {
        return go_fail(rq, FAIL(E_OVERLOADED));
    }
    return go(rq, &dp_step_identify);
}

static MUST_CHECK struct err identify(struct dp_request *rq)
{
    const struct dp_credentials by = {.spiffe = rq->in.spiffe,
                                      .serial = rq->in.serial,
                                      .token = rq->in.token,
                                      .peer = rq->in.peer,
                                      .before = rq->token.token};
    struct dp_identified found;
    struct err err = dp_identity_find(rq->pool->identities, rq->model, &by, &found);
    if (!err_ok(err)) {
        rq->sentence = slice_str(found.sentence);
        rq->retry_ns = found.retry_ns;
        rq->limit = err.code == E_RATE_LIMITED ? SLICE_LIT("tokens") : rq->limit;
        return err;
    }
    dp_token_hold(&rq->token, found.token);
    rq->caller = found.caller;
    if (rq->in.tenant.size > 0 && !slice_eq(rq->in.tenant, rq->caller->tenant)) {
        return FAIL(E_TENANT_MISMATCH);
    }
    return OK;
}

static enum dp_step_next step_identify(struct dp_request *rq)
{
    struct err err = identify(rq);
    return err_ok(err) ? go(rq, &dp_step_route) : go_fail(rq, err);
}

/* The timeout that the caller brings, else the route's, else the profile's. */
static MUST_CHECK struct err find_timeout(const struct dp_request *rq, uint64_t *out_ns)
{
    if (rq->in.timeout.size > 0) {
        return timeout_parse_grpc(rq->in.timeout, out_ns);
    }
    if (rq->in.timeout_ms.size > 0) {
        return timeout_parse_ms(rq->in.timeout_ms, out_ns);
    }
    if (rq->unbounded) {
        *out_ns = TIMEOUT_MAX_NS;
        return OK;
    }
    uint64_t ms = rq->route_timeout_ms != 0 ? rq->route_timeout_ms
                  : rq->transport != NULL   ? rq->transport->timeout_ms
                                            : limits.deadline_default_ms;
    *out_ns = ms * 1000000;
    return OK;
}

static void deadline_passed(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct dp_request *rq = ctx;
    CHECK(rq->forwarding);
    rq->lane->abort(rq, FAIL(E_DEADLINE_EXCEEDED));
}

/* Every call has a deadline; a caller's is cut to the profile's bound, but for what may last. */
static MUST_CHECK struct err set_deadline(struct dp_request *rq)
{
    uint64_t ns = 0;
    TRY(find_timeout(rq, &ns));
    uint64_t max_ns = rq->transport == NULL ? 0 : (uint64_t)rq->transport->timeout_max_ms * 1000000;
    bool cut = max_ns != 0 && ns > max_ns && !rq->unbounded;
    if (cut) {
        ns = max_ns;
    }
    if (ns == 0) {
        return FAIL(E_DEADLINE_EXCEEDED);
    }
    bool callers = rq->in.timeout.size > 0 || rq->in.timeout_ms.size > 0;
    rq->hurried = callers && ns < DP_REQUEST_HURRY_MS * UINT64_C(1000000) && !cut;
    rq->deadline_ns = rq->started_ns + ns;
    return OK;
}

static enum dp_step_next step_route(struct dp_request *rq)
{
    struct err err = rq->lane->route(rq);
    if (!err_ok(err)) {
        return go_fail(rq, err);
    }
    CHECK(rq->deferred == (rq->target == NULL));
    CHECK(rq->deferred || rq->transport != NULL);
    err = set_deadline(rq);
    if (!err_ok(err)) {
        return go_fail(rq, err);
    }
    /* What is asked for stands in the messages: the lane asks dp_request_decide() for each. */
    return go(rq, rq->deferred ? &dp_step_forward : &dp_step_authorize);
}

struct dp_policy_query dp_request_policy_query(const struct dp_request *rq,
                                               const struct dp_policy_target *policy,
                                               enum dp_verb verb, struct slice method)
{
    return (struct dp_policy_query){.verb = verb,
                                    .lane = slice_str(rq->lane->name),
                                    .method = method,
                                    .caller = rq->caller,
                                    .header = rq->in.header,
                                    .ctx = rq->in.header_ctx,
                                    .wall_ms = dp_policy_reads_clock(policy) ? clock_wall_ms() : 0};
}

/* Through the cache; one in some is timed. */
static struct dp_verdict decide(struct dp_request *rq, const struct dp_policy_target *policy)
{
    struct dp_policy_query query = dp_request_policy_query(rq, policy, rq->verb, rq->method);
    uint64_t now_ns = net_loop_now_ns(rq->pool->loop);
    /* What was allowed goes on until the rules say otherwise. */
    query.fast = !rq->forwarding && dp_guard_is_fast(&rq->pool->guard, now_ns);
    bool timed = dp_request_metrics_times_decision(rq->pool->metrics);
    uint64_t start_ns = timed ? clock_mono_ns() : 0;
    struct dp_verdict verdict = dp_policy_cache_decide(rq->pool->decisions, policy, &query, now_ns);
    uint64_t took_ns = timed ? clock_mono_ns() - start_ns : 0;
    dp_request_metrics_decision(rq->pool->metrics, &verdict, took_ns);
    bool anew =
        rq->forwarding && !rq->deferred; /* by a swap, all at once: no load to guard against. */
    if (!query.fast && !anew) {
        dp_guard_note(&rq->pool->guard, now_ns, verdict.cached, took_ns);
    }
    return verdict;
}

static MUST_CHECK struct err authorize(struct dp_request *rq)
{
    rq->verdict = decide(rq, dp_model_policy(rq->model, rq->target));
    if (rq->in.header_repeated) { /* by a rule, or by the route. */
        return FAIL(E_HEADER_REPEATED);
    }
    if (rq->verdict.allow) {
        return OK;
    }
    if (rq->verdict.rule.size == 0 && !rq->deferred) {
        rq->sentence = SLICE_LIT("no rule of a policy allows this");
    }
    return FAIL(E_POLICY_DENIED);
}

static enum dp_step_next step_authorize(struct dp_request *rq)
{
    struct err err = authorize(rq);
    return err_ok(err) ? go(rq, &dp_step_limit) : go_fail(rq, err);
}

/* RFC 9110, 9.2.1; of gRPC's methods the node does not know which only read. */
static bool is_safe(const struct dp_request *rq)
{
    static const char *const reads[] = {"GET", "HEAD", "OPTIONS"};
    bool safe = rq->verb == DP_VERB_SUBSCRIBE;
    for (size_t i = 0; rq->verb == DP_VERB_FETCH && i < sizeof(reads) / sizeof(reads[0]); i++) {
        safe = safe || slice_eq(rq->method, slice_str(reads[i]));
    }
    return safe;
}

/* Of a refusal that comes of something else than that the limit is used up. */
static struct err say_refusal(struct dp_request *rq, const struct dp_limit_refusal *refusal)
{
    if (refusal->header.size > 0) {
        return arena_printf(&rq->arena, &rq->sentence, "limit %.*s counts by header %.*s",
                            SLICE_ARG(refusal->limit), SLICE_ARG(refusal->header));
    }
    if (refusal->why == DP_LIMIT_DISK) {
        return arena_printf(
            &rq->arena, &rq->sentence,
            "limit %.*s waits for the disk to know what it counted: retry in %" PRIu64 " ms",
            SLICE_ARG(refusal->limit), refusal->retry_ns / 1000000 + 1);
    }
    if (refusal->why == DP_LIMIT_SHARE) {
        return arena_printf(&rq->arena, &rq->sentence,
                            "limit %.*s is the fleet's, and this node has no share of it now",
                            SLICE_ARG(refusal->limit));
    }
    return OK;
}

static void note_refusal(struct dp_request *rq, const struct dp_limit_refusal *refusal)
{
    rq->retry_ns = refusal->retry_ns;
    rq->limit = refusal->limit;
    dp_request_metrics_limited(rq->pool->metrics, refusal->limit, refusal->why);
    if (!rq->deferred && !err_ok(say_refusal(rq, refusal))) {
        rq->sentence = (struct slice){0};
    }
}

static MUST_CHECK struct err take_from_limits(struct dp_request *rq)
{
    const struct dp_limit_query query = {.method = rq->method,
                                         .caller = rq->caller,
                                         .now_ns = net_loop_now_ns(rq->pool->loop),
                                         .safe = is_safe(rq),
                                         .header = rq->in.header,
                                         .ctx = rq->in.header_ctx};
    struct dp_limit_refusal refusal = {0};
    struct err err = dp_limit_take(rq->pool->limits, dp_model_limits(rq->model, rq->target), &query,
                                   &rq->held, &refusal);
    rq->retry_ns = 0;
    if (!err_ok(err)) {
        note_refusal(rq, &refusal);
    } else if (rq->in.header_repeated) { /* one that a limit counts by. */
        dp_limit_release(rq->pool->limits, &rq->held);
        return FAIL(E_HEADER_REPEATED);
    } else if (rq->deferred) {
        dp_limit_release(rq->pool->limits, &rq->held); /* messages are not in flight. */
    }
    return err;
}

static enum dp_step_next step_limit(struct dp_request *rq)
{
    struct err err = take_from_limits(rq);
    return err_ok(err) ? go(rq, &dp_step_forward) : go_fail(rq, err);
}

static enum dp_step_next step_forward(struct dp_request *rq)
{
    rq->forwarding = true;
    rq->entering = true;
    net_timer_init(&rq->deadline_timer, deadline_passed, rq);
    net_timer_arm(rq->pool->loop, &rq->deadline_timer, dp_request_left_ms(rq));
    struct err err = rq->lane->forward(rq);
    rq->entering = false;
    if (!err_ok(err)) {
        CHECK(!rq->over);
        return go_fail(rq, err);
    }
    return rq->over ? go(rq, rq->answered ? &dp_step_account : &dp_step_reply) : DP_STEP_WAIT;
}

static enum dp_step_next step_reply(struct dp_request *rq)
{
    CHECK(!rq->answered);
    if (!rq->caller_gone) {
        rq->front->refuse(rq);
    }
    return go(rq, &dp_step_account);
}

static enum dp_step_next step_account(struct dp_request *rq)
{
    net_timer_cancel(rq->pool->loop, &rq->deadline_timer);
    dp_limit_release(rq->pool->limits, &rq->held);
    dp_request_metrics_add(rq->pool->metrics, rq);
    if (!err_ok(rq->err) && (!rq->caller_gone || rq->explain != 0)) {
        (void)dp_request_explain(rq); /* has an id from here on, whether it was told or not. */
        dp_refusals_note(rq->pool->refusals, rq);
    }
    if (rq->pool->access_log != NULL) {
        dp_access_add(rq->pool->access_log, rq);
    }
    rq->front->ended(rq);
    dp_request_release(rq);
    return DP_STEP_DONE;
}

/* ---- what the lane and the front say while step forward lasts ---- */

static void end_forward(struct dp_request *rq, struct err err)
{
    CHECK(rq->forwarding);
    CHECK(!rq->over);
    CHECK(rq->err.code == E_OK);
    rq->over = true;
    rq->err = err;
    if (!rq->entering) {
        (void)go(rq, rq->answered || rq->caller_gone ? &dp_step_account : &dp_step_reply);
        CHECK(dp_request_run(rq) == DP_STEP_DONE);
    }
}

struct err dp_request_authorize(struct dp_request *rq, const struct dp_target *target,
                                enum dp_verb verb, struct slice method)
{
    CHECK(rq->deferred);
    rq->target = target;
    rq->verb = verb;
    rq->method = method;
    rq->limit = (struct slice){0};
    rq->in.header_repeated = false; /* what was asked before may have looked at another one. */
    return authorize(rq);
}

struct err dp_request_decide(struct dp_request *rq, const struct dp_target *target,
                             enum dp_verb verb, struct slice method)
{
    TRY(dp_request_authorize(rq, target, verb, method));
    return take_from_limits(rq);
}

bool dp_request_may(struct dp_request *rq, const struct dp_target *target, enum dp_verb verb,
                    struct slice method, bool cached)
{
    const struct dp_policy_target *policy = dp_model_policy(rq->model, target);
    struct dp_policy_query query = dp_request_policy_query(rq, policy, verb, method);
    bool before = rq->in.header_repeated;
    rq->in.header_repeated = false;
    struct dp_verdict verdict = cached ? dp_policy_cache_decide(rq->pool->decisions, policy, &query,
                                                                net_loop_now_ns(rq->pool->loop))
                                       : dp_policy_decide(policy, &query);
    bool holds = verdict.allow && !rq->in.header_repeated;
    rq->in.header_repeated = before;
    return holds;
}

void dp_request_done(struct dp_request *rq, struct err err)
{
    rq->answered = true;
    end_forward(rq, err);
}

struct err dp_request_why(struct dp_request *rq, struct err err)
{
    if (err.code != E_UPSTREAM_RESET || clock_mono_ns() < rq->deadline_ns) {
        return err;
    }
    rq->sentence = (struct slice){0};
    return FAIL(E_DEADLINE_EXCEEDED);
}

void dp_request_fail(struct dp_request *rq, struct err err)
{
    CHECK(!err_ok(err));
    CHECK(!rq->answered);
    end_forward(rq, dp_request_why(rq, err));
}

void dp_request_cancel(struct dp_request *rq)
{
    dp_request_break(rq, FAIL(E_CANCELLED));
}

void dp_request_break(struct dp_request *rq, struct err why)
{
    CHECK(!err_ok(why));
    CHECK(rq->forwarding);
    rq->caller_gone = true;
    rq->lane->abort(rq, why);
}

/*
 * After a swap an open request is decided anew by the model in force. What it points to moves
 * there; the lane's work goes on when the verdict is the same.
 */
bool dp_request_redecide(struct dp_request *rq)
{
    CHECK(rq->forwarding);
    rq->caller = NULL; /* nothing may point to the model before, whatever comes of this. */
    rq->target = NULL;
    rq->route = NULL;
    rq->cluster = NULL;
    rq->transport = NULL;
    rq->method = (struct slice){0};
    rq->verdict = (struct dp_verdict){0};
    rq->limit = (struct slice){0};
    rq->in.header_repeated = false; /* who looked at one behind the decision did not decide. */
    struct err err = identify(rq);
    if (err_ok(err)) {
        err = rq->lane->route(rq);
    }
    if (err_ok(err)) {
        err = rq->deferred ? rq->lane->redecide(rq) : authorize(rq);
    }
    dp_request_metrics_redecided(rq->pool->metrics, err_ok(err));
    if (!err_ok(err)) {
        rq->lane->abort(rq, err);
        return false;
    }
    return true;
}

void dp_request_token_over(struct dp_token_hold *hold, enum dp_token_outcome why)
{
    struct dp_request *rq =
        (struct dp_request *)(void *)((char *)hold - offsetof(struct dp_request, token));
    CHECK(rq->forwarding);
    if (!rq->over) {
        rq->sentence = slice_str(dp_token_outcome_sentence(why));
        rq->lane->abort(rq, FAIL(dp_token_outcome_code(why)));
    }
}

struct slice dp_request_explain(struct dp_request *rq)
{
    if (rq->explain == 0) {
        rq->explain = dp_refusals_id(rq->pool->refusals);
    }
    if (rq->explain == 0) {
        return (struct slice){0};
    }
    dp_refusal_id_format(rq->explain, rq->explain_text);
    return slice_of(rq->explain_text, DP_REFUSAL_ID_SIZE);
}

uint64_t dp_request_left_ms(const struct dp_request *rq)
{
    uint64_t now_ns = net_loop_now_ns(rq->pool->loop);
    return rq->deadline_ns <= now_ns ? 1 : (rq->deadline_ns - now_ns + 999999) / 1000000;
}
