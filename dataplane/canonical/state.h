/*
 * state: what the canonical lane keeps for one worker, and the doors to the bus' threads.
 *
 * Shape      what the bus completes and delivers comes by two bounded queues; a bell has the
 *            worker's loop look at them. A keeper (a thread of its own) makes what blocks: streams
 *            and consumers.
 * Ownership  the lane's start() makes it, stop() frees it. Publishes that wait for JetStream
 *            outlive their calls: stop() waits for the last one.
 * Threads    the worker's, but for the bell and the queues.
 * Errors     those of jetstream.h.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/base/map.h"
#include "common/base/queue.h"
#include "common/bus/bus.h"
#include "common/bus/jetstream.h"
#include "common/net/loop.h"
#include "common/telemetry/metrics.h"
#include "dataplane/request/lane.h"

struct canon;
struct canon_group;
struct canon_keeper;
struct canon_publish;
struct canon_slot;
struct canon_subscription;
struct dp_topic;

/* Has the loop run its task once, however many ring. */
struct canon_bell {
    struct net_loop *loop;
    struct net_task task;
    struct canon *lane; /* NULL once it is freed. */
    struct {
        struct lock lock;
        bool posted GUARDED;
    } shared;
    pthread_cond_t rung; /* for stop(), when no loop runs any more. */
};

void canon_bell_ring(void *ctx);

/* Something that waits for JetStream's ack; embedded first in what it completes. */
struct canon_pending {
    void (*completed)(struct canon_pending *pending, const struct jetstream_completion *how);
};

/* What became of a delivery: values of the label 'outcome'. */
enum canon_outcome {
    CANON_ACKED,
    CANON_NACKED,
    CANON_TERMINATED,
    CANON_LATE,        /* answered after ack_wait, or twice. */
    CANON_TIMED_OUT,   /* no answer within ack_wait. */
    CANON_RETURNED,    /* its subscriber went away. */
    CANON_EXPIRED,     /* the envelope's expiry passed before it was delivered. */
    CANON_QUARANTINED, /* no envelope of its type. */
    CANON_OUTCOME_COUNT
};

/* A canonical type as this worker's metrics and answers name it. Lives until stop(). */
struct canon_topic {
    struct slice type; /* "User.v2". */
    struct slice stream;
    metrics_id publish_latency;
    metrics_id consume_latency;
    metrics_id outcomes[CANON_OUTCOME_COUNT];
};

struct canon {
    struct dp_lane_host host; /* borrowed parts. */
    struct canon_bell *bell;  /* owned; may outlive the lane by a task. */
    struct queue done;        /* of struct jetstream_completion. */
    struct queue inbox;       /* of struct bus_message. */
    bool queues_ready;
    struct canon_keeper *keeper;
    struct map topics;          /* type to struct canon_topic, owned. */
    struct canon_group *groups; /* owned; see group.h. */
    struct canon_publish *publishes;
    struct canon_subscription *subscriptions;
    struct canon_slot *free_slots;
    size_t free_slot_count;
    size_t outstanding; /* publishes whose completion did not come yet. */
    struct buf payload; /* of the envelope that goes out. */
    struct buf frame;   /* of the response that goes out. */
    metrics_id open_subscriptions;
    uint64_t connects; /* of the bus, when we last looked. */
    struct net_timer tick;
    bool draining;
};

MUST_CHECK struct err canon_new(const struct dp_lane_host *host, struct canon **out);
void canon_free(struct canon *lane);

/* Publishes; pending->completed() is called once, later, when this says E_OK. */
MUST_CHECK struct err canon_send(struct canon *lane, const struct bus_outgoing *message,
                                 struct slice message_id, struct canon_pending *pending);

/* Hands over all deliveries that came so far. */
void canon_take_deliveries(struct canon *lane);

/* The worker's record of a topic; NULL when memory is out. */
struct canon_topic *canon_topic(struct canon *lane, const struct dp_topic *topic);

void canon_count(struct canon *lane, const struct canon_topic *topic, enum canon_outcome outcome);
void canon_record(struct canon *lane, metrics_id histogram, uint64_t us);
