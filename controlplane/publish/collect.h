/*
 * collect: what nobody needs any more leaves the snapshot bucket.
 *
 * Shape      a collector that the publisher's thread asks between two publications: it looks how
 *            full the bucket is and, when it leads and the time has come, removes the chunks and
 *            manifests that no version to keep names and that were put long enough ago. Each goes
 *            on condition of the revision that was judged: what another leader puts anew, stays.
 * Units      milliseconds, bytes.
 * Ownership  cp_collector_new() gives one that cp_collector_free() ends.
 * Threads    cp_collector_status() from any; all else is the publisher's thread's.
 * Errors     in the status: a run that ends early begins anew with the next one.
 * Source     docs/formats.md, "Publishing"; docs/control-plane.md, "Collecting".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/bus/jetstream.h"

struct cp_collector;
struct cp_publish_room;

struct cp_collector_status {
    bool looked; /* whether 'bucket' says anything yet. */
    struct stream_info bucket;
    uint32_t replicas;  /* that the bucket should have. */
    uint64_t runs;      /* that went to their end. */
    uint64_t objects;   /* removed since the start. */
    uint64_t bytes;     /* that the bucket lost by it. */
    uint64_t spared;    /* judged, and then put anew or removed by somebody else. */
    enum err_code code; /* why the last run ended early; E_OK: it did not. */
};

MUST_CHECK struct err cp_collector_new(struct cp_collector **out);
/* Accepts NULL. */
void cp_collector_free(struct cp_collector *c);

/* Whether a task waits: then collecting stops where it is. */
typedef bool cp_collector_wanted_fn(void *ctx);

/* Does what is due; returns in how many milliseconds it is to be called again. */
uint64_t cp_collector_turn(struct cp_collector *c, struct cp_publish_room *room,
                           cp_collector_wanted_fn *wanted, void *ctx);

/* Collects now, due or not: the bucket is full. 'out_removed': how many objects went. */
MUST_CHECK struct err cp_collector_run(struct cp_collector *c, struct cp_publish_room *room,
                                       uint64_t *out_removed);

void cp_collector_status(struct cp_collector *c, struct cp_collector_status *out);
