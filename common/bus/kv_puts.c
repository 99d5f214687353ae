/*
 * kv_puts: several writes on their way at once, where each would wait for the one before it.
 *
 * Plain messages with an answer each, to an inbox of the call's own; not nats.c's publishing
 * ahead, which keeps what it has sent in a table of its own, and sends it again when it likes.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/bus/bus_internal.h"
#include "common/bus/jetstream.h"
#include "common/bus/kv.h"
#include "common/bus/kv_internal.h"

enum {
    AHEAD_MAX = 64,            /* writes without an answer, */
    AHEAD_BYTES_MAX = 2 << 20, /* and what they weigh: a server that is slow holds little of us. */
    NAME_RANDOM = 8,
    NO_RESPONDERS = 503,
};

struct puts {
    const struct kv *kv;
    struct kv_item *items;
    size_t count;
    size_t next;                                      /* the first one that was not sent. */
    size_t ahead;                                     /* sent, and not answered. */
    size_t ahead_bytes;                               /* of these. */
    bool *sent;                                       /* for each item: sent, and not answered. */
    char inbox[BUS_INBOX_SIZE + NAME_RANDOM * 2 + 8]; /* answers come to <inbox>.<index>. */
    struct queue answers;
    sem_t wakes;
};

/* ---- sending ---- */

static struct err send_item(struct puts *p, size_t index)
{
    const struct kv_item *item = &p->items[index];
    char subject[SUBJECT_SIZE_MAX + 1];
    char reply[sizeof(p->inbox) + 24];
    TRY(kv_key_subject(p->kv, "", item->key, subject));
    (void)snprintf(reply, sizeof(reply), "%s.%zu", p->inbox, index);
    struct bus_outgoing message = {
        .subject = slice_str(subject), .reply = slice_str(reply), .payload = item->value};
    TRY(bus_judge_payload(p->kv->bus, message.subject, message.payload.size));
    struct err e = bus_publish(p->kv->bus, &message);
    if (!err_ok(e)) {
        return e.code == E_NO_MEMORY ? e : FAIL(E_UNAVAILABLE);
    }
    p->sent[index] = true;
    p->ahead++;
    p->ahead_bytes += item->value.size;
    return OK;
}

static bool is_full(const struct puts *p, size_t more)
{
    return p->ahead == AHEAD_MAX || (p->ahead > 0 && p->ahead_bytes + more > AHEAD_BYTES_MAX);
}

static struct err send_ahead(struct puts *p)
{
    while (p->next < p->count && !is_full(p, p->items[p->next].value.size)) {
        size_t index = p->next++;
        TRY(p->items[index].done ? OK : send_item(p, index));
    }
    return OK;
}

/* ---- answers ---- */

static void wake(void *ctx)
{
    struct puts *p = ctx;
    CHECK(sem_post(&p->wakes) == 0);
}

/* The next answer, or NULL when none came in time. */
static struct bus_message *next_answer(struct puts *p, uint64_t timeout_ms)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    for (;;) { /* ends with an answer, or the time. */
        void *item = NULL;
        if (queue_pop(&p->answers, &item, 1) == 1) {
            return item;
        }
        if (sem_clockwait(&p->wakes, CLOCK_MONOTONIC, &until) != 0 && errno == ETIMEDOUT) {
            return NULL;
        }
    }
}

/* Whose answer it is; p->count when it is nobody's that waits for one. */
static size_t index_of(const struct puts *p, struct slice subject)
{
    uint64_t index = 0;
    size_t prefix = strlen(p->inbox) + 1;
    bool ours = subject.size > prefix && slice_to_u64(slice_from(subject, prefix), &index) &&
                index < p->count && p->sent[index];
    return ours ? (size_t)index : p->count;
}

static struct err take_answer(struct puts *p, const struct bus_message *answer)
{
    size_t index = index_of(p, answer->subject);
    if (index == p->count) {
        return OK;
    }
    p->sent[index] = false;
    p->ahead--;
    p->ahead_bytes -= p->items[index].value.size;
    struct err e = jetstream_pull_status(answer) == NO_RESPONDERS
                       ? FAIL(E_UNAVAILABLE)
                       : kv_take_ack(p->kv, answer->payload, /* out_revision= */ NULL);
    p->items[index].done = err_ok(e);
    return e;
}

/* The first failure ends the sending, but what is on its way is waited for. */
static struct err run(struct puts *p, uint64_t timeout_ms)
{
    char subject[KV_BUCKET_MAX + 8];
    (void)snprintf(subject, sizeof(subject), "$KV.%s.", p->kv->bucket);
    uint64_t forbidden = bus_forbidden(p->kv->bus);
    struct err first = send_ahead(p);
    while (p->ahead > 0) {
        struct bus_message *answer = next_answer(p, timeout_ms);
        if (answer == NULL) {
            struct err silence = bus_blame(p->kv->bus, forbidden, subject, FAIL(E_RESULT_UNKNOWN));
            return err_ok(first) ? silence : first;
        }
        struct err e = take_answer(p, answer);
        bus_message_free(answer);
        first = err_ok(first) ? e : first;
        first = err_ok(first) ? send_ahead(p) : first;
    }
    return first;
}

static struct err listen(struct puts *p, struct bus_subscription **out)
{
    uint8_t random[NAME_RANDOM];
    char hex[2 * NAME_RANDOM + 1];
    char subject[sizeof(p->inbox) + 2];
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), hex);
    (void)snprintf(p->inbox, sizeof(p->inbox), "%s.put.%s", p->kv->bus->inbox, hex);
    (void)snprintf(subject, sizeof(subject), "%s.*", p->inbox);
    return bus_subscribe(p->kv->bus, slice_str(subject), /* group= */ (struct slice){0},
                         &p->answers, p, out);
}

static struct err put_all(struct puts *p, uint64_t timeout_ms)
{
    struct bus_subscription *subscription = NULL;
    TRY(queue_init(&p->answers, (size_t)2 * AHEAD_MAX, wake, p));
    CHECK(sem_init(&p->wakes, 0, 0) == 0);
    struct err e = listen(p, &subscription);
    if (err_ok(e)) {
        e = run(p, timeout_ms);
    }
    bus_unsubscribe(p->kv->bus, subscription);
    queue_free(&p->answers, bus_message_drop);
    (void)sem_destroy(&p->wakes);
    return e;
}

struct err kv_put_all(const struct kv *kv, struct kv_item *items, size_t count, uint64_t timeout_ms)
{
    auto_free bool *sent = calloc(count + 1, sizeof(*sent));
    if (sent == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct puts p = {.kv = kv, .items = items, .count = count, .sent = sent};
    return put_all(&p, timeout_ms);
}
