/* Proves which policies of retries, hedging and mirrors a node takes from a snapshot, and which one
 * holds for a method. */
#include <stdio.h>

#include "common/snapshot/format.h"
#include "dataplane/apply/part.h"

#include "tests/support/cmocka.h"

typedef Trilane__Parts__V1__MethodPolicy policy;
typedef Trilane__Parts__V1__RetryBudget budget;

static char orders[] = "orders";
static char acme[] = "acme";
static char id[] = "service/acme/orders";

/* What a part of a message becomes. */
static struct err build(const char *key, const ProtobufCMessage *message, struct dp_part **out)
{
    uint8_t bytes[2048];
    assert_true(protobuf_c_message_get_packed_size(message) <= sizeof(bytes));
    size_t size = protobuf_c_message_pack(message, bytes);
    const struct dp_part_from from = {
        .stream = STREAM_ROUTING,
        .format = 1,
        .part = {.key = slice_str(key), .bytes = slice_of(bytes, size)}};
    return dp_part_new(&from, out);
}

static struct err build_cluster(policy **methods, size_t count, budget *its_budget,
                                struct dp_part **out)
{
    Trilane__Parts__V1__Cluster cluster;
    trilane__parts__v1__cluster__init(&cluster);
    cluster.id = id;
    cluster.tenant = acme;
    cluster.name = orders;
    cluster.methods = methods;
    cluster.n_methods = count;
    cluster.retry_budget = its_budget;
    return build(id, &cluster.base, out);
}

static policy a_retry(char *name)
{
    policy p;
    trilane__parts__v1__method_policy__init(&p);
    p.name = name;
    p.attempts = 3;
    p.codes = 1 << 14;
    p.backoff_ms = 10;
    p.backoff_max_ms = 100;
    p.multiplier = 2;
    return p;
}

static policy a_hedge(char *name)
{
    policy p;
    trilane__parts__v1__method_policy__init(&p);
    p.name = name;
    p.hedged = 1;
    p.attempts = 2;
    p.percentile = 95;
    return p;
}

static budget a_budget(void)
{
    budget b;
    trilane__parts__v1__retry_budget__init(&b);
    b.max_tokens = 10;
    b.ratio_per_mille = 100;
    b.active_percent = 20;
    b.min_concurrent = 3;
    b.hedges_per_mille = 20;
    return b;
}

static void the_first_name_that_fits_holds(void **state)
{
    (void)state;
    char get[] = "/a.B/Get";
    char of_b[] = "/a.B/*";
    policy exact = a_retry(get);
    policy glob = a_hedge(of_b);
    policy *methods[] = {&exact, &glob};
    budget b = a_budget();
    struct dp_part *part = NULL;
    assert_true(err_ok(build_cluster(methods, 2, &b, &part)));
    const struct dp_cluster *cluster = &part->as.cluster;
    assert_false(dp_cluster_method(cluster, SLICE_LIT("/a.B/Get"))->hedged);
    assert_true(dp_cluster_method(cluster, SLICE_LIT("/a.B/GetAll"))->hedged);
    assert_null(dp_cluster_method(cluster, SLICE_LIT("/a.C/Get")));
    assert_int_equal(cluster->retry_budget.max_tokens, 10);
    assert_int_equal(cluster->methods[0].backoff_max_ms, 100);
    dp_part_unref(part);
}

enum spoil {
    NAMELESS,
    ONE_ATTEMPT,
    SIX_ATTEMPTS,
    OK_RETRIED,
    CODE_17,
    NO_CODE,
    NO_PAUSE,
    SHORT_MAX,
    NO_MULTIPLIER,
    RETRY_DELAYED,
    HEDGE_PAUSED,
    HEDGE_UNTIMED,
    HEDGE_TWICE_TIMED,
    HEDGE_PERCENT,
    SPOILS
};

static void spoil(policy *retry, policy *hedge, enum spoil how)
{
    static char none[] = "";
    switch (how) {
    case NAMELESS:
        retry->name = none;
        return;
    case ONE_ATTEMPT:
        retry->attempts = 1;
        return;
    case SIX_ATTEMPTS:
        hedge->attempts = 6;
        return;
    case OK_RETRIED:
        retry->codes |= 1;
        return;
    case CODE_17:
        hedge->codes = 1 << 17;
        return;
    case NO_CODE:
        retry->codes = 0;
        return;
    case NO_PAUSE:
        retry->backoff_ms = 0;
        return;
    case SHORT_MAX:
        retry->backoff_max_ms = 9;
        return;
    case NO_MULTIPLIER:
        retry->multiplier = 0;
        return;
    case RETRY_DELAYED:
        retry->delay_ms = 1;
        return;
    case HEDGE_PAUSED:
        hedge->backoff_ms = 1;
        return;
    case HEDGE_UNTIMED:
        hedge->percentile = 0;
        return;
    case HEDGE_TWICE_TIMED:
        hedge->delay_ms = 5;
        return;
    case HEDGE_PERCENT:
        hedge->percentile = 100;
        return;
    case SPOILS:
        return;
    }
}

static void what_no_compiler_makes_is_refused(void **state)
{
    (void)state;
    char one[] = "/a.B/C";
    char two[] = "/a.B/D";
    for (enum spoil how = 0; how <= SPOILS; how++) {
        policy retry = a_retry(one);
        policy hedge = a_hedge(two);
        policy *methods[] = {&retry, &hedge};
        budget b = a_budget();
        struct dp_part *part = NULL;
        spoil(&retry, &hedge, how);
        struct err e = build_cluster(methods, 2, &b, &part);
        assert_int_equal(e.code, how == SPOILS ? E_OK : E_PART_MALFORMED);
        dp_part_unref(part);
    }
}

static void a_budget_goes_with_methods(void **state)
{
    (void)state;
    char name[] = "*";
    policy retry = a_retry(name);
    policy *methods[] = {&retry};
    budget b = a_budget();
    struct dp_part *part = NULL;
    assert_int_equal(build_cluster(methods, 1, NULL, &part).code, E_PART_MALFORMED);
    assert_int_equal(build_cluster(NULL, 0, &b, &part).code, E_PART_MALFORMED);
    b.max_tokens = 0;
    assert_int_equal(build_cluster(methods, 1, &b, &part).code, E_PART_MALFORMED);
    b = a_budget();
    b.max_tokens = 1001;
    assert_int_equal(build_cluster(methods, 1, &b, &part).code, E_PART_MALFORMED);
    b = a_budget();
    b.active_percent = 101;
    assert_int_equal(build_cluster(methods, 1, &b, &part).code, E_PART_MALFORMED);
    assert_null(part);
}

static void a_mirror_has_a_share(void **state)
{
    (void)state;
    static const struct {
        const char *mirror;
        uint32_t per_mille;
        enum err_code code;
    } cases[] = {{"service/acme/x", 1000, E_OK},
                 {"", 0, E_OK},
                 {"service/acme/x", 0, E_PART_MALFORMED},
                 {"", 5, E_PART_MALFORMED},
                 {"service/acme/x", 1001, E_PART_MALFORMED}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Trilane__Parts__V1__RouteGroup group;
        Trilane__Parts__V1__RouteEntry entry;
        Trilane__Parts__V1__WeightedTarget target;
        Trilane__Parts__V1__RouteEntry *entries[] = {&entry};
        Trilane__Parts__V1__WeightedTarget *targets[] = {&target};
        char any[] = "*";
        char mirror[32];
        (void)snprintf(mirror, sizeof(mirror), "%s", cases[i].mirror);
        trilane__parts__v1__route_group__init(&group);
        trilane__parts__v1__route_entry__init(&entry);
        trilane__parts__v1__weighted_target__init(&target);
        target.cluster = id;
        target.weight = 1;
        entry.id = acme;
        entry.targets = targets;
        entry.n_targets = 1;
        entry.mirror = mirror;
        entry.mirror_per_mille = cases[i].per_mille;
        group.host = any;
        group.routes = entries;
        group.n_routes = 1;
        struct dp_part *part = NULL;
        assert_int_equal(build("host/*/", &group.base, &part).code, cases[i].code);
        dp_part_unref(part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_name_that_fits_holds),
        cmocka_unit_test(what_no_compiler_makes_is_refused),
        cmocka_unit_test(a_budget_goes_with_methods),
        cmocka_unit_test(a_mirror_has_a_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
