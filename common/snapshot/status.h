/*
 * status: what a node says of itself, signed by the node's own key.
 *
 * Shape      one container of kind status with one signature.
 * Ownership  plain values without heap.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     E_MALFORMED, E_UNAUTHENTICATED (not signed by the key of that node), E_USAGE from
 *            status_seal().
 * Source     docs/formats.md, "Bodies".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/container.h"

struct status {
    char node[KEY_NAME_MAX + 1];
    uint64_t epoch; /* of the last head accepted. */
    uint64_t sequence;
    uint64_t version; /* served now; zero: none. */
    uint8_t content_prefix[STATUS_PREFIX_SIZE];
    enum snap_state state;
    uint32_t code; /* err_code of the refusal that holds; zero: none. A newer node may name one
                      that is not listed here. */
    char object[STATUS_OBJECT_MAX + 1]; /* what was refused; empty without a refusal. */
    int64_t at_ms;
    uint32_t format; /* highest snapshot format that the node speaks. */
    uint32_t health_count;
    uint32_t health[STATUS_HEALTH_MAX]; /* by enum status_health. */
    uint64_t count;                     /* grows with each status of this node. */
    uint64_t capabilities;
};

/* Appends a signed status. */
MUST_CHECK struct err status_seal(const struct status *s,
                                  const uint8_t environment[ENVIRONMENT_SIZE],
                                  const struct key_pair *pair, struct buf *out);

/* Opens one by the key that is enrolled for the node. */
MUST_CHECK struct err status_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                                  const struct key_public *key, struct status *out);
