/*
 * peers: whether who is connected may still be, after a swap or when the CAs have changed.
 *
 * Shape      a walk over the worker's connections, for a bounded time in a turn of its loop. A new
 *            reason that comes meanwhile has the walk go round once more behind its end, so that
 *            swaps in a row leave nobody out. Requests and streams are decided by themselves
 *            (dp_request_pool_adopt()); here it is the connection that ends: GOAWAY, or
 *            "connection: close", and what is left of it a second later. One without TLS is let go
 *            in good order once the environment takes none.
 * Ownership  part of its worker.
 * Threads    the worker's.
 * Errors     IDENTITY_REVOKED: certificate or identity was revoked. UNAUTHENTICATED: the trust
 *            domain is not the environment's any more, or no CA vouches for the certificate.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/net/timer.h"

struct dp_caller_conn;
struct dp_worker;

struct dp_peers {
    struct net_timer timer;
    struct dp_caller_conn *next; /* to be looked at; NULL: none. */
    size_t ended;                /* by this walk. */
    bool trust;                  /* certificates are verified again, until a walk is through. */
    bool again;                  /* behind its end the walk begins anew. */
};

void dp_peers_init(struct dp_worker *w);

/* Begins a walk, or another one behind that which goes on. 'trust': the CAs changed. */
void dp_peers_look(struct dp_worker *w, bool trust);

/* A connection leaves the worker's list. */
void dp_peers_gone(struct dp_worker *w, const struct dp_caller_conn *c);

/* No walk goes on: the worker ends. */
void dp_peers_stop(struct dp_worker *w);
