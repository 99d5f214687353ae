/*
 * dial: to a NATS server, up to the line that it begins with.
 *
 * Ownership  descriptors are the caller's.
 * Threads    any; each call waits until its deadline, and getaddrinfo() as long as it likes.
 * Errors     E_UNAVAILABLE, E_TIMEOUT; E_MALFORMED for an URL that is none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum { DIAL_URL_MAX = 512, DIAL_INFO_MAX = 32 << 10 };

/* "nats://user:password@host:4222", taken apart; without a port it is 4222. */
struct dial_url {
    bool tls;                /* the scheme is "tls". */
    char user[DIAL_URL_MAX]; /* "user:password"; empty: none. */
    char host[DIAL_URL_MAX]; /* without brackets. */
    char port[8];
};
MUST_CHECK struct err dial_parse(const char *url, struct dial_url *out);

/* Whether nobody but this machine can listen in: "localhost", 127.0.0.0/8, ::1. */
bool dial_is_loopback(const struct dial_url *url);

/* A connected, non-blocking socket. */
MUST_CHECK struct err dial(const char *host, const char *port, uint64_t deadline_ns, int *out_fd);

/* Reads up to the end of the first line; 'line' is without it. */
MUST_CHECK struct err dial_read_line(int fd, uint64_t deadline_ns, struct buf *line);

/* Milliseconds until then, for poll(); 0 when it is over. */
int dial_left_ms(uint64_t deadline_ns);
