/* Proves gRPC A6's arithmetic: backoff, push-back, tokens, what is made again and what is not. */
#include "dataplane/operator/retry.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/net/grpc.h"
#include "common/net/loop.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"

static struct {
    struct net_loop *loop;
    struct metrics *metrics;
    struct dp_request_metrics *request_metrics;
    struct dp_lane_host host;
    struct op_budgets *budgets;
    struct dp_cluster cluster;
    struct op_budget *budget;
    struct op_retry retry;
} w;

static const struct dp_method_policy retrying = {.attempts = 3,
                                                 .codes = 1U << GRPC_UNAVAILABLE,
                                                 .backoff_ms = 100,
                                                 .backoff_max_ms = 1000,
                                                 .multiplier = 2};
static const struct dp_method_policy hedging = {
    .hedged = true, .attempts = 3, .codes = 1U << GRPC_UNAVAILABLE, .delay_ms = 10};
static const struct dp_retry_budget usual = {.max_tokens = 10,
                                             .ratio_per_mille = 100,
                                             .active_percent = 20,
                                             .min_concurrent = 3,
                                             .hedges_per_mille = 100};

static void open_call(const struct dp_method_policy *policy, bool safe)
{
    assert_true(err_ok(op_budgets_open(w.budgets, &w.cluster, &w.budget)));
    op_retry_begin(&w.retry, policy, w.budget, safe);
}

static int set_up(void **state)
{
    (void)state;
    assert_true(err_ok(net_loop_new(&w.loop)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    assert_true(
        err_ok(dp_request_metrics_new(w.metrics, metrics_shard(w.metrics, 0), &w.request_metrics)));
    w.host = (struct dp_lane_host){.loop = w.loop, .metrics = w.request_metrics};
    w.cluster = (struct dp_cluster){.target.id = SLICE_LIT("service/a/b"), .retry_budget = usual};
    assert_true(err_ok(op_budgets_new(&w.host, &w.budgets)));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    op_budgets_free(w.budgets);
    dp_request_metrics_free(w.request_metrics);
    metrics_free(w.metrics);
    net_loop_free(w.loop);
    clock_shift_for_test(0, 0);
    return 0;
}

static int64_t counted(enum dp_metric metric, const char *label)
{
    const struct slice values[] = {SLICE_LIT("service/a/b"), slice_str(label)};
    return metrics_value(w.metrics, metrics_series(w.metrics, metric, values));
}

static const struct op_failure unavailable = {.status = GRPC_UNAVAILABLE, .sent = true};

static struct h2_field pushback(const char *text)
{
    return h2_field_of(H2_TOKEN_GRPC_RETRY_PUSHBACK, slice_str(text));
}

/* ---- pure parts ---- */

static void pushback_is_a_time_or_stops(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum op_pushback wanted;
        uint64_t ms;
    } cases[] = {
        {"0", OP_PUSHBACK_WAIT, 0},
        {"1500", OP_PUSHBACK_WAIT, 1500},
        {"2147483647", OP_PUSHBACK_WAIT, 2147483647},
        {"2147483648", OP_PUSHBACK_STOP, 7},
        {"-1", OP_PUSHBACK_STOP, 7},
        {"", OP_PUSHBACK_STOP, 7},
        {"1.5", OP_PUSHBACK_STOP, 7},
        {" 1", OP_PUSHBACK_STOP, 7},
        {"soon", OP_PUSHBACK_STOP, 7},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h2_field field = pushback(cases[i].text);
        uint64_t ms = 7;
        assert_int_equal(op_pushback_read(&field, &ms), cases[i].wanted);
        assert_int_equal(ms, cases[i].ms);
    }
    uint64_t ms = 7;
    assert_int_equal(op_pushback_read(NULL, &ms), OP_PUSHBACK_NONE);
}

static void backoff_grows_to_its_bound_and_jitters(void **state)
{
    (void)state;
    static const uint64_t middle[] = {100, 200, 400, 800, 1000, 1000};
    for (uint32_t i = 0; i < sizeof(middle) / sizeof(middle[0]); i++) {
        assert_int_equal(op_backoff_ms(&retrying, i, 0), middle[i] * 8 / 10);
        assert_int_equal(op_backoff_ms(&retrying, i, 200), middle[i]);
        assert_int_equal(op_backoff_ms(&retrying, i, 400), middle[i] * 12 / 10);
        assert_int_equal(op_backoff_ms(&retrying, i, 401), middle[i] * 8 / 10);
    }
    struct dp_method_policy most = retrying;
    most.backoff_ms = UINT32_MAX - 1;
    most.backoff_max_ms = UINT32_MAX;
    most.multiplier = UINT32_MAX;
    assert_true(op_backoff_ms(&most, UINT32_MAX, 200) <= UINT32_MAX);
}

/* ---- retries ---- */

static void what_is_made_again(void **state)
{
    (void)state;
    struct h2_field stop = pushback("-1");
    struct h2_field wait = pushback("40");
    const struct {
        struct op_failure failure;
        bool safe;
        uint64_t left_ms;
        bool wanted;
    } cases[] = {
        {unavailable, true, 5000, true},
        {unavailable, false, 5000, false},
        {{.status = GRPC_UNAVAILABLE}, false, 5000, true}, /* it was never sent. */
        {{.status = GRPC_OK, .sent = true}, true, 5000, false},
        {{.status = GRPC_INTERNAL, .sent = true}, true, 5000, false},
        {{.status = GRPC_UNAVAILABLE, .ours = true}, true, 5000, false},
        {{.status = GRPC_DEADLINE_EXCEEDED, .sent = true, .timed_out = true}, true, 5000, true},
        {{.status = GRPC_UNAVAILABLE, .sent = true, .pushback = &stop}, true, 5000, false},
        {{.status = GRPC_UNAVAILABLE, .sent = true, .pushback = &wait}, true, 5000, true},
        {{.status = GRPC_UNAVAILABLE, .sent = true, .pushback = &wait}, true, 40, false},
        {unavailable, true, 80, false}, /* the shortest pause would end with the deadline. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t pause_ms = 0;
        open_call(&retrying, cases[i].safe);
        w.budget->tokens = 10000;
        assert_int_equal(op_retry_next(&w.retry, &cases[i].failure, cases[i].left_ms, &pause_ms),
                         cases[i].wanted);
        bool waits = cases[i].wanted && cases[i].failure.pushback != NULL;
        assert_true(!waits || pause_ms == 40);
        assert_true(!cases[i].wanted || waits || (pause_ms >= 80 && pause_ms <= 120));
        op_retry_end(&w.retry);
        assert_int_equal(w.budget->further, 0);
    }
    assert_int_equal(counted(DP_METRIC_ATTEMPTS_DENIED, "pushback"), 1);
}

/* gRPC A6: "or receives a pushback response indicating not to retry". */
static void who_says_not_to_come_again_takes_a_token(void **state)
{
    (void)state;
    struct h2_field stop = pushback("-1");
    struct h2_field wait = pushback("40");
    const struct {
        struct op_failure failure;
        uint32_t takes;
    } cases[] = {
        {{.status = GRPC_INTERNAL, .sent = true, .pushback = &stop}, 1000},
        {{.status = GRPC_INTERNAL, .sent = true, .pushback = &wait}, 0},
        {{.status = GRPC_INTERNAL, .sent = true}, 0},
        {{.status = GRPC_OK, .sent = true, .pushback = &stop}, 0},
        {{.status = GRPC_INTERNAL, .ours = true, .pushback = &stop}, 0},
        {{.status = GRPC_UNAVAILABLE, .sent = true, .pushback = &stop}, 1000}, /* once. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t pause_ms = 0;
        open_call(&retrying, true);
        w.budget->tokens = 10000;
        assert_false(op_retry_next(&w.retry, &cases[i].failure, 5000, &pause_ms));
        assert_int_equal(w.budget->tokens, 10000 - cases[i].takes);
        op_retry_end(&w.retry);
    }
}

static void attempts_have_a_bound(void **state)
{
    (void)state;
    uint64_t pause_ms = 0;
    open_call(&retrying, true);
    for (uint32_t made = 1; made < 3; made++) {
        assert_true(op_retry_may(&w.retry));
        assert_true(op_retry_next(&w.retry, &unavailable, 5000, &pause_ms));
        w.retry.made++;
    }
    assert_false(op_retry_may(&w.retry));
    assert_false(op_retry_next(&w.retry, &unavailable, 5000, &pause_ms));
    assert_int_equal(w.budget->further, 1); /* one at once, however many there were. */
    op_retry_end(&w.retry);
}

/* A time that the upstream said begins the pauses anew. */
static void pushback_begins_the_pauses_anew(void **state)
{
    (void)state;
    struct h2_field wait = pushback("5");
    struct op_failure pushed = unavailable;
    struct dp_method_policy policy = retrying;
    uint64_t pause_ms = 0;
    policy.attempts = DP_ATTEMPTS_MAX;
    pushed.pushback = &wait;
    open_call(&policy, true);
    w.budget->tokens = 10000;
    assert_true(op_retry_next(&w.retry, &unavailable, 5000, &pause_ms));
    assert_true(op_retry_next(&w.retry, &unavailable, 5000, &pause_ms));
    assert_true(pause_ms >= 160);
    assert_true(op_retry_next(&w.retry, &pushed, 5000, &pause_ms));
    assert_int_equal(pause_ms, 5);
    assert_true(op_retry_next(&w.retry, &unavailable, 5000, &pause_ms));
    assert_true(pause_ms >= 80 && pause_ms <= 120);
    op_retry_end(&w.retry);
}

/* ---- the budget ---- */

/* Of calls that all fail few are made again, once the tokens are down to half; those that succeed
 * bring them back, a tenth each. */
static void tokens_stop_a_storm(void **state)
{
    (void)state;
    uint64_t pause_ms = 0;
    size_t again = 0;
    for (size_t i = 0; i < 1000; i++) {
        open_call(&retrying, true);
        again += op_retry_next(&w.retry, &unavailable, 5000, &pause_ms) ? 1 : 0;
        op_retry_end(&w.retry);
    }
    assert_int_equal(again, 4); /* 10 - 4 is above 5, 10 - 5 is not. */
    assert_int_equal(counted(DP_METRIC_ATTEMPTS_DENIED, "tokens"), 996);
    assert_int_equal(w.budget->tokens, 0);
    for (size_t i = 0; i < 50; i++) {
        op_budget_note(w.budget, /* succeeded= */ true);
    }
    assert_false(op_budget_has_tokens(w.budget)); /* half is not enough. */
    op_budget_note(w.budget, true);
    assert_true(op_budget_has_tokens(w.budget));
    for (size_t i = 0; i < 1000; i++) {
        op_budget_note(w.budget, true);
    }
    assert_int_equal(w.budget->tokens, 10000);
    struct dp_retry_budget larger = usual; /* by a new snapshot: as full as it was. */
    larger.max_tokens = 1000;
    w.budget->tokens = 8000;
    op_budget_enter(w.budget, &larger);
    assert_int_equal(w.budget->tokens, 800000);
}

static void further_attempts_are_a_share_of_all(void **state)
{
    (void)state;
    enum op_count why = OP_COUNT_COUNT;
    open_call(&retrying, true);
    for (size_t i = 0; i < 3; i++) {
        assert_true(op_budget_take_retry(w.budget, &why));
    }
    assert_false(op_budget_take_retry(w.budget, &why));
    assert_int_equal(why, OP_COUNT_DENIED_CONCURRENCY);
    for (size_t i = 0; i < 19; i++) {
        op_budget_enter(w.budget, &usual); /* 20 are open: a fifth is 4. */
    }
    assert_true(op_budget_take_retry(w.budget, &why));
    assert_false(op_budget_take_retry(w.budget, &why));
    op_budget_give(w.budget, 4);
    assert_int_equal(w.budget->further, 0);
}

static void pass(uint64_t ms)
{
    static uint64_t passed_ms;
    passed_ms += ms;
    clock_shift_for_test((int64_t)passed_ms * 1000000, 0);
    net_loop_turn(w.loop);
}

/* Clusters come and go with snapshots: what nobody asks for goes, and nothing else. */
static void budgets_that_nobody_asks_for_go(void **state)
{
    (void)state;
    enum { OTHERS = 1000, MINUTE_MS = 60000 };
    struct dp_cluster others = {.retry_budget = usual};
    struct op_budget *held = NULL;
    char id[32];
    open_call(&retrying, true);
    op_retry_end(&w.retry);
    for (unsigned i = 0; i < OTHERS; i++) {
        others.target.id = slice_of(id, (size_t)snprintf(id, sizeof(id), "service/a/%u", i));
        assert_true(err_ok(op_budgets_open(w.budgets, &others, &held)));
        if (i + 1 < OTHERS) {
            op_budget_close(held);
        }
    }
    assert_int_equal(op_budgets_count(w.budgets), OTHERS + 1);
    pass(MINUTE_MS - 1000);
    open_call(&retrying, true);
    w.budget->tokens = 7;
    op_retry_end(&w.retry);
    pass(1000);
    for (size_t i = 0; i < 10; i++) {
        pass(1); /* some a turn. */
    }
    assert_int_equal(op_budgets_count(w.budgets), 2);
    open_call(&retrying, true);
    assert_int_equal(w.budget->tokens, 7);
    op_retry_end(&w.retry);
    for (size_t i = 0; i < 3; i++) {
        pass(MINUTE_MS);
    }
    assert_int_equal(op_budgets_count(w.budgets), 1);
    op_budget_close(held);
}

/* ---- hedges ---- */

static void hedges_are_a_share_of_calls(void **state)
{
    (void)state;
    size_t hedges = 0;
    for (size_t i = 0; i < 1000; i++) {
        open_call(&hedging, true);
        hedges += op_retry_take_hedge(&w.retry) ? 1 : 0;
        op_retry_end(&w.retry);
    }
    /* A tenth, and half of what was saved: the other half is for those who ask again. */
    assert_true(hedges >= 100 && hedges <= 106);
    open_call(&hedging, true);
    w.budget->hedges = 3499;
    assert_false(op_retry_take_hedge(&w.retry)); /* it leaves 5, */
    assert_false(op_retry_take_hedge(&w.retry)); /* then 2.5, */
    assert_true(op_retry_take_hedge(&w.retry));  /* then 1.25. */
    op_retry_end(&w.retry);
    assert_true(counted(DP_METRIC_ATTEMPTS_DENIED, "share") >= 890);
}

static void a_hedge_in_the_place_of_a_failure_needs_no_share(void **state)
{
    (void)state;
    uint64_t wait_ms = 0;
    open_call(&hedging, true);
    w.budget->hedges = 0;
    assert_false(op_retry_take_hedge(&w.retry));
    assert_int_equal(op_retry_hedge_failed(&w.retry, &unavailable, &wait_ms), OP_PUSHBACK_NONE);
    assert_true(op_retry_take_place(&w.retry, /* first= */ true));
    assert_int_equal(w.budget->further, 1);
    struct h2_field stop = pushback("-1");
    struct op_failure stopped = unavailable;
    stopped.pushback = &stop;
    assert_int_equal(op_retry_hedge_failed(&w.retry, &stopped, &wait_ms), OP_PUSHBACK_STOP);
    assert_false(op_retry_may(&w.retry));
    assert_false(op_retry_take_hedge(&w.retry));
    assert_false(op_retry_take_place(&w.retry, /* first= */ true));
    op_retry_end(&w.retry);
}

/* What fails makes room for what takes its place: a call never has more of it than attempts beyond
 * the first, one that waits counted. */
static void a_hedge_has_the_room_of_whom_it_follows(void **state)
{
    (void)state;
    struct dp_method_policy policy = hedging;
    policy.attempts = DP_ATTEMPTS_MAX;
    open_call(&policy, true);
    w.budget->tokens = 10000;
    assert_true(op_retry_take_hedge(&w.retry));
    assert_true(op_retry_take_hedge(&w.retry));
    assert_int_equal(w.budget->further, 2);
    for (size_t i = 0; i < 10; i++) {
        assert_true(op_retry_take_place(&w.retry, /* first= */ false));
        assert_int_equal(w.budget->further, 2);
    }
    w.retry.paid = true; /* the last of these waits, and one more fails: that goes in its stead. */
    assert_true(op_retry_take_place(&w.retry, /* first= */ false));
    assert_false(w.retry.paid);
    assert_int_equal(w.budget->further, 1);
    w.retry.paid = true;
    assert_true(op_retry_take_place(&w.retry, /* first= */ true));
    assert_int_equal(w.budget->further, 1);
    w.budget->tokens = 0;
    assert_false(op_retry_take_place(&w.retry, /* first= */ false));
    assert_int_equal(w.budget->further, 1);
    op_retry_give_hedge(&w.retry); /* the others go on. */
    assert_int_equal(w.budget->further, 0);
    op_retry_end(&w.retry);
    assert_int_equal(w.budget->further, 0);
}

static void a_hedge_waits_for_a_measured_time(void **state)
{
    (void)state;
    struct op_latencies *latencies = NULL;
    struct dp_method_policy measured = hedging;
    measured.delay_ms = 0;
    measured.percentile = 95;
    assert_true(err_ok(op_latencies_new(&latencies)));
    open_call(&hedging, true);
    assert_true(op_retry_hedge_delay(&w.retry, latencies));
    assert_int_equal(w.retry.hedge_ms, 10);
    op_retry_end(&w.retry);
    open_call(&hedging, /* safe= */ false);
    assert_false(op_retry_hedge_delay(&w.retry, latencies));
    op_retry_end(&w.retry);
    open_call(&measured, true);
    w.retry.latency_key = 5;
    assert_false(op_retry_hedge_delay(&w.retry, latencies));
    assert_int_equal(w.retry.hedge_ms, 0);
    for (size_t i = 0; i < 200; i++) {
        op_latency_add(op_latencies_get(latencies, 5), 20000);
    }
    assert_true(op_retry_hedge_delay(&w.retry, latencies));
    assert_true(w.retry.hedge_ms >= 21 && w.retry.hedge_ms <= 24);
    op_retry_end(&w.retry);
    op_latencies_free(latencies);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pushback_is_a_time_or_stops),
        cmocka_unit_test(backoff_grows_to_its_bound_and_jitters),
        CASE(what_is_made_again),
        CASE(who_says_not_to_come_again_takes_a_token),
        CASE(attempts_have_a_bound),
        CASE(pushback_begins_the_pauses_anew),
        CASE(tokens_stop_a_storm),
        CASE(further_attempts_are_a_share_of_all),
        CASE(budgets_that_nobody_asks_for_go),
        CASE(hedges_are_a_share_of_calls),
        CASE(a_hedge_in_the_place_of_a_failure_needs_no_share),
        CASE(a_hedge_has_the_room_of_whom_it_follows),
        CASE(a_hedge_waits_for_a_measured_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
