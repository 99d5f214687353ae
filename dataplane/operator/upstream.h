/*
 * upstream: the endpoints of clusters as one worker sees them.
 *
 * Shape      a balance a cluster (whose turn it is), an endpoint an address and transport security
 *            (its pool of connections, whether it answered of late). Endpoints outlive snapshots:
 *            a new one finds the connections of the one before.
 * Units      milliseconds; *_ns of the loop's clock.
 * Ownership  upstreams own balances and endpoints. A wait is its owner's; it holds an endpoint
 *            from op_wait_start() until its 'ready' was called or op_wait_cancel().
 * Threads    one worker.
 * Errors     NO_HEALTHY_ENDPOINT: none, or none left to try; what the pool says else.
 * Source     weighted round robin; passive health: an endpoint that refuses connections is left
 *            alone for 1 s, then 2, 4, … 30 s, unless all are in that state (Envoy's panic rule).
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/h2_pool.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/lane.h"

struct op_endpoint;
struct op_upstreams;
struct op_wait;

/* A call tries so many endpoints at most. */
enum { OP_TRIES_MAX = 32 };

/* Which endpoints one call has tried, whatever places they have by now; zeroed is a start. */
struct op_tries {
    uint64_t turn;                /* the call's own in the cluster; zero: it has none yet. */
    uint32_t count;               /* of those in 'tried'. */
    uint32_t tried[OP_TRIES_MAX]; /* what an endpoint is known by on its worker. */
};

/* How an attempt at an endpoint ended. */
enum op_end {
    OP_END_ANSWERED, /* with a grpc-status, wherever in the answer it stood. */
    OP_END_FAILED,   /* the upstream reset it, went away, or sent no gRPC. */
    OP_END_TIMEOUT,  /* no answer by the deadline of the attempt. */
    OP_END_GIVEN_UP, /* by us or the caller: it says nothing of the endpoint. */
};

struct op_outcome {
    enum op_end end;
    int grpc_status;   /* of an answer. */
    uint64_t took_ns;  /* from the last of the request that was sent to the end; of an answer. */
    uint64_t first_ns; /* to the head of the answer; zero: not known, and the end must do. */
    bool hurried;      /* it had little time: that it ran out of that is no failure. */
};

/* The wait is over: 'conn' has room for one request made before this returns, or 'why' says not. */
typedef void op_ready_fn(struct op_wait *wait, struct h2_conn *conn, struct err why);

/* Waiting for a connection to an endpoint; set 'ready', 'ctx' and 'apart', leave the rest. */
struct op_wait {
    op_ready_fn *ready;
    void *ctx;
    bool apart;                   /* it is no call's: circuit breakers do not count it. */
    struct op_endpoint *endpoint; /* NULL: it does not wait. */
    struct op_wait *next;         /* in the endpoint's line while its name is looked up. */
    struct op_wait **at;          /* what points to it there; NULL: it is in no such line. */
    uint64_t until_ns;
    const struct h2_pool *asked; /* of the address that it waits at, or that gave the connection. */
    size_t asked_count;          /* addresses that were asked. */
    struct h2_pool_wait pool_wait;
};

/* 'host' is borrowed for as long as the upstreams live. E_NO_MEMORY. */
MUST_CHECK struct err op_upstreams_new(const struct dp_lane_host *host, struct op_upstreams **out);

/* A new model is in force or, with 'trust', other CAs are: what is known of endpoints follows it.
 * Looks over all connections, a bounded number a turn: one whose peer was revoked or, with 'trust',
 * is vouched for by no CA of ours any more takes no calls, and ends within a second. */
void op_upstreams_look(struct op_upstreams *ups, bool trust);

/* Shows how many connections are open. */
void op_upstreams_measure(struct op_upstreams *ups);

/* Nothing may wait any more. Accepts NULL. */
void op_upstreams_free(struct op_upstreams *ups);

/*
 * Whose turn it is in the request's cluster, among those that the call has not tried; 'tries'
 * remembers. *out is borrowed until the turn of the loop ends. NO_HEALTHY_ENDPOINT: all were tried.
 */
MUST_CHECK struct err op_upstreams_pick(struct op_upstreams *ups, const struct dp_request *rq,
                                        struct op_tries *tries, struct op_endpoint **out);

/* The call has, or has not, tried the endpoint. */
void op_tries_add(struct op_tries *tries, const struct op_endpoint *endpoint);
void op_tries_forget(struct op_tries *tries, const struct op_endpoint *endpoint);

/* Asks for room for one request: *out is a connection to use at once, or NULL and 'ready' comes. */
MUST_CHECK struct err op_wait_start(struct op_wait *wait, struct op_endpoint *endpoint,
                                    uint64_t timeout_ms, struct h2_conn **out);

/* Gives up waiting; safe when it does not wait. */
void op_wait_cancel(struct op_wait *wait);

/* Why the last connection to it came to nothing, as a sentence. */
struct slice op_endpoint_why(const struct op_endpoint *endpoint);

/*
 * How an exchange with the endpoint went, as far as its connections tell. The log has a line when
 * it is left alone, and one when it is reached again.
 */
void op_endpoint_report(struct op_endpoint *endpoint, bool reached);

/* An attempt was sent to the endpoint, which is held until op_attempt_end(); once for each. */
void op_attempt_begin(struct op_endpoint *endpoint);
void op_attempt_end(struct op_endpoint *endpoint, const struct op_outcome *how);

/* "127.0.0.1:15051"; lives as long as the endpoint. */
struct slice op_endpoint_text(const struct op_endpoint *endpoint);
