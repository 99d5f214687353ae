/*
 * revoked: what is revoked or blocked in several versions, as one set: it only ever grows.
 *
 * Shape      keys of the stream of revocations, ascending, each once: an entry is its key.
 * Ownership  cp_revoked_init() begins what cp_revoked_free() ends; keys are copied.
 * Threads    the publisher's.
 * Errors     those of where a version is read: E_NOT_FOUND for what the bucket lacks; CHUNK_…,
 *            PART_MALFORMED for what is not as it was signed; E_TOO_LARGE, E_NO_MEMORY.
 * Source     docs/decisions/0061-monotone-parts.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/bus/kv.h"
#include "common/snapshot/manifest.h"
#include "controlplane/publish/sealed.h"

struct cp_revoked {
    struct arena arena;
    struct slice *keys; /* "identity/spiffe://…", "certificate/4a0df3"; owned. */
    size_t count;
    size_t capacity;
};

void cp_revoked_init(struct cp_revoked *set);
void cp_revoked_free(struct cp_revoked *set);
#define auto_revoked __attribute__((cleanup(cp_revoked_free)))

/* Adds what a version of the journal was published with. */
MUST_CHECK struct err cp_revoked_add_version(struct cp_revoked *set,
                                             const struct cp_sealed_place *place, uint64_t version);

/* Adds what a manifest names, whose signatures hold; its chunks are in the bucket. */
MUST_CHECK struct err cp_revoked_add_bucket(struct cp_revoked *set, const struct kv *kv,
                                            const struct manifest *manifest);

/* Whether all of 'part' is in 'whole', too. */
bool cp_revoked_has_all(const struct cp_revoked *whole, const struct cp_revoked *part);

/* Appends the set as a resource of kind Revocation. E_MALFORMED for a key that is none that this
 * release knows. */
MUST_CHECK struct err cp_revoked_print(const struct cp_revoked *set, const char *name,
                                       const char *reason, struct buf *out);
