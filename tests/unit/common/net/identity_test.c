/* Proves: what a certificate says of its holder is read strictly, in one form, and whatever else it
 * has to say. */
#include <openssl/bn.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "common/net/tls.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"

static struct certs certs;

static int setup(void **state)
{
    (void)state;
    certs_init(&certs);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_free(&certs);
    return 0;
}

static bool spiffe_ok(const char *text)
{
    struct net_spiffe out;
    return err_ok(net_spiffe_parse(slice_str(text), &out));
}

static void spiffe_ids_are_read_by_the_rules(void **state)
{
    (void)state;
    struct net_spiffe out;
    assert_int_equal(net_spiffe_parse(SLICE_LIT("spiffe://a.b-c_d/x/Y.z"), &out).code, E_OK);
    assert_true(slice_eq(out.trust_domain, SLICE_LIT("a.b-c_d")));
    assert_true(slice_eq(out.path, SLICE_LIT("/x/Y.z")));
    static const char *const refused[] = {"",
                                          "spiffe:/a/b",
                                          "https://a/b",
                                          "spiffe://",
                                          "spiffe://a",
                                          "spiffe://a/",
                                          "spiffe:///b",
                                          "spiffe://A/b",
                                          "SPIFFE://a/b",
                                          "spiffe://a/b/",
                                          "spiffe://a//b",
                                          "spiffe://a/.",
                                          "spiffe://a/b/..",
                                          "spiffe://a:1/b",
                                          "spiffe://u@a/b",
                                          "spiffe://a/b?q",
                                          "spiffe://a/b#f",
                                          "spiffe://a/%41",
                                          "spiffe://a/b c"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_false(spiffe_ok(refused[i]));
    }
    char text[NET_SPIFFE_MAX + 2];
    memset(text, 'x', sizeof(text));
    memcpy(text, "spiffe://a/", 11);
    assert_int_equal(net_spiffe_parse(slice_of(text, NET_SPIFFE_MAX), &out).code, E_OK);
    assert_int_equal(net_spiffe_parse(slice_of(text, NET_SPIFFE_MAX + 1), &out).code, E_MALFORMED);
}

/* The SPIFFE id that a certificate proves, as "" when it proves none. */
static void expect_spiffe(const struct certs_leaf *leaf, const char *wanted)
{
    EVP_PKEY *key = NULL;
    X509 *cert = certs_make(&certs, leaf, &key);
    struct net_identity *who = NULL;
    assert_int_equal(net_identity_new(cert, &who).code, E_OK);
    assert_true(slice_eq(who->spiffe_id, slice_str(wanted)));
    net_identity_free(who);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void only_a_proper_leaf_proves_a_spiffe_id(void **state)
{
    (void)state;
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a"}, "spiffe://t/a");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a,DNS:a.b"}, "spiffe://t/a");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a,URI:spiffe://t/b"}, "");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a,URI:https://t/b"}, "");
    expect_spiffe(&(struct certs_leaf){.san = "URI:https://t/a"}, "");
    expect_spiffe(&(struct certs_leaf){.san = "DNS:a.b"}, "");
    expect_spiffe(&(struct certs_leaf){0}, "");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a", .is_ca = true}, "");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a",
                                       .key_usage = "digitalSignature,keyCertSign"},
                  "");
    expect_spiffe(&(struct certs_leaf){.san = "URI:spiffe://t/a", .key_usage = "keyAgreement"}, "");
}

static void names_are_bounded(void **state)
{
    (void)state;
    for (int extra = 0; extra <= 1; extra++) {
        char san[2048] = "";
        size_t size = 0;
        for (int i = 0; i < NET_IDENTITY_NAMES_MAX + extra; i++) {
            size += (size_t)snprintf(san + size, sizeof(san) - size, "%sDNS:n%d.test",
                                     i == 0 ? "" : ",", i);
        }
        EVP_PKEY *key = NULL;
        X509 *cert = certs_make(&certs, &(struct certs_leaf){.san = san}, &key);
        struct net_identity *who = NULL;
        assert_int_equal(net_identity_new(cert, &who).code, E_OK);
        assert_int_equal(who->dns_name_count, NET_IDENTITY_NAMES_MAX);
        assert_true(slice_eq(who->dns_names[NET_IDENTITY_NAMES_MAX - 1], SLICE_LIT("n31.test")));
        net_identity_free(who);
        X509_free(cert);
        EVP_PKEY_free(key);
    }
}

/* The serial of a certificate as it is compared. */
static void expect_serial(const char *hex, const char *wanted)
{
    EVP_PKEY *key = NULL;
    X509 *cert = certs_make(&certs, &(struct certs_leaf){.san = "DNS:a.b"}, &key);
    struct net_identity *who = NULL;
    BIGNUM *number = NULL;
    assert_true(BN_hex2bn(&number, hex) > 0);
    assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0); /* encodes it anew. */
    assert_int_equal(net_identity_new(cert, &who).code, E_OK);
    if (!slice_eq(who->serial, slice_str(wanted))) {
        fail_msg("%s: %.*s, not %s", hex, SLICE_ARG(who->serial), wanted);
    }
    assert_true(slice_eq(who->dns_names[0], SLICE_LIT("a.b"))); /* which lies behind it. */
    net_identity_free(who);
    BN_free(number);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void serials_are_lower_case_hex(void **state)
{
    (void)state;
    expect_serial("0A1B2C", "0a1b2c");
    expect_serial("FF", "ff"); /* DER has a zero byte before it. */
    expect_serial("1", "01");
    expect_serial("0", "00");
    expect_serial("0102030405060708090A0B0C0D0E0F1011121314",
                  "0102030405060708090a0b0c0d0e0f1011121314");
    expect_serial("80FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
                  "80ffffffffffffffffffffffffffffffffffffffffffffffffffffff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spiffe_ids_are_read_by_the_rules),
        cmocka_unit_test(only_a_proper_leaf_proves_a_spiffe_id),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(serials_are_lower_case_hex),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
