/*
 * web_http1: HTTP/1.1 at the ports of gRPC: gRPC-Web, preflights, and WebSockets' beginnings.
 *
 * Shape      one a connection, for its exchanges in turn. What is none of the three is answered
 *            505: gRPC itself is HTTP/2.
 * Ownership  frees itself with the connection, or when a WebSocket takes that.
 * Threads    the worker's.
 * Errors     as HTTP/1 answers say them: docs/errors.md.
 * Source     RFC 9112; gRPC Web (grpc/grpc, doc/PROTOCOL-WEB.md).
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_conn;
struct http1_head;

/* As dp_front_http1_start(). */
MUST_CHECK struct err dp_web_http1_start(struct dp_caller_conn *c, struct slice first);

/* The Origin of a request; empty: none. Of two neither is believed. */
struct slice dp_web_origin_http1(const struct http1_head *head);
