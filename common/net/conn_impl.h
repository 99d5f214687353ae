/*
 * conn_impl: what a connection is made of; for conn.c, conn_output.c and conn_tls.c alone.
 *
 * Shape      conn.c reads, and decides about life and death; conn_output.c queues and writes;
 *            conn_tls.c stands between them and OpenSSL. Whatever ends a connection only marks it
 *            (net_conn_break()); the hook at the end of the turn acts on the marks.
 * Threads    the loop's thread.
 */
#pragma once

#include <openssl/ssl.h>
#include <uv.h>

#include "common/net/conn.h"
#include "common/net/loop_impl.h"

enum net_conn_state {
    NET_CONN_CONNECTING,
    NET_CONN_HANDSHAKE,
    NET_CONN_OPEN,
};

/* Chunks in a row. */
struct net_chunks {
    struct net_chunk *first;
    struct net_chunk *last;
    size_t bytes;
};

struct net_conn_tls {
    SSL *ssl; /* NULL: in clear. */
    struct net_tls *context;
    struct slice input;       /* what the socket gave and OpenSSL has not taken; borrowed. */
    struct net_chunks sealed; /* records that wait for the socket. */
    char *spiffe_id;          /* the peer must be this; NULL: anybody. */
    bool refuse_others;       /* ALPN must have chosen h2. */
    struct net_tls_terms terms;
    bool said_goodbye;             /* close_notify is sealed. */
    struct net_identity *identity; /* NULL: none given. */
    uint8_t *stash;                /* clear text that came while reading was paused; NULL: none. */
    size_t stash_bytes;
};

struct net_conn {
    uv_poll_t poll;
    struct net_loop *loop;
    struct net_conn *next; /* of all the loop's. */
    struct net_conn **link;
    const struct net_conn_handler *handler; /* never NULL; an empty one calls nobody. */
    void *ctx;
    int fd;
    enum net_conn_state state;
    int polled; /* what uv_poll watches now. */
    struct net_hook hook;
    struct net_timer timer; /* connecting, shaking hands; blocked output; flushing, lingering. */
    bool opened_due;        /* opened() comes at the end of the turn. */
    bool paused;
    bool blocked; /* the socket took no more: wait until it is writable. */
    bool refused; /* the peer takes nothing any more; what it said last is read first. */
    bool eof;     /* the peer's FIN or close_notify came. */
    bool eof_due; /* eof() comes when reading goes on. */
    bool want_drained;
    bool shutdown_asked; /* FIN behind the output. */
    bool shutdown_done;
    bool closing; /* net_conn_close(): flush, FIN, linger. */
    bool lingering;
    bool broken; /* ends at the end of the turn, with 'why'. */
    bool reset;  /* ... by RST. */
    struct err why;
    struct net_chunks output; /* in clear. */
    size_t output_max;
    size_t reserved;        /* lent by net_conn_reserve(). */
    size_t discarded_bytes; /* read while closing. */
    struct net_conn_tls tls;
    struct net_addr peer;
    struct net_addr local;
    struct net_conn_stats stats;
};

/* Marks the connection as dead; the end of the turn buries it. The first reason counts. */
void net_conn_break(struct net_conn *conn, struct err why);

/* Brings what uv_poll watches in line with the connection's state. */
void net_conn_watch(struct net_conn *conn);

/* Connected and shaken hands: tells the handler. */
void net_conn_opened(struct net_conn *conn);

/* Lends clear bytes to the handler. */
void net_conn_deliver(struct net_conn *conn, struct slice bytes);

/* conn_output.c: writes as much as the socket takes. */
void net_conn_write_out(struct net_conn *conn);
void net_chunks_clear(struct net_loop *loop, struct net_chunks *chunks);
/* Room for at least one byte at the end of 'chunks'; NULL when the heap is full. */
struct net_chunk *net_chunks_tail(struct net_loop *loop, struct net_chunks *chunks, size_t size);
/* Forgets bytes at the front. */
void net_chunks_drop(struct net_loop *loop, struct net_chunks *chunks, size_t size);

/* conn_tls.c. */
struct net_conn_tls_expect {
    struct slice server_name;
    struct slice spiffe_id;
    bool http1_only;
};
MUST_CHECK struct err net_conn_tls_init(struct net_conn *conn, struct net_tls *tls,
                                        const struct net_tls_terms *terms,
                                        const struct net_conn_tls_expect *client);
void net_conn_tls_free(struct net_conn *conn);
/* Goes on with the handshake; opens the connection when it is done. */
void net_conn_tls_handshake(struct net_conn *conn);
/* Takes bytes from the socket. */
void net_conn_tls_input(struct net_conn *conn, struct slice bytes);
/* Turns output into records. */
void net_conn_tls_seal(struct net_conn *conn);
/* Seals a close_notify. */
void net_conn_tls_goodbye(struct net_conn *conn);
/* Delivers what was kept while reading was paused. */
void net_conn_tls_unstash(struct net_conn *conn);
