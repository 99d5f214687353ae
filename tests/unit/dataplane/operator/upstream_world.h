/*
 * upstream_world: a worker's upstreams over a real model, pool and loop, whose clock a test moves.
 * One service, acme/orders, whose endpoints are 10.0.<i / 250>.<i % 250 + 1> in the order of their
 * numbers. Nobody is connected to.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/net/h2.h"
#include "common/net/loop.h"
#include "dataplane/apply/build.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum {
    ROUND_ROBIN = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_ROUND_ROBIN,
    LEAST_REQUEST = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_LEAST_REQUEST,
    PICK_FIRST = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_PICK_FIRST,
    RING_HASH = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RING_HASH,
    RENDEZVOUS = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RENDEZVOUS,
    PEAK_EWMA = TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_PEAK_EWMA,
};

struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct metrics *metrics;
    struct dp_request_metrics *request_metrics;
    struct dp_limit_table *limits;
    struct net_loop *loop;
    struct h2_env *h2;
    struct dp_request_pool pool;
    struct dp_lane_host host;
    struct op_upstreams *ups;
    struct dp_model *model; /* in force; borrowed of the pool. */
    uint64_t version;
    uint64_t passed_ms;
    struct dp_caller caller;
    struct dp_request rq;
    const char *header; /* value of x-session; NULL: the call has none. */
};

/* What is published of the service; zeroed is round robin, and nobody is judged. */
struct plan {
    size_t count;
    size_t leave_out;       /* which of them, from 1; zero: none. */
    uint32_t weights[8];    /* of the first ones; zero: 1. */
    const char *regions[8]; /* of the first ones; NULL: none. */
    const char *zones[8];
    uint32_t policy;
    const char *hash_header;
    bool hash_tenant;
    uint32_t slow_start_ms;
    uint32_t panic_percent; /* zero: 50. */
    uint16_t web_port;      /* content that differs elsewhere. */
    size_t shadows;         /* services "shadow0", "shadow1", … besides. */
    const Trilane__Parts__V1__OutlierDetection *outliers;
    const Trilane__Parts__V1__CircuitBreakers *breakers;
    const Trilane__Parts__V1__Sla *sla;
};

static inline int world_set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    publisher_init(&w->publisher);
    assert_true(err_ok(dp_model_bin_new(&w->bin)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w->metrics)));
    assert_true(err_ok(
        dp_request_metrics_new(w->metrics, metrics_shard(w->metrics, 0), &w->request_metrics)));
    assert_true(err_ok(dp_limit_table_new(64, &w->limits)));
    assert_true(err_ok(net_loop_new(&w->loop)));
    assert_true(err_ok(h2_env_new(w->loop, &w->h2)));
    assert_true(
        err_ok(dp_request_pool_init(&w->pool, w->loop, w->limits, NULL, w->request_metrics)));
    w->host = (struct dp_lane_host){
        .loop = w->loop, .h2 = w->h2, .metrics = w->request_metrics, .requests = &w->pool};
    assert_true(err_ok(op_upstreams_new(&w->host, &w->ups)));
    w->caller = (struct dp_caller){.tenant = SLICE_LIT("acme")};
    *state = w;
    return 0;
}

static inline int world_tear_down(void **state)
{
    struct world *w = *state;
    op_upstreams_free(w->ups);
    dp_request_pool_free(&w->pool);
    net_loop_free(w->loop);
    h2_env_free(w->h2);
    dp_limit_table_free(w->limits);
    dp_request_metrics_free(w->request_metrics);
    metrics_free(w->metrics);
    dp_model_bin_free(w->bin);
    publisher_free(&w->publisher);
    free(w);
    clock_shift_for_test(0, 0);
    return 0;
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

/* Moves the clock, and has what is due run. */
static inline void world_pass(struct world *w, uint64_t ms)
{
    w->passed_ms += ms;
    clock_shift_for_test((int64_t)w->passed_ms * 1000000, 0);
    net_loop_turn(w->loop);
}

/* The same, and what goes on over some turns comes to its end. */
static inline void world_settle(struct world *w, uint64_t ms)
{
    world_pass(w, ms);
    for (size_t i = 0; i < 20; i++) {
        world_pass(w, 1);
    }
}

static inline void world_put_cluster(struct content *c, const struct plan *plan)
{
    Trilane__Parts__V1__Endpoint *endpoints = calloc(plan->count, sizeof(*endpoints));
    Trilane__Parts__V1__Endpoint **list =
        calloc(plan->count, sizeof(Trilane__Parts__V1__Endpoint *));
    char(*addresses)[16] = calloc(plan->count, sizeof(*addresses));
    assert_non_null(endpoints);
    assert_non_null(list);
    assert_non_null(addresses);
    Trilane__Parts__V1__Cluster cluster;
    Trilane__Parts__V1__Balance balance;
    trilane__parts__v1__cluster__init(&cluster);
    trilane__parts__v1__balance__init(&balance);
    for (size_t i = 0; i < plan->count; i++) {
        (void)snprintf(addresses[i], sizeof(addresses[i]), "10.0.%u.%u", (unsigned)(i / 250 % 256),
                       (unsigned)(i % 250 + 1));
        trilane__parts__v1__endpoint__init(&endpoints[i]);
        endpoints[i].address = addresses[i];
        endpoints[i].port = 80;
        endpoints[i].weight = i < 8 && plan->weights[i] != 0 ? plan->weights[i] : 1;
        endpoints[i].region = publisher_text(i < 8 && plan->regions[i] ? plan->regions[i] : "");
        endpoints[i].zone = publisher_text(i < 8 && plan->zones[i] ? plan->zones[i] : "");
        if (i + 1 != plan->leave_out) {
            list[cluster.n_endpoints++] = &endpoints[i];
        }
    }
    balance.policy = (Trilane__Parts__V1__BalancePolicy)plan->policy;
    balance.hash_header = publisher_text(plan->hash_header == NULL ? "" : plan->hash_header);
    balance.hash_tenant = plan->hash_tenant;
    balance.slow_start_ms = plan->slow_start_ms;
    balance.panic_percent = plan->panic_percent == 0 ? 50 : plan->panic_percent;
    union { /* protobuf-c's members are not const, though encoding only reads. */
        const Trilane__Parts__V1__OutlierDetection *given;
        Trilane__Parts__V1__OutlierDetection *wanted;
    } outliers = {.given = plan->outliers};
    union {
        const Trilane__Parts__V1__CircuitBreakers *given;
        Trilane__Parts__V1__CircuitBreakers *wanted;
    } breakers = {.given = plan->breakers};
    union {
        const Trilane__Parts__V1__Sla *given;
        Trilane__Parts__V1__Sla *wanted;
    } sla = {.given = plan->sla};
    cluster.sla = sla.wanted;
    cluster.id = publisher_text("service/acme/orders");
    cluster.tenant = publisher_text("acme");
    cluster.name = publisher_text("orders");
    cluster.endpoints = list;
    cluster.transport = publisher_text("default");
    cluster.balance = &balance;
    cluster.outlier_detection = outliers.wanted;
    cluster.circuit_breakers = breakers.wanted;
    content_put(c, STREAM_ROUTING, "service/acme/orders", &cluster.base);
    free(addresses);
    free(list);
    free(endpoints);
}

/* Services without endpoints, whom nobody may call. */
static inline void world_put_shadows(struct content *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char id[64];
        Trilane__Parts__V1__Cluster cluster;
        trilane__parts__v1__cluster__init(&cluster);
        (void)snprintf(id, sizeof(id), "service/acme/shadow%zu", i);
        cluster.id = id;
        cluster.tenant = publisher_text("acme");
        cluster.name = id + sizeof("service/acme/") - 1;
        cluster.transport = publisher_text("default");
        content_put(c, STREAM_ROUTING, id, &cluster.base);
    }
}

/* Puts a model in force. */
static inline void world_publish(struct world *w, const struct plan *plan)
{
    struct content *c = content_sample(1);
    world_put_cluster(c, plan);
    world_put_shadows(c, plan->shadows);
    if (plan->web_port != 0) {
        content_move_web(c, plan->web_port);
    }
    struct version *v = version_new(&w->publisher, c, ++w->version, NULL);
    struct snap_set *set = version_set(&w->publisher, v, NULL);
    struct dp_build_report report;
    struct err e = dp_model_build(w->bin, set, NULL, &w->model, &report);
    if (!err_ok(e)) {
        fail_msg("%s: %s", err_name(e.code), report.object);
    }
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_request_pool_adopt(&w->pool, w->model);
}

static inline bool world_header(const void *ctx, struct slice name, struct slice *out_value)
{
    const struct world *w = ctx;
    if (w->header == NULL || !slice_eq(name, SLICE_LIT("x-session"))) {
        return false;
    }
    *out_value = slice_str(w->header);
    return true;
}

/* A call of the model in force that drew 'draw', and has no x-session. */
static inline void world_ask(struct world *w, uint64_t draw)
{
    w->header = NULL;
    w->rq = (struct dp_request){.model = w->model, .caller = &w->caller, .draw = draw};
    w->rq.cluster = dp_model_cluster(w->model, SLICE_LIT("service/acme/orders"));
    assert_non_null(w->rq.cluster);
    w->rq.transport = dp_model_transport(w->model, w->rq.cluster->transport);
    w->rq.in.header = world_header;
    w->rq.in.header_ctx = w;
}

static inline struct op_endpoint *world_pick_asked(struct world *w)
{
    struct op_endpoint *e = NULL;
    struct op_tries tries = {0};
    struct err err = op_upstreams_pick(w->ups, &w->rq, &tries, &e);
    if (!err_ok(err)) {
        fail_msg("%s at %s", err_name(err.code), err.where);
    }
    return e;
}

static inline struct op_endpoint *world_pick_endpoint(struct world *w, uint64_t draw)
{
    world_ask(w, draw);
    return world_pick_asked(w);
}

/* Which one it is, by its address. */
static inline size_t world_index(const struct op_endpoint *e)
{
    assert_true(slice_starts(slice_str(e->host), SLICE_LIT("10.0.")));
    char *rest = NULL;
    unsigned long high = strtoul(e->host + sizeof("10.0.") - 1, &rest, 10);
    assert_int_equal(*rest, '.');
    return (size_t)(high * 250 + strtoul(rest + 1, NULL, 10) - 1);
}

static inline size_t world_pick(struct world *w, uint64_t draw)
{
    return world_index(world_pick_endpoint(w, draw));
}

/* The endpoint of that index, which was in a slot once. */
static inline struct op_endpoint *world_endpoint(struct world *w, size_t index)
{
    (void)world_pick(w, 0);
    for (struct op_endpoint *e = w->ups->all->all; e != NULL; e = e->next) {
        if (world_index(e) == index) {
            return e;
        }
    }
    fail_msg("no endpoint %zu", index);
    return NULL;
}
