/*
 * renewal: keeps the certificate of a node that joined in time.
 *
 * Shape      a thread that sleeps until two thirds of the certificate's life are over, give or
 *            take, makes a new key, has it certified, puts both into effect on disk and tells. What
 *            fails is tried again, each time after twice as long.
 * Units      milliseconds; seconds since the epoch.
 * Ownership  dp_renewal_start() gives a renewal that dp_renewal_stop() ends; the configuration is
 *            borrowed until then.
 * Threads    one of its own; dp_renewal_status() from any.
 * Errors     of a renewal: in the status, the log and trilane_certificate_renewals_total.
 * Source     docs/control-plane.md, "Joining"; docs/node.md, "Joining".
 */
#pragma once

#include "common/snapshot/keys.h"
#include "common/telemetry/metrics.h"
#include "dataplane/join/self.h"

struct dp_renewal;

struct dp_renewal_config {
    const char *data_dir;
    const struct dp_self *self;
    const struct dp_self_cert *cert; /* in force at the start. */
    const struct key_pair *key;      /* the status key. */
    struct metrics *metrics;
    struct metrics_shard *shard; /* the renewal thread's own. */
    /* A new certificate is in effect on disk. On the renewal's thread. */
    void (*renewed)(void *ctx);
    void *ctx;
};

struct dp_renewal_status {
    struct dp_self_cert cert;
    int64_t next_s; /* when it is renewed, or tried again. */
    uint64_t renewals;
    uint64_t failures;
    enum err_code code; /* of the last try; E_OK: it went well, or there was none. */
};

MUST_CHECK struct err dp_renewal_start(const struct dp_renewal_config *config,
                                       struct dp_renewal **out);
/* Accepts NULL. */
void dp_renewal_stop(struct dp_renewal *renewal);

void dp_renewal_status(struct dp_renewal *renewal, struct dp_renewal_status *out);

/* When a certificate is renewed: between 60 and 73 percent of its life, by a number from 0 to
 * 999, so that nodes that joined together do not renew together. */
int64_t dp_renewal_due_s(const struct net_cert_times *times, unsigned per_mille);

/* When the first one is after a start: one that does not say the status key is renewed within a
 * minute, since the control plane shows its node as unverified until then. */
int64_t dp_renewal_first_s(const struct dp_self_cert *cert, int64_t now_s, unsigned per_mille);
