/*
 * caller_stream: a gRPC call on its caller's side, whatever protocol carries it.
 *
 * Shape      a table of what a lane does to its caller's stream (struct dp_caller_way), and one of
 *            what it hears of it (struct dp_caller_events). The front chooses the way: gRPC over
 *            HTTP/2 itself, or a translation to it (gRPC-Web, WebSocket).
 * Units      bytes of gRPC's own framing: prefixes and messages, as HTTP/2 would carry them.
 * Ownership  lies in its request and ends with it: what still has to leave then is the front's.
 *            Fields live as long as the request. Slices in events are borrowed for the call.
 * Threads    the request's worker.
 * Errors     respond, send, trailers: E_CLOSED when the stream takes no more; E_QUEUE_FULL past
 *            limits.stream_buffer_bytes; E_NO_MEMORY. Nothing is sent then.
 *
 * No event comes from inside of a call but 'sent', which may come from inside of send().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_stream;
struct dp_request;
struct grpc_refusal;
struct h2_field;
struct h2_fields;
struct h2_stream;

/* What the lane hears of its caller's stream; all are set. */
struct dp_caller_events {
    /* Bytes of messages; may be empty when 'end', with which the request is whole. Their window is
     * given back by consume(), or the caller stops. */
    void (*data)(struct dp_caller_stream *s, struct slice bytes, bool end);
    /* So many bytes of send() left towards the caller: the time to consume at the source. */
    void (*sent)(struct dp_caller_stream *s, size_t bytes);
    /* The caller has left; sending is over. */
    void (*reset)(struct dp_caller_stream *s);
};

/* What a lane does to its caller's stream. */
struct dp_caller_way {
    /* The lane hears of the stream from now on: its events and user are set. */
    void (*attach)(struct dp_caller_stream *s);
    /* Whether the request was whole before anybody heard of it. */
    bool (*received_end)(const struct dp_caller_stream *s);
    /* The answer's head, ":status" first; with 'end' it is trailers-only. */
    struct err (*respond)(struct dp_caller_stream *s, const struct h2_field *fields, size_t count,
                          bool end);
    /* Bytes of the answer; whole or not at all. */
    struct err (*send)(struct dp_caller_stream *s, struct slice bytes);
    /* Ends the answer, behind what was sent. */
    struct err (*trailers)(struct dp_caller_stream *s, const struct h2_field *fields, size_t count);
    /* Ends it with a refusal of ours: see grpc_refuse(). */
    void (*refuse)(struct dp_caller_stream *s, const struct grpc_refusal *refusal);
    /* Gives so many received bytes back to the caller's window. */
    void (*consume)(struct dp_caller_stream *s, size_t bytes);
};

struct dp_caller_stream {
    const struct dp_caller_way *way; /* NULL: this request has no such stream. */
    void *impl;                      /* the way's own: of HTTP/2 the struct h2_stream. */
    const struct h2_fields *fields;  /* the request's, as gRPC over HTTP/2 has them. */
    const struct dp_caller_events *events;
    void *user; /* the lane's. */
};

/* The way of gRPC over HTTP/2; 's' is borrowed until the request ended. */
struct dp_caller_stream dp_caller_stream_h2(struct h2_stream *s);

static inline void dp_caller_attach(struct dp_caller_stream *s,
                                    const struct dp_caller_events *events, void *user)
{
    s->events = events;
    s->user = user;
    s->way->attach(s);
}

static inline bool dp_caller_received_end(const struct dp_caller_stream *s)
{
    return s->way->received_end(s);
}

static inline MUST_CHECK struct err
dp_caller_respond(struct dp_caller_stream *s, const struct h2_field *fields, size_t count, bool end)
{
    return s->way->respond(s, fields, count, end);
}

static inline MUST_CHECK struct err dp_caller_send(struct dp_caller_stream *s, struct slice bytes)
{
    return s->way->send(s, bytes);
}

static inline MUST_CHECK struct err dp_caller_trailers(struct dp_caller_stream *s,
                                                       const struct h2_field *fields, size_t count)
{
    return s->way->trailers(s, fields, count);
}

static inline void dp_caller_refuse(struct dp_caller_stream *s, const struct grpc_refusal *refusal)
{
    s->way->refuse(s, refusal);
}

static inline void dp_caller_consume(struct dp_caller_stream *s, size_t bytes)
{
    s->way->consume(s, bytes);
}

/* Sends the head of an answer in gRPC on the request's HTTP/2 stream, unless it was answered. */
MUST_CHECK struct err dp_caller_begin_grpc(struct dp_request *rq);
