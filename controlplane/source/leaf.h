/*
 * leaf: the resources of one file, as decoded: what one load gives to the next.
 *
 * Shape      decoding looks at nothing but the file's bytes, so equal bytes make equal leaves, but
 *            for the file's number, which their places name. What resources say about each other
 *            (references, doubles) is judged anew by each load.
 * Ownership  a leaf owns its resources and all that they say; they borrow from nothing else. A
 *            kept leaf is its cache's, any other its model's.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "controlplane/source/model.h"

struct cp_leaf {
    struct arena arena;
    struct cp_meta **resources; /* owned; in the order of the file. */
    size_t count;
    size_t capacity;
    uint64_t nodes; /* of YAML, as they count against limits.source_nodes. */
    uint32_t file;  /* that all places name. */
    bool clean;     /* nothing was wrong with the file by itself. */
    /* Of a kept one. */
    uint64_t serial;    /* never used twice by a cache; 0: not kept. */
    uint64_t links;     /* grows whenever a reference in it leads elsewhere than the time before. */
    struct slice bytes; /* of the file; in the arena. */
    bool used;          /* by the model that is alive. */
    struct cp_leaf *newer;
    struct cp_leaf *older;
};

/* An empty leaf; 'max' bounds its memory. */
MUST_CHECK struct err cp_leaf_new(uint32_t file, size_t max, struct cp_leaf **out);
void cp_leaf_free(struct cp_leaf *leaf); /* NULL is fine. */

/* Adds a zeroed resource of a kind, its own struct behind the meta. */
MUST_CHECK struct err cp_leaf_add(struct cp_leaf *leaf, enum cp_kind kind, struct cp_meta **out);

/* Makes all places name another file, and forgets what the last load said of the resources. */
void cp_leaf_renew(struct cp_leaf *leaf, uint32_t file);

/*
 * Says where a reference of one of its resources leads. What is compiled from a leaf depends on
 * its content and on ids and keys of what it refers to: while 'links' stands still, on neither.
 */
MUST_CHECK struct err cp_leaf_link(struct cp_leaf *leaf, struct cp_ref *ref,
                                   const struct cp_meta *to);
