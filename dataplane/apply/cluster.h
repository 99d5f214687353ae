/*
 * cluster: what a cluster's part says of its endpoints beside their addresses.
 *
 * Ownership  what is made lies in the arena; strings borrow from the message.
 * Threads    the apply thread.
 * Errors     PART_MALFORMED for a number out of its bounds; E_NO_MEMORY.
 * Source     proto/trilane/parts/v1/parts.proto, routing.
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/err.h"
#include "dataplane/apply/balance.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* Fills what picks stand on, of a cluster whose endpoints are decoded, for a node that is 'here'.
 */
MUST_CHECK struct err dp_decode_balancing(const Trilane__Parts__V1__Cluster *m, struct arena *arena,
                                          const struct dp_locality *here,
                                          struct dp_cluster *cluster);
