/*
 * recover: what is done when the bucket, or a node, knows a version that the database does not:
 * the database was restored from a backup, or replaced by an empty one.
 *
 * Shape      Adopting takes the bucket's newest version into the journal, as it lies there, after
 *            all that a node would ask of it: signatures by the root in force, digests of every
 *            chunk. Its sources are not in the bucket: they are published anew when they are next
 *            changed. Giving it up publishes the journal's newest content under a number above
 *            everything that was ever seen; what the bucket's version revokes besides is kept, as
 *            a Revocation among the sources. Either way no number comes twice.
 * Threads    the publisher's.
 * Errors     in work->result, with work->step and work->sentence. E_NOT_FOUND: there is nothing
 *            to adopt; MANIFEST_…, CHUNK_…: what lies there is not what was signed.
 * Source     docs/operations.md, "The database is behind".
 */
#pragma once

#include "controlplane/publish/publish.h"

/* Runs a work of kind CP_WORK_RECOVER. */
void cp_recover_run(struct cp_publish_room *room, struct cp_work *work);
