/* Proves who is ejected and for how long: by failures in a row and by success rate, as grpc-status
 * says; that never too many are; what panic does; and what circuit breakers let by. */
#include "tests/unit/dataplane/operator/upstream_world.h"

enum { UNAVAILABLE = 14, NOT_FOUND = 5, DEADLINE_EXCEEDED = 4, FAILURES = 5, BASE_MS = 30000 };

static Trilane__Parts__V1__OutlierDetection rules(void)
{
    Trilane__Parts__V1__OutlierDetection r = TRILANE__PARTS__V1__OUTLIER_DETECTION__INIT;
    r.consecutive_failures = FAILURES;
    r.statuses = 1U << UNAVAILABLE | 1U << 4;
    r.interval_ms = 10000;
    r.base_ejection_ms = BASE_MS;
    r.max_ejection_ms = 300000;
    r.max_ejection_percent = 10;
    r.success_rate_hosts = 5;
    r.success_rate_requests = 100;
    r.success_rate_stdev_milli = 1900;
    return r;
}

static void ends(struct op_endpoint *e, enum op_end end, int status)
{
    op_attempt_begin(e);
    op_attempt_end(e, &(struct op_outcome){.end = end, .grpc_status = status, .took_ns = 1000000});
}

static void fails(struct op_endpoint *e, size_t times)
{
    for (size_t i = 0; i < times; i++) {
        ends(e, OP_END_ANSWERED, UNAVAILABLE);
    }
}

/* Whether any of many calls goes there. */
static bool is_called(struct world *w, const struct op_endpoint *e)
{
    for (size_t i = 0; i < 100; i++) {
        if (world_pick_endpoint(w, i) == e) {
            return true;
        }
    }
    return false;
}

static int64_t ejections(struct world *w, const char *why)
{
    const struct slice labels[] = {SLICE_LIT("service/acme/orders"), slice_str(why)};
    return metrics_value(w->metrics,
                         metrics_series(w->metrics, DP_METRIC_UPSTREAM_EJECTIONS, labels));
}

static int64_t out_now(struct world *w)
{
    const struct slice labels[] = {SLICE_LIT("service/acme/orders"), SLICE_LIT("ejected")};
    return metrics_value(w->metrics,
                         metrics_series(w->metrics, DP_METRIC_UPSTREAM_ENDPOINTS_OUT, labels));
}

static void failures_in_a_row_eject(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 3, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 1);
    fails(e, FAILURES - 1);
    ends(e, OP_END_ANSWERED, 0);
    fails(e, FAILURES - 1);
    ends(e, OP_END_ANSWERED, NOT_FOUND); /* an answer like any other. */
    fails(e, FAILURES - 1);
    assert_true(is_called(w, e));
    ends(e, OP_END_GIVEN_UP, -1); /* says nothing, and forgives nothing. */
    ends(e, OP_END_TIMEOUT, -1);
    assert_false(is_called(w, e));
    assert_int_equal(ejections(w, "consecutive_failures"), 1);
    assert_int_equal(out_now(w), 1);
    e = world_endpoint(w, 0); /* three: no second one goes at the same time. */
    fails(e, 3 * FAILURES);
    assert_true(is_called(w, e));
}

static void resets_count_whatever_statuses_do(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 2, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 0);
    for (size_t i = 0; i < FAILURES; i++) {
        ends(e, OP_END_FAILED, -1);
    }
    assert_false(is_called(w, e));
}

/* A caller ejects nobody by giving them no time; what fails otherwise fails. */
static void a_hurry_of_the_caller_is_no_failure(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 2, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 0);
    const struct {
        struct op_outcome how;
        uint32_t answers;
        uint32_t failures;
    } cases[] = {
        {{.end = OP_END_TIMEOUT, .grpc_status = -1, .hurried = true}, 0, 0},
        {{.end = OP_END_ANSWERED, .grpc_status = DEADLINE_EXCEEDED, .hurried = true}, 0, 0},
        {{.end = OP_END_ANSWERED, .grpc_status = UNAVAILABLE, .hurried = true}, 1, 1},
        {{.end = OP_END_ANSWERED, .grpc_status = 0, .hurried = true}, 1, 0},
        {{.end = OP_END_FAILED, .grpc_status = -1, .hurried = true}, 1, 1},
        {{.end = OP_END_TIMEOUT, .grpc_status = -1}, 1, 1},
        {{.end = OP_END_ANSWERED, .grpc_status = DEADLINE_EXCEEDED}, 1, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        e->record = (struct op_record){0};
        op_attempt_begin(e);
        op_attempt_end(e, &cases[i].how);
        assert_int_equal(e->record.answers, cases[i].answers);
        assert_int_equal(e->record.failures, cases[i].failures);
    }
}

/* 30 s and up to a tenth more; the second time twice that; after a good interval less again. */
static void each_time_is_longer(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 2, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 0);
    for (uint64_t times = 1; times <= 3; times++) {
        fails(e, FAILURES);
        assert_false(is_called(w, e));
        world_pass(w, times * BASE_MS - 100);
        assert_false(is_called(w, e));
        world_pass(w, times * BASE_MS / 10 + 200);
        assert_true(is_called(w, e));
        assert_int_equal(out_now(w), 0);
        fails(e, 1); /* in each interval: it is not forgiven. */
    }
    for (size_t i = 0; i < 10; i++) {
        world_settle(w, 10000);
    }
    assert_int_equal(e->record.times, 0);
}

/* Calls that were under way at the ejection fail behind it: they are not held against who is back.
 */
static void who_is_back_begins_anew(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 2, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 0);
    fails(e, 3 * FAILURES);
    assert_false(is_called(w, e));
    world_pass(w, BASE_MS + BASE_MS / 10 + 100);
    assert_true(is_called(w, e));
    fails(e, FAILURES - 1);
    assert_true(is_called(w, e));
    fails(e, 1);
    assert_false(is_called(w, e));
}

static void nobody_is_ejected_of_one_or_unasked(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 1, .outliers = &r});
    fails(world_endpoint(w, 0), 20);
    assert_true(is_called(w, world_endpoint(w, 0)));
    world_publish(w, &(struct plan){.count = 2});
    fails(world_endpoint(w, 0), 20);
    assert_true(is_called(w, world_endpoint(w, 0)));
    assert_int_equal(ejections(w, "consecutive_failures"), 0);
}

/* With all ejected but one of four all are called again. */
static void panic_calls_all(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    r.max_ejection_percent = 100;
    world_publish(w, &(struct plan){.count = 4, .outliers = &r});
    fails(world_endpoint(w, 0), FAILURES);
    fails(world_endpoint(w, 1), FAILURES);
    assert_false(is_called(w, world_endpoint(w, 0)));
    assert_false(is_called(w, world_endpoint(w, 1)));
    fails(world_endpoint(w, 2), FAILURES);
    for (size_t i = 0; i < 4; i++) {
        assert_true(is_called(w, world_endpoint(w, i)));
    }
    const struct slice label = SLICE_LIT("service/acme/orders");
    assert_true(metrics_value(w->metrics,
                              metrics_series(w->metrics, DP_METRIC_UPSTREAM_PANICS, &label)) > 0);
}

/* Ejected ones stay so over swaps, and come back with the others when nobody is judged any more. */
static void swaps_keep_who_is_ejected(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 3, .outliers = &r});
    struct op_endpoint *e = world_endpoint(w, 1);
    fails(e, FAILURES);
    world_publish(w, &(struct plan){.count = 3, .leave_out = 1, .outliers = &r});
    assert_false(is_called(w, e));
    assert_int_equal(out_now(w), 1);
    world_publish(w, &(struct plan){.count = 3, .leave_out = 2, .outliers = &r});
    (void)world_pick(w, 0);
    assert_int_equal(out_now(w), 0);
    world_publish(w, &(struct plan){.count = 3});
    assert_true(is_called(w, e));
}

/* Six endpoints, one of which fails every second call, and never five in a row. */
static void success_rate_ejects(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    world_publish(w, &(struct plan){.count = 6, .outliers = &r});
    struct op_endpoint *bad = world_endpoint(w, 2);
    for (size_t i = 0; i < 6; i++) {
        struct op_endpoint *e = world_endpoint(w, i);
        for (size_t k = 0; k < 100; k++) {
            ends(e, OP_END_ANSWERED, e == bad && k % 2 == 0 ? UNAVAILABLE : 0);
        }
    }
    assert_true(is_called(w, bad));
    world_settle(w, 10001);
    assert_false(is_called(w, bad));
    assert_int_equal(ejections(w, "success_rate"), 1);
}

/* Too few calls, or too few endpoints that had enough: nobody is judged by them. */
static void success_rate_asks_for_enough(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__OutlierDetection r = rules();
    r.consecutive_failures = 1000;
    world_publish(w, &(struct plan){.count = 6, .outliers = &r});
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < (i < 4 ? 100 : 99); k++) {
            ends(world_endpoint(w, i), OP_END_ANSWERED, i == 2 ? UNAVAILABLE : 0);
        }
    }
    world_settle(w, 10001);
    assert_int_equal(ejections(w, "success_rate"), 0);
    assert_int_equal(world_endpoint(w, 2)->record.answers, 0); /* it counts anew. */
}

static int64_t broken(struct world *w, const char *breaker)
{
    const struct slice labels[] = {SLICE_LIT("service/acme/orders"), slice_str(breaker)};
    return metrics_value(w->metrics, metrics_series(w->metrics, DP_METRIC_UPSTREAM_BROKEN, labels));
}

/* Of three allowed a node of two workers lets two by on each. */
static void breaker_bounds_what_is_under_way(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__CircuitBreakers breakers = TRILANE__PARTS__V1__CIRCUIT_BREAKERS__INIT;
    breakers.requests = 3;
    w->host.worker_count = 2;
    world_publish(w, &(struct plan){.count = 2, .breakers = &breakers});
    struct op_endpoint *held[2];
    for (size_t i = 0; i < 2; i++) {
        held[i] = world_pick_endpoint(w, i);
        op_attempt_begin(held[i]);
    }
    struct op_tries tries = {0};
    struct op_endpoint *e = NULL;
    world_ask(w, 3);
    assert_int_equal(op_upstreams_pick(w->ups, &w->rq, &tries, &e).code, E_CIRCUIT_OPEN);
    assert_int_equal(broken(w, "requests"), 1);
    op_attempt_end(held[0], &(struct op_outcome){.end = OP_END_GIVEN_UP});
    assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
    op_attempt_end(held[1], &(struct op_outcome){.end = OP_END_GIVEN_UP});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(failures_in_a_row_eject),
        WORLD_TEST(resets_count_whatever_statuses_do),
        WORLD_TEST(a_hurry_of_the_caller_is_no_failure),
        WORLD_TEST(each_time_is_longer),
        WORLD_TEST(who_is_back_begins_anew),
        WORLD_TEST(nobody_is_ejected_of_one_or_unasked),
        WORLD_TEST(panic_calls_all),
        WORLD_TEST(swaps_keep_who_is_ejected),
        WORLD_TEST(success_rate_ejects),
        WORLD_TEST(success_rate_asks_for_enough),
        WORLD_TEST(breaker_bounds_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
