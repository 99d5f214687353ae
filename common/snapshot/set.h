/*
 * set: the verified chunks of one version, and the parts in them.
 *
 * Shape      A set is filled chunk by chunk, then closed: from then on it is immutable. Chunks
 *            are shared between sets by reference, so an apply costs what changed.
 * Ownership  snap_set_new() gives one reference; snap_set_unref() drops it. Slices of parts live
 *            as long as a reference.
 * Threads    filled by one thread; once closed, any. References are counted atomically.
 * Errors     CHUNK_TAMPERED, CHUNK_BOMB, PART_MALFORMED, OUT_OF_MEMORY.
 * Source     docs/formats.md: a chunk holds whole parts, or is a piece of one that is larger than
 *            a chunk; anything else is PART_MALFORMED.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/parts.h"

struct snap_set;

/*
 * A set for a manifest, with every chunk that 'previous' (may be NULL) holds taken over. Streams
 * of kind positions are left out. 'm' is copied where needed and not kept.
 */
MUST_CHECK struct err snap_set_new(const struct manifest *m, struct snap_set *previous,
                                   struct snap_set **out);

/* The same for the stream of positions alone: fetched late, when something is to be explained. */
MUST_CHECK struct err snap_set_new_positions(const struct manifest *m, struct snap_set *previous,
                                             struct snap_set **out);

struct snap_set *snap_set_ref(struct snap_set *s);
void snap_set_unref(struct snap_set *s);

/* The next chunk that is missing; false when there is none. Start with *at = 0. */
struct snap_missing {
    uint32_t kind; /* of the stream that it was first met in. */
    struct chunk_name name;
};
bool snap_set_missing(const struct snap_set *s, size_t *at, struct snap_missing *out);

/* Verifies and adds the stored bytes of a missing chunk; it is then in all places that name it. */
MUST_CHECK struct err snap_set_add(struct snap_set *s, const struct chunk_name *name,
                                   struct slice stored);

/*
 * Closes the set: raw digests of the streams, order and bounds of all parts. CHUNK_MISSING when a
 * chunk is not there. After a failure the set is of no use but to be dropped.
 */
MUST_CHECK struct err snap_set_close(struct snap_set *s);

/* A part of a closed set. */
struct snap_part {
    struct slice key;
    struct slice bytes; /* in one piece, also when it spans chunks. */
    size_t chunk;       /* index of the (first) chunk in its stream. */
    bool kept; /* it lies in a chunk that the same stream of 'previous' has, in the same format: a
                  part of the same key and bytes was built for it. Always false for one that spans
                  chunks. */
};

/* The format of a stream; 0 when the set has none of this kind. */
uint32_t snap_set_format(const struct snap_set *s, uint32_t kind);

/* Walks the parts of a stream: start with *at = {0}; false at the end. */
struct snap_cursor {
    size_t chunk;
    size_t offset;
};
bool snap_set_next(const struct snap_set *s, uint32_t kind, struct snap_cursor *at,
                   struct snap_part *out);

/* Looks a part up by key; false when there is none. O(log n) over chunks, then a walk of one. */
bool snap_set_find(const struct snap_set *s, uint32_t kind, struct slice key,
                   struct snap_part *out);

/* What the set is of. */
uint64_t snap_set_version(const struct snap_set *s);
const uint8_t *snap_set_content_digest(const struct snap_set *s);
const uint8_t *snap_set_manifest_digest(const struct snap_set *s);

/* Walks the distinct chunks, for the disk: stored bytes of those that were added here, until
   snap_set_drop_stored(); {NULL, 0} for those taken over. Start with *at = 0. */
struct snap_stored {
    struct chunk_name name;
    struct slice stored;
};
bool snap_set_stored(const struct snap_set *s, size_t *at, struct snap_stored *out);
void snap_set_drop_stored(struct snap_set *s);

/* How much was added and how much was taken over, for metrics. */
struct snap_set_counts {
    size_t chunks;
    size_t chunks_kept;
    uint64_t raw_bytes;
    uint64_t added_bytes; /* stored bytes of chunks that were added. */
};
struct snap_set_counts snap_set_counts(const struct snap_set *s);
