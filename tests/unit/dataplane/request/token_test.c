/* Proves whom a token speaks of and when it does not, that it is verified once and by the keys in
 * force, that what stands on it ends with it, and that wrong ones are bounded. */
#include "dataplane/request/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/jose/jwk.h"
#include "common/net/loop.h"
#include "dataplane/apply/build.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/policy.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "tests/support/token_maker.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define ISS "https://id.test/realms/a"
#define WAIT_MS 60000

enum { LEEWAY_S = 30, TEXT_MAX = 2048 };

typedef Trilane__Parts__V1__Issuer part_issuer;
typedef Trilane__Parts__V1__IssuerTenant part_tenant;
typedef Trilane__Parts__V1__IssuerWhen part_when;
typedef Trilane__Parts__V1__IssuerTrait part_trait;

struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct net_loop *loop;
    struct dp_tokens *tokens;
    struct token_maker maker;
    struct token_maker other; /* a key that the issuer does not have. */
    struct dp_model *model;
    uint64_t version;
    int64_t now_s;
    bool fetched; /* the Issuer's keys are read from a URL. */
    const char *audience;
    const char *revoked[4];
    size_t over;
    enum dp_token_outcome why;
};

static struct world w;

static void over(struct dp_token_hold *hold, enum dp_token_outcome why)
{
    w.over++;
    w.why = why;
    dp_token_hold(hold, NULL);
}

static int set_up_table(uint64_t entries)
{
    w = (struct world){.audience = "trilane"};
    limits.token_entries = entries;
    limits.token_check_percent = 100;
    limits.token_failures_per_second = 10;
    limits.token_address_failures_per_second = 1000000;
    publisher_init(&w.publisher);
    token_maker_init(&w.maker, "k1");
    token_maker_init(&w.other, "k2");
    assert_true(err_ok(dp_model_bin_new(&w.bin)));
    assert_true(err_ok(net_loop_new(&w.loop)));
    const struct dp_tokens_config config = {.loop = w.loop, .over = over};
    assert_true(err_ok(dp_tokens_new(&config, &w.tokens)));
    w.now_s = clock_wall_ms() / 1000;
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_table(4096);
}

static int set_up_small(void **state)
{
    (void)state;
    return set_up_table(64);
}

static int tear_down(void **state)
{
    (void)state;
    clock_shift_for_test(0, 0);
    dp_tokens_free(w.tokens);
    dp_model_unref(w.model);
    dp_model_bin_free(w.bin);
    net_loop_free(w.loop);
    token_maker_free(&w.maker);
    token_maker_free(&w.other);
    publisher_free(&w.publisher);
    return 0;
}

/* ---- a model with an Issuer ---- */

static void put_issuer(struct content *c)
{
    part_issuer part;
    trilane__parts__v1__issuer__init(&part);
    part_when when;
    trilane__parts__v1__issuer_when__init(&when);
    when.claim = publisher_text("groups");
    when.value = publisher_text("acme-staff");
    part_when *whens[] = {&when};
    part_tenant by_claim;
    trilane__parts__v1__issuer_tenant__init(&by_claim);
    by_claim.claim = publisher_text("org.name");
    part_tenant by_group;
    trilane__parts__v1__issuer_tenant__init(&by_group);
    by_group.tenant = publisher_text("acme");
    by_group.n_when = 1;
    by_group.when = whens;
    part_tenant *tenants[] = {&by_claim, &by_group};
    part_trait plan;
    trilane__parts__v1__issuer_trait__init(&plan);
    plan.name = publisher_text("plan");
    plan.claim = publisher_text("https://acme.test/plan");
    part_trait role;
    trilane__parts__v1__issuer_trait__init(&role);
    role.name = publisher_text("role");
    role.claim = publisher_text("realm_access.roles");
    part_trait scope;
    trilane__parts__v1__issuer_trait__init(&scope);
    scope.name = publisher_text("scope");
    scope.claim = publisher_text("scope");
    part_trait tier;
    trilane__parts__v1__issuer_trait__init(&tier);
    tier.name = publisher_text("tier");
    tier.claim = publisher_text("tier");
    part_trait *traits[] = {&plan, &role, &scope, &tier};
    char *audiences[] = {publisher_text(w.audience)};
    const struct token_maker *makers[] = {&w.maker};
    char *jwks = token_jwks(makers, 1);
    part.issuer = publisher_text(ISS);
    part.n_audiences = 1;
    part.audiences = audiences;
    part.algorithms = 1U << JOSE_ES256 | 1U << JOSE_RS256;
    part.leeway_ms = LEEWAY_S * 1000;
    part.n_tenants = 2;
    part.tenants = tenants;
    part.subject_claim = publisher_text("sub");
    part.service_claim = publisher_text("client_id");
    part.n_traits = 4;
    part.traits = traits;
    part.trust_domain = publisher_text("id.test");
    if (w.fetched) {
        part.jwks_uri = publisher_text("https://id.test/keys");
        part.refresh_ms = 60000;
        part.max_stale_ms = 3600000;
    } else {
        part.jwks = (ProtobufCBinaryData){.len = strlen(jwks), .data = (uint8_t *)jwks};
    }
    content_put(c, STREAM_TRUST, "issuer/-/idp", &part.base);
    free(jwks);
}

/* Swaps to a model of what the world says now. */
static void swap(void)
{
    struct content *c = content_sample(1);
    put_issuer(c);
    for (size_t i = 0; i < 4 && w.revoked[i] != NULL; i++) {
        content_revoke(c, w.revoked[i]);
    }
    struct version *v = version_new(&w.publisher, c, ++w.version, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    struct dp_build_report report;
    struct dp_model *model = NULL;
    struct err e = dp_model_build(w.bin, set, NULL, &model, &report);
    if (!err_ok(e)) {
        fail_msg("%s: %s", report.object, err_name(e.code));
    }
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_model_unref(w.model);
    w.model = model;
    dp_tokens_clear(w.tokens);
}

/* ---- tokens ---- */

/* Claims of a good token; 'more' is added, ",…". */
static char *claims(const char *more)
{
    char *text = NULL;
    assert_true(asprintf(&text,
                         "{\"iss\":\"" ISS "\",\"aud\":[\"x\",\"trilane\"],\"sub\":\"alice\","
                         "\"exp\":%lld,\"org\":{\"name\":\"acme\"}%s}",
                         (long long)w.now_s + 600, more) > 0);
    return text;
}

static char *token_with(const char *more)
{
    char *text = claims(more);
    char *token = token_make(&w.maker, text);
    free(text);
    return token;
}

static struct dp_token_query query_of(const char *token)
{
    return (struct dp_token_query){
        .model = w.model, .token = slice_str(token), .peer = SLICE_LIT("127.0.0.1:5")};
}

static enum dp_token_outcome ask(const struct dp_token_query *query, struct dp_token **out,
                                 bool *out_known, uint64_t *out_retry_ns)
{
    enum dp_token_outcome outcome = DP_TOKEN_GOOD;
    uint8_t digest[DIGEST_SIZE];
    *out_known = dp_tokens_known(w.tokens, query, &outcome, out);
    if (*out_known) {
        return outcome;
    }
    ids_digest(query->token, digest);
    return dp_tokens_check(w.tokens, query, digest, out, out_retry_ns);
}

static void expect(const char *token, enum dp_token_outcome wanted, bool known)
{
    struct dp_token_query query = query_of(token);
    struct dp_token *found = NULL;
    bool was_known = false;
    uint64_t retry_ns = 0;
    enum dp_token_outcome outcome = ask(&query, &found, &was_known, &retry_ns);
    if (outcome != wanted || was_known != known) {
        fail_msg("%s%s, not %s", dp_token_outcome_label(outcome), was_known ? " known" : "",
                 dp_token_outcome_label(wanted));
    }
}

static const struct dp_caller *caller_of(const char *token)
{
    struct dp_token_query query = query_of(token);
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    enum dp_token_outcome outcome = ask(&query, &found, &known, &retry_ns);
    if (outcome != DP_TOKEN_GOOD) {
        fail_msg("%s", dp_token_outcome_label(outcome));
    }
    return dp_token_caller(found);
}

static void expect_trait(const struct dp_caller *caller, const char *name, const char *value)
{
    struct slice found = {0};
    bool has = dp_caller_trait(caller, slice_str(name), &found);
    if (has != (value != NULL) || (has && !slice_eq(found, slice_str(value)))) {
        fail_msg("trait %s", name);
    }
}

/* ---- whom it speaks of ---- */

static void a_subject(void **state)
{
    (void)state;
    swap();
    char *token = token_with(",\"https://acme.test/plan\":\"gold\",\"scope\":\"read  write\","
                             "\"realm_access\":{\"roles\":[\"admin\",7,null,{}]},\"tier\":3");
    const struct dp_caller *caller = caller_of(token);
    assert_true(slice_eq(caller->id, SLICE_LIT("acme/idp#alice")));
    assert_true(slice_eq(caller->spiffe, SLICE_LIT(ISS "#alice")));
    assert_true(slice_eq(caller->domain, SLICE_LIT("id.test")));
    assert_true(slice_eq(caller->tenant, SLICE_LIT("acme")));
    assert_int_equal(caller->service.size, 0);
    assert_true(slice_eq(caller->counted_as->id, SLICE_LIT("issuer/-/idp")));
    expect_trait(caller, "plan", "gold");
    expect_trait(caller, "role/admin", "true");
    expect_trait(caller, "role/7", "true");
    expect_trait(caller, "scope/read", "true");
    expect_trait(caller, "scope/write", "true");
    expect_trait(caller, "tier", "3");
    expect_trait(caller, "role", NULL);
    assert_int_equal(caller->trait_count, 6);
    free(token);
}

/* It is the Service, whose own traits stand before what the token claims. */
static void a_service(void **state)
{
    (void)state;
    swap();
    char *token = token_with(",\"client_id\":\"web\",\"tier\":\"platinum\",\"scope\":\"read\"");
    const struct dp_caller *caller = caller_of(token);
    assert_true(slice_eq(caller->id, SLICE_LIT("acme/web")));
    assert_true(
        slice_eq(caller->spiffe, SLICE_LIT("spiffe://trilane.test/tenant/acme/service/web")));
    assert_true(slice_eq(caller->domain, SLICE_LIT("id.test")));
    assert_ptr_equal(caller->counted_as, dp_model_service(w.model, SLICE_LIT("acme/web")));
    expect_trait(caller, "tier", "gold");
    expect_trait(caller, "scope/read", "true");
    free(token);
    token = token_with(",\"client_id\":\"nobody\"");
    expect(token, DP_TOKEN_SERVICE, false);
    free(token);
    token = token_with(",\"client_id\":\"../acme/web\"");
    expect(token, DP_TOKEN_SERVICE, false);
    free(token);
}

/* No subject is spelled as another one's, or as a Service's. */
static void subjects(void **state)
{
    (void)state;
    static const struct {
        const char *sub;
        const char *id;
    } rows[] = {{"web", "acme/idp#web"},       {"a b", "acme/idp#a%20b"},
                {"a%20b", "acme/idp#a%2520b"}, {"\\u00e9", "acme/idp#%C3%A9"},
                {"a#b", "acme/idp#a#b"},       {"x\\r\\ny", "acme/idp#x%0D%0Ay"}};
    swap();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[TEXT_MAX];
        (void)snprintf(text, sizeof(text),
                       "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"sub\":\"%s\","
                       "\"groups\":[\"acme-staff\"]}",
                       (long long)w.now_s + 60, rows[i].sub);
        char *token = token_make(&w.maker, text);
        struct slice id = caller_of(token)->id;
        if (!slice_eq(id, slice_str(rows[i].id))) {
            fail_msg("%.*s, not %s", SLICE_ARG(id), rows[i].id);
        }
        free(token);
    }
}

/* ---- when it does not ---- */

/* A token of these claims, which are all there are. */
static void expect_claims(const char *text, enum dp_token_outcome wanted)
{
    char *token = token_make(&w.maker, text);
    struct dp_token_query query = query_of(token);
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    char peer[32];
    static int number;
    (void)snprintf(peer, sizeof(peer), "10.0.0.1:%d", ++number);
    query.peer = slice_str(peer); /* each by a connection of its own: nothing is bounded here. */
    enum dp_token_outcome outcome = ask(&query, &found, &known, &retry_ns);
    if (outcome != wanted) {
        fail_msg("%s: %s, not %s", text, dp_token_outcome_label(outcome),
                 dp_token_outcome_label(wanted));
    }
    free(token);
}

static void claims_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text; /* "%lld" is an end that is to come. */
        enum dp_token_outcome wanted;
    } rows[] = {
        {"{\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_ISSUER},
        {"{\"iss\":\"" ISS "/\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_ISSUER},
        {"{\"iss\":[\"" ISS "\"],\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_ISSUER},
        {"{\"iss\":\"" ISS "\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_AUDIENCE},
        {"{\"iss\":\"" ISS "\",\"aud\":\"Trilane\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_AUDIENCE},
        {"{\"iss\":\"" ISS "\",\"aud\":[],\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_AUDIENCE},
        {"{\"iss\":\"" ISS "\",\"aud\":{\"a\":\"trilane\"},\"exp\":%lld}", DP_TOKEN_AUDIENCE},
        {"{\"iss\":\"" ISS "\",\"aud\":[[\"trilane\"]],\"exp\":%lld}", DP_TOKEN_AUDIENCE},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"x\":%lld}", DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":\"%lld\"}",
         DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,\"nbf\":\"0\"}",
         DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld}", DP_TOKEN_TENANT},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,"
         "\"groups\":[\"acme\",\"staff\"]}",
         DP_TOKEN_TENANT},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,"
         "\"org\":{\"name\":\"globex\"}}",
         DP_TOKEN_TENANT}, /* nobody has that tenant. */
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,"
         "\"org\":{\"name\":\"globex\"},\"groups\":\"acme-staff\"}",
         DP_TOKEN_TENANT}, /* two ways that do not agree. */
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,"
         "\"org\":{\"name\":[\"acme\"]}}",
         DP_TOKEN_TENANT},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"groups\":\"acme-staff\"}",
         DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"groups\":\"acme-staff\","
         "\"sub\":\"\"}",
         DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"groups\":\"acme-staff\","
         "\"sub\":7}",
         DP_TOKEN_CLAIMS},
        {"{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"groups\":\"acme-staff\","
         "\"sub\":\"a\"}",
         DP_TOKEN_GOOD},
    };
    swap();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *text = NULL;
        assert_true(asprintf(&text, rows[i].text, (long long)w.now_s + 600) > 0);
        expect_claims(text, rows[i].wanted);
        free(text);
    }
}

static void bounds_of_claims(void **state)
{
    (void)state;
    enum { ROOM = 16 << 10 };
    static char text[ROOM];
    static char roles[ROOM / 2];
    swap();
    for (size_t length = DP_CLAIM_SUBJECT_MAX; length <= DP_CLAIM_SUBJECT_MAX + 1; length++) {
        (void)snprintf(text, sizeof(text),
                       "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,"
                       "\"groups\":\"acme-staff\",\"sub\":\"%0*d\"}",
                       (long long)w.now_s + 600, (int)length, 0);
        expect_claims(text, length <= DP_CLAIM_SUBJECT_MAX ? DP_TOKEN_GOOD : DP_TOKEN_CLAIMS);
    }
    for (int count = DP_CLAIM_TRAITS_MAX; count <= DP_CLAIM_TRAITS_MAX + 1; count++) {
        roles[0] = '\0';
        for (int i = 0; i < count; i++) {
            (void)snprintf(roles + strlen(roles), sizeof(roles) - strlen(roles), "%s\"r%d\"",
                           i == 0 ? "" : ",", i);
        }
        (void)snprintf(text, sizeof(text),
                       "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"sub\":\"a\","
                       "\"groups\":\"acme-staff\",\"realm_access\":{\"roles\":[%s]}}",
                       (long long)w.now_s + 600, roles);
        expect_claims(text, count <= DP_CLAIM_TRAITS_MAX ? DP_TOKEN_GOOD : DP_TOKEN_CLAIMS);
    }
    for (int length = DP_CLAIM_VALUE_MAX; length <= DP_CLAIM_VALUE_MAX + 1; length++) {
        (void)snprintf(text, sizeof(text),
                       "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"exp\":%lld,\"sub\":\"a\","
                       "\"groups\":\"acme-staff\",\"tier\":\"%0*d\"}",
                       (long long)w.now_s + 600, length, 0);
        expect_claims(text, length <= DP_CLAIM_VALUE_MAX ? DP_TOKEN_GOOD : DP_TOKEN_CLAIMS);
    }
}

/* To the second, leeway included, at both ends; known or not. */
static void times(void **state)
{
    (void)state;
    swap();
    static const struct {
        int exp;
        int nbf;
        enum dp_token_outcome wanted;
    } rows[] = {{-LEEWAY_S + 5, -100, DP_TOKEN_GOOD},   {-LEEWAY_S - 1, -100, DP_TOKEN_EXPIRED},
                {100, LEEWAY_S - 1, DP_TOKEN_GOOD},     {100, LEEWAY_S + 5, DP_TOKEN_EARLY},
                {-100, LEEWAY_S + 9, DP_TOKEN_EXPIRED}, {100, 0, DP_TOKEN_GOOD}};
    w.now_s = clock_wall_ms() / 1000;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[TEXT_MAX];
        (void)snprintf(text, sizeof(text),
                       "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a%zu\",\"exp\":%lld,"
                       "\"nbf\":%lld.5,\"groups\":\"acme-staff\"}",
                       i, (long long)w.now_s + rows[i].exp, (long long)w.now_s + rows[i].nbf);
        expect_claims(text, rows[i].wanted);
    }
    char *token = token_with("");
    expect(token, DP_TOKEN_GOOD, false);
    clock_shift_for_test(0, (600 + LEEWAY_S - 2) * 1000);
    expect(token, DP_TOKEN_GOOD, true);
    clock_shift_for_test(0, (600 + LEEWAY_S + 1) * 1000);
    expect(token, DP_TOKEN_EXPIRED, true);
    free(token);
}

static void keys_and_algorithms(void **state)
{
    (void)state;
    swap();
    char *text = claims("");
    char *token = token_make(&w.other, text);
    expect(token, DP_TOKEN_KID, false);
    free(token);
    token = token_make_raw(&w.other, "{\"alg\":\"ES256\",\"kid\":\"k1\"}", text);
    expect(token, DP_TOKEN_SIGNATURE, false);
    free(token);
    token = token_make_raw(&w.maker, "{\"alg\":\"ES256\"}", text); /* the only key of the set. */
    expect(token, DP_TOKEN_GOOD, false);
    free(token);
    token = token_make_raw(&w.maker, "{\"alg\":\"PS256\",\"kid\":\"k1\"}", text);
    expect(token, DP_TOKEN_ALGORITHM, false);
    free(token);
    token = token_make_raw(&w.maker, "{\"alg\":\"RS256\",\"kid\":\"k1\"}", text);
    expect(token, DP_TOKEN_KID, false);
    free(token);
    token = token_make_raw(&w.maker, "{\"alg\":\"none\"}", text);
    expect(token, DP_TOKEN_UNSUPPORTED, false);
    free(token);
    expect("a.b.c", DP_TOKEN_MALFORMED, false);
    free(text);
}

/* ---- once ---- */

static void a_token_is_verified_once(void **state)
{
    (void)state;
    swap();
    char *token = token_with("");
    char *service = token_with(",\"client_id\":\"web\"");
    expect(token, DP_TOKEN_GOOD, false);
    expect(token, DP_TOKEN_GOOD, true);
    expect(service, DP_TOKEN_GOOD, false);
    swap(); /* the same Issuer: nothing is verified anew. */
    expect(token, DP_TOKEN_GOOD, true);
    expect(service, DP_TOKEN_GOOD, true);
    assert_ptr_equal(caller_of(service)->counted_as,
                     dp_model_service(w.model, SLICE_LIT("acme/web")));
    w.audience = "other";
    swap();
    expect(token, DP_TOKEN_AUDIENCE, false);
    free(token);
    free(service);
}

/* More than there are places for: the table holds what it can, and forgets nobody wrongly. */
static void many(void **state)
{
    (void)state;
    swap();
    size_t count = (size_t)limits.token_entries * 2;
    char *first = token_with("");
    expect(first, DP_TOKEN_GOOD, false);
    struct dp_token_hold hold = {0};
    struct dp_token_query query = query_of(first);
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    dp_token_hold(&hold, found);
    for (size_t i = 0; i < count; i++) {
        char more[64];
        (void)snprintf(more, sizeof(more), ",\"n\":%zu", i);
        char *token = token_with(more);
        query = query_of(token);
        clock_shift_for_test((int64_t)(i + 1) * 1000000000, 0); /* time for each of them. */
        assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
        assert_false(known);
        free(token);
    }
    query = query_of(first);
    query.before = hold.token; /* whoever holds it knows it, even where the table does not. */
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    assert_true(known);
    dp_token_hold(&hold, NULL);
    free(first);
}

/* ---- revoked ---- */

static void revocations(void **state)
{
    (void)state;
    uint8_t digest[DIGEST_SIZE];
    char key[8 + 2 * DIGEST_SIZE] = "token/";
    swap();
    char *token = token_with("");
    char *another = token_with(",\"n\":1");
    char *service = token_with(",\"client_id\":\"web\"");
    expect(token, DP_TOKEN_GOOD, false);
    expect(another, DP_TOKEN_GOOD, false);
    expect(service, DP_TOKEN_GOOD, false);
    ids_digest(slice_str(token), digest);
    text_hex(slice_of(digest, sizeof(digest)), key + strlen(key));
    w.revoked[0] = key;
    swap();
    expect(token, DP_TOKEN_REVOKED, true);
    expect(another, DP_TOKEN_GOOD, true);
    w.revoked[0] = "subject/" ISS "#alice";
    swap();
    expect(token, DP_TOKEN_REVOKED, true);
    expect(another, DP_TOKEN_REVOKED, true);
    expect(service, DP_TOKEN_REVOKED, true);
    w.revoked[0] = "identity/spiffe://trilane.test/tenant/acme/service/web";
    swap();
    expect(token, DP_TOKEN_GOOD, true);
    expect(service, DP_TOKEN_REVOKED, true);
    w.revoked[0] = NULL;
    swap();
    expect(service, DP_TOKEN_GOOD, true);
    free(token);
    free(another);
    free(service);
}

/* ---- keys that are read ---- */

static uint8_t source[DIGEST_SIZE];

static void note_source(void *ctx, const struct dp_issuer *issuer)
{
    (void)ctx;
    memcpy(source, issuer->source, DIGEST_SIZE);
}

/* Puts the keys of makers into force, read 'age_ms' ago; returns the row, borrowed. */
static struct dp_issuer_keys_row *put_keys(const struct token_maker *const *makers, size_t count,
                                           int64_t age_ms)
{
    const char *why = "";
    struct dp_issuer_keys *table = NULL;
    dp_model_each_issuer(w.model, note_source, NULL);
    char *jwks = token_jwks(makers, count);
    assert_true(err_ok(dp_issuer_keys_new(1, &table)));
    memcpy(table->rows[0].source, source, DIGEST_SIZE);
    table->rows[0].read_ms = clock_wall_ms() - age_ms;
    assert_true(err_ok(jose_keys_read(slice_str(jwks), &table->rows[0].keys, &why)));
    free(jwks);
    dp_tokens_keys(w.tokens, table);
    return &table->rows[0];
}

static void keys_that_are_read(void **state)
{
    (void)state;
    const struct token_maker *one[] = {&w.maker};
    const struct token_maker *two[] = {&w.maker, &w.other};
    w.fetched = true;
    swap();
    char *token = token_with("");
    char *text = claims("");
    char *other = token_make(&w.other, text);
    expect(token, DP_TOKEN_KEYS, false); /* none yet. */
    struct dp_issuer_keys_row *row = put_keys(one, 1, (int64_t)limits.issuer_rest_ms + 1000);
    expect(token, DP_TOKEN_GOOD, false);
    assert_false(row->missed);
    expect(other, DP_TOKEN_KEYS, false); /* asked for, and the caller comes again. */
    assert_true(row->missed);
    (void)put_keys(one, 1, 0);
    expect(other, DP_TOKEN_KID, false); /* it is not among those that were read just now. */
    (void)put_keys(two, 2, 0);
    expect(other, DP_TOKEN_GOOD, false);
    expect(token, DP_TOKEN_GOOD, true);
    char *late = token_with(",\"n\":1");
    (void)put_keys(two, 2, 3600000 + 1000); /* past maxStale nothing new is verified. */
    expect(late, DP_TOKEN_KEYS, false);
    expect(token, DP_TOKEN_GOOD, true);
    free(token);
    free(other);
    free(late);
    free(text);
}

/* An issuer that has one key, and gives it no name, or always the same, rotates by another one. */
static void a_key_takes_the_name_of_another(void **state)
{
    (void)state;
    struct token_maker before;
    token_maker_init(&before, "k1");
    const struct token_maker *old[] = {&before};
    const struct token_maker *new[] = {&w.maker};
    w.fetched = true;
    swap();
    char *token = token_with("");
    struct dp_issuer_keys_row *row = put_keys(old, 1, (int64_t)limits.issuer_rest_ms + 1000);
    expect(token, DP_TOKEN_SIGNATURE, false);
    assert_true(row->missed);
    (void)put_keys(new, 1, 0);
    expect(token, DP_TOKEN_GOOD, false);
    token_maker_free(&before);
    free(token);
}

/* ---- what stands on a token ---- */

static void hold_token(struct dp_token_hold *hold, const char *token)
{
    struct dp_token_query query = query_of(token);
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    dp_token_hold(hold, found);
}

static void expect_over(size_t count, enum dp_token_outcome why)
{
    bool never = false;
    for (int i = 0; i < WAIT_MS && w.over < count; i++) {
        (void)net_loop_run_until(w.loop, &never, 1);
    }
    assert_int_equal(w.over, count);
    assert_int_equal(w.why, why);
}

static void a_key_is_withdrawn(void **state)
{
    (void)state;
    enum { HOLDS = 200 }; /* more than a turn ends. */
    static struct dp_token_hold holds[HOLDS];
    struct dp_token_hold stays = {0};
    const struct token_maker *two[] = {&w.maker, &w.other};
    const struct token_maker *one[] = {&w.other};
    w.fetched = true;
    swap();
    (void)put_keys(two, 2, 0);
    char *token = token_with("");
    char *text = claims("");
    char *other = token_make(&w.other, text);
    for (size_t i = 0; i < HOLDS; i++) {
        hold_token(&holds[i], token);
    }
    hold_token(&stays, other);
    (void)put_keys(one, 1, 0);
    assert_int_equal(w.over, 0); /* not inside of the call. */
    expect_over(HOLDS, DP_TOKEN_WITHDRAWN);
    expect(token, DP_TOKEN_KID, false);
    expect(other, DP_TOKEN_GOOD, true);
    dp_token_hold(&stays, NULL);
    free(token);
    free(other);
    free(text);
}

static void a_token_ends(void **state)
{
    (void)state;
    struct dp_token_hold hold = {0};
    struct dp_token_hold gone = {0};
    char text[TEXT_MAX];
    swap();
    clock_shift_for_test(0, 1500 - clock_wall_ms() % 1000); /* half a second is left of this one. */
    (void)snprintf(text, sizeof(text),
                   "{\"iss\":\"" ISS "\",\"aud\":\"trilane\",\"sub\":\"a\",\"exp\":%lld,"
                   "\"groups\":\"acme-staff\"}",
                   (long long)clock_wall_ms() / 1000 - LEEWAY_S + 1);
    char *token = token_make(&w.maker, text);
    hold_token(&hold, token);
    hold_token(&gone, token);
    dp_token_hold(&gone, NULL); /* it let go by itself, and is not told. */
    expect_over(1, DP_TOKEN_EXPIRED);
    assert_null(hold.token);
    expect(token, DP_TOKEN_EXPIRED, true);
    free(token);
}

/* ---- bounds ---- */

static void wrong_ones_of_a_connection(void **state)
{
    (void)state;
    swap();
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    size_t looked_at = 0;
    char *text = claims("");
    char *good = token_with("");
    for (int i = 0; i < 100; i++) {
        char *wrong = token_make_raw(&w.other, "{\"alg\":\"ES256\",\"kid\":\"k1\"}", text);
        struct dp_token_query query = query_of(wrong);
        enum dp_token_outcome outcome = ask(&query, &found, &known, &retry_ns);
        looked_at += outcome == DP_TOKEN_SIGNATURE;
        assert_true(outcome == DP_TOKEN_SIGNATURE || outcome == DP_TOKEN_LIMITED);
        free(wrong);
    }
    assert_true(looked_at >= limits.token_failures_per_second);
    assert_true(looked_at < 90);
    assert_true(retry_ns > 0 && retry_ns <= 1000000000);
    struct dp_token_query query = query_of(good);
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_LIMITED);
    query.peer = SLICE_LIT("10.9.8.7:6"); /* another connection is not held back. */
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    query.peer = SLICE_LIT("127.0.0.1:5"); /* what is known is no check. */
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    free(text);
    free(good);
}

/* Whoever makes a connection for each wrong token gains nothing; who comes from elsewhere is heard.
 */
static void wrong_ones_of_an_address(void **state)
{
    (void)state;
    swap();
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    size_t looked_at = 0;
    char *text = claims("");
    char *good = token_with("");
    limits.token_address_failures_per_second = 5;
    for (int i = 0; i < 100; i++) {
        char peer[32];
        (void)snprintf(peer, sizeof(peer), "127.0.0.1:%d", 1000 + i);
        char *wrong = token_make_raw(&w.other, "{\"alg\":\"ES256\",\"kid\":\"k1\"}", text);
        struct dp_token_query query = query_of(wrong);
        query.peer = slice_str(peer);
        enum dp_token_outcome outcome = ask(&query, &found, &known, &retry_ns);
        looked_at += outcome == DP_TOKEN_SIGNATURE;
        assert_true(outcome == DP_TOKEN_SIGNATURE || outcome == DP_TOKEN_LIMITED_ADDRESS);
        free(wrong);
    }
    assert_true(looked_at >= 5);
    assert_true(looked_at < 60);
    assert_true(retry_ns > 0 && retry_ns <= 1000000000);
    struct dp_token_query query = query_of(good);
    query.peer = SLICE_LIT("127.0.0.1:9999");
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_LIMITED_ADDRESS);
    query.peer = SLICE_LIT("127.0.0.2:1000");
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    query.peer = SLICE_LIT("127.0.0.1:9999"); /* what is known is no check. */
    assert_int_equal(ask(&query, &found, &known, &retry_ns), DP_TOKEN_GOOD);
    free(text);
    free(good);
}

/* However many connections there are, checks take a part of the time; what is known goes on. */
static void checks_of_a_worker(void **state)
{
    (void)state;
    swap();
    struct dp_token *found = NULL;
    bool known = false;
    uint64_t retry_ns = 0;
    bool limited = false;
    limits.token_check_percent = 10;
    char *good = token_with("");
    expect(good, DP_TOKEN_GOOD, false);
    for (int i = 0; i < 100000 && !limited; i++) {
        char more[64];
        char peer[32];
        (void)snprintf(more, sizeof(more), ",\"n\":%d", i);
        (void)snprintf(peer, sizeof(peer), "10.0.0.1:%d", i);
        char *token = token_with(more);
        struct dp_token_query query = query_of(token);
        query.peer = slice_str(peer);
        limited = ask(&query, &found, &known, &retry_ns) == DP_TOKEN_LIMITED;
        free(token);
    }
    assert_true(limited);
    expect(good, DP_TOKEN_GOOD, true);
    free(good);
}

int main(void)
{
    ids_init();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_subject),
        TEST(a_service),
        TEST(subjects),
        TEST(claims_that_are_refused),
        TEST(bounds_of_claims),
        TEST(times),
        TEST(keys_and_algorithms),
        TEST(a_token_is_verified_once),
        cmocka_unit_test_setup_teardown(many, set_up_small, tear_down),
        TEST(revocations),
        TEST(keys_that_are_read),
        TEST(a_key_takes_the_name_of_another),
        TEST(a_key_is_withdrawn),
        TEST(a_token_ends),
        TEST(wrong_ones_of_a_connection),
        TEST(wrong_ones_of_an_address),
        TEST(checks_of_a_worker),
    };
    return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
