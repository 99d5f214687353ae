/*
 * carry: which removals the next publication says, whatever it is made of.
 *
 * Shape      Two halves. What the newest publication says already is carried on to its end: that
 *            is signed, so nobody takes it out by writing to the database. What was removed since
 *            then is in the store, where each row bears the warrant of a replica: so nobody puts
 *            anything in by that.
 * Threads    the room's.
 * Errors     those of the store, of sealed.h and of rollback.h.
 * Source     docs/decisions/0091-removal-is-published.md.
 */
#pragma once

#include "controlplane/publish/publish.h"
#include "controlplane/publish/removals.h"

/* Adds what was published last up to the newest row (of version 0: there is none), and is not over.
 * A row that nobody signed takes nothing back: what stands below it speaks, '*out_version' (0:
 * none). MANIFEST_UNSIGNED: there are rows, and none of them is signed. */
MUST_CHECK struct err cp_carry_published(struct cp_publish_room *room,
                                         const struct cp_record *newest, int64_t now_ms,
                                         struct cp_removals *out, uint64_t *out_version);
/* Adds what the store has of removals; those that nobody vouches for are passed over, and logged.
 */
MUST_CHECK struct err cp_carry_removed(struct cp_publish_room *room, int64_t now_ms,
                                       struct cp_removals *out);
/* The same of what was removed until then, by the database's clock. */
struct cp_carry_when {
    int64_t now_ms;
    int64_t removed_until_ms;
};
MUST_CHECK struct err cp_carry_removed_until(struct cp_publish_room *room,
                                             const struct cp_carry_when *when,
                                             struct cp_removals *out);
