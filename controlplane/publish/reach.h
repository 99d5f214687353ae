/*
 * reach: whether the nodes that a publication would reach can apply it, and what it is written in.
 *
 * Shape      a pure function over a copy of the fleet. A node that is silent, or neither verified
 *            nor claimed, holds nothing up: it refuses by itself, with CAPABILITY_MISSING, what it
 *            cannot do.
 * Threads    any.
 * Errors     E_CAPABILITY_MISSING: a sentence names each such node and what it lacks.
 * Source     docs/formats.md: a publisher asks nothing of a targeted node that it cannot do.
 */
#pragma once

#include "controlplane/fleet/fleet.h"

/* What a snapshot asks of whoever applies it. */
struct cp_reach_need {
    uint64_t capabilities;
    uint32_t format; /* of the snapshot. */
};

/* What to write: the lowest format that a live node speaks, within what this release writes. Nobody
 * lives: SNAPSHOT_FORMAT. Whether all read it is cp_reach_judge()'s to say. */
uint32_t cp_reach_format(const struct cp_fleet_node *nodes, size_t count);

/* Judges; *out_live gets the number of live nodes in either case. */
MUST_CHECK struct err cp_reach_judge(const struct cp_fleet_node *nodes, size_t count,
                                     const struct cp_reach_need *need, uint64_t *out_live,
                                     struct buf *sentence);
