/* feed: see feed.h. */
#include "dataplane/apply/feed.h"

#include "common/base/limits.h"
#include "common/bus/subject.h"
#include "common/snapshot/format.h"

/* Hints that wait while the apply thread fetches; one comes in two seconds. */
enum { HINT_QUEUE = 1024 };

/* How long heads wait for the answer to a status: who listens has heard it by then, and it is said
 * again with the next heartbeat. */
static const uint64_t status_answer_ms = 250;

static struct err listen(struct dp_feed *feed, struct bus_subscription **out)
{
    return bus_subscribe(feed->bus, subject_slice(&feed->head), /* group= */ (struct slice){0},
                         &feed->queue, /* ctx= */ NULL, out);
}

static struct err bind(struct dp_feed *feed, const struct dp_feed_from *from)
{
    struct subject snapshots;
    struct subject nodes;
    TRY(subject_bucket_snapshots(from->environment, &snapshots));
    TRY(subject_bucket_nodes(from->environment, &nodes));
    TRY(subject_head(from->environment, &feed->head));
    TRY(kv_bind_imported(&feed->snapshots, feed->bus, subject_slice(&snapshots),
                         from->bucket_api == NULL ? KV_API : from->bucket_api));
    TRY(kv_bind(&feed->nodes, feed->bus, subject_slice(&nodes)));
    return listen(feed, &feed->hints);
}

struct err dp_feed_init(struct dp_feed *feed, const struct dp_feed_from *from, queue_wake_fn *wake,
                        void *wake_ctx)
{
    *feed = (struct dp_feed){.bus = from->bus};
    TRY(queue_init(&feed->queue, HINT_QUEUE, wake, wake_ctx));
    if (from->bus == NULL) {
        return OK;
    }
    struct err e = bind(feed, from);
    if (!err_ok(e)) {
        queue_free(&feed->queue, bus_message_drop);
    }
    return e;
}

void dp_feed_free(struct dp_feed *feed)
{
    if (feed->bus != NULL) {
        bus_unsubscribe(feed->bus, feed->hints);
    }
    queue_free(&feed->queue, bus_message_drop);
}

struct bus_message *dp_feed_hint(struct dp_feed *feed)
{
    struct bus_message *latest = NULL;
    void *message = NULL;
    while (queue_pop(&feed->queue, &message, 1) == 1) {
        bus_message_free(latest);
        latest = message;
    }
    return latest;
}

void dp_feed_listen_again(struct dp_feed *feed)
{
    struct bus_subscription *again = NULL;
    if (err_ok(listen(feed, &again))) { /* else the old one stays, and polls go on. */
        bus_unsubscribe(feed->bus, feed->hints);
        feed->hints = again;
    }
}

bool dp_feed_connected(const struct dp_feed *feed)
{
    return feed->bus != NULL && bus_state(feed->bus) == BUS_CONNECTED;
}

static struct err get(struct dp_feed *feed, const char *key, enum kv_read read, struct buf *out)
{
    struct kv_entry entry = {0};
    TRY(kv_get(&feed->snapshots, slice_str(key), read, limits.fetch_timeout_ms, out, &entry));
    return entry.state == KV_VALUE ? OK : FAIL(E_NOT_FOUND);
}

struct err dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out)
{
    if (!dp_feed_connected(feed)) {
        return FAIL(E_UNAVAILABLE);
    }
    struct err e = get(feed, key, KV_READ_ANY, out);
    if (e.code == E_NOT_FOUND) {
        /* A replica may be behind: only the leader's word is that there is none. */
        e = get(feed, key, KV_READ_LEADER, out);
    }
    feed->bytes += err_ok(e) ? out->size : 0;
    return e;
}

struct err dp_feed_get_head(struct dp_feed *feed, struct buf *out)
{
    return dp_feed_connected(feed) ? get(feed, SNAP_KEY_HEAD, KV_READ_LEADER, out)
                                   : FAIL(E_UNAVAILABLE);
}

struct err dp_feed_put_status(struct dp_feed *feed, struct slice node, struct slice status)
{
    if (!dp_feed_connected(feed)) {
        return FAIL(E_UNAVAILABLE);
    }
    uint64_t wait_ms =
        limits.fetch_timeout_ms < status_answer_ms ? limits.fetch_timeout_ms : status_answer_ms;
    return kv_put(&feed->nodes, node, status, wait_ms, /* out_revision= */ NULL);
}
