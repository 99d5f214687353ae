/* policy: graphs decide as their parts say, refuse parts that could loop or read what they do not
 * declare, and the cache never gives one request the answer of another. */
#include "dataplane/request/policy.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "dataplane/apply/model.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;
typedef Trilane__Parts__V1__PolicyEdge part_edge;
typedef Trilane__Parts__V1__Verdict part_verdict;

#define ATTRIBUTE(name) TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_##name

/*
 * caller acme/web: method /a.B/Get -> allow r1, method glob /a.B/List* -> allow r2
 * others: trait tier=gold -> allow r3; else the default deny.
 */
struct sample {
    part_edge edges[3];
    part_edge *edge_lists[3][1];
    part_node nodes[4];
    part_node *node_list[4];
    part_verdict verdicts[4];
    part_verdict *verdict_list[4];
    char *traits[1];
    part_target target;
};

static char text_web[] = "acme/web";
static char text_get[] = "/a.B/Get";
static char text_list[] = "/a.B/List*";
static char text_gold[] = "gold";
static char text_tier[] = "tier";
static char text_r1[] = "acme/p/r1";
static char text_r2[] = "acme/p/r2";
static char text_r3[] = "acme/p/r3";
static char text_target[] = "service/acme/b";

static void edge_to(struct sample *s, size_t index, char *value, uint32_t to)
{
    trilane__parts__v1__policy_edge__init(&s->edges[index]);
    s->edges[index].value = value;
    s->edges[index].to = to;
    s->edge_lists[index][0] = &s->edges[index];
}

static part_node *node_at(struct sample *s, size_t index, Trilane__Parts__V1__Attribute attribute)
{
    part_node *node = &s->nodes[index];
    trilane__parts__v1__policy_node__init(node);
    node->attribute = attribute;
    s->node_list[index] = node;
    return node;
}

static void make(struct sample *s)
{
    *s = (struct sample){0};
    edge_to(s, 0, text_web, 1);
    edge_to(s, 1, text_get, 5);
    edge_to(s, 2, text_gold, 7);
    part_node *node = node_at(s, 0, ATTRIBUTE(CALLER));
    node->n_edges = 1;
    node->edges = s->edge_lists[0];
    node->otherwise = 3;
    node = node_at(s, 1, ATTRIBUTE(METHOD));
    node->n_edges = 1;
    node->edges = s->edge_lists[1];
    node->otherwise = 2;
    node = node_at(s, 2, ATTRIBUTE(METHOD));
    node->glob = text_list;
    node->matched = 6;
    node->otherwise = 4;
    node = node_at(s, 3, ATTRIBUTE(TRAIT));
    node->name = text_tier;
    node->n_edges = 1;
    node->edges = s->edge_lists[2];
    node->otherwise = 4;
    char *const rules[] = {NULL, text_r1, text_r2, text_r3};
    for (size_t i = 0; i < 4; i++) {
        trilane__parts__v1__verdict__init(&s->verdicts[i]);
        s->verdict_list[i] = &s->verdicts[i];
        if (rules[i] != NULL) {
            s->verdicts[i].allow = 1;
            s->verdicts[i].rule = rules[i];
        }
    }
    trilane__parts__v1__policy_target__init(&s->target);
    s->traits[0] = text_tier;
    s->target.target = text_target;
    s->target.attributes =
        1U << ATTRIBUTE(CALLER) | 1U << ATTRIBUTE(METHOD) | 1U << ATTRIBUTE(TRAIT);
    s->target.n_trait_names = 1;
    s->target.trait_names = s->traits;
    s->target.n_nodes = 4;
    s->target.nodes = s->node_list;
    s->target.n_verdicts = 4;
    s->target.verdicts = s->verdict_list;
}

static struct err build(const struct sample *s, struct dp_policy_target **out)
{
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    assert_int_equal(proto_encode(&s->target.base, &bytes).code, E_OK);
    return dp_policy_build(buf_slice(&bytes), out);
}

static const struct dp_trait gold = {SLICE_INIT("tier"), SLICE_INIT("gold")};
static const struct dp_caller web = {.id = SLICE_INIT("acme/web"), .tenant = SLICE_INIT("acme")};
static const struct dp_caller rich = {
    .id = SLICE_INIT("acme/rich"), .tenant = SLICE_INIT("acme"), .traits = &gold, .trait_count = 1};
static const struct dp_caller poor = {.id = SLICE_INIT("acme/poor"), .tenant = SLICE_INIT("acme")};

static struct dp_policy_query query_of(const struct dp_caller *caller, const char *method)
{
    return (struct dp_policy_query){.verb = DP_VERB_CALL,
                                    .lane = SLICE_LIT("operator"),
                                    .method = slice_str(method),
                                    .caller = caller};
}

static const struct {
    const struct dp_caller *caller;
    const char *method;
    const char *rule; /* NULL: denied. */
} cases[] = {{&web, "/a.B/Get", "acme/p/r1"},     {&web, "/a.B/ListAll", "acme/p/r2"},
             {&web, "/a.B/Delete", NULL},         {&web, "/a.B/GetMore", NULL},
             {&rich, "/a.B/Delete", "acme/p/r3"}, {&poor, "/a.B/Get", NULL}};

static void decides_as_the_part_says(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 1000, &cache).code, E_OK);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct dp_policy_query query = query_of(cases[i].caller, cases[i].method);
            struct dp_verdict plain = dp_policy_decide(target, &query);
            struct dp_verdict cached = dp_policy_cache_decide(cache, target, &query, 1);
            assert_int_equal(plain.allow, cases[i].rule != NULL);
            assert_true(slice_eq(plain.rule, slice_str(cases[i].rule)));
            assert_int_equal(cached.allow, plain.allow);
            assert_true(slice_eq(cached.rule, plain.rule));
        }
    }
    uint64_t asked = 0;
    uint64_t hits = 0;
    dp_policy_cache_counts(cache, &asked, &hits);
    assert_int_equal(asked, 18);
    assert_true(hits >= 6);
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

static void cache_forgets_by_time_and_by_clear(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 1000, &cache).code, E_OK);
    struct dp_policy_query query = query_of(&web, "/a.B/Get");
    assert_false(dp_policy_cache_decide(cache, target, &query, 1).cached);
    assert_true(dp_policy_cache_decide(cache, target, &query, 1000000000).cached);
    assert_false(dp_policy_cache_decide(cache, target, &query, 1000000002).cached);
    dp_policy_cache_clear(cache);
    assert_false(dp_policy_cache_decide(cache, target, &query, 1000000003).cached);
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

static bool note_header(const void *ctx, struct slice name, struct slice *out)
{
    (void)name;
    *out = SLICE_LIT("a");
    ++**(int *const *)ctx;
    return true;
}

/* One that the decision does not hang on may be there twice: who finds it says so. */
static void each_header_is_looked_at_with_and_without_a_cache(void **state)
{
    (void)state;
    struct sample s;
    char header[] = "x-a";
    char *headers[] = {header};
    make(&s);
    s.target.attributes |= 1U << ATTRIBUTE(HEADER);
    s.target.n_header_names = 1;
    s.target.header_names = headers;
    for (uint64_t ttl_ms = 0; ttl_ms <= 1000; ttl_ms += 1000) {
        struct dp_policy_target *target = NULL;
        struct dp_policy_cache *cache = NULL;
        int looked = 0;
        int *const ctx = &looked;
        assert_int_equal(build(&s, &target).code, E_OK);
        assert_int_equal(dp_policy_cache_new(16, ttl_ms, &cache).code, E_OK);
        struct dp_policy_query query = query_of(&web, "/a.B/Get");
        query.header = note_header;
        query.ctx = &ctx;
        for (int i = 1; i <= 2; i++) {
            assert_true(dp_policy_cache_decide(cache, target, &query, 1).allow);
            assert_int_equal(looked, i);
        }
        dp_policy_cache_free(cache);
        dp_policy_free(target);
    }
}

/* A method that does not fit into an entry is decided right all the same. */
static void long_values_are_not_cached(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 1000, &cache).code, E_OK);
    char method[512] = "/a.B/List";
    (void)memset(method + 9, 'x', sizeof(method) - 10);
    struct dp_policy_query query = query_of(&web, method);
    for (int i = 0; i < 2; i++) {
        struct dp_verdict verdict = dp_policy_cache_decide(cache, target, &query, 1);
        assert_true(verdict.allow);
        assert_false(verdict.cached);
    }
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

static bool find_long(const void *ctx, struct slice name, struct slice *out)
{
    (void)name;
    *out = ctx == NULL ? (struct slice){0} : slice_str(ctx);
    return ctx != NULL;
}

/* Of a header that rules only ask whether it is there nobody fills the cache by its values. */
static void presence_is_all_of_a_long_value(void **state)
{
    (void)state;
    struct sample s;
    char header[] = "x-a";
    char any[] = "*";
    char *headers[] = {header};
    make(&s);
    part_node *node = node_at(&s, 3, ATTRIBUTE(HEADER));
    node->name = header;
    node->glob = any;
    node->matched = 7;
    node->otherwise = 4;
    s.target.attributes |= 1U << ATTRIBUTE(HEADER);
    s.target.n_header_names = 1;
    s.target.header_names = headers;
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 1000, &cache).code, E_OK);
    char value[800] = {0};
    const void *const values[] = {NULL, value, value, NULL};
    struct dp_policy_query query = query_of(&poor, "/a.B/Get");
    query.header = find_long;
    for (size_t i = 0; i < 4; i++) {
        (void)memset(value, 'a' + (int)i, sizeof(value) - 1);
        query.ctx = values[i];
        struct dp_verdict verdict = dp_policy_cache_decide(cache, target, &query, 1);
        assert_int_equal(verdict.allow, values[i] != NULL);
        assert_int_equal(verdict.cached, i >= 2);
    }
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

static void no_policy_is_a_denial(void **state)
{
    (void)state;
    struct dp_policy_query query = query_of(&web, "/a.B/Get");
    assert_false(dp_policy_decide(NULL, &query).allow);
}

static void refuses(const struct sample *s)
{
    struct dp_policy_target *target = NULL;
    assert_int_equal(build(s, &target).code, E_PART_MALFORMED);
    assert_null(target);
}

static void refuses_what_could_harm(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    s.nodes[2].otherwise = 1; /* a way back. */
    refuses(&s);
    make(&s);
    s.nodes[2].otherwise = 2; /* onto itself. */
    refuses(&s);
    make(&s);
    s.edges[0].to = 8; /* past the last verdict. */
    refuses(&s);
    make(&s);
    s.target.root = 8;
    refuses(&s);
    make(&s);
    s.target.attributes &= ~(1U << ATTRIBUTE(METHOD)); /* reads what the cache's key lacks. */
    refuses(&s);
    make(&s);
    s.target.n_trait_names = 0;
    refuses(&s);
    make(&s);
    s.target.n_verdicts = 0;
    refuses(&s);
    make(&s);
    s.nodes[0].n_edges = 0; /* neither edges nor a glob. */
    refuses(&s);
}

static bool find_header(const void *ctx, struct slice name, struct slice *out)
{
    *out = *(const struct slice *)ctx;
    return slice_eq(name, SLICE_LIT("x-kind"));
}

/* A sample whose first node asks for a header. */
static void make_header_sample(struct sample *s)
{
    static char name[] = "x-kind";
    static char *headers[] = {name};
    make(s);
    s->nodes[0].attribute = ATTRIBUTE(HEADER);
    s->nodes[0].name = name;
    s->target.attributes |= 1U << ATTRIBUTE(HEADER);
    s->target.n_header_names = 1;
    s->target.header_names = headers;
}

/* Requests that differ in a header that is read, or in whether it is there, share no entry. */
static void headers_are_part_of_the_key(void **state)
{
    (void)state;
    struct sample s;
    make_header_sample(&s);
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(64, 1000, &cache).code, E_OK);
    struct slice value = SLICE_LIT("acme/web");
    for (int round = 0; round < 2; round++) {
        struct dp_policy_query query = query_of(&poor, "/a.B/Get");
        assert_false(dp_policy_cache_decide(cache, target, &query, 1).allow);
        query.header = find_header;
        query.ctx = &value;
        value = SLICE_LIT("acme/web");
        struct dp_verdict verdict = dp_policy_cache_decide(cache, target, &query, 1);
        assert_true(verdict.allow);
        assert_int_equal(verdict.cached, round == 1);
        value = SLICE_LIT("");
        assert_false(dp_policy_cache_decide(cache, target, &query, 1).allow);
    }
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

/* ---- several graphs ---- */

static struct dp_verdict decide(const struct sample *s, const struct dp_caller *caller,
                                const char *method)
{
    struct dp_policy_target *target = NULL;
    struct dp_policy_query query = query_of(caller, method);
    assert_int_equal(build(s, &target).code, E_OK);
    struct dp_verdict verdict = dp_policy_decide(target, &query);
    static char rule[64];
    static char shadow[64];
    (void)snprintf(rule, sizeof(rule), "%.*s", SLICE_ARG(verdict.rule));
    (void)snprintf(shadow, sizeof(shadow), "%.*s", SLICE_ARG(verdict.shadow));
    verdict.rule = slice_str(rule);
    verdict.shadow = slice_str(shadow);
    dp_policy_free(target);
    return verdict;
}

/* Of the verdicts of all graphs deny wins, then the lowest index; "no rule" only when all say so.
 */
static void verdicts_of_graphs_are_judged_together(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    uint32_t more[] = {3}; /* the node that asks for the trait */
    s.target.more_roots = more;
    s.target.n_more_roots = 1;
    assert_true(slice_eq(decide(&s, &web, "/a.B/Get").rule, SLICE_LIT("acme/p/r1")));
    assert_true(slice_eq(decide(&s, &rich, "/a.B/Delete").rule, SLICE_LIT("acme/p/r3")));
    assert_true(slice_eq(decide(&s, &poor, "/a.B/Get").rule, SLICE_LIT("")));
    more[0] = 6; /* the verdict r2 */
    assert_true(slice_eq(decide(&s, &web, "/a.B/Get").rule, SLICE_LIT("acme/p/r1")));
    assert_true(slice_eq(decide(&s, &rich, "/a.B/Delete").rule, SLICE_LIT("acme/p/r2")));
    s.verdicts[2].allow = 0;
    assert_true(slice_eq(decide(&s, &web, "/a.B/Get").rule, SLICE_LIT("acme/p/r2")));
    assert_false(decide(&s, &web, "/a.B/Get").allow);
    more[0] = 8;
    refuses(&s);
    more[0] = 5;
    s.verdicts[0].allow = 1;
    refuses(&s);
}

/* What shadow graphs would turn is said, and not done. */
static void shadows_decide_nothing(void **state)
{
    (void)state;
    struct sample s;
    make(&s);
    uint32_t shadow[] = {6};
    s.target.shadow_roots = shadow;
    s.target.n_shadow_roots = 1;
    s.verdicts[2].allow = 0;
    struct dp_verdict verdict = decide(&s, &web, "/a.B/Get");
    assert_true(verdict.allow);
    assert_true(slice_eq(verdict.shadow, SLICE_LIT("acme/p/r2")));
    verdict = decide(&s, &poor, "/a.B/Get");
    assert_false(verdict.allow);
    assert_true(slice_eq(verdict.shadow, SLICE_LIT("")));
    s.verdicts[2].allow = 1;
    verdict = decide(&s, &poor, "/a.B/Get");
    assert_false(verdict.allow);
    assert_true(slice_eq(verdict.shadow, SLICE_LIT("acme/p/r2")));
}

/* The longest edge that a value begins with is taken, and no edge when there is none. */
static void prefixes_are_taken_by_the_longest(void **state)
{
    (void)state;
    static char texts[][8] = {"/a", "/a.B/", "/a.BC", "/b"};
    static const uint32_t to[] = {5, 6, 4, 7};
    static const struct {
        const char *method;
        const char *rule;
    } wanted[] = {{"/a.B/Get", "acme/p/r2"},
                  {"/a", "acme/p/r1"},
                  {"/a.C", "acme/p/r1"},
                  {"/a.BC/x", ""},
                  {"/b/x", "acme/p/r3"},
                  {"/", ""},
                  {"/a.BB", "acme/p/r1"},
                  {"/c", ""},
                  {"", ""}};
    struct sample s;
    part_edge edges[4];
    part_edge *list[4];
    make(&s);
    for (size_t i = 0; i < 4; i++) {
        trilane__parts__v1__policy_edge__init(&edges[i]);
        edges[i].value = texts[i];
        edges[i].to = to[i];
        list[i] = &edges[i];
    }
    s.nodes[0].attribute = ATTRIBUTE(METHOD);
    s.nodes[0].prefixes = 1;
    s.nodes[0].edges = list;
    s.nodes[0].n_edges = 4;
    s.nodes[0].otherwise = 4;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        struct dp_verdict verdict = decide(&s, &poor, wanted[i].method);
        assert_true(slice_eq(verdict.rule, slice_str(wanted[i].rule)));
    }
}

/* ---- times ---- */

/* A rule of Monday 09:00 to 17:00 UTC until some instant; the key has whether it holds. */
static void schedules_follow_the_clock(void **state)
{
    (void)state;
    static char name[] = "0";
    static char in[] = "in";
    const int64_t monday_ms = INT64_C(1767571200000); /* 2026-01-05T00:00:00Z */
    const int64_t hour_ms = 3600000;
    uint32_t from[] = {9 * 60};
    uint32_t to[] = {17 * 60};
    Trilane__Parts__V1__Schedule schedule;
    Trilane__Parts__V1__Schedule *schedules[] = {&schedule};
    struct sample s;
    make(&s);
    trilane__parts__v1__schedule__init(&schedule);
    schedule.from = from;
    schedule.to = to;
    schedule.n_from = schedule.n_to = 1;
    schedule.not_after_ms = (uint64_t)(monday_ms + (7 * 24 + 16) * hour_ms);
    s.target.schedules = schedules;
    s.target.n_schedules = 1;
    s.target.attributes |= 1U << ATTRIBUTE(SCHEDULE);
    s.nodes[0].attribute = ATTRIBUTE(SCHEDULE);
    s.nodes[0].name = name;
    s.edges[0].value = in;
    s.edges[0].to = 5;
    s.nodes[0].otherwise = 4;
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(&s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 60000, &cache).code, E_OK);
    assert_true(dp_policy_reads_clock(target));
    struct dp_policy_query query = query_of(&poor, "/a.B/Get");
    const struct {
        int64_t ms;
        bool allow;
    } times[] = {
        {monday_ms + 9 * hour_ms - 1, false},     {monday_ms + 9 * hour_ms, true},
        {monday_ms + 17 * hour_ms - 1, true},     {monday_ms + 17 * hour_ms, false},
        {monday_ms + (24 + 10) * hour_ms, false}, {monday_ms + 10 * hour_ms, true},
        {monday_ms + (168 + 15) * hour_ms, true}, {monday_ms + (168 + 16) * hour_ms, false},
        {monday_ms - 10 * hour_ms, false}};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        query.wall_ms = times[i].ms;
        assert_int_equal(dp_policy_decide(target, &query).allow, times[i].allow);
        assert_int_equal(dp_policy_cache_decide(cache, target, &query, 1).allow, times[i].allow);
    }
    dp_policy_cache_free(cache);
    dp_policy_free(target);
    to[0] = 9 * 60; /* it never holds */
    refuses(&s);
    to[0] = 7 * 24 * 60 + 1;
    refuses(&s);
    to[0] = 17 * 60;
    name[0] = '1'; /* there is none */
    refuses(&s);
    name[0] = '0';
}

/* ---- numbers ---- */

/* A sample that compares header x-kind. In: r1; out: r2; no number: denied. */
struct compared {
    struct sample sample;
    Trilane__Parts__V1__Comparison comparison;
    Trilane__Parts__V1__Comparison *comparisons[1];
    char index[2]; /* of the comparison. */
};

static void make_compared(struct compared *c)
{
    static char in[] = "in";
    static char out[] = "out";
    static char kind[] = "x-kind";
    struct sample *s = &c->sample;
    *c = (struct compared){.index = "0"};
    make(s);
    trilane__parts__v1__comparison__init(&c->comparison);
    c->comparison.attribute = ATTRIBUTE(HEADER);
    c->comparison.name = kind;
    c->comparison.measure = TRILANE__PARTS__V1__MEASURE__MEASURE_INT;
    c->comparison.least = -5;
    c->comparison.most = INT64_MAX;
    c->comparisons[0] = &c->comparison;
    s->target.comparisons = c->comparisons;
    s->target.n_comparisons = 1;
    s->target.attributes |= 1U << ATTRIBUTE(COMPARISON);
    for (size_t i = 0; i < 2; i++) {
        s->nodes[i].attribute = ATTRIBUTE(COMPARISON);
        s->nodes[i].name = c->index;
        s->edges[i].value = i == 0 ? in : out;
        s->edges[i].to = i == 0 ? 5 : 6;
        s->nodes[i].otherwise = i == 0 ? 1 : 4;
    }
}

static const struct {
    const char *value;
    const char *rule; /* as an integer, of at least -5. */
    const char *size; /* its size, of at most 3. */
} numbers[] = {{"-5", "acme/p/r1", "acme/p/r1"},
               {"-6", "acme/p/r2", "acme/p/r1"},
               {"0007", "acme/p/r1", "acme/p/r2"},
               {"9223372036854775807", "acme/p/r1", "acme/p/r2"},
               {"9223372036854775808", NULL, "acme/p/r2"},
               {"-9223372036854775808", "acme/p/r2", "acme/p/r2"},
               {"-9223372036854775809", NULL, "acme/p/r2"},
               {"", NULL, "acme/p/r1"},
               {"-", NULL, "acme/p/r1"},
               {"+1", NULL, "acme/p/r1"},
               {" 1", NULL, "acme/p/r1"},
               {"1/2", NULL, "acme/p/r1"},
               {"äöü", NULL, "acme/p/r1"},
               {"äöüx", NULL, "acme/p/r2"}};

/* With a cache and without. */
static void decides_numbers(const struct sample *s, bool by_size)
{
    struct dp_policy_target *target = NULL;
    struct dp_policy_cache *cache = NULL;
    assert_int_equal(build(s, &target).code, E_OK);
    assert_int_equal(dp_policy_cache_new(16, 60000, &cache).code, E_OK);
    struct dp_policy_query query = query_of(&poor, "/a.B/Get");
    query.header = find_header;
    for (size_t i = 0; i < 2 * sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct slice value = slice_str(numbers[i / 2].value);
        query.ctx = &value;
        const char *rule = by_size ? numbers[i / 2].size : numbers[i / 2].rule;
        struct dp_verdict verdict = i % 2 == 0 ? dp_policy_decide(target, &query)
                                               : dp_policy_cache_decide(cache, target, &query, 1);
        if (!slice_eq(verdict.rule, slice_str(rule))) {
            fail_msg("%s: %.*s", numbers[i / 2].value, SLICE_ARG(verdict.rule));
        }
    }
    query = query_of(&poor, "/a.B/Get"); /* no header at all */
    assert_false(dp_policy_cache_decide(cache, target, &query, 1).allow);
    dp_policy_cache_free(cache);
    dp_policy_free(target);
}

static void numbers_are_in_their_range_or_out_of_it(void **state)
{
    (void)state;
    struct compared c;
    make_compared(&c);
    decides_numbers(&c.sample, /* by_size= */ false);
    c.comparison.measure = TRILANE__PARTS__V1__MEASURE__MEASURE_SIZE;
    c.comparison.least = INT64_MIN;
    c.comparison.most = 3;
    decides_numbers(&c.sample, /* by_size= */ true);
}

static void comparisons_that_are_refused(void **state)
{
    (void)state;
    struct compared c;
    make_compared(&c);
    c.index[0] = '1'; /* there is none */
    refuses(&c.sample);
    make_compared(&c);
    c.comparison.least = 4; /* nothing is in it */
    c.comparison.most = 3;
    refuses(&c.sample);
    make_compared(&c);
    c.comparison.measure = TRILANE__PARTS__V1__MEASURE__MEASURE_NONE;
    refuses(&c.sample);
    make_compared(&c);
    c.comparison.attribute = ATTRIBUTE(COMPARISON);
    refuses(&c.sample);
    make_compared(&c);
    c.sample.target.attributes &= ~(1U << ATTRIBUTE(COMPARISON)); /* it is not declared. */
    refuses(&c.sample);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decides_as_the_part_says),
        cmocka_unit_test(cache_forgets_by_time_and_by_clear),
        cmocka_unit_test(each_header_is_looked_at_with_and_without_a_cache),
        cmocka_unit_test(long_values_are_not_cached),
        cmocka_unit_test(presence_is_all_of_a_long_value),
        cmocka_unit_test(no_policy_is_a_denial),
        cmocka_unit_test(refuses_what_could_harm),
        cmocka_unit_test(headers_are_part_of_the_key),
        cmocka_unit_test(verdicts_of_graphs_are_judged_together),
        cmocka_unit_test(shadows_decide_nothing),
        cmocka_unit_test(prefixes_are_taken_by_the_longest),
        cmocka_unit_test(schedules_follow_the_clock),
        cmocka_unit_test(numbers_are_in_their_range_or_out_of_it),
        cmocka_unit_test(comparisons_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
