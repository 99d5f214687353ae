/* tls_impl: what tls.c shows to conn_tls.c. */
#pragma once

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "common/net/cert.h"
#include "common/net/tls.h"

/* SHA-256 of a certificate. */
enum { NET_TLS_DIGEST = 32 };

/* CAs that vouch for the SPIFFE ids of a trust domain alone. */
struct net_tls_bound {
    char *domain;         /* owned. */
    STACK_OF(X509) * cas; /* owned; each once. */
};

struct net_tls_trust {
    X509_STORE *store;           /* of the file's; OpenSSL guards it: contexts of all threads share
                                    it. */
    STACK_OF(X509_NAME) * names; /* of all CAs; NULL: of the system's. */
    struct net_tls_bound *bound; /* owned; NULL: every CA vouches for everybody. */
    size_t bound_count;
    STACK_OF(X509) * open; /* owned: CAs of the file. Only where something is bound. */
    atomic_uint references;
};

/* Adds bundles to the CAs that were read. */
MUST_CHECK struct err net_tls_trust_bind(struct net_tls_trust *trust,
                                         const struct net_tls_bundle *bundles, size_t count);
void net_tls_trust_unbind(struct net_tls_trust *trust);

/* Mixes into a digest who vouches for which domain. E_CRYPTO. */
MUST_CHECK struct err net_tls_trust_digest(const struct net_tls_trust *trust,
                                           uint8_t out[NET_TLS_DIGEST]);

/* Has a leaf be verified by those CAs alone that may vouch for it. False: none may. */
bool net_tls_trust_choose(const struct net_tls_trust *trust, X509_STORE_CTX *verify);

/* ---- tls_ticket.c ---- */

/* Has a server judge the sessions that are shown to it. E_CRYPTO. */
MUST_CHECK struct err net_tls_judge_tickets(SSL_CTX *context);

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
