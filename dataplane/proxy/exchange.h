/*
 * exchange: one request of the proxy lane, and what its rooms share.
 *
 * Shape      lives in the request's arena from the first route() on. Two connections: the
 *            caller's, through its HTTP/1 exchange (a tunnel: directly), and the upstream's.
 * Units      bytes, milliseconds, nanoseconds of the loop.
 * Ownership  the request owns it; it gives up both connections when it ends.
 * Threads    the request's worker.
 * Errors     those of the proxy lane in docs/errors.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/addr.h"
#include "common/net/conn.h"
#include "common/net/http1.h"
#include "common/net/timer.h"
#include "common/telemetry/metrics.h"
#include "dataplane/apply/model.h"
#include "dataplane/proxy/destination.h"
#include "dataplane/request/lane.h"

struct dp_request;
struct net_dns_query;

enum { PX_VIA_MAX = 32, PX_DOMAINS = 256 };

/* What a worker keeps for all of its exchanges. */
struct px_worker {
    const struct dp_lane_host *host; /* borrowed. */
    struct net_tls *outside;         /* verifies against the system's CAs; NULL: not needed yet. */
    size_t tunnel_count;
    metrics_id tunnels;
    struct px_domain {
        uint64_t hash; /* of the host; zero: free. */
        metrics_id latency;
    } domains[PX_DOMAINS]; /* a memo of series. */
};

struct px_exchange {
    struct dp_request *rq;
    struct px_worker *worker;
    struct px_destination to;
    const struct dp_egress *egress; /* of the model that the request stands on; NULL: denied. */

    /* Where to: judged addresses, dialled in their order. */
    struct net_dns_query *query; /* NULL: none is open. */
    struct net_addr *addrs;      /* each may be dialled. */
    size_t addr_count;
    size_t addr_next;    /* the first that was not dialled yet. */
    struct net_conn *up; /* NULL: none. */
    bool up_open;
    uint64_t dialled_ns;

    /* The request's body. */
    bool chunked; /* it goes on in chunks. */

    /* The answer. */
    struct http1_parser parser;
    unsigned interim_count;

    /* A tunnel. */
    bool counted;          /* in the worker's tunnels. */
    struct net_conn *down; /* the caller's connection; NULL: still an exchange. */
    struct net_timer idle;
    uint64_t idle_ms;
    uint64_t began_ns;
    bool up_ended; /* that side sends no more. */
    bool down_ended;
};

/* dp_lane.forward and dp_lane.abort. */
MUST_CHECK struct err px_exchange_start(struct dp_request *rq);
void px_exchange_abort(struct dp_request *rq, struct err why);

/* Whether an address may be dialled for the exchange, as its Egress and this node are now. */
MUST_CHECK struct err px_exchange_judge(const struct px_exchange *x, const struct net_addr *addr);

/* Whether whom we are connected to, of those that our CAs vouch for, still stands. */
MUST_CHECK struct err px_exchange_judge_peer(const struct px_exchange *x);

/* Ends it with an answer of ours, or, when the answer began, by cutting it off. */
void px_exchange_fail(struct px_exchange *x, struct err why);

/* The bound of a connection's output, and the room that it must have for more to be read: what
 * one read brings always fits. */
size_t px_output_max(void);
enum { PX_PIECE_MAX = 2 * NET_READ_BYTES + 256 };
