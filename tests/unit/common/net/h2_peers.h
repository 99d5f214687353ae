/*
 * h2_peers: a server of ours on a loopback socket, and clients for it, for tests of HTTP/2.
 *
 * Shape      the server answers by path: "/echo" sends back what comes as it comes, "/unary"
 *            answers once when the request ended, "/many" answers with PEERS_MANY messages,
 *            "/refuse" is refused by grpc_refuse(), "/hang" never answers, "/early" answers
 *            whole before the request ended, "/sink" takes no byte and gives no window back,
 *            "/large" answers with a trailers-only section that is over the bounds, "/large-head"
 *            with such a head and a body behind it, "/mirror" answers with the last field asked.
 * Ownership  peers_free() ends everything.
 * Threads    one test's thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/net/addr.h"
#include "common/net/conn.h"
#include "common/net/grpc.h"
#include "common/net/h2.h"
#include "common/net/listener.h"
#include "common/net/loop.h"

enum { PEERS_WAIT_MS = 10000, PEERS_MANY = 200, PEERS_BODY_MAX = 64 << 20 };

struct peers {
    struct net_loop *loop;
    struct h2_env *env;
    struct net_listener *listener;
    struct net_addr addr;
    int fd;
    struct h2_conn *server; /* the connection accepted last; NULL once closed. */
    unsigned accepted;
    unsigned server_closed;
    struct err server_why;
    unsigned requests; /* that the server heard. */
    unsigned server_resets;
    struct h2_reset server_reset; /* the last one. */
    unsigned server_streams_closed;
    size_t server_bytes; /* bodies received. */
    bool server_closed_once;
    bool mute; /* accepted connections stay raw: nobody speaks HTTP/2 on them. */
    struct net_conn *raw_server;
    struct raw *serves;         /* takes the next of these. */
    struct net_tls *client_tls; /* of clients of ours; NULL: in clear. Borrowed. */
    uint64_t passed_ms;         /* by peers_pass(). */
};

/* A client's connection; under TLS it asks for "server.test". */
struct client {
    struct peers *peers;
    struct h2_conn *conn; /* NULL once closed. */
    bool ready;
    bool draining;
    bool closed;
    unsigned rooms;
    struct err why;
};

/* A client's call, and what came of it. */
struct call {
    struct h2_stream *stream; /* NULL once closed. */
    struct buf body;
    char status[8];
    char code[32]; /* x-trilane-code. */
    int grpc_status;
    bool headers;
    bool trailers;
    bool ended;
    bool trailers_only;
    bool was_reset;
    bool closed;
    bool hold; /* does not give window back. */
    bool writable;
    struct h2_reset reset;
    size_t sent;
    size_t last_field; /* size of the last value of the head. */
};

void peers_init(struct peers *p);
void peers_free(struct peers *p);

/* The server is asked under TLS from now on. */
void peers_serve_tls(struct peers *p, struct net_tls *tls);

/* Runs turns until *done, or fails the test. */
void peers_wait(struct peers *p, const bool *done);

/* Runs turns for about that long. */
void peers_run(struct peers *p, uint64_t ms);

/* Moves the clock, and not the time: what a slow machine does meanwhile takes none of it. What is
 * due then has run. */
void peers_pass(struct peers *p, uint64_t ms);

void client_open(struct peers *p, struct client *c);

/* Starts a POST with gRPC's fields and 'extra' more; does not end it. */
struct err call_start(struct client *c, struct call *call, const char *path,
                      const struct h2_field *extra, size_t extra_count, bool end);
void call_free(struct call *call);

extern const struct h2_stream_events call_events;

/* A plain TCP client, or server, for bytes that no decent one sends. */
struct raw {
    struct peers *peers;
    struct net_conn *conn;
    struct buf in; /* what the peer sent. */
    bool closed;
    bool goaway; /* a GOAWAY came. */
    uint32_t goaway_code;
    uint32_t goaway_last;
    unsigned goaways;
    unsigned resets;
    uint32_t reset_code; /* of the last RST_STREAM. */
    unsigned pings;
    unsigned headers; /* HEADERS frames. */
    bool got_headers;
    bool got_reset;
    bool ping_acked;
    size_t data; /* bytes of DATA. */
    size_t parsed;
    uint32_t max_streams; /* as advertised. */
};

void raw_open(struct peers *p, struct raw *r);

/* Takes the next connection that is accepted; the client's preface is passed over. */
void raw_serve(struct peers *p, struct raw *r);
void raw_free(struct raw *r);
void raw_send(struct raw *r, struct slice bytes);

/* Adds a frame to 'out'. */
void frame_add(struct buf *out, uint8_t type, uint8_t flags, uint32_t id, struct slice payload);

/* Adds the client preface and an empty SETTINGS. */
void preface_add(struct buf *out);

/* Adds HEADERS of a POST to 'path', encoded without a table; 'extra' is HPACK that follows. */
void request_add(struct buf *out, uint32_t id, const char *path, bool end, struct slice extra);

/* Adds one literal field without indexing, names and values below 127 bytes. */
void hpack_add(struct buf *out, const char *name, const char *value);
