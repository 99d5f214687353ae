/*
 * disk_floor: the file `floor`, the commit of a node's disk.
 *
 * Shape      a fixed layout with a checksum; replaced whole: written aside, synced, put in place of
 *            the old one, the directory synced. The old one stays aside, for the next to be written
 *            over it.
 * Threads    one owner at a time.
 * Errors     PERSIST_FAILED from writing; FLOOR_CORRUPT from reading, NOT_FOUND without a file.
 * Source     docs/formats.md, "On a node's disk".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/snapshot/disk_step.h"
#include "common/snapshot/format.h"
#include "common/snapshot/refused.h"

enum disk_mark {
    DISK_MARK_NONE,   /* no version was applied yet. */
    DISK_MARK_TRYING, /* the present version has not proved itself. */
    DISK_MARK_GOOD,   /* it has; it is the last good one. */
    DISK_MARK_COUNT,
};

struct disk_version {
    uint64_t version;            /* zero: none. */
    uint8_t digest[DIGEST_SIZE]; /* of the manifest; all zero: any (set by a root's floor). */
};

/* The content of `floor`. */
struct disk_floor {
    uint64_t root_version;
    uint64_t epoch;
    struct disk_version present;
    enum disk_mark mark;
    uint8_t starts; /* starts while 'trying'; at three the last good one is started. */
    struct disk_version good;
    struct refused refused;
};

/* Reads `floor` below dir_fd. E_USAGE when it is another environment's. */
MUST_CHECK struct err disk_floor_read(int dir_fd, const uint8_t environment[ENVIRONMENT_SIZE],
                                      struct disk_floor *out);

/*
 * Replaces `floor`. On failure *out_replaced says whether the new one is in place all the same
 * (only the sync of the directory failed).
 */
MUST_CHECK struct err disk_floor_write(int dir_fd, const uint8_t environment[ENVIRONMENT_SIZE],
                                       const struct disk_floor *floor,
                                       const struct disk_steps *steps, bool *out_replaced);
