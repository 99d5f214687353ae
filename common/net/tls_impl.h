/* tls_impl: what tls.c shows to conn_tls.c. */
#pragma once

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "common/net/cert.h"
#include "common/net/tls.h"

/* SHA-256 of a certificate. */
enum { NET_TLS_DIGEST = 32 };
struct net_tls_print {
    uint8_t bytes[NET_TLS_DIGEST];
};

/* CAs that vouch for the SPIFFE ids of a trust domain alone. */
struct net_tls_bound {
    char *domain; /* owned. */
    struct net_tls_print cas[NET_CHAIN_MAX];
    size_t ca_count;
};

struct net_tls_trust {
    X509_STORE *store;           /* OpenSSL guards it: contexts of all threads share it. */
    STACK_OF(X509_NAME) * names; /* of its CAs; NULL: of the system's. */
    struct net_tls_bound *bound; /* owned; NULL: every CA vouches for everybody. */
    size_t bound_count;
    struct net_tls_print *open; /* owned: CAs of the file. Only where something is bound. */
    size_t open_count;
    atomic_uint references;
};

/* Adds bundles to the CAs that were read. */
MUST_CHECK struct err net_tls_trust_bind(struct net_tls_trust *trust,
                                         const struct net_tls_bundle *bundles, size_t count);
void net_tls_trust_unbind(struct net_tls_trust *trust);

/* Mixes into a digest who vouches for which domain. E_CRYPTO. */
MUST_CHECK struct err net_tls_trust_digest(const struct net_tls_trust *trust,
                                           uint8_t out[NET_TLS_DIGEST]);

/* Whether the CA that a verified chain leads to may vouch for its leaf. */
bool net_tls_trust_holds(const struct net_tls_trust *trust, X509_STORE_CTX *verified);

struct net_tls {
    SSL_CTX *context;
    struct net_tls_trust *trust; /* a reference; NULL: it asks for no certificate. */
    uint8_t
        trust_digest[NET_TLS_DIGEST]; /* of the CAs that peers are verified against; zero: none. */
    atomic_uint references;
    bool server;
    bool h2_only;
    bool http1_only;
};
