/* Proves what retries, hedging and mirrors become: rows in the order in which a node looks at them,
 * whatever the order of the source; and which capability they need. */
#include "common/snapshot/format.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define ORDERS                                                                                     \
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: orders, tenant: acme}\n"
#define SHADOW                                                                                     \
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: shadow, tenant: acme}\n"     \
    "spec: {}\n"
#define ROUTE                                                                                      \
    "---\napiVersion: trilane.dev/v1\nkind: Route\nmetadata: {name: r, tenant: acme}\nspec:\n"     \
    "  match: [{path: {prefix: /v1}}]\n  targets: [{service: orders}]\n"

static void make(struct fixture *f, const char *text)
{
    fixture_init(f);
    fixture_add(f, "platform.yaml", FIXTURE_ENVIRONMENT);
    fixture_add(f, "more.yaml", text);
    fixture_compile(f);
}

static Trilane__Parts__V1__Cluster *cluster_of(const struct fixture *f)
{
    const struct cp_part *part = fixture_part(f, CP_PART_ROUTING, "service/acme/orders");
    assert_non_null(part);
    return trilane__parts__v1__cluster__unpack(NULL, part->bytes.size, part->bytes.ptr);
}

static void names_are_in_order_of_precedence(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, ORDERS "spec:\n  methods:\n"
                    "    - names: [\"*\"]\n      retry: {}\n"
                    "    - names: [/a.B/*, /a.B/Get]\n      idempotent: true\n"
                    "      hedging: {maxAttempts: 9, nonFatalStatusCodes: [CANCELLED, ABORTED]}\n"
                    "    - names: [/a.B/Get?*, /b.C/Put]\n      idempotent: true\n"
                    "      hedging: {hedgingDelay: 30ms}\n");
    Trilane__Parts__V1__Cluster *cluster = cluster_of(&f);
    static const char *const wanted[] = {"/a.B/Get", "/b.C/Put", "/a.B/Get?*", "/a.B/*", "*"};
    assert_int_equal(cluster->n_methods, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(cluster->methods[i]->name, wanted[i]);
    }
    const Trilane__Parts__V1__MethodPolicy *exact = cluster->methods[0];
    assert_true(exact->hedged && exact->idempotent);
    assert_int_equal(exact->attempts, 5); /* more count as 5. */
    assert_int_equal(exact->codes, 1 << 1 | 1 << 10);
    assert_int_equal(exact->percentile, 95);
    assert_int_equal(exact->delay_ms, 0);
    assert_int_equal(exact->backoff_ms, 0);
    assert_int_equal(cluster->methods[1]->delay_ms, 30);
    assert_int_equal(cluster->methods[1]->percentile, 0);
    assert_int_equal(cluster->methods[1]->codes, 0);
    const Trilane__Parts__V1__MethodPolicy *any = cluster->methods[4];
    assert_false(any->hedged || any->idempotent);
    assert_int_equal(any->attempts, 3);
    assert_int_equal(any->codes, 1 << 14);
    assert_int_equal(any->backoff_ms, 25);
    assert_int_equal(any->backoff_max_ms, 250);
    assert_int_equal(any->multiplier, 2);
    assert_int_equal(any->try_timeout_ms, 0);
    assert_int_equal(cluster->retry_budget->max_tokens, 100);
    assert_int_equal(cluster->retry_budget->ratio_per_mille, 100);
    assert_int_equal(cluster->retry_budget->active_percent, 20);
    assert_int_equal(cluster->retry_budget->min_concurrent, 3);
    assert_int_equal(cluster->retry_budget->hedges_per_mille, 20);
    trilane__parts__v1__cluster__free_unpacked(cluster, NULL);
    assert_true((cp_compiled_capabilities(f.compiled) & (uint64_t)CAPABILITY_RETRIES) != 0);
    fixture_free(&f);
}

/* The order of a list that has none changes no byte. */
static void the_order_of_the_source_means_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        ORDERS "spec:\n  methods:\n    - {names: [/a.B/C, \"/a.*\"], retry: {}}\n"
               "    - {names: [/a.B/D], idempotent: true, hedging: {}}\n",
        ORDERS "spec:\n  methods:\n    - {hedging: {}, idempotent: true, names: [/a.B/D]}\n"
               "    - {names: [\"/a.*\", /a.B/C], retry: {}}\n",
    };
    struct fixture f[2];
    const struct cp_part *part[2];
    for (size_t i = 0; i < 2; i++) {
        make(&f[i], texts[i]);
        part[i] = fixture_part(&f[i], CP_PART_ROUTING, "service/acme/orders");
    }
    assert_true(slice_eq(part[0]->bytes, part[1]->bytes));
    for (size_t i = 0; i < 2; i++) {
        fixture_free(&f[i]);
    }
}

static void a_service_without_methods_says_nothing_new(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, ORDERS "spec: {retryBudget: {maxTokens: 7}}\n" SHADOW ROUTE);
    Trilane__Parts__V1__Cluster *cluster = cluster_of(&f);
    assert_int_equal(cluster->n_methods, 0);
    assert_null(cluster->retry_budget);
    trilane__parts__v1__cluster__free_unpacked(cluster, NULL);
    assert_int_equal(cp_compiled_capabilities(f.compiled) &
                         (uint64_t)(CAPABILITY_RETRIES | CAPABILITY_MIRRORS),
                     0);
    fixture_free(&f);
}

static void a_mirror_is_of_a_route(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, ORDERS "spec: {}\n" SHADOW ROUTE "  mirror: {service: shadow, perMille: 25}\n");
    const struct cp_part *part = fixture_part(&f, CP_PART_ROUTING, "host/*/v1");
    Trilane__Parts__V1__RouteGroup *group =
        trilane__parts__v1__route_group__unpack(NULL, part->bytes.size, part->bytes.ptr);
    assert_string_equal(group->routes[0]->mirror, "service/acme/shadow");
    assert_int_equal(group->routes[0]->mirror_per_mille, 25);
    trilane__parts__v1__route_group__free_unpacked(group, NULL);
    assert_true((cp_compiled_capabilities(f.compiled) & (uint64_t)CAPABILITY_MIRRORS) != 0);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_in_order_of_precedence),
        cmocka_unit_test(the_order_of_the_source_means_nothing),
        cmocka_unit_test(a_service_without_methods_says_nothing_new),
        cmocka_unit_test(a_mirror_is_of_a_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
