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
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* Fills balance, outliers and breakers of a cluster whose endpoints are decoded. */
MUST_CHECK struct err dp_decode_balancing(const Trilane__Parts__V1__Cluster *m, struct arena *arena,
                                          struct dp_cluster *cluster);
