/*
 * mirror: copies of requests for a shadow, whose answers are compared and dropped.
 *
 * Shape      a copy is an exchange of its own, which the call feeds and forgets. It has its own
 *            memory, never asks the caller to wait, and is dropped when the shadow is too slow to
 *            take it. It has the call's deadline, and when that ends limits.mirror_after_ms.
 * Units      bytes; *_ns of the loop's clock.
 * Ownership  the mirrors own the copies. A call may use its own until op_mirror_detach().
 * Threads    one worker.
 * Errors     none for the call: what becomes of a copy is counted, in trilane_mirrored_total.
 * Source     Envoy's request mirror policies: "-shadow" behind the authority.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "dataplane/request/lane.h"

struct dp_request;
struct op_mirror;
struct op_mirrors;
struct op_upstreams;

/* 'host' and 'upstreams' are borrowed for as long as the mirrors live. E_NO_MEMORY. */
MUST_CHECK struct err op_mirrors_new(const struct dp_lane_host *host,
                                     struct op_upstreams *upstreams, struct op_mirrors **out);

/* Ends what is under way; no call has a copy any more. Accepts NULL. */
void op_mirrors_free(struct op_mirrors *all);

/*
 * Begins a copy of a request whose route has a shadow: its head, and the end if it has no body.
 * NULL: it was not drawn, may not go there, or limits.mirrored_calls are under way.
 */
struct op_mirror *op_mirror_start(struct op_mirrors *all, struct dp_request *rq);

/* Bytes of the request that came behind the head. */
void op_mirror_send(struct op_mirror *m, struct slice bytes, bool end);

/* Bytes of the answer that the caller gets. */
void op_mirror_answer(struct op_mirror *m, struct slice bytes);

/* The call is over, with this grpc-status; -1: without an answer of the upstream. The pointer is of
 * no use any more. */
void op_mirror_detach(struct op_mirror *m, int grpc_status);
