/*
 * early: what is refused before there is a request of it.
 *
 * Shape      such a refusal is counted by protocol and code, has an id, and is kept with the others
 *            (dataplane/request/refusals.h), with what is known of it: a path and a peer, or a peer
 *            alone. Fronts ask here for what they tell the caller.
 * Ownership  texts are borrowed; an id that is told lives until the worker's next one.
 * Threads    the worker's.
 * Errors     none.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/grpc.h"
#include "common/net/http1_server.h"

struct dp_caller_conn;
struct dp_request;

/* What every call is asked by: the "allow" of a 405 (RFC 9110, 15.5.6). */
#define DP_EARLY_METHODS SLICE_LIT("POST")

struct dp_early {
    const struct dp_caller_conn *conn;
    const char *protocol; /* "http1", "http2", "websocket"; of the counter. */
    struct err why;
    int http_status;       /* of the answer; zero: there is none. */
    bool is_grpc;          /* the answer has a status of gRPC: that of the error. */
    struct slice path;     /* what was asked for, with a query or without; empty: not known. */
    struct slice sentence; /* what an answer of gRPC says; empty: the text of the error. */
};

/* Counts and keeps it; what its caller is told beside the error. */
struct http1_refusal dp_early_note(const struct dp_early *early);

/* The same for an answer in gRPC's own way, or in gRPC-Web's: its status is 200. */
struct grpc_refusal dp_early_grpc(const struct dp_early *early);

/* The same, and answers an exchange of HTTP/1 with the status of the error. */
void dp_early_answer(const struct dp_early *early, struct http1_exchange *x);

/* What a server of HTTP/1 refuses by itself: bytes that are no request, or what came behind the
 * head of one ('rq'; else NULL), which is told and kept under the id of that. */
struct http1_refusal dp_early_refused(const struct dp_caller_conn *c, struct dp_request *rq,
                                      unsigned status, struct err why);
