/* tls_impl: what tls.c shows to conn_tls.c. */
#pragma once

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "common/net/tls.h"

struct net_tls_trust {
    X509_STORE *store;           /* OpenSSL guards it: contexts of all threads share it. */
    STACK_OF(X509_NAME) * names; /* of its CAs; NULL: of the system's. */
    atomic_uint references;
};

struct net_tls {
    SSL_CTX *context;
    uint8_t trust_digest[32]; /* of the CAs that peers are verified against; zero: none. */
    atomic_uint references;
    bool server;
    bool h2_only;
    bool http1_only;
};
