/*
 * manifest: what a version of the snapshot is made of.
 *
 * Shape      streams in ascending order of kinds, each a list of chunks.
 * Ownership  a decoded manifest owns its lists until manifest_free().
 * Threads    pure functions; any thread, after ids_init().
 * Errors     MANIFEST_MALFORMED, CAPABILITY_MISSING, MANIFEST_MIXED, MANIFEST_UNSIGNED,
 *            MANIFEST_WRONG_KEY, E_NO_MEMORY.
 * Source     docs/formats.md, "Bodies".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/container.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/root.h"

struct manifest_stream {
    uint32_t kind;
    uint32_t format;
    uint64_t raw_size;
    uint8_t raw_digest[DIGEST_SIZE];
    size_t chunk_count;
    const uint8_t *chunk_digests; /* DIGEST_SHORT_SIZE a chunk. */
    const uint32_t *stored_sizes;
    const uint32_t *raw_sizes;
};

struct manifest {
    uint64_t version;
    uint8_t content_digest[DIGEST_SIZE];
    uint8_t digest[DIGEST_SIZE]; /* of the body: the manifest's name. */
    int64_t made_at_ms;
    uint64_t capabilities;
    size_t stream_count;
    struct manifest_stream streams[STREAMS_MAX];
    void *owned; /* the decoded message behind the lists. */
};

/* What a publisher makes one from. */
struct manifest_plan {
    uint64_t version;
    int64_t made_at_ms;
    uint64_t capabilities;
    const struct cut_stream *streams; /* kinds ascending. */
    size_t stream_count;
};

/* Appends the body. E_USAGE when a plan breaks a bound that manifest_decode() asks for. */
MUST_CHECK struct err manifest_encode(const struct manifest_plan *plan, struct buf *out);

/* The digest of a plan's content: what replicas compare and plans show. */
void manifest_plan_digest(const struct manifest_plan *plan, uint8_t out[DIGEST_SIZE]);

/* Decodes and judges a body whole: every bound, sum, order and digest within it. */
MUST_CHECK struct err manifest_decode(struct slice body, struct manifest *out);
void manifest_free(struct manifest *m);

/*
 * Opens a manifest as a node does: container, digest as the head names it (NULL: any), threshold
 * of manifest keys, body. The version must be 'version' unless that is zero: MANIFEST_MIXED.
 */
struct manifest_wanted {
    uint64_t version;
    const uint8_t *digest;
};
MUST_CHECK struct err manifest_open(struct slice bytes, const struct root *root,
                                    const struct manifest_wanted *wanted, struct manifest *out);

/* CAPABILITY_MISSING when this build cannot do what the manifest asks for, or does not read the
 * format of one of its streams. */
MUST_CHECK struct err manifest_check_capabilities(const struct manifest *m, uint64_t capabilities);

/* The lowest snapshot format that all its streams are of; 0: none that this release reads. */
uint32_t manifest_format(const struct manifest *m);
uint32_t manifest_plan_format(const struct manifest_plan *plan);

/* The stream of a kind, or NULL. */
const struct manifest_stream *manifest_stream(const struct manifest *m, uint32_t kind);

/* Name and sizes of a chunk of a stream. */
struct chunk_name manifest_chunk(const struct manifest_stream *s, size_t index);

#define auto_manifest __attribute__((cleanup(manifest_free)))
