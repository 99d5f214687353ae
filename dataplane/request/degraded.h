/*
 * degraded: the services of which an endpoint misses its SLA, as the workers of a node know.
 *
 * Shape      a set of names that counts who says so: a worker, once for each way by which it calls
 *            the service. Bounded: of what is above the bound nobody hears.
 * Ownership  names are copied.
 * Threads    any. Its lock is held for a moment, and never on the way of a request.
 * Errors     E_TOO_LARGE past DP_DEGRADED_MAX services, E_NO_MEMORY.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_degraded;

enum { DP_DEGRADED_MAX = 1024 };

MUST_CHECK struct err dp_degraded_new(struct dp_degraded **out);
void dp_degraded_free(struct dp_degraded *d); /* NULL is fine. */

/* Somebody says that "service/<tenant>/<name>" is degraded; and takes back what succeeded. */
MUST_CHECK struct err dp_degraded_add(struct dp_degraded *d, struct slice service);
void dp_degraded_remove(struct dp_degraded *d, struct slice service);

/* How many services there are. */
uint32_t dp_degraded_count(const struct dp_degraded *d);

/* Another number whenever it came to hold other services. */
uint32_t dp_degraded_edition(const struct dp_degraded *d);

/* Copies of the names in the arena, sorted. */
MUST_CHECK struct err dp_degraded_list(struct dp_degraded *d, struct arena *arena,
                                       const struct slice **out, size_t *out_count);
