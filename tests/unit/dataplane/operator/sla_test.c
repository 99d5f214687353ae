/* Proves that an endpoint that answers too late has a smaller share, that the share follows what it
 * does, and that it always has some, and so a way back. */
#include "dataplane/request/degraded.h"

#include "tests/unit/dataplane/operator/upstream_world.h"

enum { LATENCY_MS = 3, INTERVAL_MS = 10000, REQUESTS = 20 };

static Trilane__Parts__V1__Sla median(void)
{
    Trilane__Parts__V1__Sla sla = TRILANE__PARTS__V1__SLA__INIT;
    sla.latency_ms = LATENCY_MS;
    sla.percentile = 50;
    sla.interval_ms = INTERVAL_MS;
    sla.requests = REQUESTS;
    return sla;
}

static void answers(struct op_endpoint *e, size_t times, uint64_t took_us)
{
    for (size_t i = 0; i < times; i++) {
        op_attempt_begin(e);
        op_attempt_end(e, &(struct op_outcome){.end = OP_END_ANSWERED, .took_ns = took_us * 1000});
    }
}

/* Of 2000 calls. */
static size_t share(struct world *w, const struct op_endpoint *e)
{
    size_t got = 0;
    for (size_t i = 0; i < 2000; i++) {
        got += world_pick_endpoint(w, i) == e ? 1 : 0;
    }
    return got;
}

static int64_t degraded(struct world *w)
{
    const struct slice labels[] = {SLICE_LIT("service/acme/orders"), SLICE_LIT("degraded")};
    return metrics_value(w->metrics,
                         metrics_series(w->metrics, DP_METRIC_UPSTREAM_ENDPOINTS_OUT, labels));
}

static void who_misses_has_less_and_who_holds_has_more(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 4, .sla = &sla});
    struct op_endpoint *late = world_endpoint(w, 1);
    struct op_endpoint *soon = world_endpoint(w, 2);
    answers(late, 9, 100);
    answers(late, 11, LATENCY_MS * 1000 + 1); /* of 20 the greater half. */
    answers(soon, 10, LATENCY_MS * 1000 + 1); /* the median is not late. */
    answers(soon, 10, LATENCY_MS * 1000);
    assert_in_range(share(w, late), 500, 500);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(degraded(w), 1);
    assert_in_range(share(w, late), 190, 310); /* half of 500, whatever is drawn. */
    assert_in_range(share(w, soon), 500, 700);
    for (size_t i = 0; i < 5; i++) {
        answers(late, REQUESTS, 5000);
        world_pass(w, INTERVAL_MS + 1);
    }
    assert_in_range(share(w, late), 30, 100); /* an eighth, and never less. */
    for (size_t i = 0; i < 3; i++) {
        answers(late, REQUESTS, 500);
        world_pass(w, INTERVAL_MS + 1);
    }
    assert_int_equal(degraded(w), 0);
    assert_in_range(share(w, late), 500, 500);
}

static void too_few_answers_are_no_verdict_but_time_is(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    struct op_endpoint *e = world_endpoint(w, 0);
    answers(e, REQUESTS - 1, 5000);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(degraded(w), 0);
    answers(e, 1, 5000); /* with those before it is enough. */
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(degraded(w), 1);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(degraded(w), 1);
        world_pass(w, INTERVAL_MS + 1);
    }
    assert_int_equal(degraded(w), 0);
}

/* To the head of the answer: a stream that lasts is not late. What is not answered in time is. */
static void what_counts_as_late(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    struct op_endpoint *streams = world_endpoint(w, 0);
    struct op_endpoint *silent = world_endpoint(w, 1);
    for (size_t i = 0; i < REQUESTS; i++) {
        op_attempt_begin(streams);
        op_attempt_end(streams, &(struct op_outcome){.end = OP_END_ANSWERED,
                                                     .took_ns = UINT64_C(60000000000),
                                                     .first_ns = 1000000});
        op_attempt_begin(silent);
        op_attempt_end(silent, &(struct op_outcome){.end = OP_END_TIMEOUT});
    }
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(streams->pace.share, 0);
    assert_int_equal(silent->pace.share, OP_WHOLE_SHARE / 2);
}

/* The node hears of the service, not of its endpoints: from the first that is late to the last that
 * is not, over swaps, and no more when nobody asks or the service is gone. */
static void the_node_hears_of_the_service(void **state)
{
    struct world *w = *state;
    struct dp_degraded *node = NULL;
    assert_int_equal(dp_degraded_new(&node).code, E_OK);
    w->host.degraded = node;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    struct op_endpoint *first = world_endpoint(w, 0);
    struct op_endpoint *second = world_endpoint(w, 1);
    answers(first, REQUESTS, 5000);
    answers(second, REQUESTS, 5000);
    assert_int_equal(dp_degraded_count(node), 0);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(degraded(w), 2);
    assert_int_equal(dp_degraded_count(node), 1);
    uint32_t edition = dp_degraded_edition(node);
    answers(first, REQUESTS, 500);
    answers(second, REQUESTS, 5000);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(degraded(w), 1);
    world_publish(w, &(struct plan){.count = 3, .sla = &sla});
    (void)world_pick(w, 0);
    assert_int_equal(dp_degraded_edition(node), edition); /* nothing else was said meanwhile. */
    for (size_t i = 0; i < 2; i++) {
        answers(second, REQUESTS, 500);
        world_pass(w, INTERVAL_MS + 1);
    }
    assert_int_equal(dp_degraded_count(node), 0);
    answers(second, REQUESTS, 5000);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(dp_degraded_count(node), 1);
    world_publish(w, &(struct plan){.count = 3});
    (void)world_pick(w, 0);
    assert_int_equal(dp_degraded_count(node), 0);
    w->host.degraded = NULL;
    dp_degraded_free(node);
}

/* Who leaves takes it along. */
static void an_endpoint_that_left_is_not_late(void **state)
{
    struct world *w = *state;
    struct dp_degraded *node = NULL;
    assert_int_equal(dp_degraded_new(&node).code, E_OK);
    w->host.degraded = node;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    answers(world_endpoint(w, 1), REQUESTS, 5000);
    world_pass(w, INTERVAL_MS + 1);
    assert_int_equal(dp_degraded_count(node), 1);
    world_publish(w, &(struct plan){.count = 1, .sla = &sla});
    (void)world_pick(w, 0);
    assert_int_equal(dp_degraded_count(node), 0);
    w->host.degraded = NULL;
    dp_degraded_free(node);
}

/* Over a swap that changes the cluster, and back to nothing when nobody asks any more. */
static void swaps_keep_the_share(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    struct op_endpoint *e = world_endpoint(w, 1);
    answers(e, REQUESTS, 5000);
    world_pass(w, INTERVAL_MS + 1);
    world_publish(w, &(struct plan){.count = 3, .sla = &sla});
    (void)world_pick(w, 0);
    assert_int_equal(degraded(w), 1);
    world_publish(w, &(struct plan){.count = 3});
    (void)world_pick(w, 0);
    assert_int_equal(degraded(w), 0);
    assert_int_equal(e->pace.share, 0);
}

/* Who had less than the latency before its caller's time ran out is not late; who had more is. */
static void a_hurry_of_the_caller_is_not_late(void **state)
{
    struct world *w = *state;
    Trilane__Parts__V1__Sla sla = median();
    world_publish(w, &(struct plan){.count = 2, .sla = &sla});
    struct op_endpoint *e = world_endpoint(w, 0);
    for (uint64_t ms = LATENCY_MS - 1; ms <= LATENCY_MS + 1; ms += 2) {
        op_attempt_begin(e);
        op_attempt_end(e, &(struct op_outcome){
                              .end = OP_END_TIMEOUT, .took_ns = ms * 1000000, .hurried = true});
        assert_int_equal(e->pace.answers, ms > LATENCY_MS);
        assert_int_equal(e->pace.late, ms > LATENCY_MS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(who_misses_has_less_and_who_holds_has_more),
        WORLD_TEST(too_few_answers_are_no_verdict_but_time_is),
        WORLD_TEST(what_counts_as_late),
        WORLD_TEST(swaps_keep_the_share),
        WORLD_TEST(a_hurry_of_the_caller_is_not_late),
        WORLD_TEST(the_node_hears_of_the_service),
        WORLD_TEST(an_endpoint_that_left_is_not_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
