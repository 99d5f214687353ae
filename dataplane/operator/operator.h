/*
 * operator: the lane in which a service calls a service, by gRPC.
 *
 * Shape      a dp_lane; its state of a worker is a struct op_state.
 * Ownership  the state owns all that it points to.
 * Threads    the worker's.
 * Source     docs/architecture.md, "the life of a request"; gRPC over HTTP/2.
 */
#pragma once

#include <stdbool.h>

#include "common/telemetry/metrics.h"
#include "dataplane/request/lane.h"

struct h2_env;
struct op_budgets;
struct op_latencies;
struct op_mirrors;
struct op_upstreams;

struct op_state {
    struct op_upstreams *upstreams;
    struct op_budgets *budgets;
    struct op_latencies *latencies;
    struct op_mirrors *mirrors;
    struct h2_env *h2;  /* the worker's. */
    metrics_id replays; /* transparent retries. */
    bool draining;      /* the node shuts down: no call is tried again. */
};

extern const struct dp_lane dp_operator_lane;
