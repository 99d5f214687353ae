/*
 * h2_pool: a worker's HTTP/2 connections to upstreams.
 *
 * Shape      struct h2_pools finds pools by all that matters to security; struct h2_pool keeps the
 *            connections to one endpoint: few, well filled, the next one opened when the streams
 *            of all are used up. Requests that find no room wait in a bounded line with a deadline.
 * Units      milliseconds; streams; connections.
 * Ownership  pools are reference counted, so that a new snapshot takes over the connections of the
 *            one before: at zero references a pool drains and goes. A struct h2_pool_wait is its
 *            owner's, and is the pool's while it waits.
 * Threads    one worker.
 * Errors     E_UPSTREAM_CONNECT (no connection), E_DEADLINE_EXCEEDED (waited too long),
 *            E_QUEUE_FULL (limits.upstream_pending wait already), E_DRAINING, E_NO_MEMORY.
 * Source     gRPC A6 and the pains of other proxies: streams exhausted means the next connection,
 *            not an error; an idle connection is asked (PING) before it is trusted again.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/addr.h"
#include "common/net/h2.h"
#include "common/net/timer.h"
#include "common/net/tls.h"

struct h2_pool;
struct h2_pools;
struct h2_pool_wait;

/* Whom a connection speaks to: two requests share one only when all of it is the same. */
struct h2_target {
    struct net_addr addr;
    struct net_tls *tls;         /* NULL: cleartext. The pool holds a reference. */
    struct slice server_name;    /* SNI and the name to verify; copied. */
    struct slice spiffe_id;      /* who the peer must be; copied. */
    struct net_tls_terms terms;  /* the versions. */
    uint64_t connect_timeout_ms; /* zero: limits.connect_timeout_ms. */
    uint64_t connections_max;    /* zero, or above it: limits.upstream_connections. */
    uint64_t max_age_ms;         /* a connection so old, a tenth more or less, takes no requests any
                                    more and ends with the last that it has; zero: never. */
};

/*
 * A request's turn has come: 'conn' has room for one h2_conn_request() made before this returns.
 * On failure 'conn' is NULL and 'why' says so.
 */
typedef void h2_pool_ready_fn(struct h2_pool_wait *wait, struct h2_conn *conn, struct err why);

/* A waiting request; intrusive. Set 'ready' and 'ctx', leave the rest. */
struct h2_pool_wait {
    h2_pool_ready_fn *ready;
    void *ctx;
    struct h2_pool_wait *next; /* the pool's. */
    struct h2_pool_wait *prev;
    struct h2_pool *pool; /* where it waits; NULL: nowhere. */
    struct net_timer timer;
};

struct h2_pool_stats {
    uint64_t connections;     /* now, connecting ones counted. */
    uint64_t connecting;      /* now. */
    uint64_t streams;         /* now. */
    uint64_t pending;         /* now. */
    uint64_t opened;          /* ever. */
    uint64_t connect_failed;  /* ever. */
    uint64_t pending_expired; /* ever. */
    uint64_t pending_refused; /* ever: the line was full. */
    uint64_t probes;          /* ever: PINGs before reuse. */
    uint64_t leaving;         /* now: they take no more requests, and end with those they have. */
};

MUST_CHECK struct err h2_pools_new(struct h2_env *env, struct net_loop *loop,
                                   struct h2_pools **out);

/*
 * Says whether what a connection's peer proved is good enough to go on with. Asked when one opens,
 * by what it was dialled with, which may be of before, and again by h2_pools_look(); one that is
 * not takes no requests any more, and those that it has end within H2_POOL_END_MS. Nobody is asked
 * before this is set.
 */
typedef bool h2_pool_judge_fn(void *ctx, struct net_conn *conn, bool opens);
void h2_pools_set_judge(struct h2_pools *pools, h2_pool_judge_fn *judge, void *ctx);

enum { H2_POOL_END_MS = 1000 };

/* Begins to ask of every connection anew; and asks of the next 'max'. False: of all was asked. */
void h2_pools_look_begin(struct h2_pools *pools);
bool h2_pools_look(struct h2_pools *pools, size_t max);

/* Fails what waits, closes all connections, frees the pools as their connections have closed.
 * Nothing may be acquired after. Accepts NULL. */
void h2_pools_free(struct h2_pools *pools);

/* Connections that are open, of all pools; those that connect are not yet. */
size_t h2_pools_open(const struct h2_pools *pools);

/* Finds or makes the pool of a target and adds a reference. E_NO_MEMORY. */
MUST_CHECK struct err h2_pools_get(struct h2_pools *pools, const struct h2_target *target,
                                   struct h2_pool **out);
struct h2_pool *h2_pool_ref(struct h2_pool *pool);

/* At zero references it takes no more, drains its connections, and goes. Accepts NULL. */
void h2_pool_unref(struct h2_pool *pool);

/*
 * Room for one request. Either *out is a connection to call h2_conn_request() on at once, or it is
 * NULL and wait->ready will be called once, never from inside, within 'timeout_ms'.
 */
MUST_CHECK struct err h2_pool_acquire(struct h2_pool *pool, struct h2_pool_wait *wait,
                                      uint64_t timeout_ms, struct h2_conn **out);

/* The request gives up waiting; 'ready' is not called. Safe when it does not wait. */
void h2_pool_cancel(struct h2_pool_wait *wait);

/* What the last connection ended with that failed to serve anybody; OK: none did. */
struct err h2_pool_why(const struct h2_pool *pool);

/* Whether a connection is there that takes requests, though it may have no room just now. */
bool h2_pool_connected(const struct h2_pool *pool);

void h2_pool_stats(const struct h2_pool *pool, struct h2_pool_stats *out);
const struct h2_target *h2_pool_target(const struct h2_pool *pool);
