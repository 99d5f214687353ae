/*
 * front_http1: callers over HTTP/1.1 at the proxy ports; those of the others are web_http1's.
 *
 * Shape      an exchange becomes a dp_request of the proxy lane: absolute form, CONNECT and
 *            /v1/fetch alike.
 * Threads    the worker's.
 * Errors     {"code", "message", "fix"}, and "rule", "limit", "version" where there is one, with
 *            the HTTP status of the code; x-trilane-code, -rule, -version, -explain.
 * Source     RFC 9110, RFC 9112.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_conn;

/* Speaks HTTP/1.1 on the connection from now on; 'first' is what was read of it. On failure the
 * connection is as before. */
MUST_CHECK struct err dp_front_http1_start(struct dp_caller_conn *c, struct slice first);
