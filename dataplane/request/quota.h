/*
 * quota: counts of calendar hours, days and months, which survive a restart.
 *
 * Shape      a count is a cell (see cells.h) whose value is the end of its window in hours since
 *            the epoch, above bit 44, and what was counted in it, below: of a window that is over
 *            it is free. A thread of its own writes what was counted to disk, within a second, and
 *            at once when a key needs it: a key counts no more than its reserve beyond what is on
 *            disk. After a crash that reserve counts as used, so that no restart gives anything
 *            back; after an orderly end nothing is lost.
 * Units      hours since the epoch, UTC; *_ms milliseconds.
 * Ownership  the directory's file is this process's.
 * Threads    counting: any worker, without a lock. Opening, starting and ending: the main thread.
 * Errors     opening: MALFORMED, TOO_LARGE, IO.
 * Source     docs/decisions/0116-quotas-on-disk.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dataplane/request/cells.h"

struct dp_quota;

enum { DP_QUOTA_COUNT_BITS = 44 };

/* Of what a quota is. */
enum dp_quota_unit { DP_QUOTA_HOUR = 1, DP_QUOTA_DAY = 2, DP_QUOTA_MONTH = 3 };

/* The window in which a moment lies. */
struct dp_quota_window {
    uint64_t begin_hour;
    uint64_t end_hour;
};
struct dp_quota_window dp_quota_window_of(enum dp_quota_unit unit, int64_t wall_ms);

/*
 * Takes over what the directory's file says, or begins anew where there is none; 'directory' NULL:
 * nothing is kept. Room for 'cells' keys. A disk that cannot be written is no error: every quota is
 * refused until it can.
 */
MUST_CHECK struct err dp_quota_open(const char *directory, size_t cells, struct dp_quota **out);

/* Starts the thread that writes. E_IO. */
MUST_CHECK struct err dp_quota_start(struct dp_quota *quota);

/*
 * Leaves the file to another process, as a crash would: what it says is final, keys count on to
 * their reserve alone, and closing writes nothing. dp_quota_start() takes it back.
 */
void dp_quota_leave(struct dp_quota *quota);

/* Ends the thread, writes all unless it was left, and frees; only when nobody counts any more.
 * Accepts NULL. */
void dp_quota_close(struct dp_quota *quota);

struct dp_cells *dp_quota_cells(struct dp_quota *quota);

/* The seed of keys that are to be the same after a restart. */
uint64_t dp_quota_seed(const struct dp_quota *quota);

/* What a key of which nothing is known may have counted already, before this process began. */
uint64_t dp_quota_unknown(const struct dp_quota *quota, const struct dp_quota_window *window,
                          uint32_t reserve);

/* Whether the count there may become 'value' now; false: it may as soon as the disk has it, within
 * some milliseconds. */
bool dp_quota_covers(struct dp_quota *quota, const struct dp_cell_place *place, uint64_t value,
                     uint32_t reserve);
