/* Proves that an Issuer, the CAs of a trust domain, and what is demanded of connections are taken
 * only when they are whole: a node refuses the snapshot that has another one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/jose/jwk.h"
#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "tests/support/token_maker.h"
#include "tests/unit/common/net/certs.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__Issuer part_issuer;
typedef Trilane__Parts__V1__IssuerTenant part_tenant;
typedef Trilane__Parts__V1__IssuerTrait part_trait;
typedef Trilane__Parts__V1__EnvironmentPart part_environment;
typedef Trilane__Parts__V1__TrustBundle part_bundle;

static struct publisher publisher;
static struct dp_model_bin *bin;
static struct token_maker maker;
static struct certs certs;
static uint64_t version;

static int set_up(void **state)
{
    (void)state;
    publisher_init(&publisher);
    token_maker_init(&maker, "k1");
    certs_init(&certs);
    return err_ok(dp_model_bin_new(&bin)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    dp_model_bin_free(bin);
    certs_free(&certs);
    token_maker_free(&maker);
    publisher_free(&publisher);
    return 0;
}

static uint8_t source[DIGEST_SIZE]; /* of the last Issuer. */

static void note_source(void *ctx, const struct dp_issuer *issuer)
{
    (void)ctx;
    memcpy(source, issuer->source, DIGEST_SIZE);
}

/* What becomes of the sample with this part in it; *out_issuers: how many Issuers it then has. */
static enum err_code build_in(uint32_t stream, const char *key, const ProtobufCMessage *message,
                              bool *out_issuers)
{
    struct content *c = content_sample(1);
    content_put(c, stream, key, message);
    struct version *v = version_new(&publisher, c, ++version, NULL);
    struct snap_set *set = version_set(&publisher, v, NULL);
    struct dp_build_report report;
    struct dp_model *model = NULL;
    struct err e = dp_model_build(bin, set, NULL, &model, &report);
    if (out_issuers != NULL) {
        *out_issuers = err_ok(e) && dp_model_has_issuers(model);
        if (*out_issuers) {
            dp_model_each_issuer(model, note_source, NULL);
        }
    }
    dp_model_unref(model);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    return e.code;
}

static enum err_code build(const char *key, const ProtobufCMessage *message, bool *out_issuers)
{
    return build_in(STREAM_TRUST, key, message, out_issuers);
}

/* ---- an Issuer ---- */

static part_tenant tenant;
static part_tenant *tenants[] = {&tenant};
static part_trait trait;
static part_trait *traits[] = {&trait, &trait};
static char *audiences[] = {NULL, NULL};

static void fill(part_issuer *m)
{
    trilane__parts__v1__issuer__init(m);
    trilane__parts__v1__issuer_tenant__init(&tenant);
    trilane__parts__v1__issuer_trait__init(&trait);
    tenant.tenant = publisher_text("acme");
    trait.name = publisher_text("role");
    trait.claim = publisher_text("roles");
    audiences[0] = publisher_text("a");
    audiences[1] = publisher_text("b");
    m->issuer = publisher_text("https://id.test");
    m->n_audiences = 2;
    m->audiences = audiences;
    m->algorithms = 1U << JOSE_ES256;
    m->jwks_uri = publisher_text("https://id.test/keys");
    m->refresh_ms = 60000;
    m->n_tenants = 1;
    m->tenants = tenants;
    m->subject_claim = publisher_text("sub");
    m->n_traits = 1;
    m->traits = traits;
}

/* What is demanded of its tokens. */
static void spoil_tokens(part_issuer *m, int how)
{
    static char long_issuer[600];
    switch (how) {
    case 0:
        m->issuer = publisher_text("");
        break;
    case 1:
        m->issuer = publisher_text("a#b");
        break;
    case 2:
        (void)memset(long_issuer, 'a', sizeof(long_issuer) - 1);
        m->issuer = long_issuer;
        break;
    case 3:
        m->n_audiences = 0;
        break;
    case 4:
        audiences[1] = audiences[0];
        break;
    case 5:
        m->algorithms = 0;
        break;
    case 6:
        m->algorithms = 1; /* none. */
        break;
    case 7:
        m->algorithms = 1U << JOSE_ALG_COUNT;
        break;
    default:
        m->leeway_ms = 3600000;
        break;
    }
}

/* Where its keys come from. */
static void spoil_keys(part_issuer *m, int how)
{
    static uint8_t keys[] = "{\"keys\":[]}";
    switch (how) {
    case 0:
        m->jwks_uri = publisher_text("http://id.test/keys");
        break;
    case 1:
        m->refresh_ms = 1;
        break;
    case 2:
        m->jwks_uri = publisher_text("");
        break;
    case 3:
        m->jwks =
            (ProtobufCBinaryData){.len = sizeof(keys) - 1, .data = keys}; /* beside the URL. */
        break;
    case 4:
        m->jwks_uri = publisher_text("");
        m->jwks = (ProtobufCBinaryData){.len = sizeof(keys) - 1, .data = keys};
        break;
    case 5:
        m->discovery = true; /* beside the URL. */
        break;
    case 6:
        m->discovery = true;
        m->jwks_uri = publisher_text("");
        m->issuer = publisher_text("http://id.test/realms/a");
        break;
    default:
        m->discovery = true;
        m->jwks_uri = publisher_text("");
        m->issuer = publisher_text("https://id.test/realms/a?b");
        break;
    }
}

/* Who the callers are. */
static void spoil_callers(part_issuer *m, int how)
{
    switch (how) {
    case 0:
        m->n_tenants = 0;
        break;
    case 1:
        tenant.claim = publisher_text("org"); /* beside the tenant. */
        break;
    case 2:
        tenant.tenant = publisher_text("");
        break;
    case 3:
        m->subject_claim = publisher_text("");
        break;
    case 4:
        m->n_traits = 2; /* one twice. */
        break;
    default:
        trait.claim = publisher_text("");
        break;
    }
}

static const struct {
    void (*spoil)(part_issuer *m, int how);
    int count; /* of ways to. */
} spoilers[] = {{spoil_tokens, 9}, {spoil_keys, 8}, {spoil_callers, 6}};

static void is_refused_when_spoiled(size_t spoiler)
{
    bool found = false;
    part_issuer m;
    for (int how = 0; how < spoilers[spoiler].count; how++) {
        fill(&m);
        spoilers[spoiler].spoil(&m, how);
        if (build("issuer/-/idp", &m.base, &found) != E_PART_MALFORMED) {
            fail_msg("case %d of spoiler %zu is taken", how, spoiler);
        }
    }
}

static void issuers_that_are_refused(void **state)
{
    (void)state;
    bool found = false;
    part_issuer m;
    for (size_t i = 0; i < sizeof(spoilers) / sizeof(spoilers[0]); i++) {
        is_refused_when_spoiled(i);
    }
    static const char *const keys[] = {"issuer/",   "issuer/idp",   "issuer//idp",
                                       "issuer/-/", "issuer/-/a/b", "issuer/-/a#b"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        fill(&m);
        assert_int_equal(build(keys[i], &m.base, &found), E_PART_MALFORMED);
    }
}

static void issuers_that_are_taken(void **state)
{
    (void)state;
    bool found = false;
    part_issuer m;
    const struct token_maker *makers[] = {&maker};
    char *jwks = token_jwks(makers, 1);
    fill(&m);
    assert_int_equal(build("issuer/-/idp", &m.base, &found), E_OK);
    assert_true(found);
    fill(&m);
    m.jwks_uri = publisher_text("");
    m.jwks = (ProtobufCBinaryData){.len = strlen(jwks), .data = (uint8_t *)(void *)jwks};
    assert_int_equal(build("issuer/acme/own", &m.base, &found), E_OK);
    assert_true(found);
    free(jwks);
}

/* Keys of one place are never those of another: what stands for it says all of it, and no more. */
static void where_keys_come_from(void **state)
{
    (void)state;
    static uint8_t ca[] = "-----BEGIN CERTIFICATE-----";
    uint8_t first[DIGEST_SIZE];
    for (int what = 0; what < 6; what++) {
        bool found = false;
        part_issuer m;
        fill(&m);
        if (what == 1) {
            m.leeway_ms = 7;
        } else if (what == 2) {
            m.issuer = publisher_text("https://id.test/other");
        } else if (what == 3) {
            m.jwks_uri = publisher_text("https://id.test/other-keys");
        } else if (what == 4) {
            m.ca = (ProtobufCBinaryData){.len = sizeof(ca) - 1, .data = ca};
        } else if (what == 5) {
            m.jwks_uri = publisher_text("");
            m.discovery = true;
        }
        assert_int_equal(build("issuer/-/idp", &m.base, &found), E_OK);
        assert_true(found);
        if (what == 0) {
            memcpy(first, source, DIGEST_SIZE);
        }
        assert_int_equal(memcmp(first, source, DIGEST_SIZE) == 0, what < 2);
    }
}

/* ---- CAs of trust domains ---- */

static enum err_code with_bundles(const char *first, const char *second, const char *pem)
{
    bool found = false;
    part_environment m;
    part_bundle bundles[2];
    part_bundle *list[] = {&bundles[0], &bundles[1]};
    char *domains[] = {publisher_text("other.test")};
    const char *names[] = {first, second};
    char *text = strdup(pem);
    trilane__parts__v1__environment_part__init(&m);
    m.name = publisher_text(PUBLISHER_ENVIRONMENT);
    m.trust_domain = publisher_text("trilane.test");
    m.partitions = 16;
    m.n_trust_domains = 1;
    m.trust_domains = domains;
    m.trust_bundles = list;
    for (size_t i = 0; i < 2 && names[i] != NULL; i++) {
        trilane__parts__v1__trust_bundle__init(&bundles[i]);
        bundles[i].trust_domain = publisher_text(names[i]);
        bundles[i].ca = (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
        m.n_trust_bundles++;
    }
    enum err_code code = build("environment", &m.base, &found);
    free(text);
    return code;
}

static void cas_of_trust_domains(void **state)
{
    (void)state;
    char pem[4096] = "";
    FILE *file = fopen(certs.ca_file, "re");
    assert_non_null(file);
    assert_true(fread(pem, 1, sizeof(pem) - 1, file) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(with_bundles("trilane.test", NULL, pem), E_OK);
    assert_int_equal(with_bundles("other.test", "trilane.test", pem), E_OK);
    assert_int_equal(with_bundles("trilane.test", "other.test", pem), E_PART_MALFORMED);
    assert_int_equal(with_bundles("other.test", "other.test", pem), E_PART_MALFORMED);
    assert_int_equal(with_bundles("third.test", NULL, pem), E_PART_MALFORMED);
    assert_int_equal(with_bundles("trilane.test", NULL, ""), E_PART_MALFORMED);
    assert_int_equal(with_bundles("trilane.test", NULL, "no certificate"), E_PART_MALFORMED);
}

/* ---- what is demanded of connections ---- */

typedef enum err_code with_tls_fn(uint32_t tls, uint32_t least, uint32_t most);

static enum err_code with_listener(uint32_t tls, uint32_t least, uint32_t most)
{
    bool found = false;
    part_environment m;
    trilane__parts__v1__environment_part__init(&m);
    m.name = publisher_text(PUBLISHER_ENVIRONMENT);
    m.trust_domain = publisher_text("trilane.test");
    m.partitions = 16;
    m.listener_tls = tls;
    m.listener_tls_min = least;
    m.listener_tls_max = most;
    return build("environment", &m.base, &found);
}

static enum err_code with_upstream(uint32_t tls, uint32_t least, uint32_t most)
{
    Trilane__Parts__V1__Transport m;
    trilane__parts__v1__transport__init(&m);
    m.id = publisher_text("other");
    m.upstream_tls = tls;
    m.upstream_tls_min = least;
    m.upstream_tls_max = most;
    return build_in(STREAM_TRANSPORT, "other", &m.base, NULL);
}

static void demands_of_connections(void **state)
{
    (void)state;
    with_tls_fn *const with[] = {with_listener, with_upstream};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(with[i](0, 0, 0), E_OK);
        assert_int_equal(with[i](2, 3, 3), E_OK);
        assert_int_equal(with[i](1, 2, 3), E_OK);
        assert_int_equal(with[i](1, 2, 2), E_OK);
        assert_int_equal(with[i](1, 3, 0), E_OK);
        assert_int_equal(with[i](1, 0, 2), E_OK);
        assert_int_equal(with[i](3, 0, 0), E_PART_MALFORMED);
        assert_int_equal(with[i](1, 3, 2), E_PART_MALFORMED);
        assert_int_equal(with[i](1, 1, 0), E_PART_MALFORMED);
        assert_int_equal(with[i](1, 4, 0), E_PART_MALFORMED);
        assert_int_equal(with[i](1, 0, 1), E_PART_MALFORMED);
        assert_int_equal(with[i](1, 0, 4), E_PART_MALFORMED);
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(issuers_that_are_refused), cmocka_unit_test(issuers_that_are_taken),
        cmocka_unit_test(where_keys_come_from),     cmocka_unit_test(cas_of_trust_domains),
        cmocka_unit_test(demands_of_connections),
    };
    return cmocka_run_group_tests_name("trust_parts", tests, set_up, tear_down);
}
