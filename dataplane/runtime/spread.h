/*
 * spread: which worker gets the next connection, and the way there.
 *
 * Shape      a seat a worker: how many connections it has, and the accepted sockets that others
 *            passed on to it and that it has not taken yet. Whoever wakes first accepts; when
 *            another worker has fewer connections, it gets the socket.
 * Ownership  the node's. A socket that waits in a seat is the spread's; loops are borrowed.
 * Threads    any, under one lock: once when a connection comes and once when it goes.
 * Errors     E_NO_MEMORY. A worker that takes no more sockets now is passed over.
 * Source     ARCHITECTURE, "Threads of a node".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/net/addr.h"
#include "common/net/loop.h"

struct dp_spread;

/* An accepted socket, the index of the port that it came by, and whom it counts for. */
struct dp_socket {
    int fd;
    size_t port;
    uint64_t source; /* net_addr_source(); 0: nobody. */
};

/* Sockets that wait for one worker; the next ones stay where they were accepted. */
enum { DP_SPREAD_WAITING_MAX = 256 };

enum dp_spread_place {
    DP_SPREAD_HERE,   /* counted for the worker that asked, who keeps the socket. */
    DP_SPREAD_PASSED, /* counted for another, who has it. */
    DP_SPREAD_FULL,   /* the node has as many connections as it may; not counted. */
    DP_SPREAD_CROWD,  /* one source has as many as it may; not counted. */
};

/* What bounds connections: of all workers together. */
struct dp_spread_bounds {
    size_t connections;
    size_t per_source; /* 0: any number; then nobody asks for sources. */
};

MUST_CHECK struct err dp_spread_new(size_t worker_count, const struct dp_spread_bounds *bounds,
                                    struct dp_spread **out);

/* Closes sockets that nobody took. Accepts NULL. */
void dp_spread_free(struct dp_spread *s);

/* Sockets may be passed on to this worker: 'arrived' runs on its loop. Before its thread runs. */
void dp_spread_join(struct dp_spread *s, size_t worker, struct net_loop *loop, net_task_fn *arrived,
                    void *ctx);

/* Nothing is passed on to it any more: before its loop is stopped. Again is fine. */
void dp_spread_leave(struct dp_spread *s, size_t worker);

/* Says who is to have a socket that 'worker' accepted, and counts it there. */
enum dp_spread_place dp_spread_place(struct dp_spread *s, size_t worker, struct dp_socket socket);

/* Takes what waits for a worker; returns how many. They are counted already. */
size_t dp_spread_take(struct dp_spread *s, size_t worker,
                      struct dp_socket out[DP_SPREAD_WAITING_MAX]);

/* A connection that was counted for this worker, and for this source, is gone. */
void dp_spread_drop(struct dp_spread *s, size_t worker, uint64_t source);

/* How many connections a worker has. */
size_t dp_spread_count(struct dp_spread *s, size_t worker);
