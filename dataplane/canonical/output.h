/*
 * output: the answer of a call, towards a reader that may be slow.
 *
 * Shape      what a stream does not take at once waits here; while something waits, the call makes
 *            nothing more. So a reader that does not read holds at most one response of ours.
 * Ownership  borrows the request and its stream. canon_output_free() gives back what waits.
 * Threads    the worker's.
 * Errors     those of h2.h.
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_request;

struct canon_output {
    struct dp_request *rq;
    struct buf waiting; /* of responses that were begun. */
};

struct canon_output canon_output_of(struct dp_request *rq);
void canon_output_free(struct canon_output *out);

/* Whether something waits for the reader. */
static inline bool canon_output_waits(const struct canon_output *out)
{
    return out->waiting.size > 0;
}

/* Sends a whole gRPC message; the first one begins the answer. Only while nothing waits. */
MUST_CHECK struct err canon_output_send(struct canon_output *out, struct slice message);

/* The stream has room again. */
MUST_CHECK struct err canon_output_flush(struct canon_output *out);

/* Ends the answer with status 0; only while nothing waits. */
MUST_CHECK struct err canon_output_finish(struct canon_output *out);

/*
 * Ends the call with a refusal that says 'sentence' (empty: the code's own), or, when its caller
 * is gone, without one. The request is over, or the front answers it: it is not touched again.
 */
void canon_output_fail(struct canon_output *out, struct err why, struct slice sentence);
