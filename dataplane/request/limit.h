/*
 * limit: how often, and how many at once: budgets by key, in bounded tables of the node.
 *
 * Shape      a limit counts requests at a rate (GCRA: a cell is the theoretical arrival time, TAT,
 *            in ns of the monotonic clock; one that is past is a full bucket), or those in flight,
 *            or those of an hour, day or month (quota.h).
 *            Its cells are found by the hash of its id and of the values that it counts by; they
 *            live outside of every snapshot, so that a swap never refills a bucket. See cells.h
 *            for what happens when callers make keys.
 * Units      *_ns nanoseconds; a request costs one.
 * Ownership  dp_limit_target belongs to the part that it was built from.
 * Threads    the table: any worker, lock-free. Targets: any number of readers.
 * Errors     building: PART_MALFORMED; passing: RATE_LIMITED with the time to wait,
 *            LIMIT_KEY_MISSING with the header.
 * Source     GCRA: ITU-T I.371; the cell rate algorithm as Linkerd and redis-cell use it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "dataplane/request/cells.h"

struct dp_caller;
struct dp_limit_target;
struct dp_limit_table;
struct dp_quota;

/* How many limits of a target may count what is in flight. */
enum { DP_LIMIT_HELD_MAX = 4 };

/* Builds from the strictly decoded bytes of a LimitTarget part. */
MUST_CHECK struct err dp_limit_build(struct slice part, struct dp_limit_target **out);
void dp_limit_free(struct dp_limit_target *target);
struct slice dp_limit_target_id(const struct dp_limit_target *target);

/* The node's table: 'cells' for rates, a quarter of that for what is in flight. E_NO_MEMORY. */
MUST_CHECK struct err dp_limit_table_new(size_t cells, struct dp_limit_table **out);
void dp_limit_table_free(struct dp_limit_table *table);

/* Where quotas are counted (borrowed), before any thread takes from the table; without it each is
 * refused. */
void dp_limit_table_keep(struct dp_limit_table *table, struct dp_quota *quota);

/* What is asked for, as far as limits count by it. */
struct dp_limit_query {
    struct slice method;
    const struct dp_caller *caller;
    uint64_t now_ns;
    bool safe; /* it changes nothing, so that a limit may let it pass where it cannot count. */
    /* Finds a request header by its lower-case name; false when it is not there. */
    bool (*header)(const void *ctx, struct slice name, struct slice *out_value);
    const void *ctx;
};

/* What a request that passed counts for as long as it lasts. */
struct dp_limit_held {
    struct {
        struct dp_cell_key key;
        struct dp_cell_place place;
    } items[DP_LIMIT_HELD_MAX];
    size_t count;
};

/* name, what was refused: the label of the metric. */
#define DP_LIMIT_WHY_LIST(X)                                                                       \
    X(RATE, "rate")               /* the bucket is empty. */                                       \
    X(CONCURRENCY, "concurrency") /* as many as may be are in flight. */                           \
    X(QUOTA, "quota")             /* the hour, day or month has had all. */                        \
    X(DISK, "disk")               /* a quota has some, and waits for the disk to know of it. */    \
    X(SHARE, "share")             /* the node has no share of the fleet's budget. */               \
    X(KEY, "key")                 /* the request has nothing to count it by. */

enum dp_limit_why {
#define X(name, label) DP_LIMIT_##name,
    DP_LIMIT_WHY_LIST(X)
#undef X
        DP_LIMIT_WHY_COUNT
};

struct dp_limit_refusal {
    struct slice limit;  /* its id, borrowed from the target. */
    struct slice header; /* KEY: which header is missing; borrowed. */
    uint64_t retry_ns;   /* how long until the next one may pass; zero: never as it is. */
    enum dp_limit_why why;
};

/*
 * Takes one request from every limit of the target that matches; all or nothing: when one refuses,
 * nothing is taken from the others. What is in flight from now on goes into *held (empty before),
 * for dp_limit_release(). RATE_LIMITED and LIMIT_KEY_MISSING set *out. 'target' NULL passes.
 */
MUST_CHECK struct err dp_limit_take(struct dp_limit_table *table,
                                    const struct dp_limit_target *target,
                                    const struct dp_limit_query *query, struct dp_limit_held *held,
                                    struct dp_limit_refusal *out);

/* What was held is over; *held is empty again. */
void dp_limit_release(struct dp_limit_table *table, struct dp_limit_held *held);

/* How often a key had to share its cell with others for want of room, since start. */
uint64_t dp_limit_table_crowded(const struct dp_limit_table *table);

/*
 * Calls 'each' with every limit that counted something since start, up to a bound, and the least
 * that was left of one of its budgets in the last seconds, in thousandths. Any thread.
 */
typedef void dp_limit_left_fn(void *ctx, struct slice limit, uint32_t left_permille);
void dp_limit_left(const struct dp_limit_table *table, uint64_t now_ns, dp_limit_left_fn *each,
                   void *ctx);
