/*
 * front_h2: gRPC callers over HTTP/2.
 *
 * Shape      a stream becomes a dp_request of the lane that its path names; what is no gRPC is
 *            answered here. grpc.health.v1.Health and grpc.reflection are the node's own.
 * Threads    the worker's.
 * Errors     refusals are trailers-only answers with grpc-status, grpc-message, x-trilane-code,
 *            x-trilane-rule, x-trilane-version and x-trilane-explain.
 * Source     gRPC over HTTP/2 (grpc/grpc, doc/PROTOCOL-HTTP2.md), "Requests".
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_conn;
struct dp_request;
struct grpc_refusal;

/*
 * Speaks HTTP/2 on the connection from now on; 'first' is what was read of it. On failure the
 * net_conn is closed, and the caller frees 'c'.
 */
MUST_CHECK struct err dp_front_h2_start(struct dp_caller_conn *c, struct slice first);

/* Whether a path is "/package.Service/Method", and the service in it. */
bool dp_grpc_path(struct slice path, struct slice *out_service);

/* The refusal of a request that failed before anything was answered; borrows from it. */
struct grpc_refusal dp_front_refusal(struct dp_request *rq);
