/*
 * cluster: what a Service says of its endpoints becomes the part of its cluster, with Envoy's
 * defaults; what it does not say is not there; and what cannot be meant is refused where it stands.
 */
#include <stdio.h>

#include "common/snapshot/format.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

static void add_service(struct fixture *f, const char *spec)
{
    char text[2048];
    int size = snprintf(text, sizeof(text),
                        FIXTURE_ENVIRONMENT "---\napiVersion: trilane.dev/v1\nkind: Service\n"
                                            "metadata: {name: orders, tenant: acme}\nspec:\n"
                                            "  endpoints: [{address: 10.0.0.1, port: 80}]\n%s",
                        spec);
    assert_in_range(size, 1, sizeof(text) - 1);
    fixture_init(f);
    fixture_add(f, "platform.yaml", text);
}

static Trilane__Parts__V1__Cluster *compiled(struct fixture *f, const char *spec)
{
    add_service(f, spec);
    fixture_compile(f);
    const struct cp_part *part = fixture_part(f, CP_PART_ROUTING, "service/acme/orders");
    assert_non_null(part);
    return trilane__parts__v1__cluster__unpack(NULL, part->bytes.size, part->bytes.ptr);
}

static uint64_t balancing(const struct fixture *f)
{
    return cp_compiled_capabilities(f->compiled) & CAPABILITY_BALANCING;
}

static void what_is_not_asked_for_is_not_there(void **state)
{
    (void)state;
    struct fixture f;
    Trilane__Parts__V1__Cluster *c = compiled(&f, "");
    assert_null(c->balance);
    assert_null(c->outlier_detection);
    assert_null(c->circuit_breakers);
    assert_null(c->health_check);
    assert_null(c->sla);
    assert_int_equal(balancing(&f), 0);
    trilane__parts__v1__cluster__free_unpacked(c, NULL);
    fixture_free(&f);
}

static void defaults_are_envoys(void **state)
{
    (void)state;
    struct fixture f;
    Trilane__Parts__V1__Cluster *c =
        compiled(&f, "  balance: {}\n  outlierDetection: {}\n  sla: {}\n");
    assert_int_equal(c->balance->policy, TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_ROUND_ROBIN);
    assert_int_equal(c->balance->panic_percent, 50);
    assert_int_equal(c->balance->slow_start_ms, 0);
    const Trilane__Parts__V1__OutlierDetection *o = c->outlier_detection;
    assert_int_equal(o->consecutive_failures, 5);
    assert_int_equal(o->statuses, 1 << 2 | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15);
    assert_int_equal(o->interval_ms, 10000);
    assert_int_equal(o->base_ejection_ms, 30000);
    assert_int_equal(o->max_ejection_ms, 300000);
    assert_int_equal(o->max_ejection_percent, 10);
    assert_int_equal(o->success_rate_hosts, 5);
    assert_int_equal(o->success_rate_requests, 100);
    assert_int_equal(o->success_rate_stdev_milli, 1900);
    assert_int_equal(c->sla->latency_ms, 3);
    assert_int_equal(c->sla->percentile, 50);
    assert_int_equal(c->sla->interval_ms, 10000);
    assert_int_equal(c->sla->requests, 20);
    assert_int_not_equal(balancing(&f), 0);
    trilane__parts__v1__cluster__free_unpacked(c, NULL);
    fixture_free(&f);
}

static void what_is_said_is_there(void **state)
{
    (void)state;
    struct fixture f;
    Trilane__Parts__V1__Cluster *c = compiled(
        &f, "  balance: {policy: ringHash, hashBy: {header: x-session}, slowStart: 30s,"
            " panicThreshold: 0}\n"
            "  outlierDetection: {statuses: [CANCELLED, UNAUTHENTICATED], consecutiveFailures: 3}\n"
            "  circuitBreakers: {maxRequests: 100, maxConnections: 4}\n");
    assert_int_equal(c->balance->policy, TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RING_HASH);
    assert_string_equal(c->balance->hash_header, "x-session");
    assert_false(c->balance->hash_tenant);
    assert_int_equal(c->balance->slow_start_ms, 30000);
    assert_int_equal(c->balance->panic_percent, 0);
    assert_int_equal(c->outlier_detection->statuses, 1 << 1 | 1 << 16);
    assert_int_equal(c->outlier_detection->consecutive_failures, 3);
    assert_int_equal(c->circuit_breakers->requests, 100);
    assert_int_equal(c->circuit_breakers->pending, 0);
    assert_int_equal(c->circuit_breakers->connections, 4);
    trilane__parts__v1__cluster__free_unpacked(c, NULL);
    fixture_free(&f);
    c = compiled(&f, "  balance: {policy: rendezvous, hashBy: {tenant: true}}\n");
    assert_int_equal(c->balance->policy, TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_RENDEZVOUS);
    assert_true(c->balance->hash_tenant);
    trilane__parts__v1__cluster__free_unpacked(c, NULL);
    fixture_free(&f);
}

static void endpoints_say_where_they_are(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "platform.yaml",
                FIXTURE_ENVIRONMENT
                "---\napiVersion: trilane.dev/v1\nkind: Service\n"
                "metadata: {name: orders, tenant: acme}\nspec:\n  endpoints:\n"
                "    - {address: 10.0.0.1, port: 80, locality: {region: eu, zone: a}}\n"
                "    - {address: 10.0.0.2, port: 80, locality: {region: eu}}\n"
                "    - {address: 10.0.0.3, port: 80}\n");
    fixture_compile(&f);
    const struct cp_part *part = fixture_part(&f, CP_PART_ROUTING, "service/acme/orders");
    assert_non_null(part);
    Trilane__Parts__V1__Cluster *c =
        trilane__parts__v1__cluster__unpack(NULL, part->bytes.size, part->bytes.ptr);
    assert_string_equal(c->endpoints[0]->region, "eu");
    assert_string_equal(c->endpoints[0]->zone, "a");
    assert_string_equal(c->endpoints[1]->zone, "");
    assert_string_equal(c->endpoints[2]->region, "");
    assert_int_not_equal(balancing(&f), 0);
    trilane__parts__v1__cluster__free_unpacked(c, NULL);
    fixture_free(&f);
}

static void health_is_asked_for_in_three_ways(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        Trilane__Parts__V1__HealthKind kind;
        const char *service;
        const char *path;
    } cases[] = {
        {"grpc: {}", TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_GRPC, "", ""},
        {"grpc: {service: a.B}", TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_GRPC, "a.B", ""},
        {"http: {}", TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_HTTP, "", "/"},
        {"http: {path: /ready}", TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_HTTP, "", "/ready"},
        {"tcp: true", TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_TCP, "", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char spec[128];
        struct fixture f;
        (void)snprintf(spec, sizeof(spec), "  healthCheck: {%s}\n", cases[i].spec);
        Trilane__Parts__V1__Cluster *c = compiled(&f, spec);
        const Trilane__Parts__V1__HealthCheck *h = c->health_check;
        assert_int_equal(h->kind, cases[i].kind);
        assert_string_equal(h->service, cases[i].service);
        assert_string_equal(h->path, cases[i].path);
        assert_int_equal(h->interval_ms, 10000);
        assert_int_equal(h->timeout_ms, 1000);
        assert_int_equal(h->healthy_threshold, 2);
        assert_int_equal(h->unhealthy_threshold, 3);
        assert_int_not_equal(balancing(&f), 0);
        trilane__parts__v1__cluster__free_unpacked(c, NULL);
        fixture_free(&f);
    }
}

static void what_cannot_be_meant_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        enum cp_diag_code code;
        uint32_t line; /* of the sources: the spec begins at 11. */
    } cases[] = {
        {"  balance: {policy: ringHash}\n", CP_DIAG_KEY_MISSING, 11},
        {"  balance: {policy: rendezvous}\n", CP_DIAG_KEY_MISSING, 11},
        {"  balance: {hashBy: {tenant: true}}\n", CP_DIAG_CHOICE, 11},
        {"  balance:\n    policy: ringHash\n    hashBy: {}\n", CP_DIAG_CHOICE, 13},
        {"  balance: {policy: random}\n", CP_DIAG_NOT_ENUM, 11},
        {"  balance: {panicThreshold: 101}\n", CP_DIAG_OUT_OF_BOUND, 11},
        {"  outlierDetection: {statuses: [OK]}\n", CP_DIAG_NOT_ENUM, 11},
        {"  outlierDetection:\n    baseEjectionTime: 30s\n    maxEjectionTime: 10s\n",
         CP_DIAG_OUT_OF_BOUND, 13},
        {"  circuitBreakers: {}\n", CP_DIAG_CHOICE, 11},
        {"  healthCheck: {}\n", CP_DIAG_CHOICE, 11},
        {"  healthCheck: {tcp: true, grpc: {}}\n", CP_DIAG_CHOICE, 11},
        {"  healthCheck: {http: {path: ready}}\n", CP_DIAG_FORMAT_INVALID, 11},
        {"  sla: {percentile: 100}\n", CP_DIAG_OUT_OF_BOUND, 11},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        add_service(&f, cases[i].spec);
        fixture_refuse(&f, cases[i].code);
        assert_int_equal(f.diags.items[0]->at.line, cases[i].line);
        fixture_free(&f);
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_asked_for_is_not_there),
        cmocka_unit_test(defaults_are_envoys),
        cmocka_unit_test(what_is_said_is_there),
        cmocka_unit_test(endpoints_say_where_they_are),
        cmocka_unit_test(health_is_asked_for_in_three_ways),
        cmocka_unit_test(what_cannot_be_meant_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
