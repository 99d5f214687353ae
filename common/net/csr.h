/*
 * csr: keys of certificates, what they sign, and the request for one, which proves possession of
 *      its key.
 *
 * Shape      ECDSA over P-256 is made; P-256 and P-384 are taken. A request says nothing but its
 *            key: whoever issues decides what stands in the certificate.
 * Ownership  the caller frees a key by net_key_free(). A key's PEM is a secret: wipe its buf.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED for bytes that are none, E_UNSUPPORTED for a key of another kind,
 *            E_UNAUTHENTICATED for a request that its key did not sign, E_CRYPTO.
 * Source     RFC 2986 (PKCS #10), RFC 5958 (the key's file).
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct evp_pkey_st;
struct x509_st;

enum { NET_CSR_MAX = 4096, NET_KEY_PEM_MAX = 4096 };

MUST_CHECK struct err net_key_new(struct evp_pkey_st **out);
/* Accepts a pointer to NULL. */
void net_key_free(struct evp_pkey_st **key);
#define auto_net_key __attribute__((cleanup(net_key_free)))

MUST_CHECK struct err net_key_write(const struct evp_pkey_st *key, struct buf *out_pem);
MUST_CHECK struct err net_key_read(struct slice pem, struct evp_pkey_st **out);

/* A public key as it is handed to who must parse nothing: a curve and a point of it. */
enum { NET_POINT_MAX = 97 };
struct net_point {
    uint32_t bits; /* 256: P-256; 384: P-384. */
    uint32_t size;
    uint8_t bytes[NET_POINT_MAX]; /* SEC 1, 2.3.3. */
};
MUST_CHECK struct err net_key_point(const struct evp_pkey_st *key, struct net_point *out);
/* E_UNSUPPORTED for another curve, E_MALFORMED for bytes that are no point of it. */
MUST_CHECK struct err net_key_of_point(const struct net_point *point, struct evp_pkey_st **out);

/* Signs bytes by such a key, ECDSA over SHA-256; appends the signature in DER. */
enum { NET_SIGNATURE_MAX = 112 };
MUST_CHECK struct err net_key_sign(struct evp_pkey_st *key, struct slice bytes, struct buf *out);
/* Whether a certificate's key signed them. E_UNAUTHENTICATED, E_UNSUPPORTED. */
MUST_CHECK struct err net_cert_proves(const struct x509_st *cert, struct slice bytes,
                                      struct slice signature);

/* Appends a request in PEM. */
MUST_CHECK struct err net_csr_make(struct evp_pkey_st *key, struct buf *out_pem);

/* Reads one, at most NET_CSR_MAX bytes, and asks for its signature: *out is its public key. */
MUST_CHECK struct err net_csr_open(struct slice pem, struct evp_pkey_st **out);
