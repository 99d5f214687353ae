/*
 * tunnel: CONNECT: opaque bytes both ways, until both sides ended or nothing moved for long.
 *
 * Shape      part of a px_exchange: the caller's connection beside the upstream's. What one side
 *            sends is read only while the other has room; an end of one side is passed on alone.
 * Threads    the request's worker.
 * Errors     TIMEOUT (idle), UPSTREAM_RESET, CANCELLED (the caller).
 * Source     RFC 9110, 9.3.6.
 */
#pragma once

#include "common/base/err.h"

struct px_exchange;

/* Counts it among the worker's tunnels, from the first look-up on; and takes it out again. */
void px_tunnel_count(struct px_exchange *x);
void px_tunnel_uncount(struct px_exchange *x);

/* The upstream is connected: answers 200 and begins. */
MUST_CHECK struct err px_tunnel_begin(struct px_exchange *x);

/* Ends both sides at once, and the request. */
void px_tunnel_end(struct px_exchange *x, struct err why);
