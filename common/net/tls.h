/*
 * tls: contexts of OpenSSL, and who the peer proved to be.
 *
 * Shape      struct net_tls is one SSL_CTX made from files; a reload makes a new one, and open
 *            connections keep the old. Make one a worker: OpenSSL 3 counts references atomically.
 * Ownership  reference counted; a connection holds what it needs. Slices of an identity live as
 *            long as the identity.
 * Threads    ref and unref, and all of a trust, on any thread; else each context on one thread.
 * Errors     E_NOT_FOUND (a file), E_CRYPTO (key, certificate), E_UNAUTHENTICATED (the peer).
 * Source     RFC 8446, RFC 9525; SPIFFE ID and X.509-SVID specifications.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct net_tls;
struct net_tls_trust;
struct x509_st;

enum net_tls_client_cert {
    NET_TLS_CLIENT_CERT_NONE,     /* the server asks for none. */
    NET_TLS_CLIENT_CERT_OPTIONAL, /* asked for; one that is given must verify. */
    NET_TLS_CLIENT_CERT_REQUIRED, /* no handshake without one. */
};

/* Versions of the protocol that somebody can ask for. */
enum net_tls_version {
    NET_TLS_ANY,     /* whichever both sides have: 1.2 at least, always. */
    NET_TLS_1_2 = 2, /* RFC 5246. */
    NET_TLS_1_3 = 3, /* RFC 8446. */
};

/* What one connection must be, beyond what its context asks for. Zeroed: nothing. */
struct net_tls_terms {
    enum net_tls_version version_min;
    enum net_tls_version version_max; /* not below the least. */
    bool client_cert;                 /* of a server: nobody without a certificate that verifies. */
};

struct net_tls_options {
    const char *cert_file;                /* PEM chain, leaf first; client: NULL for none. */
    const char *key_file;                 /* PEM; NULL when it is in cert_file or there is none. */
    struct net_tls *own;                  /* of any thread: what it read of these two is taken in
                                             their place; NULL: they are read. */
    const char *ca_file;                  /* PEM bundle that peers are verified against; NULL: a
                                             client takes the system's, a server asks for none. */
    struct net_tls_trust *trust;          /* the same, read before, to be shared; it goes first. */
    enum net_tls_client_cert client_cert; /* servers only. */
    bool http1_only;                      /* ALPN offers http/1.1 alone; else h2, http/1.1. */
    bool h2_only;                         /* ALPN offers h2 alone; a peer without it is refused. */
};

/* Makes a context from files. TLS 1.2 and 1.3 only. */
MUST_CHECK struct err net_tls_server_new(const struct net_tls_options *o, struct net_tls **out);
MUST_CHECK struct err net_tls_client_new(const struct net_tls_options *o, struct net_tls **out);

/*
 * CAs that peers are verified against, read once and shared by contexts of any thread. Reference
 * counted; a context keeps what it needs. E_NOT_FOUND, E_CRYPTO.
 */
MUST_CHECK struct err net_tls_trust_new(const char *ca_file, struct net_tls_trust **out);

/* The CAs of a trust domain, in PEM: at most NET_CHAIN_MAX of them. */
struct net_tls_bundle {
    struct slice trust_domain;
    struct slice ca;
};

/*
 * The same with bundles. A SPIFFE id of a domain that has one is taken only from a certificate of
 * its CAs; those vouch for nothing else, no other domain and no DNS name, unless the file has them,
 * too. 'ca_file' may be NULL. E_NOT_FOUND, E_CRYPTO.
 */
MUST_CHECK struct err net_tls_trust_bound_new(const char *ca_file,
                                              const struct net_tls_bundle *bundles, size_t count,
                                              struct net_tls_trust **out);

/* Accepts NULL. */
void net_tls_trust_unref(struct net_tls_trust *trust);

/*
 * Reads the system's CAs, unless they were read in this process: they stay. A client's context
 * without CAs of its own does the same; whoever may not wait for it (a fifth of a second where
 * they lie in one file) has it done here, before, on another thread.
 */
void net_tls_trust_system_load(void);

struct net_tls *net_tls_ref(struct net_tls *tls);

/* Accepts NULL. */
void net_tls_unref(struct net_tls *tls);

/* Whether two contexts verify peers against the same CAs, bound to the same domains. */
bool net_tls_same_trust(const struct net_tls *a, const struct net_tls *b);

/* Whether it has CAs to verify a peer's certificate against. */
bool net_tls_verifies(const struct net_tls *tls);

/* Longest SPIFFE id (SPIFFE ID 2.3), and most SANs of one kind that are kept: a certificate may
 * have more, as those of content networks do. */
enum { NET_SPIFFE_MAX = 2048, NET_IDENTITY_NAMES_MAX = 32 };

/* A SPIFFE id, taken apart. */
struct net_spiffe {
    struct slice trust_domain;
    struct slice path; /* starts with '/'. */
};

/*
 * Reads "spiffe://trust-domain/path": at most NET_SPIFFE_MAX bytes; the scheme in lower case, as it
 * is compared; trust domain of [a-z0-9._-], no user, no port; path not empty, of segments of
 * [A-Za-z0-9._-] that are neither empty, "." nor ".."; no query, no fragment. E_MALFORMED. 'out'
 * borrows from 'uri'.
 */
MUST_CHECK struct err net_spiffe_parse(struct slice uri, struct net_spiffe *out);

/* What a verified certificate says of its holder. */
struct net_identity {
    struct slice spiffe_id; /* empty unless the certificate is a valid X.509-SVID leaf. */
    struct net_spiffe spiffe;
    struct slice uris[NET_IDENTITY_NAMES_MAX]; /* URI SANs in their order. */
    size_t uri_count;
    struct slice dns_names[NET_IDENTITY_NAMES_MAX]; /* DNS SANs in their order. */
    size_t dns_name_count;
    struct slice serial;     /* lower-case hex, two digits a byte, no zero bytes in front. */
    uint8_t fingerprint[32]; /* SHA-256 of the certificate's DER. */
    int64_t expires_s;       /* notAfter, seconds since the epoch. */
};

/*
 * Reads a certificate whose chain was verified; the caller frees with net_identity_free().
 * E_MALFORMED for SANs with a NUL.
 */
MUST_CHECK struct err net_identity_new(struct x509_st *cert, struct net_identity **out);
void net_identity_free(struct net_identity *identity);
