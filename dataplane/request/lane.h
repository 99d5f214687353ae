/*
 * lane: what the life of a request asks of each of the three lanes.
 *
 * Shape      a table of functions, and what a worker lends to it.
 * Ownership  a lane's state of a worker is its own, from start() to stop().
 * Threads    the worker's; the bus calls back on its own threads, into queues.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct board;
struct bus;
struct dp_degraded;
struct dp_request;
struct dp_request_metrics;
struct dp_request_pool;
struct h2_env;
struct net_addr;
struct net_dns;
struct net_loop;
struct net_tls;

enum dp_lane_id { DP_LANE_OPERATOR, DP_LANE_CANONICAL, DP_LANE_PROXY, DP_LANE_COUNT };

/* Lent by the worker for as long as it runs; what a SIGHUP renews changes between two turns. */
struct dp_lane_host {
    struct net_loop *loop;
    struct h2_env *h2;
    struct net_dns *dns;
    struct net_tls *tls;  /* towards upstreams, without a certificate of ours; NULL: no CA given. */
    struct net_tls *mtls; /* with the node's certificate; NULL: none, or no CA given. */
    struct dp_request_metrics *metrics;
    const struct dp_request_pool *requests; /* of the worker: whose model is in force. */
    struct bus *bus;                        /* the node's connection. */
    uint32_t bus_replicas;                  /* servers that keep a stream which the node makes. */
    struct slice environment;               /* its name. */
    const struct net_addr *listens;         /* where this node itself listens. */
    size_t listen_count;
    struct board *board; /* of the health of endpoints, which workers share; NULL: none. */
    struct dp_degraded
        *degraded;       /* services that miss their SLA, of all workers; NULL: nobody asks. */
    size_t worker_count; /* that have each a part of what bounds the node; zero: one. */
};

/* One of the three lanes. */
struct dp_lane {
    enum dp_lane_id id;
    const char *name; /* "operator", "canonical", "proxy". */

    /* Makes the lane's state of one worker; and ends it, when no request is open any more. */
    struct err (*start)(const struct dp_lane_host *host, void **out_state);
    void (*stop)(void *state);

    /* Says what is asked for: sets rq->target, rq->method, rq->verb and what forward() needs.
     * Called anew after a swap, for the model that is in force then: it must not touch what
     * forward() began. A lane whose requests name what they want in their messages sets
     * rq->deferred and no target: steps authorize and limit are passed over, and the lane does
     * nothing of what a message asks for before dp_request_decide() has said yes. */
    struct err (*route)(struct dp_request *rq);

    /* Starts the work. With E_OK the lane has the request: it answers the caller through the
     * front's own connection, and ends the request once by dp_request_done() or
     * dp_request_fail(), which is allowed before this returns, too. With an error it has done
     * nothing, and the front answers. The lane keeps no pointer into the model: what it needs of
     * it for longer it reads through the request each time, or copies. */
    struct err (*forward)(struct dp_request *rq);

    /* Ends the work at once, because of 'why' (deadline, drain, a denial after a swap): answers
     * as well as is still possible, and ends the request, now or soon. Only after forward()
     * took the request; after a denial the pointers of the request may be NULL. No other request
     * ends inside of this call. */
    void (*abort)(struct dp_request *rq, struct err why);

    /* A deferred request after a swap: decides anew, by dp_request_authorize(), what goes on
     * behind it; with an error it is aborted. NULL in a lane that never defers. */
    struct err (*redecide)(struct dp_request *rq);

    /* A new model is in force or, with 'trust', other CAs are: looks over the lane's connections
     * to upstreams, a bounded number a turn, and ends within a second those whose peer does not
     * stand any more. NULL: it keeps none. */
    void (*look)(void *state, bool trust);

    /* Sets the lane's gauges of what stands open; ten times a second. NULL: it has none. */
    void (*measure)(void *state);

    /* The node shuts down: end soon what would go on for long. Requests may end inside of this
     * call. NULL: nothing goes on for long. */
    void (*drain)(void *state);
};
