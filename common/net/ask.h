/*
 * ask: one HTTP request to a server and its whole answer, for what is off the way of requests.
 *
 * Shape      a GET, or a POST of JSON, over libcurl. What we want of it holds for all who ask:
 *            http and https alone, TLS 1.2 or later with the server's certificate and name
 *            judged, no proxy of the environment, no redirect followed, bounded times, and an
 *            answer that ends at its buffer's bound.
 * Units      milliseconds.
 * Ownership  what is in struct net_ask is borrowed for the call; the answer is the caller's.
 * Threads    any that may wait; net_ask_init() before the first one.
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
    bool (*gives_up)(const void *ctx); /* asked each 50 ms; NULL: never. */
    const void *ctx;
};

/* Once, while there is one thread. E_NO_MEMORY. */
MUST_CHECK struct err net_ask_init(void);

/* The answer, whatever its status says, is appended. *out_why is a sentence when nothing came. */
MUST_CHECK struct err net_ask(const struct net_ask *ask, unsigned *out_status, struct buf *answer,
                              const char **out_why);
