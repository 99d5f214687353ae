/*
 * One subscription, top to bottom:
 *
 *     start -> caller_data -> take_item: open -> decide -> join groups ... say_opened
 *                                        credit -> pump ... deliver
 *                                        ack, nack -> answer_delivery
 *     release: whatever ends the call gives its open deliveries back
 */
#include "dataplane/canonical/subscribe.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "common/bus/envelope.h"
#include "common/bus/jetstream.h"
#include "common/net/grpc.h"
#include "dataplane/canonical/group.h"
#include "dataplane/canonical/message.h"
#include "dataplane/canonical/output.h"
#include "dataplane/canonical/state.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

/* Bytes of one SubscribeRequest: a thousand acks. */
enum { REQUEST_MAX = 64 << 10 };

/* A message that the subscriber has and did not answer. */
struct delivery {
    uint64_t id;           /* the key in the map. */
    struct delivery *next; /* towards younger ones. */
    struct delivery *prev;
    struct canon_group *group;
    uint64_t since_ns;
    struct slice reply; /* kept behind the struct. */
};

struct canon_subscription {
    struct dp_request *rq;
    struct canon *lane;
    struct canon_subscription *next; /* in the lane's list. */
    struct canon_subscription *prev;
    struct grpc_reader reader;
    struct canon_output out;
    struct net_timer open_timer; /* until the first request came. */
    struct canon_member members[CANON_TYPES_MAX];
    size_t member_count;
    uint64_t credit;
    uint64_t last_id;
    struct map open; /* id to struct delivery. */
    struct delivery *oldest;
    struct delivery *youngest;
    bool named;             /* the first request came. */
    bool opened;            /* and was answered. */
    struct err broken;      /* a delivery could not be sent: the call ends with this turn. */
    struct net_hook ending; /* ends it: not in the midst of a group's turn. */
};

static const struct h2_stream_events caller_events;
static void fail(struct canon_subscription *sub, struct err why, struct slice sentence);

/* ---- start ---- */

static void not_opened(struct net_timer *timer, void *ctx)
{
    (void)timer;
    fail(ctx, FAIL(E_SUBSCRIPTION_INVALID), SLICE_LIT("no first request came"));
}

static void end_broken(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct canon_subscription *sub = ctx;
    fail(sub, sub->broken, (struct slice){0});
}

struct err canon_subscribe_start(struct dp_request *rq)
{
    CHECK(rq->stream != NULL);
    struct canon *lane = rq->pool->lanes[DP_LANE_CANONICAL];
    if (lane->draining) {
        return FAIL(E_DRAINING);
    }
    if (h2_stream_received_end(rq->stream)) {
        return FAIL(E_SUBSCRIPTION_INVALID);
    }
    void *memory = NULL;
    TRY(arena_calloc(&rq->arena, 1, sizeof(struct canon_subscription), &memory));
    struct canon_subscription *sub = memory;
    sub->rq = rq;
    sub->lane = lane;
    sub->next = lane->subscriptions;
    sub->out = canon_output_of(rq);
    grpc_reader_init(&sub->reader, REQUEST_MAX);
    if (sub->next != NULL) {
        sub->next->prev = sub;
    }
    lane->subscriptions = sub;
    rq->lane_state = sub;
    metrics_add(dp_request_metrics_shard(lane->host.metrics), lane->open_subscriptions, 1);
    net_hook_init(&sub->ending, NET_HOOK_WORK, end_broken, sub);
    net_timer_init(&sub->open_timer, not_opened, sub);
    net_timer_arm(lane->host.loop, &sub->open_timer, limits.deadline_default_ms);
    h2_stream_attach(rq->stream, &caller_events, sub);
    return OK;
}

/* ---- open ---- */

static MUST_CHECK struct err join(struct canon_subscription *sub, const struct canon_open *open,
                                  struct slice type)
{
    struct dp_request *rq = sub->rq;
    const struct dp_topic *topic = dp_model_topic(rq->model, type);
    if (topic == NULL) {
        return FAIL(E_TYPE_UNKNOWN);
    }
    if (dp_model_topic_blocked(rq->model, topic)) {
        return FAIL(E_SCHEMA_BLOCKED);
    }
    for (size_t i = 0; i < sub->member_count; i++) {
        if (slice_eq(canon_group_type(sub->members[i].group), topic->type)) {
            return OK; /* named twice. */
        }
    }
    TRY(dp_request_decide(rq, &topic->target, DP_VERB_SUBSCRIBE, topic->type));
    CHECK(rq->verdict.allow);
    const struct canon_group_key key = {.consumer = open->consumer,
                                        .tenant = rq->caller->tenant,
                                        .topic = topic,
                                        .from_start = open->from_start};
    struct canon_member *member = &sub->members[sub->member_count];
    member->subscription = sub;
    TRY(canon_group_join(sub->lane, &key, member));
    sub->member_count++;
    return OK;
}

static MUST_CHECK struct err say_opened(struct canon_subscription *sub)
{
    bool all = sub->named && sub->member_count > 0;
    for (size_t i = 0; i < sub->member_count; i++) {
        all = all && canon_group_is_open(sub->members[i].group);
    }
    if (!all || sub->opened) {
        return OK;
    }
    struct buf *frame = &sub->lane->frame;
    buf_clear(frame);
    TRY(canon_opened_answer(frame));
    TRY(canon_output_send(&sub->out, buf_slice(frame)));
    sub->opened = true;
    return OK;
}

static MUST_CHECK struct err take_open(struct canon_subscription *sub, struct slice bytes)
{
    struct canon_open open;
    if (sub->named) {
        return FAIL(E_SUBSCRIPTION_INVALID);
    }
    TRY(canon_open_decode(bytes, &open));
    if (!text_is_name(open.consumer) || open.type_count == 0) {
        return FAIL(E_SUBSCRIPTION_INVALID);
    }
    sub->named = true;
    net_timer_cancel(sub->lane->host.loop, &sub->open_timer);
    sub->credit = open.credit == 0 ? limits.subscription_credit : open.credit;
    for (size_t i = 0; i < open.type_count; i++) {
        TRY(join(sub, &open, open.types[i]));
    }
    return say_opened(sub);
}

void canon_subscriptions_opened(struct canon *lane)
{
    struct canon_subscription *sub = lane->subscriptions;
    while (sub != NULL) {
        struct canon_subscription *next = sub->next;
        struct err err = say_opened(sub);
        if (!err_ok(err)) {
            fail(sub, err, (struct slice){0});
        }
        sub = next;
    }
}

bool canon_subscription_is_open(const struct canon_subscription *sub)
{
    return sub->opened;
}

void canon_subscription_refuse(struct canon_subscription *sub, struct err why, struct slice what)
{
    struct slice sentence = {0};
    struct err kept = arena_dup(&sub->rq->arena, what, &sentence);
    (void)kept; /* without memory the code speaks for itself. */
    fail(sub, why, sentence);
}

/* ---- deliver ---- */

size_t canon_subscription_room(const struct canon_subscription *sub)
{
    if (!sub->opened || !err_ok(sub->broken) || canon_output_waits(&sub->out) ||
        sub->open.count >= limits.subscription_credit) {
        return 0;
    }
    uint64_t room = limits.subscription_credit - sub->open.count;
    return (size_t)(sub->credit < room ? sub->credit : room);
}

static struct delivery *delivery_new(struct canon_subscription *sub, struct canon_group *group,
                                     struct slice reply)
{
    struct delivery *d = malloc(sizeof(*d) + reply.size);
    if (d == NULL) {
        return NULL;
    }
    uint8_t *kept = (uint8_t *)(d + 1);
    memcpy(kept, reply.ptr, reply.size);
    *d = (struct delivery){.id = sub->last_id + 1,
                           .prev = sub->youngest,
                           .group = group,
                           .since_ns = clock_mono_ns(),
                           .reply = slice_of(kept, reply.size)};
    if (!err_ok(map_put(&sub->open, slice_of(&d->id, sizeof(d->id)), d, /* out_old= */ NULL))) {
        free(d);
        return NULL;
    }
    sub->last_id++;
    if (sub->youngest != NULL) {
        sub->youngest->next = d;
    } else {
        sub->oldest = d;
    }
    sub->youngest = d;
    return d;
}

/* It is no longer open; frees it. */
static void delivery_end(struct canon_subscription *sub, struct delivery *d,
                         enum canon_outcome outcome)
{
    canon_count(sub->lane, canon_group_topic(d->group), outcome);
    CHECK(map_remove(&sub->open, slice_of(&d->id, sizeof(d->id))) == d);
    if (d->prev != NULL) {
        d->prev->next = d->next;
    } else {
        sub->oldest = d->next;
    }
    if (d->next != NULL) {
        d->next->prev = d->prev;
    } else {
        sub->youngest = d->prev;
    }
    free(d);
}

static MUST_CHECK struct err send_delivery(struct canon_subscription *sub, const struct delivery *d,
                                           const struct bus_message *message)
{
    struct jetstream_delivery place;
    TRY(jetstream_delivery_parse(message->reply, &place));
    const struct canon_delivery_answer answer = {.delivery = d->id,
                                                 .envelope = message->payload,
                                                 .sequence = place.stream_sequence,
                                                 .attempt = place.attempt};
    struct buf *frame = &sub->lane->frame;
    buf_clear(frame);
    TRY(canon_delivery_answer(&answer, frame));
    return canon_output_send(&sub->out, buf_slice(frame));
}

static void record_latency(struct canon_subscription *sub, const struct delivery *d,
                           const struct bus_message *message)
{
    struct envelope envelope;
    if (err_ok(envelope_decode(message->payload, &envelope)) && envelope.time_ms > 0) {
        int64_t ms = clock_wall_ms() - envelope.time_ms;
        canon_record(sub->lane, canon_group_topic(d->group)->consume_latency,
                     ms > 0 ? (uint64_t)ms * 1000 : 0);
    }
}

void canon_subscription_deliver(struct canon_subscription *sub, struct canon_group *group,
                                const struct bus_message *message)
{
    CHECK(canon_subscription_room(sub) > 0);
    struct delivery *d = delivery_new(sub, group, message->reply);
    struct err err = d == NULL ? FAIL(E_NO_MEMORY) : send_delivery(sub, d, message);
    if (d == NULL) {
        struct err lost = jetstream_nak(sub->lane->host.bus, message->reply, 0);
        (void)lost;
    }
    if (!err_ok(err)) {
        sub->broken = err;
        net_hook_queue(sub->lane->host.loop, &sub->ending);
        return;
    }
    sub->credit--;
    record_latency(sub, d, message);
}

/* ---- what the subscriber asks for ---- */

static void pump(struct canon_subscription *sub)
{
    for (size_t i = 0; i < sub->member_count; i++) {
        canon_group_pump(sub->members[i].group);
    }
}

/* An answer that is lost only means that the message comes again after ack_wait. */
static void answer_delivery(struct canon_subscription *sub, struct delivery *d,
                            const struct canon_item *item)
{
    struct bus *bus = sub->lane->host.bus;
    struct err lost;
    enum canon_outcome outcome = CANON_ACKED;
    if (item->ask == CANON_ASK_ACK) {
        lost = jetstream_ack(bus, d->reply);
    } else if (item->terminate) {
        lost = jetstream_term(bus, d->reply);
        outcome = CANON_TERMINATED;
    } else {
        lost = jetstream_nak(bus, d->reply, item->delay_ms);
        outcome = CANON_NACKED;
    }
    (void)lost;
    delivery_end(sub, d, outcome);
}

/* One that was open once may be answered late or twice: that is counted and changes nothing. */
static MUST_CHECK struct err take_answer(struct canon_subscription *sub,
                                         const struct canon_item *item)
{
    uint64_t id = 0;
    if (!slice_to_u64(item->delivery, &id) || id == 0 || id > sub->last_id) {
        return FAIL(E_ACK_UNKNOWN);
    }
    struct delivery *d = map_get(&sub->open, slice_of(&id, sizeof(id)));
    if (d != NULL) {
        answer_delivery(sub, d, item);
    } else {
        canon_count(sub->lane, canon_group_topic(sub->members[0].group), CANON_LATE);
    }
    return OK;
}

static MUST_CHECK struct err take_item(struct canon_subscription *sub,
                                       const struct canon_item *item)
{
    if (!sub->named && item->ask != CANON_ASK_OPEN) {
        return FAIL(E_SUBSCRIPTION_INVALID);
    }
    switch (item->ask) {
    case CANON_ASK_OPEN:
        return take_open(sub, item->open);
    case CANON_ASK_ACK:
    case CANON_ASK_NACK:
        return take_answer(sub, item);
    case CANON_ASK_CREDIT:
        sub->credit += item->credit; /* cannot pass 64 bits in the life of a stream. */
        return OK;
    }
    return OK;
}

static MUST_CHECK struct err take_request(struct canon_subscription *sub, struct slice request)
{
    struct wire at = wire_of(request);
    struct canon_item item;
    bool found = true;
    while (found) {
        TRY(canon_subscribe_next(&at, &item, &found));
        if (found) {
            TRY(take_item(sub, &item));
        }
    }
    return sub->named ? OK : FAIL(E_SUBSCRIPTION_INVALID);
}

static MUST_CHECK struct err read_requests(struct canon_subscription *sub, struct slice in)
{
    bool found = true;
    while (found) {
        struct slice request = {0};
        TRY(grpc_reader_next(&sub->reader, &in, &request, &found));
        if (found && sub->reader.compressed) {
            return FAIL(E_UNSUPPORTED);
        }
        if (found) {
            TRY(take_request(sub, request));
        }
    }
    return OK;
}

/* ---- the caller's side ---- */

static void release(struct canon_subscription *sub);

/* The subscriber ended its side: nobody can ack any more. */
static void finish(struct canon_subscription *sub)
{
    struct dp_request *rq = sub->rq;
    struct err err = grpc_scan_end(&sub->reader.scan);
    if (err_ok(err) && canon_output_waits(&sub->out)) {
        err = FAIL(E_CANCELLED); /* it left while a message was on its way. */
    }
    if (err_ok(err)) {
        err = canon_output_finish(&sub->out);
    }
    if (!err_ok(err)) {
        fail(sub, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err, (struct slice){0});
        return;
    }
    release(sub);
    dp_request_done(rq, OK);
}

static void caller_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct canon_subscription *sub = h2_stream_user(s);
    sub->rq->request_bytes += bytes.size;
    h2_stream_consume(s, bytes.size);
    struct err err = read_requests(sub, bytes);
    if (!err_ok(err)) {
        struct slice sentence = {0};
        fail(sub, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err, sentence);
    } else if (end) {
        finish(sub);
    } else {
        pump(sub);
    }
}

static void caller_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields; /* a gRPC request has none; what comes as such only ends it. */
    caller_data(s, (struct slice){0}, /* end= */ true);
}

static void caller_writable(struct h2_stream *s)
{
    struct canon_subscription *sub = h2_stream_user(s);
    struct err err = canon_output_flush(&sub->out);
    if (!err_ok(err)) {
        fail(sub, err, (struct slice){0});
        return;
    }
    pump(sub);
}

static void caller_reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct canon_subscription *sub = h2_stream_user(s);
    dp_request_cancel(sub->rq);
}

static const struct h2_stream_events caller_events = {.data = caller_data,
                                                      .trailers = caller_trailers,
                                                      .writable = caller_writable,
                                                      .reset = caller_reset};

/* ---- the end ---- */

static void give_back(struct canon_subscription *sub)
{
    while (sub->oldest != NULL) {
        struct delivery *d = sub->oldest;
        struct err lost =
            jetstream_nak(sub->lane->host.bus, d->reply, canon_group_return_ms(d->group));
        (void)lost; /* then it comes again after ack_wait. */
        delivery_end(sub, d, CANON_RETURNED);
    }
    map_free(&sub->open);
}

static void release(struct canon_subscription *sub)
{
    struct canon *lane = sub->lane;
    for (size_t i = 0; i < sub->member_count; i++) {
        canon_group_leave(&sub->members[i]); /* groups end at a tick: deliveries still name it. */
    }
    give_back(sub);
    if (sub->prev != NULL) {
        sub->prev->next = sub->next;
    } else {
        lane->subscriptions = sub->next;
    }
    if (sub->next != NULL) {
        sub->next->prev = sub->prev;
    }
    net_timer_cancel(lane->host.loop, &sub->open_timer);
    net_hook_cancel(lane->host.loop, &sub->ending);
    grpc_reader_free(&sub->reader);
    canon_output_free(&sub->out);
    metrics_add(dp_request_metrics_shard(lane->host.metrics), lane->open_subscriptions, -1);
    sub->rq->lane_state = NULL;
}

static void fail(struct canon_subscription *sub, struct err why, struct slice sentence)
{
    struct canon_output out = {.rq = sub->rq};
    release(sub);
    canon_output_fail(&out, why, sentence);
}

void canon_subscribe_abort(struct dp_request *rq, struct err why)
{
    CHECK(rq->lane_state != NULL);
    fail(rq->lane_state, why, (struct slice){0});
}

/* ---- after a swap ---- */

struct err canon_subscribe_redecide(struct dp_request *rq)
{
    struct canon_subscription *sub = rq->lane_state;
    for (size_t i = 0; i < sub->member_count; i++) {
        const struct dp_topic *topic =
            dp_model_topic(rq->model, canon_group_type(sub->members[i].group));
        if (topic == NULL) {
            return FAIL(E_TYPE_UNKNOWN);
        }
        if (dp_model_topic_blocked(rq->model, topic)) {
            return FAIL(E_SCHEMA_BLOCKED);
        }
        if (!slice_eq(canon_group_tenant(sub->members[i].group), rq->caller->tenant)) {
            return FAIL(E_TENANT_MISMATCH);
        }
        TRY(dp_request_authorize(rq, &topic->target, DP_VERB_SUBSCRIBE, topic->type));
    }
    return OK;
}

/* ---- time ---- */

void canon_subscriptions_tick(struct canon *lane)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t wait_ns = limits.ack_wait_ms * 1000000;
    for (struct canon_subscription *sub = lane->subscriptions; sub != NULL; sub = sub->next) {
        while (sub->oldest != NULL && now_ns - sub->oldest->since_ns >= wait_ns) {
            delivery_end(sub, sub->oldest, CANON_TIMED_OUT);
        }
    }
}

void canon_subscriptions_drain(struct canon *lane)
{
    while (lane->subscriptions != NULL) { /* ends: each one leaves the list. */
        fail(lane->subscriptions, FAIL(E_DRAINING), (struct slice){0});
    }
}
