/*
 * parts: what resources become. Routing by precedence, own names and who may stand in for them;
 * callers; limits; schemas; and what a change of one rule reaches.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/proto/schema.h"
#include "common/snapshot/format.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define DOC(kind, meta) "---\napiVersion: trilane.dev/v1\nkind: " kind "\nmetadata: {" meta "}\n"

static const char platform[] = FIXTURE_ENVIRONMENT DOC(
    "Service",
    "name: orders, tenant: acme") "spec:\n  grpcServices: [acme.v1.Orders]\n  traits: {team: shop, area: eu}\n"
                                  "  endpoints:\n    - {address: 10.0.0.9, port: 80}\n    - {address: 10.0.0.1, port: 81}\n"
                                  "    - {address: 10.0.0.1, port: 80, weight: 3}\n"
                                  "  tokens:\n"
                                  "    - blake2b:ff00000000000000000000000000000000000000000000000000000000000000\n"
                                  "    - blake2b:0100000000000000000000000000000000000000000000000000000000000002\n" DOC(
                                      "Service",
                                      "name: next, tenant: acme") "spec: {}\n" DOC("Service",
                                                                                   "name: copy, tenant: globex") "spec: {grpcServices: [acme.v1.Orders]}\n";

/* Compiles the platform and some more. */
static void make(struct fixture *f, const char *more)
{
    fixture_init(f);
    fixture_add(f, "platform.yaml", platform);
    fixture_add(f, "more.yaml", more);
    fixture_compile(f);
}

#define UNPACK(f, kind, key, type)                                                                 \
    __extension__({                                                                                \
        const struct cp_part *part_ = fixture_part(f, kind, key);                                  \
        assert_non_null(part_);                                                                    \
        trilane__parts__v1__##type##__unpack(NULL, part_->bytes.size, part_->bytes.ptr);           \
    })

/* Ids of the routes of a group, in order, with spaces between. */
static void expect_routes(const struct fixture *f, const char *key, const char *wanted)
{
    auto_buf struct buf ids = BUF_MAX(4096);
    Trilane__Parts__V1__RouteGroup *group = UNPACK(f, CP_PART_ROUTING, key, route_group);
    for (size_t i = 0; i < group->n_routes; i++) {
        assert_true(err_ok(buf_addf(&ids, "%s%s", i > 0 ? " " : "", group->routes[i]->id)));
    }
    if (!slice_eq(buf_slice(&ids), slice_str(wanted))) {
        fail_msg("%s: %.*s, not %s", key, SLICE_ARG(buf_slice(&ids)), wanted);
    }
    trilane__parts__v1__route_group__free_unpacked(group, NULL);
}

static void own_names_are_routed_within_the_tenant(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, "");
    expect_routes(&f, "host/*/acme.v1.Orders", "acme/orders globex/copy");
    Trilane__Parts__V1__RouteGroup *group =
        UNPACK(&f, CP_PART_ROUTING, "host/*/acme.v1.Orders", route_group);
    const Trilane__Parts__V1__RouteEntry *own = group->routes[0];
    assert_int_equal(own->match, TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX);
    assert_string_equal(own->path, "/acme.v1.Orders");
    assert_int_equal(own->n_tenants, 1);
    assert_string_equal(own->tenants[0], "acme");
    assert_string_equal(own->targets[0]->cluster, "service/acme/orders");
    trilane__parts__v1__route_group__free_unpacked(group, NULL);
    fixture_free(&f);
}

/* A Route of the same tenant, or of the platform, stands in; one of another tenant does not. */
static void who_may_stand_in_for_an_own_name(void **state)
{
    (void)state;
    static const struct {
        const char *meta;
        const char *tenants;
        const char *wanted;
    } cases[] = {
        {"name: r, tenant: acme", "", "globex/copy acme/r/0"},
        {"name: r, tenant: acme", ", tenants: [acme]", "acme/r/0 globex/copy"},
        {"name: r, tenant: acme", ", tenants: [globex]", "acme/r/0 acme/orders globex/copy"},
        {"name: r, tenant: globex", "", "acme/orders globex/r/0"},
        {"name: r", "", "-/r/0"},
        {"name: r", ", tenants: [globex]", "-/r/0 acme/orders"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        struct fixture f;
        (void)snprintf(text, sizeof(text),
                       "---\napiVersion: trilane.dev/v1\nkind: Route\nmetadata: {%s}\nspec:\n"
                       "  match: [{grpc: {service: acme.v1.Orders}%s}]\n"
                       "  targets: [{service: acme/next}]\n",
                       cases[i].meta, cases[i].tenants);
        make(&f, text);
        expect_routes(&f, "host/*/acme.v1.Orders", cases[i].wanted);
        fixture_free(&f);
    }
}

static void routes_are_in_order_of_precedence(void **state)
{
    (void)state;
    struct fixture f;
    make(
        &f,
        DOC("Route",
            "name: r, tenant: acme") "spec:\n  hosts: [\"*\", api.example]\n  match:\n"
                                     "    - path: {prefix: /v1}\n"                    /* 0 */
                                     "    - {path: {prefix: /v1}, tenants: [acme]}\n" /* 1 */
                                     "    - {path: {prefix: /v1}, headers: [{name: x-a, present: true}]}\n" /* 2 */
                                     "    - {path: {prefix: /v1}, method: GET}\n" /* 3 */
                                     "    - path: {prefix: /v1/orders/}\n"        /* 4 */
                                     "    - path: {exact: /v1}\n"                 /* 5 */
                                     "    - {}\n"                                 /* 6 */
                                     "    - path: {exact: /}\n"                   /* 7 */
                                     "  targets: [{service: orders, weight: 90}, {service: next, weight: 10}]\n"
                                     "  timeout: 2s\n");
    const char wanted[] = "acme/r/5 acme/r/4 acme/r/3 acme/r/2 acme/r/1 acme/r/0";
    expect_routes(&f, "host/*/v1", wanted);
    expect_routes(&f, "host/api.example/v1", wanted);
    expect_routes(&f, "host/api.example/", "acme/r/7 acme/r/6");
    Trilane__Parts__V1__RouteGroup *group =
        UNPACK(&f, CP_PART_ROUTING, "host/api.example/v1", route_group);
    const Trilane__Parts__V1__RouteEntry *longest = group->routes[1];
    assert_string_equal(longest->path, "/v1/orders"); /* whole segments: no slash at the end */
    assert_int_equal(longest->timeout_ms, 2000);
    assert_int_equal(longest->n_targets, 2);
    assert_string_equal(longest->targets[0]->cluster, "service/acme/next"); /* sorted */
    assert_int_equal(longest->targets[0]->weight, 10);
    trilane__parts__v1__route_group__free_unpacked(group, NULL);
    fixture_free(&f);
}

static void clusters_and_callers_are_sorted(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, "");
    Trilane__Parts__V1__Cluster *cluster =
        UNPACK(&f, CP_PART_ROUTING, "service/acme/orders", cluster);
    assert_int_equal(cluster->n_endpoints, 3);
    assert_string_equal(cluster->endpoints[0]->address, "10.0.0.1");
    assert_int_equal(cluster->endpoints[0]->port, 80);
    assert_int_equal(cluster->endpoints[0]->weight, 3);
    assert_int_equal(cluster->endpoints[1]->port, 81);
    trilane__parts__v1__cluster__free_unpacked(cluster, NULL);
    Trilane__Parts__V1__Caller *caller = UNPACK(&f, CP_PART_TRUST, "service/acme/orders", caller);
    assert_string_equal(caller->spiffe, ""); /* the key says it. */
    assert_string_equal(caller->traits[0]->name, "area");
    assert_int_equal(caller->n_token_digests, 2);
    assert_int_equal(caller->token_digests[0].data[0], 0x01);
    assert_int_equal(caller->token_digests[1].data[0], 0xff);
    trilane__parts__v1__caller__free_unpacked(caller, NULL);
    fixture_free(&f);
}

static void limits_of_a_target_are_one_part(void **state)
{
    (void)state;
    struct fixture f;
    make(
        &f,
        DOC("RateLimit", "name: b, tenant: acme") "spec: {target: {service: orders}, by: [caller, method], rate: 100/s}\n" DOC(
            "RateLimit",
            "name: a, tenant: acme") "spec: {target: {service: orders}, rate: 6/m, methods: [\"/b/B\", \"/a*\"]}\n");
    Trilane__Parts__V1__LimitTarget *target =
        UNPACK(&f, CP_PART_LIMITS, "service/acme/orders", limit_target);
    assert_int_equal(target->n_limits, 2);
    const Trilane__Parts__V1__Limit *a = target->limits[0];
    const Trilane__Parts__V1__Limit *b = target->limits[1];
    assert_string_equal(a->id, "acme/a");
    assert_int_equal(a->period_ns, 10000000000);
    assert_int_equal(a->burst, 1); /* less than one a second: still one */
    assert_string_equal(a->methods[0], "/a*");
    assert_int_equal(a->by, 0);
    assert_int_equal(b->period_ns, 10000000);
    assert_int_equal(b->burst, 100);
    assert_int_equal(b->by, 1 << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER |
                                1 << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_METHOD);
    trilane__parts__v1__limit_target__free_unpacked(target, NULL);
    assert_null(fixture_part(&f, CP_PART_LIMITS, "service/acme/next"));
    fixture_free(&f);
}

static void a_schema_numbers_what_the_payload_reaches(void **state)
{
    (void)state;
    char path[1024];
    auto_buf struct buf message = BUF_MAX(4096);
    struct fixture f;
    fixture_init(&f);
    (void)snprintf(path, sizeof(path), "%s/policies", getenv("TRILANE_SOURCE_DIR"));
    assert_true(err_ok(cp_source_set_load(&f.set, path, &message)));
    fixture_compile(&f);
    Trilane__Parts__V1__Schema *schema = UNPACK(&f, CP_PART_SCHEMAS, "Greeting.v1", schema);
    assert_string_equal(schema->type, "Greeting.v1");
    assert_string_equal(schema->full_name, "trilane.demo.greeting.v1.Greeting");
    assert_int_equal(schema->fingerprint.len, 32);
    assert_int_equal(schema->n_messages, 2);
    assert_string_equal(schema->messages[0]->name, "trilane.demo.greeting.v1.Greeting");
    assert_string_equal(schema->messages[1]->name, "google.protobuf.Timestamp");
    const Trilane__Parts__V1__SchemaMessage *greeting = schema->messages[0];
    assert_int_equal(greeting->n_fields, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(greeting->fields[i]->number, i + 1);
    }
    assert_true(greeting->fields[0]->utf8);
    assert_int_equal(greeting->fields[3]->message, 1);
    assert_true(greeting->fields[4]->repeated_field);
    trilane__parts__v1__schema__free_unpacked(schema, NULL);
    fixture_free(&f);
}

/*
 * proto2: message Tree { optional Leaf leaf = 5; repeated Tree kids = 2; required string name = 1;
 *                        message Leaf { optional bytes raw = 7; } }  in package t
 */
#define TREE_SET                                                                                   \
    "CmESAXQiXAoEVHJlZRIaCgRsZWFmGAUgASgLMgwudC5UcmVlLkxlYWYSFQoE"                                 \
    "a2lkcxgCIAMoCzIHLnQuVHJlZRIMCgRuYW1lGAEgAigJGhMKBExlYWYSCwoD"                                 \
    "cmF3GAcgASgM"

/* A message that holds itself is there once; the node's own tables take the part. */
static void a_schema_may_recur(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, DOC("Topic",
                 "name: t") "spec:\n  type: Tree\n  major: 1\n  version: 1.2.3\n  message: t.Tree\n"
                            "  descriptorSet: {inline: \"" TREE_SET "\"}\n");
    Trilane__Parts__V1__Schema *part = UNPACK(&f, CP_PART_SCHEMAS, "Tree.v1", schema);
    assert_int_equal(part->n_messages, 2);
    const Trilane__Parts__V1__SchemaMessage *tree = part->messages[0];
    assert_int_equal(tree->n_fields, 3);
    assert_string_equal(part->messages[1]->name, "t.Tree.Leaf");
    assert_true(tree->fields[0]->required);
    assert_false(tree->fields[0]->utf8); /* proto2 takes any bytes in a string */
    assert_int_equal(tree->fields[1]->message, 0);
    assert_int_equal(tree->fields[2]->message, 1);
    struct schema *schema = NULL;
    assert_true(err_ok(schema_build(part, &schema)));
    assert_true(err_ok(schema_check(schema, SLICE_LIT("\x0a\x01x\x12\x03\x0a\x01y"), NULL)));
    assert_int_equal(schema_check(schema, SLICE_LIT("\x0a\x01x\x12\x00"), NULL).code,
                     E_PAYLOAD_MALFORMED); /* the inner one has no name */
    schema_free(schema);
    trilane__parts__v1__schema__free_unpacked(part, NULL);
    fixture_free(&f);
}

#define POLICY(rules)                                                                              \
    DOC("Policy", "name: p, tenant: acme")                                                         \
    "spec:\n  target: {service: orders}\n  rules:\n" rules
#define RULE_A "    - {name: a, effect: allow, verbs: [call], callers: [{service: next}]}\n"

/* One rule more: one rule in the words, one part on the wire. */
static void a_changed_rule_reaches_one_part(void **state)
{
    (void)state;
    struct fixture before;
    struct fixture after;
    struct cp_diff diff;
    make(&before, POLICY(RULE_A));
    make(&after, POLICY(RULE_A "    - {name: b, effect: deny, methods: [\"*/Delete\"]}\n"));
    assert_true(err_ok(cp_diff_make(before.compiled, after.compiled, &diff)));
    assert_int_equal(diff.count, 1);
    assert_int_equal(diff.changes[0].op, CP_CHANGE_ADDED);
    assert_true(slice_eq(diff.changes[0].kind, SLICE_LIT("rule")));
    assert_true(slice_eq(diff.changes[0].id, SLICE_LIT("acme/p/b")));
    assert_int_equal(diff.parts_changed, 1);
    assert_int_equal(diff.parts_added + diff.parts_removed, 0);
    assert_int_equal(diff.target_count, 1);
    auto_buf struct buf text = BUF_MAX(4096);
    assert_true(err_ok(cp_diff_text(&diff, &text)));
    const char wanted[] =
        "+ rule acme/p/b added: denies everything on service/acme/orders for anyone, where "
        "methods */Delete\n"
        "1 to add, 0 to change, 0 to remove; targets reached: 1\n  service/acme/orders\n";
    if (!slice_eq(buf_slice(&text), slice_str(wanted))) {
        fail_msg("%.*s", SLICE_ARG(buf_slice(&text)));
    }
    cp_diff_free(&diff);
    fixture_free(&before);
    fixture_free(&after);
}

/* What a rule asks is said beside what it does: else one for a few would look like one for all. */
static void a_rule_is_told_with_what_narrows_it(void **state)
{
    (void)state;
    struct fixture before;
    struct fixture after;
    struct cp_diff diff;
    auto_buf struct buf text = BUF_MAX(4096);
    make(&before, POLICY("    - {name: a, effect: allow, methods: [/a.v1.A/Get]}\n"));
    make(&after, POLICY("    - {name: a, effect: allow, methods: [/a.v1.A/Put]}\n"
                        "    - name: b\n      effect: deny\n      lanes: [operator]\n"
                        "      headers: [{name: x-a, value: on}, {name: x-b, present: true}]\n"
                        "      condition: caller.tenant == 'acme'\n"
                        "      windows: [{from: \"09:00\", to: \"17:00\"}]\n"
                        "      notAfter: \"2026-03-01T00:00:00Z\"\n"));
    assert_true(err_ok(cp_diff_make(before.compiled, after.compiled, &diff)));
    assert_true(err_ok(cp_diff_text(&diff, &text)));
    const char wanted[] =
        "~ rule acme/p/a changed: methods /a.v1.A/Get -> /a.v1.A/Put; now: allows everything on "
        "service/acme/orders for anyone, where methods /a.v1.A/Put\n"
        "+ rule acme/p/b added: denies everything on service/acme/orders for anyone, where lanes "
        "operator, headers x-a and x-b, condition caller.tenant == 'acme', windows, notAfter "
        "2026-03-01T00:00:00Z\n"
        "1 to add, 1 to change, 0 to remove; targets reached: 1\n  service/acme/orders\n";
    if (!slice_eq(buf_slice(&text), slice_str(wanted))) {
        fail_msg("%.*s", SLICE_ARG(buf_slice(&text)));
    }
    cp_diff_free(&diff);
    fixture_free(&before);
    fixture_free(&after);
}

#define POLICY_OF(target, rules)                                                                   \
    DOC("Policy", "name: p, tenant: acme")                                                         \
    "spec:\n  target: {service: \"" target "\"}\n  rules:\n" rules

/* A plan shows the glob, and which targets it comes to reach. */
static void a_glob_reaches_all_that_fit(void **state)
{
    (void)state;
    struct fixture before;
    struct fixture after;
    struct cp_diff diff;
    auto_buf struct buf text = BUF_MAX(4096);
    make(&before, POLICY_OF("o*", RULE_A));
    make(&after, POLICY_OF("*", RULE_A));
    assert_true(err_ok(cp_diff_make(before.compiled, after.compiled, &diff)));
    assert_int_equal(diff.parts_changed, 1);
    assert_true(err_ok(cp_diff_text(&diff, &text)));
    const char wanted[] = "~ Policy acme/p changed: target\n"
                          "0 to add, 1 to change, 0 to remove; targets reached: 1\n"
                          "  service/acme/next\n";
    if (!slice_eq(buf_slice(&text), slice_str(wanted))) {
        fail_msg("%.*s", SLICE_ARG(buf_slice(&text)));
    }
    cp_diff_free(&diff);
    fixture_free(&before);
    fixture_free(&after);
}

static void changes_name_their_fields(void **state)
{
    (void)state;
    struct fixture before;
    struct fixture after;
    struct cp_diff diff;
    make(
        &before,
        DOC("Service",
            "name: x, tenant: acme") "spec: {traits: {a: b}, endpoints: [{address: h, port: 1}, {address: i, port: 1}]}\n");
    /* Another order of endpoints is no change; a label is none of the snapshot's. */
    make(
        &after,
        DOC("Service",
            "name: x, tenant: acme, labels: {note: new}") "spec: {traits: {a: c}, endpoints: [{address: i, port: 1}, {address: h, port: 1}]}\n");
    assert_true(err_ok(cp_diff_make(before.compiled, after.compiled, &diff)));
    assert_int_equal(diff.count, 1);
    assert_int_equal(diff.changes[0].op, CP_CHANGE_CHANGED);
    assert_true(slice_eq(diff.changes[0].fields, SLICE_LIT("traits")));
    assert_true(slice_eq(diff.changes[0].sentence, SLICE_LIT("Service acme/x changed: traits")));
    cp_diff_free(&diff);
    assert_true(err_ok(cp_diff_make(/* before= */ NULL, after.compiled, &diff)));
    assert_int_equal(diff.parts_changed + diff.parts_removed, 0);
    for (size_t i = 0; i < diff.count; i++) {
        assert_int_equal(diff.changes[i].op, CP_CHANGE_ADDED);
    }
    cp_diff_free(&diff);
    fixture_free(&before);
    fixture_free(&after);
}

/* The sentence of the first change between two documents. */
static void check_sentence(const char *before_text, const char *after_text, const char *want)
{
    struct fixture before;
    struct fixture after;
    struct cp_diff diff;
    make(&before, before_text);
    make(&after, after_text);
    assert_true(err_ok(cp_diff_make(before.compiled, after.compiled, &diff)));
    assert_int_equal(diff.count, 1);
    auto_free char *got = slice_dup(diff.changes[0].sentence);
    assert_string_equal(got, want);
    cp_diff_free(&diff);
    fixture_free(&before);
    fixture_free(&after);
}

#define RATE(rate)                                                                                 \
    DOC("Service", "name: s, tenant: acme")                                                        \
    "spec: {}\n" DOC("RateLimit", "name: l, tenant: acme") "spec: {target: {service: s}, " rate    \
                                                           "}\n"
#define PROFILE(text) DOC("TransportProfile", "name: t") "spec: {" text "}\n"

static void changes_show_both_values(void **state)
{
    (void)state;
    check_sentence(RATE("rate: 5000/s"), RATE("rate: 6000/s"),
                   "RateLimit acme/l changed: rate 5000/s -> 6000/s");
    check_sentence(RATE("rate: 3/m"), RATE("rate: 1/h"),
                   "RateLimit acme/l changed: rate 3/m -> 1/h");
    check_sentence(RATE("rate: 1/s"), RATE("rate: 1/s, by: [caller, method]"),
                   "RateLimit acme/l changed: by none -> caller, method");
    check_sentence(PROFILE("timeout: 1500ms"), PROFILE("timeout: 2m"),
                   "TransportProfile -/t changed: timeout 1500ms -> 2m");
    check_sentence(PROFILE("requestMessage: 1MiB"), PROFILE("requestMessage: 1536KiB"),
                   "TransportProfile -/t changed: requestMessage 1MiB -> 1536KiB");
}

/* A tenant's rules on a topic of the platform speak of its own callers alone. */
static void a_tenant_speaks_for_itself_on_a_shared_topic(void **state)
{
    (void)state;
    struct fixture f;
    make(
        &f,
        DOC("Topic",
            "name: t") "spec:\n  type: T\n  major: 1\n  version: 1.0.0\n  message: a.A\n"
                       "  descriptorSet: {inline: ChsSAWEiDgoBQRIJCgF4GAEgASgJYgZwcm90bzM=}\n" DOC(
                           "Policy",
                           "name: p, tenant: acme") "spec:\n  target: {topic: T.v1}\n  rules:\n"
                                                    "    - {name: open, effect: allow}\n"
                                                    "    - {name: reach, effect: deny, callers: [{tenant: globex}]}\n");
    Trilane__Parts__V1__PolicyTarget *target =
        UNPACK(&f, CP_PART_AUTHORISATION, "topic/T.v1", policy_target);
    assert_int_equal(target->n_nodes, 1);
    const Trilane__Parts__V1__PolicyNode *node = target->nodes[0];
    assert_int_equal(node->attribute, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT);
    assert_int_equal(node->n_edges, 1); /* globex is nowhere: the second rule can say nothing */
    assert_string_equal(node->edges[0]->value, "acme");
    assert_string_equal(target->verdicts[node->edges[0]->to - 1]->rule, "acme/p/open");
    assert_string_equal(target->verdicts[node->otherwise - 1]->rule, "");
    trilane__parts__v1__policy_target__free_unpacked(target, NULL);
    fixture_free(&f);
}

static void a_limit_says_what_it_counts(void **state)
{
    (void)state;
    struct fixture f;
    make(
        &f,
        DOC("RateLimit", "name: a, tenant: acme") "spec: {target: {service: orders}, by: [service], byHeaders: [x-b, x-a], onUnknown: open, rate: 1/s}\n" DOC(
            "RateLimit",
            "name: b, tenant: acme") "spec: {target: {service: orders}, concurrency: 7}\n" DOC("RateLimit",
                                                                                               "name: c, tenant: acme") "spec: {target: {service: orders}, quota: 5000000/month}\n");
    Trilane__Parts__V1__LimitTarget *target =
        UNPACK(&f, CP_PART_LIMITS, "service/acme/orders", limit_target);
    const Trilane__Parts__V1__Limit *a = target->limits[0];
    const Trilane__Parts__V1__Limit *b = target->limits[1];
    assert_int_equal(a->by, 1 << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_SERVICE);
    assert_int_equal(a->n_headers, 2);
    assert_string_equal(a->headers[0], "x-a");
    assert_string_equal(a->headers[1], "x-b");
    assert_int_equal(a->on_unknown, TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN);
    assert_int_equal(a->concurrency, 0);
    assert_int_equal(b->on_unknown, TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    assert_int_equal(b->concurrency, 7);
    assert_int_equal(b->period_ns, 0);
    assert_int_equal(b->burst, 0);
    const Trilane__Parts__V1__Limit *quota = target->limits[2];
    assert_int_equal(quota->quota, 5000000);
    assert_int_equal(quota->window, TRILANE__PARTS__V1__LIMIT_WINDOW__LIMIT_WINDOW_MONTH);
    assert_int_equal(quota->period_ns, 0);
    trilane__parts__v1__limit_target__free_unpacked(target, NULL);
    fixture_free(&f);
}

/* Compiles one document beside the Environment; what a node must be able to do for it. */
static uint64_t capabilities_of(const char *text)
{
    struct fixture f;
    make(&f, text);
    uint64_t capabilities = cp_compiled_capabilities(f.compiled);
    fixture_free(&f);
    return capabilities;
}

#define SERVICE DOC("Service", "name: s, tenant: acme") "spec: {}\n"
#define LIMIT(by)                                                                                  \
    SERVICE DOC("RateLimit", "name: l, tenant: acme") "spec: {target: {service: s}, rate: 5/s" by  \
                                                      "}\n"
#define RULE_OF(rule)                                                                              \
    SERVICE DOC("Policy", "name: p, tenant: acme") "spec:\n  target: {service: s}\n"               \
                                                   "  rules:\n    - {name: r, effect: allow" rule  \
                                                   "}\n"

#define BURST(burst)                                                                               \
    SERVICE DOC("RateLimit", "name: l, tenant: acme") "spec: {target: {service: s}, rate: 1/h, "   \
                                                      "burst: " burst "}\n"

/* What a node would not take is refused where it is written. */
static void a_burst_is_bounded_by_its_rate(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "a.yaml", FIXTURE_ENVIRONMENT BURST("640511"));
    fixture_compile(&f);
    Trilane__Parts__V1__LimitTarget *target =
        UNPACK(&f, CP_PART_LIMITS, "service/acme/s", limit_target);
    assert_true(target->limits[0]->period_ns * target->limits[0]->burst <= LIMIT_BUDGET_MAX_NS);
    trilane__parts__v1__limit_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
    fixture_init(&f);
    fixture_add(&f, "a.yaml", FIXTURE_ENVIRONMENT BURST("640512"));
    fixture_refuse(&f, CP_DIAG_OUT_OF_BOUND);
    assert_int_equal(f.diags.count, 1);
    assert_int_equal(f.diags.items[0]->at.column, 48);
    assert_true(
        slice_eq(f.diags.items[0]->expected, SLICE_LIT("at most 640511, or a faster rate")));
    fixture_free(&f);
}

/* A bit is asked for only where the content uses it: an older node keeps serving what it can. */
static void capabilities_are_those_that_are_used(void **state)
{
    (void)state;
    assert_int_equal(capabilities_of(SERVICE), CAPABILITY_NONE);
    assert_int_equal(capabilities_of(LIMIT("")), CAPABILITY_NONE);
    assert_int_equal(capabilities_of(LIMIT(", by: [caller]")), CAPABILITY_LIMIT_KEYS);
    assert_int_equal(capabilities_of(LIMIT(", by: [service]")),
                     CAPABILITY_LIMIT_KEYS | CAPABILITY_LIMIT_VALUES);
    assert_int_equal(capabilities_of(LIMIT(", byHeaders: [x-a]")), CAPABILITY_LIMIT_VALUES);
    assert_int_equal(capabilities_of(LIMIT(", scope: global")), CAPABILITY_LIMIT_SHARED);
    assert_int_equal(capabilities_of(LIMIT(", scope: global, by: [tenant]")),
                     CAPABILITY_LIMIT_SHARED | CAPABILITY_LIMIT_SHARED_KEYS |
                         CAPABILITY_LIMIT_KEYS);
    assert_int_equal(capabilities_of(LIMIT(", scope: global, byHeaders: [x-a]")),
                     CAPABILITY_LIMIT_SHARED | CAPABILITY_LIMIT_SHARED_KEYS |
                         CAPABILITY_LIMIT_VALUES);
    assert_int_equal(
        capabilities_of(SERVICE DOC(
            "RateLimit", "name: l, tenant: acme") "spec: {target: {service: s}, concurrency: 5}\n"),
        CAPABILITY_LIMIT_CONCURRENCY);
    assert_int_equal(
        capabilities_of(SERVICE DOC(
            "RateLimit", "name: l, tenant: acme") "spec: {target: {service: s}, quota: 5/day}\n"),
        CAPABILITY_LIMIT_QUOTAS);
    assert_int_equal(capabilities_of(RULE_OF("")), CAPABILITY_NONE);
    assert_int_equal(capabilities_of(RULE_OF(", headers: [{name: x-a, present: true}]")),
                     CAPABILITY_HEADER_CONDITIONS);
    assert_int_equal(capabilities_of(RULE_OF(", callers: [{traits: {tier: gold}}]")),
                     CAPABILITY_TRAIT_CONDITIONS);
    assert_int_equal(capabilities_of(RULE_OF(", condition: \"int(caller.traits.a) < 3\"")),
                     CAPABILITY_POLICY_COMPARISONS);
    assert_int_equal(capabilities_of(RULE_OF(", condition: \"request.time.getHours() < 3\"")),
                     CAPABILITY_POLICY_SCHEDULES);
    assert_int_equal(
        capabilities_of(DOC("TransportProfile", "name: t") "spec: {upstream: {tls: tls}}\n"),
        CAPABILITY_UPSTREAM_TLS);
    /* The age of connections is passed over by who does not know it. */
    assert_int_equal(capabilities_of(PROFILE("upstream: {maxAge: 5m}")), CAPABILITY_NONE);
    assert_int_equal(capabilities_of(PROFILE("upstream: {tls: tls, tlsMin: TLSv1.2}")),
                     CAPABILITY_UPSTREAM_TLS);
    assert_int_equal(capabilities_of(PROFILE("upstream: {tls: tls, tlsMin: TLSv1.3}")),
                     CAPABILITY_UPSTREAM_TLS | CAPABILITY_TLS_TERMS);
    assert_int_equal(capabilities_of(PROFILE("upstream: {tls: tls, tlsMax: TLSv1.2}")),
                     CAPABILITY_UPSTREAM_TLS | CAPABILITY_TLS_TERMS);
    assert_int_equal(capabilities_of(PROFILE("listener: {tls: mtls}")), CAPABILITY_NONE);
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "e.yaml",
                DOC("Environment", "name: test") "spec: {security: dev, trustDomain: test.example,"
                                                 " freshnessMax: 1h}\n");
    fixture_compile(&f);
    assert_int_equal(cp_compiled_capabilities(f.compiled), CAPABILITY_FRESHNESS_MAX);
    fixture_free(&f);
    fixture_init(&f);
    fixture_add(&f, "e.yaml",
                DOC("Environment", "name: test") "spec: {security: dev, trustDomain: test.example,"
                                                 " guardrails: {overload: {queueDelay: 20ms}}}\n");
    fixture_compile(&f);
    assert_int_equal(cp_compiled_capabilities(f.compiled), CAPABILITY_SHEDDING);
    fixture_free(&f);
    fixture_init(&f);
    fixture_add(
        &f, "e.yaml",
        DOC("Environment", "name: test") "spec: {security: dev, trustDomain: test.example,"
                                         " transport: t}\n" PROFILE("listener: {tls: mtls}"));
    fixture_compile(&f);
    assert_int_equal(cp_compiled_capabilities(f.compiled), CAPABILITY_TLS_TERMS);
    fixture_free(&f);
}

/* A large platform that is new: more changes than anybody reads are counted, not written. */
static void a_diff_is_bounded(void **state)
{
    (void)state;
    enum { POLICIES = 101, RULES = 100, WRITTEN = 10000, ALL = POLICIES * (RULES + 1) + 2 };
    struct fixture f;
    struct cp_diff diff;
    auto_buf struct buf text = BUF_MAX(16 << 20);
    auto_buf struct buf json = BUF_MAX(16 << 20);
    fixture_init(&f);
    fixture_add(&f, "environment.yaml", FIXTURE_ENVIRONMENT);
    assert_true(err_ok(buf_add_str(&text, "apiVersion: trilane.dev/v1\nkind: Service\n"
                                          "metadata: {name: web, tenant: acme}\nspec: {}\n")));
    for (int i = 0; i < POLICIES; i++) {
        assert_true(err_ok(buf_addf(&text,
                                    "---\napiVersion: trilane.dev/v1\nkind: Policy\n"
                                    "metadata: {name: p%d, tenant: acme}\n"
                                    "spec:\n  target: {service: web}\n  rules:\n",
                                    i)));
        for (int k = 0; k < RULES; k++) {
            assert_true(err_ok(buf_addf(&text, "    - {name: r%d, effect: deny}\n", k)));
        }
    }
    assert_true(err_ok(cp_source_set_add(&f.set, SLICE_LIT("all.yaml"), buf_slice(&text))));
    fixture_compile(&f);
    assert_true(err_ok(cp_diff_make(/* before= */ NULL, f.compiled, &diff)));
    assert_int_equal(diff.count, WRITTEN);
    assert_int_equal(diff.counts[CP_CHANGE_ADDED], ALL);
    buf_clear(&text);
    assert_true(err_ok(cp_diff_text(&diff, &text)));
    assert_true(err_ok(cp_diff_json(&diff, &json)));
    const char *shown = NULL;
    assert_true(err_ok(buf_cstr(&text, &shown)));
    assert_non_null(strstr(shown, "\nand 203 more\n10203 to add, 0 to change, 0 to remove;"));
    assert_true(err_ok(buf_cstr(&json, &shown)));
    assert_non_null(strstr(shown, "\"changesLeftOut\":203,\"targetsLeftOut\":0"));
    cp_diff_free(&diff);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_diff_is_bounded),
        cmocka_unit_test(own_names_are_routed_within_the_tenant),
        cmocka_unit_test(who_may_stand_in_for_an_own_name),
        cmocka_unit_test(routes_are_in_order_of_precedence),
        cmocka_unit_test(clusters_and_callers_are_sorted),
        cmocka_unit_test(limits_of_a_target_are_one_part),
        cmocka_unit_test(a_limit_says_what_it_counts),
        cmocka_unit_test(a_burst_is_bounded_by_its_rate),
        cmocka_unit_test(a_schema_numbers_what_the_payload_reaches),
        cmocka_unit_test(a_schema_may_recur),
        cmocka_unit_test(a_changed_rule_reaches_one_part),
        cmocka_unit_test(a_rule_is_told_with_what_narrows_it),
        cmocka_unit_test(a_glob_reaches_all_that_fit),
        cmocka_unit_test(changes_name_their_fields),
        cmocka_unit_test(changes_show_both_values),
        cmocka_unit_test(a_tenant_speaks_for_itself_on_a_shared_topic),
        cmocka_unit_test(capabilities_are_those_that_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
