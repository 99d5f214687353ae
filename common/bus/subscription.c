/*
 * subscription: from a subject of nats.c to a queue of ours. A subscription lives over connections;
 * on each it has a subscription of nats.c's, with a thread of nats.c's that calls on_message().
 */
#include <limits.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/bus/bus_internal.h"
#include "common/bus/subject.h"

static const uint64_t grave_ns = UINT64_C(10000000000);

static void add_to_list(struct bus *bus, struct bus_subscription *sub, struct queue *queue)
{
    lock_take(&sub->shared.lock);
    sub->shared.bus = bus;
    sub->shared.queue = queue;
    sub->shared.references = 2; /* the list's and the caller's. */
    lock_drop(&sub->shared.lock);
    lock_take(&bus->shared.lock);
    sub->next = bus->shared.subscriptions;
    bus->shared.subscriptions = sub;
    lock_drop(&bus->shared.lock);
    atomic_store(&bus->subscriptions_changed, true);
    bus_signal(bus);
}

static MUST_CHECK struct err make_called(struct slice subject, struct slice group, void *ctx,
                                         struct bus_subscription **out)
{
    bool fits = subject_is_valid(subject) && (group.size == 0 || subject_is_valid(group));
    if (!fits) {
        return FAIL(E_MALFORMED);
    }
    struct bus_subscription *sub = subscription_new(subject, group);
    if (sub == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    sub->ctx = ctx;
    *out = sub;
    return OK;
}

struct err bus_subscribe(struct bus *bus, struct slice subject, struct slice group,
                         struct queue *queue, void *ctx, struct bus_subscription **out)
{
    TRY(make_called(subject, group, ctx, out));
    add_to_list(bus, *out, queue);
    return OK;
}

struct err bus_subscribe_payloads(struct bus *bus, struct slice subject, size_t payload_max,
                                  struct queue *queue, void *ctx, struct bus_subscription **out)
{
    CHECK(payload_max > 0);
    TRY(make_called(subject, /* group= */ (struct slice){0}, ctx, out));
    (*out)->payload_max = payload_max;
    add_to_list(bus, *out, queue);
    return OK;
}

struct err bus_subscribe_waiting(struct bus *bus, struct slice subject, size_t messages,
                                 size_t bytes, struct bus_subscription **out)
{
    bool fits = messages > 0 && messages <= INT_MAX && bytes > 0 && bytes <= INT_MAX;
    if (!subject_is_valid(subject) || !fits) {
        return FAIL(E_MALFORMED);
    }
    struct bus_subscription *sub = subscription_new(subject, /* group= */ (struct slice){0});
    if (sub == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    sub->waiting_messages = (int)messages;
    sub->waiting_bytes = (int)bytes;
    add_to_list(bus, sub, /* queue= */ NULL);
    *out = sub;
    return OK;
}

/* Under the subscription's lock, so that the bus is there; NULL: it is not any more. */
static void give_back(struct bus *bus, natsMsg *msg)
{
    if (bus == NULL) {
        natsMsg_Destroy(msg);
    } else {
        message_spend(bus, msg);
    }
}

/* Another message that waits, or NULL: none, or the connection is gone. */
static natsMsg *take_waiting(natsSubscription *waiting)
{
    natsMsg *msg = NULL;
    uint64_t count = 0;
    if (natsSubscription_QueuedMsgs(waiting, &count) != NATS_OK || count == 0) {
        return NULL; /* nats.c writes a text for each failure. */
    }
    natsStatus s = natsSubscription_NextMsg(&msg, waiting, /* timeout= */ 0);
    if (s == NATS_SLOW_CONSUMER) { /* says once that some did not fit. */
        s = natsSubscription_NextMsg(&msg, waiting, /* timeout= */ 0);
    }
    return s == NATS_OK ? msg : NULL;
}

struct bus_message *bus_take(struct bus_subscription *sub)
{
    struct bus_message *copy = NULL;
    lock_take(&sub->shared.lock);
    struct bus *bus = sub->shared.bus;
    natsMsg *msg = sub->shared.waiting == NULL ? NULL : take_waiting(sub->shared.waiting);
    if (msg != NULL && bus != NULL) {
        bool copied = err_ok(message_copy(msg, sub->ctx, &copy));
        bus->counters.messages_in += copied;
        bus->counters.dropped_in += !copied;
    }
    give_back(bus, msg);
    lock_drop(&sub->shared.lock);
    return copy;
}

/* From here on callbacks find nothing to do; one that runs now is waited for. */
void subscription_end(struct bus_subscription *sub)
{
    lock_take(&sub->shared.lock);
    sub->shared.bus = NULL;
    sub->shared.queue = NULL;
    sub->shared.publisher = NULL;
    lock_drop(&sub->shared.lock);
    atomic_store(&sub->ended, true);
}

void bus_unsubscribe(struct bus *bus, struct bus_subscription *sub)
{
    if (sub == NULL) {
        return;
    }
    subscription_end(sub);
    subscription_release(sub);
    atomic_store(&bus->subscriptions_changed, true);
    bus_signal(bus);
}

struct bus_subscription *subscription_new(struct slice subject, struct slice group)
{
    struct bus_subscription *sub = calloc(1, sizeof(*sub));
    if (sub == NULL) {
        return NULL;
    }
    lock_init(&sub->shared.lock);
    lock_take(&sub->shared.lock);
    sub->shared.references = 1;
    lock_drop(&sub->shared.lock);
    sub->subject = slice_dup(subject);
    sub->group = group.size == 0 ? NULL : slice_dup(group);
    return sub;
}

void subscription_release(struct bus_subscription *sub)
{
    lock_take(&sub->shared.lock);
    CHECK(sub->shared.references > 0);
    bool last = --sub->shared.references == 0;
    lock_drop(&sub->shared.lock);
    if (!last) {
        return;
    }
    lock_free(&sub->shared.lock);
    free(sub->subject);
    free(sub->group);
    free(sub);
}

static struct err copy_wanted(const struct bus_subscription *sub, natsMsg *msg,
                              struct bus_message **out)
{
    if (sub->payload_max == 0) {
        return message_copy(msg, sub->ctx, out);
    }
    bool fits = (size_t)natsMsg_GetDataLength(msg) <= sub->payload_max;
    return fits ? message_copy_payload(msg, sub->ctx, out) : FAIL(E_TOO_LARGE);
}

static void deliver(struct bus *bus, struct bus_subscription *sub, struct queue *queue,
                    natsMsg *msg)
{
    struct bus_message *copy = NULL;
    struct err err = copy_wanted(sub, msg, &copy);
    if (err_ok(err)) {
        err = queue_push(queue, copy);
    }
    if (err_ok(err)) {
        bus->counters.messages_in++;
    } else {
        bus->counters.dropped_in++;
        bus_message_free(copy);
    }
}

static void deliver_answer(struct publisher *p, natsMsg *msg)
{
    const char *dot = strrchr(natsMsg_GetSubject(msg), '.');
    struct slice payload = slice_of(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg));
    publisher_answer(p, slice_str(dot == NULL ? "" : dot + 1), payload,
                     natsMsg_IsNoResponders(msg));
}

/* nats.c's thread of this subscription. The lock is what bus_unsubscribe() waits for. */
static void on_message(natsConnection *nc, natsSubscription *live, natsMsg *msg, void *ctx)
{
    (void)nc;
    (void)live;
    struct bus_subscription *sub = ctx;
    lock_take(&sub->shared.lock);
    struct bus *bus = sub->shared.bus;
    if (bus != NULL && sub->shared.queue != NULL) {
        deliver(bus, sub, sub->shared.queue, msg);
    } else if (bus != NULL) {
        deliver_answer(sub->shared.publisher, msg);
    }
    give_back(bus, msg);
    lock_drop(&sub->shared.lock);
}

/* nats.c's thread of this subscription: its last call. */
static void on_complete(void *ctx)
{
    subscription_release(ctx);
}

static natsStatus subscribe_called(struct bus_subscription *sub, natsConnection *nc,
                                   natsSubscription **out)
{
    lock_take(&sub->shared.lock);
    sub->shared.references++; /* nats.c's, until on_complete(). */
    lock_drop(&sub->shared.lock);
    natsStatus s =
        sub->group == NULL
            ? natsConnection_Subscribe(out, nc, sub->subject, on_message, sub)
            : natsConnection_QueueSubscribe(out, nc, sub->subject, sub->group, on_message, sub);
    if (s != NATS_OK) {
        subscription_release(sub);
        return s;
    }
    (void)natsSubscription_SetPendingLimits(*out, (int)limits.bus_queue,
                                            (int)limits.bus_inbox_bytes);
    /* It fails only on one that is closed already; then the reference is not given back, since
     * nobody says when its thread is done. */
    (void)natsSubscription_SetOnCompleteCB(*out, on_complete, sub);
    return NATS_OK;
}

/* Without a thread of nats.c's: messages wait in its list. */
static natsStatus subscribe_waiting(struct bus_subscription *sub, natsConnection *nc,
                                    natsSubscription **out)
{
    natsStatus s = natsConnection_SubscribeSync(out, nc, sub->subject);
    if (s != NATS_OK) {
        return s;
    }
    (void)natsSubscription_SetPendingLimits(*out, sub->waiting_messages, sub->waiting_bytes);
    lock_take(&sub->shared.lock);
    sub->shared.waiting = *out;
    lock_drop(&sub->shared.lock);
    return NATS_OK;
}

static void go_live(struct bus *bus, struct bus_subscription *sub, natsConnection *nc)
{
    struct grave *grave = calloc(1, sizeof(*grave));
    if (grave == NULL) {
        return; /* tried again with the next turn. */
    }
    natsStatus s = sub->waiting_messages == 0 ? subscribe_called(sub, nc, &grave->sub)
                                              : subscribe_waiting(sub, nc, &grave->sub);
    if (s != NATS_OK) {
        bus->counters.errors++;
        free(grave);
        return;
    }
    sub->on_thread.live = grave;
}

/* Takes an ended subscription out of the list, if it is the bus' turn to do so. */
static void unlink_subscription(struct bus *bus, struct bus_subscription *sub)
{
    lock_take(&bus->shared.lock);
    struct bus_subscription **at = &bus->shared.subscriptions;
    while (*at != sub) { /* ends: it is in the list. */
        at = &(*at)->next;
    }
    *at = sub->next;
    lock_drop(&bus->shared.lock);
}

void subscriptions_sync(struct bus *bus)
{
    atomic_store(&bus->subscriptions_changed, false);
    lock_take(&bus->shared.lock);
    struct bus_subscription *sub = bus->shared.subscriptions;
    bool usable = bus->shared.connection != NULL && !bus->shared.link_closed;
    natsConnection *nc = usable ? bus->shared.connection : NULL;
    lock_drop(&bus->shared.lock);
    while (sub != NULL) { /* only this thread takes out; others add at the front. */
        struct bus_subscription *next = sub->next;
        if (atomic_load(&sub->ended)) {
            subscription_bury(bus, sub);
            unlink_subscription(bus, sub);
            subscription_release(sub);
        } else if (nc != NULL && sub->on_thread.live == NULL) {
            go_live(bus, sub, nc);
        }
        sub = next;
    }
}

void subscription_bury(struct bus *bus, struct bus_subscription *sub)
{
    struct grave *grave = sub->on_thread.live;
    if (grave == NULL) {
        return;
    }
    sub->on_thread.live = NULL;
    lock_take(&sub->shared.lock);
    sub->shared.waiting = NULL;
    lock_drop(&sub->shared.lock);
    (void)natsSubscription_Unsubscribe(grave->sub);
    grave->since_ns = clock_mono_ns();
    grave->next = bus->on_thread.graves;
    bus->on_thread.graves = grave;
}

void graves_sweep(struct bus *bus, bool all)
{
    uint64_t now_ns = clock_mono_ns();
    struct grave **at = &bus->on_thread.graves;
    while (*at != NULL) { /* ends: each turn goes on or takes one out. */
        struct grave *grave = *at;
        if (!all && now_ns - grave->since_ns < grave_ns) {
            at = &grave->next;
            continue;
        }
        *at = grave->next;
        natsSubscription_Destroy(grave->sub);
        free(grave);
    }
}
