/*
 * jetstream: streams, publishes that are acknowledged, and durable consumers.
 *
 * Shape      a publish takes a place in a bounded table until its completion is freed; the server's
 *            ack, or the timeout, puts the completion into the publisher's queue. Places that wait
 *            when a connection is lost are sent again after the reconnect, in order, under the
 *            same Nats-Msg-Id: JetStream's dedupe window makes that harmless.
 *            A consumer is pulled from, or pushes to a deliver group; acks are explicit.
 *            Deliveries are struct bus_message whose reply subject is what acks name.
 * Units      bytes, milliseconds.
 * Ownership  a completion is its popper's, who gives it back with jetstream_completion_free(),
 *            also after bus_close().
 * Threads    *_ensure() waits: background threads only. All else: any thread, never waiting.
 * Errors     E_BUS_FULL at once past limits.publish_inflight (or limits.bus_inbox_bytes in all);
 *            E_BUS_UNAVAILABLE at once when the connection is gone for more than a second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/queue.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"

/* ---- streams ---- */

enum { JETSTREAM_SUBJECTS_MAX = 16, JETSTREAM_NAME_MAX = 128 };

struct jetstream_stream {
    const char *name;            /* "TRILANE_EVENTS" */
    const char *const *subjects; /* made by subject.h */
    size_t subject_count;        /* 1 to JETSTREAM_SUBJECTS_MAX. */
    uint64_t max_bytes;          /* oldest messages go first; 0: limits.stream_max_bytes. */
    uint64_t max_age_ms;         /* 0: no bound. */
    uint64_t duplicate_ms;       /* dedupe window; 0: two minutes. */
    uint32_t replicas;           /* 1, 3 or 5; 0 is 1. One that exists may have fewer. */
};

/* How a stream is now. */
struct stream_info {
    uint64_t messages;
    uint64_t bytes;            /* that they take. */
    uint64_t max_bytes;        /* 0: no bound. */
    uint32_t replicas;         /* that it is kept in. */
    uint32_t replicas_current; /* of these, that are up to date, the leader counted. */
};

/*
 * Makes the stream if it is missing, on file. One that exists is checked and never changed or
 * destroyed: E_CONFLICT, with a sentence in 'why' (may be NULL), when it lacks a subject or is not
 * on file. One that has fewer replicas is taken as it is, which 'out' (may be NULL) tells.
 * E_REPLICAS_MISSING when a new one cannot have that many. E_UNAVAILABLE, E_RESULT_UNKNOWN,
 * E_BUS_FORBIDDEN as in kv.h.
 */
MUST_CHECK struct err jetstream_stream_ensure(struct bus *bus, const struct jetstream_stream *want,
                                              uint64_t timeout_ms, struct buf *why,
                                              struct stream_info *out);

/* ---- publishing ---- */

struct jetstream_completion {
    void *ctx;         /* the publish's. */
    struct err err;    /* E_OK; E_BUS_UNAVAILABLE, E_MESSAGE_TOO_LARGE, E_BUS_FULL (stream full). */
    uint64_t sequence; /* in the stream. */
    bool duplicate;    /* the stream had this message id already. */
};

/*
 * Sends to whichever stream has the subject. 'message_id' (made by subject_message_id()) is what
 * duplicates are known by. The completion comes to 'done', whose capacity must be at least
 * limits.publish_inflight and which must live until bus_close(). E_BUS_FULL, E_BUS_UNAVAILABLE,
 * E_MALFORMED, E_MESSAGE_TOO_LARGE at once: no completion follows. message->reply must be empty.
 */
MUST_CHECK struct err jetstream_publish(struct bus *bus, const struct bus_outgoing *message,
                                        struct slice message_id, struct queue *done, void *ctx);

/* Gives back the place in the table. Accepts NULL. _drop() is the same as a queue_drop_fn. */
void jetstream_completion_free(struct jetstream_completion *completion);
void jetstream_completion_drop(void *completion);

/* Places in use now: publishes without an ack, and completions that nobody freed. */
size_t jetstream_inflight(struct bus *bus);

/* ---- consuming ---- */

struct jetstream_consumer {
    const char *stream;
    const char *durable; /* made by subject_durable(); the deliver group is the same. */
    const char *filter;  /* one subject, wildcards allowed. */
    const char *deliver; /* made by subject_deliver(); NULL: a pull consumer, see jetstream_pull. */
    bool from_start;     /* a new consumer begins at the oldest message, not at the next. */
    /* 0: the limit of that name (max_ack_pending: limits.subscription_credit). */
    uint64_t ack_wait_ms;
    uint64_t max_deliver;
    uint64_t max_ack_pending;
};

/*
 * Makes the durable consumer if it is missing; one that exists is brought to these numbers, and
 * refused with E_CONFLICT ('why' says what) when filter, group or kind of ack differ.
 * E_NOT_FOUND: no such stream.
 */
MUST_CHECK struct err jetstream_consumer_ensure(struct bus *bus,
                                                const struct jetstream_consumer *want,
                                                uint64_t timeout_ms, struct buf *why);

struct jetstream_pull {
    struct slice stream;
    struct slice durable;
    struct slice inbox; /* a subscription's subject: deliveries and the end of the pull go there. */
    uint64_t batch;     /* messages at most. */
    uint64_t expires_ms; /* how long the server waits for them. */
};

/* Asks for messages. E_BUS_UNAVAILABLE, E_BUS_FULL, E_MALFORMED: nothing was asked. */
MUST_CHECK struct err jetstream_pull(struct bus *bus, const struct jetstream_pull *pull);

/*
 * The server's status of a message that came to a pull's inbox: 0 for a delivery; 404 or 408: the
 * pull is over; 503: nobody serves the consumer; others: the consumer is gone or refuses pulls.
 */
uint32_t jetstream_pull_status(const struct bus_message *message);

/*
 * Answers a delivery by its reply subject; sent by the bus' thread. E_BUS_UNAVAILABLE and
 * E_BUS_FULL: not answered, so it comes again after ack_wait. E_ACK_UNKNOWN: no reply subject of
 * JetStream.
 */
MUST_CHECK struct err jetstream_ack(struct bus *bus, struct slice reply);
MUST_CHECK struct err jetstream_nak(struct bus *bus, struct slice reply, uint64_t delay_ms);
MUST_CHECK struct err jetstream_term(struct bus *bus, struct slice reply);
/* Not done yet: ack_wait begins anew. */
MUST_CHECK struct err jetstream_in_progress(struct bus *bus, struct slice reply);

/* What a delivery's reply subject tells; slices borrow from it. */
struct jetstream_delivery {
    struct slice stream;
    struct slice consumer;
    uint64_t attempt;           /* 1 at first. */
    uint64_t stream_sequence;   /* position in the stream. */
    uint64_t consumer_sequence; /* counts deliveries. */
    int64_t time_ms;            /* when the stream got it. */
    uint64_t pending;           /* messages behind it. */
};

/*
 * Reads "$JS.ACK.<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<ns>.<pending>", and the
 * later form with domain and account in front, told apart by the number of tokens.
 * E_ACK_UNKNOWN when it is neither.
 */
MUST_CHECK struct err jetstream_delivery_parse(struct slice reply, struct jetstream_delivery *out);

/* ---- the server ---- */

enum { JETSTREAM_VERSION_MAX = 32 };

struct jetstream_server {
    char version[JETSTREAM_VERSION_MAX]; /* "2.9.10" */
    uint32_t major;
    uint32_t minor;
    uint32_t patch;
    bool jetstream;
    bool headers;
    uint64_t max_payload;
    /* What follows from the version. */
    bool sync_interval_known; /* ≥ 2.10: sync_interval can be set; before, one minute. */
    bool filter_subjects;     /* ≥ 2.10: a consumer may have several filters. */
    bool strict_api;          /* ≥ 2.12: unknown fields of requests are refused. */
};

/* Reads a server's INFO line ("INFO {…}"). E_MALFORMED. */
MUST_CHECK struct err jetstream_server_parse(struct slice info, struct jetstream_server *out);

/* Asks the server that the bus is connected to. E_UNAVAILABLE, E_TIMEOUT, E_MALFORMED. */
MUST_CHECK struct err jetstream_server_ask(struct bus *bus, uint64_t timeout_ms,
                                           struct jetstream_server *out);
