/*
 * http1_server: the server's side of one HTTP/1.1 connection.
 *
 * Shape      one exchange (request and its answer) at a time; pipelined requests wait in order.
 *            A handler answers at once or later, from the same loop. Bodies come in pieces
 *            (body()) or held up to a bound (http1_exchange_hold() in head()).
 * Units      bytes, milliseconds.
 * Ownership  the server owns exchanges; a pointer is good from head() to the return of gone().
 *            gone() comes once for each head(), after the answer has been written or when the
 *            caller has left.
 * Threads    the connection's loop.
 * Errors     what the peer does wrong is answered here (400, 408, 413, 431, 501), and the
 *            connection is closed behind it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/conn.h"
#include "common/net/http1.h"

struct http1_server;
struct http1_exchange;

/* What a refusal says beside its error. */
struct http1_refusal {
    struct slice explain; /* its id, by which a node says more; empty: it has none. */
    uint64_t version;     /* of the snapshot; zero: not known. */
    struct slice allow;   /* with 405: the methods that are; empty: it is not said. */
};

struct http1_server_handler {
    /* A request's head came. Answering here is allowed. */
    void (*head)(struct http1_exchange *x, void *ctx);
    /* Bytes of its body; borrowed for the call. Not for held bodies. May be NULL: dropped. */
    void (*body)(struct http1_exchange *x, void *ctx, struct slice bytes);
    /* The request is whole; a held body is in http1_exchange_body(). May be NULL. */
    void (*end)(struct http1_exchange *x, void *ctx);
    /* Output has room again after it had none. May be NULL. */
    void (*drained)(struct http1_exchange *x, void *ctx);
    /* The exchange is over: E_OK when the answer was written whole. May be NULL. */
    void (*gone)(struct http1_exchange *x, void *ctx, struct err why);
    /* What came is no request (x is NULL), or what came behind its head is broken: the server
     * answers by itself, with this status and what is given back, and closes; gone() follows. Not
     * called behind the head of an answer. May be NULL. */
    struct http1_refusal (*refused)(void *ctx, struct http1_exchange *x, unsigned status,
                                    struct err why);
};

struct http1_server_options {
    const struct http1_server_handler *handler; /* kept. */
    void *ctx;                                  /* given to each call. */
    size_t head_bytes;                          /* 0: limits.proxy_head_bytes. */
    size_t header_fields;                       /* 0: limits.request_header_fields. */
    uint64_t idle_ms;                           /* 0: limits.idle_timeout_ms. */
    /* The server is gone with its connection. May be NULL. */
    void (*closed)(void *ctx);
};

/*
 * Serves HTTP/1.1 on an open or opening connection: takes over its handler. The server frees
 * itself with the connection. 'early' are bytes that were already read (a preface that was looked
 * at), or empty. E_NO_MEMORY.
 */
MUST_CHECK struct err http1_server_start(struct net_conn *conn,
                                         const struct http1_server_options *o, struct slice early,
                                         struct http1_server **out);

/* Drain: answers what is open with "connection: close", then closes; idle ones at once. */
void http1_server_drain(struct http1_server *s);

struct net_conn *http1_server_conn(struct http1_server *s);

/* The request. Slices live as long as the exchange. */
const struct http1_head *http1_exchange_head(const struct http1_exchange *x);
struct net_conn *http1_exchange_conn(const struct http1_exchange *x);
void *http1_exchange_ctx(const struct http1_exchange *x);
/* A place for the handler's own pointer; NULL at first. */
void *http1_exchange_user(const struct http1_exchange *x);
void http1_exchange_set_user(struct http1_exchange *x, void *user);

/* In head(): keep the body up to 'max' bytes until end(); a longer one is answered with 413. */
void http1_exchange_hold(struct http1_exchange *x, size_t max);
struct slice http1_exchange_body(const struct http1_exchange *x);
const struct http1_field *http1_exchange_trailers(const struct http1_exchange *x, size_t *count);

/* Back-pressure for bodies in pieces. */
void http1_exchange_pause(struct http1_exchange *x);
void http1_exchange_resume(struct http1_exchange *x);

/*
 * Answers whole: head and body at once. content-length, date-less; "connection" is written as
 * needed: do not give any of these as fields. A body larger than the output's room is kept by the
 * server and written as the peer reads. E_CLOSED when the caller has left, E_USAGE for a bad field
 * (nothing is written).
 */
MUST_CHECK struct err http1_respond(struct http1_exchange *x, unsigned status,
                                    const struct http1_field *fields, size_t field_count,
                                    struct slice body);

/* Answers {"code": ..., "message": ...} with the status of the error's row, and what else is to be
 * said; NULL: nothing. */
MUST_CHECK struct err http1_respond_error(struct http1_exchange *x, struct err why,
                                          const struct http1_refusal *more);

/* Answers in pieces. 'length': of the body; HTTP1_LENGTH_UNKNOWN: chunked (until close for 1.0). */
#define HTTP1_LENGTH_UNKNOWN UINT64_MAX
MUST_CHECK struct err http1_respond_head(struct http1_exchange *x, unsigned status,
                                         const struct http1_field *fields, size_t field_count,
                                         uint64_t length);
/* An interim answer (103, 102); 100 is sent by the server itself when a body is first wanted. */
MUST_CHECK struct err http1_respond_interim(struct http1_exchange *x, unsigned status,
                                            const struct http1_field *fields, size_t field_count);
/* E_TOO_LARGE when it has more than http1_respond_room() bytes, or more than the length allows:
 * nothing is taken. */
MUST_CHECK struct err http1_respond_body(struct http1_exchange *x, struct slice bytes);
/* Trailers may be NULL; they are left out where the answer is not chunked. E_PROTOCOL_ERROR when
 * bytes of the length are missing: then the connection is reset. */
MUST_CHECK struct err http1_respond_end(struct http1_exchange *x,
                                        const struct http1_field *trailers, size_t count);
/* Bytes that http1_respond_body() takes now; drained() comes after it was too little. */
size_t http1_respond_room(const struct http1_exchange *x);
/* Asks for one drained() as soon as the output is at or below half of its bound. */
void http1_exchange_want_drained(struct http1_exchange *x);

/* Whether a head was answered already, and whether the answer is whole. */
bool http1_exchange_answered(const struct http1_exchange *x);
bool http1_exchange_done(const struct http1_exchange *x);

/* Breaks the exchange off: resets the connection. For answers that cannot be finished. */
void http1_exchange_abort(struct http1_exchange *x);

/*
 * CONNECT and upgrades: writes the head (200 or 101, with "connection: upgrade") and hands the
 * connection over: exchange and server are gone when it returns (gone() and closed() are not
 * called); set a handler at once. Bytes behind the request, which belong to the tunnel, are
 * appended to 'early'. Fails like http1_respond_head(), and with the errors of buf_add(); then
 * nothing has changed.
 */
MUST_CHECK struct err http1_exchange_take_conn(struct http1_exchange *x, unsigned status,
                                               const struct http1_field *fields, size_t field_count,
                                               struct net_conn **out_conn, struct buf *early);
