/*
 * publish: PublishOne and Publish, from the envelope's bytes to JetStream's ack.
 *
 * Shape      each envelope takes a slot of its call; slots are answered in the order of the
 *            requests. A call with limits.publish_window slots stops reading until one is
 *            answered, so its sender is stopped by the stream's window.
 * Ownership  a slot whose envelope JetStream has not acknowledged belongs to the lane when its call
 *            is gone, until it completes.
 * Threads    the worker's.
 * Errors     on PublishOne a refused envelope is the call's status; on Publish it is answered by
 *            'refusal' and the stream goes on. What breaks the protocol ends either.
 */
#pragma once

#include "common/base/err.h"

struct canon;
struct dp_request;

/* As dp_lane.forward(), .abort(). 'one': PublishOne. */
MUST_CHECK struct err canon_publish_start(struct dp_request *rq, bool one);
void canon_publish_abort(struct dp_request *rq, struct err why);

/* Streams take no more envelopes, and end when those they took are answered. */
void canon_publishes_drain(struct canon *lane);

/* At the end: slots that are kept for later use. */
void canon_slots_free(struct canon *lane);
