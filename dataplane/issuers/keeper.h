/*
 * keeper: reads issuers' keys from their URLs, off the way of requests.
 *
 * Shape      a thread. For each place that the model in force names it reads the keys at once, then
 *            after each 'refresh', and when a worker misses one, but not sooner than
 *            issuer-rest-ms; what fails is tried again, each time after twice as long. Places are
 *            read side by side: one that does not answer holds up no other. What was read is kept
 *            on disk, goes to all workers, and is in force until something else was read: an
 *            issuer that is away changes nothing.
 * Ownership  dp_issuers_start() gives a keeper that dp_issuers_stop() ends; the configuration is
 *            borrowed until then.
 * Threads    one of its own; dp_issuers_model() and what is of the disk from any.
 * Errors     of a reading: in the log and trilane_issuer_keys_reads_total.
 * Source     docs/tokens.md; docs/decisions/0120-keys-are-read-by-nodes.md.
 */
#pragma once

#include "common/base/err.h"
#include "common/telemetry/metrics.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/issuer_keys.h"

struct dp_issuers;

struct dp_issuers_config {
    const char *data_dir;
    struct metrics *metrics;
    struct metrics_shard *shard; /* the keeper's own. */
    /* Another table is in force, borrowed for the call. On the keeper's thread. */
    void (*read)(void *ctx, struct dp_issuer_keys *keys);
    void *ctx;
};

MUST_CHECK struct err dp_issuers_start(const struct dp_issuers_config *config,
                                       struct dp_issuers **out);
void dp_issuers_stop(struct dp_issuers *k); /* NULL is fine. */

/* A model comes into force: its Issuers' keys are kept from now on, and no others. */
void dp_issuers_model(struct dp_issuers *k, const struct dp_model *model);

/* Another process writes the disk: from now on what is read is not kept there. Waits for a write
 * that is under way. And when that process is gone: it is kept again. */
void dp_issuers_leave_disk(struct dp_issuers *k);
void dp_issuers_take_disk(struct dp_issuers *k);
