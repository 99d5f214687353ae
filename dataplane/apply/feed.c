/* feed: see feed.h. */
#include "dataplane/apply/feed.h"

#include <string.h>

#include "common/base/limits.h"
#include "common/bus/subject.h"
#include "common/snapshot/format.h"

/* Hints that wait while the apply thread fetches; one comes in two seconds. */
enum { HINT_QUEUE = 1024 };

/* How long heads wait for the answer to a status: who listens has heard it by then, and it is said
 * again with the next heartbeat. */
static const uint64_t status_answer_ms = 250;

/* No head is larger, so that hints that wait take some megabytes, whoever sends them. */
#define HINT_BYTES_MAX (CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + HEAD_BODY_MAX)

static struct err listen(struct dp_feed *feed, struct bus_subscription **out)
{
    return bus_subscribe_payloads(feed->bus, subject_slice(&feed->head), HINT_BYTES_MAX,
                                  &feed->queue, /* ctx= */ NULL, out);
}

/* A user that may not subscribe to it hears nothing: the server says so, and nothing else comes of
 * it. */
static struct err listen_to_pushes(struct dp_feed *feed, struct slice environment)
{
    struct subject content;
    size_t bytes = (size_t)limits.content_push_bytes;
    if (bytes == 0) {
        return OK;
    }
    TRY(subject_content(environment, &content));
    return bus_subscribe_waiting(feed->bus, subject_slice(&content), FEED_PUSHES,
                                 FEED_PUSHES * bytes, &feed->contents);
}

/* A user that may not subscribe to it has no shares: what limits say for that holds. */
static struct err listen_to_shares(struct dp_feed *feed, const struct dp_feed_from *from)
{
    struct subject shares;
    TRY(subject_demand(from->environment, from->node, &feed->demand));
    TRY(subject_shares(from->environment, from->node, &shares));
    return bus_subscribe_waiting(
        feed->bus, subject_slice(&shares), DP_FEED_SHARES_MAX,
        (size_t)DP_FEED_SHARES_MAX *
            (SHARES_BODY_MAX + CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE),
        &feed->shares);
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
    TRY(listen_to_pushes(feed, from->environment));
    struct err e = listen_to_shares(feed, from);
    if (err_ok(e)) {
        e = listen(feed, &feed->hints);
    }
    if (!err_ok(e)) {
        bus_unsubscribe(feed->bus, feed->shares);
        bus_unsubscribe(feed->bus, feed->contents);
    }
    return e;
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

/* ---- pushes ---- */

/* The oldest 'count' of them. */
static void drop_pushes(struct dp_feed *feed, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bus_message_free(feed->pushes[i].message);
    }
    feed->push_count -= count;
    memmove(feed->pushes, feed->pushes + count, feed->push_count * sizeof(feed->pushes[0]));
}

static void keep_push(struct dp_feed *feed, struct bus_message *message)
{
    if (feed->push_count == FEED_PUSHES) {
        drop_pushes(feed, 1);
    }
    struct dp_feed_push *push = &feed->pushes[feed->push_count];
    push->message = message;
    bool fits = message->payload.size <= limits.content_push_bytes;
    if (fits && err_ok(bundle_read(message->payload, &push->bundle))) {
        feed->push_count++;
    } else {
        bus_message_free(message);
    }
}

void dp_feed_hear(struct dp_feed *feed)
{
    for (size_t i = 0; feed->contents != NULL && i < FEED_PUSHES; i++) {
        struct bus_message *message = bus_take(feed->contents);
        if (message == NULL) {
            return;
        }
        feed->bytes += message->payload.size;
        keep_push(feed, message);
    }
}

/* The push that has a key, the newest first, as its number from 1 on; 0: none has. */
static size_t find_push(const struct dp_feed *feed, const char *key, struct slice *out)
{
    size_t at = feed->push_count;
    while (at > 0 && !bundle_find(&feed->pushes[at - 1].bundle, slice_str(key), out)) {
        at--;
    }
    return at;
}

bool dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out)
{
    return find_push(feed, key, out) > 0;
}

void dp_feed_forget(struct dp_feed *feed, const char *key)
{
    struct slice value;
    drop_pushes(feed, find_push(feed, key, &value));
}

void dp_feed_free(struct dp_feed *feed)
{
    if (feed->bus != NULL) {
        bus_unsubscribe(feed->bus, feed->hints);
        bus_unsubscribe(feed->bus, feed->contents);
        bus_unsubscribe(feed->bus, feed->shares);
    }
    drop_pushes(feed, feed->push_count);
    queue_free(&feed->queue, bus_message_drop);
}

/* ---- shares ---- */

struct bus_message *dp_feed_shares(struct dp_feed *feed)
{
    return feed->shares == NULL ? NULL : bus_take(feed->shares);
}

struct err dp_feed_send_demand(struct dp_feed *feed, struct slice demand)
{
    return bus_publish(feed->bus, &(struct bus_outgoing){.subject = subject_slice(&feed->demand),
                                                         .payload = demand});
}

/* ---- hints ---- */

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
