/* csr: see csr.h. */
#include "common/net/csr.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

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
        bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
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
        bio == NULL ? NULL : PEM_read_bio_X509_REQ(bio, NULL, no_passphrase, NULL);
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
