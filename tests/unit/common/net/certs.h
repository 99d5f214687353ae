/*
 * certs: certificates made for a test, in a directory of its own.
 *
 * Shape      one CA and leaves that it signs, P-256, written as PEM files.
 * Ownership  certs_free() removes the directory.
 * Threads    one test's thread.
 */
#pragma once

#include <stdbool.h>

struct certs {
    char dir[64];
    char ca_file[96];
    struct evp_pkey_st *ca_key;
    struct x509_st *ca;
    long serial;
};

struct certs_leaf {
    const char *san;       /* as OpenSSL's config writes it: "URI:spiffe://…,DNS:localhost". */
    bool is_ca;            /* basicConstraints CA:TRUE. */
    int valid_s;           /* lifetime from now; negative: expired already. */
    const char *key_usage; /* NULL: "digitalSignature". */
    const char *name;      /* its common name; NULL: "leaf". */
};

/* A certificate and its key in one PEM file. */
struct certs_file {
    char path[96];
};

void certs_init(struct certs *c);
/* With a name of its own: of two CAs with one name in a store OpenSSL tries the first alone. */
void certs_init_named(struct certs *c, const char *name);
void certs_free(struct certs *c);

/* Makes dir/NAME.pem. Aborts when anything fails. */
struct certs_file certs_issue(struct certs *c, const char *name, const struct certs_leaf *leaf);

/* The same, its key under a passphrase. */
struct certs_file certs_issue_locked(struct certs *c, const char *name,
                                     const struct certs_leaf *leaf);

/* The same certificate, in memory; the caller frees it with X509_free(). */
struct x509_st *certs_make(struct certs *c, const struct certs_leaf *leaf,
                           struct evp_pkey_st **out_key);
