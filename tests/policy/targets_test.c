/*
 * targets: of policies of several tenants, about services by name and by glob, each service is
 * decided by the rules of those that reach it, as a plain evaluator has it that matches by
 * fnmatch(3); with the cache, without it, and of the fast path at most. A service that is added is
 * reached at once, one whose name fits no glob is not, and no glob reaches another tenant's.
 *
 * The seed is printed; TRILANE_SEED repeats a run.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane/request/policy.h"

#include "tests/policy/asked.h"
#include "tests/policy/plain.h"
#include "tests/support/cmocka.h"
#include "tests/support/counts.h"
#include "tests/unit/controlplane/compile/fixture.h"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

enum { POLICIES = 5, RULES = 5, ALL = POLICIES * RULES, REQUESTS = 60, YAML_BYTES = 1 << 20 };

static uint64_t seed;

static const struct plain_world world = {.services = 4,
                                         .packages = 4,
                                         .conditions = 20,
                                         .orders = 25,
                                         .headers = 10,
                                         .windows = 5,
                                         .shadows = 10,
                                         .denies = 25,
                                         .globs = 40,
                                         .guarded = true};

/* ---- what is protected, and by which policies ---- */

static const struct target {
    const char *tenant;
    const char *name;
    bool late; /* it is not there at first. */
} targets[] = {{"acme", "orders", false},   {"acme", "orders-eu", true}, {"acme", "billing", false},
               {"globex", "orders", false}, {"globex", "b", true},       {"globex", "s0", false}};

enum { TARGETS = sizeof(targets) / sizeof(targets[0]) };

/* The tenant of a policy, and what it is about; each is fine to say. */
static const struct reach {
    const char *tenant; /* "-": the platform. */
    const char *target;
} reaches[] = {{"acme", "orders"},   {"acme", "acme/orders"}, {"acme", "*"},
               {"acme", "orders*"},  {"acme", "acme/*"},      {"acme", "?illing"},
               {"acme", "*-eu"},     {"globex", "*"},         {"globex", "orders"},
               {"globex", "b*"},     {"globex", "??"},        {"-", "*"},
               {"-", "acme/*"},      {"-", "*/orders"},       {"-", "orders*"},
               {"-", "acme/orders"}, {"-", "globex/?"},       {"-", "*b*"},
               {"-", "nothing*"},    {"acme", "or*rs"}};

struct policy {
    const struct reach *reach;
    struct plain_rule rules[RULES];
};

/* Whether a policy reaches a target, as docs/policy.md has it. */
static bool reaches_target(const struct reach *reach, const struct target *target)
{
    char id[PLAIN_TEXT];
    (void)snprintf(id, sizeof(id), "%s/%s", target->tenant, target->name);
    if (strchr(reach->target, '/') != NULL) {
        return fnmatch(reach->target, id, 0) == 0;
    }
    bool may = strcmp(reach->tenant, "-") == 0 || strcmp(reach->tenant, target->tenant) == 0;
    return may && fnmatch(reach->target, target->name, 0) == 0;
}

static void random_policies(struct policy policies[POLICIES])
{
    for (int i = 0; i < POLICIES; i++) {
        policies[i].reach = &reaches[plain_below((int)(sizeof(reaches) / sizeof(reaches[0])))];
        for (int k = 0; k < RULES; k++) {
            struct plain_rule rule;
            plain_random_rule(&world, k, &rule);
            policies[i].rules[k] = rule;
            (void)snprintf(policies[i].rules[k].id, sizeof(rule.id), "%s/p%d/%s",
                           policies[i].reach->tenant, i, rule.name);
        }
    }
}

/* The rules of all policies that reach a target. */
static int rules_of(const struct policy policies[POLICIES], const struct target *target,
                    struct plain_rule out[ALL])
{
    int count = 0;
    for (int i = 0; i < POLICIES; i++) {
        for (int k = 0; k < RULES && reaches_target(policies[i].reach, target); k++) {
            out[count++] = policies[i].rules[k];
        }
    }
    return count;
}

static void add_policy(const struct policy *policy, int index, struct buf *out)
{
    ADD(out, "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p%d", index);
    if (strcmp(policy->reach->tenant, "-") != 0) {
        ADD(out, ", tenant: %s", policy->reach->tenant);
    }
    ADD(out, "}\nspec:\n  target: {service: \"%s\"}\n  rules:\n", policy->reach->target);
    plain_rules_yaml(policy->rules, RULES, out);
}

static void platform_yaml(const struct policy policies[POLICIES], bool late, struct buf *out)
{
    static const struct plain_world others = {.services = 4, .guarded = true};
    plain_yaml(&others, /* rules= */ NULL, /* count= */ 0, out); /* acme/orders and s0 to s3 */
    for (int i = 1; i < TARGETS; i++) {
        if ((late || !targets[i].late) && targets[i].name[0] != 's') {
            ADD(out,
                "---\napiVersion: trilane.dev/v1\nkind: Service\n"
                "metadata: {name: %s, tenant: %s}\nspec: {}\n",
                targets[i].name, targets[i].tenant);
        }
    }
    for (int i = 0; i < POLICIES; i++) {
        add_policy(&policies[i], i, out);
    }
}

/* ---- one against the other ---- */

static void compare(const struct target *target, const struct dp_policy_target *built,
                    const struct plain_rule *rules, int count, int tally[3])
{
    struct dp_policy_cache *cache = NULL;
    assert_true(err_ok(dp_policy_cache_new(/* entries= */ 64, /* ttl_ms= */ 60000, &cache)));
    for (int i = 0; i < REQUESTS; i++) {
        struct plain_request q;
        struct asked asked;
        plain_random_request(&world, &q);
        asked_init(&q, &asked);
        struct plain_verdict want = plain_decide(rules, count, &q);
        struct dp_verdict got = dp_policy_decide(built, &asked.query);
        struct dp_verdict cached = dp_policy_cache_decide(cache, built, &asked.query, 1);
        struct dp_verdict again = dp_policy_cache_decide(cache, built, &asked.query, 1);
        asked.query.fast = true;
        struct dp_verdict fast = dp_policy_decide(built, &asked.query);
        bool allow = want.rule >= 0 && !rules[want.rule].deny;
        if (!asked_agrees(rules, &got, want) || !asked_agrees(rules, &cached, want) ||
            !asked_agrees(rules, &again, want) || (fast.allow && !allow)) {
            fail_msg("TRILANE_SEED=%llu %s/%s, %s by %s: \"%.*s\", not \"%s\"; fast %d",
                     (unsigned long long)seed, target->tenant, target->name, q.method, q.caller,
                     SLICE_ARG(got.rule), want.rule < 0 ? "" : rules[want.rule].id, fast.allow);
        }
        tally[0] += allow;
        tally[1] += want.rule >= 0 && !allow;
        tally[2] += fast.allow && fast.fast;
    }
    dp_policy_cache_free(cache);
}

static void compare_all(const struct policy policies[POLICIES], bool late, int tally[3])
{
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    static struct plain_rule rules[ALL];
    const char *text = NULL;
    struct fixture f;
    platform_yaml(policies, late, &yaml);
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    fixture_compile(&f);
    for (int i = 0; i < TARGETS; i++) {
        char key[PLAIN_TEXT];
        struct dp_policy_target *built = NULL;
        (void)snprintf(key, sizeof(key), "service/%s/%s", targets[i].tenant, targets[i].name);
        const struct cp_part *part = fixture_part(&f, CP_PART_AUTHORISATION, key);
        assert_int_equal(part != NULL, late || !targets[i].late);
        if (part != NULL) {
            assert_true(err_ok(dp_policy_build(part->bytes, &built)));
            compare(&targets[i], built, rules, rules_of(policies, &targets[i], rules), tally);
            dp_policy_free(built);
        }
    }
    fixture_free(&f);
}

static void each_target_is_decided_by_those_that_reach_it(void **state)
{
    (void)state;
    static struct policy policies[POLICIES];
    int rounds = counts_far() ? 1500 : 40;
    int tally[3] = {0}; /* allowed, denied by a rule, allowed by the fast path. */
    for (int round = 0; round < rounds; round++) {
        random_policies(policies);
        compare_all(policies, /* late= */ false, tally);
        compare_all(policies, /* late= */ true, tally);
    }
    print_message("figure: %d policies by glob: %d allowed, %d denied by a rule, %d fast\n",
                  rounds * POLICIES, tally[0], tally[1], tally[2]);
    assert_true(tally[0] > rounds && tally[1] > rounds && tally[2] > rounds);
}

int main(void)
{
    ids_init();
    const char *given = getenv("TRILANE_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    plain_seed(seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_target_is_decided_by_those_that_reach_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
