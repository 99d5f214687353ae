/* cert: see cert.h. */
#include "common/net/cert.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
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

/* Nobody is asked for a passphrase: without this OpenSSL would, on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's type of it. */
static int no_passphrase(char *out, int size, int writes, void *ctx)
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
        X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
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
                         const struct net_chain *chain, const struct net_chain *anchors)
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
    if (X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) != 1 ||
        X509_STORE_CTX_init(ctx, store, chain->certs[0], between) != 1) {
        return FAIL(E_CRYPTO);
    }
    return X509_verify_cert(ctx) == 1 ? OK : FAIL(E_UNAUTHENTICATED);
}

struct err net_chain_verify(const struct net_chain *chain, const struct net_chain *anchors)
{
    CHECK(chain->count > 0);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *between = sk_X509_new_null();
    struct err e = FAIL(E_NO_MEMORY);
    if (store != NULL && ctx != NULL && between != NULL) {
        e = verify(ctx, store, between, chain, anchors);
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    sk_X509_free(between); /* the certificates are the chain's. */
    ERR_clear_error();
    return e;
}

/* ---- one certificate ---- */

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
