/*
 * cosign: the signatures under a proposal, and the replica that gives its own.
 *
 * Shape      The leader writes the manifest body as a proposal, signs it, and gathers: it reads
 *            what the others left beside the proposal until the threshold of the root in force is
 *            reached. Each other replica has a cosigner: told by a hint over NATS, and by its own
 *            look a few times a second, it makes the same content of the same sources and signs
 *            the leader's bytes, if they say just that; or it says why it does not.
 * Units      milliseconds.
 * Ownership  a cosigner borrows its worker and the bus until cp_cosigner_free().
 * Threads    gathering on the publisher's; a cosigner may be woken from any.
 * Errors     E_COSIGNERS_MISSING when too few signed in time; E_COSIGN_REFUSED when a replica
 *            made something else of the sources; E_DRAINING when the process ends.
 * Source     docs/formats.md, "Publishing".
 */
#pragma once

#include "common/base/err.h"
#include "common/bus/bus.h"
#include "common/snapshot/container.h"
#include "common/snapshot/manifest.h"
#include "controlplane/publish/publish.h"
#include "controlplane/publish/worker.h"

/* A proposal that the leader has signed. */
struct cp_cosign {
    uint64_t version;
    struct slice body;
    struct container_signature own;
    uint64_t wait_ms;
};

/*
 * Waits for signatures and appends the signed container to 'out'; 'signers' gets the names of the
 * keys, 'sentence' what is missing on failure.
 */
MUST_CHECK struct err cp_cosign_gather(struct cp_publish_room *room, const struct cp_cosign *cosign,
                                       struct buf *out, struct buf *signers, struct buf *sentence);

/* The manifest key of that id; NULL when the root has none. */
const struct ring_key *cp_cosign_key(const struct root *root, const uint8_t id[KEY_ID_SIZE]);

/* OK when a proposed body says what this replica made itself: 'mine' with the body's version and
 * time. Else E_COSIGN_REFUSED, and 'sentence' says what differs. */
MUST_CHECK struct err cp_cosign_agree(struct slice body, const struct manifest_plan *mine,
                                      struct buf *sentence);

/* Tells the other replicas that a proposal waits. A lost hint costs them one look. */
void cp_cosign_hint(struct bus *bus, const char *environment);

struct cp_cosigner;

/* Listens for hints; each has 'worker' judge the open proposal. */
MUST_CHECK struct err cp_cosigner_new(struct bus *bus, const char *environment,
                                      struct cp_worker *worker, struct cp_cosigner **out);
/* When its worker has finished. Accepts NULL. */
void cp_cosigner_free(struct cp_cosigner *cosigner);

/* Looks for an open proposal, soon and once. */
void cp_cosigner_wake(struct cp_cosigner *cosigner);
