/*
 * roots: the roots of an environment that this replica knows, one after the other without a gap;
 * the last one is in force. Roots are taken over while the server runs.
 *
 * Ownership  cp_roots_new() gives what cp_roots_free() ends; containers are copied in and out.
 * Threads    all calls from any thread; no lock is held while a visitor runs.
 * Errors     E_USAGE with a sentence; ROOT_MALFORMED, ROOT_UNSIGNED, ROOT_MISSING, CONFLICT.
 * Source     docs/formats.md, "Bodies"; docs/operations.md, "Keys".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "controlplane/signer/signer.h"
#include "controlplane/store/store.h"

enum {
    CP_ROOTS_MAX = 1024, /* a root a week for 19 years; past that the oldest is forgotten. */
    CP_ROOT_CONTAINER_MAX =
        CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE + ROOT_BODY_MAX
};

struct cp_roots;

/* Reads "root.1,root.2,…": the first is trusted by where it comes from, each must follow the one
 * before. E_USAGE when they are another environment's. */
MUST_CHECK struct err cp_roots_new(const char *paths, const char *environment,
                                   struct cp_roots **out, struct buf *message);

/* Accepts NULL. */
void cp_roots_free(struct cp_roots *roots);

/* A copy of the root in force. */
void cp_roots_now(struct cp_roots *roots, struct root *out);

/* Version of the root in force. */
uint64_t cp_roots_version(struct cp_roots *roots);

/* The environment's 16 bytes, which never change. */
const uint8_t *cp_roots_environment(const struct cp_roots *roots);

/*
 * Takes one root more: the one behind the newest, which is in force from then on, or the one before
 * the oldest. Both sides' thresholds are asked. A body that is known already is OK and changes
 * nothing; another one of a known version is CONFLICT; ROOT_MISSING when there is a gap. '*out_new'
 * (may be NULL): whether it is in force now and was not before.
 */
MUST_CHECK struct err cp_roots_take(struct cp_roots *roots, struct slice container, bool *out_new);

/* The same judgement without taking it, and what else is asked of a root before it is published: it
 * is the next one, its time is not over, its floor can be healed by. 'message' gets a sentence;
 * 'epoch' is that of the leader's row. */
MUST_CHECK struct err cp_roots_judge(struct cp_roots *roots, struct slice container, uint64_t epoch,
                                     struct root *out, struct buf *message);

/* The floor of the newest known root that has one; false when none has. */
bool cp_roots_floor(struct cp_roots *roots, struct root_floor *out);

/*
 * Opens a manifest with the signatures that the root in force asks for, or one before it did, back
 * to the first of the files: what a threshold signed once was content by the rules of its time. A
 * root from before the files vouches for nothing: whoever writes to the database can make one that
 * ours would follow. '*out_in_force' (may be NULL): whether the one in force would do. Errors as
 * manifest_open().
 */
MUST_CHECK struct err cp_roots_open(struct cp_roots *roots, struct slice container,
                                    const struct manifest_wanted *wanted, struct manifest *out,
                                    bool *out_in_force);

/*
 * At the start: takes over what the database has, and puts there what it lacks. CONFLICT when it
 * has another root of a version that is known here; ROOT_MISSING when its roots begin behind ours.
 * A root of it that nobody signed is left out, and said.
 */
MUST_CHECK struct err cp_roots_exchange(struct cp_roots *roots, struct cp_store *store,
                                        const char *environment, struct buf *message);

/* Takes over what the database has behind the root in force. */
MUST_CHECK struct err cp_roots_poll(struct cp_roots *roots, struct cp_store *store,
                                    const char *environment);

typedef struct err cp_root_fn(void *ctx, uint64_t version, struct slice container);

/* Calls 'visit' for each known root from 'version' on, ascending, until one fails. */
MUST_CHECK struct err cp_roots_each(struct cp_roots *roots, uint64_t version, cp_root_fn *visit,
                                    void *ctx);

/* E_USAGE unless both of the signer's keys have their role in the root in force, and the manifest
 * key is not the break-glass one. */
MUST_CHECK struct err cp_roots_check_signer(struct cp_roots *roots,
                                            const struct cp_signer_hello *hello,
                                            struct buf *message);
