/*
 * runs: what closed sets are made of: streams of runs of blocks.
 *
 * Shape      a block is a chunk of whole parts, or a part that is larger than a chunk, joined from
 *            its pieces. A run is some thirty chunks of a stream with their names, digests and
 *            blocks; a stream is its runs in order. All are immutable and shared by reference.
 * Ownership  counted references; a run has one to each of its blocks, a stream to each run.
 * Threads    any; one thread makes them.
 * Errors     PART_MALFORMED, CHUNK_TAMPERED, CHUNK_BOMB, OUT_OF_MEMORY.
 * Source     docs/decisions/0080; for set.c alone.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/refs.h"
#include "common/base/slice.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/parts.h"
#include "common/snapshot/set.h"

struct block {
    struct refs refs;
    bool judged; /* 'first' and 'last' are known: the parts in it were read. */
    size_t piece_count;
    struct slice first; /* keys of its first and last part. */
    struct slice last;
    uint8_t raw_digest[DIGEST_SIZE]; /* of one chunk; a joined part has those of its run. */
    size_t size;
    uint8_t raw[];
};

struct run {
    struct refs refs;
    size_t chunk_count;
    size_t block_count;
    uint64_t stored_bytes;
    struct block **blocks;  /* references; all lists lie behind the struct. */
    uint32_t *stored_sizes; /* these by chunk. */
    uint32_t *raw_sizes;
    uint8_t *digests;
    uint8_t *raw_digests;
};

struct stream {
    struct refs refs;
    uint32_t kind;
    uint32_t format;
    uint8_t raw_digest[DIGEST_SIZE];
    size_t run_count;
    struct run *runs[]; /* references. */
};

/* A chunk of a run. */
struct run_place {
    struct run *run; /* NULL: none. */
    size_t at;
};

/* A chunk of a stream that is being made: where its bytes are. */
struct run_slot {
    struct chunk_name name;
    struct run_place place; /* of a run before. */
    size_t wanted;          /* set.c's. */
    struct block *block;    /* borrowed; when there is no place. */
};

/* Accepts NULL. */
void block_unref(struct block *b);
struct run *run_ref(struct run *r);
void run_unref(struct run *r);
struct stream *stream_ref(struct stream *s);
void stream_unref(struct stream *s);

/* Verifies and unpacks the stored bytes of a chunk. */
MUST_CHECK struct err block_open(const struct chunk_name *name, struct slice stored,
                                 struct block **out);

/* Whether a manifest's stream names the chunks of the run, from its chunk 'at' on. */
bool run_is_at(const struct run *r, const struct manifest_stream *m, size_t at);

/* Whether the chunk there has this name and its sizes. */
bool run_has(const struct run_place *place, const struct chunk_name *name);
struct chunk_name run_name(const struct run *r, size_t at);

/* The raw digest of a slot's chunk. */
const uint8_t *run_slot_digest(const struct run_slot *slot);

/* The making of a stream's runs: slots and runs in order, then the end. */
struct runs {
    struct run **runs; /* owned list of references. */
    size_t count;
    size_t capacity;
    struct run_slot *waiting; /* owned: not yet in a run. */
    size_t waiting_count;
    size_t waiting_capacity;
};
void runs_free(struct runs *r);
MUST_CHECK struct err runs_add_slots(struct runs *r, const struct run_slot *slots, size_t count);
MUST_CHECK struct err runs_add_run(struct runs *r, struct run *run);
MUST_CHECK struct err runs_end(struct runs *r);

/* Takes the runs. */
MUST_CHECK struct err stream_new(uint32_t kind, uint32_t format,
                                 const uint8_t raw_digest[DIGEST_SIZE], struct runs *runs,
                                 struct stream **out);

/* As snap_set_next() and snap_set_diff(); for the latter a stream may be NULL. */
bool stream_next(const struct stream *s, struct snap_cursor *at, struct snap_part *out);
bool stream_diff(const struct stream *before, const struct stream *now, bool whole,
                 struct snap_diff *at, struct snap_change *out);

/* The block that a part of this key would be in; false when it would be before all. */
bool stream_seek(const struct stream *s, struct slice key, struct snap_cursor *out);
