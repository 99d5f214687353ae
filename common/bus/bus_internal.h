/*
 * bus_internal: what the files of this room share; nobody else includes it.
 *
 * Shape      bus.c is what callers see; link.c the thread that owns the connection; subscription.c
 *            what arrives; publisher.c the table of publishes without an ack; message.c turns ours
 *            into nats.c's and back; kv.c, ensure.c and server.c make blocking calls on a
 *            connection that they hold meanwhile (request.c).
 * Ownership  see each struct.
 * Threads    members say which thread may touch them by the group they sit in.
 * Errors     those of bus.h.
 */
#pragma once

#include <nats/nats.h>
#include <stdatomic.h>

#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/bus/bus.h"
#include "common/bus/dial.h"
#include "common/bus/relay.h"

enum {
    BUS_INBOX_SIZE = 64,
    BUS_WRITE_DEADLINE_MS = 5000,
    BUS_SPENT_MAX = 32,          /* messages that are done with, before they are given back, */
    BUS_SPENT_BYTES = 256 << 10, /* and their bytes. */
};

/* ---- messages ---- */

/* Ours as nats.c's. E_MALFORMED, E_NO_MEMORY. */
MUST_CHECK struct err message_make(const struct bus_outgoing *from, struct slice message_id,
                                   natsMsg **out);

/* nats.c's as ours, a copy. E_NO_MEMORY, E_TOO_LARGE past BUS_HEADER_MAX headers. */
MUST_CHECK struct err message_copy(natsMsg *from, void *ctx, struct bus_message **out);
/* The same without its headers, which are not looked at. */
MUST_CHECK struct err message_copy_payload(natsMsg *from, void *ctx, struct bus_message **out);

/* What a message weighs in bounds of bytes. */
size_t message_bytes(const struct bus_outgoing *message);

/* Takes a message of nats.c's that is done with, and gives it back with others; NULL is none. */
void message_spend(struct bus *bus, natsMsg *msg);
/* Gives all of them back. */
void message_spend_all(struct bus *bus);

/* ---- publishes without an ack ---- */

struct publisher;

MUST_CHECK struct err publisher_new(struct publisher **out);

/* Completes what waits with E_BUS_UNAVAILABLE; lives on until the last completion is freed. */
void publisher_close(struct publisher *p);

/* Takes a place; its token goes into the reply subject. E_BUS_FULL. */
MUST_CHECK struct err publisher_reserve(struct publisher *p, struct queue *done, void *ctx,
                                        uint64_t *out_token);
/* Gives the place its message, which becomes the table's in any case: time begins. E_BUS_FULL. */
MUST_CHECK struct err publisher_fill(struct publisher *p, uint64_t token, natsMsg *msg,
                                     size_t bytes);
/* Takes a place back, without a completion; false: it completed already. */
bool publisher_cancel(struct publisher *p, uint64_t token);

/* Bus' thread: the message to send now, or NULL when it is over; given back by _sent(). */
natsMsg *publisher_take(struct publisher *p, uint64_t token);
void publisher_sent(struct publisher *p, uint64_t token, natsMsg *msg, struct err err);

/* Bus' thread, after a reconnect: all that wait and were sent are to be sent again, ... */
void publisher_rewind(struct publisher *p);
/* ... oldest first: the token of the next one, 0 behind the last. */
uint64_t publisher_next(struct publisher *p);

/* Bus' thread: completes what is past its time; says when the next one is (0: none waits). */
uint64_t publisher_expire(struct publisher *p, uint64_t now_ns);

/* nats.c's thread: an answer came. 'suffix' is the last token of its subject. */
void publisher_answer(struct publisher *p, struct slice suffix, struct slice payload,
                      bool no_responders);

size_t publisher_count(struct publisher *p);

/* ---- the connection ---- */

/* An item of the outbox: a core message, or the token of a publish. */
struct outgoing {
    natsMsg *msg; /* owned; NULL: it is a publish. */
    uint64_t token;
    size_t bytes;
};

struct grave;

struct bus_subscription {
    struct bus_subscription *next; /* in bus->shared.subscriptions. */
    char *subject;
    char *group; /* NULL: none. */
    void *ctx;
    size_t payload_max;   /* of bus_subscribe_payloads(); 0: it is none of these. */
    int waiting_messages; /* of bus_subscribe_waiting(); 0: it is none of these. */
    int waiting_bytes;
    struct {
        struct grave *live; /* on the present connection; NULL: not yet. */
    } on_thread;            /* the bus' thread's alone. */
    struct {
        struct lock lock;
        struct bus *bus GUARDED;     /* NULL: ended, callbacks do nothing. */
        struct queue *queue GUARDED; /* NULL: answers to publishes. */
        struct publisher *publisher GUARDED;
        unsigned references GUARDED; /* the owner's, and one a nats.c subscription with a thread. */
        natsSubscription *waiting GUARDED; /* where messages wait; NULL: on no connection. */
    } shared;
    atomic_bool ended;
};

/* A nats.c subscription; once ended it is kept until nats.c's reader surely forgot it. */
struct grave {
    struct grave *next;
    natsSubscription *sub;
    uint64_t since_ns;
};

struct bus_counters {
    _Atomic uint64_t connects, disconnects, messages_in, messages_out, dropped_in, slow_consumer,
        dropped_out, forbidden, errors;
};

struct bus {
    struct bus_config config; /* texts are owned. */
    char **servers;           /* owned; of config.urls. */
    int server_count;
    bool tls;                   /* to all of them, by relay.h. */
    const char *exposure;       /* see bus_exposure(). */
    char inbox[BUS_INBOX_SIZE]; /* answers to publishes come to <inbox>.<token>. */
    struct publisher *publisher;
    struct bus_subscription *answers;
    struct queue outbox; /* of struct outgoing. */
    pthread_t thread;
    struct bus_counters counters;
    _Atomic uint64_t outbox_bytes;
    _Atomic uint64_t max_payload;      /* of the server; 0: not known yet. */
    _Atomic uint64_t down_since_ns;    /* 0: connected. */
    atomic_bool subscriptions_changed; /* since the bus' thread looked. */
    struct {
        struct grave *graves;
        uint64_t next_attempt_ns;
        unsigned attempts;
        unsigned server;     /* under TLS: whose turn it is. */
        struct relay *relay; /* of the present connection; NULL: in clear. */
    } on_thread;
    struct {
        struct lock lock;
        natsMsg *messages[BUS_SPENT_MAX] GUARDED;
        size_t count GUARDED;
        size_t bytes GUARDED;
    } spent;
    struct {
        struct lock lock;
        pthread_cond_t wake;    /* of the bus' thread. */
        pthread_cond_t changed; /* state, or holders. */
        enum bus_state state GUARDED;
        natsConnection *connection GUARDED;
        unsigned holders GUARDED; /* blocking calls that use the connection. */
        struct bus_subscription *subscriptions GUARDED;
        bool signalled GUARDED;
        bool closing GUARDED;
        bool lost GUARDED;        /* disconnected since the thread looked. */
        bool regained GUARDED;    /* reconnected since the thread looked. */
        bool link_closed GUARDED; /* nats.c gave the connection up. */
        char error[BUS_ERROR_TEXT_MAX] GUARDED;
        char server[DIAL_URL_MAX + 16] GUARDED; /* under TLS: of the present connection. */
    } shared;
};

/* What the bus' thread runs; 'ctx' is the bus. */
void *link_main(void *ctx);

/* Wakes the bus' thread. */
void bus_signal(struct bus *bus);

/* A subscription that is in no list yet, with one reference; NULL when out of memory. */
struct bus_subscription *subscription_new(struct slice subject, struct slice group);
/* From here on callbacks find nothing to do; one that runs now is waited for. */
void subscription_end(struct bus_subscription *sub);
void subscription_release(struct bus_subscription *sub);

/* Bus' thread: makes live what is new, buries what was ended. */
void subscriptions_sync(struct bus *bus);
/* Bus' thread: takes one off the present connection. */
void subscription_bury(struct bus *bus, struct bus_subscription *sub);
/* Bus' thread: destroys those that are old enough, or all once the connection is closed. */
void graves_sweep(struct bus *bus, bool all);

/* Puts an item into the outbox: E_BUS_FULL, E_BUS_UNAVAILABLE after bus_close(). */
MUST_CHECK struct err bus_enqueue(struct bus *bus, natsMsg *msg, uint64_t token, size_t bytes);

/* Lends the connection to a blocking call; E_UNAVAILABLE unless connected. */
MUST_CHECK struct err bus_hold(struct bus *bus, natsConnection **out);
void bus_release(struct bus *bus);

/*
 * Sends a request and waits for its answer, for blocking calls. E_UNAVAILABLE when nothing was
 * sent or nobody serves the subject, E_RESULT_UNKNOWN when no answer came, E_BUS_FORBIDDEN,
 * E_BUS_LIMIT past the server's max_payload.
 */
MUST_CHECK struct err bus_request(struct bus *bus, const struct bus_outgoing *request,
                                  uint64_t timeout_ms, natsMsg **out_answer);

/* The server's words for what nats.c's last call of this thread failed with, or nats.c's own. */
const char *bus_words(natsStatus status);

/* What bus_last_error() tells from now on: one sentence of ASCII, cut at its bound. */
void bus_note_error(struct bus *bus, const char *text);

/* E_BUS_LIMIT when so many bytes are more than the server takes, as far as it is known; noted. */
MUST_CHECK struct err bus_judge_payload(struct bus *bus, struct slice subject, size_t size);

/* Violations reported so far; and E_BUS_FORBIDDEN when one of 'subject' came since, else
 * 'otherwise'. */
uint64_t bus_forbidden(struct bus *bus);
MUST_CHECK struct err bus_blame(struct bus *bus, uint64_t forbidden_before, const char *subject,
                                struct err otherwise);
