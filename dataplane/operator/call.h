/*
 * call: one gRPC call between a caller's stream and an upstream's.
 *
 * Shape      lives in the request's arena; two streams and two scans of messages.
 * Ownership  the request owns the call; the call gives up both streams when it ends.
 * Threads    the request's worker.
 * Errors     those of the operator lane in docs/errors.md.
 */
#pragma once

#include "common/base/err.h"

struct dp_request;

/* dp_lane.forward: finds an endpoint and begins. */
MUST_CHECK struct err op_call_start(struct dp_request *rq);

/* dp_lane.abort: ends both sides. */
void op_call_abort(struct dp_request *rq, struct err why);
