/*
 * drain: how a node lets its callers go.
 *
 * Shape      workers are told to drain, waited for, and told to abort what is left behind the
 *            graceful timeout; past the shutdown timeout the process ends itself.
 * Ownership  parts are borrowed.
 * Threads    the main thread; dp_drain_worker_done(): the workers'.
 * Errors     none: what cannot end is ended.
 */
#pragma once

#include <semaphore.h>
#include <stddef.h>

struct dp_apply;
struct dp_worker;

struct dp_drain {
    sem_t done; /* posted by each worker that has nobody left. */
};

void dp_drain_init(struct dp_drain *d);
void dp_drain_free(struct dp_drain *d);

/* A worker has nobody left. */
void dp_drain_worker_done(struct dp_drain *d);

/* Ends all callers of the workers, or the process with DP_NODE_FORCED. */
void dp_drain_run(struct dp_drain *d, struct dp_apply *apply, struct dp_worker *workers,
                  size_t count);
