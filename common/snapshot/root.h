/*
 * root: which keys may sign what in an environment, and the walk from one root to the next.
 *
 * Shape      plain values without heap.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     ROOT_MALFORMED, ROOT_UNSIGNED, ROOT_EXPIRED.
 * Source     docs/formats.md, "Bodies" and "What a node does with a head".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/container.h"

struct root_floor {
    uint64_t epoch;
    uint64_t version;
};

struct root {
    char environment[KEY_NAME_MAX + 1];       /* its name. */
    uint8_t environment_id[ENVIRONMENT_SIZE]; /* as containers carry it. */
    uint64_t version;                         /* from 1 on. */
    int64_t not_after_ms;
    struct keyring ring; /* keys in the order of roles: roots, manifests, heads. */
    bool has_floor;
    struct root_floor floor;
};

/*
 * Appends the body of a root. E_USAGE unless it holds what root_open() asks for; the environment's
 * id and the keys' ids are worked out anew.
 */
MUST_CHECK struct err root_encode(const struct root *r, struct buf *out);

/* Adds a key to a role. E_USAGE when the role is full or the key is there already. */
MUST_CHECK struct err root_add_key(struct root *r, const struct key_public *key,
                                   int64_t not_after_ms);

/*
 * Opens a root that is trusted by where it comes from (--trust-root, the node's own disk): it
 * must be signed by its own threshold. Its time is not asked.
 */
MUST_CHECK struct err root_open(struct slice bytes, struct root *out);

/*
 * Reads a root that is still to be signed: what it says, whoever signed it. For those who make
 * roots; nothing is trusted by it. 'out_container' borrows from the bytes.
 */
MUST_CHECK struct err root_read(struct slice bytes, struct root *out,
                                struct container *out_container);

/* A walk of roots: each step is signed by the thresholds of both sides. */
struct root_walk {
    struct root at; /* the root reached. */
    uint32_t steps; /* zero: nothing new. */
    bool has_floor; /* a root on the way set a floor: the last one holds. */
    struct root_floor floor;
};

/* Starts at the root in force. */
void root_walk_start(const struct root *from, struct root_walk *out);

/* Takes the next root, version + 1. The walk is unchanged on failure. */
MUST_CHECK struct err root_walk_step(struct root_walk *walk, struct slice bytes);

/* Ends the walk: ROOT_EXPIRED when the root reached is past its time; the ones before may be. */
MUST_CHECK struct err root_walk_end(const struct root_walk *walk, int64_t wall_ms,
                                    int64_t tolerance_ms);
