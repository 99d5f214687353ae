/*
 * web: a gRPC call whose caller speaks gRPC-Web, in terms of gRPC.
 *
 * Shape      struct dp_web is a way of struct dp_caller_stream: bytes from the caller are decoded
 *            and shown to the lane, an answer is encoded and given to a sink, one for each protocol
 *            below (HTTP/2, HTTP/1.1, WebSocket). What the sink has no room for waits here.
 * Units      bytes of gRPC's framing, unless "wire" is said.
 * Ownership  the protocol's part owns it and keeps it until its exchange is gone, which may be
 *            after the request is over: what was answered still leaves.
 * Threads    the worker's.
 * Errors     those of struct dp_caller_way.
 * Source     gRPC Web (grpc/grpc, doc/PROTOCOL-WEB.md). Trailers are the last frame of the body; an
 *            answer without messages is its head alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/grpc.h"
#include "common/net/grpc_web.h"
#include "common/net/h2_field.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/cors.h"

struct dp_caller_conn;
struct dp_web;

/* How an answer leaves; all are set. */
struct dp_web_sink {
    /* The head, ":status" first, written or put into 'waiting'; with 'end' nothing comes behind it.
     * end() is called all the same. */
    struct err (*head)(struct dp_web *w, const struct h2_field *fields, size_t count, bool end);
    /* Wire bytes that write() takes now. When it is too little dp_web_pump() is called later. */
    size_t (*room)(struct dp_web *w);
    struct err (*write)(struct dp_web *w, struct slice wire);
    /* The body is whole. */
    struct err (*end)(struct dp_web *w);
    /* The caller's window: so many bytes of those that were shown are done with. */
    void (*consume)(struct dp_web *w, size_t bytes);
    /* The answer cannot be finished: breaks it off so that the caller sees it. */
    void (*abort)(struct dp_web *w);
};

struct dp_web {
    const struct dp_web_sink *sink;
    void *impl;             /* the protocol's part. */
    struct dp_request *rq;  /* NULL: there is none, or it is over. */
    enum grpc_web_kind in;  /* of the request's body, */
    enum grpc_web_kind out; /* ... and of the answer's. */
    struct slice suffix;    /* of the answer's content type: "+proto". */
    struct dp_cors_answer cors;
    struct grpc_web_decoder decoder;
    struct grpc_scan scan; /* of the answer: trailers stand behind whole messages. */
    struct buf waiting;    /* of the answer; its trailers are in it like messages. */
    size_t own;            /* what of it is a head: none of the lane's bytes. */
    size_t waiting_at;     /* what of it left. */
    size_t held;           /* shown to the lane, and not given back. */
    bool whole_before;     /* the request has no body. */
    bool responded;
    bool ending; /* the trailers are in 'waiting', or there are none. */
    bool ended;  /* the sink knows. */
};

/* What a request is made from, before there is one. Borrowed for the call. */
struct dp_web_ask {
    struct dp_caller_conn *conn;
    struct slice authority;
    struct slice path;
    struct slice content_type;
    struct slice accept;
    struct slice origin; /* empty: none. Lives as long as the request. */
    bool has_browser;    /* a browser reads the answer's fields of CORS. */
    size_t field_max;    /* fields that 'add' adds at most. */
    /* Adds the request's fields with dp_web_add_field() or dp_web_add_text(). */
    struct err (*add)(struct dp_web *w, struct h2_fields *to);
    const char *protocol; /* "http2", "http1": of the counter of what is refused early. */
};

/* Begins with a new exchange; keeps the memory of the one before. Zeroed is a start. */
void dp_web_init(struct dp_web *w, const struct dp_web_sink *sink, void *impl);
void dp_web_free(struct dp_web *w);

/* The exchange is over, and another may follow late: what it took that is large goes. */
void dp_web_rest(struct dp_web *w);

/*
 * Makes a request of the operator lane and runs it. What is none is answered in gRPC-Web, with CORS
 * where the origin is allowed. The request may be over when this returns.
 */
void dp_web_start(struct dp_web *w, const struct dp_web_ask *ask);

/* Adds a field, unless it is of one hop only or said by us. 'to' has room. */
void dp_web_add_field(struct h2_fields *to, const struct h2_field *field);

/* The same of a field that came as text, its name in lower case. */
void dp_web_add_text(struct h2_fields *to, struct slice name, struct slice value);

/* Wire bytes from the caller; 'end': the request is whole. */
void dp_web_data(struct dp_web *w, struct slice wire, bool end);

/* The sink has room again. */
void dp_web_pump(struct dp_web *w);

/* The exchange ended before its answer: E_CLOSED, E_IO and E_CANCELLED: the caller has left; else
 * what it sent was broken, and it was told so. */
void dp_web_gone(struct dp_web *w, struct err why);

/* Whether a path is one that a request of the operator lane may have. NO_ROUTE: it is no method's;
 * UNSUPPORTED: what the node itself answers is gRPC over HTTP/2 alone. */
MUST_CHECK struct err dp_web_judge_path(struct slice path);
