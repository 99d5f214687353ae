/*
 * limit: token buckets (GCRA) in one bounded table of the node.
 *
 * Shape      a cell is one atomic word, the theoretical arrival time (TAT) in ns of the monotonic
 *            clock, found by the hash of limit id and key values. Cells live outside of every
 *            snapshot: a swap never refills a bucket. A cell whose TAT is past is a full bucket
 *            and may be given to another key.
 * Units      *_ns nanoseconds; a request costs one period.
 * Ownership  dp_limit_target belongs to the part that it was built from.
 * Threads    the table: any worker, lock-free. Targets: any number of readers.
 * Errors     building: PART_MALFORMED; passing: RATE_LIMITED with the time to wait.
 * Source     GCRA: ITU-T I.371; the cell rate algorithm as Linkerd and redis-cell use it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller;
struct dp_limit_target;
struct dp_limit_table;

/* Builds from the strictly decoded bytes of a LimitTarget part. */
MUST_CHECK struct err dp_limit_build(struct slice part, struct dp_limit_target **out);
void dp_limit_free(struct dp_limit_target *target);
struct slice dp_limit_target_id(const struct dp_limit_target *target);

/* The node's table of 'cells' (rounded up to a power of two). E_NO_MEMORY. */
MUST_CHECK struct err dp_limit_table_new(size_t cells, struct dp_limit_table **out);
void dp_limit_table_free(struct dp_limit_table *table);

struct dp_limit_refusal {
    struct slice limit; /* its id, borrowed from the target. */
    uint64_t retry_ns;  /* how long until the next one passes. */
};

/*
 * Takes one request from every limit of the target that matches method; all or nothing: when one
 * refuses, what was taken from the others is given back. RATE_LIMITED sets *out. 'target' NULL
 * passes.
 */
MUST_CHECK struct err dp_limit_take(struct dp_limit_table *table,
                                    const struct dp_limit_target *target, struct slice method,
                                    const struct dp_caller *caller, uint64_t now_ns,
                                    struct dp_limit_refusal *out);

/* Cells that were given to another key while not full, since start: buckets forgiven. */
uint64_t dp_limit_table_evicted(const struct dp_limit_table *table);
