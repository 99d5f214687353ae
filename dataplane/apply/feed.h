/*
 * feed: what the bus brings to the apply thread: hints, and values of the snapshot bucket.
 *
 * Shape      hints arrive as plain messages in a bounded queue; values are read by key and waited
 *            for. What a version adds is pushed beside its hint, too: the last pushes are kept, and
 *            looked into first; they prove nothing. NATS may be away at any time, also from the
 *            start.
 * Units      bytes, milliseconds.
 * Ownership  the feed borrows the bus, which must outlive it.
 * Threads    the apply thread; 'wake' is called on the bus' thread.
 * Errors     E_NOT_FOUND: the bucket has no such key. E_UNAVAILABLE and others of kv.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/queue.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"
#include "common/snapshot/bundle.h"

/* Pushes that are kept, and that wait to be looked into: one comes with each publication, and a
 * node may be some behind. */
enum { FEED_PUSHES = 4 };

struct dp_feed_push {
    struct bus_message *message;
    struct bundle bundle; /* what is in it. */
};

struct dp_feed {
    struct bus *bus;     /* borrowed; NULL: this node has no bus, and stays with what is on disk. */
    struct subject head; /* that hints come on. */
    struct bus_subscription *hints;
    struct queue queue;                      /* of struct bus_message. */
    struct subject demand;                   /* that this node's demand goes to. */
    struct bus_subscription *shares;         /* NULL: there is no bus. */
    struct bus_subscription *contents;       /* NULL: pushes are not listened to. */
    struct dp_feed_push pushes[FEED_PUSHES]; /* oldest first. */
    size_t push_count;
    struct kv snapshots;
    struct kv nodes;
    uint64_t bytes; /* fetched so far, or pushed. */
};

struct dp_feed_from {
    struct bus *bus; /* NULL: see above. */
    struct slice environment;
    struct slice node;
    const char *bucket_api; /* see kv_bind_imported(); NULL: KV_API. */
};

/* Subscribes to the environment's heads. 'wake' is called when a hint arrives. */
MUST_CHECK struct err dp_feed_init(struct dp_feed *feed, const struct dp_feed_from *from,
                                   queue_wake_fn *wake, void *wake_ctx);
void dp_feed_free(struct dp_feed *feed);

/* The latest hint that arrived, or NULL; the older ones are dropped. The caller frees it. */
struct bus_message *dp_feed_hint(struct dp_feed *feed);

/* The next shares that arrived, or NULL: a stranger's bytes, until they are judged. At most so many
 * wait; what comes while they do is dropped. The caller frees them. */
enum { DP_FEED_SHARES_MAX = 4 };
struct bus_message *dp_feed_shares(struct dp_feed *feed);

/* Says what is asked of shared budgets: once, and nobody answers that it came. */
MUST_CHECK struct err dp_feed_send_demand(struct dp_feed *feed, struct slice demand);

/* From here on the pushes that arrived are looked into, too; what is no bundle is none. */
void dp_feed_hear(struct dp_feed *feed);

/* What was pushed for a key of the snapshot bucket: a stranger's bytes, until they are judged;
 * borrowed until the next dp_feed_hear() or dp_feed_forget(). False: nothing was. */
bool dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out);

/* The pushes up to the one that has this key are of no use any more. */
void dp_feed_forget(struct dp_feed *feed, const char *key);

/* Subscribes to hints anew: the server may have let the subscription go and not said so. */
void dp_feed_listen_again(struct dp_feed *feed);

/* Whether there is any use in asking. */
bool dp_feed_connected(const struct dp_feed *feed);

/* Appends the value of a key of the snapshot bucket. */
MUST_CHECK struct err dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out);

/* Appends the head that lies in the bucket, as the stream's leader has it: one from a replica that
 * is behind would look like a replayed one. */
MUST_CHECK struct err dp_feed_get_head(struct dp_feed *feed, struct buf *out);

/* Writes this node's status. */
MUST_CHECK struct err dp_feed_put_status(struct dp_feed *feed, struct slice node,
                                         struct slice status);
