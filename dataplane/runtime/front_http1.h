/*
 * front_http1: callers over HTTP/1.1.
 *
 * Shape      on the proxy ports an exchange becomes a dp_request of the proxy lane: absolute form,
 *            CONNECT and /v1/fetch alike. On the other ports the node answers with an error in
 *            JSON: the operator and canonical lanes speak gRPC.
 * Threads    the worker's.
 * Errors     {"code", "message", "fix"}, and "rule", "limit", "version" where there is one, with
 *            the HTTP status of the code; x-trilane-code, -rule, -version.
 * Source     RFC 9110, RFC 9112.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_conn;

/* Speaks HTTP/1.1 on the connection from now on; 'first' is what was read of it. On failure the
 * connection is as before. */
MUST_CHECK struct err dp_front_http1_start(struct dp_caller_conn *c, struct slice first);
