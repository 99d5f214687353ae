/*
 * canonical: the lane on which a service tells the others: trilane.bus.v1.Bus over gRPC, events on
 * JetStream.
 *
 * Source     docs/canonical.md; proto/trilane/bus/v1/bus.proto; dataplane/request/lane.h.
 */
#pragma once

#include "dataplane/request/lane.h"

extern const struct dp_lane dp_canonical_lane;
