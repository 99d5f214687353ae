/* Proves the life of a request: the order of its steps, that every refusal is answered, counted and
 * released once, that pins hold a model exactly as long as needed, and what deadlines, swaps,
 * cancels and drains do to open ones: a real pool, loop and model, and lanes of the test. */
#include "dataplane/request/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "dataplane/apply/build.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { WAIT_MS = 10000, PATIENCE_MS = 600000, OPEN_MAX = 400 };

/* How the lane's forward() behaves. */
enum forward { WAITS, REFUSES, FAILS_INSIDE, ANSWERS_INSIDE };

static struct {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct metrics *metrics;
    struct dp_request_metrics *request_metrics;
    struct dp_limit_table *limits;
    struct net_loop *loop;
    struct dp_request_pool pool;
    struct dp_refusals *refusals;
    uint64_t version;
    enum forward forward;
    enum err_code route_code;
    bool deferred;
    bool remove_limits; /* of the next models. */
    enum err_code redecide_code;
    struct dp_request *along; /* ends together with the next one that is aborted. */
    uint64_t route_takes_ns;  /* by the clock, which is moved. */
    uint64_t moved_ns;
    char steps[256]; /* what the lane and the front were asked, in order. */
    unsigned refused;
    char explain[DP_REFUSAL_ID_SIZE + 1]; /* what the last refused one was told. */
    unsigned ended;
    bool ended_once;
    enum err_code code; /* of the request that ended last. */
    uint64_t retry_ns;  /* of that. */
    struct dp_verdict verdict;
    uint64_t draw; /* of that. */
} w;

static void step(const char *name)
{
    size_t at = strlen(w.steps);
    (void)snprintf(w.steps + at, sizeof(w.steps) - at, "%s%s", at == 0 ? "" : " ", name);
}

/* ---- a lane ---- */

static struct err lane_route(struct dp_request *rq)
{
    step("route");
    w.moved_ns += w.route_takes_ns;
    clock_shift_for_test((int64_t)w.moved_ns, 0);
    if (w.route_code != E_OK) {
        return FAIL(w.route_code);
    }
    const struct dp_cluster *c = dp_model_cluster(rq->model, SLICE_LIT("service/acme/orders"));
    assert_non_null(c);
    rq->deferred = w.deferred;
    rq->target = w.deferred ? NULL : &c->target;
    rq->transport = dp_model_transport(rq->model, c->transport);
    rq->route_timeout_ms = PATIENCE_MS; /* a call ends by its time only where it asks for one. */
    rq->method = SLICE_LIT("/acme.orders/Get");
    rq->verb = DP_VERB_CALL;
    return OK;
}

static struct err lane_forward(struct dp_request *rq)
{
    step("forward");
    switch (w.forward) {
    case REFUSES:
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    case FAILS_INSIDE:
        dp_request_fail(rq, FAIL(E_UPSTREAM_CONNECT));
        return OK;
    case ANSWERS_INSIDE:
        dp_request_done(rq, OK);
        return OK;
    case WAITS:
        return OK;
    }
    return OK;
}

static void lane_abort(struct dp_request *rq, struct err why)
{
    step("abort");
    if (w.along != NULL) {
        dp_request_cancel(TAKE_PTR(w.along));
    }
    if (rq->answered) {
        dp_request_done(rq, why);
    } else {
        dp_request_fail(rq, why);
    }
}

static struct err lane_redecide(struct dp_request *rq)
{
    (void)rq;
    step("redecide");
    return w.redecide_code == E_OK ? OK : FAIL(w.redecide_code);
}

static const struct dp_lane lane = {.id = DP_LANE_OPERATOR,
                                    .name = "operator",
                                    .route = lane_route,
                                    .forward = lane_forward,
                                    .abort = lane_abort,
                                    .redecide = lane_redecide};

/* ---- a front ---- */

static void front_refuse(struct dp_request *rq)
{
    step("refuse");
    assert_false(rq->answered);
    assert_int_not_equal(rq->err.code, E_OK);
    struct slice explain = dp_request_explain(rq);
    assert_int_equal(explain.size, DP_REFUSAL_ID_SIZE);
    assert_true(slice_eq(dp_request_explain(rq), explain));
    (void)snprintf(w.explain, sizeof(w.explain), "%.*s", SLICE_ARG(explain));
    w.refused++;
}

static void front_ended(struct dp_request *rq)
{
    step("ended");
    w.ended++;
    w.ended_once = true;
    w.code = rq->err.code;
    w.retry_ns = rq->retry_ns;
    w.verdict = rq->verdict;
    w.draw = rq->draw;
}

static const struct dp_front front = {.name = "test", .refuse = front_refuse, .ended = front_ended};

/* ---- the world ---- */

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    publisher_init(&w.publisher);
    assert_true(err_ok(dp_model_bin_new(&w.bin)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    assert_true(
        err_ok(dp_request_metrics_new(w.metrics, metrics_shard(w.metrics, 0), &w.request_metrics)));
    assert_true(err_ok(dp_limit_table_new(64, &w.limits)));
    assert_true(err_ok(net_loop_new(&w.loop)));
    assert_true(err_ok(dp_request_pool_init(&w.pool, w.loop, w.limits, NULL, w.request_metrics)));
    assert_true(err_ok(dp_refusals_new(64, &w.refusals)));
    w.pool.refusals = w.refusals;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_null(w.pool.open);
    dp_request_pool_free(&w.pool);
    dp_refusals_free(w.refusals);
    net_loop_free(w.loop);
    dp_limit_table_free(w.limits);
    dp_request_metrics_free(w.request_metrics);
    metrics_free(w.metrics);
    dp_model_bin_free(w.bin);
    publisher_free(&w.publisher);
    return 0;
}

/* Puts the sample in force; 'allows': with its policy, which lets acme/web call. */
static void adopt(bool allows)
{
    struct content *c = content_sample(1);
    if (!allows) {
        content_remove(c, STREAM_AUTHORISATION, "service/acme/orders");
    }
    if (w.remove_limits) {
        content_remove(c, STREAM_LIMITS, "service/acme/orders");
    }
    struct version *v = version_new(&w.publisher, c, ++w.version, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    struct dp_model *model = NULL;
    struct dp_build_report report;
    assert_true(err_ok(dp_model_build(w.bin, set, NULL, &model, &report)));
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_request_pool_adopt(&w.pool, model);
}

struct ask {
    const char *token;  /* NULL: web's. */
    const char *tenant; /* NULL: none. */
    const char *timeout;
};

static struct dp_request *begin(const struct ask *ask)
{
    struct dp_request *rq = NULL;
    w.steps[0] = '\0';
    w.ended_once = false;
    assert_true(err_ok(dp_request_start(&w.pool, &front, NULL, &lane, &rq)));
    rq->in.token = slice_str(ask->token == NULL ? "token-of-web" : ask->token);
    rq->in.tenant = ask->tenant == NULL ? (struct slice){0} : slice_str(ask->tenant);
    rq->in.timeout = ask->timeout == NULL ? (struct slice){0} : slice_str(ask->timeout);
    rq->in.path = SLICE_LIT("/acme.orders/Get");
    return rq;
}

static struct dp_request *run(const struct ask *ask)
{
    struct dp_request *rq = begin(ask);
    return dp_request_run(rq) == DP_STEP_DONE ? NULL : rq;
}

static int64_t counted(enum err_code code)
{
    const struct slice labels[] = {SLICE_LIT("operator"), slice_str(err_name(code))};
    return metrics_value(w.metrics, metrics_series(w.metrics, DP_METRIC_REQUESTS, labels));
}

/* What the caller was told leads to what is kept. */
static void expect_kept(enum err_code code)
{
    uint64_t id = 0;
    struct dp_refusal entry;
    assert_true(dp_refusal_id_parse(slice_str(w.explain), &id));
    assert_true(dp_refusals_find(w.refusals, id, &entry));
    assert_int_equal(entry.code, code);
    assert_true(slice_eq(dp_refusal_text(&entry, DP_REFUSAL_LANE), SLICE_LIT("operator")));
}

/* The request is refused before the lane had it, by these steps. */
static void expect_refusal(const struct ask *ask, enum err_code code, const char *steps)
{
    unsigned refused = w.refused;
    unsigned ended = w.ended;
    int64_t before = counted(code);
    assert_null(run(ask));
    assert_string_equal(w.steps, steps);
    assert_int_equal(w.code, code);
    assert_int_equal(w.refused, refused + 1);
    assert_int_equal(w.ended, ended + 1);
    assert_int_equal(counted(code), before + 1);
    assert_int_equal(w.pool.open_count, 0);
    expect_kept(code);
}

/* ---- tests ---- */

static void every_refusal_is_answered_counted_and_released_once(void **state)
{
    (void)state;
    const struct ask plain = {0};
    expect_refusal(&plain, E_NOT_READY, "refuse ended");
    adopt(/* allows: */ true);
    expect_refusal(&(struct ask){.token = "wrong"}, E_UNAUTHENTICATED, "refuse ended");
    expect_refusal(&(struct ask){.token = ""}, E_UNAUTHENTICATED, "refuse ended");
    expect_refusal(&(struct ask){.tenant = "globex"}, E_TENANT_MISMATCH, "refuse ended");
    w.route_code = E_NO_ROUTE;
    expect_refusal(&plain, E_NO_ROUTE, "route refuse ended");
    w.route_code = E_OK;
    expect_refusal(&(struct ask){.timeout = "soon"}, E_CONTEXT_INVALID, "route refuse ended");
    expect_refusal(&(struct ask){.timeout = "0S"}, E_DEADLINE_EXCEEDED, "route refuse ended");
    w.forward = REFUSES;
    expect_refusal(&plain, E_NO_HEALTHY_ENDPOINT, "route forward refuse ended");
    w.forward = FAILS_INSIDE;
    expect_refusal(&plain, E_UPSTREAM_CONNECT, "route forward refuse ended");
    dp_request_pool_set_stale(&w.pool, true);
    expect_refusal(&plain, E_SNAPSHOT_STALE, "refuse ended");
    dp_request_pool_set_stale(&w.pool, false);
    adopt(/* allows: */ false);
    expect_refusal(&plain, E_POLICY_DENIED, "route refuse ended");
    dp_request_pool_drain(&w.pool);
    expect_refusal(&plain, E_DRAINING, "refuse ended");
}

static void what_is_no_request_is_refused_by_the_same_door(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    dp_request_refuse(begin(&(struct ask){0}), FAIL(E_CONTEXT_INVALID));
    assert_string_equal(w.steps, "refuse ended");
    assert_int_equal(counted(E_CONTEXT_INVALID), 1);
    assert_int_equal(w.pool.open_count, 0);
}

static void expect_shed(void)
{
    assert_null(run(&(struct ask){0}));
    assert_string_equal(w.steps, "refuse ended");
    assert_int_equal(w.code, E_OVERLOADED);
    assert_true(w.retry_ns >= 500000000);
}

static void a_limit_refuses_with_the_time_to_wait(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    w.forward = ANSWERS_INSIDE;
    unsigned passed = 0;
    while (passed < 10000 && (run(&(struct ask){0}), w.code == E_OK)) {
        passed++;
    }
    assert_int_equal(w.code, E_RATE_LIMITED);
    assert_true(passed > 0);
    assert_string_equal(w.steps, "route refuse ended");
    assert_int_equal(counted(E_OK), passed);
}

/* What is open goes on, and what comes while the queue is long is told when to come again. */
static void a_worker_that_cannot_keep_up_sheds(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){0});
    assert_non_null(rq);
    struct dp_overload before = w.pool.overload;
    w.pool.overload =
        (struct dp_overload){.target_ns = 1, .until_ns = UINT64_MAX, .shed_permille = 1000};
    expect_shed();
    w.pool.overload = before;
    dp_request_done(rq, OK);
    assert_int_equal(w.code, E_OK);
    w.forward = ANSWERS_INSIDE;
    assert_null(run(&(struct ask){0}));
    assert_int_equal(w.code, E_OK);
}

/* By what a request drew its target is chosen, too: of those that pass all targets have calls. */
static void who_is_shed_is_none_of_where_others_go(void **state)
{
    (void)state;
    enum { REQUESTS = 400, PARTS = 4 };
    unsigned passed[PARTS] = {0};
    adopt(/* allows: */ true);
    w.forward = ANSWERS_INSIDE;
    w.pool.overload =
        (struct dp_overload){.target_ns = 1, .until_ns = UINT64_MAX, .shed_permille = 500};
    for (unsigned i = 0; i < REQUESTS; i++) {
        assert_null(run(&(struct ask){0}));
        passed[w.draw % 1000 / (1000 / PARTS)] += w.code != E_OVERLOADED;
    }
    for (size_t i = 0; i < PARTS; i++) { /* 50 of each, and a deviation of 7. */
        assert_true(passed[i] > 15);
    }
}

static void the_lane_ends_what_waits(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){0});
    assert_non_null(rq);
    assert_string_equal(w.steps, "route forward");
    dp_request_done(rq, OK);
    assert_string_equal(w.steps, "route forward ended");
    rq = run(&(struct ask){0});
    dp_request_fail(rq, FAIL(E_UPSTREAM_RESET));
    assert_string_equal(w.steps, "route forward refuse ended");
    assert_int_equal(w.code, E_UPSTREAM_RESET);
}

static void a_caller_that_leaves_is_not_answered(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    dp_request_cancel(run(&(struct ask){0}));
    assert_string_equal(w.steps, "route forward abort ended");
    assert_int_equal(counted(E_CANCELLED), 1);
    assert_int_equal(dp_refusals_count(w.refusals), 0); /* nobody refused it. */
}

static void a_deadline_aborts_and_is_disarmed(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){.timeout = "30m"});
    assert_true(dp_request_left_ms(rq) <= 30);
    assert_true(net_loop_run_until(w.loop, &w.ended_once, WAIT_MS));
    assert_string_equal(w.steps, "route forward abort refuse ended");
    assert_int_equal(w.code, E_DEADLINE_EXCEEDED);
    /* One that is over in time hears nothing of it any more. */
    rq = run(&(struct ask){.timeout = "30m"});
    dp_request_done(rq, OK);
    bool never = false;
    assert_false(net_loop_run_until(w.loop, &never, 60));
    assert_string_equal(w.steps, "route forward ended");
}

/* An upstream whose clock runs out first resets the call: what it did is the deadline's doing. */
static void a_reset_behind_the_deadline_is_the_deadlines(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){.timeout = "30S"});
    dp_request_fail(rq, FAIL(E_UPSTREAM_RESET));
    assert_int_equal(w.code, E_UPSTREAM_RESET);
    rq = run(&(struct ask){.timeout = "30S"});
    rq->sentence = SLICE_LIT("the upstream reset the call");
    clock_shift_for_test(INT64_C(31000000000), 0);
    assert_int_equal(dp_request_why(rq, FAIL(E_UPSTREAM_MALFORMED)).code, E_UPSTREAM_MALFORMED);
    dp_request_fail(rq, FAIL(E_UPSTREAM_RESET));
    assert_int_equal(w.code, E_DEADLINE_EXCEEDED);
    clock_shift_for_test(0, 0);
}

static void a_request_pins_its_model(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){0});
    const struct dp_model *first = rq->model;
    adopt(/* allows: */ true);
    assert_int_equal(dp_request_pool_generations(&w.pool), 2);
    assert_ptr_equal(rq->model, first);
    dp_request_done(rq, OK);
    assert_int_equal(dp_request_pool_generations(&w.pool), 1);
}

static void run_until_one_generation(void)
{
    for (int i = 0; i < WAIT_MS && dp_request_pool_generations(&w.pool) > 1; i++) {
        bool never = false;
        (void)net_loop_run_until(w.loop, &never, 1);
    }
    assert_int_equal(dp_request_pool_generations(&w.pool), 1);
}

static void after_a_swap_the_same_verdict_goes_on(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){0});
    const struct dp_caller *caller = rq->caller;
    rq->in.header_repeated = true; /* of one that balancing looked at. */
    adopt(/* allows: */ true);
    run_until_one_generation();
    assert_string_equal(w.steps, "route forward route");
    assert_int_equal(dp_model_version(rq->model), 2);
    assert_ptr_not_equal(rq->caller, caller);
    assert_true(slice_eq(rq->caller->id, SLICE_LIT("acme/web")));
    dp_request_done(rq, OK);
    assert_int_equal(w.code, E_OK);
}

static void after_a_swap_a_denial_ends_it(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    (void)run(&(struct ask){0});
    adopt(/* allows: */ false);
    run_until_one_generation();
    assert_string_equal(w.steps, "route forward route abort refuse ended");
    assert_int_equal(w.code, E_POLICY_DENIED);
    assert_int_equal(w.pool.open_count, 0);
}

/* More than one turn; each is decided once a swap, also when two swaps follow at once. */
static void many_open_requests_are_decided_over_turns(void **state)
{
    (void)state;
    limits.requests = OPEN_MAX;
    adopt(/* allows: */ true);
    struct dp_request *open[OPEN_MAX];
    size_t count = 0;
    /* The sample's limit lets a burst pass; the clock brings more. */
    while (count < OPEN_MAX) {
        struct dp_request *rq = run(&(struct ask){0});
        if (rq != NULL) {
            open[count++] = rq;
        } else {
            bool never = false;
            assert_int_equal(w.code, E_RATE_LIMITED);
            (void)net_loop_run_until(w.loop, &never, 1);
        }
    }
    struct dp_request *none = NULL;
    assert_int_equal(dp_request_start(&w.pool, &front, NULL, &lane, &none).code, E_OVERLOADED);
    adopt(/* allows: */ true);
    adopt(/* allows: */ true);
    run_until_one_generation();
    for (size_t i = 0; i < OPEN_MAX; i++) {
        assert_int_equal(dp_model_version(open[i]->model), 3);
    }
    unsigned ended = w.ended;
    adopt(/* allows: */ false);
    run_until_one_generation();
    assert_int_equal(w.ended, ended + OPEN_MAX);
    assert_int_equal(counted(E_POLICY_DENIED), OPEN_MAX);
    limits.requests = 20000;
}

/* The loop's turn is not held up, however long each one takes: what is left waits for the next. */
static void a_turn_decides_for_a_bounded_time(void **state)
{
    (void)state;
    enum { COUNT = 10, DECISION_NS = 20000, AT_ONCE = 3 };
    adopt(/* allows: */ true);
    struct dp_request *open[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        open[i] = run(&(struct ask){0});
        assert_non_null(open[i]);
    }
    metrics_id turns = metrics_plain(w.metrics, DP_METRIC_SNAPSHOT_TURN);
    metrics_id turns_cpu = metrics_plain(w.metrics, DP_METRIC_SNAPSHOT_TURN_CPU);
    int64_t before = metrics_value(w.metrics, turns);
    w.route_takes_ns = DECISION_NS;
    adopt(/* allows: */ true);
    run_until_one_generation();
    w.route_takes_ns = 0;
    /* So many fit into the time, at most: a real clock runs beside the one that is moved. */
    assert_true(metrics_value(w.metrics, turns) - before >= (COUNT + AT_ONCE - 1) / AT_ONCE);
    assert_int_equal(metrics_value(w.metrics, turns_cpu), metrics_value(w.metrics, turns));
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(dp_model_version(open[i]->model), 2);
        dp_request_done(open[i], OK);
    }
}

/* What ends before its turn comes is not waited for, nor is what another one's end takes along. */
/* Of one request in 256, and not of the first. */
static void some_turns_are_timed(void **state)
{
    (void)state;
    metrics_id turns = metrics_plain(w.metrics, DP_METRIC_REQUEST_TURN);
    metrics_id turns_cpu = metrics_plain(w.metrics, DP_METRIC_REQUEST_TURN_CPU);
    metrics_id swaps = metrics_plain(w.metrics, DP_METRIC_SNAPSHOT_TURN);
    adopt(/* allows: */ true);
    int64_t before = metrics_value(w.metrics, swaps);
    for (unsigned i = 1; i <= 512; i++) {
        struct dp_request *rq = run(&(struct ask){0});
        assert_int_equal(metrics_value(w.metrics, turns), i / 256);
        assert_int_equal(metrics_value(w.metrics, turns_cpu), i / 256);
        if (rq != NULL) { /* else the rate limit ended it. */
            dp_request_done(rq, OK);
        }
    }
    assert_int_equal(metrics_value(w.metrics, swaps), before);
}

static void what_ends_meanwhile_is_not_decided(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    assert_non_null(run(&(struct ask){0}));
    w.along = run(&(struct ask){0});
    struct dp_request *next = run(&(struct ask){0});
    struct dp_request *newest = run(&(struct ask){0});
    assert_ptr_equal(newest->open_next, next);
    adopt(/* allows: */ false);
    assert_ptr_equal(w.pool.redecide_at, newest);
    dp_request_done(newest, OK);
    assert_ptr_equal(w.pool.redecide_at, next);
    run_until_one_generation();
    assert_int_equal(w.ended, 4);
    assert_int_equal(w.pool.open_count, 0);
    /* All of them may be gone. */
    adopt(/* allows: */ true);
    struct dp_request *gone = run(&(struct ask){0});
    adopt(/* allows: */ true);
    dp_request_done(gone, OK);
    assert_null(w.pool.redecide_at);
    bool never = false;
    (void)net_loop_run_until(w.loop, &never, 3);
    assert_int_equal(dp_request_pool_generations(&w.pool), 1);
}

static void a_deferred_request_is_decided_by_its_messages(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    w.deferred = true;
    struct dp_request *rq = run(&(struct ask){0});
    assert_null(rq->target);
    const struct dp_cluster *orders = dp_model_cluster(rq->model, SLICE_LIT("service/acme/orders"));
    const struct dp_cluster *web = dp_model_cluster(rq->model, SLICE_LIT("service/acme/web"));
    struct slice method = SLICE_LIT("/acme.orders/Get");
    assert_true(err_ok(dp_request_decide(rq, &orders->target, DP_VERB_CALL, method)));
    assert_int_equal(dp_request_decide(rq, &web->target, DP_VERB_CALL, method).code,
                     E_POLICY_DENIED);
    rq->in.header_repeated = true; /* of one that a rule of web's looked at. */
    assert_true(err_ok(dp_request_decide(rq, &orders->target, DP_VERB_CALL, method)));
    adopt(/* allows: */ true);
    run_until_one_generation();
    assert_string_equal(w.steps, "route forward route redecide");
    w.redecide_code = E_POLICY_DENIED;
    adopt(/* allows: */ true);
    run_until_one_generation();
    assert_string_equal(w.steps, "route forward route redecide route redecide abort refuse ended");
}

/* What a limit of a model that is gone said of one message is not told of the request's end. */
static void a_limit_is_forgotten_with_its_model(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    w.deferred = true;
    struct dp_request *rq = run(&(struct ask){0});
    const struct dp_target *orders =
        &dp_model_cluster(rq->model, SLICE_LIT("service/acme/orders"))->target;
    struct slice method = SLICE_LIT("/acme.orders/Get");
    struct err err = OK;
    while (err_ok(err)) { /* ends: the sample has a limit. */
        err = dp_request_decide(rq, orders, DP_VERB_CALL, method);
    }
    assert_int_equal(err.code, E_RATE_LIMITED);
    assert_true(rq->limit.size > 0);
    w.remove_limits = true;
    adopt(/* allows: */ true);
    run_until_one_generation();
    dp_request_fail(rq, FAIL(E_DRAINING));
    uint64_t id = 0;
    struct dp_refusal entry;
    assert_true(dp_refusal_id_parse(slice_str(w.explain), &id));
    assert_true(dp_refusals_find(w.refusals, id, &entry));
    assert_int_equal(dp_refusal_text(&entry, DP_REFUSAL_LIMIT).size, 0);
}

/* What is asked beside leaves the request as it was. */
static void a_question_beside_is_none_of_the_request(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    struct dp_request *rq = run(&(struct ask){0});
    const struct dp_cluster *orders = dp_model_cluster(rq->model, SLICE_LIT("service/acme/orders"));
    const struct dp_cluster *web = dp_model_cluster(rq->model, SLICE_LIT("service/acme/web"));
    struct slice rule = rq->verdict.rule;
    for (int cached = 0; cached < 2; cached++) {
        assert_true(dp_request_may(rq, &orders->target, DP_VERB_CALL, rq->method, cached));
        assert_false(dp_request_may(rq, &web->target, DP_VERB_CALL, rq->method, cached));
    }
    assert_ptr_equal(rq->target, &orders->target);
    assert_true(slice_eq(rq->verdict.rule, rule));
    rq->in.header_repeated = true;
    assert_true(dp_request_may(rq, &orders->target, DP_VERB_CALL, rq->method, true));
    assert_true(rq->in.header_repeated);
    dp_request_done(rq, OK);
}

static void the_end_of_a_drain_aborts_what_is_open(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    assert_non_null(run(&(struct ask){0}));
    assert_non_null(run(&(struct ask){0}));
    struct dp_request *answered = run(&(struct ask){0});
    answered->answered = true;
    dp_request_pool_drain(&w.pool);
    w.steps[0] = '\0';
    dp_request_pool_abort(&w.pool, FAIL(E_DRAINING));
    assert_string_equal(w.steps, "abort ended abort refuse ended abort refuse ended");
    assert_int_equal(counted(E_DRAINING), 3);
    assert_int_equal(w.pool.open_count, 0);
}

static void an_abort_may_take_the_next_one_along(void **state)
{
    (void)state;
    adopt(/* allows: */ true);
    assert_non_null(run(&(struct ask){0}));
    w.along = run(&(struct ask){0});
    assert_non_null(run(&(struct ask){0}));
    dp_request_pool_abort(&w.pool, FAIL(E_DRAINING));
    assert_int_equal(w.ended, 3);
    assert_int_equal(counted(E_DRAINING), 2);
    assert_int_equal(counted(E_CANCELLED), 1);
    assert_int_equal(w.pool.open_count, 0);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(every_refusal_is_answered_counted_and_released_once),
        EACH(what_is_no_request_is_refused_by_the_same_door),
        EACH(a_limit_refuses_with_the_time_to_wait),
        EACH(a_worker_that_cannot_keep_up_sheds),
        EACH(who_is_shed_is_none_of_where_others_go),
        EACH(the_lane_ends_what_waits),
        EACH(a_caller_that_leaves_is_not_answered),
        EACH(a_deadline_aborts_and_is_disarmed),
        EACH(a_reset_behind_the_deadline_is_the_deadlines),
        EACH(a_request_pins_its_model),
        EACH(after_a_swap_the_same_verdict_goes_on),
        EACH(after_a_swap_a_denial_ends_it),
        EACH(many_open_requests_are_decided_over_turns),
        EACH(a_turn_decides_for_a_bounded_time),
        EACH(some_turns_are_timed),
        EACH(what_ends_meanwhile_is_not_decided),
        EACH(a_deferred_request_is_decided_by_its_messages),
        EACH(a_limit_is_forgotten_with_its_model),
        EACH(a_question_beside_is_none_of_the_request),
        EACH(the_end_of_a_drain_aborts_what_is_open),
        EACH(an_abort_may_take_the_next_one_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
