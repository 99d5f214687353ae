/*
 * h2: HTTP/2 on a connection, both sides of it, for a proxy.
 *
 * Shape      struct h2_env is what one worker's connections share: memory, callbacks, counters.
 *            struct h2_conn speaks HTTP/2 on a net_conn. struct h2_stream is one exchange; its
 *            owner hears of it through a table of events and acts on it with the calls below.
 * Units      bytes; times in milliseconds; codes are RFC 9113's error codes.
 * Ownership  Connections and streams belong to this module. A pointer to a stream is good until
 *            its 'closed' event has returned, one to a connection until its 'closed' has. Slices
 *            in events are borrowed for the call; fields of the first header section live as
 *            long as the stream; those of trailers for the call.
 * Threads    one worker; a connection never leaves its loop.
 * Errors     E_CLOSED when the stream or connection takes no more; E_QUEUE_FULL past
 *            limits.stream_buffer_bytes; E_NO_MEMORY. Nothing is sent then.
 * Source     RFC 9113; the checklist of floods in docs/decisions/0130-what-a-flood-is.md.
 *
 * Any call may be made from any event, of this or of another connection: nothing is written or
 * freed before the turn of the loop ends. One turn writes each connection once.
 *
 * Life of a stream, as its events tell: (headers data* trailers?)? reset? closed. 'closed' comes
 * once, last, always. 'reset' comes when the exchange did not end in good order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/h2_field.h"

struct net_loop;
struct net_conn;
struct h2_env;
struct h2_conn;
struct h2_queue;
struct h2_stream;

/* Error codes of RFC 9113, section 7. */
enum h2_code {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR = 1,
    H2_INTERNAL_ERROR = 2,
    H2_FLOW_CONTROL_ERROR = 3,
    H2_SETTINGS_TIMEOUT = 4,
    H2_STREAM_CLOSED = 5,
    H2_FRAME_SIZE_ERROR = 6,
    H2_REFUSED_STREAM = 7,
    H2_CANCEL = 8,
    H2_COMPRESSION_ERROR = 9,
    H2_ENHANCE_YOUR_CALM = 11,
};

/* Why an exchange ended early. */
struct h2_reset {
    uint32_t code;    /* of the RST_STREAM, or what best says how the connection ended. */
    bool by_peer;     /* the peer reset it; else we did, for what the peer sent or for a lost
                         connection. */
    bool unprocessed; /* the peer's application never saw it (REFUSED_STREAM, above the last id of
                         a GOAWAY, never sent): safe to send again (gRPC A6). Client side only. */
    bool unsent;      /* and it never left this side. */
    bool too_large;   /* the peer's header section was over the bounds. */
};

/* What the owner of a stream hears. Any member may be NULL. */
struct h2_stream_events {
    /* The answer's header section is whole (client side; interim 1xx answers are left out). With
     * 'end' there is no body and no trailers: for gRPC a trailers-only answer. */
    void (*headers)(struct h2_stream *s, const struct h2_fields *fields, bool end);
    /* Bytes of the body; may be empty when 'end'. Their window is given back by
     * h2_stream_consume(), or the peer stops. */
    void (*data)(struct h2_stream *s, struct slice bytes, bool end);
    /* The trailers; they end the message. */
    void (*trailers)(struct h2_stream *s, const struct h2_fields *fields);
    /* So many bytes of h2_stream_send() left towards the peer: the time to consume at the source.
     */
    void (*sent)(struct h2_stream *s, size_t bytes);
    /* The queue fell below its low mark after a send had been refused or had filled it. */
    void (*writable)(struct h2_stream *s);
    /* The exchange failed; see struct h2_reset. Sending is over. */
    void (*reset)(struct h2_stream *s, struct h2_reset why);
    /* Last of all; the stream is gone when this returns. */
    void (*closed)(struct h2_stream *s);
};

/* What the owner of a connection hears. Any member may be NULL. */
struct h2_conn_events {
    /* Server: a request's header section is whole. Answer now, or h2_stream_attach() and answer
     * later. A request that nobody attaches to and nobody answers is refused when this returns. */
    void (*request)(struct h2_conn *c, struct h2_stream *s, const struct h2_fields *fields,
                    bool end);
    /* Server: in place of request() when the header section is over the bounds; 'fields' has the
     * first of it. NULL: it is answered with HEADERS_TOO_LARGE alone. */
    void (*too_large)(struct h2_conn *c, struct h2_stream *s, const struct h2_fields *fields);
    /* Server: a request was reset with REFUSED_STREAM, and its fields not kept: OVERLOADED past
     * limits.streams_per_connection, or when the client reads no answers; E_NO_MEMORY. */
    void (*refused)(struct h2_conn *c, struct err why);
    /* Client: connected, and under TLS agreed on h2: requests leave with the preface. */
    void (*ready)(struct h2_conn *c);
    /* Client: h2_conn_room() grew: a stream ended, its owners took bytes, or the peer allows more.
     */
    void (*room)(struct h2_conn *c);
    /* Client: the peer sent GOAWAY; h2_conn_room() stays zero from now on. */
    void (*draining)(struct h2_conn *c);
    /* Last of all, after the 'closed' of its streams. 'why' is E_OK for an end in good order. */
    void (*closed)(struct h2_conn *c, struct err why);
};

/* Counters of a worker; never reset. Connections closed for floods are the loop's: net_flood(). */
struct h2_counters {
    uint64_t connections_opened;
    uint64_t connections_closed;
    uint64_t streams_opened;
    uint64_t streams_closed;
    uint64_t resets_received;
    uint64_t resets_sent;
    uint64_t streams_refused;   /* over the advertised number of streams, or unread. */
    uint64_t headers_too_large; /* header sections over the bounds. */
    uint64_t streams_unread;    /* reset: the rest of a whole answer was not read. */
    uint64_t protocol_errors;   /* connections closed by a connection error. */
    uint64_t goaways_received;
    uint64_t pings_unanswered;   /* client connections given up before reuse. */
    uint64_t handshake_timeouts; /* no SETTINGS within limits.handshake_timeout_ms. */
    uint64_t idle_timeouts;
    uint64_t connections_aged; /* a pool's, told to end because of their age. */
};

/* ---- what a worker's connections share ---- */

/* Makes what all connections of one loop share. E_NO_MEMORY. */
MUST_CHECK struct err h2_env_new(struct net_loop *loop, struct h2_env **out);

/* Frees it; every connection must have closed. Accepts NULL. */
void h2_env_free(struct h2_env *env);

const struct h2_counters *h2_env_counters(const struct h2_env *env);

/* Bytes that its connections and streams hold now. */
size_t h2_env_memory(const struct h2_env *env);

/* To be called ten times a second or so: of what a burst left, some goes back to the system. */
void h2_env_give_back(struct h2_env *env);

/* ---- connections ---- */

/* True when 'bytes' can still become, or are, the client preface of HTTP/2 ("PRI * HTTP/2.0"). A
 * listener asks with the first bytes of a cleartext connection: three bytes are enough to tell
 * it from any method of HTTP/1, and it never waits for more when the answer is false. */
bool h2_preface_matches(struct slice bytes);

/* Starts a server on an accepted connection; takes it. 'early' is what the listener read to tell
 * the protocol; it may be empty. On failure the connection is closed and *net is NULL, too. */
MUST_CHECK struct err h2_server_new(struct h2_env *env, struct net_conn **net, struct slice early,
                                    const struct h2_conn_events *events, void *user,
                                    struct h2_conn **out);

/* Starts a client on a connection that connects or is connected; takes it. Requests may be made
 * at once: they leave together with the preface. */
MUST_CHECK struct err h2_client_new(struct h2_env *env, struct net_conn **net,
                                    const struct h2_conn_events *events, void *user,
                                    struct h2_conn **out);

void *h2_conn_user(const struct h2_conn *c);
struct net_conn *h2_conn_net(const struct h2_conn *c);

/* Open streams, and how many requests more the connection would take now (client side; zero while
 * it drains or is closing, and while its streams hold more than limits.connection_held_bytes). */
size_t h2_conn_streams(const struct h2_conn *c);
size_t h2_conn_room(const struct h2_conn *c);

/* Client: it will take no request any more: it drains or ends, or its peer said GOAWAY. */
bool h2_conn_leaving(const struct h2_conn *c);

/* Client: says how many requests at a time the peer takes, as long as it did not itself; at most
 * 100, which is what is assumed. */
void h2_conn_assume_streams(struct h2_conn *c, uint32_t count);

/* Client: how many the peer said that it takes, in *out; false: it did not say anything yet. */
bool h2_conn_peer_streams(const struct h2_conn *c, uint32_t *out);

/* When the connection last received a byte, by the loop's clock. */
uint64_t h2_conn_heard_ms(const struct h2_conn *c);

/* Client: sends a PING; a peer that does not answer within 'timeout_ms' loses the connection. */
void h2_conn_probe(struct h2_conn *c, uint64_t timeout_ms);

/* True until the PING is answered; h2_conn_room() is zero so long. */
bool h2_conn_probing(const struct h2_conn *c);

/* Ends in good order: a server says GOAWAY twice, one round trip apart, so that no request is
 * lost, and closes when its streams have ended; a client takes no more requests. Idempotent. */
void h2_conn_drain(struct h2_conn *c);

/* Ends at once with GOAWAY of this code: open streams hear 'reset', then 'closed'. */
void h2_conn_close(struct h2_conn *c, enum h2_code code, struct err why);

/* Client: the bytes of header fields that the peer takes in a request, 32 a field added, as its
 * SETTINGS say; UINT32_MAX before. What another connection to the same peer heard may be told to a
 * new one. */
uint32_t h2_conn_header_bytes(const struct h2_conn *c);
void h2_conn_set_header_bytes(struct h2_conn *c, uint32_t bytes);

/* Client: opens an exchange, which the caller attaches itself to at once. 'fields' starts with
 * ":method" and the other pseudo header fields. With 'end' it has no body. E_OVERLOADED when
 * h2_conn_room() is zero, E_HEADERS_TOO_LARGE for more than the peer takes, E_CLOSED. */
MUST_CHECK struct err h2_conn_request(struct h2_conn *c, const struct h2_field *fields,
                                      size_t count, bool end, struct h2_stream **out);

/* ---- streams ---- */

/* Says who hears of the stream from now on; NULL: nobody, its owner gives it up. */
void h2_stream_attach(struct h2_stream *s, const struct h2_stream_events *events, void *user);

void *h2_stream_user(const struct h2_stream *s);
struct h2_conn *h2_stream_conn(const struct h2_stream *s);
int32_t h2_stream_id(const struct h2_stream *s);

/* The peer's first header section: the request on a server, the answer on a client. */
const struct h2_fields *h2_stream_fields(const struct h2_stream *s);

/* Server: sends the answer's header section; fields[0] is ":status". With 'end' it is all. */
MUST_CHECK struct err h2_stream_respond(struct h2_stream *s, const struct h2_field *fields,
                                        size_t count, bool end);

/* True once a header section of ours was submitted. */
bool h2_stream_responded(const struct h2_stream *s);

/* Sends bytes of the body; copies what cannot leave at once into the stream's queue, up to
 * limits.stream_buffer_bytes. Whole or not at all: E_QUEUE_FULL means wait for 'writable'. */
MUST_CHECK struct err h2_stream_send(struct h2_stream *s, struct slice bytes, bool end);

/* The same with what lies in 'bytes' behind its first 'skip': by reference, nothing is copied.
 * 'bytes' is of the stream's h2_env; it may grow, and be cleared, at any time after. */
MUST_CHECK struct err h2_stream_send_shared(struct h2_stream *s, const struct h2_queue *bytes,
                                            size_t skip, bool end);

/* Bytes that wait in the queue. */
size_t h2_stream_queued(const struct h2_stream *s);

/* Ends the message with trailers, behind what is queued. Before any header section a server sends
 * h2_stream_respond() with 'end' instead. */
MUST_CHECK struct err h2_stream_trailers(struct h2_stream *s, const struct h2_field *fields,
                                         size_t count);

/* Ends the exchange with RST_STREAM. The owner hears 'closed', not 'reset'. */
void h2_stream_reset(struct h2_stream *s, enum h2_code code);

/* Gives so many received bytes back to the peer's window. */
void h2_stream_consume(struct h2_stream *s, size_t bytes);

/* True once the peer ended its side; true once we ended ours (all of it queued). */
bool h2_stream_received_end(const struct h2_stream *s);
bool h2_stream_sent_end(const struct h2_stream *s);
