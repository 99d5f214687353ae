/*
 * refs: how many hold a thing that threads share and nobody changes any more.
 *
 * Shape      one counter in the thing; the last one to let go frees it.
 * Threads    any. What was written before a drop is seen by whoever frees.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/check.h"
#include "common/base/err.h"

struct refs {
    atomic_uint count;
};

/* The maker holds it. */
static inline void refs_init(struct refs *r)
{
    atomic_init(&r->count, 1);
}

/* One more holds it; the caller does already, or has it from who does. */
static inline void refs_take(struct refs *r)
{
    unsigned before = atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);
    CHECK(before > 0);
}

/* One less; true: it was the last, and the caller frees the thing. */
static inline MUST_CHECK bool refs_drop(struct refs *r)
{
    unsigned before = atomic_fetch_sub_explicit(&r->count, 1, memory_order_acq_rel);
    CHECK(before > 0);
    return before == 1;
}
