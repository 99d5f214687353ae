/*
 * trust: roots and keys, as the leader's thread keeps them up to date at each of its beats.
 *
 * Shape      A replica takes over every root that the database has and its own root vouches for. A
 *            new root, or SIGHUP, has the signer's key files read anew: keys that the root in force
 *            knows take over, others change nothing. What a root asks of a leader beyond that is
 *            here, too: it stands in KV before a head names it; epochs and versions are above its
 *            floor; the newest manifest has its signatures, or is published again.
 * Units      milliseconds.
 * Ownership  plain state of one owner; all in the options is borrowed.
 * Threads    the leader's; it is the one that signers are started by.
 * Errors     E_SIGNER_GONE, E_KEY_UNKNOWN, E_KEY_EXPIRED: this replica cannot lead now.
 * Source     docs/formats.md; docs/operations.md, "Keys".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "controlplane/publish/bucket.h"
#include "controlplane/publish/keys.h"
#include "controlplane/publish/roots.h"
#include "controlplane/signer/signer.h"
#include "controlplane/store/store.h"

struct cp_trust {
    const char *environment;
    const char *replica; /* its name, for people. */
    struct cp_roots *roots;
    struct cp_signer *signer;
    /* As of the last beat. */
    struct root root; /* in force. */
    struct cp_keys keys;
    uint64_t told_ns; /* when the store was told which keys sign here. */
    struct cp_signer_hello told;
    /* Of the present leadership. */
    uint64_t put_version;    /* newest root that was put into KV; 0: none. */
    uint64_t raised_version; /* root whose floor the versions are above; 0: none. */
    uint64_t judged_root;    /* root, version and digest of the last cp_trust_newest() that held. */
    uint64_t judged_version;
    uint8_t judged_digest[DIGEST_SIZE];
    uint64_t unsigned_version; /* the last row that nobody signed; 0: none. */
    struct cp_record fallback; /* the newest publication below it. */
    /* What was said: each change once. */
    uint64_t files_version; /* root at which the key files were read last. */
    uint64_t said_unsigned; /* version of a row. */
    enum err_code said_poll;
    enum err_code said_head;
    bool said_manifest;
    bool said_key_ends;
    bool said_root_ends;
};

void cp_trust_init(struct cp_trust *t, const char *environment, const char *replica,
                   struct cp_roots *roots, struct cp_signer *signer);

/* Takes new roots over, tells the store now and then which keys sign here, and 'reload': reads the
 * key files anew; then looks after the signer. */
MUST_CHECK struct err cp_trust_beat(struct cp_trust *t, struct cp_store *store, bool reload);

/* A leader's epoch must be above this one: nodes know it from a root, the signer from itself. */
uint64_t cp_trust_epoch(struct cp_trust *t);

/* A leadership begins. */
void cp_trust_lead(struct cp_trust *t);

/* Puts the roots that this leadership has not put yet into KV. */
MUST_CHECK struct err cp_trust_put(struct cp_trust *t, const struct cp_bucket *bucket);

/* Has versions handed out above the floor of the roots. */
MUST_CHECK struct err cp_trust_raise(struct cp_trust *t, struct cp_store *store,
                                     const struct cp_fence *fence);

/*
 * Judges the newest row of the journal. '*out_holds': it holds under the root in force, which is to
 * say that its manifest carries enough signatures of keys that are still in it, and that its
 * version is not below the floor; else its content is to be published anew.
 * A row that no root's threshold signed is no publication: E_MANIFEST_UNSIGNED, and 'newest' is the
 * newest one below it (version 0: there is none).
 */
MUST_CHECK struct err cp_trust_newest(struct cp_trust *t, struct cp_store *store,
                                      struct cp_record *newest, bool *out_holds);
