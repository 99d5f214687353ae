/*
 * rollback: what a rollback brings back, and what it keeps.
 *
 * Shape      the streams of an old version, byte for byte, but for the one of revocations: that is
 *            the newest publication's, since what only ever tightens is not undone by going back.
 *            With trust, the old one comes back, too.
 * Ownership  chunk lists of the streams are the caller's, as cut_stream_free() wants them; stored
 *            bytes lie in the caller's arena.
 * Threads    the publisher's, or that of a replica that co-signs.
 * Errors     those of sealed.h: what nobody signed does not come back; CHUNK_TAMPERED,
 *            CHUNK_MISSING: nor do chunks that are not the signed ones. CAPABILITY_MISSING: the
 *            version is of a format that no node of this release reads.
 * Source     ARCHITECTURE, "Rollback"; docs/decisions/0061-monotone-parts.md.
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/manifest.h"
#include "controlplane/compile/compile.h"
#include "controlplane/publish/sealed.h"

struct cp_rollback_wish {
    uint64_t target; /* the version whose content comes back. */
    uint64_t newest; /* the publication whose revocations are kept. */
    bool with_trust; /* the target's revocations come back, too. */
};

struct cp_rollback {
    struct cut_stream streams[STREAMS_MAX]; /* kinds ascending. */
    size_t stream_count;
    uint64_t capabilities;
    uint32_t format; /* of the snapshot. */
    uint64_t at;     /* the version that was read last: of which a failure speaks. */
};

/* Gathers the content. Also after a failure the caller gives 'out' to cp_rollback_free(), or takes
 * its streams over. */
MUST_CHECK struct err cp_rollback_load(const struct cp_sealed_place *place,
                                       const struct cp_rollback_wish *wish, struct arena *arena,
                                       struct cp_rollback *out);
void cp_rollback_free(struct cp_rollback *rollback);

/* Appends the stream of revocations that was published with a version; nothing: it had none. */
MUST_CHECK struct err cp_rollback_revoked(const struct cp_sealed_place *place, uint64_t version,
                                          struct buf *out);

/*
 * Puts the revocations that were published with a version into the place of those of its sources:
 * after a rollback the two differ.
 */
MUST_CHECK struct err cp_rollback_revocations(const struct cp_sealed_place *place, uint64_t version,
                                              struct cp_compiled *compiled);
