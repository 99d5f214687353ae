/*
 * One message, top to bottom:
 *
 *     pump -> pull ... received -> judge -> backlog -> pump -> canon_subscription_deliver
 *                                    \-> canon_quarantine
 *
 * Why pulls, and not a push with a deliver group: a push sends max_ack_pending messages to whoever
 * is subscribed, whatever credit they have. docs/decisions/0030-pull.md.
 */
#include "dataplane/canonical/group.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/bus/envelope.h"
#include "common/bus/jetstream.h"
#include "common/context/context.h"
#include "dataplane/apply/model.h"
#include "dataplane/canonical/keeper.h"
#include "dataplane/canonical/quarantine.h"
#include "dataplane/canonical/subscribe.h"

enum {
    PULL_BATCH_MAX = 256,
    PULL_MS = 1000,       /* how long the server keeps a pull that waits. */
    PULL_GRACE_MS = 1000, /* after that, no word of it means that it is lost. */
    RETRY_MS = 500,       /* between a pull that failed and the next. */
    RETURN_MARGIN_MS = 100,
    READABLE_MAX = 30 /* a name has 63 bytes, the digest 32 and a hyphen. */
};

static const uint64_t ns_per_ms = 1000000;

/* A delivery that no member has credit for yet. */
struct waiting {
    struct waiting *next;
    struct bus_message *message;
    uint64_t touched_ns; /* when the server last heard that it is not forgotten. */
};

struct canon_group {
    struct canon_group *next;
    struct canon *lane;
    struct canon_topic *topic;
    struct subject durable;
    struct subject filter;
    struct subject inbox;
    struct slice tenant;    /* these three are kept behind the struct. */
    struct slice full_name; /* of the protobuf message. */
    struct slice stream;
    bool from_start;
    bool open;                             /* the durable is there. */
    bool asked;                            /* the keeper has a job of ours. */
    struct bus_subscription *subscription; /* to the inbox. */
    struct canon_member *turn;             /* a ring; NULL: no members. */
    size_t pulled;                         /* messages that the open pull may still bring. */
    uint64_t pull_over_ns;                 /* when the server ends it. */
    uint64_t retry_ns;                     /* no pull before this. */
    struct waiting *first;
    struct waiting *last;
};

static void ask_keeper(struct canon_group *group);

/* ---- names ---- */

static uint8_t readable_byte(uint8_t c)
{
    bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    return plain ? c : c >= 'A' && c <= 'Z' ? (uint8_t)(c + 'a' - 'A') : (uint8_t)'-';
}

struct err canon_group_durable(struct slice environment, struct slice consumer, struct slice tenant,
                               struct slice type, struct subject *out)
{
    auto_buf struct buf exact = BUF_MAX(1024);
    TRY(buf_add(&exact, tenant));
    TRY(buf_add_byte(&exact, '\0'));
    TRY(buf_add(&exact, type));
    uint8_t digest[DIGEST_SHORT_SIZE];
    char view[READABLE_MAX + 1 + 2 * DIGEST_SHORT_SIZE + 1];
    ids_digest_short(buf_slice(&exact), digest);
    size_t size = 0;
    while (size < READABLE_MAX && size < type.size) {
        view[size] = (char)readable_byte(type.ptr[size]);
        size++;
    }
    if (size > 0 && view[0] == '-') {
        view[0] = 'x'; /* a name does not begin with a hyphen. */
    }
    view[size++] = '-';
    text_hex(slice_of(digest, sizeof(digest)), view + size);
    size += 2 * sizeof(digest);
    return err_ok(subject_durable(environment, consumer, slice_of(view, size), out))
               ? OK
               : FAIL(E_SUBSCRIPTION_INVALID);
}

static MUST_CHECK struct err make_names(const struct canon *lane, const struct canon_group_key *key,
                                        struct canon_group *group)
{
    struct slice env = lane->host.environment;
    struct subject_event event = {
        .environment = env, .tenant = key->tenant, .partition = SUBJECT_ANY};
    TRY(canon_group_durable(env, key->consumer, key->tenant, key->topic->type, &group->durable));
    TRY(subject_type_split(key->topic->type, &event.type, &event.major));
    TRY(subject_event_filter(&event, &group->filter));
    char own[CONTEXT_ID_SIZE + 1]; /* two workers must not hear each other's pulls. */
    context_id_make(own);
    return subject_deliver(env, slice_of(own, CONTEXT_ID_SIZE), &group->inbox);
}

/* ---- life ---- */

static struct slice keep(uint8_t **at, struct slice text)
{
    struct slice kept = slice_of(*at, text.size);
    if (text.size > 0) {
        memcpy(*at, text.ptr, text.size);
    }
    *at += text.size;
    return kept;
}

static MUST_CHECK struct err group_new(struct canon *lane, const struct canon_group_key *key,
                                       struct canon_group **out)
{
    const struct dp_topic *topic = key->topic;
    struct canon_group *group =
        calloc(1, sizeof(*group) + key->tenant.size + topic->full_name.size + topic->stream.size);
    if (group == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    uint8_t *texts = (uint8_t *)(group + 1);
    group->lane = lane;
    group->tenant = keep(&texts, key->tenant);
    group->full_name = keep(&texts, topic->full_name);
    group->stream = keep(&texts, topic->stream);
    group->from_start = key->from_start;
    group->topic = canon_topic(lane, topic);
    struct err err = group->topic == NULL ? FAIL(E_NO_MEMORY) : make_names(lane, key, group);
    if (err_ok(err)) {
        err = bus_subscribe(lane->host.bus, subject_slice(&group->inbox), (struct slice){0},
                            &lane->inbox, group, &group->subscription);
    }
    if (!err_ok(err)) {
        free(group);
        return err;
    }
    group->next = lane->groups;
    lane->groups = group;
    *out = group;
    return OK;
}

static struct canon_group *find(const struct canon *lane, const struct subject *durable)
{
    struct canon_group *group = lane->groups;
    while (group != NULL && !slice_eq(subject_slice(&group->durable), subject_slice(durable))) {
        group = group->next;
    }
    return group;
}

struct err canon_group_join(struct canon *lane, const struct canon_group_key *key,
                            struct canon_member *member)
{
    CHECK(member->group == NULL);
    struct subject durable;
    TRY(canon_group_durable(lane->host.environment, key->consumer, key->tenant, key->topic->type,
                            &durable));
    struct canon_group *group = find(lane, &durable);
    if (group == NULL) {
        TRY(group_new(lane, key, &group));
    }
    member->group = group;
    member->next = group->turn == NULL ? member : group->turn;
    member->prev = group->turn == NULL ? member : group->turn->prev;
    member->next->prev = member;
    member->prev->next = member;
    group->turn = group->turn == NULL ? member : group->turn;
    if (!group->open) {
        ask_keeper(group);
    }
    return OK;
}

static void return_backlog(struct canon_group *group);

void canon_group_leave(struct canon_member *member)
{
    struct canon_group *group = member->group;
    if (group == NULL) {
        return;
    }
    member->group = NULL;
    if (member->next == member) {
        group->turn = NULL;
        return_backlog(group);
        return;
    }
    member->next->prev = member->prev;
    member->prev->next = member->next;
    group->turn = group->turn == member ? member->next : group->turn;
}

bool canon_group_is_open(const struct canon_group *group)
{
    return group->open;
}

struct slice canon_group_type(const struct canon_group *group)
{
    return group->topic->type;
}

struct slice canon_group_tenant(const struct canon_group *group)
{
    return group->tenant;
}

const struct canon_topic *canon_group_topic(const struct canon_group *group)
{
    return group->topic;
}

/* ---- opening ---- */

static void ask_keeper(struct canon_group *group)
{
    if (group->asked) {
        return;
    }
    struct canon_job *job = calloc(1, sizeof(*job));
    if (job == NULL || group->stream.size >= sizeof(job->stream)) {
        free(job);
        return; /* asked again at the next tick. */
    }
    memcpy(job->stream, group->stream.ptr, group->stream.size);
    job->ctx = group;
    job->durable = group->durable;
    job->filter = group->filter;
    job->from_start = group->from_start;
    group->asked = true;
    canon_keeper_ask(group->lane->keeper, job);
}

/* What a subscriber is told when its durable cannot be had. */
static struct err refusal_of(struct err err)
{
    switch ((int)err.code) {
    case E_CONFLICT:
        return FAIL(E_SUBSCRIPTION_INVALID);
    case E_BUS_FORBIDDEN:
        return err;
    default:
        return FAIL(E_BUS_UNAVAILABLE);
    }
}

/*
 * Who does not wait for the durable's return. A bus that is away for a while ends no subscription
 * that is open, but none begins meanwhile. NULL: nobody.
 */
static struct canon_subscription *first_to_end(const struct canon_group *group, struct err refusal)
{
    const struct canon_member *member = group->turn;
    while (member != NULL) {
        if (refusal.code != E_BUS_UNAVAILABLE ||
            !canon_subscription_is_open(member->subscription)) {
            return member->subscription;
        }
        member = member->next == group->turn ? NULL : member->next;
    }
    return NULL;
}

static void opened(struct canon_group *group, struct err err, struct slice why)
{
    group->asked = false;
    group->open = err_ok(err);
    if (group->open) {
        group->retry_ns = 0;
        canon_subscriptions_opened(group->lane);
        canon_group_pump(group);
        return;
    }
    group->retry_ns = clock_mono_ns() + RETRY_MS * ns_per_ms;
    struct err refusal = refusal_of(err);
    struct canon_subscription *sub = first_to_end(group, refusal);
    while (sub != NULL) { /* ends: each one leaves. */
        canon_subscription_refuse(sub, refusal, why);
        sub = first_to_end(group, refusal);
    }
}

void canon_group_opened(struct canon *lane)
{
    if (lane->keeper == NULL) {
        return;
    }
    struct canon_job *job = canon_keeper_done(lane->keeper);
    while (job != NULL) {
        opened(job->ctx, job->err, slice_str(job->why));
        free(job);
        job = canon_keeper_done(lane->keeper);
    }
}

/* ---- pulling ---- */

static size_t credit_of_all(const struct canon_group *group)
{
    size_t credit = 0;
    const struct canon_member *member = group->turn;
    while (member != NULL && credit < PULL_BATCH_MAX) {
        credit += canon_subscription_room(member->subscription);
        member = member->next == group->turn ? NULL : member->next;
    }
    return credit < PULL_BATCH_MAX ? credit : PULL_BATCH_MAX;
}

static void pull(struct canon_group *group)
{
    uint64_t now_ns = clock_mono_ns();
    size_t batch = credit_of_all(group);
    if (!group->open || group->pulled > 0 || group->first != NULL || batch == 0 ||
        group->retry_ns > now_ns) {
        return;
    }
    const struct jetstream_pull ask = {.stream = group->stream,
                                       .durable = subject_slice(&group->durable),
                                       .inbox = subject_slice(&group->inbox),
                                       .batch = batch,
                                       .expires_ms = PULL_MS};
    if (!err_ok(jetstream_pull(group->lane->host.bus, &ask))) {
        group->retry_ns = now_ns + RETRY_MS * ns_per_ms;
        return;
    }
    group->pulled = batch;
    group->pull_over_ns = now_ns + PULL_MS * ns_per_ms;
}

/* The next member with room, in turn; NULL: none. */
static struct canon_subscription *next_taker(struct canon_group *group)
{
    struct canon_member *first = group->turn;
    struct canon_member *member = first;
    while (member != NULL) {
        if (canon_subscription_room(member->subscription) > 0) {
            group->turn = member->next;
            return member->subscription;
        }
        member = member->next == first ? NULL : member->next;
    }
    return NULL;
}

static struct waiting *take_first(struct canon_group *group)
{
    struct waiting *w = group->first;
    group->first = w->next;
    group->last = w->next == NULL ? NULL : group->last;
    return w;
}

static void waiting_free(struct waiting *w)
{
    bus_message_free(w->message);
    free(w);
}

void canon_group_pump(struct canon_group *group)
{
    while (group->first != NULL) {
        struct canon_subscription *taker = next_taker(group);
        if (taker == NULL) {
            return;
        }
        struct waiting *w = take_first(group);
        canon_subscription_deliver(taker, group, w->message);
        waiting_free(w);
    }
    pull(group);
}

/* ---- receiving ---- */

/* An answer that is lost only means that the message comes again after ack_wait. */
static void nak(struct canon_group *group, struct slice reply, uint64_t delay_ms)
{
    struct err lost = jetstream_nak(group->lane->host.bus, reply, delay_ms);
    (void)lost;
}

uint64_t canon_group_return_ms(const struct canon_group *group)
{
    uint64_t now_ns = clock_mono_ns();
    if (group->turn != NULL || group->pulled == 0 || group->pull_over_ns <= now_ns) {
        return 0;
    }
    return (group->pull_over_ns - now_ns) / ns_per_ms + RETURN_MARGIN_MS;
}

static void return_message(struct canon_group *group, const struct bus_message *message)
{
    nak(group, message->reply, canon_group_return_ms(group));
    canon_count(group->lane, group->topic, CANON_RETURNED);
}

static void return_backlog(struct canon_group *group)
{
    while (group->first != NULL) {
        struct waiting *w = take_first(group);
        return_message(group, w->message);
        waiting_free(w);
    }
}

/* Why a message is no envelope for this group; E_OK: it is. */
static MUST_CHECK struct err judge(const struct canon_group *group,
                                   const struct bus_message *message)
{
    struct envelope envelope;
    struct slice type = bus_message_header(message, context_nats(CONTEXT_CONTENT_TYPE));
    if (!slice_eq(type, CONTEXT_TYPE_ENVELOPE)) {
        return FAIL(E_CONTENT_TYPE);
    }
    TRY(envelope_decode(message->payload, &envelope));
    if (!slice_eq(envelope.tenant, group->tenant)) {
        return FAIL(E_TENANT_MISMATCH);
    }
    if (!slice_eq(envelope.canonical_type, group->topic->type) &&
        !slice_eq(envelope.canonical_type, group->full_name)) {
        return FAIL(E_TYPE_UNKNOWN);
    }
    return envelope.expires_at_ms != 0 && envelope.expires_at_ms <= clock_wall_ms()
               ? FAIL(E_ENVELOPE_EXPIRED)
               : OK;
}

static void end_message(struct canon_group *group, struct bus_message *message, struct err why)
{
    if (why.code == E_ENVELOPE_EXPIRED) {
        struct err lost = jetstream_term(group->lane->host.bus, message->reply);
        (void)lost; /* it comes again, and ends the same way. */
        canon_count(group->lane, group->topic, CANON_EXPIRED);
    } else {
        canon_quarantine(group->lane, group->topic, &group->durable, message, why);
    }
    bus_message_free(message);
}

static void take_delivery(struct canon_group *group, struct bus_message *message)
{
    group->pulled -= group->pulled > 0 ? 1 : 0;
    struct err err = judge(group, message);
    if (!err_ok(err)) {
        end_message(group, message, err);
        return;
    }
    struct waiting *w = group->turn == NULL ? NULL : malloc(sizeof(*w));
    if (w == NULL) {
        return_message(group, message);
        bus_message_free(message);
        return;
    }
    *w = (struct waiting){.message = message, .touched_ns = clock_mono_ns()};
    if (group->last != NULL) {
        group->last->next = w;
    } else {
        group->first = w;
    }
    group->last = w;
}

/* The pull is over; a consumer that is gone is made anew. */
static void take_status(struct canon_group *group, uint32_t status)
{
    enum { NOT_FOUND = 404, TIMED_OUT = 408 };
    group->pulled = 0;
    if (status != NOT_FOUND && status != TIMED_OUT) {
        group->open = false;
        group->retry_ns = clock_mono_ns() + RETRY_MS * ns_per_ms;
    }
}

void canon_group_received(struct canon_group *group, struct bus_message *message)
{
    uint32_t status = jetstream_pull_status(message);
    if (status != 0) {
        take_status(group, status);
        bus_message_free(message);
    } else if (message->reply.size == 0) {
        bus_message_free(message); /* nobody can answer it, so it is none of JetStream's. */
    } else {
        take_delivery(group, message);
    }
    canon_group_pump(group);
}

/* ---- time ---- */

void canon_groups_reconnected(struct canon *lane)
{
    for (struct canon_group *group = lane->groups; group != NULL; group = group->next) {
        group->pulled = 0;
        group->retry_ns = 0;
        group->open = false; /* the server may have come back without the durable. */
    }
}

/* Messages that wait for credit are not forgotten: their ack_wait begins anew. */
static void touch_backlog(struct canon_group *group, uint64_t now_ns)
{
    uint64_t often_ns = limits.ack_wait_ms * ns_per_ms / 3;
    for (struct waiting *w = group->first; w != NULL; w = w->next) {
        if (now_ns - w->touched_ns >= often_ns) {
            struct err lost = jetstream_in_progress(group->lane->host.bus, w->message->reply);
            (void)lost;
            w->touched_ns = now_ns;
        }
    }
}

static void look_at(struct canon_group *group, uint64_t now_ns)
{
    if (group->pulled > 0 && now_ns >= group->pull_over_ns + PULL_GRACE_MS * ns_per_ms) {
        group->pulled = 0;
        group->open = false; /* to a pull from a durable that is gone the server says nothing. */
    }
    touch_backlog(group, now_ns);
    if (!group->open && group->turn != NULL && group->retry_ns <= now_ns) {
        ask_keeper(group);
    }
    canon_group_pump(group);
}

static bool is_idle(const struct canon_group *group)
{
    return group->turn == NULL && !group->asked && group->pulled == 0;
}

static void group_free(struct canon_group *group)
{
    return_backlog(group);
    free(group);
}

/* Ends the groups that nobody needs; what still came for them is given back first. */
static void free_idle(struct canon *lane)
{
    bool some = false;
    for (struct canon_group *group = lane->groups; group != NULL; group = group->next) {
        if (is_idle(group)) {
            bus_unsubscribe(lane->host.bus, group->subscription);
            group->subscription = NULL;
            some = true;
        }
    }
    if (!some) {
        return;
    }
    canon_take_deliveries(lane); /* from here on nothing in the inbox names an idle group. */
    struct canon_group **at = &lane->groups;
    while (*at != NULL) {
        struct canon_group *group = *at;
        if (group->subscription != NULL) {
            at = &group->next;
            continue;
        }
        *at = group->next;
        group_free(group);
    }
}

void canon_groups_tick(struct canon *lane)
{
    uint64_t now_ns = clock_mono_ns();
    for (struct canon_group *group = lane->groups; group != NULL; group = group->next) {
        look_at(group, now_ns);
    }
    free_idle(lane);
}

void canon_groups_free(struct canon *lane)
{
    while (lane->groups != NULL) {
        struct canon_group *group = lane->groups;
        CHECK(group->turn == NULL);
        lane->groups = group->next;
        bus_unsubscribe(lane->host.bus, group->subscription);
        group_free(group);
    }
}
