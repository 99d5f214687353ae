/*
 * bus: one connection to NATS, whether NATS is there or not.
 *
 * Shape      a thread of the bus' own connects, sends and counts time; what others want sent goes
 *            to it through a bounded outbox, what arrives is copied into the subscriber's queue.
 *            nats.c's own threads run nothing of ours but that copy.
 * Units      bytes, milliseconds.
 * Ownership  bus_open() gives a bus that bus_close() ends. A message in a queue is its popper's,
 *            who gives it back with bus_message_free(), also after bus_close().
 * Threads    bus_publish(), bus_subscribe(), bus_state(), bus_stats(): any thread, never waiting
 *            for the network. bus_close() and bus_unsubscribe() wait for callbacks that run now,
 *            so a queue may be freed after them. Blocking calls (kv.h, the *_ensure() of
 *            jetstream.h) are for background threads alone.
 * Errors     E_BUS_UNAVAILABLE while there is no connection, E_BUS_FULL when the outbox is full.
 * Source     the traps of libnats 3.4.1 that this avoids are named in bus.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/queue.h"
#include "common/base/slice.h"

struct bus;
struct bus_subscription;

enum bus_state {
    BUS_CONNECTING,   /* never connected yet; tries for ever. */
    BUS_CONNECTED,    /* talks to a server. */
    BUS_RECONNECTING, /* was connected; tries for ever. */
    BUS_CLOSED,       /* after bus_close() began. */
    BUS_STATE_COUNT
};

/* "connecting", "connected", … : for status and log. */
const char *bus_state_name(enum bus_state state);

/* Told of each change, on a thread of the bus: copy it into a queue of yours, no more. */
typedef void bus_state_fn(enum bus_state state, void *ctx);

enum { BUS_HEADER_MAX = 64, BUS_ERROR_TEXT_MAX = 256 };

/* Text is copied by bus_open(); NULL: not used. */
struct bus_config {
    const char *urls; /* "nats://127.0.0.1:4222,nats://…"; required. */
    const char *name; /* what the server's lists show: "trilane-dp node-1". */
    const char *user;
    const char *password;
    const char *creds_file; /* JWT and seed; read at each connect. */
    /* Files, read at each connect. With one of them, or a scheme "tls" in an URL, no server is
     * talked to but under TLS, whatever it says of itself. */
    const char *tls_ca;   /* NULL: the system's. */
    const char *tls_cert; /* with tls_key. */
    const char *tls_key;
    const char *inbox_prefix; /* "_INBOX.node-1": so that permissions can part users. */
    bus_state_fn *on_state;   /* may be NULL. */
    void *on_state_ctx;
};

struct bus_header {
    struct slice name;
    struct slice value; /* no control bytes; a blank one is not sent. */
};

/* What is to be sent; all of it is copied before the call returns. */
struct bus_outgoing {
    struct slice subject; /* made by subject.h, or received as a reply subject. */
    struct slice reply;   /* empty: none. */
    const struct bus_header *headers;
    size_t header_count; /* <= BUS_HEADER_MAX. */
    struct slice payload;
};

/* What arrived: one heap block, owned by whoever popped it. */
struct bus_message {
    void *ctx;            /* the subscription's, so that one queue serves many. */
    struct slice subject; /* a NUL is behind it, outside of its size. */
    struct slice reply;   /* empty: none. */
    struct slice payload;
    const struct bus_header *headers;
    size_t header_count;
};

/* Since bus_open(). */
struct bus_stats {
    uint64_t connects;      /* the first one counted. */
    uint64_t disconnects;   /* the server went, or did not answer pings. */
    uint64_t messages_in;   /* copied into queues. */
    uint64_t messages_out;  /* given to the connection. */
    uint64_t dropped_in;    /* the subscriber's queue was full, or the payload too large for it. */
    uint64_t slow_consumer; /* times that nats.c's own pending limit was reached. */
    uint64_t dropped_out;   /* core messages that could not be sent. */
    uint64_t forbidden;     /* permission violations that the server reported. */
    uint64_t errors;        /* other asynchronous errors of the connection. */
};

/*
 * Starts to connect and returns at once, also while no server runs. E_USAGE when there is no URL
 * or credentials come in halves, E_NO_MEMORY, E_IO when no thread can be had.
 */
MUST_CHECK struct err bus_open(const struct bus_config *config, struct bus **out);

/*
 * Sends what is in the outbox if it is connected, closes, ends and frees all subscriptions;
 * publishes without an ack complete with E_BUS_UNAVAILABLE before this returns. No other call may
 * run or follow. Accepts NULL.
 */
void bus_close(struct bus *bus);

enum bus_state bus_state(struct bus *bus);
void bus_stats(struct bus *bus, struct bus_stats *out);

/* Milliseconds since the connection was lost (or since bus_open()); 0 while connected. */
uint64_t bus_down_ms(struct bus *bus);

/* Asks the server for a sign of life and waits for it: whether NATS answers at all, JetStream
 * apart. E_UNAVAILABLE. For background threads. */
MUST_CHECK struct err bus_ping(struct bus *bus, uint64_t timeout_ms);

/* Waits until connected; for start-up, commands and tests. E_TIMEOUT, E_CLOSED. */
MUST_CHECK struct err bus_wait_connected(struct bus *bus, uint64_t timeout_ms);

/*
 * What others could do to this connection: a sentence, when it is in clear text, or needs no
 * credential, and leads off this machine; NULL when neither is so.
 */
const char *bus_exposure(const struct bus *bus);

/* The last asynchronous error ("Permissions Violation for Publish to …"), NUL-terminated. */
void bus_last_error(struct bus *bus, char out[BUS_ERROR_TEXT_MAX]);

/*
 * Sends a core message: at most once, nobody says whether it arrived. E_BUS_UNAVAILABLE,
 * E_BUS_FULL, E_MALFORMED for a subject or header that would break the protocol,
 * E_MESSAGE_TOO_LARGE past the server's max_payload, as far as it is known.
 */
MUST_CHECK struct err bus_publish(struct bus *bus, const struct bus_outgoing *message);

/*
 * From now on, and after each reconnect, messages of 'subject' (wildcards allowed) go to 'queue' as
 * struct bus_message; with a 'group', each message goes to one member of it. What the queue does
 * not take is dropped and counted. 'queue' must live until bus_unsubscribe() or bus_close().
 */
MUST_CHECK struct err bus_subscribe(struct bus *bus, struct slice subject, struct slice group,
                                    struct queue *queue, void *ctx, struct bus_subscription **out);

/*
 * The same of messages of which only the payload is read: they come without headers, also where
 * those are broken. A larger payload than 'payload_max' (> 0) is dropped and counted before
 * anything is copied: what waits in the queue takes no more than its items times that. What goes
 * through a service import to a stream and to others comes so from nats-server 2.9: JetStream cuts
 * a header of its own out of bytes that all of them get.
 */
MUST_CHECK struct err bus_subscribe_payloads(struct bus *bus, struct slice subject,
                                             size_t payload_max, struct queue *queue, void *ctx,
                                             struct bus_subscription **out);

/*
 * The same without a queue: messages wait with the connection until they are taken, at most
 * 'messages' of them and 'bytes' in all; what does not fit is dropped. Nothing runs and nobody is
 * woken when one arrives.
 */
MUST_CHECK struct err bus_subscribe_waiting(struct bus *bus, struct slice subject, size_t messages,
                                            size_t bytes, struct bus_subscription **out);

/* Takes the oldest that waits, or NULL; never waits for the network. The subscriber's thread. */
struct bus_message *bus_take(struct bus_subscription *sub);

/* Ends it and waits for a callback that runs now; frees 'sub'. Accepts NULL. */
void bus_unsubscribe(struct bus *bus, struct bus_subscription *sub);

/* Accepts NULL. bus_message_drop() is the same as a queue_drop_fn. */
void bus_message_free(struct bus_message *message);
void bus_message_drop(void *message);

/* The value of the first header of that name (compared by case, as NATS does); empty when none. */
struct slice bus_message_header(const struct bus_message *message, struct slice name);
