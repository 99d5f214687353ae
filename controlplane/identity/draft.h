/*
 * draft: the next root on its way through the hands of those who sign it.
 *
 * Shape      cp_draft_make() works root.<n+1>.draft out from root.<n>: a container without a
 *            signature. Each holder of a root key adds one by cp_draft_sign(), on a machine of
 *            their own, one after the other. With the signature that completes both thresholds, of
 *            the root before and of the draft's own, root.<n+1> is written and the draft goes.
 * Ownership  cp_draft_free() after cp_draft_read(), also after it failed.
 * Threads    commands only: one thread.
 * Errors     E_USAGE with a sentence in 'message'; E_EXISTS, E_NOT_FOUND, E_IO; ROOT_MALFORMED,
 *            ROOT_UNSIGNED.
 * Source     docs/formats.md, "Bodies"; docs/operations.md, "Keys".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/root.h"

/* What the next root has other than the one before. */
struct cp_draft_plan {
    const char *root; /* file of the root before. */
    const char *add;  /* comma-separated public key files; "": none. A head key that is there
                         already gets a new end. */
    const char *drop; /* comma-separated NAME, ROLE:NAME or id; "": none. */
    uint32_t thresholds[ROOT_ROLE_COUNT]; /* 0: as before. */
    uint32_t days;                        /* until the root ends. */
    uint32_t head_days;                   /* until the head keys that are added end. */
    bool has_floor;
    struct root_floor floor;
    const char *out; /* directory. */
};

/* Makes the draft; 'out_path' gets its path, '*out' what it says. */
MUST_CHECK struct err cp_draft_make(const struct cp_draft_plan *plan, struct root *out,
                                    struct buf *out_path, struct buf *message);

/* Signatures that count for one side. */
struct cp_draft_side {
    uint32_t count;
    uint32_t threshold;
    bool
        by[ROOT_ROLE_COUNT * ROLE_KEYS_MAX]; /* whether the key at that place of the ring signed. */
};

struct cp_draft {
    struct root root;
    struct root before;
    bool has_before; /* 'before' is known. */
    struct cp_draft_side own;
    struct cp_draft_side previous;
    bool whole; /* both thresholds are reached: nodes take it. */
    struct buf bytes;
};

/*
 * Reads a root or a draft, and counts its signatures. 'previous' is the file of the root before;
 * NULL: root.<n-1> beside it, if it is there. E_USAGE when that is not the one before.
 */
MUST_CHECK struct err cp_draft_read(const char *path, const char *previous, struct cp_draft *out,
                                    struct buf *message);
void cp_draft_free(struct cp_draft *draft);

/*
 * Adds the signature of a private root key that one of both sides knows; '*out' is what the draft
 * is then. When it is whole, 'out_path' gets the path of the root that was written in its place. A
 * signature that is there already is no failure.
 */
MUST_CHECK struct err cp_draft_sign(const char *path, const char *previous, const char *key,
                                    struct cp_draft *out, struct buf *out_path,
                                    struct buf *message);
