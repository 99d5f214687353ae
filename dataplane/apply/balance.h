/*
 * balance: what picks of an endpoint stand on, made once with the part of its cluster.
 *
 * Shape      endpoints by how near they are, and tables over those of each level: weights, an
 *            order, a ring, hashes; a policy has those that it needs. The same endpoints have the
 *            same tables on every node that they are equally near to.
 * Ownership  all is in the arena that is given.
 * Threads    made by the apply thread, so that no worker sorts a ring in the turn of a swap; then
 *            read by any.
 * Errors     E_NO_MEMORY.
 * Source     ring hash: Karger et al. and Ketama; rendezvous: Thaler and Ravishankar, with weights
 *            by Schindelhauer and Schomaker. Levels: Envoy's priorities and localities.
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

/* Where a node is; empty: nobody said, and all endpoints are as near. */
struct dp_locality {
    struct slice region;
    struct slice zone;
};

/* Brings the cluster's endpoints into the order of their levels, and fills the tables of its
 * balance, whose policy is set. */
MUST_CHECK struct err dp_balance_build(struct arena *arena, const struct dp_locality *here,
                                       struct dp_cluster *cluster);

/* The endpoint that the share 'point' of a level's weights falls to; below weight_sum. */
size_t dp_level_by_weight(const struct dp_level *level, uint64_t point);

/* The first point of the level's ring at or behind 'hash'; an index of the ring. */
size_t dp_level_on_ring(const struct dp_level *level, uint64_t hash);
