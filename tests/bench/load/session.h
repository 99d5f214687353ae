/*
 * session: one connection of the generator: HTTP/2 (nghttp2) or HTTP/1.1, one request a stream.
 *
 * Shape      non-blocking; requests that find no free stream are the caller's to keep.
 * Units      nanoseconds of CLOCK_MONOTONIC; bytes.
 * Ownership  the generator owns sessions; callbacks get the request's intended start back.
 * Threads    one.
 * Errors     false: the connection is lost, or what came is no answer in the protocol.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/load/wire.h"

enum load_protocol { LOAD_GRPC, LOAD_HTTP1 };

/* What every request is; the same for all. */
struct load_work {
    enum load_protocol protocol;
    const char *authority; /* "127.0.0.1:8080". */
    const char *path;
    const char *const *headers; /* name, value, name, value, …; NULL at the end. */
    const uint8_t *body;        /* gRPC: with its prefix. */
    size_t body_bytes;
    bool expect_echo; /* the answer's body must be the request's. */
    SSL_CTX *tls;     /* borrowed; NULL: in clear. */
};

struct session;

/* An answer is whole. 'start_ns' is what session_send() was given; 'good' says that it was right:
 * status 200, the expected body and, for gRPC, grpc-status 0. */
typedef void session_done_fn(void *ctx, uint64_t start_ns, bool good);

/* Connects (waiting) to host and port; NULL with a message on standard error. */
struct session *session_open(const char *host, const char *port, const struct load_work *work,
                             size_t streams, session_done_fn *done, void *ctx);
void session_close(struct session *s);

int session_fd(const struct session *s);

/* Streams that are free now. */
size_t session_room(const struct session *s);

/* Queues one request; only with room. */
bool session_send(struct session *s, uint64_t start_ns);

/* The same with one field more, which is borrowed until session_flush(); HTTP/2 alone. */
bool session_send_with(struct session *s, uint64_t start_ns, const char *name, const char *value);

/* Writes what is queued, and what HTTP/2 itself has to say, as far as the socket takes it. */
bool session_flush(struct session *s);

/* Reads what is there; answers are told. What is to be said then leaves with session_flush(). */
bool session_read(struct session *s);

/* Whether output waits for the socket. */
bool session_wants_write(const struct session *s);
