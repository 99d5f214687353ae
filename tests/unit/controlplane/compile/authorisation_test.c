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

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum {
    RULES_MAX = 12,
    CALLERS_MAX = 3,
    METHODS_MAX = 3,
    HEADERS = 2,
    TRAITS = 2,
    ROUNDS = 400,
    REQUESTS = 300, /* of a round: 120,000 in all. */
};

/* ---- what random policies are made of ---- */

static const char *const verbs[] = {"call", "publish", "subscribe", "fetch"};
static const char *const lanes[] = {"operator", "canonical", "proxy"};
static const char *const tenants[] = {"acme", "globex"};
static const char *const services[] = {"acme/web", "acme/api", "globex/web"};
static const char *const domains[] = {"test.example", "other.example"};
static const char *const trait_names[TRAITS] = {"team", "tier"};
static const char *const header_names[HEADERS] = {"x-a", "x-b"};
static const char *const values[] = {"one", "two"};
static const char *const patterns[] = {"/a.S/Get", "/a.S/*",   "/a.S/G*",   "/b.T/*",   "*",
                                       "*/Get",    "/a.S/?et", "/b.T/List", "/a.*/Get", "*e*"};
static const char *const methods[] = {"/a.S/Get",  "/a.S/Set", "/a.S/List", "/b.T/Get",
                                      "/b.T/List", "/c.U/Put", "/a.S/G",    ""};

#define PICK(array) ((int)(next_random() % (sizeof(array) / sizeof((array)[0]))))

static uint64_t seed;

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static bool chance(int percent)
{
    return (int)(next_random() % 100) < percent;
}

/* -1: not asked. */
struct plain_caller {
    int service;
    int tenant;
    int domain;
    int traits[TRAITS]; /* index into values. */
};

struct plain_rule {
    char id[64];
    bool platform; /* in the platform's policy, else in the tenant's. */
    bool deny;
    unsigned verbs; /* bits; 0: any. */
    unsigned lanes;
    int caller_count;
    struct plain_caller callers[CALLERS_MAX];
    int method_count;
    int methods[METHODS_MAX]; /* index into patterns. */
    int headers[HEADERS];     /* index into values, 2: present, -1: not asked. */
};

struct request {
    int verb;
    int lane;
    int service;
    int domain;
    int traits[TRAITS]; /* -1: absent. */
    int method;
    int headers[HEADERS]; /* index into values, 2: another value, -1: absent. */
};

static void random_caller(struct plain_caller *c)
{
    c->service = chance(50) ? PICK(services) : -1;
    c->tenant = chance(25) ? PICK(tenants) : -1;
    c->domain = chance(15) ? PICK(domains) : -1;
    for (int i = 0; i < TRAITS; i++) {
        c->traits[i] = chance(25) ? PICK(values) : -1;
    }
    if (c->service < 0 && c->tenant < 0 && c->domain < 0 && c->traits[0] < 0 && c->traits[1] < 0) {
        c->tenant = PICK(tenants);
    }
}

static void random_rule(struct plain_rule *r, int index)
{
    *r = (struct plain_rule){.platform = chance(30), .deny = chance(30)};
    /* Names whose order is not that of the rules in the file. */
    (void)snprintf(r->id, sizeof(r->id), "%s/r%d-%d", r->platform ? "-/q" : "acme/p",
                   (int)(next_random() % 10), index);
    r->verbs = chance(40) ? (unsigned)(next_random() % 16) : 0;
    r->lanes = chance(30) ? (unsigned)(next_random() % 8) : 0;
    r->caller_count = (int)(next_random() % (CALLERS_MAX + 1));
    for (int i = 0; i < r->caller_count; i++) {
        random_caller(&r->callers[i]);
    }
    r->method_count = chance(60) ? 1 + (int)(next_random() % METHODS_MAX) : 0;
    int first = PICK(patterns);
    for (int i = 0; i < r->method_count; i++) {
        r->methods[i] = (first + 3 * i) % 10; /* of ten patterns, none twice */
    }
    for (int i = 0; i < HEADERS; i++) {
        r->headers[i] = chance(25) ? (int)(next_random() % 3) : -1;
    }
}

/* ---- rules as YAML ---- */

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

static void add_bits(struct buf *out, const char *key, unsigned bits, const char *const *names,
                     int count)
{
    if (bits == 0) {
        return;
    }
    const char *comma = "";
    ADD(out, "      %s: [", key);
    for (int i = 0; i < count; i++) {
        if ((bits >> i & 1) != 0) {
            ADD(out, "%s%s", comma, names[i]);
            comma = ", ";
        }
    }
    ADD(out, "]\n");
}

static void add_caller(struct buf *out, const struct plain_caller *c)
{
    ADD(out, "        - {");
    if (c->service >= 0) {
        ADD(out, "service: %s, ", services[c->service]);
    }
    if (c->tenant >= 0) {
        ADD(out, "tenant: %s, ", tenants[c->tenant]);
    }
    if (c->domain >= 0) {
        ADD(out, "trustDomain: %s, ", domains[c->domain]);
    }
    ADD(out, "traits: {");
    for (int i = 0; i < TRAITS; i++) {
        if (c->traits[i] >= 0) {
            ADD(out, "%s: %s, ", trait_names[i], values[c->traits[i]]);
        }
    }
    ADD(out, "}}\n");
}

static void add_rule(struct buf *out, const struct plain_rule *r)
{
    ADD(out, "    - name: %s\n      effect: %s\n", strrchr(r->id, '/') + 1,
        r->deny ? "deny" : "allow");
    add_bits(out, "verbs", r->verbs, verbs, 4);
    add_bits(out, "lanes", r->lanes, lanes, 3);
    if (r->caller_count > 0) {
        ADD(out, "      callers:\n");
    }
    for (int i = 0; i < r->caller_count; i++) {
        add_caller(out, &r->callers[i]);
    }
    if (r->method_count > 0) {
        ADD(out, "      methods:\n");
    }
    for (int i = 0; i < r->method_count; i++) {
        ADD(out, "        - \"%s\"\n", patterns[r->methods[i]]);
    }
    if (r->headers[0] >= 0 || r->headers[1] >= 0) {
        ADD(out, "      headers:\n");
    }
    for (int i = 0; i < HEADERS; i++) {
        if (r->headers[i] == 2) {
            ADD(out, "        - {name: %s, present: true}\n", header_names[i]);
        } else if (r->headers[i] >= 0) {
            ADD(out, "        - {name: %s, value: %s}\n", header_names[i], values[r->headers[i]]);
        }
    }
}

static const char platform[] = FIXTURE_ENVIRONMENT
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: orders, tenant: acme}\n"
    "spec: {}\n"
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: web, tenant: acme}\nspec: {}\n"
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: api, tenant: acme}\nspec: {}\n"
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: web, tenant: globex}\n"
    "spec: {}\n";

static void add_policy(struct buf *out, const struct plain_rule *rules, int count, bool of_platform)
{
    bool any = false;
    for (int i = 0; i < count; i++) {
        if (rules[i].platform != of_platform) {
            continue;
        }
        if (!any) {
            ADD(out,
                "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: %s}\n"
                "spec:\n  target: {service: acme/orders}\n  rules:\n",
                of_platform ? "q" : "p, tenant: acme");
            any = true;
        }
        add_rule(out, &rules[i]);
    }
}

/* ---- the rules themselves ---- */

static bool caller_fits(const struct plain_caller *c, const struct request *q)
{
    const char *caller = services[q->service];
    bool tenant = c->tenant < 0 || strncmp(caller, tenants[c->tenant], strcspn(caller, "/")) == 0;
    bool fits = tenant && (c->service < 0 || c->service == q->service) &&
                (c->domain < 0 || c->domain == q->domain);
    for (int i = 0; i < TRAITS; i++) {
        fits = fits && (c->traits[i] < 0 || c->traits[i] == q->traits[i]);
    }
    return fits;
}

static bool rule_fits(const struct plain_rule *r, const struct request *q)
{
    bool caller = r->caller_count == 0;
    for (int i = 0; i < r->caller_count; i++) {
        caller = caller || caller_fits(&r->callers[i], q);
    }
    bool method = r->method_count == 0;
    for (int i = 0; i < r->method_count; i++) {
        method =
            method || text_glob(slice_str(patterns[r->methods[i]]), slice_str(methods[q->method]));
    }
    bool fits = caller && method && (r->verbs == 0 || (r->verbs >> q->verb & 1) != 0) &&
                (r->lanes == 0 || (r->lanes >> q->lane & 1) != 0);
    for (int i = 0; i < HEADERS; i++) {
        bool header = r->headers[i] < 0 ||
                      (r->headers[i] == 2 ? q->headers[i] >= 0 : q->headers[i] == r->headers[i]);
        fits = fits && header;
    }
    return fits;
}

/* The rule that decides, or NULL for the default deny. */
static const struct plain_rule *decide_plainly(const struct plain_rule *rules, int count,
                                               const struct request *q)
{
    const struct plain_rule *best = NULL;
    for (int i = 0; i < count; i++) {
        if (!rule_fits(&rules[i], q)) {
            continue;
        }
        bool wins = best == NULL || (rules[i].deny && !best->deny) ||
                    (rules[i].deny == best->deny && strcmp(rules[i].id, best->id) < 0);
        best = wins ? &rules[i] : best;
    }
    return best;
}

/* ---- the graph ---- */

/* The value of a node's attribute; NULL: absent. */
static const char *attribute(const Trilane__Parts__V1__PolicyNode *node, const struct request *q)
{
    static char tenant[64];
    const char *caller = services[q->service];
    int which = 0;
    switch (node->attribute) {
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB:
        return verbs[q->verb];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE:
        return lanes[q->lane];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD:
        return methods[q->method];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER:
        return caller;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT:
        (void)snprintf(tenant, sizeof(tenant), "%.*s", (int)strcspn(caller, "/"), caller);
        return tenant;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN:
        return domains[q->domain];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT:
        which = strcmp(node->name, trait_names[0]) == 0 ? q->traits[0] : q->traits[1];
        return which < 0 ? NULL : values[which];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER:
        which = strcmp(node->name, header_names[0]) == 0 ? q->headers[0] : q->headers[1];
        return which < 0 ? NULL : which == 2 ? "another" : values[which];
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE:
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_NONE:
    case _TRILANE__PARTS__V1__ATTRIBUTE_IS_INT_SIZE:
        break;
    }
    fail_msg("attribute %d", (int)node->attribute);
    return NULL;
}

static uint32_t walk_from(const Trilane__Parts__V1__PolicyTarget *target, uint32_t root,
                          const struct request *q)
{
    uint32_t at = root;
    while (at < target->n_nodes) {
        const Trilane__Parts__V1__PolicyNode *node = target->nodes[at];
        assert_true((target->attributes >> node->attribute & 1) != 0);
        const char *value = attribute(node, q);
        uint32_t to = node->otherwise;
        if (value != NULL && node->glob[0] != '\0') {
            assert_int_equal(node->n_edges, 0);
            to = text_glob(slice_str(node->glob), slice_str(value)) ? node->matched : to;
        }
        for (size_t i = 0; value != NULL && i < node->n_edges; i++) {
            assert_true(i == 0 || strcmp(node->edges[i - 1]->value, node->edges[i]->value) < 0);
            to = strcmp(node->edges[i]->value, value) == 0 ? node->edges[i]->to : to;
        }
        assert_true(to > at);
        at = to;
    }
    assert_true(at - target->n_nodes < target->n_verdicts);
    return (uint32_t)(at - target->n_nodes);
}

/* Of the verdicts of all graphs deny wins, then the lowest index. */
static const Trilane__Parts__V1__Verdict *walk(const Trilane__Parts__V1__PolicyTarget *target,
                                               const struct request *q)
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

static void random_request(struct request *q)
{
    *q = (struct request){.verb = PICK(verbs),
                          .lane = PICK(lanes),
                          .service = PICK(services),
                          .domain = PICK(domains),
                          .method = PICK(methods)};
    for (int i = 0; i < TRAITS; i++) {
        q->traits[i] = (int)(next_random() % 3) - 1;
    }
    for (int i = 0; i < HEADERS; i++) {
        q->headers[i] = (int)(next_random() % 4) - 1;
    }
}

static void check_round(uint64_t round_seed)
{
    struct plain_rule rules[RULES_MAX];
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(1 << 20);
    const char *text = NULL;
    int count = (int)(next_random() % (RULES_MAX + 1));
    ADD(&yaml, "%s", platform);
    for (int i = 0; i < count; i++) {
        random_rule(&rules[i], i);
    }
    add_policy(&yaml, rules, count, false);
    add_policy(&yaml, rules, count, true);
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_init(&f);
    fixture_add(&f, "a.yaml", text);
    fixture_compile(&f);
    Trilane__Parts__V1__PolicyTarget *target = unpack(&f, "service/acme/orders");
    for (int i = 0; i < REQUESTS; i++) {
        struct request q;
        random_request(&q);
        const struct plain_rule *rule = decide_plainly(rules, count, &q);
        const Trilane__Parts__V1__Verdict *verdict = walk(target, &q);
        if (verdict->allow != (rule != NULL && !rule->deny) ||
            strcmp(verdict->rule, rule == NULL ? "" : rule->id) != 0) {
            fail_msg("TRILANE_SEED=%llu: %s %s is decided by \"%s\", not \"%s\"\n%s",
                     (unsigned long long)round_seed, services[q.service], methods[q.method],
                     verdict->rule, rule == NULL ? "" : rule->id, text);
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
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    long count = rounds != NULL ? strtol(rounds, NULL, 10) : ROUNDS;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (long i = 0; i < count; i++) {
        check_round(seed);
    }
}

/* A target without rules denies everything, and reads nothing to do so. */
static void without_rules_everything_is_denied(void **state)
{
    (void)state;
    struct fixture f;
    struct request q = {0};
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
        cmocka_unit_test(a_thousand_rules_stay_small),
        cmocka_unit_test(a_too_large_graph_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
