/*
 * state: the highest numbers that a signer signed, on its disk before a signature leaves it.
 *
 * Shape      one small file that is opened once and written in place: two copies of numbers,
 *            digests and a checksum, each in a block of its own, the second written when the first
 *            is on disk. So one copy is always whole, a block that goes bad loses nothing, and a
 *            signer that has started opens no file any more. A copy that does not hold is written
 *            anew from the other one at the next start.
 * Ownership  the descriptor is the caller's.
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
    uint64_t shares_epoch; /* of the last shares, and the next. */
    uint64_t shares_sequence;
};

/* Opens the file and reads it. A missing one is made, all zero, with all the room that it needs;
 * one that an older release wrote is written anew. */
MUST_CHECK struct err signer_state_open(const char *path,
                                        const uint8_t environment[ENVIRONMENT_SIZE],
                                        struct signer_state *out, int *out_fd);

/* Writes both copies, each synced. By pwrite() and fdatasync() on 'fd' alone. */
MUST_CHECK struct err signer_state_write(int fd, const struct signer_state *state);

/*
 * Judges a manifest (by version and digest of its body) or a head (by order). On success
 * 'state' holds the new numbers; *out_write says that they must be on disk before signing.
 */
MUST_CHECK struct err signer_state_manifest(struct signer_state *state, uint64_t version,
                                            const uint8_t digest[DIGEST_SIZE], bool *out_write);
MUST_CHECK struct err signer_state_head(struct signer_state *state, uint64_t epoch,
                                        uint64_t sequence, const uint8_t digest[DIGEST_SIZE],
                                        bool *out_write);

/* Judges shares: of the epoch of the last head alone, each with a higher sequence than the last. */
MUST_CHECK struct err signer_state_shares(struct signer_state *state, uint64_t epoch,
                                          uint64_t sequence);
