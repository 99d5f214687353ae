/* state: see state.h. */
#include "dataplane/canonical/state.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "dataplane/apply/model.h"
#include "dataplane/canonical/group.h"
#include "dataplane/canonical/keeper.h"
#include "dataplane/canonical/publish.h"
#include "dataplane/canonical/subscribe.h"
#include "dataplane/request/metrics.h"

enum { BATCH = 256, TICK_MS = 100, SENTENCE_ROOM = 4096 };

static void rung(struct net_task *task, void *ctx);
static void tick(struct net_timer *timer, void *ctx);
static size_t take_completions(struct canon *lane);

/* ---- the bell ---- */

static struct canon_bell *bell_new(struct net_loop *loop, struct canon *lane)
{
    struct canon_bell *bell = calloc(1, sizeof(*bell));
    if (bell == NULL) {
        return NULL;
    }
    *bell = (struct canon_bell){.loop = loop, .task = {.fn = rung, .ctx = bell}, .lane = lane};
    lock_init(&bell->shared.lock);
    CHECK(pthread_cond_init(&bell->rung, NULL) == 0);
    return bell;
}

static void bell_free(struct canon_bell *bell)
{
    CHECK(pthread_cond_destroy(&bell->rung) == 0);
    lock_free(&bell->shared.lock);
    free(bell);
}

/* The lane goes, and nobody rings any more. What was rung before still waits in the loop, which
 * runs it at its end at the latest: the bell outlives the lane until then. */
static void bell_leave(struct canon_bell *bell)
{
    lock_take(&bell->shared.lock);
    bool posted = bell->shared.posted;
    lock_drop(&bell->shared.lock);
    bell->lane = NULL;
    if (!posted) {
        bell_free(bell);
    }
}

void canon_bell_ring(void *ctx)
{
    struct canon_bell *bell = ctx;
    lock_take(&bell->shared.lock);
    if (!bell->shared.posted) {
        /* A loop that takes no more tasks looks at its next tick. */
        bell->shared.posted = err_ok(net_loop_post(bell->loop, &bell->task));
    }
    CHECK(pthread_cond_signal(&bell->rung) == 0);
    lock_drop(&bell->shared.lock);
}

static void rung(struct net_task *task, void *ctx)
{
    (void)task;
    struct canon_bell *bell = ctx;
    struct canon *lane = bell->lane;
    if (lane == NULL) {
        bell_free(bell);
        return;
    }
    lock_take(&bell->shared.lock);
    bell->shared.posted = false;
    lock_drop(&bell->shared.lock);
    (void)take_completions(lane);
    canon_group_opened(lane);
    canon_take_deliveries(lane);
}

/* ---- life ---- */

static struct err open_doors(struct canon *lane)
{
    TRY(queue_init(&lane->done, (size_t)limits.publish_inflight, canon_bell_ring, lane->bell));
    TRY(queue_init(&lane->inbox, (size_t)limits.bus_queue, canon_bell_ring, lane->bell));
    lane->queues_ready = true;
    return canon_keeper_start(&lane->host, lane->bell, &lane->keeper);
}

struct err canon_new(const struct dp_lane_host *host, struct canon **out)
{
    struct canon *lane = calloc(1, sizeof(*lane));
    if (lane == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lane->bell = bell_new(host->loop, lane);
    if (lane->bell == NULL) {
        free(lane);
        return FAIL(E_NO_MEMORY);
    }
    lane->host = *host;
    lane->payload = BUF_MAX(limits.envelope_bytes);
    lane->frame = BUF_MAX(limits.envelope_bytes + SENTENCE_ROOM);
    lane->open_subscriptions =
        metrics_plain(dp_request_metrics_set(host->metrics), DP_METRIC_BUS_SUBSCRIPTIONS);
    net_timer_init(&lane->tick, tick, lane);
    struct err err = host->bus == NULL ? OK : open_doors(lane);
    if (!err_ok(err)) {
        canon_free(lane);
        return err;
    }
    if (host->bus != NULL) {
        net_timer_arm(host->loop, &lane->tick, TICK_MS);
    }
    *out = lane;
    return OK;
}

/* Each publish completes within its timeout; nobody is there to hear of these. */
static void await_completions(struct canon *lane)
{
    while (lane->outstanding > 0) {
        if (take_completions(lane) > 0) {
            continue;
        }
        struct canon_bell *bell = lane->bell;
        lock_take(&bell->shared.lock);
        if (queue_count(&lane->done) == 0) {
            CHECK(pthread_cond_wait(&bell->rung, &bell->shared.lock.m) == 0);
        }
        lock_drop(&bell->shared.lock);
    }
}

void canon_free(struct canon *lane)
{
    CHECK(lane->publishes == NULL);
    CHECK(lane->subscriptions == NULL);
    net_timer_cancel(lane->host.loop, &lane->tick);
    canon_keeper_stop(lane->keeper);
    canon_groups_free(lane);
    await_completions(lane);
    canon_slots_free(lane);
    if (lane->queues_ready) {
        queue_free(&lane->done, jetstream_completion_drop);
        queue_free(&lane->inbox, bus_message_drop);
    }
    bell_leave(lane->bell);
    size_t at = 0;
    for (const struct map_entry *e = map_next(&lane->topics, &at); e != NULL;
         e = map_next(&lane->topics, &at)) {
        free(e->value);
    }
    map_free(&lane->topics);
    buf_free(&lane->payload);
    buf_free(&lane->frame);
    free(lane);
}

/* ---- publishing ---- */

struct err canon_send(struct canon *lane, const struct bus_outgoing *message,
                      struct slice message_id, struct canon_pending *pending)
{
    CHECK(pending->completed != NULL);
    TRY(jetstream_publish(lane->host.bus, message, message_id, &lane->done, pending));
    lane->outstanding++;
    return OK;
}

static size_t take_completions(struct canon *lane)
{
    void *items[BATCH];
    size_t taken = 0;
    size_t count = 0;
    do {
        count = queue_pop(&lane->done, items, BATCH);
        for (size_t i = 0; i < count; i++) {
            struct jetstream_completion *completion = items[i];
            struct canon_pending *pending = completion->ctx;
            CHECK(lane->outstanding > 0);
            lane->outstanding--;
            struct jetstream_completion how = *completion;
            jetstream_completion_free(completion); /* its place is free for the next one. */
            if (how.err.code == E_BUS_UNAVAILABLE) {
                canon_keeper_check(lane->keeper); /* perhaps the stream is gone. */
            }
            pending->completed(pending, &how);
        }
        taken += count;
    } while (count == BATCH && taken < lane->done.capacity);
    return taken;
}

/* ---- deliveries ---- */

void canon_take_deliveries(struct canon *lane)
{
    void *items[BATCH];
    size_t taken = 0;
    size_t count = 0;
    do {
        count = queue_pop(&lane->inbox, items, BATCH);
        for (size_t i = 0; i < count; i++) {
            struct bus_message *message = items[i];
            canon_group_received(message->ctx, message);
        }
        taken += count;
    } while (count == BATCH && taken < lane->inbox.capacity);
}

static void look_at_bus(struct canon *lane)
{
    struct bus_stats stats;
    bus_stats(lane->host.bus, &stats);
    if (stats.connects != lane->connects) {
        lane->connects = stats.connects;
        canon_keeper_check(lane->keeper);
        canon_groups_reconnected(lane);
    }
}

static void tick(struct net_timer *timer, void *ctx)
{
    struct canon *lane = ctx;
    (void)take_completions(lane); /* for a bell that the loop did not take. */
    canon_group_opened(lane);
    canon_take_deliveries(lane);
    look_at_bus(lane);
    canon_subscriptions_tick(lane);
    canon_groups_tick(lane);
    net_timer_arm(lane->host.loop, timer, TICK_MS);
}

/* ---- topics ---- */

static metrics_id outcome_series(struct metrics *set, struct slice type, enum canon_outcome outcome)
{
    static const char *const names[CANON_OUTCOME_COUNT] = {
        [CANON_ACKED] = "acked",           [CANON_NACKED] = "nacked",
        [CANON_TERMINATED] = "terminated", [CANON_LATE] = "late",
        [CANON_TIMED_OUT] = "timed_out",   [CANON_RETURNED] = "returned",
        [CANON_EXPIRED] = "expired",       [CANON_QUARANTINED] = "quarantined"};
    return metrics_series(set, DP_METRIC_BUS_DELIVERIES,
                          (const struct slice[]){type, slice_str(names[outcome])});
}

static struct canon_topic *topic_new(struct canon *lane, const struct dp_topic *topic)
{
    struct canon_topic *t = malloc(sizeof(*t) + topic->type.size + topic->stream.size);
    if (t == NULL) {
        return NULL;
    }
    uint8_t *texts = (uint8_t *)(t + 1);
    memcpy(texts, topic->type.ptr, topic->type.size);
    memcpy(texts + topic->type.size, topic->stream.ptr, topic->stream.size);
    *t = (struct canon_topic){.type = slice_of(texts, topic->type.size),
                              .stream = slice_of(texts + topic->type.size, topic->stream.size)};
    struct metrics *set = dp_request_metrics_set(lane->host.metrics);
    t->publish_latency = metrics_series(set, DP_METRIC_BUS_PUBLISH_LATENCY, &t->type);
    t->consume_latency = metrics_series(set, DP_METRIC_BUS_CONSUME_LATENCY, &t->type);
    for (size_t i = 0; i < CANON_OUTCOME_COUNT; i++) {
        t->outcomes[i] = outcome_series(set, t->type, (enum canon_outcome)i);
    }
    return t;
}

struct canon_topic *canon_topic(struct canon *lane, const struct dp_topic *topic)
{
    struct canon_topic *t = map_get(&lane->topics, topic->type);
    if (t != NULL) {
        return t;
    }
    t = topic_new(lane, topic);
    if (t != NULL && !err_ok(map_put(&lane->topics, t->type, t, /* out_old= */ NULL))) {
        free(t);
        t = NULL;
    }
    return t;
}

void canon_count(struct canon *lane, const struct canon_topic *topic, enum canon_outcome outcome)
{
    metrics_add(dp_request_metrics_shard(lane->host.metrics), topic->outcomes[outcome], 1);
}

void canon_record(struct canon *lane, metrics_id histogram, uint64_t us)
{
    metrics_record(dp_request_metrics_shard(lane->host.metrics), histogram, us);
}
