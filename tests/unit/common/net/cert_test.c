/* Proves what is read from a chain of certificates and from one, strictly, that a request for one
 * proves possession of its key, and that bytes that are none are refused. */
#include "common/net/cert.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <time.h>

#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/net/csr.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"

static struct certs certs;

static struct buf pem_of(X509 *const *list, size_t count)
{
    struct buf pem = BUF_MAX(NET_CHAIN_BYTES_MAX * 2);
    BIO *bio = BIO_new(BIO_s_mem());
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(PEM_write_bio_X509(bio, list[i]), 1);
    }
    char *bytes = NULL;
    long size = BIO_get_mem_data(bio, &bytes);
    assert_int_equal(buf_add(&pem, slice_of(bytes, (size_t)size)).code, E_OK);
    BIO_free(bio);
    return pem;
}

static X509 *leaf_of(struct certs *ca, EVP_PKEY **out_key)
{
    const struct certs_leaf leaf = {.san = "URI:spiffe://a.test/node/n"};
    return certs_make(ca, &leaf, out_key);
}

/* A leaf that the test's CA signed, read back as a chain. */
struct read_leaf {
    EVP_PKEY *key;
    struct net_chain chain;
};

static struct read_leaf read_leaf(void)
{
    struct read_leaf r = {.chain.count = 0};
    X509 *cert = leaf_of(&certs, &r.key);
    struct buf pem = pem_of(&cert, 1);
    assert_int_equal(net_chain_read(buf_slice(&pem), &r.chain).code, E_OK);
    buf_free(&pem);
    X509_free(cert);
    return r;
}

static void read_leaf_free(struct read_leaf *r)
{
    net_chain_free(&r->chain);
    EVP_PKEY_free(r->key);
}

static void a_chain_leads_to_its_anchor_alone(void **state)
{
    (void)state;
    struct read_leaf r = read_leaf();
    struct certs other;
    certs_init(&other);
    struct net_chain ours = {.certs = {certs.ca}, .count = 1};
    struct net_chain theirs = {.certs = {other.ca}, .count = 1};
    struct net_chain none = {.count = 0};
    assert_int_equal(net_chain_verify(&r.chain, &ours).code, E_OK);
    assert_int_equal(net_chain_verify(&r.chain, &theirs).code, E_UNAUTHENTICATED);
    assert_int_equal(net_chain_verify(&r.chain, &none).code, E_UNAUTHENTICATED);
    assert_int_equal(net_chain_verify(&r.chain, &r.chain).code, E_OK); /* pinned as it is. */
    certs_free(&other);
    read_leaf_free(&r);
}

static void times_and_serial_are_read(void **state)
{
    (void)state;
    struct read_leaf r = read_leaf();
    struct net_cert_times times;
    char serial[NET_SERIAL_SIZE];
    assert_int_equal(net_cert_times(r.chain.certs[0], &times).code, E_OK);
    int64_t now_s = (int64_t)time(NULL);
    assert_in_range(times.ends_s, now_s + 590, now_s + 610);
    assert_in_range(times.made_s, now_s + NET_CERT_EARLIER_S - 70,
                    now_s + NET_CERT_EARLIER_S - 50); /* the test's CA begins a minute before. */
    net_cert_serial(r.chain.certs[0], serial);
    assert_int_equal(strlen(serial) % 2, 0);
    assert_true(strlen(serial) > 0);
    assert_true(net_cert_is_for(r.chain.certs[0], r.key));
    assert_false(net_cert_is_for(r.chain.certs[0], certs.ca_key));
    read_leaf_free(&r);
}

static void labels_are_the_units_of_the_subject(void **state)
{
    (void)state;
    struct read_leaf r = read_leaf();
    struct buf labels = BUF_MAX(40);
    X509 *cert = r.chain.certs[0];
    assert_int_equal(net_cert_labels(cert, &labels).code, E_OK);
    assert_int_equal(labels.size, 0);
    assert_int_equal(net_cert_add_label(cert, SLICE_LIT("rack=b")).code, E_OK);
    assert_int_equal(net_cert_add_label(cert, SLICE_LIT("Engineering")).code, E_OK);
    assert_int_equal(net_cert_add_label(cert, SLICE_LIT("zone=eu-1")).code, E_OK);
    assert_int_equal(net_cert_labels(cert, &labels).code, E_OK);
    assert_true(slice_eq(buf_slice(&labels), SLICE_LIT("rack=b,zone=eu-1")));
    char long_label[80] = "name=";
    memset(long_label + 5, 'v', sizeof(long_label) - 5);
    assert_int_equal(net_cert_add_label(cert, slice_of(long_label, 65)).code, E_CRYPTO);
    assert_int_equal(net_cert_add_label(cert, slice_of(long_label, 64)).code, E_OK);
    buf_clear(&labels);
    assert_int_equal(net_cert_labels(cert, &labels).code, E_TOO_LARGE);
    assert_int_equal(labels.size, 0);
    buf_free(&labels);
    read_leaf_free(&r);
}

/* As a certificate is made: everything is in it before it is signed. */
static X509 *sign_with(const char *san, void (*add)(X509 *))
{
    EVP_PKEY *key = NULL;
    const struct certs_leaf leaf = {.san = san};
    X509 *cert = certs_make(&certs, &leaf, &key);
    add(cert);
    assert_true(X509_sign(cert, certs.ca_key, EVP_sha256()) > 0);
    EVP_PKEY_free(key);
    return cert;
}

static const uint8_t status_key[NET_STATUS_KEY_SIZE] = {1, 2, 3};

static void add_nothing(X509 *cert)
{
    (void)cert;
}

static void add_key(X509 *cert)
{
    assert_int_equal(net_cert_add_status_key(cert, status_key).code, E_OK);
}

static void add_key_twice(X509 *cert)
{
    add_key(cert);
    add_key(cert);
}

static struct {
    int type;
    const char *text;
} odd;

static void add_odd_key(X509 *cert)
{
    assert_int_equal(X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_serialNumber,
                                                odd.type, (const unsigned char *)odd.text, -1, -1,
                                                0),
                     1);
}

/* The code, with the key that was found or zeroes. */
static enum err_code key_of(void (*add)(X509 *), uint8_t out[NET_STATUS_KEY_SIZE])
{
    bool found = false;
    X509 *cert = sign_with("URI:spiffe://a.test/node/n", add);
    memset(out, 0, NET_STATUS_KEY_SIZE);
    struct err e = net_cert_status_key(cert, out, &found);
    assert_int_equal(found, err_ok(e) && out[0] != 0);
    X509_free(cert);
    return e.code;
}

static void a_status_key_is_there_once(void **state)
{
    (void)state;
#define HEX_62 "01020304050607080910111213141516171819202122232425262728293031"
    static const struct {
        int type;
        const char *text;
    } cases[] = {
        {V_ASN1_PRINTABLESTRING, "1"},           {V_ASN1_PRINTABLESTRING, HEX_62},
        {V_ASN1_PRINTABLESTRING, HEX_62 "3"},    {V_ASN1_PRINTABLESTRING, HEX_62 "32 "},
        {V_ASN1_PRINTABLESTRING, HEX_62 "3g"},   {V_ASN1_PRINTABLESTRING, HEX_62 "AB"},
        {V_ASN1_PRINTABLESTRING, HEX_62 "3233"}, {V_ASN1_UTF8STRING, HEX_62 "32"},
        {V_ASN1_IA5STRING, HEX_62 "32"},
    };
    uint8_t key[NET_STATUS_KEY_SIZE];
    assert_int_equal(key_of(add_nothing, key), E_OK);
    assert_int_equal(key_of(add_key, key), E_OK);
    assert_memory_equal(key, status_key, sizeof(key));
    assert_int_equal(key_of(add_key_twice, key), E_MALFORMED);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        odd.type = cases[i].type;
        odd.text = cases[i].text;
        assert_int_equal(key_of(add_odd_key, key), E_MALFORMED);
    }
    odd.type = V_ASN1_PRINTABLESTRING;
    odd.text = HEX_62 "ab";
    assert_int_equal(key_of(add_odd_key, key), E_OK);
    assert_int_equal(key[31], 0xab);
}

static enum err_code names_of(const char *san, size_t max, const char *expected)
{
    struct buf text = BUF_MAX(max);
    X509 *cert = sign_with(san, add_nothing);
    struct err e = net_cert_sans(cert, &text);
    assert_true(slice_eq(buf_slice(&text), slice_str(err_ok(e) ? expected : "")));
    buf_free(&text);
    X509_free(cert);
    return e.code;
}

static void names_come_back_as_they_were_granted(void **state)
{
    (void)state;
    assert_int_equal(names_of("URI:spiffe://a.test/node/n", 100, ""), E_OK);
    assert_int_equal(names_of("DNS:b.test,URI:spiffe://a.test/node/n,IP:192.0.2.7,DNS:*.a.test,"
                              "IP:2001:DB8::1",
                              100, "dns:b.test,ip:192.0.2.7,dns:*.a.test,ip:2001:db8::1"),
                     E_OK);
    assert_int_equal(names_of("DNS:b.test,DNS:c.test", 21, "dns:b.test,dns:c.test"), E_OK);
    assert_int_equal(names_of("DNS:b.test,DNS:c.test", 20, ""), E_TOO_LARGE);
    assert_int_equal(names_of("DNS:b.test c", 100, ""), E_MALFORMED);
}

static void what_is_signed_is_so_for_good(void **state)
{
    (void)state;
    struct certs other;
    certs_init(&other);
    const struct net_chain anchors = {.certs = {certs.ca}, .count = 1};
    const struct net_chain strangers = {.certs = {other.ca}, .count = 1};
    const struct certs_leaf over = {.san = "DNS:a.test", .valid_s = -10};
    EVP_PKEY *key = NULL;
    struct buf der = BUF_MAX(NET_CERT_DER_MAX + 1);
    X509 *cert = certs_make(&certs, &over, &key);
    const struct net_chain chain = {.certs = {cert}, .count = 1};
    assert_int_equal(net_chain_verify(&chain, &anchors).code, E_UNAUTHENTICATED);
    assert_int_equal(net_cert_is_signed(cert, &anchors).code, E_OK);
    assert_int_equal(net_cert_is_signed(cert, &strangers).code, E_UNAUTHENTICATED);
    struct net_chain back = {.count = 0};
    assert_int_equal(net_cert_write(cert, &der).code, E_OK);
    assert_int_equal(net_cert_read(buf_slice(&der), &back).code, E_OK);
    assert_int_equal(X509_cmp(back.certs[0], cert), 0);
    net_chain_free(&back);
    der.ptr[der.size - 1] ^= 1; /* of the signature. */
    assert_int_equal(net_cert_read(buf_slice(&der), &back).code, E_OK);
    assert_int_equal(net_cert_is_signed(back.certs[0], &anchors).code, E_UNAUTHENTICATED);
    net_chain_free(&back);
    for (size_t size = 0; size < der.size; size++) {
        assert_int_equal(net_cert_read(slice_head(buf_slice(&der), size), &back).code, E_MALFORMED);
    }
    assert_int_equal(buf_add_byte(&der, 0).code, E_OK);
    assert_int_equal(net_cert_read(buf_slice(&der), &back).code, E_MALFORMED);
    while (der.size <= NET_CERT_DER_MAX) {
        assert_int_equal(buf_add_byte(&der, 0).code, E_OK);
    }
    assert_int_equal(net_cert_read(buf_slice(&der), &back).code, E_TOO_LARGE);
    buf_free(&der);
    X509_free(cert);
    EVP_PKEY_free(key);
    certs_free(&other);
}

static void a_certificate_speaks_by_its_key(void **state)
{
    (void)state;
    struct read_leaf r = read_leaf();
    struct read_leaf other = read_leaf();
    struct buf signature = BUF_MAX(NET_SIGNATURE_MAX);
    X509 *cert = r.chain.certs[0];
    struct slice bytes = SLICE_LIT("statement");
    assert_int_equal(net_key_sign(r.key, bytes, &signature).code, E_OK);
    struct slice signed_ = buf_slice(&signature);
    assert_int_equal(net_cert_proves(cert, bytes, signed_).code, E_OK);
    assert_int_equal(net_cert_proves(cert, SLICE_LIT("Statement"), signed_).code,
                     E_UNAUTHENTICATED);
    assert_int_equal(net_cert_proves(other.chain.certs[0], bytes, signed_).code, E_UNAUTHENTICATED);
    for (size_t size = 0; size < signed_.size; size++) {
        assert_int_equal(net_cert_proves(cert, bytes, slice_head(signed_, size)).code,
                         E_UNAUTHENTICATED);
    }
    buf_free(&signature);
    read_leaf_free(&r);
    read_leaf_free(&other);
}

static void a_pin_is_the_keys(void **state)
{
    (void)state;
    struct read_leaf r = read_leaf();
    uint8_t leaf[NET_PIN_SIZE];
    uint8_t again[NET_PIN_SIZE];
    uint8_t ca[NET_PIN_SIZE];
    assert_int_equal(net_cert_pin(r.chain.certs[0], leaf).code, E_OK);
    assert_int_equal(net_cert_pin(certs.ca, ca).code, E_OK);
    assert_memory_not_equal(leaf, ca, NET_PIN_SIZE);
    X509 *renewed = X509_new(); /* another certificate of the same key. */
    assert_int_equal(X509_set_pubkey(renewed, r.key), 1);
    assert_int_equal(net_cert_pin(renewed, again).code, E_OK);
    assert_memory_equal(leaf, again, NET_PIN_SIZE);
    X509_free(renewed);
    read_leaf_free(&r);
}

static void what_is_no_chain_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n",
                                        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"};
    struct net_chain chain = {.count = 0};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(net_chain_read(slice_str(texts[i]), &chain).code, E_MALFORMED);
    }
    X509 *many[NET_CHAIN_MAX + 1];
    for (size_t i = 0; i < NET_CHAIN_MAX + 1; i++) {
        many[i] = certs.ca;
    }
    struct buf pem = pem_of(many, NET_CHAIN_MAX + 1);
    assert_int_equal(net_chain_read(buf_slice(&pem), &chain).code, E_TOO_LARGE);
    buf_free(&pem);
    pem = pem_of(many, NET_CHAIN_MAX);
    assert_int_equal(net_chain_read(buf_slice(&pem), &chain).code, E_OK);
    assert_int_equal(chain.count, NET_CHAIN_MAX);
    net_chain_free(&chain);
    pem.size -= 40; /* the last one is cut short. */
    assert_int_equal(net_chain_read(buf_slice(&pem), &chain).code, E_MALFORMED);
    buf_free(&pem);
}

static void a_key_comes_back_the_same(void **state)
{
    (void)state;
    auto_net_key EVP_PKEY *key = NULL;
    auto_net_key EVP_PKEY *again = NULL;
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    assert_int_equal(net_key_new(&key).code, E_OK);
    assert_int_equal(net_key_write(key, &pem).code, E_OK);
    assert_int_equal(net_key_read(buf_slice(&pem), &again).code, E_OK);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    EVP_PKEY *none = NULL;
    assert_int_equal(net_key_read(SLICE_LIT("no key"), &none).code, E_MALFORMED);
    assert_null(none);
}

static void a_request_proves_possession(void **state)
{
    (void)state;
    auto_net_key EVP_PKEY *key = NULL;
    auto_net_key EVP_PKEY *found = NULL;
    auto_buf struct buf pem = BUF_MAX(NET_CSR_MAX);
    assert_int_equal(net_key_new(&key).code, E_OK);
    assert_int_equal(net_csr_make(key, &pem).code, E_OK);
    assert_int_equal(net_csr_open(buf_slice(&pem), &found).code, E_OK);
    assert_int_equal(EVP_PKEY_eq(key, found), 1);
}

static struct buf csr_pem(X509_REQ *request)
{
    struct buf pem = BUF_MAX(NET_CSR_MAX * 2);
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes = NULL;
    assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
    long size = BIO_get_mem_data(bio, &bytes);
    assert_int_equal(buf_add(&pem, slice_of(bytes, (size_t)size)).code, E_OK);
    BIO_free(bio);
    return pem;
}

/* A request for one key that another one signed. */
static void a_stolen_key_is_refused(void **state)
{
    (void)state;
    auto_net_key EVP_PKEY *key = NULL;
    assert_int_equal(net_key_new(&key).code, E_OK);
    X509_REQ *request = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(request, certs.ca_key), 1);
    assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
    struct buf pem = csr_pem(request);
    EVP_PKEY *found = NULL;
    assert_int_equal(net_csr_open(buf_slice(&pem), &found).code, E_UNAUTHENTICATED);
    buf_free(&pem);
    X509_REQ_free(request);
}

static void keys_of_other_kinds_are_refused(void **state)
{
    (void)state;
    EVP_PKEY *keys[] = {EVP_RSA_gen(1024), EVP_EC_gen("secp256k1"), EVP_EC_gen("P-521")};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct buf pem = BUF_MAX(NET_CSR_MAX);
        EVP_PKEY *found = NULL;
        assert_non_null(keys[i]);
        assert_int_equal(net_csr_make(keys[i], &pem).code, E_OK);
        assert_int_equal(net_csr_open(buf_slice(&pem), &found).code, E_UNSUPPORTED);
        buf_free(&pem);
        EVP_PKEY_free(keys[i]);
    }
}

static void what_is_no_request_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *found = NULL;
    char large[NET_CSR_MAX + 1];
    memset(large, 'A', sizeof(large));
    assert_int_equal(net_csr_open(slice_str(""), &found).code, E_MALFORMED);
    assert_int_equal(net_csr_open(SLICE_LIT("csr"), &found).code, E_MALFORMED);
    assert_int_equal(net_csr_open(slice_of(large, sizeof(large)), &found).code, E_TOO_LARGE);
    /* One that would ask for a passphrase. */
    assert_int_equal(net_csr_open(SLICE_LIT("-----BEGIN CERTIFICATE REQUEST-----\n"
                                            "Proc-Type: 4,ENCRYPTED\n"
                                            "DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF"
                                            "\n\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
                                  &found)
                         .code,
                     E_MALFORMED);
    assert_null(found);
}

int main(void)
{
    ids_init();
    certs_init(&certs);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_leads_to_its_anchor_alone),
        cmocka_unit_test(times_and_serial_are_read),
        cmocka_unit_test(labels_are_the_units_of_the_subject),
        cmocka_unit_test(a_status_key_is_there_once),
        cmocka_unit_test(names_come_back_as_they_were_granted),
        cmocka_unit_test(what_is_signed_is_so_for_good),
        cmocka_unit_test(a_certificate_speaks_by_its_key),
        cmocka_unit_test(a_pin_is_the_keys),
        cmocka_unit_test(what_is_no_chain_is_refused),
        cmocka_unit_test(a_key_comes_back_the_same),
        cmocka_unit_test(a_request_proves_possession),
        cmocka_unit_test(a_stolen_key_is_refused),
        cmocka_unit_test(keys_of_other_kinds_are_refused),
        cmocka_unit_test(what_is_no_request_is_refused),
    };
    int failed = cmocka_run_group_tests_name("net.cert", tests, NULL, NULL);
    certs_free(&certs);
    return failed;
}
