/*
 * quota_file: the counts of quotas on the node's disk.
 *
 * Shape      one file, "quotas", replaced whole: a header with the seed of the keys and whether the
 *            node that wrote it was stopping, an entry a key, a checksum.
 * Ownership  entries are the caller's.
 * Threads    one at a time.
 * Errors     NOT_FOUND: there is none. MALFORMED: it is damaged. PERSIST_FAILED: it could not be
 *            written; the one before is still there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_quota_entry {
    uint64_t key;
    uint64_t value;   /* see quota.h. */
    uint32_t reserve; /* what the key may have counted beyond that. */
    bool made_up;     /* region of the cell. */
};

struct dp_quota_file {
    uint64_t seed;
    bool clean; /* nothing was counted behind it. */
    struct dp_quota_entry *entries;
    size_t count;
};

/* Bytes of a file with 'count' entries. */
size_t dp_quota_file_size(size_t count);

/* Appends the file's bytes. E_NO_MEMORY, E_TOO_LARGE. */
MUST_CHECK struct err dp_quota_file_encode(const struct dp_quota_file *file, struct buf *out);

/* Reads bytes; 'entries' has room for count_max. E_MALFORMED, E_TOO_LARGE: more than those. */
MUST_CHECK struct err dp_quota_file_decode(struct slice bytes, size_t count_max,
                                           struct dp_quota_entry *entries,
                                           struct dp_quota_file *out);

/* Reads and writes the file in a directory. */
MUST_CHECK struct err dp_quota_file_read(int dir_fd, size_t size_max, struct buf *out);
MUST_CHECK struct err dp_quota_file_write(int dir_fd, struct slice bytes);
