/*
 * authorisation: the compiled graph of a target decides as the rules themselves do, on random
 * policies and random requests; a thousand rules make a small graph soon; what would be too large
 * is refused and names its target.
 *
 * The seed is printed; TRILANE_SEED repeats a run, TRILANE_ROUNDS makes it longer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/proto/strict.h"

#include "tests/policy/plain.h"
#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum {
    RULES_MAX = 12,
    ROUNDS = 400,
    REQUESTS = 300, /* of a round: 120,000 in all. */
};

static const struct plain_world world = {
    .services = 3, .packages = 3, .conditions = 20, .headers = 25, .denies = 30, .globs = 50};

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

static const char platform[] = FIXTURE_ENVIRONMENT
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: orders, tenant: acme}\n"
    "spec: {}\n";

/* ---- the graph ---- */

static int index_of(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    fail_msg("nobody asks for %s", name);
    return 0;
}

/* The value of a node's attribute; NULL: absent. */
static const char *attribute(const Trilane__Parts__V1__PolicyNode *node,
                             const struct plain_request *q)
{
    int which = 0;
    switch (node->attribute) {
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB:
        return plain_verbs[q->verb];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE:
        return plain_lanes[q->lane];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD:
        return q->method;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER:
        return q->caller;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT:
        return plain_tenants[q->tenant];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN:
        return plain_domains[q->domain];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT:
        which = q->traits[index_of(node->name, plain_traits, PLAIN_NAMES)];
        return which < 0 ? NULL : plain_values[which];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER:
        which = q->headers[index_of(node->name, plain_headers, PLAIN_NAMES)];
        return which < 0 ? NULL : plain_values[which];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE:
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON:
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_NONE:
    case _TRILANE__PARTS__V1__ATTRIBUTE_IS_INT_SIZE:
        break;
    }
    fail_msg("attribute %d", (int)node->attribute);
    return NULL;
}

/* By equality, or by the longest front. */
static bool takes_edge(const Trilane__Parts__V1__PolicyNode *node, const char *edge,
                       const char *value, size_t *longest)
{
    if (node->prefixes == 0) {
        return strcmp(edge, value) == 0;
    }
    bool takes = strlen(edge) >= *longest && strncmp(edge, value, strlen(edge)) == 0;
    *longest = takes ? strlen(edge) : *longest;
    return takes;
}

static uint32_t walk_from(const Trilane__Parts__V1__PolicyTarget *target, uint32_t root,
                          const struct plain_request *q)
{
    uint32_t at = root;
    while (at < target->n_nodes) {
        const Trilane__Parts__V1__PolicyNode *node = target->nodes[at];
        assert_true((target->attributes >> node->attribute & 1) != 0);
        const char *value = attribute(node, q);
        size_t longest = 0;
        uint32_t to = node->otherwise;
        if (value != NULL && node->glob[0] != '\0') {
            assert_int_equal(node->n_edges, 0);
            to = text_glob(slice_str(node->glob), slice_str(value)) ? node->matched : to;
        }
        for (size_t i = 0; value != NULL && i < node->n_edges; i++) {
            assert_true(i == 0 || strcmp(node->edges[i - 1]->value, node->edges[i]->value) < 0);
            to = takes_edge(node, node->edges[i]->value, value, &longest) ? node->edges[i]->to : to;
        }
        assert_true(to > at);
        at = to;
    }
    assert_true(at - target->n_nodes < target->n_verdicts);
    return (uint32_t)(at - target->n_nodes);
}

/* Of the verdicts of all graphs deny wins, then the lowest index. */
static const Trilane__Parts__V1__Verdict *walk(const Trilane__Parts__V1__PolicyTarget *target,
                                               const struct plain_request *q)
{
    uint32_t best = walk_from(target, target->root, q);
    for (size_t i = 0; i < target->n_more_roots; i++) {
        uint32_t found = walk_from(target, target->more_roots[i], q);
        bool denies = target->verdicts[found]->allow == 0;
        bool wins =
            best == 0 || (denies == (target->verdicts[best]->allow == 0) ? found < best : denies);
        best = found != 0 && wins ? found : best;
    }
    return target->verdicts[best];
}

static Trilane__Parts__V1__PolicyTarget *unpack(const struct fixture *f, const char *key)
{
    const struct cp_part *part = fixture_part(f, CP_PART_AUTHORISATION, key);
    assert_non_null(part);
    Trilane__Parts__V1__PolicyTarget *target = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part->bytes.size, part->bytes.ptr);
    assert_non_null(target);
    return target;
}

/* ---- tests ---- */

static void check_round(uint64_t round_seed)
{
    static struct plain_rule rules[RULES_MAX];
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(1 << 20);
    const char *text = NULL;
    int count = plain_below(RULES_MAX + 1);
    for (int i = 0; i < count; i++) {
        plain_random_rule(&world, i, &rules[i]);
    }
    plain_yaml(&world, rules, count, &yaml);
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    fixture_compile(&f);
    Trilane__Parts__V1__PolicyTarget *target = unpack(&f, "service/acme/orders");
    for (int i = 0; i < REQUESTS; i++) {
        struct plain_request q;
        plain_random_request(&world, &q);
        int best = plain_decide(rules, count, &q).rule;
        const struct plain_rule *rule = best < 0 ? NULL : &rules[best];
        const Trilane__Parts__V1__Verdict *verdict = walk(target, &q);
        if (verdict->allow != (rule != NULL && !rule->deny) ||
            strcmp(verdict->rule, rule == NULL ? "" : rule->id) != 0) {
            fail_msg("TRILANE_SEED=%llu: %s %s is decided by \"%s\", not \"%s\"\n%s",
                     (unsigned long long)round_seed, q.caller, q.method, verdict->rule,
                     rule == NULL ? "" : rule->id, text);
        }
    }
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

static void decides_as_the_rules_do(void **state)
{
    (void)state;
    const char *given = getenv("TRILANE_SEED");
    const char *rounds = getenv("TRILANE_ROUNDS");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    long count = rounds != NULL ? strtol(rounds, NULL, 10) : ROUNDS;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (long i = 0; i < count; i++) {
        plain_seed(seed + (uint64_t)i);
        check_round(seed + (uint64_t)i);
    }
}

/* A target without rules denies everything, and reads nothing to do so. */
static void without_rules_everything_is_denied(void **state)
{
    (void)state;
    struct fixture f;
    struct plain_request q = {0};
    fixture_init(&f);
    fixture_add(&f, "a.yaml", platform);
    fixture_compile(&f);
    Trilane__Parts__V1__PolicyTarget *target = unpack(&f, "service/acme/orders");
    assert_int_equal(target->n_nodes, 0);
    assert_int_equal(target->attributes, 0);
    assert_false(walk(target, &q)->allow);
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

/* Of what several policies say of one target, deny wins, then the smaller id: the platform's. */
static void policies_of_a_target_decide_together(void **state)
{
    (void)state;
    static const char text[] =
        "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
        "spec:\n  target: {service: orders}\n  rules:\n"
        "    - {name: a, effect: allow, methods: [\"/a.S/*\"]}\n"
        "    - {name: b, effect: deny, methods: [\"/a.S/Drop\"]}\n"
        "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: q}\n"
        "spec:\n  target: {service: acme/orders}\n  rules:\n"
        "    - {name: z, effect: allow, methods: [\"/a.S/Get\", \"/a.S/Drop\"]}\n"
        "    - {name: y, effect: deny, methods: [\"/a.S/Set\"]}\n";
    static const struct {
        const char *method;
        const char *rule;
    } cases[] = {{"/a.S/List", "acme/p/a"},
                 {"/a.S/Get", "-/q/z"},
                 {"/a.S/Drop", "acme/p/b"},
                 {"/a.S/Set", "-/q/y"},
                 {"/b.S/Get", ""}};
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "a.yaml", platform);
    fixture_add(&f, "b.yaml", text);
    fixture_compile(&f);
    Trilane__Parts__V1__PolicyTarget *target = unpack(&f, "service/acme/orders");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct plain_request q = {.caller = "acme/s0"};
        (void)snprintf(q.method, sizeof(q.method), "%s", cases[i].method);
        assert_string_equal(walk(target, &q)->rule, cases[i].rule);
    }
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

/* 1,000 rules, each for a caller of its own, by method or glob; and a few for all. */
static void a_thousand_rules_stay_small(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(4 << 20);
    const char *text = NULL;
    ADD(&yaml, "%s", platform);
    for (int i = 0; i < 1000; i++) {
        ADD(&yaml,
            "---\napiVersion: trilane.dev/v1\nkind: Service\n"
            "metadata: {name: s%d, tenant: acme}\nspec: {}\n",
            i);
    }
    ADD(&yaml, "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
               "spec:\n  target: {service: orders}\n  rules:\n");
    for (int i = 0; i < 1000; i++) {
        ADD(&yaml,
            "    - {name: r%d, effect: allow, callers: [{service: s%d}], "
            "methods: [\"/a.S%d/%s\"]}\n",
            i, i, i % 20, i % 3 == 0 ? "*" : "Get");
    }
    ADD(&yaml, "    - {name: no-debug, effect: deny, headers: [{name: x-debug, present: true}]}\n"
               "    - {name: health, effect: allow, methods: [/grpc.health.v1.Health/Check]}\n");
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    struct timespec start;
    struct timespec end;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start), 0);
    fixture_compile(&f);
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end), 0);
    double seconds =
        (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    Trilane__Parts__V1__PolicyTarget *target = unpack(&f, "service/acme/orders");
    print_message("%zu nodes, %zu bytes, %.3f s of CPU\n", target->n_nodes,
                  fixture_part(&f, CP_PART_AUTHORISATION, "service/acme/orders")->bytes.size,
                  seconds);
    assert_true(target->n_nodes < 5000);
    assert_true(seconds < 20);
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

/* Past the bound of nodes a target is refused; what would only be one too large graph is parted. */
static void a_too_large_graph_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(4 << 20);
    const char *text = NULL;
    uint64_t before = limits.policy_nodes;
    limits.policy_nodes = 40;
    ADD(&yaml,
        "%s---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
        "spec:\n  target: {service: orders}\n  rules:\n",
        platform);
    for (int i = 0; i < 25; i++) { /* each takes two nodes. */
        ADD(&yaml,
            "    - {name: r%d, effect: allow, methods: [\"*%c*\"], "
            "headers: [{name: x-h%d, present: true}]}\n",
            i, 'a' + i, i);
    }
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    fixture_refuse(&f, CP_DIAG_POLICY_TOO_LARGE);
    limits.policy_nodes = before;
    struct slice message = f.diags.items[0]->message;
    const char wanted[] = "service/acme/orders";
    assert_non_null(memmem(message.ptr, message.size, wanted, sizeof(wanted) - 1));
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decides_as_the_rules_do),
        cmocka_unit_test(without_rules_everything_is_denied),
        cmocka_unit_test(policies_of_a_target_decide_together),
        cmocka_unit_test(a_thousand_rules_stay_small),
        cmocka_unit_test(a_too_large_graph_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
