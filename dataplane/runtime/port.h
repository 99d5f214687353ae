/*
 * port: an address that callers connect to, and what becomes of a connection to it.
 *
 * Shape      a connection is first looked at (ALPN under TLS, the first bytes in clear) and then
 *            given to a front: gRPC over HTTP/2, or HTTP/1.1. The worker knows each connection
 *            from accept to end, so that a drain reaches all of them.
 * Ownership  the worker's; a dp_caller_conn frees itself with its connection.
 * Threads    the worker's.
 * Errors     past limits.connections of the node, and past limits.connections_per_address of one
 *            peer, new ones are reset, and counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/net/conn.h"
#include "common/net/h2.h"
#include "common/net/http1_server.h"
#include "common/net/timer.h"

struct dp_request;
struct dp_socket;
struct dp_web_socket;
struct dp_worker;
struct net_listener;

enum dp_port_id {
    DP_PORT_TLS,       /* operator and canonical lanes. */
    DP_PORT_CLEAR,     /* the same, h2c and HTTP/1.1. */
    DP_PORT_PROXY_TLS, /* proxy lane. */
    DP_PORT_PROXY_CLEAR,
    DP_PORT_COUNT
};

struct dp_port {
    struct dp_worker *worker;
    enum dp_port_id id;
    struct net_listener *listener; /* NULL: this port is not open. */
    bool closed;      /* takes nobody: the environment takes no cleartext, or a drain. */
    uint64_t adopted; /* the source of the socket that becomes a connection now. */
};

static inline bool dp_port_is_tls(enum dp_port_id id)
{
    return id == DP_PORT_TLS || id == DP_PORT_PROXY_TLS;
}

static inline bool dp_port_is_proxy(enum dp_port_id id)
{
    return id == DP_PORT_PROXY_TLS || id == DP_PORT_PROXY_CLEAR;
}

/* Bytes that tell HTTP/2 from HTTP/1 in clear. */
enum { DP_PREFACE_BYTES = 3 };

/* One connection of a caller. */
struct dp_caller_conn {
    struct dp_port *port;
    struct net_conn *net;       /* while it is looked at, of a tunnel or WebSocket; else NULL. */
    struct h2_conn *h2;         /* or this… */
    struct http1_server *http1; /* …or this speaks on it. */
    struct dp_request *tunnel;  /* a lane has the connection, for this request; NULL: none. */
    struct net_timer timer;     /* how long it may stay silent at first; when it is cut off. */
    struct net_timer age;       /* when it is told to leave; then, when its grace is over. */
    bool aged;                  /* it was told. */
    bool ending;                /* dp_caller_conn_end() was called. */
    uint64_t source;            /* whom it counts for; 0: nobody. */
    struct buf early;           /* bytes that were too few to tell. */
    char peer[NET_ADDR_TEXT_MAX];
    struct dp_web_socket *socket; /* NULL: the connection is no WebSocket. */
    struct dp_caller_conn *next;  /* in the worker's list. */
    struct dp_caller_conn *prev;
};

/* Opens the worker's listener of a port on the node's socket. */
MUST_CHECK struct err dp_port_open(struct dp_port *port, int fd, struct net_tls *tls);

/* Makes a connection of a socket that is counted for this worker; takes it. */
void dp_port_adopt(struct dp_port *port, struct dp_socket socket);

/* Takes nobody any more; and again. Both may be told twice. */
void dp_port_close(struct dp_port *port);
void dp_port_reopen(struct dp_port *port);

/* The connection is gone. */
void dp_caller_conn_free(struct dp_caller_conn *c);

/* What it speaks on; never NULL. */
struct net_conn *dp_caller_conn_net(const struct dp_caller_conn *c);

/* Whether its certificate says who calls; a token says nothing then. */
bool dp_caller_conn_is_proven(const struct dp_caller_conn *c);

/* A lane has the connection from now on, for a request whose end is the connection's. */
void dp_caller_conn_tunnel(struct dp_caller_conn *c, struct net_conn *net, struct dp_request *rq);

/* A WebSocket has the connection from now on. */
void dp_caller_conn_socket(struct dp_caller_conn *c, struct net_conn *net,
                           struct dp_web_socket *socket);

/* It was accepted, and nobody knows yet what it speaks. */
bool dp_caller_conn_is_new(const struct dp_caller_conn *c);

/* Ends it in good order: GOAWAY, or "connection: close"; one that said nothing yet at once. A
 * tunnel is its request's to end. */
void dp_caller_conn_drain(struct dp_caller_conn *c);

/* The same because of 'why', and a tunnel, too; what is left of it in a second is cut off. */
void dp_caller_conn_end(struct dp_caller_conn *c, struct err why);

/* Ends it now, unless it is a tunnel. */
void dp_caller_conn_abort(struct dp_caller_conn *c, struct err why);
