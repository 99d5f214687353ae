/*
 * shelf: what was prepared last, for the threads that plan and publish.
 *
 * Shape      a few prepared sources: that of the newest publication, and plans that may follow; and
 *            which snapshots the check passed. Nothing on it is needed: what is missing is made
 *            again.
 * Units      what is prepared weighs at most limits.source_cache_bytes in all.
 * Ownership  it holds a reference to each; what it hands out has one of its own.
 * Threads    any.
 * Errors     E_NO_MEMORY from cp_shelf_new().
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "controlplane/publish/prepared.h"

enum { CP_SHELF_SLOTS = 3, CP_SHELF_CHECKS = 16 };

struct cp_shelf;

MUST_CHECK struct err cp_shelf_new(struct cp_shelf **out);
void cp_shelf_free(struct cp_shelf *shelf); /* NULL is fine. */

/* What was prepared of exactly these files, by name and byte, in this order; NULL: nothing. */
struct cp_prepared *cp_shelf_find(struct cp_shelf *shelf, const struct cp_source_set *sources);

/* What was planned under an id, and the newest version at that time; NULL: it is not here. */
struct cp_prepared *cp_shelf_planned(struct cp_shelf *shelf, const uint8_t id[CP_PREPARED_ID_SIZE],
                                     uint64_t *out_base);

/* What was published under the manifest of that digest; NULL: it is not here. */
struct cp_prepared *cp_shelf_published(struct cp_shelf *shelf,
                                       const uint8_t manifest_digest[DIGEST_SIZE]);

/* What becomes of something that is put on the shelf. */
struct cp_shelf_note {
    bool planned; /* it may be published by its id, on 'base'. */
    uint64_t base;
    const uint8_t *manifest_digest; /* under which it was published; NULL: it was not. */
};

/* Puts something on the shelf, in the place of what was used least lately; the same again only
 * adds to what is noted of it. */
void cp_shelf_put(struct cp_shelf *shelf, struct cp_prepared *prepared,
                  const struct cp_shelf_note *note);

/* Whether the check passed a snapshot; notes that it did. Names are cp_check_digest()'s. */
bool cp_shelf_has_passed(struct cp_shelf *shelf, const uint8_t digest[DIGEST_SIZE]);
void cp_shelf_pass(struct cp_shelf *shelf, const uint8_t digest[DIGEST_SIZE]);
