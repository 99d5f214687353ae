/* shares: see shares.h. */
#include "controlplane/publish/shares.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/queue.h"
#include "common/bus/subject.h"
#include "controlplane/fleet/split.h"

#define NS_PER_MS UINT64_C(1000000)

enum { INBOX_MAX = 4096, BATCH = 64, TURN_MS = 100, LOOK_MS = 200, SWEEP_MS = 60000 };

#define DEMAND_MAX (CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + DEMAND_BODY_MAX)

/* When a node's word was looked at last. */
struct speaker {
    char id[KEY_NAME_MAX + 1];
    uint64_t looked_ns;
};

struct cp_shares {
    struct cp_shares_options options;
    uint8_t environment[ENVIRONMENT_SIZE];
    struct cp_split *split;
    struct map speakers; /* id to struct speaker; owned. */
    uint64_t swept_ns;   /* when those were forgotten that say nothing any more. */
    struct queue inbox;
    struct bus_subscription *subscription;
    uint64_t epoch;    /* that is led; zero: none. */
    uint64_t sequence; /* of what was sent last, in whichever epoch. */
    bool said_refused;
    sem_t wakes;
    pthread_t thread;
    bool started;
    struct {
        struct lock lock;
        bool stopping GUARDED;
        struct cp_shares_counters counters GUARDED;
    } shared;
};

#define COUNT(s, name)                                                                             \
    do {                                                                                           \
        lock_take(&(s)->shared.lock);                                                              \
        (s)->shared.counters.name++;                                                               \
        lock_drop(&(s)->shared.lock);                                                              \
    } while (0)

static void wake(void *ctx)
{
    struct cp_shares *s = ctx;
    CHECK(sem_post(&s->wakes) == 0);
}

/* ---- demand ---- */

/* "trilane.<env>.demand.<node>" */
static struct slice node_of(struct slice subject)
{
    size_t at = subject.size;
    while (at > 0 && subject.ptr[at - 1] != '.') {
        at--;
    }
    return slice_from(subject, at);
}

/* Nodes come and go, each with a name of its own. */
static void sweep(struct cp_shares *s, uint64_t now_ns)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    if (now_ns - s->swept_ns < SWEEP_MS * NS_PER_MS) {
        return;
    }
    s->swept_ns = now_ns;
    while ((found = map_next(&s->speakers, &at)) != NULL) {
        const struct speaker *speaker = found->value;
        if (now_ns - speaker->looked_ns >= SWEEP_MS * NS_PER_MS) {
            free(map_remove_here(&s->speakers, &at));
        }
    }
}

/* Whether it is a node's turn to be looked at; the key is found first, so that made-up names take
 * no place. */
static bool may_speak(struct cp_shares *s, struct slice id, struct key_public *out_key,
                      uint64_t now_ns)
{
    if (id.size > KEY_NAME_MAX || !cp_fleet_key(s->options.fleet, id, out_key)) {
        return false;
    }
    struct speaker *speaker = map_get(&s->speakers, id);
    if (speaker == NULL && s->speakers.count < limits.nodes) {
        speaker = calloc(1, sizeof(*speaker));
        if (speaker == NULL) {
            return false;
        }
        memcpy(speaker->id, id.ptr, id.size);
        if (!err_ok(map_put(&s->speakers, slice_str(speaker->id), speaker, /* out_old= */ NULL))) {
            free(speaker);
            return false;
        }
    }
    if (speaker == NULL ||
        (speaker->looked_ns != 0 && now_ns - speaker->looked_ns < LOOK_MS * NS_PER_MS)) {
        return false;
    }
    speaker->looked_ns = now_ns;
    return true;
}

static void hear(struct cp_shares *s, const struct bus_message *message, uint64_t now_ns)
{
    struct key_public key;
    struct demand demand;
    if (!may_speak(s, node_of(message->subject), &key, now_ns)) {
        COUNT(s, dropped);
        return;
    }
    if (!err_ok(demand_open(message->payload, s->environment, &key, &demand))) {
        COUNT(s, unverified);
        return;
    }
    struct err e = cp_split_demand(s->split, &demand, now_ns);
    if (err_ok(e)) {
        COUNT(s, demands);
    } else {
        COUNT(s, replayed);
    }
}

static void hear_all(struct cp_shares *s, uint64_t now_ns)
{
    void *items[BATCH];
    size_t count = 0;
    do {
        count = queue_pop(&s->inbox, items, BATCH);
        for (size_t i = 0; i < count; i++) {
            if (s->epoch != 0) {
                hear(s, items[i], now_ns);
            }
            bus_message_free(items[i]);
        }
    } while (count > 0);
}

/* ---- answers ---- */

static struct err sign_and_send(struct cp_shares *s, const struct shares *shares)
{
    auto_buf struct buf body = BUF_MAX(SHARES_BODY_MAX);
    TRY(shares_encode(shares, &body));
    const struct cp_signer_request request = {.kind = CONTAINER_SHARES,
                                              .epoch = shares->epoch,
                                              .sequence = shares->sequence,
                                              .body = buf_slice(&body)};
    struct container_signature signature;
    TRY(cp_signer_sign(s->options.signer, &request, &signature));
    auto_buf struct buf sealed =
        BUF_MAX(CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + SHARES_BODY_MAX);
    TRY(container_seal(CONTAINER_SHARES, s->environment, buf_slice(&body), &signature, 1, &sealed));
    struct subject subject;
    TRY(subject_shares(slice_str(s->options.environment), slice_str(shares->node), &subject));
    return bus_publish(s->options.bus, &(struct bus_outgoing){.subject = subject_slice(&subject),
                                                              .payload = buf_slice(&sealed)});
}

static bool send(void *ctx, struct shares *shares)
{
    struct cp_shares *s = ctx;
    shares->epoch = s->epoch;
    shares->sequence = ++s->sequence; /* used up, whatever becomes of it. */
    struct err e = sign_and_send(s, shares);
    if (!err_ok(e) && !s->said_refused) {
        LOG(LOG_WARN, "shares", "not_sent", LOG_STR("node", shares->node), LOG_ERR(e));
    }
    s->said_refused = !err_ok(e);
    if (err_ok(e)) {
        COUNT(s, sent);
    } else {
        COUNT(s, refused);
    }
    return err_ok(e);
}

/*
 * Which epoch is led, as far as heads go out; another one begins with nothing. The sequence goes on
 * over all of them: the epoch that was lost for a moment comes back, and its nodes and the signer
 * know what it had.
 */
static void look_at_lead(struct cp_shares *s, uint64_t now_ns)
{
    struct cp_leader_status status;
    cp_leader_status(s->options.leader, &status);
    uint64_t epoch = status.leads && status.sequence > 0 ? status.epoch : 0;
    if (epoch != s->epoch) {
        s->epoch = epoch;
        cp_split_begin(s->split, now_ns);
    }
}

static bool is_stopping(struct cp_shares *s)
{
    lock_take(&s->shared.lock);
    bool stopping = s->shared.stopping;
    lock_drop(&s->shared.lock);
    return stopping;
}

static void *run(void *ctx)
{
    struct cp_shares *s = ctx;
    while (!is_stopping(s)) {
        struct timespec until;
        uint64_t now_ns = clock_mono_ns();
        look_at_lead(s, now_ns);
        sweep(s, now_ns);
        hear_all(s, now_ns);
        if (s->epoch != 0 && !err_ok(cp_split_turn(s->split, now_ns, send, s))) {
            COUNT(s, refused);
        }
        CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
        until.tv_nsec += TURN_MS * (long)NS_PER_MS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        while (!is_stopping(s) && sem_clockwait(&s->wakes, CLOCK_MONOTONIC, &until) == 0) {
        } /* what comes meanwhile waits for the turn: all are answered at once. */
    }
    return NULL;
}

/* ---- start and stop ---- */

static struct err prepare(struct cp_shares *s)
{
    struct subject demands;
    TRY(cp_split_new(&s->split));
    TRY(subject_demand(slice_str(s->options.environment), (struct slice){0}, &demands));
    return bus_subscribe_payloads(s->options.bus, subject_slice(&demands), DEMAND_MAX, &s->inbox, s,
                                  &s->subscription);
}

struct err cp_shares_new(const struct cp_shares_options *options, struct cp_shares **out)
{
    struct cp_shares *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->options = *options;
    snap_environment(slice_str(options->environment), s->environment);
    struct err e = queue_init(&s->inbox, INBOX_MAX, wake, s);
    if (!err_ok(e)) {
        free(s);
        return e;
    }
    lock_init(&s->shared.lock);
    CHECK(sem_init(&s->wakes, /* shared= */ 0, 0) == 0);
    e = prepare(s);
    if (!err_ok(e)) {
        cp_shares_free(s);
        return e;
    }
    *out = s;
    return OK;
}

struct err cp_shares_run(struct cp_shares *shares)
{
    shares->started = pthread_create(&shares->thread, NULL, run, shares) == 0;
    return shares->started ? OK : FAIL(E_IO);
}

void cp_shares_free(struct cp_shares *shares)
{
    if (shares == NULL) {
        return;
    }
    if (shares->started) {
        lock_take(&shares->shared.lock);
        shares->shared.stopping = true;
        lock_drop(&shares->shared.lock);
        wake(shares);
        CHECK(pthread_join(shares->thread, NULL) == 0);
    }
    bus_unsubscribe(shares->options.bus, shares->subscription);
    cp_split_free(shares->split);
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&shares->speakers, &at)) != NULL) {
        free(found->value);
    }
    map_free(&shares->speakers);
    queue_free(&shares->inbox, bus_message_drop);
    CHECK(sem_destroy(&shares->wakes) == 0);
    lock_free(&shares->shared.lock);
    free(shares);
}

void cp_shares_counters(struct cp_shares *shares, struct cp_shares_counters *out)
{
    lock_take(&shares->shared.lock);
    *out = shares->shared.counters;
    lock_drop(&shares->shared.lock);
}
