/* Proves what becomes of the CAs of trust domains, and which are refused, with their place. */
#include <string.h>

#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define HEAD                                                                                       \
    "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\nspec:\n"               \
    "  trustDomain: b.test\n  trustDomains: [a.test]\n  trustBundles:\n"
#define OF(domain) "    - trustDomain: " domain "\n      ca: "

/* As an item's text: a block of its own. */
static const char pem[] =
    "|\n"
    "        -----BEGIN CERTIFICATE-----\n"
    "        MIIBqTCCAU+gAwIBAgIQQAAAAAAAAKvksNiMNlOupjAKBggqhkjOPQQDAjAiMSAw\n"
    "        HgYDVQQDDBdUcmlsYW5lIENBIHBhcnRuZXIudGVzdDAeFw0yNjExMjkxMjEwMzla\n"
    "        Fw0zNjExMjYxMzEwMzlaMCIxIDAeBgNVBAMMF1RyaWxhbmUgQ0EgcGFydG5lci50\n"
    "        ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEuZ+2QFesEPeC+MxD/UktT8nx\n"
    "        4nReyZuEHClU4umUKJfWf5hsQppEY9uul6le3+/CJ/95YrLxk/k6uQxK+rb1hqNn\n"
    "        MGUwEgYDVR0TAQH/BAgwBgEB/wIBADAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYE\n"
    "        FF2Bd9/5ZOIELuMZO+9IQpSr5MFoMCAGA1UdEQQZMBeGFXNwaWZmZTovL3BhcnRu\n"
    "        ZXIudGVzdDAKBggqhkjOPQQDAgNIADBFAiA+qEi9pGaBpCA/lDlnU47a6i+7zXRD\n"
    "        YpFzYf3PY8SG2wIhAOVL4ZW6UyyhKocuWjzhPY+r8+bA8yGoRHWzex9EWtLD\n"
    "        -----END CERTIFICATE-----\n";

static void bundles_are_compiled(void **state)
{
    (void)state;
    struct fixture f;
    char text[4096];
    (void)snprintf(text, sizeof(text), "%s%s%s%s%s", HEAD, OF("b.test"), pem, OF("a.test"), pem);
    fixture_init(&f);
    fixture_add(&f, "environment.yaml", text);
    fixture_compile(&f);
    assert_true((cp_compiled_capabilities(f.compiled) & CAPABILITY_TRUST_BUNDLES) != 0);
    const struct cp_part *part = fixture_part(&f, CP_PART_TRUST, "environment");
    Trilane__Parts__V1__EnvironmentPart *m =
        trilane__parts__v1__environment_part__unpack(NULL, part->bytes.size, part->bytes.ptr);
    assert_int_equal(m->n_trust_bundles, 2);
    assert_string_equal(m->trust_bundles[0]->trust_domain, "a.test"); /* sorted. */
    assert_string_equal(m->trust_bundles[1]->trust_domain, "b.test");
    assert_true(slice_starts(slice_of(m->trust_bundles[0]->ca.data, m->trust_bundles[0]->ca.len),
                             SLICE_LIT("-----BEGIN CERTIFICATE-----\nMII")));
    trilane__parts__v1__environment_part__free_unpacked(m, NULL);
    fixture_free(&f);
}

static void refuse(const char *first, const char *ca, const char *second, enum cp_diag_code code)
{
    struct fixture f;
    char text[4096];
    (void)snprintf(text, sizeof(text), "%s%s%s%s%s", HEAD, first, ca, second,
                   second[0] == '\0' ? "" : pem);
    fixture_init(&f);
    fixture_add(&f, "environment.yaml", text);
    fixture_refuse(&f, code);
    assert_int_equal(f.diags.count, 1);
    fixture_free(&f);
}

static void what_is_refused(void **state)
{
    (void)state;
    refuse(OF("c.test"), pem, "", CP_DIAG_REFERENCE_DANGLING);
    refuse(OF("a.test"), pem, OF("a.test"), CP_DIAG_DUPLICATE_VALUE);
    refuse(OF("a.test"), "\"-----BEGIN CERTIFICATE-----\"\n", "", CP_DIAG_CA_MALFORMED);
    refuse(OF("a.test"), "ca.pem\n", "", CP_DIAG_FORMAT_INVALID);
    refuse("    - trustDomain: a.test\n", "", "", CP_DIAG_KEY_MISSING);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bundles_are_compiled),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests_name("trust", tests, NULL, NULL);
}
