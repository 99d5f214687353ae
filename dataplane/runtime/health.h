/*
 * health: grpc.health.v1.Health, answered by the node itself.
 *
 * Shape      Check answers once; Watch answers at once and with each change, until the caller or
 *            the node ends it. "" is the node; a service is SERVING when the snapshot registers it.
 *            One that misses its SLA is SERVING all the same, with 'degraded' in the message.
 * Threads    the worker's.
 * Errors     NOT_FOUND for a Check of a service that nobody registers; NO_ROUTE for other methods.
 * Source     grpc/grpc, doc/health-checking.md.
 */
#pragma once

#include <stdbool.h>

#include "common/base/slice.h"

struct dp_worker;
struct h2_fields;
struct h2_stream;

/* Answers a call of the health service. 'end': its head is all of it. */
void dp_health_request(struct dp_worker *w, struct h2_stream *s, const struct h2_fields *fields,
                       bool end);

/* The model, or who is degraded, changed, or the node drains: tells those that watch. */
void dp_health_changed(struct dp_worker *w);
