/*
 * bucket: the snapshot bucket as the leader fills it. The journal is the truth, the bucket a copy.
 *
 * Shape      chunks, then the manifest, then (by head.c alone) the head; roots beside them.
 * Threads    background threads; each call waits for NATS up to limits.fetch_timeout_ms.
 * Errors     those of common/bus/kv.h; writes here are idempotent, so a result that is not known
 *            is tried once more.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/bus/kv.h"
#include "common/snapshot/format.h"
#include "controlplane/publish/puts.h"
#include "controlplane/publish/roots.h"
#include "controlplane/store/store.h"

struct cp_bucket {
    struct kv kv;
    uint32_t replicas;      /* that a new one gets; 0 is 1. */
    struct cp_puts *puts;   /* what was put lately; borrowed, may be NULL. */
    struct cp_roots *roots; /* borrowed. */
};

MUST_CHECK struct err cp_bucket_bind(struct cp_bucket *b, struct bus *bus, const char *environment,
                                     struct cp_roots *roots);

/* Makes the bucket when it is missing, and puts all roots when the one in force or the oldest is
 * not in it. 'why' and 'out', which says how it was found, may be NULL. */
MUST_CHECK struct err cp_bucket_prepare(const struct cp_bucket *b, struct buf *why,
                                        struct stream_info *out);

/* Learns from the bucket which chunks were put lately, unless something is known already. What
 * cannot be learnt is put again. */
void cp_bucket_learn(const struct cp_bucket *b);

/* Whether a chunk lies there, put so lately that it need not be put again. */
bool cp_bucket_has_chunk(const struct cp_bucket *b, const uint8_t digest[DIGEST_SHORT_SIZE]);
/* Whether a known root lies in the bucket. */
MUST_CHECK struct err cp_bucket_has_root(const struct cp_bucket *b, uint64_t version, bool *out);
/* Puts the known roots from 'version' on. */
MUST_CHECK struct err cp_bucket_put_roots(const struct cp_bucket *b, uint64_t version);

/* What is to be put as "chunk.<digest>"; borrowed. */
struct cp_bucket_chunk {
    const uint8_t *digest; /* short, of the stored bytes. */
    struct slice stored;
};

/* Puts chunks, many on their way at once; all are there when it returns OK. */
MUST_CHECK struct err cp_bucket_put_chunks(const struct cp_bucket *b,
                                           const struct cp_bucket_chunk *chunks, size_t count);
MUST_CHECK struct err cp_bucket_put_manifest(const struct cp_bucket *b,
                                             const struct cp_record *record,
                                             struct slice container);

/* Whether the manifest of a publication lies in the bucket as it was put. */
MUST_CHECK struct err cp_bucket_has_manifest(const struct cp_bucket *b,
                                             const struct cp_record *record, bool *out);

/* Whether a manifest of that number and digest lies there that a threshold of keys signed. */
MUST_CHECK struct err cp_bucket_has_sealed(const struct cp_bucket *b, uint64_t version,
                                           const uint8_t digest[DIGEST_SIZE], uint64_t timeout_ms,
                                           bool *out);

/* Puts everything of the newest publication again, from the journal; 'why' as cp_bucket_prepare().
 */
MUST_CHECK struct err cp_bucket_restore(const struct cp_bucket *b, struct cp_store *store,
                                        const char *environment, uint64_t *out_version,
                                        struct buf *why);
