/*
 * reflection: grpc.reflection.v1 and v1alpha, answered by the node itself.
 *
 * Shape      a lane of its own, so that its calls are identified, timed, counted and logged as any
 *            other. It shows what the caller may call: a service when a policy allows at least one
 *            of its methods (of one without descriptors: what a rule for all of its methods, or
 *            for "/package.Service/", allows); a file when it is of such a service. What a file
 *            defines besides is shown with it. A turn of the loop has one answer, or some names of
 *            a list; what is asked meanwhile waits in the window of its stream.
 * Threads    the worker's.
 * Errors     in the answers: NOT_FOUND, also for what is there and not shown; UNIMPLEMENTED for
 *            extensions; RESOURCE_EXHAUSTED past ANSWER_MAX. Of the call: MALFORMED.
 * Source     grpc/grpc, doc/server-reflection.md.
 */
#pragma once

#include <stdbool.h>

#include "common/base/slice.h"
#include "dataplane/request/lane.h"

/* Whether a gRPC service is reflection, of either version. */
bool dp_reflection_serves(struct slice service);

/* Never started: it keeps nothing between calls. */
extern const struct dp_lane dp_reflection_lane;
