/* cert: see cert.h. */
#include "common/net/cert.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/text.h"

enum { SERIAL_BYTES_MAX = (NET_SERIAL_SIZE - 1) / 2 };

static struct err crypto_failure(enum err_code code)
{
    ERR_clear_error();
    return FAIL(code);
}

/* ---- chains ---- */

/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's type of it. */
int net_no_passphrase(char *out, int size, int writes, void *ctx)
{
    (void)out;
    (void)size;
    (void)writes;
    (void)ctx;
    return -1;
}

static struct err read_all(BIO *bio, struct net_chain *chain)
{
    for (;;) { /* until the bytes end, or there are too many. */
        X509 *cert = PEM_read_bio_X509(bio, NULL, net_no_passphrase, NULL);
        if (cert == NULL) {
            bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
            ERR_clear_error();
            return end && chain->count > 0 ? OK : FAIL(E_MALFORMED);
        }
        if (chain->count == NET_CHAIN_MAX) {
            X509_free(cert);
            return FAIL(E_TOO_LARGE);
        }
        chain->certs[chain->count++] = cert;
    }
}

struct err net_chain_read(struct slice pem, struct net_chain *out)
{
    if (pem.size == 0 || pem.size > NET_CHAIN_BYTES_MAX) {
        return FAIL(pem.size == 0 ? E_MALFORMED : E_TOO_LARGE);
    }
    auto_chain struct net_chain chain = {.count = 0};
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.size);
    if (bio == NULL) {
        return crypto_failure(E_NO_MEMORY);
    }
    struct err e = read_all(bio, &chain);
    BIO_free(bio);
    TRY(e);
    *out = chain;
    chain.count = 0;
    return OK;
}

void net_chain_free(struct net_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        X509_free(chain->certs[i]);
    }
    chain->count = 0;
}

static struct err verify(X509_STORE_CTX *ctx, X509_STORE *store, STACK_OF(X509) * between,
                         const struct net_chain *chain, const struct net_chain *anchors,
                         unsigned long flags)
{
    for (size_t i = 0; i < anchors->count; i++) {
        if (X509_STORE_add_cert(store, anchors->certs[i]) != 1) {
            return FAIL(E_CRYPTO);
        }
    }
    for (size_t i = 1; i < chain->count; i++) {
        if (sk_X509_push(between, chain->certs[i]) == 0) {
            return FAIL(E_NO_MEMORY);
        }
    }
    if (X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | flags) != 1 ||
        X509_STORE_CTX_init(ctx, store, chain->certs[0], between) != 1) {
        return FAIL(E_CRYPTO);
    }
    return X509_verify_cert(ctx) == 1 ? OK : FAIL(E_UNAUTHENTICATED);
}

static struct err verify_chain(const struct net_chain *chain, const struct net_chain *anchors,
                               unsigned long flags)
{
    CHECK(chain->count > 0);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *between = sk_X509_new_null();
    struct err e = FAIL(E_NO_MEMORY);
    if (store != NULL && ctx != NULL && between != NULL) {
        e = verify(ctx, store, between, chain, anchors, flags);
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    sk_X509_free(between); /* the certificates are the chain's. */
    ERR_clear_error();
    return e;
}

struct err net_chain_verify(const struct net_chain *chain, const struct net_chain *anchors)
{
    return verify_chain(chain, anchors, 0);
}

/* ---- one certificate ---- */

struct err net_cert_read(struct slice der, struct net_chain *out)
{
    if (der.size == 0 || der.size > NET_CERT_DER_MAX) {
        return FAIL(der.size == 0 ? E_MALFORMED : E_TOO_LARGE);
    }
    const unsigned char *at = der.ptr;
    X509 *cert = d2i_X509(NULL, &at, (long)der.size);
    if (cert == NULL || at != der.ptr + der.size) {
        X509_free(cert);
        return crypto_failure(E_MALFORMED);
    }
    *out = (struct net_chain){.certs = {cert}, .count = 1};
    return OK;
}

struct err net_cert_write(const struct x509_st *cert, struct buf *out)
{
    unsigned char *der = NULL;
    int size = i2d_X509(cert, &der);
    if (size <= 0) {
        return crypto_failure(E_CRYPTO);
    }
    struct err e = buf_add(out, slice_of(der, (size_t)size));
    OPENSSL_free(der);
    return e;
}

struct err net_cert_is_signed(struct x509_st *cert, const struct net_chain *anchors)
{
    const struct net_chain chain = {.certs = {cert}, .count = 1};
    return verify_chain(&chain, anchors, X509_V_FLAG_NO_CHECK_TIME);
}

bool net_cert_is_for(const struct x509_st *cert, const struct evp_pkey_st *key)
{
    bool is = X509_check_private_key(cert, key) == 1;
    ERR_clear_error();
    return is;
}

void net_cert_serial(const struct x509_st *cert, char out[NET_SERIAL_SIZE])
{
    uint8_t bytes[SERIAL_BYTES_MAX];
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    int size = number == NULL ? -1 : BN_num_bytes(number);
    out[0] = '\0';
    if (size > 0 && size <= SERIAL_BYTES_MAX) {
        text_hex(slice_of(bytes, (size_t)BN_bn2bin(number, bytes)), out);
    }
    BN_free(number);
    ERR_clear_error();
}

uint64_t net_serial_count(const char *serial)
{
    uint8_t bytes[NET_SERIAL_BYTES];
    uint64_t count = 0;
    if (!err_ok(text_unhex(slice_str(serial), bytes, sizeof(bytes))) ||
        bytes[0] != NET_SERIAL_FIRST) {
        return 0;
    }
    for (size_t i = 0; i < NET_SERIAL_COUNT_BITS / 8; i++) {
        count = count << 8 | bytes[1 + i];
    }
    return count;
}

struct err net_cert_times(const struct x509_st *cert, struct net_cert_times *out)
{
    struct tm from = {0};
    struct tm to = {0};
    if (ASN1_TIME_to_tm(X509_get0_notBefore(cert), &from) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(cert), &to) != 1) {
        return crypto_failure(E_MALFORMED);
    }
    *out = (struct net_cert_times){.made_s = timegm(&from) + NET_CERT_EARLIER_S,
                                   .ends_s = timegm(&to)};
    return OK;
}

static struct err add_unit(const X509_NAME_ENTRY *entry, struct buf *out)
{
    unsigned char *text = NULL;
    int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry));
    if (size < 0) {
        return crypto_failure(E_MALFORMED);
    }
    struct slice unit = slice_of(text, (size_t)size);
    struct err e = OK;
    if (slice_find(unit, '=') < unit.size) {
        e = out->size == 0 ? OK : buf_add_byte(out, ',');
        e = err_ok(e) ? buf_add(out, unit) : e;
    }
    OPENSSL_free(text);
    return e;
}

struct err net_cert_labels(const struct x509_st *cert, struct buf *out)
{
    auto_buf struct buf labels = BUF_MAX(out->max - out->size);
    const X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_organizationalUnitName, -1);
    while (at >= 0) {
        TRY(add_unit(X509_NAME_get_entry(subject, at), &labels));
        at = X509_NAME_get_index_by_NID(subject, NID_organizationalUnitName, at);
    }
    return buf_add(out, buf_slice(&labels));
}

struct err net_cert_add_label(struct x509_st *cert, struct slice label)
{
    int added =
        X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_organizationalUnitName,
                                   MBSTRING_UTF8, label.ptr, (int)label.size, -1, /* set= */ 0);
    return added == 1 ? OK : crypto_failure(E_CRYPTO);
}

struct err net_cert_pin(const struct x509_st *cert, uint8_t out[NET_PIN_SIZE])
{
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (size <= 0) {
        return crypto_failure(E_CRYPTO);
    }
    unsigned digest_size = 0;
    int done = EVP_Digest(der, (size_t)size, out, &digest_size, EVP_sha256(), NULL);
    OPENSSL_free(der);
    return done == 1 && digest_size == NET_PIN_SIZE ? OK : crypto_failure(E_CRYPTO);
}

/* ---- names ---- */

/* Nothing that an item, or the end of a text, begins with. */
static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f || s.ptr[i] == ',') {
            return false;
        }
    }
    return s.size > 0;
}

static struct err add_address(const ASN1_OCTET_STRING *address, struct buf *out)
{
    char text[INET6_ADDRSTRLEN];
    int size = ASN1_STRING_length(address);
    int family = size == 4 ? AF_INET : AF_INET6;
    if ((size != 4 && size != 16) ||
        inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof(text)) == NULL) {
        return FAIL(E_MALFORMED);
    }
    return buf_addf(out, "ip:%s", text);
}

static struct err add_name(const GENERAL_NAME *name, struct buf *out)
{
    int type = 0;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    if (type != GEN_DNS && type != GEN_IPADD) {
        return OK;
    }
    if (out->size > 0) {
        TRY(buf_add_byte(out, ','));
    }
    if (type == GEN_IPADD) {
        return add_address(value, out);
    }
    struct slice text = slice_of(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
    return is_name(text) ? buf_addf(out, "dns:%.*s", SLICE_ARG(text)) : FAIL(E_MALFORMED);
}

struct err net_cert_sans(const struct x509_st *cert, struct buf *out)
{
    auto_buf struct buf text = BUF_MAX(out->max - out->size);
    int critical = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
    /* -1: no such extension; anything else below zero: twice, or not decodable. */
    struct err e = names == NULL && critical != -1 ? crypto_failure(E_MALFORMED) : OK;
    for (int i = 0; err_ok(e) && i < sk_GENERAL_NAME_num(names); i++) {
        e = add_name(sk_GENERAL_NAME_value(names, i), &text);
    }
    GENERAL_NAMES_free(names);
    TRY(e);
    return buf_add(out, buf_slice(&text));
}

/* ---- the status key ---- */

static struct err read_status_key(const X509_NAME_ENTRY *entry, uint8_t *out)
{
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
    struct slice text = slice_of(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
    uint8_t key[NET_STATUS_KEY_SIZE];
    char again[2 * NET_STATUS_KEY_SIZE + 1];
    if (ASN1_STRING_type(value) != V_ASN1_PRINTABLESTRING) {
        return FAIL(E_MALFORMED);
    }
    TRY(text_unhex(text, key, sizeof(key)));
    text_hex(slice_of(key, sizeof(key)), again);
    if (!slice_eq(text, slice_str(again))) { /* one text for one key. */
        return FAIL(E_MALFORMED);
    }
    (void)memcpy(out, key, sizeof(key));
    return OK;
}

struct err net_cert_status_key(const struct x509_st *cert, uint8_t out[NET_STATUS_KEY_SIZE],
                               bool *found)
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_serialNumber, -1);
    if (at >= 0 && X509_NAME_get_index_by_NID(subject, NID_serialNumber, at) >= 0) {
        return FAIL(E_MALFORMED);
    }
    if (at >= 0) {
        TRY(read_status_key(X509_NAME_get_entry(subject, at), out));
    }
    *found = at >= 0;
    return OK;
}

struct err net_cert_add_status_key(struct x509_st *cert, const uint8_t key[NET_STATUS_KEY_SIZE])
{
    char text[2 * NET_STATUS_KEY_SIZE + 1];
    text_hex(slice_of(key, NET_STATUS_KEY_SIZE), text);
    int added = X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_serialNumber,
                                           MBSTRING_ASC, (const unsigned char *)text, -1, -1,
                                           /* set= */ 0);
    return added == 1 ? OK : crypto_failure(E_CRYPTO);
}
