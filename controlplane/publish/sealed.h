/*
 * sealed: publications of the journal that a threshold of keys signed; no other row counts.
 *
 * Shape      Who can write to the database can write a row of the journal. So one is content only
 *            when its manifest carries the signatures that a root asked for, and is the one that
 *            the row's number and digest say: what is signed again, pointed at or put into the
 *            bucket is what was signed before.
 * Ownership  containers are appended to the caller's buf; a manifest is the caller's to free.
 * Threads    the caller's, as its store.
 * Errors     those of the store; MANIFEST_UNSIGNED, MANIFEST_WRONG_KEY, MANIFEST_MIXED and
 *            MANIFEST_MALFORMED: the row is no publication.
 * Source     docs/threats.md, "The database"; docs/decisions/0090-the-database-signs-nothing.md.
 */
#pragma once

#include "controlplane/publish/roots.h"

enum { CP_SEALED_CONTAINER_MAX = 1 << 20 };

/* Where it is looked for. */
struct cp_sealed_place {
    struct cp_roots *roots;
    struct cp_store *store;
    const char *environment;
};

/* One publication: its record, the container ('container' may be NULL) and its manifest. */
MUST_CHECK struct err cp_sealed_load(const struct cp_sealed_place *place, uint64_t version,
                                     struct cp_record *record, struct buf *container,
                                     struct manifest *out);

/* The newest row that is a publication, from the newest of all down; E_NOT_FOUND. 'container' (may
 * be NULL) gets its manifest. */
MUST_CHECK struct err cp_sealed_newest(const struct cp_sealed_place *place, struct cp_record *out,
                                       struct buf *container);

/* The same from the row of 'version' down. */
MUST_CHECK struct err cp_sealed_until(const struct cp_sealed_place *place, uint64_t version,
                                      struct cp_record *record, struct manifest *out);

/* Whether the row is no publication, and not just out of reach. */
bool cp_sealed_is_none(struct err e);
