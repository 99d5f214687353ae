/*
 * state: the highest numbers that a signer signed, on its disk before a signature leaves it.
 *
 * Shape      one small file: numbers, digests, a checksum; replaced whole, synced.
 * Threads    the signer's only one.
 * Errors     E_MALFORMED when the file is there and cannot be trusted: never taken for a new one.
 *            E_SIGNER_REFUSED by the judging functions. E_IO, E_STORE_FULL when it cannot be
 *            written; nothing may be signed then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/snapshot/format.h"

struct signer_state {
    uint8_t environment[ENVIRONMENT_SIZE];
    /* On disk. */
    uint64_t version;                     /* highest of a manifest. */
    uint8_t manifest_digest[DIGEST_SIZE]; /* of that manifest's body. */
    uint64_t epoch;                       /* highest of a head. */
    uint8_t head_digest[DIGEST_SIZE];     /* of the first head of that epoch. */
    /* Of this process: an epoch is led by one start, and each start has a new one. */
    bool epoch_is_ours;
    uint64_t sequence;
    uint8_t last_digest[DIGEST_SIZE];
};

/* Reads the file; a missing one is all zero. */
MUST_CHECK struct err signer_state_read(const char *path,
                                        const uint8_t environment[ENVIRONMENT_SIZE],
                                        struct signer_state *out);

/* Replaces the file, synced, with its directory. */
MUST_CHECK struct err signer_state_write(const char *path, const struct signer_state *state);

/*
 * Judges a manifest (by version and digest of its body) or a head (by order). On success
 * 'state' holds the new numbers; *out_write says that they must be on disk before signing.
 */
MUST_CHECK struct err signer_state_manifest(struct signer_state *state, uint64_t version,
                                            const uint8_t digest[DIGEST_SIZE], bool *out_write);
MUST_CHECK struct err signer_state_head(struct signer_state *state, uint64_t epoch,
                                        uint64_t sequence, const uint8_t digest[DIGEST_SIZE],
                                        bool *out_write);
