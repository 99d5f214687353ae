/*
 * operator: the lane in which a service calls a service, by gRPC.
 *
 * Shape      a dp_lane; its state of a worker are the upstreams.
 * Threads    the worker's.
 * Source     docs/architecture.md, "the life of a request"; gRPC over HTTP/2.
 */
#pragma once

#include "dataplane/request/lane.h"

extern const struct dp_lane dp_operator_lane;
