/*
 * postgres_link: one connection to PostgreSQL through libpq, on which nothing hangs.
 *
 * Shape      where to connect (a URL with one or several hosts), and the connection, if there is
 *            one. Each call has a deadline on the monotonic clock; past it the connection is
 *            closed, since nobody knows what is under way on it.
 * Ownership  pg_link_free() closes and frees what pg_link_init() made. Results are the caller's.
 * Threads    one thread a link.
 * Errors     E_UNAVAILABLE; link->is_lost tells a connection that broke from one that was silent.
 *            E_STORE_DEPOSED: what answers was replaced. What is logged or told never holds the
 *            password.
 * Source     PostgreSQL's manual, libpq: PQconnectPoll, asynchronous commands, pipelines. libpq's
 *            own connect_timeout and its walk through several hosts work for blocking calls
 *            alone.
 */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

/* Which server answers. Each promotion begins a timeline; an old primary that comes back is still
 * on the one before. */
struct pg_server {
    uint64_t system; /* the same on a primary and its standbys; 0: not known. */
    uint64_t timeline;
};

struct pg_link {
    PGconn *conn;              /* NULL: not connected. */
    struct pg_server server;   /* of the connection. */
    PQconninfoOption *options; /* of the URL; owned. */
    unsigned host_count;
    unsigned host; /* whom to ask first: the last one that answered. */
    bool is_lost;  /* of the last failure: the connection broke, or the server closed it. */
    bool is_said;  /* that it cannot be reached; each change is logged once. */
};

/* Reads a URL; connects to nothing. E_USAGE with a sentence. */
MUST_CHECK struct err pg_link_init(struct pg_link *link, const char *url, struct buf *message);
void pg_link_free(struct pg_link *link);

/* How long a statement may take: bytes that flow give it more time, up to an end. */
struct pg_timer {
    uint64_t silence_ns;  /* allowed. */
    uint64_t deadline_ns; /* monotonic; moved by each step. */
    uint64_t end_ns;
};
enum { PG_TIMER_STEPS = 30 }; /* the end comes after so many times the silence. */
struct pg_timer pg_timer_start(uint64_t silence_ms);

/*
 * Connects within store_timeout_ms; hosts share the time that is left. 'message' (may be NULL) gets
 * the last one's reason. A server that was replaced is passed by: one on an earlier timeline than
 * any that this process met. So that one which just started meets the newest, its first connection
 * looks at all hosts before it takes one.
 */
MUST_CHECK struct err pg_link_connect(struct pg_link *link, struct buf *message);
/* Whether this process met, since it connected, the server that replaced this one. */
bool pg_link_is_deposed(const struct pg_link *link);
/* Closes the connection; 'why' is logged. */
void pg_link_drop(struct pg_link *link, const char *why);

/* Sends what libpq holds. */
MUST_CHECK struct err pg_link_flush(struct pg_link *link, struct pg_timer *timer);
/* Waits for the next result; *out is NULL behind the last one of a query. */
MUST_CHECK struct err pg_link_result(struct pg_link *link, struct pg_timer *timer, PGresult **out);

/* Whether what travels to the hosts of a URL can be read, or answered, by others on the way: over
 * TCP without sslmode verify-ca or verify-full. */
bool pg_url_is_clear(const char *url);
/* Whether a URL holds a secret itself: a password, that of a TLS key, or what does not parse. */
bool pg_url_has_secret(const char *url);
