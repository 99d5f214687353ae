/* Proves what becomes of an Issuer, that its order of writing means nothing, and which ones are
 * refused, with the place of what is wrong. */
#include <string.h>

#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define HEAD "apiVersion: trilane.dev/v1\nkind: Issuer\n"
#define KEY                                                                                        \
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\","                                             \
    "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\",\"kid\":\"k\"}]}"
#define SERVICE                                                                                    \
    "apiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: web, tenant: acme}\nspec: {}\n"

static void compile(struct fixture *f, const char *issuer)
{
    fixture_init(f);
    fixture_add(f, "environment.yaml", FIXTURE_ENVIRONMENT);
    fixture_add(f, "web.yaml", SERVICE);
    fixture_add(f, "id.jwks", KEY);
    fixture_add(f, "issuer.yaml", issuer);
    fixture_compile(f);
}

static Trilane__Parts__V1__Issuer *part_of(const struct fixture *f, const char *key)
{
    const struct cp_part *part = fixture_part(f, CP_PART_TRUST, key);
    assert_non_null(part);
    Trilane__Parts__V1__Issuer *m =
        trilane__parts__v1__issuer__unpack(NULL, part->bytes.size, part->bytes.ptr);
    assert_non_null(m);
    return m;
}

static void all_of_it(void **state)
{
    (void)state;
    struct fixture f;
    compile(
        &f, HEAD
        "metadata: {name: idp}\nspec:\n  issuer: https://id.example.com\n"
        "  audiences: [b, a]\n  algorithms: [ES256, RS256, EdDSA]\n"
        "  jwks: {uri: \"https://id.example.com/keys\"}\n"
        "  refresh: 1m\n  maxStale: 1h\n  leeway: 5s\n"
        "  tenants:\n    - {tenant: acme, when: [{claim: groups, value: staff}]}\n"
        "    - {claim: org}\n"
        "  service: client_id\n  traits: {role: realm_access.roles}\n  trustDomain: id.example\n");
    assert_true((cp_compiled_capabilities(f.compiled) & CAPABILITY_ISSUERS) != 0);
    Trilane__Parts__V1__Issuer *m = part_of(&f, "issuer/-/idp");
    assert_string_equal(m->issuer, "https://id.example.com");
    assert_int_equal(m->n_audiences, 2);
    assert_string_equal(m->audiences[0], "a");
    assert_int_equal(m->algorithms, 1 << TRILANE__PARTS__V1__JWS_ALGORITHM__JWS_RS256 |
                                        1 << TRILANE__PARTS__V1__JWS_ALGORITHM__JWS_ES256 |
                                        1 << TRILANE__PARTS__V1__JWS_ALGORITHM__JWS_EDDSA);
    assert_string_equal(m->jwks_uri, "https://id.example.com/keys");
    assert_int_equal(m->jwks.len, 0);
    assert_int_equal(m->refresh_ms, 60000);
    assert_int_equal(m->max_stale_ms, 3600000);
    assert_int_equal(m->leeway_ms, 5000);
    assert_int_equal(m->n_tenants, 2);
    assert_string_equal(m->tenants[0]->claim, "org");
    assert_string_equal(m->tenants[1]->tenant, "acme");
    assert_string_equal(m->tenants[1]->when[0]->claim, "groups");
    assert_string_equal(m->subject_claim, "sub");
    assert_string_equal(m->service_claim, "client_id");
    assert_string_equal(m->traits[0]->name, "role");
    assert_string_equal(m->traits[0]->claim, "realm_access.roles");
    assert_string_equal(m->trust_domain, "id.example");
    trilane__parts__v1__issuer__free_unpacked(m, NULL);
    fixture_free(&f);
}

/* A tenant's own: without ways to a tenant it gives its own; the keys are in the snapshot. */
static void a_tenants_own(void **state)
{
    (void)state;
    struct fixture f;
    compile(&f, HEAD "metadata: {name: own, tenant: acme}\nspec:\n  issuer: me\n"
                     "  audiences: [a]\n  algorithms: [EdDSA]\n  jwks: {file: id.jwks}\n");
    Trilane__Parts__V1__Issuer *m = part_of(&f, "issuer/acme/own");
    assert_int_equal(m->n_tenants, 1);
    assert_string_equal(m->tenants[0]->tenant, "acme");
    assert_true(slice_eq(slice_of(m->jwks.data, m->jwks.len), slice_str(KEY)));
    assert_int_equal(m->refresh_ms, 0);
    trilane__parts__v1__issuer__free_unpacked(m, NULL);
    fixture_free(&f);
}

static void keys_by_discovery(void **state)
{
    (void)state;
    struct fixture f;
    compile(&f, HEAD "metadata: {name: idp}\nspec:\n  issuer: https://id.example.com/a\n"
                     "  audiences: [a]\n  algorithms: [EdDSA]\n  jwks: {discovery: true}\n"
                     "  tenants: [{claim: org}]\n");
    assert_true((cp_compiled_capabilities(f.compiled) & CAPABILITY_ISSUER_DISCOVERY) != 0);
    Trilane__Parts__V1__Issuer *m = part_of(&f, "issuer/-/idp");
    assert_true(m->discovery);
    assert_string_equal(m->jwks_uri, "");
    assert_int_equal(m->jwks.len, 0);
    assert_int_equal(m->refresh_ms, 300000);
    assert_int_equal(m->max_stale_ms, 86400000);
    trilane__parts__v1__issuer__free_unpacked(m, NULL);
    fixture_free(&f);
}

static void order_means_nothing(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "    - {claim: org}\n    - {tenant: acme, when: [{claim: a, value: x}, {claim: a, value: b}]}\n"
        "    - {tenant: acme, when: [{claim: a, value: c}]}\n",
        "    - {tenant: acme, when: [{claim: a, value: c}]}\n"
        "    - {tenant: acme, when: [{claim: a, value: b}, {claim: a, value: x}]}\n    - {claim: org}\n"};
    struct fixture f[2];
    const struct cp_part *parts[2];
    for (size_t i = 0; i < 2; i++) {
        char text[1024];
        (void)snprintf(text, sizeof(text),
                       HEAD "metadata: {name: idp}\nspec:\n  issuer: me\n  audiences: [a]\n"
                            "  algorithms: [EdDSA]\n  jwks: {file: id.jwks}\n  tenants:\n%s",
                       ways[i]);
        compile(&f[i], text);
        parts[i] = fixture_part(&f[i], CP_PART_TRUST, "issuer/-/idp");
        assert_non_null(parts[i]);
    }
    assert_true(slice_eq(parts[0]->bytes, parts[1]->bytes));
    fixture_free(&f[0]);
    fixture_free(&f[1]);
}

static void a_revoked_subject(void **state)
{
    (void)state;
    struct fixture f;
    compile(&f, "apiVersion: trilane.dev/v1\nkind: Revocation\nmetadata: {name: leavers}\n"
                "spec: {subjects: [\"https://id.example.com#alice\"]}\n");
    assert_non_null(fixture_part(&f, CP_PART_REVOCATIONS, "subject/https://id.example.com#alice"));
    fixture_free(&f);
}

static void what_is_refused(void **state)
{
    (void)state;
#define GOOD "  audiences: [a]\n  algorithms: [EdDSA]\n"
#define FILE_KEYS "  jwks: {file: id.jwks}\n"
#define WAYS "  tenants: [{claim: org}]\n"
    static const struct {
        const char *spec; /* behind "issuer: me". */
        enum cp_diag_code code;
        uint32_t line;
    } rows[] = {
        {"  algorithms: [EdDSA]\n" FILE_KEYS WAYS, CP_DIAG_KEY_MISSING, 0},
        {"  audiences: [a]\n" FILE_KEYS WAYS, CP_DIAG_KEY_MISSING, 0},
        {"  audiences: [a]\n  algorithms: [HS256]\n" FILE_KEYS WAYS, CP_DIAG_NOT_ENUM, 7},
        {"  audiences: [a]\n  algorithms: [none]\n" FILE_KEYS WAYS, CP_DIAG_NOT_ENUM, 7},
        {"  audiences: [a]\n  algorithms: []\n" FILE_KEYS WAYS, CP_DIAG_OUT_OF_BOUND, 7},
        {GOOD WAYS, CP_DIAG_KEY_MISSING, 0},
        {GOOD WAYS "  jwks: {}\n", CP_DIAG_CHOICE, 0},
        {GOOD WAYS "  jwks: {file: id.jwks, uri: \"https://a/b\"}\n", CP_DIAG_CHOICE, 0},
        {GOOD WAYS "  jwks: {discovery: true}\n", CP_DIAG_FORMAT_INVALID, 5}, /* of "me". */
        {GOOD WAYS "  jwks: {discovery: false}\n", CP_DIAG_OUT_OF_BOUND, 9},
        {GOOD WAYS "  jwks: {discovery: true, uri: \"https://a/b\"}\n", CP_DIAG_CHOICE, 0},
        {GOOD WAYS "  jwks: {file: no.jwks}\n", CP_DIAG_KEY_SET_MISSING, 9},
        {GOOD WAYS "  jwks: {file: web.yaml}\n", CP_DIAG_KEY_SET_MALFORMED, 9},
        {GOOD WAYS "  jwks: {inline: '{\"keys\":[]}'}\n", CP_DIAG_KEY_SET_MALFORMED, 9},
        {GOOD WAYS "  jwks: {inline: 'keys'}\n", CP_DIAG_FORMAT_INVALID, 9},
        {GOOD WAYS "  jwks: {uri: \"ftp://a/b\"}\n", CP_DIAG_FORMAT_INVALID, 9},
        {GOOD WAYS "  jwks: {uri: \"http://a/b\"}\n", CP_DIAG_FORMAT_INVALID, 9},
        {GOOD WAYS "  jwks: {uri: \"https://u:p@a/b\"}\n", CP_DIAG_FORMAT_INVALID, 9},
        {GOOD WAYS "  jwks: {uri: \"https://a/b\", ca: \"-----BEGIN CERTIFICATE-----\"}\n",
         CP_DIAG_CA_MALFORMED, 9},
        {GOOD WAYS "  jwks: {file: id.jwks, ca: \"-----BEGIN CERTIFICATE-----\"}\n", CP_DIAG_CHOICE,
         9},
        {GOOD FILE_KEYS, CP_DIAG_KEY_MISSING, 0},
        {GOOD FILE_KEYS "  tenants: [{tenant: globex}]\n", CP_DIAG_REFERENCE_DANGLING, 9},
        {GOOD FILE_KEYS "  tenants: [{tenant: acme, claim: org}]\n", CP_DIAG_CHOICE, 9},
        {GOOD FILE_KEYS WAYS "  trustDomain: test.example\n", CP_DIAG_FORMAT_INVALID, 10},
        {GOOD FILE_KEYS WAYS "  leeway: 1h\n", CP_DIAG_OUT_OF_BOUND, 10},
        {GOOD FILE_KEYS WAYS "  traits: {role: \"a b\"}\n", CP_DIAG_FORMAT_INVALID, 10},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture f;
        char text[1024];
        (void)snprintf(text, sizeof(text), HEAD "metadata: {name: idp}\nspec:\n  issuer: me\n%s",
                       rows[i].spec);
        fixture_init(&f);
        fixture_add(&f, "environment.yaml", FIXTURE_ENVIRONMENT);
        fixture_add(&f, "web.yaml", SERVICE);
        fixture_add(&f, "id.jwks", KEY);
        fixture_add(&f, "issuer.yaml", text);
        struct err e = cp_compile_set(&f.set, &f.diags, &fixture_options, &f.compiled);
        bool fits = e.code == E_SOURCE_INVALID && f.diags.count == 1 &&
                    f.diags.items[0]->code == rows[i].code &&
                    (rows[i].line == 0 || f.diags.items[0]->at.line == rows[i].line);
        if (!fits) {
            auto_buf struct buf said = BUF_MAX(1 << 20);
            assert_true(err_ok(cp_diags_text(&f.diags, &said)));
            fail_msg("%s%.*s", text, SLICE_ARG(buf_slice(&said)));
        }
        fixture_free(&f);
    }
}

static void a_foreign_tenant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "environment.yaml", FIXTURE_ENVIRONMENT);
    fixture_add(&f, "web.yaml", SERVICE);
    fixture_add(&f, "id.jwks", KEY);
    fixture_add(&f, "issuer.yaml",
                HEAD "metadata: {name: own, tenant: globex}\nspec:\n  issuer: me\n" GOOD FILE_KEYS
                     "  tenants: [{tenant: acme}]\n");
    fixture_refuse(&f, CP_DIAG_REFERENCE_FOREIGN);
    fixture_free(&f);
}

static void one_issuer_twice(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "environment.yaml", FIXTURE_ENVIRONMENT);
    fixture_add(&f, "id.jwks", KEY);
    fixture_add(&f, "a.yaml",
                HEAD "metadata: {name: a}\nspec:\n  issuer: me\n" GOOD FILE_KEYS WAYS);
    fixture_add(&f, "b.yaml",
                HEAD "metadata: {name: b}\nspec:\n  issuer: me\n" GOOD FILE_KEYS WAYS);
    fixture_refuse(&f, CP_DIAG_DUPLICATE_IDENTITY);
    fixture_free(&f);
}

/* Keys in clear come from this machine alone, and in dev. */
static void clear_text(void **state)
{
    (void)state;
    static const char *const security[] = {"dev", "strict"};
    static const char *const keys[] = {
        "issuer: me\n  jwks: {uri: \"http://127.0.0.1:8080/keys\"}\n",
        "issuer: http://127.0.0.1:8080/a\n  jwks: {discovery: true}\n"};
    for (size_t i = 0; i < 4; i++) {
        struct fixture f;
        char environment[256];
        (void)snprintf(environment, sizeof(environment),
                       "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
                       "spec: {security: %s, trustDomain: test.example}\n",
                       security[i % 2]);
        char text[512];
        (void)snprintf(text, sizeof(text), HEAD "metadata: {name: a}\nspec:\n" GOOD WAYS "  %s",
                       keys[i / 2]);
        fixture_init(&f);
        fixture_add(&f, "environment.yaml", environment);
        fixture_add(&f, "a.yaml", text);
        if (i % 2 == 0) {
            fixture_compile(&f);
        } else {
            fixture_refuse(&f, CP_DIAG_FORMAT_INVALID);
        }
        fixture_free(&f);
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it),           cmocka_unit_test(a_tenants_own),
        cmocka_unit_test(order_means_nothing), cmocka_unit_test(a_revoked_subject),
        cmocka_unit_test(what_is_refused),     cmocka_unit_test(a_foreign_tenant),
        cmocka_unit_test(one_issuer_twice),    cmocka_unit_test(clear_text),
        cmocka_unit_test(keys_by_discovery),
    };
    return cmocka_run_group_tests_name("issuers", tests, NULL, NULL);
}
