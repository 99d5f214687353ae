/*
 * cut: a stream cut into chunks that are named by their content.
 *
 * Shape      the cut looks at one part at a time and at nothing else, so a change in one place
 *            changes few chunks; it is part of the format: every replica cuts alike.
 * Ownership  a cut_stream owns the stored bytes and borrows the raw ones.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     PART_MALFORMED for a stream that is none, E_TOO_LARGE, E_NO_MEMORY.
 * Source     docs/formats.md, "Cutting is part of the format".
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"

struct cut_chunk {
    struct slice raw; /* within the stream that was given. */
    uint8_t raw_digest[DIGEST_SIZE];
    struct slice stored;               /* zstd of raw, or raw itself when that is not smaller. */
    uint8_t digest[DIGEST_SHORT_SIZE]; /* of the stored bytes: the chunk's name. */
    void *owned;                       /* the stored bytes, if they are ours to free. */
};

struct cut_stream {
    uint32_t kind;
    uint32_t format; /* SNAPSHOT_FORMAT's, unless the publisher says another one. */
    uint64_t raw_size;
    uint8_t raw_digest[DIGEST_SIZE]; /* over the chunks' raw digests. */
    struct cut_chunk *chunks;        /* owned. */
    size_t chunk_count;
};

/*
 * Asks for the stored bytes of a chunk that was published before: they are kept, since another
 * version of zstd may give others. Fills *stored, which must live as long as the cut_stream;
 * false when the chunk is new.
 */
typedef bool (*cut_known_fn)(void *context, const uint8_t raw_digest[DIGEST_SIZE],
                             struct slice *stored);

/* Told of the raw digests, 32 bytes each, of a stream's chunks before the first one is asked for:
 * what is known of them can be read at once. A failure ends the cut. */
typedef struct err (*cut_look_fn)(void *context, struct slice raw_digests);

struct cut_options {
    cut_known_fn known; /* may be NULL. */
    cut_look_fn look;   /* may be NULL. */
    void *context;
    /* The same stream of another version, or NULL: what a chunk of it holds is not hashed again,
     * nor stored anew. It is read during the call alone. */
    const struct cut_stream *before;
};

/* Cuts a stream and stores its chunks. 'options' may be NULL. 'raw' must live as long as *out. */
MUST_CHECK struct err cut_stream(uint32_t kind, struct slice raw, const struct cut_options *options,
                                 struct cut_stream *out);

/* Frees chunks; safe on a zeroed one. */
void cut_stream_free(struct cut_stream *s);

/*
 * Size of the first chunk of 'raw', the rest of a stream: the rule itself. Fails with
 * PART_MALFORMED. 'raw' is not empty and begins with a part.
 */
MUST_CHECK struct err cut_first(uint32_t kind, struct slice raw, size_t *out_size,
                                size_t *out_pieces);

/* BLAKE2b-256 over the raw digests of a stream's chunks, one behind the other. */
void cut_raw_digest(const uint8_t *digests, size_t count, uint8_t out[DIGEST_SIZE]);

/*
 * Opens a chunk as a node does: size and digest, then unpacks at most 'raw_size' bytes into
 * 'out', and hashes them. CHUNK_TAMPERED; CHUNK_BOMB when it holds more than it declares.
 * 'out' has room for raw_size bytes.
 */
struct chunk_name {
    uint8_t digest[DIGEST_SHORT_SIZE];
    uint32_t stored_size;
    uint32_t raw_size;
};
MUST_CHECK struct err chunk_open(struct slice stored, const struct chunk_name *name, uint8_t *out,
                                 uint8_t out_raw_digest[DIGEST_SIZE]);
