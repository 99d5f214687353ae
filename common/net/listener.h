/*
 * listener: accepts connections on a listening socket that several workers share.
 *
 * Shape      net_listen() makes the socket once; each worker puts a struct net_listener of its
 *            own on it. Whoever wakes first accepts, a bounded number a turn; pass() may hand an
 *            accepted socket to a worker with fewer connections.
 * Ownership  the caller owns the listening descriptor and closes it after the last listener.
 * Threads    net_listen() any; a listener is its loop's. The descriptor is shared.
 * Errors     E_MALFORMED (address), E_IO (bind, listen). Out of descriptors: accepting rests for
 *            100 ms, counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/addr.h"
#include "common/net/conn.h"
#include "common/net/loop.h"

struct net_listener;

/*
 * Opens a listening socket on "host:port", "[v6]:port" or ":port" (all addresses); port 0 lets the
 * kernel choose: *out_bound says which. The caller closes *out_fd. At boot: names are looked up.
 */
MUST_CHECK struct err net_listen(struct slice address, int *out_fd, struct net_addr *out_bound);

/* The kernel refuses new connections to the socket and resets those that nobody accepted yet; and
 * takes them again. All listeners on it have stopped before. Any thread. */
void net_listen_pause(int fd);
void net_listen_resume(int fd);

struct net_listener_options {
    int fd;              /* listening, non-blocking, borrowed. */
    struct net_tls *tls; /* NULL: clear; a reference is taken. */
    struct net_tls_terms terms;
    /*
     * A new connection: set its handler with net_conn_set_handler(), or abort it; opened()
     * comes after.
     */
    void (*accepted)(struct net_conn *conn, void *ctx);
    /* May hand the socket to another worker (who calls net_listener_adopt() on its own loop):
     * true when it took it. NULL: never. */
    bool (*pass)(int fd, void *ctx);
    void *ctx;
};

struct net_listener_stats {
    uint64_t accepted;
    uint64_t passed_on;
    uint64_t rests;  /* times that descriptors or memory were out. */
    uint64_t failed; /* accepted sockets that were lost before they became a connection. */
};

/* Starts accepting. E_NO_MEMORY, E_IO. */
MUST_CHECK struct err net_listener_new(struct net_loop *loop, const struct net_listener_options *o,
                                       struct net_listener **out);

/* Makes a connection of an accepted socket as if it had been accepted here. Takes the socket. */
void net_listener_adopt(struct net_listener *l, int fd);

/* New connections get this context from now on (a reload). A reference is taken. */
void net_listener_set_tls(struct net_listener *l, struct net_tls *tls);

/* New connections must be this from now on. */
void net_listener_set_terms(struct net_listener *l, const struct net_tls_terms *terms);

/* Stops and starts accepting; drain stops it. */
void net_listener_stop(struct net_listener *l);
void net_listener_start(struct net_listener *l);

const struct net_listener_stats *net_listener_stats(const struct net_listener *l);

/* Stops and frees; its connections live on. Accepts NULL. */
void net_listener_free(struct net_listener *l);
