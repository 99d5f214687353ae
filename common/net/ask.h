/*
 * ask: HTTP requests to servers and their whole answers, for what is off the way of requests.
 *
 * Shape      a GET, or a POST of JSON, over libcurl: one that is waited for, or several at once, so
 *            that a server that does not answer holds up nobody else's. What we want of it holds
 *            for all who ask: http and https alone, TLS 1.2 or later with the server's certificate
 *            and name judged, no proxy of the environment, no redirect followed, bounded times, and
 *            an answer that ends at its buffer's bound.
 * Units      milliseconds.
 * Ownership  what is in struct net_ask is borrowed for the call; of several at once the body, and
 *            what 'trusts' stands on, until it is over. The answer is the caller's.
 * Threads    any that may wait; net_ask_init() before the first one. Several at once: one thread,
 *            but for net_asks_wake().
 * Errors     E_UNAVAILABLE: not reached, or broken off. E_TIMEOUT. E_UNAUTHENTICATED: the
 *            server's certificate is not trusted, or is of another name. E_TOO_LARGE: the answer
 *            is. E_CLOSED: given up. E_MALFORMED: a header of more than one line. E_UNSUPPORTED:
 *            this libcurl stands on another TLS than OpenSSL, and cannot ask 'trusts'.
 * Source     docs/threats.md, "Joining"; libcurl-security(3).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/cert.h"

enum { NET_ASK_HEADERS_MAX = 4 };

struct net_ask {
    const char *url;
    bool posts;                               /* else a GET, which has no body. */
    struct slice body;                        /* JSON. */
    const char *headers[NET_ASK_HEADERS_MAX]; /* "Name: value"; NULL: not there. */
    uint64_t connect_ms;
    uint64_t whole_ms;   /* until the last byte of the answer. */
    const char *ca_file; /* NULL: 'ca'. */
    struct slice ca;     /* PEM; empty: the system's CAs. Any CA of ours stands in their place. */
    /* Judges the server's chain in the place of a file; its name is asked in any case. NULL: no. */
    bool (*trusts)(const void *ctx, const struct net_chain *sent);
    bool (*gives_up)(const void *ctx); /* asked each 50 ms by net_ask() alone; NULL: never. */
    const void *ctx;
};

/* Once, while there is one thread. E_NO_MEMORY. */
MUST_CHECK struct err net_ask_init(void);

/* The answer, whatever its status says, is appended. *out_why is a sentence when nothing came. */
MUST_CHECK struct err net_ask(const struct net_ask *ask, unsigned *out_status, struct buf *answer,
                              const char **out_why);

/* ---- several at once ---- */

struct net_asks;
struct net_asking;

MUST_CHECK struct err net_asks_new(struct net_asks **out);

/* What is under way is given up. NULL is fine. */
void net_asks_free(struct net_asks *asks);

/* Begins a request whose answer is appended to 'answer', which is borrowed until it is over. */
MUST_CHECK struct err net_asks_begin(struct net_asks *asks, const struct net_ask *ask,
                                     struct buf *answer, void *ctx, struct net_asking **out);

/* Gives one up that is not over. NULL is fine. */
void net_asks_cancel(struct net_asks *asks, struct net_asking *asking);

/* Waits until something may be over, at most so long, or until net_asks_wake(), which any thread
 * may call, and which also ends the next wait when there is none. */
void net_asks_wait(struct net_asks *asks, unsigned wait_ms);
void net_asks_wake(struct net_asks *asks);

/* What came of a request. */
struct net_asked {
    void *ctx;
    struct err err;
    unsigned status;
    const char *why; /* a sentence when nothing came. */
};

/* The next one that is over; false: none is. */
bool net_asks_next(struct net_asks *asks, struct net_asked *out);
