/*
 * attest: whether a node that wants in is who it says, and what it is granted.
 *
 * Shape      a struct of function pointers: judge() looks at the evidence and changes nothing;
 *            enrol() takes the node in and makes the evidence worthless, both or neither. The join
 *            token is one kind of evidence; that it counts once, on whichever replica, is the
 *            database's transaction.
 * Ownership  evidence is borrowed for the call.
 * Threads    any; the store is the caller's.
 * Errors     E_TOKEN_UNKNOWN (also for one whose row no replica vouches for), E_TOKEN_USED,
 *            E_TOKEN_EXPIRED, E_TOKEN_MISMATCH, E_UNAUTHENTICATED (the proof is not the status
 *            key's), and the store's.
 * Source     docs/control-plane.md, "Joining".
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/join.h"
#include "controlplane/identity/passport.h"
#include "controlplane/store/store.h"

/* What a node presents. */
struct cp_evidence {
    const char *environment;       /* ours; */
    const uint8_t *environment_id; /* and as containers carry it. */
    const uint8_t *vouch_key;      /* CP_VOUCH_KEY_SIZE bytes: what rows of tokens are judged by; */
    struct cp_passports *passports; /* and rows of nodes. */
    const struct join_token *token;
    struct slice csr;
    uint8_t status_key[KEY_PUBLIC_SIZE];
    uint8_t proof[KEY_SIGNATURE_SIZE]; /* by that key, of join_statement(). */
};

/* What it proved. */
struct cp_attested {
    char node[CP_ENVIRONMENT_MAX + 1];
    char grant[CP_LABELS_MAX + 1]; /* of cp_grant_make(). */
    bool again; /* this node, with these keys, was taken in by it before: its answer was lost. */
    char serial[CP_SERIAL_MAX + 1]; /* of its certificate then. */
};

struct cp_attestor {
    const char *name; /* for the audit: "token". */
    struct err (*judge)(struct cp_store *store, const struct cp_evidence *evidence,
                        struct cp_attested *out);
    /* 'node' is complete. After judge() said 'again' it only notes the new certificate. */
    struct err (*enrol)(struct cp_store *store, const struct cp_evidence *evidence,
                        const struct cp_attested *attested, const struct cp_node *node);
};

/* The join token. */
extern const struct cp_attestor cp_attest_token;
