/*
 * set: the verified chunks of one version, and the parts in them.
 *
 * Shape      A set is filled chunk by chunk, then closed: from then on it is immutable. A stream
 *            is a list of runs of some thirty chunks; sets share streams, runs and chunks by
 *            reference, so that a set made from the one before costs what changed, and so does
 *            dropping it.
 * Ownership  snap_set_new() gives one reference; snap_set_unref() drops it. Slices of parts live
 *            as long as a reference.
 * Threads    filled by one thread; once closed, any. References are counted atomically.
 * Errors     CHUNK_TAMPERED, CHUNK_BOMB, PART_MALFORMED, OUT_OF_MEMORY.
 * Source     docs/formats.md: a chunk holds whole parts, or is a piece of one that is larger than
 *            a chunk; anything else is PART_MALFORMED. docs/decisions/0080.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/parts.h"

struct snap_set;

/*
 * A set for a manifest. What the same stream of 'previous' (may be NULL) holds under the same name
 * is taken over: it was verified when it got there. Streams of kind positions are left out. 'm' is
 * borrowed until the call returns.
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
};

/* The format of a stream; 0 when the set has none of this kind. */
uint32_t snap_set_format(const struct snap_set *s, uint32_t kind);

/* Walks the parts of a stream: start with *at = {0}; false at the end. */
struct snap_cursor {
    size_t run;
    size_t block; /* of the run. */
    size_t at;    /* offset in the block; for names, index of a chunk. */
};
bool snap_set_next(const struct snap_set *s, uint32_t kind, struct snap_cursor *at,
                   struct snap_part *out);

/* A part that two sets do not have alike. */
struct snap_change {
    struct slice key;
    struct slice before;
    struct slice now;
    bool had; /* 'before' is set. */
    bool has; /* 'now' is set; with both, their bytes differ. */
};

/*
 * Walks what the stream of 'now' has otherwise than that of 'before' (NULL: a set without parts),
 * keys ascending; false at the end. What both share is not looked at. Start with *at = {0}, or with
 * 'whole' to be told of every part of both; so it is, too, when the stream's formats differ, and
 * the same bytes may mean something else.
 */
struct snap_diff {
    struct snap_cursor before;
    struct snap_cursor now;
    bool whole;
};
bool snap_set_diff(const struct snap_set *before, const struct snap_set *now, uint32_t kind,
                   struct snap_diff *at, struct snap_change *out);

/* Looks a part up by key; false when there is none. O(log n) over chunks, then a walk of one. */
bool snap_set_find(const struct snap_set *s, uint32_t kind, struct slice key,
                   struct snap_part *out);

/* What the set is of. */
uint64_t snap_set_version(const struct snap_set *s);
const uint8_t *snap_set_content_digest(const struct snap_set *s);
const uint8_t *snap_set_manifest_digest(const struct snap_set *s);

/* Digest of the manifest whose set chunks were taken over from; NULL: there was none. */
const uint8_t *snap_set_base(const struct snap_set *s);

/* Walks the chunks that were added here, each one once, for the disk: their stored bytes, until
   snap_set_drop_stored(). Start with *at = 0. */
struct snap_stored {
    struct chunk_name name;
    struct slice stored;
};
bool snap_set_stored(const struct snap_set *s, size_t *at, struct snap_stored *out);
void snap_set_drop_stored(struct snap_set *s);

/* Walks the names of all chunks of a closed set, as often as they are named. Start with *at = {0}
 * and *stream = 0. */
bool snap_set_name(const struct snap_set *s, size_t *stream, struct snap_cursor *at,
                   struct chunk_name *out);

/* How much was added and how much was taken over. */
struct snap_set_counts {
    size_t chunks;
    size_t chunks_kept;
    uint64_t raw_bytes;
    uint64_t stored_bytes;      /* of all chunks, as often as they are named. */
    uint64_t stored_kept_bytes; /* of those that were taken over. */
};
struct snap_set_counts snap_set_counts(const struct snap_set *s);
