/*
 * web_socket: one gRPC call over one WebSocket, for pages that stream both ways.
 *
 * Shape      the protocol "grpc-websockets". The caller's first message is its fields, as HTTP/1
 *            writes them; each further one is a byte 0 and bytes of gRPC's framing, or a byte 1
 *            alone: the request is whole. The node answers with frames of gRPC-Web, cut anywhere:
 *            one of fields for the head, messages, one of fields for the trailers.
 * Ownership  the connection is the socket's from the handshake on; both end together.
 * Threads    the worker's.
 * Errors     before the handshake as HTTP answers; behind it as gRPC statuses, and what is no
 *            such protocol as a close: 1002, 1003, 1008, 1009. While the node drains: 1001.
 * Source     RFC 6455; @improbable-eng/grpc-web, "websocket transport". The Origin is judged as for
 *            any call (RFC 6455, 10.2): a browser sends cookies and certificates along.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller_conn;
struct dp_web_socket;
struct http1_exchange;

#define DP_WEB_SOCKET_PROTOCOL SLICE_LIT("grpc-websockets")

/*
 * Takes the connection of an exchange that asks for a WebSocket, and answers it; 'accept' proves
 * that it was read. NO_ROUTE, UNSUPPORTED, ORIGIN_DENIED, DRAINING, NOT_READY, E_NO_MEMORY,
 * E_CLOSED: nothing was answered, and nothing has changed.
 */
MUST_CHECK struct err dp_web_socket_open(struct dp_caller_conn *c, struct http1_exchange *x,
                                         const char *accept);

/* Takes no call any more; one that goes on may end. */
void dp_web_socket_drain(struct dp_web_socket *s);

/* Ends now, and says so: "going away" for E_DRAINING, else that it may not stay. A page that has
 * left no room for that is reset. */
void dp_web_socket_abort(struct dp_web_socket *s, struct err why);
