/*
 * balance: what picks of an endpoint stand on, made once with the part of its cluster.
 *
 * Shape      tables over the cluster's endpoints, by index: weights, an order, a ring, hashes; a
 *            policy has those that it needs. The same cluster has the same tables on every node.
 * Ownership  all is in the arena that is given.
 * Threads    made by the apply thread, so that no worker sorts a ring in the turn of a swap; then
 *            read by any.
 * Errors     E_NO_MEMORY.
 * Source     ring hash: Karger et al. and Ketama; rendezvous: Thaler and Ravishankar, with weights
 *            by Schindelhauer and Schomaker.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "dataplane/apply/model.h"

/* Points of a ring: of one endpoint, where weights are the same; and of all. */
enum { DP_RING_POINTS_EACH = 256, DP_RING_POINTS_MAX = 65536 };

/* A pick by rendezvous looks at every endpoint. */
enum { DP_RENDEZVOUS_ENDPOINTS_MAX = 1000 };

/* Fills the tables of 'balance', whose policy is set, for these endpoints. */
MUST_CHECK struct err dp_balance_build(struct arena *arena, const struct dp_endpoint *endpoints,
                                       size_t count, struct dp_balance *balance);

/* Which endpoint the share 'point' of the weights falls to; below weight_sum. */
size_t dp_balance_by_weight(const struct dp_balance *balance, uint64_t point);

/* The first point of the ring at or behind 'hash', which has one at least; an index. */
size_t dp_balance_on_ring(const struct dp_balance *balance, uint64_t hash);
