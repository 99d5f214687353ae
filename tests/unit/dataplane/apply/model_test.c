/* Proves that a model is built from parts strictly, takes over what did not change, and finds
 * what requests ask for in the order of precision. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/net/tls.h"
#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "trilane/parts/v1/parts.pb-c.h"

struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    uint64_t version;
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    publisher_init(&w->publisher);
    assert_true(err_ok(dp_model_bin_new(&w->bin)));
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    dp_model_bin_free(w->bin);
    publisher_free(&w->publisher);
    free(w);
    return 0;
}

static struct err build(struct world *w, const struct content *c, const struct dp_model *previous,
                        struct dp_model **out, struct dp_build_report *report)
{
    struct version *v = version_new(&w->publisher, c, ++w->version, NULL);
    struct snap_set *set =
        version_set(&w->publisher, v, previous == NULL ? NULL : dp_model_set(previous));
    struct err e = dp_model_build(w->bin, set, previous, out, report);
    snap_set_unref(set);
    version_free(v);
    return e;
}

/* ---- look-ups ---- */

static struct dp_model *sample_model(struct world *w)
{
    struct content *c = content_sample(50051);
    struct dp_model *model = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(w, c, NULL, &model, &report)));
    assert_int_equal(report.parts, c->count);
    assert_int_equal(report.parts_built, c->count);
    content_free(c);
    return model;
}

static void finds_what_it_was_built_from(void **state)
{
    struct world *w = *state;
    struct dp_model *m = sample_model(w);
    assert_int_equal(dp_model_version(m), 1);
    assert_true(slice_eq(dp_model_environment(m)->name, SLICE_LIT("test")));

    const struct dp_caller *caller =
        dp_model_caller_by_spiffe(m, SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web"));
    assert_non_null(caller);
    assert_true(slice_eq(caller->id, SLICE_LIT("acme/web")));
    assert_true(slice_eq(caller->domain, SLICE_LIT("trilane.test")));
    assert_int_equal(caller->trait_count, 1);
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("token-of-web"), digest);
    assert_ptr_equal(dp_model_caller_by_token(m, digest), caller);
    ids_digest(SLICE_LIT("another"), digest);
    assert_null(dp_model_caller_by_token(m, digest));

    const struct dp_cluster *orders = dp_model_cluster(m, SLICE_LIT("service/acme/orders"));
    assert_non_null(orders);
    assert_int_equal(orders->endpoint_count, 1);
    assert_int_equal(orders->endpoints[0].port, 50051);
    assert_int_equal(dp_model_transport(m, orders->transport)->timeout_ms, 3000);
    assert_non_null(dp_model_policy(m, &orders->target));
    assert_non_null(dp_model_limits(m, &orders->target));
    const struct dp_cluster *web = dp_model_cluster(m, SLICE_LIT("service/acme/web"));
    assert_null(dp_model_policy(m, &web->target));
    assert_null(dp_model_limits(m, &web->target));

    const struct dp_topic *topic = dp_model_topic(m, SLICE_LIT("User.v2"));
    assert_non_null(topic);
    assert_ptr_equal(dp_model_topic(m, SLICE_LIT("acme.users.v2.User")), topic);
    assert_true(slice_eq(topic->target.id, SLICE_LIT("topic/User.v2")));
    assert_non_null(dp_model_policy(m, &topic->target));
    assert_int_not_equal(topic->payload_bytes, 0);
    assert_null(dp_model_topic(m, SLICE_LIT("User.v1")));

    assert_true(dp_model_has_grpc_service(m, SLICE_LIT("acme.orders")));
    assert_false(dp_model_has_grpc_service(m, SLICE_LIT("acme.nothing")));
    assert_true(dp_model_has_tenant(m, SLICE_LIT("acme")));
    assert_false(dp_model_has_tenant(m, SLICE_LIT("globex")));
    dp_model_unref(m);
}

static void finds_the_egress_of_a_host(void **state)
{
    struct dp_model *m = sample_model(*state);
    struct slice acme = SLICE_LIT("acme");
    const struct dp_egress *e = dp_model_egress(m, acme, SLICE_LIT("api.example.com"), 443);
    assert_non_null(e);
    assert_int_equal(e->port_count, 2);
    assert_ptr_equal(dp_model_egress(m, acme, SLICE_LIT("a.b.example.org"), 80), e);
    assert_null(dp_model_egress(m, acme, SLICE_LIT("example.org"), 80));
    assert_null(dp_model_egress(m, acme, SLICE_LIT("api.example.net"), 80));
    assert_null(dp_model_egress(m, SLICE_LIT("globex"), SLICE_LIT("api.example.com"), 443));
    assert_null(dp_model_egress(m, (struct slice){0}, SLICE_LIT("api.example.com"), 443));
    char longest[600];
    memset(longest, 'a', sizeof(longest));
    assert_null(dp_model_egress(m, acme, slice_of(longest, sizeof(longest)), 443));
    dp_model_unref(m);
}

/* ---- routes ---- */

struct sent {
    const char *name;
    const char *value;
};

static bool find_header(const void *ctx, struct slice name, struct slice *out)
{
    const struct sent *sent = ctx;
    if (sent == NULL || !slice_eq(name, slice_str(sent->name))) {
        return false;
    }
    *out = slice_str(sent->value);
    return true;
}

static const char *route_id(const struct dp_model *m, const char *host, const char *path,
                            const char *tenant, const struct sent *sent)
{
    struct dp_route_query query = {
        .host = slice_str(host),
        .path = slice_str(path),
        .method = SLICE_LIT("POST"),
        .tenant = slice_str(tenant),
        .header = find_header,
        .ctx = sent,
    };
    const struct dp_route *route = dp_model_route(m, &query);
    return route == NULL ? "none" : (const char *)route->id.ptr;
}

struct route_row {
    const char *id;
    Trilane__Parts__V1__PathMatch match;
    const char *path;
    const char *tenant; /* NULL: any. */
    const char *header; /* NULL: none; its value must be "yes". */
    const char *method; /* NULL: any. */
};

enum { ROWS_MAX = 400 };

/* 'origins': of each row, whose pages may call, with credentials where a header is asked for; NULL:
 * nobody's. */
static void put_group_for(struct content *c, const char *host, const char *segment,
                          const struct route_row *rows, size_t count, const char *const *origins)
{
    Trilane__Parts__V1__WeightedTarget target;
    trilane__parts__v1__weighted_target__init(&target);
    target.cluster = publisher_text("service/acme/orders");
    target.weight = 1;
    Trilane__Parts__V1__WeightedTarget *targets[] = {&target};
    Trilane__Parts__V1__RouteEntry entries[ROWS_MAX];
    Trilane__Parts__V1__RouteEntry *list[ROWS_MAX];
    Trilane__Parts__V1__HeaderMatch headers[ROWS_MAX];
    Trilane__Parts__V1__HeaderMatch *header_list[ROWS_MAX];
    Trilane__Parts__V1__Cors cors[ROWS_MAX];
    char *pages[ROWS_MAX];
    char *tenants[ROWS_MAX];
    char yes[] = "yes";
    for (size_t i = 0; i < count; i++) {
        trilane__parts__v1__route_entry__init(&entries[i]);
        entries[i].id = publisher_text(rows[i].id);
        entries[i].match = rows[i].match;
        entries[i].path = publisher_text(rows[i].path);
        entries[i].n_targets = 1;
        entries[i].targets = targets;
        tenants[i] = publisher_text(rows[i].tenant);
        entries[i].n_tenants = rows[i].tenant == NULL ? 0 : 1;
        entries[i].tenants = &tenants[i];
        trilane__parts__v1__header_match__init(&headers[i]);
        headers[i].name = publisher_text(rows[i].header);
        headers[i].value = yes;
        header_list[i] = &headers[i];
        entries[i].n_headers = rows[i].header == NULL ? 0 : 1;
        entries[i].headers = &header_list[i];
        if (rows[i].method != NULL) {
            entries[i].http_method = publisher_text(rows[i].method);
        }
        trilane__parts__v1__cors__init(&cors[i]);
        const char *origin = origins == NULL ? NULL : origins[i];
        pages[i] = publisher_text(origin);
        cors[i].n_origins = 1;
        cors[i].origins = &pages[i];
        cors[i].credentials = rows[i].header != NULL;
        entries[i].cors = origin == NULL ? NULL : &cors[i];
        list[i] = &entries[i];
    }
    Trilane__Parts__V1__RouteGroup group;
    trilane__parts__v1__route_group__init(&group);
    group.host = publisher_text(host);
    group.segment = publisher_text(segment);
    group.n_routes = count;
    group.routes = list;
    char key[96];
    (void)snprintf(key, sizeof(key), "host/%s/%s", host, segment);
    content_put(c, STREAM_ROUTING, key, &group.base);
}

static void put_group(struct content *c, const char *host, const char *segment,
                      const struct route_row *rows, size_t count)
{
    put_group_for(c, host, segment, rows, count, /* origins= */ NULL);
}

#define EXACT TRILANE__PARTS__V1__PATH_MATCH__PATH_EXACT
#define PREFIX TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX
#define ANY TRILANE__PARTS__V1__PATH_MATCH__PATH_ANY

/* ---- a large group ---- */

static uint32_t draw(uint32_t below)
{
    static uint32_t seed = 12345;
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* "/v1", then up to three segments of three names, perhaps a '/' behind them. */
static void draw_path(char out[32])
{
    static const char *const names[] = {"/a", "/b", "/ab"};
    size_t at = (size_t)snprintf(out, 32, "/v1");
    for (uint32_t i = draw(4); i > 0; i--) {
        at += (size_t)snprintf(out + at, 32 - at, "%s", names[draw(3)]);
    }
    (void)snprintf(out + at, 32 - at, "%s", draw(3) == 0 ? "/" : "");
}

static bool row_matches(const struct route_row *row, const char *path, const char *tenant)
{
    size_t size = strlen(row->path);
    bool below = strncmp(path, row->path, size) == 0 &&
                 (path[size] == '\0' || path[size] == '/' || row->path[size - 1] == '/');
    bool by_path =
        row->match == ANY || (row->match == EXACT ? strcmp(row->path, path) == 0 : below);
    return by_path && (row->tenant == NULL || strcmp(row->tenant, tenant) == 0);
}

/* Whatever the order of the entries: the first that matches is the one that is found. */
static void a_large_group_is_found_by_its_paths(void **state)
{
    static struct route_row rows[ROWS_MAX];
    static char ids[ROWS_MAX][16];
    static char paths[ROWS_MAX][32];
    static const char *const tenants[] = {"acme", "globex", "initech"};
    for (size_t i = 0; i < ROWS_MAX; i++) {
        (void)snprintf(ids[i], sizeof(ids[i]), "row-%zu", i);
        draw_path(paths[i]);
        uint32_t kind = draw(50);
        rows[i] = (struct route_row){
            .id = ids[i],
            .match = kind == 0 && i > ROWS_MAX / 2 ? ANY
                     : kind < 30                   ? EXACT
                                                   : PREFIX,
            .path = paths[i],
            .tenant = tenants[draw(3)],
        };
    }
    struct content *c = content_sample(1);
    put_group(c, "*", "v1", rows, ROWS_MAX);
    struct dp_model *m = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(*state, c, NULL, &m, &report)));
    content_free(c);
    size_t found = 0;
    for (int n = 0; n < 20000; n++) {
        char path[32];
        draw_path(path);
        const char *tenant = draw(4) == 0 ? "nobody" : tenants[draw(3)];
        size_t i = 0;
        while (i < ROWS_MAX && !row_matches(&rows[i], path, tenant)) {
            i++;
        }
        const char *wanted = i == ROWS_MAX ? "none" : ids[i];
        assert_string_equal(route_id(m, "any.host", path, tenant, NULL), wanted);
        found += i < ROWS_MAX;
    }
    assert_in_range(found, 1000, 19000);
    dp_model_unref(m);
}

static const struct dp_cors *cors_of(const struct dp_model *m, const char *path, const char *origin)
{
    return dp_model_cors(m, SLICE_LIT("shop.example.com"), slice_str(path), slice_str(origin),
                         /* ambient= */ false);
}

/* By host and path alone: tenants, methods and headers are not asked about. */
static void cors_of_a_route(void **state)
{
    static const struct route_row rows[] = {
        {"exact", EXACT, "/v1/a", "acme", NULL, "GET"},
        {"none", PREFIX, "/v1/none", NULL, NULL, NULL},
        {"first", PREFIX, "/v1", "globex", NULL, NULL},
        {"below", PREFIX, "/v1", NULL, "x-canary", NULL},
    };
    static const char *const origins[] = {"https://exact.example", NULL, "https://first.example",
                                          "https://*.below.example"};
    static const struct route_row open[] = {{"open", ANY, "", NULL, NULL, NULL}};
    static const char *const anybody[] = {"*"};
    struct content *c = content_sample(1);
    put_group_for(c, "shop.example.com", "v1", rows, 4, origins);
    put_group_for(c, "shop.example.com", "open", open, 1, anybody);
    struct dp_model *m = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(*state, c, NULL, &m, &report)));
    content_free(c);
    assert_non_null(cors_of(m, "/v1/a", "https://exact.example"));
    assert_null(cors_of(m, "/v1/b", "https://exact.example"));
    assert_non_null(cors_of(m, "/v1/a", "https://first.example"));
    assert_non_null(cors_of(m, "/v1/none", "https://first.example"));
    assert_null(cors_of(m, "/v2", "https://first.example"));
    static const char *const below[] = {"https://a.below.example", "https://a.b.below.example"};
    static const char *const not_below[] = {
        "https://below.example",
        "https://.below.example",
        "https://*.below.example.evil",
        "http://a.below.example",
        "https://abelow.example",
        "https://a.below.example:8443",
        "https://a.below.example.evil",
        "null",
        "",
    };
    for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
        assert_non_null(cors_of(m, "/v1/x", below[i]));
    }
    for (size_t i = 0; i < sizeof(not_below) / sizeof(not_below[0]); i++) {
        assert_null(cors_of(m, "/v1/x", not_below[i]));
    }
    const struct dp_cors *any = cors_of(m, "/open", "null");
    assert_non_null(any);
    assert_true(any->any);
    assert_true(slice_starts(any->allow_headers, SLICE_LIT("content-type, x-grpc-web, ")));
    assert_true(slice_starts(any->expose_headers,
                             SLICE_LIT("grpc-status, grpc-message, grpc-status-details-bin, "
                                       "x-trilane-code, x-trilane-rule, x-trilane-explain, ")));
    const struct slice host = SLICE_LIT("shop.example.com");
    struct slice exact = SLICE_LIT("https://exact.example");
    assert_null(dp_model_cors(m, host, SLICE_LIT("/v1/a"), exact, /* ambient= */ true));
    assert_non_null(dp_model_cors(m, host, SLICE_LIT("/v1/a"), slice_str(below[0]),
                                  /* ambient= */ true));
    assert_null(dp_model_cors(m, host, SLICE_LIT("/open"), exact, /* ambient= */ true));
    dp_model_unref(m);
}

static void routes_by_precision(void **state)
{
    struct world *w = *state;
    struct content *c = content_sample(1);
    static const struct route_row exact_host[] = {
        {"get-only", EXACT, "/v1/a", NULL, NULL, "GET"},
        {"exact", EXACT, "/v1/a", NULL, NULL, NULL},
        {"globex", PREFIX, "/v1", "globex", NULL, NULL},
        {"canary", PREFIX, "/v1", NULL, "x-canary", NULL},
        {"prefix", PREFIX, "/v1", NULL, NULL, NULL},
    };
    static const struct route_row any_path[] = {{"any-path", ANY, "", NULL, NULL, NULL}};
    static const struct route_row wildcard[] = {{"wildcard", ANY, "", NULL, NULL, NULL}};
    static const struct route_row longer[] = {{"longer", ANY, "", NULL, NULL, NULL}};
    put_group(c, "shop.example.com", "v1", exact_host, 5);
    put_group(c, "shop.example.com", "", any_path, 1);
    put_group(c, "*.example.com", "", wildcard, 1);
    put_group(c, "*.eu.example.com", "", longer, 1);
    struct dp_model *m = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(w, c, NULL, &m, &report)));
    content_free(c);

    const struct sent canary = {"x-canary", "yes"};
    const struct sent other = {"x-canary", "no"};
    const char *host = "shop.example.com";
    assert_string_equal(route_id(m, host, "/v1/a", "acme", NULL), "exact");
    assert_string_equal(route_id(m, host, "/v1/a/b", "acme", NULL), "prefix");
    assert_string_equal(route_id(m, host, "/v1", "acme", NULL), "prefix");
    assert_string_equal(route_id(m, host, "/v1/b", "globex", NULL), "globex");
    assert_string_equal(route_id(m, host, "/v1/b", "acme", &canary), "canary");
    assert_string_equal(route_id(m, host, "/v1/b", "acme", &other), "prefix");
    assert_string_equal(route_id(m, host, "/v12", "acme", NULL), "any-path");
    assert_string_equal(route_id(m, host, "/", "acme", NULL), "any-path");
    assert_string_equal(route_id(m, "x.example.com", "/", "acme", NULL), "wildcard");
    assert_string_equal(route_id(m, "a.b.eu.example.com", "/", "acme", NULL), "longer");
    assert_string_equal(route_id(m, "example.com", "/", "acme", NULL), "none");
    assert_string_equal(route_id(m, "else", "/acme.orders/Get", "acme", NULL), "acme/orders/0");
    assert_string_equal(route_id(m, "else", "/acme.orders/Put", "acme", NULL), "acme/orders");
    assert_string_equal(route_id(m, "", "/nothing", "acme", NULL), "none");
    assert_string_equal(route_id(m, host, "no-slash", "acme", NULL), "none");
    assert_string_equal(route_id(m, host, "", "acme", NULL), "none");
    dp_model_unref(m);
}

static void knows_whether_the_systems_cas_are_needed(void **state)
{
    struct world *w = *state;
    struct content *c = content_sample(1);
    struct dp_build_report report;
    struct dp_model *m = sample_model(w); /* its egress has a profile without tls. */
    assert_true(dp_model_needs_system_trust(m));
    dp_model_unref(m);
    Trilane__Parts__V1__Transport ours;
    trilane__parts__v1__transport__init(&ours);
    ours.id = publisher_text("default");
    ours.timeout_ms = 3000;
    ours.upstream_tls = 1;
    content_put(c, STREAM_TRANSPORT, "default", &ours.base);
    assert_true(err_ok(build(w, c, NULL, &m, &report)));
    assert_false(dp_model_needs_system_trust(m));
    dp_model_unref(m);
    content_free(c);
    c = content_sample(1);
    content_remove(c, STREAM_EGRESS, "acme/partners");
    assert_true(err_ok(build(w, c, NULL, &m, &report)));
    assert_false(dp_model_needs_system_trust(m));
    dp_model_unref(m);
    content_free(c);
}

/* ---- taking over ---- */

static void builds_only_what_changed(void **state)
{
    struct world *w = *state;
    struct content *c = content_sample(1);
    content_fill_policies(c, 2000);
    struct dp_model *first = NULL;
    struct dp_model *second = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(w, c, NULL, &first, &report)));
    struct content *changed = content_sample(2);
    content_fill_policies(changed, 2000);
    assert_true(err_ok(build(w, changed, first, &second, &report)));
    assert_int_equal(report.parts, changed->count);
    assert_int_equal(report.parts_built, 1);
    assert_int_equal(dp_model_cluster(second, SLICE_LIT("service/acme/orders"))->endpoints[0].port,
                     2);
    assert_int_equal(dp_model_cluster(first, SLICE_LIT("service/acme/orders"))->endpoints[0].port,
                     1);
    /* What was taken over lives on without the model that it came from. */
    dp_model_unref(first);
    assert_int_equal(dp_model_bin_live(w->bin), 2);
    assert_int_equal(dp_model_bin_sweep(w->bin), 1);
    assert_int_equal(dp_model_bin_live(w->bin), 1);
    assert_non_null(dp_model_caller_by_spiffe(
        second, SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web")));
    /* And a part that is gone is gone. */
    struct dp_model *third = NULL;
    content_remove(changed, STREAM_EGRESS, "acme/partners");
    assert_true(err_ok(build(w, changed, second, &third, &report)));
    assert_int_equal(report.parts_built, 0);
    assert_null(dp_model_egress(third, SLICE_LIT("acme"), SLICE_LIT("api.example.com"), 443));
    dp_model_unref(second);
    dp_model_unref(third);
    content_free(c);
    content_free(changed);
}

static void refused(struct world *w, const struct content *c, enum err_code code,
                    const char *object);

/* ---- formats N and N-1 ---- */

static struct dp_model *model_of(struct world *w, struct content *c, const struct dp_model *before,
                                 struct dp_build_report *report)
{
    struct dp_model *model = NULL;
    assert_true(err_ok(build(w, c, before, &model, report)));
    content_free(c);
    return model;
}

/* The same services are known by the same names, whichever format says so; and when a node goes
 * from one to the other, no part is taken for what it was in the other. */
static void both_formats_mean_the_same(void **state)
{
    struct world *w = *state;
    struct dp_build_report report;
    struct dp_model *former = model_of(w, content_sample_former(7), NULL, &report);
    struct dp_model *present = model_of(w, content_sample(7), former, &report);
    assert_int_equal(report.parts - report.parts_built, report.parts - 3); /* all but trust. */
    struct dp_model *again = model_of(w, content_sample_former(7), present, &report);
    assert_int_equal(report.parts - report.parts_built, report.parts - 3);
    const struct dp_model *all[] = {former, present, again};
    for (size_t i = 0; i < 3; i++) {
        struct slice web = SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web");
        const struct dp_caller *caller = dp_model_caller_by_spiffe(all[i], web);
        assert_non_null(caller);
        assert_true(slice_eq(caller->spiffe, web));
        assert_true(slice_eq(caller->id, SLICE_LIT("acme/web")));
        assert_true(slice_eq(caller->domain, SLICE_LIT("trilane.test")));
        assert_true(slice_eq(caller->tenant, SLICE_LIT("acme")));
        assert_true(slice_eq(caller->service, SLICE_LIT("web")));
        assert_int_equal(caller->trait_count, 1);
        uint8_t digest[DIGEST_SIZE];
        ids_digest(SLICE_LIT("token-of-web"), digest);
        assert_ptr_equal(dp_model_caller_by_token(all[i], digest), caller);
        assert_false(dp_model_revokes(all[i]));
    }
    dp_model_unref(former);
    dp_model_unref(present);
    dp_model_unref(again);
}

static void put_environment(struct content *c, char **domains, size_t count)
{
    Trilane__Parts__V1__EnvironmentPart environment;
    trilane__parts__v1__environment_part__init(&environment);
    environment.name = publisher_text(PUBLISHER_ENVIRONMENT);
    environment.trust_domain = publisher_text("trilane.test");
    environment.partitions = 16;
    environment.trust_domains = domains;
    environment.n_trust_domains = count;
    content_put(c, STREAM_TRUST, "environment", &environment.base);
}

static void a_service_is_known_in_each_trust_domain(void **state)
{
    struct world *w = *state;
    char *domains[] = {publisher_text("new.test"), publisher_text("old.test")};
    struct content *c = content_sample(7);
    put_environment(c, domains, 2);
    struct dp_build_report report;
    struct dp_model *m = model_of(w, c, NULL, &report);
    const struct dp_caller *in_old =
        dp_model_caller_by_spiffe(m, SLICE_LIT("spiffe://old.test/tenant/acme/service/web"));
    assert_non_null(in_old);
    assert_true(slice_eq(in_old->domain, SLICE_LIT("old.test")));
    assert_true(slice_eq(in_old->id, SLICE_LIT("acme/web")));
    assert_null(
        dp_model_caller_by_spiffe(m, SLICE_LIT("spiffe://other.test/tenant/acme/service/web")));
    assert_true(dp_model_trusts_domain(m, SLICE_LIT("trilane.test")));
    assert_true(dp_model_trusts_domain(m, SLICE_LIT("new.test")));
    assert_false(dp_model_trusts_domain(m, SLICE_LIT("other.test")));
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("token-of-web"), digest);
    const struct dp_caller *by_token = dp_model_caller_by_token(m, digest);
    assert_true(slice_eq(by_token->domain, SLICE_LIT("trilane.test"))); /* the first one's. */
    /* Services are named anew when a domain goes, though their own parts are as they were. */
    c = content_sample(7);
    put_environment(c, domains, 1);
    struct dp_model *after = model_of(w, c, m, &report);
    assert_int_equal(report.parts_built, 3);
    assert_null(
        dp_model_caller_by_spiffe(after, SLICE_LIT("spiffe://old.test/tenant/acme/service/web")));
    dp_model_unref(m);
    dp_model_unref(after);
}

static void domains_have_bounds_and_an_order(void **state)
{
    struct world *w = *state;
    char *backwards[] = {publisher_text("b.test"), publisher_text("a.test")};
    char *own[] = {publisher_text("trilane.test")};
    char texts[16][16];
    char *many[16];
    for (int i = 0; i < 16; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "d%02d.test", i);
        many[i] = texts[i];
    }
    const struct {
        char **domains;
        size_t count;
        const char *object;
    } rows[] = {{backwards, 2, "trust environment"},
                {own, 1, "trust service/acme/orders"},
                {many, 16, "trust environment"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct content *c = content_sample(1);
        put_environment(c, rows[i].domains, rows[i].count);
        refused(w, c, E_PART_MALFORMED, rows[i].object);
        content_free(c);
    }
    struct content *former = content_sample_former(1); /* which has no such list. */
    put_environment(former, own, 1);
    refused(w, former, E_PART_MALFORMED, "trust environment");
    content_free(former);
}

/* ---- revocations ---- */

static struct dp_model *revoked_model(struct world *w, const char *const *keys, size_t count)
{
    struct content *c = content_sample(7);
    struct dp_build_report report;
    for (size_t i = 0; i < count; i++) {
        content_revoke(c, keys[i]);
    }
    return model_of(w, c, NULL, &report);
}

static void who_is_revoked_is_not_found(void **state)
{
    struct world *w = *state;
    static const char *const keys[] = {
        "identity/spiffe://trilane.test/tenant/acme/service/web",
        "identity/spiffe://trilane.test/tenant/acme/service/nobody",
        "certificate/0a1b2c",
        "type/User.v2",
        "type/Nothing.v1",
    };
    struct dp_model *m = revoked_model(w, keys, 5);
    struct slice web = SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web");
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("token-of-web"), digest);
    assert_true(dp_model_revokes(m));
    assert_null(dp_model_caller_by_spiffe(m, web));
    assert_true(dp_model_spiffe_revoked(m, web));
    assert_null(dp_model_caller_by_token(m, digest)); /* its tokens go with it. */
    assert_true(dp_model_token_revoked(m, digest));
    assert_true(dp_model_serial_revoked(m, SLICE_LIT("0a1b2c")));
    assert_false(dp_model_serial_revoked(m, SLICE_LIT("0a1b")));
    assert_true(dp_model_topic_blocked(m, dp_model_topic(m, SLICE_LIT("User.v2"))));
    struct slice orders = SLICE_LIT("spiffe://trilane.test/tenant/acme/service/orders");
    assert_non_null(dp_model_caller_by_spiffe(m, orders));
    struct net_identity peer = {.spiffe_id = orders, .serial = SLICE_LIT("01")};
    assert_false(dp_model_peer_revoked(m, &peer));
    assert_false(dp_model_peer_revoked(m, NULL));
    peer.serial = SLICE_LIT("0a1b2c");
    assert_true(dp_model_peer_revoked(m, &peer));
    peer = (struct net_identity){.spiffe_id = web};
    assert_true(dp_model_peer_revoked(m, &peer));
    dp_model_unref(m);
}

static void a_revoked_token_leaves_the_service(void **state)
{
    struct world *w = *state;
    uint8_t digest[DIGEST_SIZE];
    char key[16 + 2 * DIGEST_SIZE] = "token/";
    ids_digest(SLICE_LIT("token-of-web"), digest);
    text_hex(slice_of(digest, sizeof(digest)), key + strlen(key));
    const char *const keys[] = {key};
    struct dp_model *m = revoked_model(w, keys, 1);
    assert_null(dp_model_caller_by_token(m, digest));
    assert_true(dp_model_token_revoked(m, digest));
    assert_non_null(
        dp_model_caller_by_spiffe(m, SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web")));
    assert_false(dp_model_topic_blocked(m, dp_model_topic(m, SLICE_LIT("User.v2"))));
    dp_model_unref(m);
}

/* ---- refusals ---- */

static void refused(struct world *w, const struct content *c, enum err_code code,
                    const char *object)
{
    struct dp_model *model = NULL;
    struct dp_build_report report;
    struct err e = build(w, c, NULL, &model, &report);
    assert_string_equal(err_name(e.code), err_name(code));
    assert_string_equal(report.object, object);
    assert_null(model);
    assert_int_equal(dp_model_bin_live(w->bin), 0);
}

static void refuses_what_names_nothing(void **state)
{
    struct world *w = *state;
    static const struct {
        uint32_t stream;
        const char *without;
        const char *object;
    } rows[] = {
        {STREAM_ROUTING, "service/acme/orders", "routing host/*/acme.orders"},
        {STREAM_TRANSPORT, "default", "routing service/acme/orders"},
        {STREAM_SCHEMAS, "User.v2", "bus User.v2"},
        {STREAM_TRUST, "environment", "trust environment"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct content *c = content_sample(1);
        content_remove(c, rows[i].stream, rows[i].without);
        refused(w, c, E_PART_MALFORMED, rows[i].object);
        content_free(c);
    }
}

/* A shadow is looked for like any target. */
static void refuses_a_mirror_of_nothing(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *mirror;
        bool found;
    } rows[] = {{"service/acme/web", true}, {"service/acme/nothing", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        Trilane__Parts__V1__WeightedTarget target;
        Trilane__Parts__V1__RouteEntry entry;
        Trilane__Parts__V1__RouteGroup group;
        trilane__parts__v1__weighted_target__init(&target);
        trilane__parts__v1__route_entry__init(&entry);
        trilane__parts__v1__route_group__init(&group);
        target.cluster = publisher_text("service/acme/orders");
        target.weight = 1;
        entry.id = publisher_text("acme/mirrored/0");
        entry.n_targets = 1;
        entry.targets = (Trilane__Parts__V1__WeightedTarget *[]){&target};
        entry.mirror = publisher_text(rows[i].mirror);
        entry.mirror_per_mille = 10;
        group.host = publisher_text("m.example");
        group.n_routes = 1;
        group.routes = (Trilane__Parts__V1__RouteEntry *[]){&entry};
        struct content *c = content_sample(1);
        content_put(c, STREAM_ROUTING, "host/m.example/", &group.base);
        if (rows[i].found) {
            struct dp_model *m = NULL;
            struct dp_build_report report;
            assert_true(err_ok(build(w, c, NULL, &m, &report)));
            dp_model_unref(m);
            assert_int_equal(dp_model_bin_sweep(w->bin), 1);
        } else {
            refused(w, c, E_PART_MALFORMED, "routing host/m.example/");
        }
        content_free(c);
    }
}

static const uint8_t unknown[] = {0x90, 0x03, 0x01}; /* field 50. */
static const uint8_t cut_off[] = {0x0a, 0x7f, 0x01};
static const uint8_t said_again[] = {0x1a, 0x04, 'a', 'c', 'm', 'e'}; /* tenant. */
static const struct {
    uint32_t stream;
    enum err_code code;
    const char *key;
    struct slice bytes;
    const char *object;
} disagreeing[] = {
    {STREAM_TRANSPORT,
     E_CAPABILITY_MISSING,
     "other",
     {unknown, sizeof(unknown)},
     "transport other"},
    {STREAM_TRANSPORT, E_PART_MALFORMED, "other", {cut_off, sizeof(cut_off)}, "transport other"},
    {STREAM_TRANSPORT, E_PART_MALFORMED, "other", {unknown, 0}, "transport other"},
    {STREAM_ROUTING, E_PART_MALFORMED, "strange/key", {unknown, 0}, "routing strange/key"},
    {STREAM_AUTHORISATION, E_PART_MALFORMED, "x", {cut_off, sizeof(cut_off)}, "authorisation x"},
    {STREAM_LIMITS, E_PART_MALFORMED, "x", {cut_off, sizeof(cut_off)}, "limits x"},
    {STREAM_SCHEMAS, E_PART_MALFORMED, "x", {cut_off, sizeof(cut_off)}, "schemas x"},
    {STREAM_EGRESS, E_PART_MALFORMED, "acme/x", {unknown, 0}, "egress acme/x"},
    {STREAM_TRUST, E_PART_MALFORMED, "service/acme", {unknown, 0}, "trust service/acme"},
    {STREAM_TRUST, E_PART_MALFORMED, "service/acme/x/y", {unknown, 0}, "trust service/acme/x/y"},
    {STREAM_TRUST,
     E_PART_MALFORMED,
     "service/acme/x",
     {said_again, sizeof(said_again)},
     "trust service/acme/x"},
    {STREAM_REVOCATIONS, E_PART_MALFORMED, "identity/x", {unknown, 0}, "revocations identity/x"},
    {STREAM_REVOCATIONS, E_PART_MALFORMED, "token/0a", {unknown, 0}, "revocations token/0a"},
    {STREAM_REVOCATIONS, E_PART_MALFORMED, "type/", {unknown, 0}, "revocations type/"},
    {STREAM_REVOCATIONS,
     E_PART_MALFORMED,
     "certificate/000a",
     {unknown, 0},
     "revocations certificate/000a"},
    {STREAM_REVOCATIONS,
     E_PART_MALFORMED,
     "certificate/0A",
     {unknown, 0},
     "revocations certificate/0A"},
    {STREAM_REVOCATIONS,
     E_CAPABILITY_MISSING,
     "country/xx",
     {unknown, 0},
     "revocations country/xx"},
    {STREAM_REVOCATIONS,
     E_CAPABILITY_MISSING,
     "certificate/0a",
     {unknown, sizeof(unknown)},
     "revocations certificate/0a"},
    {STREAM_BUS, E_PART_MALFORMED, "X.v1", {unknown, 0}, "bus X.v1"},
    {STREAM_ROUTING, E_PART_MALFORMED, "host/*/x", {unknown, 0}, "routing host/*/x"},
    {STREAM_ROUTING, E_PART_MALFORMED, "service/acme/x", {unknown, 0}, "routing service/acme/x"},
};

static void refuses_bytes_and_keys_that_disagree(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(disagreeing) / sizeof(disagreeing[0]); i++) {
        struct content *c = content_sample(1);
        content_put_bytes(c, disagreeing[i].stream, disagreeing[i].key, disagreeing[i].bytes);
        refused(w, c, disagreeing[i].code, disagreeing[i].object);
        content_free(c);
    }
}

/* ---- one edit after the other ---- */

enum { TOGGLES = 20, EDITS = 150 };

static void put_egress_at(struct content *c, const char *key, const char *host, uint32_t port)
{
    char id[64];
    char *hosts[] = {publisher_text(host)};
    uint32_t ports[] = {port};
    (void)snprintf(id, sizeof(id), "egress/%s", key);
    Trilane__Parts__V1__EgressPart egress;
    trilane__parts__v1__egress_part__init(&egress);
    egress.id = id;
    egress.tenant = publisher_text("acme");
    egress.n_hosts = 1;
    egress.hosts = hosts;
    egress.n_ports = 1;
    egress.ports = ports;
    egress.transport = publisher_text("default");
    content_put(c, STREAM_EGRESS, key, &egress.base);
}

static void put_major(struct content *c, uint32_t major)
{
    char key[16];
    (void)snprintf(key, sizeof(key), "User.v%u", major);
    uint8_t fingerprint[DIGEST_SIZE] = {1};
    Trilane__Parts__V1__SchemaMessage message;
    trilane__parts__v1__schema_message__init(&message);
    message.name = publisher_text("acme.users.v2.User");
    Trilane__Parts__V1__SchemaMessage *messages[] = {&message};
    Trilane__Parts__V1__Schema schema;
    trilane__parts__v1__schema__init(&schema);
    schema.type = key;
    schema.full_name = publisher_text("acme.users.v2.User");
    schema.n_messages = 1;
    schema.messages = messages;
    schema.fingerprint = (ProtobufCBinaryData){.len = DIGEST_SIZE, .data = fingerprint};
    content_put(c, STREAM_SCHEMAS, key, &schema.base);
    Trilane__Parts__V1__TopicPart topic;
    trilane__parts__v1__topic_part__init(&topic);
    topic.type = publisher_text("User");
    topic.major = major;
    topic.full_name = publisher_text("acme.users.v2.User");
    topic.stream = publisher_text("TRILANE_EVENTS");
    topic.version = publisher_text("2.0.0");
    content_put(c, STREAM_BUS, key, &topic.base);
}

/* A content that has what is switched on. */
static struct content *toggled(uint32_t on)
{
    static const struct route_row rows[] = {{"one", PREFIX, "/v1", NULL, NULL, NULL},
                                            {"two", PREFIX, "/v2", NULL, NULL, NULL},
                                            {"any", ANY, "", NULL, NULL, NULL}};
    static const char *const revoked[] = {"identity/spiffe://trilane.test/tenant/acme/service/web",
                                          "type/User.v2", "certificate/0a1b"};
    static const char *const hosts[] = {"a.example.com", "*.example.com"};
    char *domains[] = {publisher_text("new.test")};
    struct content *c = content_sample((on & 1) != 0 ? 7 : 8);
    for (unsigned i = 0; i < 6; i++) { /* three groups of each host. */
        if ((on >> (1 + i) & 1) != 0) {
            put_group(c, hosts[i / 3], i % 3 == 2 ? "" : rows[i % 3].path + 1, &rows[i % 3], 1);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        if ((on >> (7 + i) & 1) != 0) {
            content_revoke(c, revoked[i]);
        }
    }
    for (uint32_t i = 0; i < 3; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "acme/e%u", i);
        if ((on >> (10 + i) & 1) != 0) {
            put_egress_at(c, key, "shared.example.com", 1000 + i % 2);
        }
        if ((on >> (13 + i) & 1) != 0) {
            put_major(c, 1 + 2 * i);
        }
    }
    if ((on >> 16 & 1) != 0) {
        put_environment(c, domains, 1);
    }
    static const struct {
        uint32_t stream;
        const char *key;
    } named[] = {{STREAM_TRANSPORT, "default"},
                 {STREAM_SCHEMAS, "User.v2"},
                 {STREAM_ROUTING, "service/acme/orders"}};
    for (unsigned i = 0; i < 3; i++) {
        if ((on >> (17 + i) & 1) != 0 && on % 5 == i) { /* now and then. */
            content_remove(c, named[i].stream, named[i].key);
        }
    }
    return c;
}

static void answer(struct buf *out, const char *text)
{
    assert_true(err_ok(buf_addf(out, "%s\n", text)));
}

/* What a model says to all that can be asked here. */
static void ask(const struct dp_model *m, struct buf *out)
{
    static const char *const hosts[] = {"a.example.com", "b.example.com", "c.test"};
    static const char *const paths[] = {"/v1/x", "/v2/x", "/v3", "/acme.orders/Get"};
    static const char *const spiffes[] = {"spiffe://trilane.test/tenant/acme/service/web",
                                          "spiffe://new.test/tenant/acme/service/orders"};
    static const char *const topics[] = {"User.v1", "User.v2", "User.v3", "User.v5",
                                         "acme.users.v2.User"};
    for (size_t i = 0; i < 12; i++) {
        answer(out, route_id(m, hosts[i / 4], paths[i % 4], "acme", NULL));
    }
    for (size_t i = 0; i < 2; i++) {
        const struct dp_caller *caller = dp_model_caller_by_spiffe(m, slice_str(spiffes[i]));
        answer(out, caller == NULL ? "none" : spiffes[i]);
        assert_true(caller == NULL || slice_eq(caller->spiffe, slice_str(spiffes[i])));
    }
    for (size_t i = 0; i < 5; i++) {
        const struct dp_topic *topic = dp_model_topic(m, slice_str(topics[i]));
        answer(out, topic == NULL ? "none" : (const char *)topic->target.id.ptr);
        answer(out, topic != NULL && dp_model_topic_blocked(m, topic) ? "blocked" : "");
        assert_true(topic == NULL || dp_model_schema(m, topic) != NULL);
    }
    for (uint16_t port = 1000; port < 1002; port++) {
        const struct dp_egress *e =
            dp_model_egress(m, SLICE_LIT("acme"), SLICE_LIT("shared.example.com"), port);
        answer(out, e == NULL ? "none" : (const char *)e->target.id.ptr);
    }
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("token-of-web"), digest);
    answer(out, dp_model_caller_by_token(m, digest) == NULL ? "none" : "web");
    answer(out, dp_model_token_revoked(m, digest) ? "revoked" : "");
    answer(out, dp_model_serial_revoked(m, SLICE_LIT("0a1b")) ? "revoked" : "");
    answer(out, dp_model_has_tenant(m, SLICE_LIT("acme")) ? "tenant" : "");
    answer(out, dp_model_has_grpc_service(m, SLICE_LIT("acme.orders")) ? "service" : "");
    answer(out, dp_model_needs_system_trust(m) ? "trust" : "");
}

/* Whatever the edits were, an edited model says what one built from nothing says, and refuses what
 * that refuses. */
static void an_edited_model_is_as_a_new_one(void **state)
{
    struct world *w = *state;
    struct dp_model *last = NULL;
    uint32_t on = 0;
    size_t refusals = 0;
    for (int n = 0; n < EDITS; n++) {
        struct dp_model *edited = NULL;
        struct dp_model *fresh = NULL;
        struct dp_build_report report;
        auto_buf struct buf wanted = BUF_MAX(8192);
        auto_buf struct buf said = BUF_MAX(8192);
        on ^= 1U << draw(TOGGLES);
        on ^= 1U << draw(TOGGLES);
        struct content *c = toggled(on);
        struct err e = build(w, c, NULL, &fresh, &report);
        struct err edit = build(w, c, last, &edited, &report);
        content_free(c);
        assert_string_equal(err_name(edit.code), err_name(e.code));
        if (!err_ok(e)) {
            refusals++;
            continue;
        }
        ask(fresh, &wanted);
        ask(edited, &said);
        assert_true(slice_eq(buf_slice(&said), buf_slice(&wanted)));
        dp_model_unref(fresh);
        dp_model_unref(last);
        (void)dp_model_bin_sweep(w->bin);
        ask(edited, &said); /* what it shares is still there. */
        last = edited;
    }
    assert_in_range(refusals, 5, EDITS / 2);
    dp_model_unref(last);
}

/* ---- threads ---- */

static void *drop_references(void *ctx)
{
    struct dp_model *model = ctx;
    for (int i = 0; i < 1000; i++) {
        struct dp_model *mine = dp_model_ref(model);
        assert_non_null(dp_model_cluster(mine, SLICE_LIT("service/acme/orders")));
        dp_model_unref(mine);
    }
    dp_model_unref(model);
    return NULL;
}

static void last_reference_on_any_thread(void **state)
{
    struct world *w = *state;
    struct dp_model *model = sample_model(w);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        (void)dp_model_ref(model);
        assert_int_equal(pthread_create(&threads[i], NULL, drop_references, model), 0);
    }
    dp_model_unref(model);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(dp_model_bin_sweep(w->bin), 1);
}

/* All that are let go of at once come into the bin, while it is swept. */
static void the_last_references_of_many_models(void **state)
{
    struct world *w = *state;
    enum { ROUNDS = 5, MODELS = 4 };
    for (size_t round = 0; round < ROUNDS; round++) {
        pthread_t threads[MODELS];
        for (size_t i = 0; i < MODELS; i++) {
            struct dp_model *model = sample_model(w);
            assert_int_equal(pthread_create(&threads[i], NULL, drop_references, model), 0);
        }
        while (dp_model_bin_live(w->bin) > 0) {
            (void)dp_model_bin_sweep(w->bin);
        }
        for (size_t i = 0; i < MODELS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
    }
}

/* What an edit costs at 3,500 groups: it follows the edit. */
static void links_fast(void **state)
{
    struct world *w = *state;
    struct content *c = content_sample(1);
    static const struct route_row row[] = {{"r", PREFIX, "/v1", NULL, NULL, NULL}};
    for (int i = 0; i < 3500; i++) {
        char host[32];
        (void)snprintf(host, sizeof(host), "h%d.example.com", i);
        put_group(c, host, "v1", row, 1);
    }
    struct dp_model *first = NULL;
    struct dp_model *second = NULL;
    struct dp_build_report report;
    assert_true(err_ok(build(w, c, NULL, &first, &report)));
    content_remove(c, STREAM_EGRESS, "acme/partners");
    struct version *v = version_new(&w->publisher, c, ++w->version, NULL);
    struct snap_set *set = version_set(&w->publisher, v, dp_model_set(first));
    uint64_t before = clock_mono_ns();
    assert_true(err_ok(dp_model_build(w->bin, set, first, &second, &report)));
    uint64_t us = (clock_mono_ns() - before) / 1000;
    print_message("3,500 groups taken over in %llu us\n", (unsigned long long)us);
    assert_int_equal(report.parts_built, 0);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_model_unref(first);
    dp_model_unref(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_what_it_was_built_from, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_the_egress_of_a_host, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cors_of_a_route, set_up, tear_down),
        cmocka_unit_test_setup_teardown(routes_by_precision, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_large_group_is_found_by_its_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(knows_whether_the_systems_cas_are_needed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(builds_only_what_changed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(both_formats_mean_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_service_is_known_in_each_trust_domain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(domains_have_bounds_and_an_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_is_revoked_is_not_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_revoked_token_leaves_the_service, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_names_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_a_mirror_of_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bytes_and_keys_that_disagree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_edited_model_is_as_a_new_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(last_reference_on_any_thread, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_last_references_of_many_models, set_up, tear_down),
        cmocka_unit_test_setup_teardown(links_fast, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
