/* Proves that what a cluster's part says of its endpoints is taken within its bounds alone, and
 * that the tables made of it are right at their edges. */
#include "dataplane/apply/cluster.h"

#include <stdlib.h>

#include "dataplane/apply/balance.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"

enum { ARENA_MAX = 64 << 20 };

struct made {
    struct arena arena;
    Trilane__Parts__V1__Cluster m;
    Trilane__Parts__V1__Balance balance;
    Trilane__Parts__V1__OutlierDetection outliers;
    struct dp_endpoint endpoints[2000];
    struct dp_locality here;
    struct dp_cluster cluster;
};

static int set_up(void **state)
{
    struct made *t = calloc(1, sizeof(*t));
    assert_non_null(t);
    arena_init(&t->arena, 4096, ARENA_MAX);
    trilane__parts__v1__cluster__init(&t->m);
    trilane__parts__v1__balance__init(&t->balance);
    trilane__parts__v1__outlier_detection__init(&t->outliers);
    t->balance.panic_percent = 50;
    t->outliers.consecutive_failures = 1;
    t->outliers.statuses = 1 << 14;
    t->outliers.interval_ms = 1;
    t->outliers.base_ejection_ms = 1;
    t->outliers.max_ejection_ms = 1;
    t->outliers.max_ejection_percent = 1;
    for (size_t i = 0; i < 2000; i++) {
        t->endpoints[i] = (struct dp_endpoint){
            .address = SLICE_LIT("10.0.0.1"), .port = (uint16_t)(i + 1), .weight = 1};
    }
    t->cluster = (struct dp_cluster){.endpoints = t->endpoints, .endpoint_count = 3};
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct made *t = *state;
    arena_free(&t->arena);
    free(t);
    return 0;
}

static enum err_code decoded(struct made *t)
{
    t->cluster.endpoints = t->endpoints;
    return dp_decode_balancing(&t->m, &t->arena, &t->here, &t->cluster).code;
}

static void what_is_absent_is_usual(void **state)
{
    struct made *t = *state;
    assert_int_equal(decoded(t), E_OK);
    assert_int_equal(t->cluster.balance.policy, DP_BALANCE_ROUND_ROBIN);
    assert_int_equal(t->cluster.balance.panic_percent, 50);
    assert_int_equal(t->cluster.outliers.consecutive_failures, 0);
    assert_int_equal(t->cluster.breakers.requests, 0);
    t->cluster.endpoint_count = 0;
    assert_int_equal(decoded(t), E_OK);
}

static void a_balance_out_of_bounds_is_refused(void **state)
{
    struct made *t = *state;
    t->m.balance = &t->balance;
    assert_int_equal(decoded(t), E_OK);
    t->balance.panic_percent = 101;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    t->balance.panic_percent = 100;
    t->balance.policy = (Trilane__Parts__V1__BalancePolicy)6;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    t->balance.policy = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RENDEZVOUS;
    assert_int_equal(decoded(t), E_PART_MALFORMED); /* it hashes by nothing, */
    t->balance.hash_tenant = true;
    assert_int_equal(decoded(t), E_OK);
    t->balance.hash_header = publisher_text("x-a");
    assert_int_equal(decoded(t), E_PART_MALFORMED); /* by two, */
    t->balance.hash_tenant = false;
    assert_int_equal(decoded(t), E_OK);
    t->cluster.endpoint_count = DP_RENDEZVOUS_ENDPOINTS_MAX;
    assert_int_equal(decoded(t), E_OK);
    t->cluster.endpoint_count++;
    assert_int_equal(decoded(t), E_PART_MALFORMED); /* looks at too many, */
    t->balance.policy = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RING_HASH;
    assert_int_equal(decoded(t), E_OK);
    t->balance.policy = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_LEAST_REQUEST;
    assert_int_equal(decoded(t), E_PART_MALFORMED); /* or does not hash. */
}

static void outlier_detection_out_of_bounds_is_refused(void **state)
{
    struct made *t = *state;
    Trilane__Parts__V1__OutlierDetection *o = &t->outliers;
    uint32_t *never_zero[] = {&o->consecutive_failures, &o->statuses, &o->interval_ms,
                              &o->base_ejection_ms, &o->max_ejection_percent};
    t->m.outlier_detection = o;
    assert_int_equal(decoded(t), E_OK);
    for (size_t i = 0; i < sizeof(never_zero) / sizeof(never_zero[0]); i++) {
        uint32_t before = *never_zero[i];
        *never_zero[i] = 0;
        assert_int_equal(decoded(t), E_PART_MALFORMED);
        *never_zero[i] = before;
    }
    o->statuses = 1; /* OK is no failure; nor is what is no status. */
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    o->statuses = 1U << 17;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    o->statuses = 1U << 16;
    assert_int_equal(decoded(t), E_OK);
    o->max_ejection_percent = 101;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    o->max_ejection_percent = 100;
    o->base_ejection_ms = 2; /* above the most. */
    assert_int_equal(decoded(t), E_PART_MALFORMED);
}

static void an_sla_out_of_bounds_is_refused(void **state)
{
    struct made *t = *state;
    Trilane__Parts__V1__Sla sla;
    trilane__parts__v1__sla__init(&sla);
    t->m.sla = &sla;
    uint32_t *never_zero[] = {&sla.latency_ms, &sla.percentile, &sla.interval_ms, &sla.requests};
    for (size_t i = 0; i < sizeof(never_zero) / sizeof(never_zero[0]); i++) {
        assert_int_equal(decoded(t), E_PART_MALFORMED);
        *never_zero[i] = 1;
    }
    assert_int_equal(decoded(t), E_OK);
    sla.percentile = 100;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
}

static void a_health_check_out_of_bounds_is_refused(void **state)
{
    struct made *t = *state;
    Trilane__Parts__V1__HealthCheck h;
    trilane__parts__v1__health_check__init(&h);
    t->m.health_check = &h;
    h.kind = TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_GRPC;
    uint32_t *never_zero[] = {&h.interval_ms, &h.timeout_ms, &h.healthy_threshold,
                              &h.unhealthy_threshold};
    for (size_t i = 0; i < sizeof(never_zero) / sizeof(never_zero[0]); i++) {
        assert_int_equal(decoded(t), E_PART_MALFORMED);
        *never_zero[i] = 60;
    }
    assert_int_equal(decoded(t), E_OK);
    h.unhealthy_threshold = 61; /* no board counts so far. */
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    h.unhealthy_threshold = 1;
    h.service = publisher_text("acme.v1.Orders");
    assert_int_equal(decoded(t), E_OK);
    h.path = publisher_text("/");
    assert_int_equal(decoded(t), E_PART_MALFORMED); /* that is another kind's. */
    h.kind = TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_HTTP;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    h.service = publisher_text("");
    assert_int_equal(decoded(t), E_OK);
    h.path = publisher_text("ready");
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    h.path = publisher_text("");
    assert_int_equal(decoded(t), E_PART_MALFORMED);
    h.kind = TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_TCP;
    assert_int_equal(decoded(t), E_OK);
    h.kind = (Trilane__Parts__V1__HealthKind)4;
    assert_int_equal(decoded(t), E_PART_MALFORMED);
}

/* The greatest weights that a part can say: shares stay, sums fit. */
static void weights_are_shared_out_at_their_edges(void **state)
{
    struct made *t = *state;
    t->endpoints[0].weight = UINT32_MAX;
    t->endpoints[1].weight = 1;
    t->endpoints[2].weight = UINT32_MAX;
    assert_int_equal(decoded(t), E_OK);
    const struct dp_level *b = &t->cluster.balance.levels[0];
    assert_true(b->weight_sum > 3 && b->weight_sum <= UINT32_MAX);
    assert_int_equal(b->weight_ends[2], b->weight_sum);
    uint64_t first = b->weight_ends[0];
    assert_int_equal(b->weight_ends[1], first + 1);
    assert_int_equal(dp_level_by_weight(b, 0), 0);
    assert_int_equal(dp_level_by_weight(b, first - 1), 0);
    assert_int_equal(dp_level_by_weight(b, first), 1);
    assert_int_equal(dp_level_by_weight(b, first + 1), 2);
    assert_int_equal(dp_level_by_weight(b, b->weight_sum - 1), 2);
    t->endpoints[0].weight = 7;
    t->endpoints[1].weight = 7;
    t->endpoints[2].weight = 7;
    assert_int_equal(decoded(t), E_OK);
    assert_null(b->weight_ends); /* each weighs 1. */
    assert_int_equal(b->weight_sum, 3);
}

static void a_ring_is_sorted_and_closed(void **state)
{
    struct made *t = *state;
    t->m.balance = &t->balance;
    t->balance.policy = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RING_HASH;
    t->balance.hash_tenant = true;
    t->cluster.endpoint_count = 2000;
    assert_int_equal(decoded(t), E_OK);
    const struct dp_level *b = &t->cluster.balance.levels[0];
    assert_in_range(b->ring_size, 2000, DP_RING_POINTS_MAX + 2000);
    for (size_t i = 1; i < b->ring_size; i++) {
        assert_true(b->ring[i - 1].hash <= b->ring[i].hash);
    }
    assert_int_equal(dp_level_on_ring(b, 0), 0);
    assert_int_equal(dp_level_on_ring(b, b->ring[5].hash), 5);
    assert_int_equal(dp_level_on_ring(b, b->ring[5].hash + 1), 6);
    assert_int_equal(dp_level_on_ring(b, UINT64_MAX), 0); /* round to the first one. */
}

/* The node's zone, its region, the rest; in each as it came. Levels of nobody are left out. */
static void the_nearest_come_first(void **state)
{
    struct made *t = *state;
    static const char *const places[][2] = {{"us", "a"}, {"eu", "a"}, {"", ""},
                                            {"eu", "b"}, {"eu", ""},  {"eu", "a"}};
    for (size_t i = 0; i < 6; i++) {
        t->endpoints[i].region = slice_str(places[i][0]);
        t->endpoints[i].zone = slice_str(places[i][1]);
    }
    t->cluster.endpoint_count = 6;
    assert_int_equal(decoded(t), E_OK);
    assert_int_equal(t->cluster.balance.level_count, 1); /* a node that says nothing. */
    t->here = (struct dp_locality){.region = SLICE_LIT("eu"), .zone = SLICE_LIT("a")};
    assert_int_equal(decoded(t), E_OK);
    static const uint16_t ports[] = {2, 6, 4, 5, 1, 3};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(t->cluster.endpoints[i].port, ports[i]);
    }
    const struct dp_balance *b = &t->cluster.balance;
    assert_int_equal(b->level_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(b->levels[i].first, 2 * i);
        assert_int_equal(b->levels[i].count, 2);
        assert_int_equal(dp_level_by_weight(&b->levels[i], 1), 2 * i + 1);
    }
    t->here.zone = (struct slice){0};
    assert_int_equal(decoded(t), E_OK);
    assert_int_equal(b->level_count, 2);
    assert_int_equal(b->levels[0].count, 4);
    t->here.region = SLICE_LIT("asia");
    assert_int_equal(decoded(t), E_OK);
    assert_int_equal(b->level_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_absent_is_usual, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_balance_out_of_bounds_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(outlier_detection_out_of_bounds_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_health_check_out_of_bounds_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_sla_out_of_bounds_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_are_shared_out_at_their_edges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_nearest_come_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_ring_is_sorted_and_closed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
