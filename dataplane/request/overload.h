/*
 * overload: refuses some of what comes while a worker cannot keep up, so that the rest is in time.
 *
 * Shape      what is watched is the queue's delay: how long the loop's turn before kept waiting
 *            what arrived meanwhile. Its least over an interval is a queue that stands, not a burst
 *            that passes. While that is above the target, the share of new requests that is refused
 *            grows, faster the longer the queue is; else it falls.
 * Units      *_ns nanoseconds; shares in thousandths.
 * Threads    the worker's.
 * Source     CoDel, RFC 8289: the least delay over 100 ms as the sign of a standing queue; PIE,
 *            RFC 8033: a share of what comes, by a draw, in place of a spacing of drops.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dp_overload {
    uint64_t target_ns; /* zero: nothing is refused. */
    uint64_t until_ns;  /* end of the interval that runs. */
    uint64_t least_ns;  /* delay in it; UINT64_MAX: none was seen. */
    uint32_t shed_permille;
};

/*
 * Whether the request that comes now, behind a queue of delay_ns, is refused. 'draw' is random;
 * with true *out_retry_ns is set: half a second to one and a half, so that not all come back at
 * once.
 */
bool dp_overload_sheds(struct dp_overload *o, uint64_t now_ns, uint64_t delay_ns, uint64_t draw,
                       uint64_t *out_retry_ns);
