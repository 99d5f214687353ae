/*
 * registrar: lets nodes in, renews their certificates, and removes them.
 *
 * Shape      one object a replica; whatever must hold on all replicas is in the store.
 * Units      milliseconds.
 * Ownership  cp_registrar_new() gives what cp_registrar_free() ends; its options are borrowed.
 *            An admission is the caller's: cp_admission_free().
 * Threads    one thread works with it; cp_registrar_counters() and cp_registrar_passports() from
 *            any.
 * Errors     those of attest.h and ca.h; E_UNAUTHENTICATED for a renewal that the node's status key
 *            did not sign, E_CERTIFICATE_MISSING for one of a node whose row has no certificate of
 *            ours and that did not send it either, E_NODE_REMOVED, E_CLOCK_SKEW,
 *            E_RENEWAL_REPLAYED; E_UNSUPPORTED without a CA. 'message' (may stay empty) gets one
 *            sentence.
 * Source     docs/control-plane.md, "Joining".
 */
#pragma once

#include "controlplane/identity/attest.h"
#include "controlplane/identity/certifier.h"
#include "controlplane/identity/vouch.h"

enum { CP_TOKEN_TTL_MIN_S = 1, CP_TOKEN_TTL_MAX_S = 30 * 86400 };

struct cp_registrar;

struct cp_registrar_options {
    const char *environment;
    struct cp_certifier *certifier; /* NULL: nobody joins here. */
    const char *tls_cert; /* chain of the API's certificate, which tokens pin; NULL: none. */
    const struct cp_attestor *attestor;
    const uint8_t *vouch_key; /* CP_VOUCH_KEY_SIZE bytes. */
};

MUST_CHECK struct err cp_registrar_new(const struct cp_registrar_options *options,
                                       struct cp_registrar **out);
/* Accepts NULL. */
void cp_registrar_free(struct cp_registrar *r);

#define CP_REGISTRAR_COUNTERS(X)                                                                   \
    X(invited, "join tokens made")                                                                 \
    X(joined, "nodes taken in")                                                                    \
    X(renewed, "certificates renewed")                                                             \
    X(removed, "nodes removed")                                                                    \
    X(refused, "joins and renewals refused")                                                       \
    X(unaudited, "of these, not in the audit: too many in one second")

struct cp_registrar_counters {
#define X(name, text) uint64_t name;
    CP_REGISTRAR_COUNTERS(X)
#undef X
};
void cp_registrar_counters(struct cp_registrar *r, struct cp_registrar_counters *out);

/* ---- operators ---- */

struct cp_invitation {
    const char *node;
    const char *labels; /* "name=value,…"; "": none. */
    const char *sans;   /* "dns:NAME,ip:ADDRESS,…"; "": none. */
    const char *author;
    uint64_t ttl_ms;
};

/* Makes a join token: its text goes to 'out_token' and nowhere else. */
MUST_CHECK struct err cp_registrar_invite(struct cp_registrar *r, struct cp_store *store,
                                          const struct cp_invitation *invitation,
                                          struct buf *out_token, int64_t *out_expires_ms,
                                          struct buf *message);

/* What a removal found. */
struct cp_departure {
    bool again;          /* it was removed already. */
    size_t certificates; /* that are not over: whoever publishes next revokes them. */
    bool unvouched;      /* its present certificate is none that a replica vouches for: it was given
                            out by a release before, or under another token of the API. */
};

struct cp_removing {
    const char *node;
    const char *author;
    bool is_retold; /* it was removed, and audited, at another replica: what changes nothing leaves
                       no line. */
};

/* Removes a node, with all the certificates that it was given: E_NOT_FOUND when none of that name
 * joined. Doing it again does what is left. */
MUST_CHECK struct err cp_registrar_remove(struct cp_registrar *r, struct cp_store *store,
                                          const struct cp_removing *removing,
                                          struct cp_departure *out, struct buf *message);

/* ---- nodes ---- */

/* What a node gets. */
struct cp_admission {
    char node[CP_ENVIRONMENT_MAX + 1];
    char labels[CP_LABELS_MAX + 1]; /* "name=value,…". */
    struct cp_ca_leaf leaf;
};
void cp_admission_free(struct cp_admission *admission);

struct cp_join_request {
    struct join_token token;
    struct slice csr;
    uint8_t status_key[KEY_PUBLIC_SIZE];
    uint8_t proof[KEY_SIGNATURE_SIZE];
};
MUST_CHECK struct err cp_registrar_join(struct cp_registrar *r, struct cp_store *store,
                                        const struct cp_join_request *request,
                                        struct cp_admission *out, struct buf *message);

struct cp_renew_request {
    const char *node;
    struct slice csr;
    int64_t at_ms;
    uint64_t count; /* above that of the node's present certificate: net_serial_count(). */
    uint8_t proof[KEY_SIGNATURE_SIZE]; /* of renew_statement(). */
    struct slice certificate;          /* PEM of its present one; empty: it was not sent. */
    struct slice presented; /* present_statement(), signed by that one's key; empty: likewise. */
};
/* Who renews is what the certificate in the node's row says, never what else is in the row. One
 * that was sent is asked where the row has none: it is of a release before, or was tampered with.
 */
MUST_CHECK struct err cp_registrar_renew(struct cp_registrar *r, struct cp_store *store,
                                         const struct cp_renew_request *request,
                                         struct cp_admission *out, struct buf *message);

/* The CAs that nodes trust. */
struct slice cp_registrar_bundle(const struct cp_registrar *r);
/* What rows of nodes are judged by; NULL without a CA. */
struct cp_passports *cp_registrar_passports(const struct cp_registrar *r);
