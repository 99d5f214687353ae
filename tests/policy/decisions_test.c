/*
 * decisions: what the compiler makes of rules decides in a node as the rules themselves do, with
 * the cache and without it, of few rules that ask everything and of many; and rule sets
 * whose one graph would be exponential compile to several that are small. The fast path of the kill
 * switch allows nothing that the rules do not.
 *
 * The seed is printed; TRILANE_SEED repeats a run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy.h"

#include "tests/policy/asked.h"
#include "tests/policy/plain.h"
#include "tests/support/cmocka.h"
#include "tests/support/counts.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { YAML_BYTES = 64 << 20, CACHE_ENTRIES = 4096, TTL_MS = 60000 };

static uint64_t seed;

/* ---- from rules to a node's target ---- */

struct deciding {
    struct dp_policy_target *target;
    struct dp_policy_cache *cache;
    size_t nodes;
    size_t roots;
    size_t bytes;
    double seconds; /* of the compile, CPU. */
};

static void note_size(struct slice part, struct deciding *d)
{
    Trilane__Parts__V1__PolicyTarget *m = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part.size, part.ptr);
    assert_non_null(m);
    d->nodes = m->n_nodes;
    d->roots = 1 + m->n_more_roots;
    d->bytes = part.size;
    trilane__parts__v1__policy_target__free_unpacked(m, /* allocator= */ NULL);
}

static void compile_text(const char *text, struct deciding *d)
{
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    uint64_t start_ns = clock_thread_ns();
    fixture_compile(&f);
    d->seconds = (double)(clock_thread_ns() - start_ns) * 1e-9;
    const struct cp_part *part = fixture_part(&f, CP_PART_AUTHORISATION, "service/acme/orders");
    assert_non_null(part);
    note_size(part->bytes, d);
    assert_true(err_ok(dp_policy_build(part->bytes, &d->target)));
    assert_true(err_ok(dp_policy_cache_new(CACHE_ENTRIES, TTL_MS, &d->cache)));
    fixture_free(&f);
}

static void compile_rules(const struct plain_world *world, const struct plain_rule *rules,
                          int count, struct deciding *d)
{
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    const char *text = NULL;
    plain_yaml(world, rules, count, &yaml);
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    compile_text(text, d);
}

static void deciding_free(struct deciding *d)
{
    dp_policy_free(d->target);
    dp_policy_cache_free(d->cache);
}

/* ---- one against the other ---- */

static void explain(const struct plain_rule *rules, int count, const struct plain_request *q,
                    const char *way, const struct dp_verdict *got, struct plain_verdict want)
{
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    const struct plain_world none = {0};
    const char *text = "";
    if (count < 50) {
        plain_yaml(&none, rules, count, &yaml);
        assert_true(err_ok(buf_cstr(&yaml, &text)));
    }
    fail_msg("TRILANE_SEED=%llu %s: %s %s in lane %s by %s, traits %d %d, headers %d %d, at %lld: "
             "rule \"%.*s\", shadow \"%.*s\", not \"%s\", \"%s\"\n%s",
             (unsigned long long)seed, way, plain_verbs[q->verb], q->method, plain_lanes[q->lane],
             q->caller, q->traits[0], q->traits[1], q->headers[0], q->headers[1],
             (long long)q->wall_ms, SLICE_ARG(got->rule), SLICE_ARG(got->shadow),
             want.rule < 0 ? "" : rules[want.rule].id, want.shadow < 0 ? "" : rules[want.shadow].id,
             text);
}

static void compare_with(struct deciding *d, const struct plain_rule *rules, int count,
                         const struct plain_request *q, struct plain_verdict want)
{
    struct asked asked;
    asked_init(q, &asked);
    struct dp_verdict plain = dp_policy_decide(d->target, &asked.query);
    if (!asked_agrees(rules, &plain, want)) {
        explain(rules, count, q, "without the cache", &plain, want);
    }
    for (int i = 0; i < 2; i++) { /* the second time it may be there. */
        struct dp_verdict cached = dp_policy_cache_decide(d->cache, d->target, &asked.query, 1);
        if (!asked_agrees(rules, &cached, want)) {
            explain(rules, count, q, "with the cache", &cached, want);
        }
    }
}

static void compare(struct deciding *d, const struct plain_rule *rules, int count,
                    const struct plain_request *q)
{
    compare_with(d, rules, count, q, plain_decide(rules, count, q));
}

/* ---- tests ---- */

static const struct plain_world everything = {.services = 6,
                                              .packages = 4,
                                              .conditions = 50,
                                              .orders = 25,
                                              .headers = 20,
                                              .windows = 20,
                                              .shadows = 20,
                                              .denies = 30,
                                              .globs = 50};

/* Few rules that ask for everything, against many requests; and anew. */
static void few_rules_decide_as_they_say(void **state)
{
    (void)state;
    enum { RULES = 16, REQUESTS = 200 };
    static struct plain_rule rules[RULES];
    int rounds = counts_far() ? 5000 : 40;
    for (int round = 0; round < rounds; round++) {
        struct deciding d = {0};
        int count = plain_below(RULES + 1);
        for (int i = 0; i < count; i++) {
            plain_random_rule(&everything, i, &rules[i]);
        }
        compile_rules(&everything, rules, count, &d);
        for (int i = 0; i < REQUESTS; i++) {
            struct plain_request q;
            plain_random_request(&everything, &q);
            compare(&d, rules, count, &q);
        }
        deciding_free(&d);
    }
}

static const struct plain_world large = {.services = 1500,
                                         .packages = 400,
                                         .conditions = 2,
                                         .orders = 25,
                                         .headers = 3,
                                         .windows = 1,
                                         .shadows = 1,
                                         .denies = 5,
                                         .globs = 40,
                                         .precise = true};

/* Half of the requests are made to fit some rule's caller and method. */
static void near_request(const struct plain_rule *rules, int count, struct plain_request *q)
{
    plain_random_request(&large, q);
    const struct plain_rule *near = &rules[plain_below(count)];
    if (plain_chance(50) && near->caller_count > 0 && near->callers[0].service >= 0) {
        q->service = near->callers[0].service;
        q->tenant = near->callers[0].service_tenant;
        (void)snprintf(q->caller, sizeof(q->caller), "%s/s%d", plain_tenants[q->tenant],
                       q->service);
        if (near->method_count > 0 && strpbrk(near->methods[0], "*?") == NULL) {
            (void)memcpy(q->method, near->methods[0], sizeof(q->method));
        }
    }
}

/* Many rules, by the plain evaluator's lists of callers; and that those say what all rules say. */
static void many_rules_decide_as_they_say(void **state)
{
    (void)state;
    enum { WHOLE = 500 }; /* of so many requests one is decided by all rules, too. */
    const int count = counts_far() ? 10000 : 2000;
    const int requests = counts_far() ? 1000000 : 2000;
    struct plain_rule *rules = calloc((size_t)count, sizeof(*rules));
    struct deciding d = {0};
    assert_non_null(rules);
    for (int i = 0; i < count; i++) {
        plain_random_rule(&large, i, &rules[i]);
    }
    compile_rules(&large, rules, count, &d);
    print_message("figure: %d rules: %zu graphs, %zu nodes, %zu bytes, compiled in %.2f s\n", count,
                  d.roots, d.nodes, d.bytes, d.seconds);
    assert_true(d.roots <= 16);
    assert_true(d.nodes < 20 * (size_t)count);
    struct plain_index index;
    int allowed = 0;
    plain_index_init(&large, rules, count, &index);
    for (int i = 0; i < requests; i++) {
        struct plain_request q;
        near_request(rules, count, &q);
        struct plain_verdict want = plain_index_decide(&index, &q);
        if (i % WHOLE == 0) {
            struct plain_verdict whole = plain_decide(rules, count, &q);
            assert_int_equal(want.rule, whole.rule);
            assert_int_equal(want.shadow, whole.shadow);
        }
        compare_with(&d, rules, count, &q, want);
        allowed += want.rule >= 0 && !rules[want.rule].deny;
    }
    print_message("figure: %d requests, %d allowed\n", requests, allowed);
    assert_in_range(allowed, requests / 100, requests - requests / 100);
    plain_index_free(&index);
    deciding_free(&d);
    free(rules);
}

#define POLICY                                                                                     \
    FIXTURE_ENVIRONMENT                                                                            \
    "---\napiVersion: trilane.dev/v1\nkind: Service\n"                                             \
    "metadata: {name: orders, tenant: acme}\nspec: {}\n"                                           \
    "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"           \
    "spec:\n  target: {service: orders}\n  rules:\n"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

enum { ADVERSARIAL = 500 };

/* Every glob says nothing of another, and each has a header that is asked for behind it. */
static void globs_and_headers(struct buf *out, int i)
{
    ADD(out,
        "    - {name: r%d, effect: %s, methods: [\"*x%d*\"], headers: [{name: x-h%d, value: "
        "v%d}]}\n",
        i, i % 3 == 0 ? "deny" : "allow", i, i % 40, i);
}

/* Half of the rules ask one attribute, half the other: each pair of values has another winner. */
static void crossed_attributes(struct buf *out, int i)
{
    ADD(out, "    - {name: r%d, effect: allow, %s%d\"%s}\n", i,
        i % 2 == 0 ? "methods: [\"/p.S/m" : "headers: [{name: x-a, value: \"v", i,
        i % 2 == 0 ? "]" : "}]");
}

/* Each rule asks other traits than the next: of 2^12 kinds. */
static void any_traits(struct buf *out, int i)
{
    ADD(out, "    - {name: r%d, effect: allow, callers: [{tenant: acme, traits: {", i);
    for (int k = 0; k < 12; k++) {
        if (k == i % 12 || ((uint32_t)i * 2654435761U >> (8 + k) & 1) != 0) {
            ADD(out, "t%d: v%d, ", k, (i + k) % 5);
        }
    }
    ADD(out, "}}]}\n");
}

/* Conditions of several alternatives, with negations. */
static void conditions(struct buf *out, int i)
{
    ADD(out,
        "    - {name: r%d, effect: allow, condition: \"(caller.id.startsWith('acme/a%d') || "
        "request.headers['x-%d'] != 'v') && !(request.method.endsWith('M%d'))\"}\n",
        i, i, i % 30, i);
}

static const struct adversary {
    const char *name;
    void (*add)(struct buf *out, int i);
} adversaries[] = {{"globs and headers", globs_and_headers},
                   {"crossed attributes", crossed_attributes},
                   {"any traits", any_traits},
                   {"conditions", conditions}};

/* A graph of all of them would have billions of nodes; the graphs of parts stay in proportion. */
static void what_would_explode_is_parted(void **state)
{
    (void)state;
    for (size_t a = 0; a < sizeof(adversaries) / sizeof(adversaries[0]); a++) {
        auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
        struct deciding d = {0};
        const char *text = NULL;
        ADD(&yaml, "%s", POLICY);
        for (int i = 0; i < ADVERSARIAL; i++) {
            adversaries[a].add(&yaml, i);
        }
        assert_true(err_ok(buf_cstr(&yaml, &text)));
        compile_text(text, &d);
        print_message(
            "figure: %d rules, %s: %zu graphs, %zu nodes, %zu bytes, compiled in %.2f s\n",
            ADVERSARIAL, adversaries[a].name, d.roots, d.nodes, d.bytes, d.seconds);
        assert_true(d.roots > 1);
        assert_true(d.nodes < 40 * ADVERSARIAL);
        deciding_free(&d);
    }
}

/* Rules by caller and method for the most part, so that the fast path has something to say. */
static const struct plain_world guarded = {.services = 4,
                                           .packages = 4,
                                           .conditions = 15,
                                           .orders = 25,
                                           .headers = 5,
                                           .windows = 5,
                                           .shadows = 10,
                                           .denies = 20,
                                           .globs = 40,
                                           .guarded = true};

/* Of random rules and requests: whatever the fast path allows, the rules allow; and it does allow.
 */
static void the_fast_path_is_a_subset(void **state)
{
    (void)state;
    enum { RULES = 16, REQUESTS = 400 };
    static struct plain_rule rules[RULES];
    int rounds = counts_far() ? 5000 : 40;
    size_t allowed = 0;
    size_t fast = 0;
    for (int round = 0; round < rounds; round++) {
        struct deciding d = {0};
        int count = plain_below(RULES + 1);
        for (int i = 0; i < count; i++) {
            plain_random_rule(&guarded, i, &rules[i]);
        }
        compile_rules(&guarded, rules, count, &d);
        for (int i = 0; i < REQUESTS; i++) {
            struct plain_request q;
            struct asked asked;
            plain_random_request(&guarded, &q);
            asked_init(&q, &asked);
            compare(&d, rules, count, &q);
            struct plain_verdict want = plain_decide(rules, count, &q);
            bool allow = want.rule >= 0 && !rules[want.rule].deny;
            asked.query.fast = true;
            struct dp_verdict verdict = dp_policy_decide(d.target, &asked.query);
            if (verdict.allow && !allow) {
                explain(rules, count, &q, "by the fast path", &verdict, want);
            }
            allowed += allow && verdict.fast;
            fast += verdict.allow && verdict.fast;
        }
        deciding_free(&d);
    }
    print_message("figure: the fast path allows %zu of %zu\n", fast, allowed);
    assert_true(fast > allowed / 10);
    assert_true(fast < allowed);
}

/* What the cache has it still says while the fast path decides, and keeps none of its answers. */
static void the_cache_keeps_no_answer_of_the_fast_path(void **state)
{
    (void)state;
    static struct plain_rule rules[2];
    struct plain_request q;
    struct asked asked;
    struct deciding d = {0};
    for (int i = 0; i < 2; i++) {
        rules[i] = (struct plain_rule){.headers = {-1, -1}, .method_count = 1};
        (void)snprintf(rules[i].name, sizeof(rules[i].name), "r%d", i);
        (void)snprintf(rules[i].id, sizeof(rules[i].id), "acme/p/r%d", i);
        (void)snprintf(rules[i].methods[0], PLAIN_TEXT, "/p%d.S/Get", i);
    }
    rules[1].headers[0] = 99; /* not in the fast path. */
    plain_random_request(&guarded, &q);
    q.headers[0] = 0;
    (void)snprintf(q.method, sizeof(q.method), "/p1.S/Get");
    compile_rules(&guarded, rules, 2, &d);
    asked_init(&q, &asked);
    asked.query.fast = true;
    for (int i = 0; i < 2; i++) {
        struct dp_verdict verdict = dp_policy_cache_decide(d.cache, d.target, &asked.query, 1);
        assert_true(verdict.fast);
        assert_false(verdict.allow);
        assert_false(verdict.cached);
    }
    asked.query.fast = false;
    assert_true(dp_policy_cache_decide(d.cache, d.target, &asked.query, 1).allow);
    asked.query.fast = true;
    struct dp_verdict verdict = dp_policy_cache_decide(d.cache, d.target, &asked.query, 1);
    assert_true(verdict.allow && verdict.cached && !verdict.fast);
    (void)snprintf(q.method, sizeof(q.method), "/p0.S/Get");
    asked_init(&q, &asked);
    asked.query.fast = true;
    verdict = dp_policy_cache_decide(d.cache, d.target, &asked.query, 1);
    assert_true(verdict.allow && verdict.fast);
    deciding_free(&d);
}

int main(void)
{
    ids_init();
    const char *given = getenv("TRILANE_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    plain_seed(seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_rules_decide_as_they_say),
        cmocka_unit_test(many_rules_decide_as_they_say),
        cmocka_unit_test(what_would_explode_is_parted),
        cmocka_unit_test(the_fast_path_is_a_subset),
        cmocka_unit_test(the_cache_keeps_no_answer_of_the_fast_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
