/* csr: see csr.h. */
#include "common/net/csr.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include "common/net/cert.h"

static struct err crypto_failure(enum err_code code)
{
    ERR_clear_error();
    return FAIL(code);
}

static void free_bio(BIO **bio)
{
    BIO_free(*bio);
}
static void free_request(X509_REQ **request)
{
    X509_REQ_free(*request);
}
#define auto_bio __attribute__((cleanup(free_bio)))
#define auto_request __attribute__((cleanup(free_request)))

static struct err take_bytes(BIO *bio, struct buf *out)
{
    char *bytes = NULL;
    long size = BIO_get_mem_data(bio, &bytes);
    return size > 0 ? buf_add(out, slice_of(bytes, (size_t)size)) : FAIL(E_CRYPTO);
}

/* ---- keys ---- */

struct err net_key_new(struct evp_pkey_st **out)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (key == NULL) {
        return crypto_failure(E_CRYPTO);
    }
    *out = key;
    return OK;
}

void net_key_free(struct evp_pkey_st **key)
{
    EVP_PKEY_free(*key);
    *key = NULL;
}

struct err net_key_write(const struct evp_pkey_st *key, struct buf *out_pem)
{
    auto_bio BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when it is freed. */
    if (bio == NULL ||
        PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, /* cb= */ NULL, NULL) != 1) {
        return crypto_failure(E_CRYPTO);
    }
    return take_bytes(bio, out_pem);
}

/* A key of another kind is refused before anything is done with it: what it costs to use one is
 * the sender's choice. */
static bool is_our_kind(EVP_PKEY *key)
{
    char group[32] = "";
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0);
}

struct err net_key_read(struct slice pem, struct evp_pkey_st **out)
{
    auto_bio BIO *bio = pem.size > NET_KEY_PEM_MAX ? NULL : BIO_new_mem_buf(pem.ptr, (int)pem.size);
    auto_net_key EVP_PKEY *key =
        bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, net_no_passphrase, NULL);
    if (key == NULL) {
        return crypto_failure(E_MALFORMED);
    }
    if (!is_our_kind(key)) {
        return crypto_failure(E_UNSUPPORTED);
    }
    *out = key;
    key = NULL;
    return OK;
}

/* ---- signatures ---- */

struct err net_key_sign(struct evp_pkey_st *key, struct slice bytes, struct buf *out)
{
    uint8_t signature[NET_SIGNATURE_MAX];
    size_t size = sizeof(signature);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool fine = ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestSign(ctx, signature, &size, bytes.ptr, bytes.size) == 1;
    EVP_MD_CTX_free(ctx);
    return fine ? buf_add(out, slice_of(signature, size)) : crypto_failure(E_CRYPTO);
}

struct err net_cert_proves(const struct x509_st *cert, struct slice bytes, struct slice signature)
{
    EVP_PKEY *key = X509_get0_pubkey(cert);
    if (key == NULL || !is_our_kind(key)) {
        return crypto_failure(E_UNSUPPORTED);
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool fine = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(ctx, signature.ptr, signature.size, bytes.ptr, bytes.size) == 1;
    EVP_MD_CTX_free(ctx);
    return fine ? OK : crypto_failure(E_UNAUTHENTICATED);
}

/* ---- points ---- */

struct err net_key_point(const struct evp_pkey_st *key, struct net_point *out)
{
    struct net_point point = {.bits = (uint32_t)EVP_PKEY_get_bits(key)};
    size_t size = 0;
    if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point.bytes,
                                        sizeof(point.bytes), &size) != 1) {
        return crypto_failure(E_UNSUPPORTED);
    }
    point.size = (uint32_t)size;
    *out = point;
    return OK;
}

static EVP_PKEY *make_public(const char *group, const struct net_point *point)
{
    /* What OSSL_PARAM takes as char * and void *, it only reads. */
    union {
        const void *in;
        void *out;
    } bytes = {point->bytes}, name = {group};
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name.out, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, bytes.out, point->size),
        OSSL_PARAM_construct_end()};
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    bool fine = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
                EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) == 1;
    EVP_PKEY_CTX_free(ctx);
    return fine ? key : NULL;
}

struct err net_key_of_point(const struct net_point *point, struct evp_pkey_st **out)
{
    const char *group = point->bits == 256 ? "prime256v1" : point->bits == 384 ? "secp384r1" : NULL;
    if (group == NULL) {
        return FAIL(E_UNSUPPORTED);
    }
    uint32_t number = point->bits / 8;
    if (point->size != 1 + number && point->size != 1 + 2 * number) { /* compressed, or not. */
        return FAIL(E_MALFORMED);
    }
    EVP_PKEY *key = make_public(group, point);
    if (key == NULL) {
        return crypto_failure(E_MALFORMED);
    }
    *out = key;
    return OK;
}

/* ---- requests ---- */

struct err net_csr_make(struct evp_pkey_st *key, struct buf *out_pem)
{
    auto_request X509_REQ *request = X509_REQ_new();
    auto_bio BIO *bio = BIO_new(BIO_s_mem());
    if (request == NULL || bio == NULL || X509_REQ_set_pubkey(request, key) != 1 ||
        X509_REQ_sign(request, key, EVP_sha256()) <= 0 ||
        PEM_write_bio_X509_REQ(bio, request) != 1) {
        return crypto_failure(E_CRYPTO);
    }
    return take_bytes(bio, out_pem);
}

struct err net_csr_open(struct slice pem, struct evp_pkey_st **out)
{
    if (pem.size == 0 || pem.size > NET_CSR_MAX) {
        return FAIL(pem.size == 0 ? E_MALFORMED : E_TOO_LARGE);
    }
    auto_bio BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.size);
    auto_request X509_REQ *request =
        bio == NULL ? NULL : PEM_read_bio_X509_REQ(bio, NULL, net_no_passphrase, NULL);
    EVP_PKEY *key = request == NULL ? NULL : X509_REQ_get0_pubkey(request);
    if (key == NULL) {
        return crypto_failure(E_MALFORMED);
    }
    if (!is_our_kind(key)) {
        return crypto_failure(E_UNSUPPORTED);
    }
    if (X509_REQ_verify(request, key) != 1) {
        return crypto_failure(E_UNAUTHENTICATED);
    }
    (void)EVP_PKEY_up_ref(key);
    *out = key;
    return OK;
}
