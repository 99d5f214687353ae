/* tls_impl: what tls.c shows to conn_tls.c. */
#pragma once

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "common/net/tls.h"

struct net_tls {
    SSL_CTX *context;
    atomic_uint references;
    bool server;
    bool h2_only;
    bool http1_only;
};
