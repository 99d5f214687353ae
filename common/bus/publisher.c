/*
 * publisher: the table of publishes that wait for JetStream's ack.
 *
 * A place is free, reserved (its message is being made), waiting (in a list, oldest first, all with
 * the same time to live), or done (its completion is in the caller's queue or hands). Its token has
 * a generation, so that a late answer to an earlier use of the place finds nothing. The message
 * stays with the place until the ack, since a reconnect sends it again; while the bus' thread sends
 * it, the thread has it.
 */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/bus/bus_internal.h"
#include "common/bus/jetstream.h"
#include "common/bus/puback.h"

enum { INDEX_BITS = 20 };

enum place_state { PLACE_FREE, PLACE_RESERVED, PLACE_WAITING, PLACE_DONE };

struct place {
    struct jetstream_completion completion; /* first: what callers see of a place. */
    struct publisher *owner;
    struct place *next; /* waiting: towards younger ones; free: the next free one. */
    struct place *previous;
    struct queue *queue;
    natsMsg *msg; /* NULL while it is being sent. */
    uint64_t token;
    uint64_t deadline_ns;
    size_t bytes;
    enum place_state state;
    bool sent;
};

struct publisher {
    size_t capacity;      /* set by publisher_new(). */
    struct place *places; /* owned; the heap gives it page by page. */
    struct {
        struct lock lock;
        struct place *free GUARDED;
        struct place *oldest GUARDED;
        struct place *youngest GUARDED;
        struct place *cursor GUARDED; /* of publisher_next(). */
        size_t touched GUARDED;       /* places used at least once. */
        size_t used GUARDED;
        size_t bytes GUARDED;
        bool closed GUARDED;
    } shared;
};

static struct place *place_of(struct publisher *p, uint64_t token, enum place_state state)
    REQUIRES(p->shared.lock);
static void append(struct publisher *p, struct place *place) REQUIRES(p->shared.lock);
static void finish(struct publisher *p, struct place *place, struct err err)
    REQUIRES(p->shared.lock);
static void hand_over(struct place *place);
static void give_back(struct publisher *p, struct place *place) REQUIRES(p->shared.lock);
static void destroy(struct publisher *p);

struct err publisher_new(struct publisher **out)
{
    struct publisher *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    p->capacity = (size_t)limits.publish_inflight;
    CHECK(p->capacity <= (size_t)1 << INDEX_BITS);
    p->places = calloc(p->capacity, sizeof(*p->places));
    if (p->places == NULL) {
        free(p);
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&p->shared.lock);
    *out = p;
    return OK;
}

void publisher_close(struct publisher *p)
{
    for (;;) { /* ends: each turn finishes one, and none is added to a closed bus. */
        lock_take(&p->shared.lock);
        struct place *place = p->shared.oldest;
        if (place != NULL) {
            finish(p, place, FAIL(E_BUS_UNAVAILABLE));
        }
        lock_drop(&p->shared.lock);
        if (place == NULL) {
            break;
        }
        hand_over(place);
    }
    lock_take(&p->shared.lock);
    p->shared.closed = true;
    bool last = p->shared.used == 0;
    lock_drop(&p->shared.lock);
    if (last) {
        destroy(p);
    }
}

/* A place that was used before, else one that never was; NULL: all are in use. */
static struct place *find_free(struct publisher *p) REQUIRES(p->shared.lock)
{
    struct place *place = p->shared.free;
    if (place != NULL) {
        p->shared.free = place->next;
        return place;
    }
    if (p->shared.touched == p->capacity) {
        return NULL;
    }
    place = &p->places[p->shared.touched];
    place->token = p->shared.touched++;
    return place;
}

struct err publisher_reserve(struct publisher *p, struct queue *done, void *ctx,
                             uint64_t *out_token)
{
    lock_take(&p->shared.lock);
    struct place *place = p->shared.closed ? NULL : find_free(p);
    if (place == NULL) {
        lock_drop(&p->shared.lock);
        return FAIL(E_BUS_FULL);
    }
    place->completion = (struct jetstream_completion){.ctx = ctx};
    place->owner = p;
    place->queue = done;
    place->msg = NULL;
    place->bytes = 0;
    place->token += UINT64_C(1) << INDEX_BITS; /* a new generation. */
    place->state = PLACE_RESERVED;
    place->sent = false;
    p->shared.used++;
    *out_token = place->token;
    lock_drop(&p->shared.lock);
    return OK;
}

struct err publisher_fill(struct publisher *p, uint64_t token, natsMsg *msg, size_t bytes)
{
    lock_take(&p->shared.lock);
    struct place *place = place_of(p, token, PLACE_RESERVED);
    CHECK(place != NULL);
    if (bytes > limits.bus_inbox_bytes - p->shared.bytes) {
        lock_drop(&p->shared.lock);
        natsMsg_Destroy(msg);
        return FAIL(E_BUS_FULL);
    }
    place->msg = msg;
    place->bytes = bytes;
    place->deadline_ns = clock_mono_ns() + limits.publish_timeout_ms * 1000000;
    place->state = PLACE_WAITING;
    append(p, place);
    p->shared.bytes += bytes;
    lock_drop(&p->shared.lock);
    return OK;
}

bool publisher_cancel(struct publisher *p, uint64_t token)
{
    lock_take(&p->shared.lock);
    struct place *place = place_of(p, token, PLACE_WAITING);
    if (place != NULL) {
        finish(p, place, OK);
    } else {
        place = place_of(p, token, PLACE_RESERVED);
    }
    if (place != NULL) {
        give_back(p, place);
    }
    lock_drop(&p->shared.lock);
    return place != NULL;
}

natsMsg *publisher_take(struct publisher *p, uint64_t token)
{
    lock_take(&p->shared.lock);
    struct place *place = place_of(p, token, PLACE_WAITING);
    natsMsg *msg = NULL;
    if (place != NULL) {
        msg = place->msg;
        place->msg = NULL;
        place->sent = true; /* from here on a reconnect sends it. */
    }
    lock_drop(&p->shared.lock);
    return msg;
}

void publisher_sent(struct publisher *p, uint64_t token, natsMsg *msg, struct err err)
{
    lock_take(&p->shared.lock);
    struct place *place = place_of(p, token, PLACE_WAITING);
    if (place != NULL) {
        place->msg = msg;
        msg = NULL;
    }
    if (place != NULL && !err_ok(err)) {
        finish(p, place, err);
    }
    lock_drop(&p->shared.lock);
    natsMsg_Destroy(msg); /* it was answered meanwhile. */
    if (place != NULL && !err_ok(err)) {
        hand_over(place);
    }
}

void publisher_rewind(struct publisher *p)
{
    lock_take(&p->shared.lock);
    p->shared.cursor = p->shared.oldest;
    lock_drop(&p->shared.lock);
}

uint64_t publisher_next(struct publisher *p)
{
    lock_take(&p->shared.lock);
    struct place *place = p->shared.cursor;
    while (place != NULL && !place->sent) { /* ends: the list does. */
        place = place->next;
    }
    p->shared.cursor = place == NULL ? NULL : place->next;
    uint64_t token = place == NULL ? 0 : place->token;
    lock_drop(&p->shared.lock);
    return token;
}

uint64_t publisher_expire(struct publisher *p, uint64_t now_ns)
{
    for (;;) { /* ends: each turn finishes one. */
        lock_take(&p->shared.lock);
        struct place *place = p->shared.oldest;
        uint64_t deadline_ns = place == NULL ? 0 : place->deadline_ns;
        bool over = place != NULL && deadline_ns <= now_ns;
        if (over) {
            finish(p, place, FAIL(E_BUS_UNAVAILABLE));
        }
        lock_drop(&p->shared.lock);
        if (!over) {
            return deadline_ns;
        }
        hand_over(place);
    }
}

static bool parse_token(struct slice hex, uint64_t *out)
{
    uint64_t token = 0;
    if (hex.size == 0 || hex.size > 16) {
        return false;
    }
    for (size_t i = 0; i < hex.size; i++) {
        uint8_t c = hex.ptr[i];
        bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f')) {
            return false;
        }
        token = token << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
    }
    *out = token;
    return true;
}

void publisher_answer(struct publisher *p, struct slice suffix, struct slice payload,
                      bool no_responders)
{
    uint64_t token = 0;
    struct puback ack = {0};
    if (!parse_token(suffix, &token)) {
        return;
    }
    struct err err = no_responders ? FAIL(E_BUS_UNAVAILABLE) : puback_decode(payload, &ack);
    if (!err_ok(err)) {
        err = FAIL(E_BUS_UNAVAILABLE); /* whoever answered, it was no stream. */
    }
    lock_take(&p->shared.lock);
    struct place *place = place_of(p, token, PLACE_WAITING);
    if (place != NULL) {
        place->completion.sequence = ack.sequence;
        place->completion.duplicate = ack.duplicate;
        finish(p, place, err_ok(err) ? ack.err : err);
    }
    lock_drop(&p->shared.lock);
    if (place != NULL) {
        hand_over(place);
    }
}

size_t publisher_count(struct publisher *p)
{
    lock_take(&p->shared.lock);
    size_t used = p->shared.used;
    lock_drop(&p->shared.lock);
    return used;
}

void jetstream_completion_free(struct jetstream_completion *completion)
{
    if (completion == NULL) {
        return;
    }
    struct place *place = (struct place *)(void *)completion;
    struct publisher *p = place->owner;
    lock_take(&p->shared.lock);
    CHECK(place->state == PLACE_DONE);
    give_back(p, place);
    bool last = p->shared.closed && p->shared.used == 0;
    lock_drop(&p->shared.lock);
    if (last) {
        destroy(p);
    }
}

void jetstream_completion_drop(void *completion)
{
    jetstream_completion_free(completion);
}

/* ---- pieces ---- */

/* The place of a token in that state, or NULL. */
static struct place *place_of(struct publisher *p, uint64_t token, enum place_state state)
{
    uint64_t index = token & ((UINT64_C(1) << INDEX_BITS) - 1);
    if (index >= p->shared.touched) {
        return NULL;
    }
    struct place *place = &p->places[index];
    return place->state == state && place->token == token ? place : NULL;
}

static void append(struct publisher *p, struct place *place)
{
    place->next = NULL;
    place->previous = p->shared.youngest;
    if (p->shared.youngest != NULL) {
        p->shared.youngest->next = place;
    } else {
        p->shared.oldest = place;
    }
    p->shared.youngest = place;
}

/* Takes a place out of the list and sets how it went; its owner is told by hand_over(). */
static void finish(struct publisher *p, struct place *place, struct err err)
{
    CHECK(place->state == PLACE_WAITING);
    if (place->previous != NULL) {
        place->previous->next = place->next;
    } else {
        p->shared.oldest = place->next;
    }
    if (place->next != NULL) {
        place->next->previous = place->previous;
    } else {
        p->shared.youngest = place->previous;
    }
    if (p->shared.cursor == place) {
        p->shared.cursor = place->next;
    }
    place->state = PLACE_DONE;
    place->completion.err = err;
    p->shared.bytes -= place->bytes;
    natsMsg_Destroy(place->msg);
    place->msg = NULL;
}

/* Without the lock: the queue's wake-up may do what it likes. */
static void hand_over(struct place *place)
{
    struct err err = queue_push(place->queue, &place->completion);
    if (!err_ok(err)) {
        CHECK(err.code == E_CLOSED); /* it has room for all places: see jetstream_publish(). */
        jetstream_completion_free(&place->completion);
    }
}

static void give_back(struct publisher *p, struct place *place)
{
    place->state = PLACE_FREE;
    place->next = p->shared.free;
    p->shared.free = place;
    p->shared.used--;
}

static void destroy(struct publisher *p)
{
    lock_free(&p->shared.lock);
    free(p->places);
    free(p);
}
