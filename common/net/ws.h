/*
 * ws: the server's side of WebSocket: the handshake's fields, and frames.
 *
 * Shape      libwslay does the framing; nothing is held of a message: its bytes go to the handler
 *            as they come. Binary messages alone; a text message ends the connection with 1003.
 *            Pings and a close are answered by the library. A peer that pings and does not read the
 *            answers is told to go (1008) when eight of them wait.
 * Units      bytes.
 * Ownership  ws_new() and ws_free(); the handler is kept. The connection is the owner's: bytes are
 *            given in by ws_read() and taken out through 'room' and 'write'.
 * Threads    one worker.
 * Errors     what a peer does wrong is told to it by a close frame, and nothing is read any more;
 *            E_CLOSED once that is so, E_NO_MEMORY.
 * Source     RFC 6455; libwslay's wslay.h. Extensions are none: a reserved bit is refused.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct http1_head;
struct ws;

/* Codes of a close (RFC 6455, 7.4.1). */
enum ws_code {
    WS_NORMAL = 1000,
    WS_GOING_AWAY = 1001,
    WS_PROTOCOL_ERROR = 1002,
    WS_UNSUPPORTED = 1003,
    WS_POLICY = 1008,
    WS_TOO_BIG = 1009,
    WS_INTERNAL = 1011,
};

/* All are set. ws_free() must not be called from inside of them. */
struct ws_handler {
    /* Bytes of a binary message; 'end' with its last ones, which may be none. */
    void (*data)(void *ctx, struct slice bytes, bool end);
    /* A control frame, or a fragment without bytes, came; false: too many by now. */
    bool (*control)(void *ctx);
    /* How many bytes the connection takes now, and takes them. */
    size_t (*room)(void *ctx);
    struct err (*write)(void *ctx, struct slice bytes);
};

/* ---- the handshake ---- */

enum ws_ask {
    WS_ASK_NONE,    /* it asks for no WebSocket. */
    WS_ASK_WELL,    /* it may have one. */
    WS_ASK_VERSION, /* of another version than 13. */
    WS_ASK_WRONG,   /* not as RFC 6455, 4.1 says, or without the protocol. */
};

enum { WS_ACCEPT_SIZE = 28 };

/* Judges a request that may ask for a WebSocket of a protocol ("grpc-websockets"). When it does
 * well, 'accept' is the value of sec-websocket-accept, with a NUL behind it. */
enum ws_ask ws_judge(const struct http1_head *head, struct slice protocol,
                     char accept[WS_ACCEPT_SIZE + 1]);

/* ---- frames ---- */

/* 'message_max': of one message. E_NO_MEMORY. */
MUST_CHECK struct err ws_new(const struct ws_handler *handler, void *ctx, uint64_t message_max,
                             struct ws **out);

/* Accepts NULL. */
void ws_free(struct ws *ws);

/* Bytes came from the peer. E_CLOSED when the peer closed, or was told to for what it sent: what
 * answers it waits for ws_flush(). */
MUST_CHECK struct err ws_read(struct ws *ws, struct slice bytes);

/* Sends one binary message: copies it behind what waits, and writes what there is room for. */
MUST_CHECK struct err ws_send(struct ws *ws, struct slice message);

/* Says goodbye, behind what was sent; nothing is read or sent any more. Idempotent. */
void ws_close(struct ws *ws, enum ws_code code);

/* Writes what waits and has room. E_CLOSED when the connection takes no more. */
MUST_CHECK struct err ws_flush(struct ws *ws);

/* Whether anything waits. */
bool ws_waits(const struct ws *ws);
