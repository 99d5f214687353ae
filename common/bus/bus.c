/*
 * bus: see bus.h. Opening, sending into the outbox, looking, closing; what the bus' own thread does
 * is in link.c.
 *
 * Traps of libnats 3.4.1 that are avoided in this room:
 *  - natsSubscription_Fetch() overflows the heap: never called.
 *  - its reader may look at a subscription that another thread just freed (nats.c issue 637):
 *    an ended subscription is kept for grave_ns before it is destroyed.
 *  - retry-on-failed-connect may stop for good: the first connect is our own loop, and a
 *    connection that nats.c gives up (two refused logins) is replaced by a new one.
 *  - the flusher thread adds a millisecond: SendAsap; what is sent is sent by our thread, so no
 *    worker ever waits for the socket.
 *  - its reader and its writers use one TLS session without a lock (mended in 3.11): nats.c
 *    talks in clear to a relay of ours, which alone speaks TLS. A server that asks for TLS where
 *    none is configured is not followed.
 *  - each natsMsg_Destroy() wakes a thread of the process that frees the message: messages are
 *    destroyed some at a time (message_spend()).
 *  - pings every two minutes: five seconds here, so that a silent server is noticed within 15.
 */
#include "common/bus/bus.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/bus/bus_internal.h"
#include "common/bus/dial.h"
#include "common/bus/jetstream.h"
#include "common/bus/subject.h"

/* Threads of nats.c end when they like, and each gives back what OpenSSL keeps for it: at the exit
 * of the program that must not be gone yet. The system takes it all. */
__attribute__((constructor)) static void keep_openssl(void)
{
    CHECK(OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, /* settings= */ NULL) == 1);
}

enum { DOWN_GRACE_MS = 1000, SERVERS_MAX = 16 };

static struct err set_up(struct bus *bus, const struct bus_config *config);
static void tear_down(struct bus *bus);

const char *bus_state_name(enum bus_state state)
{
    static const char *const names[BUS_STATE_COUNT] = {"connecting", "connected", "reconnecting",
                                                       "closed"};
    CHECK(state < BUS_STATE_COUNT);
    return names[state];
}

const char *bus_exposure(const struct bus *bus)
{
    return bus->exposure;
}

/* ---- open ---- */

static struct err judge_config(const struct bus_config *c)
{
    bool halves =
        (c->user == NULL) != (c->password == NULL) || (c->tls_cert == NULL) != (c->tls_key == NULL);
    if (c->urls == NULL || c->urls[0] == '\0' || halves) {
        return FAIL(E_USAGE);
    }
    struct slice prefix = slice_str(c->inbox_prefix);
    bool fits = c->inbox_prefix == NULL ||
                (subject_is_valid(prefix) && prefix.size < BUS_INBOX_SIZE - 24 &&
                 slice_find(prefix, '*') == prefix.size && slice_find(prefix, '>') == prefix.size);
    return fits ? OK : FAIL(E_USAGE);
}

struct err bus_open(const struct bus_config *config, struct bus **out)
{
    TRY(judge_config(config));
    struct bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&bus->shared.lock);
    lock_init(&bus->spent.lock);
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&bus->shared.wake, &monotonic) == 0);
    CHECK(pthread_cond_init(&bus->shared.changed, &monotonic) == 0);
    (void)pthread_condattr_destroy(&monotonic);
    struct err err = set_up(bus, config);
    if (err_ok(err) && pthread_create(&bus->thread, NULL, link_main, bus) != 0) {
        err = FAIL(E_IO);
    }
    if (!err_ok(err)) {
        tear_down(bus);
        return err;
    }
    *out = bus;
    return OK;
}

static struct err keep(const char **text)
{
    if (*text != NULL) {
        *text = strdup(*text);
        return *text == NULL ? FAIL(E_NO_MEMORY) : OK;
    }
    return OK;
}

/* The texts of a config, to copy and to free. */
static size_t config_texts(struct bus_config *c, const char **texts[9])
{
    const char **all[] = {&c->urls,   &c->name,     &c->user,    &c->password,    &c->creds_file,
                          &c->tls_ca, &c->tls_cert, &c->tls_key, &c->inbox_prefix};
    memcpy((void *)texts, (const void *)all, sizeof(all));
    return sizeof(all) / sizeof(all[0]);
}

static struct err keep_config(struct bus *bus, const struct bus_config *config)
{
    bus->config = *config;
    struct bus_config given = *config;
    const char **from[9];
    const char **to[9];
    size_t count = config_texts(&given, from);
    (void)config_texts(&bus->config, to);
    for (size_t i = 0; i < count; i++) {
        *to[i] = NULL; /* so that a failure half way frees what was copied alone. */
    }
    for (size_t i = 0; i < count; i++) {
        *to[i] = *from[i];
        struct err err = keep(to[i]);
        if (!err_ok(err)) {
            *to[i] = NULL;
            return err;
        }
    }
    return OK;
}

static struct err split_urls(struct bus *bus)
{
    bus->servers = calloc(SERVERS_MAX, sizeof(*bus->servers));
    if (bus->servers == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct slice rest = slice_str(bus->config.urls);
    while (rest.size > 0) {
        size_t comma = slice_find(rest, ',');
        struct slice url = slice_head(rest, comma);
        while (url.size > 0 && url.ptr[0] == ' ') {
            url = slice_from(url, 1);
        }
        if (url.size > 0 && bus->server_count == SERVERS_MAX) {
            return FAIL(E_USAGE);
        }
        if (url.size > 0) {
            bus->servers[bus->server_count++] = slice_dup(url);
        }
        rest = slice_from(rest, comma + 1);
    }
    return bus->server_count == 0 ? FAIL(E_USAGE) : OK;
}

/* Whether all servers are reached under TLS, and what others could do if they are not. */
static struct err judge_servers(struct bus *bus)
{
    const struct bus_config *c = &bus->config;
    bool local = true;
    bool known = c->user != NULL || c->creds_file != NULL || c->tls_cert != NULL;
    bool user = true;
    bus->tls = c->tls_ca != NULL || c->tls_cert != NULL;
    for (int i = 0; i < bus->server_count; i++) {
        struct dial_url url;
        TRY(err_ok(dial_parse(bus->servers[i], &url)) ? OK : FAIL(E_USAGE));
        bus->tls = bus->tls || url.tls;
        local = local && dial_is_loopback(&url);
        user = user && url.user[0] != '\0';
    }
    if (!local && !bus->tls) {
        bus->exposure = "NATS is reached in clear text: neither nats-ca nor a tls:// URL is given";
    } else if (!local && !known && !user) {
        bus->exposure = "NATS is reached without a credential: no user, nats-creds or nats-cert";
    }
    return OK;
}

static void outbox_wake(void *ctx)
{
    bus_signal(ctx);
}

static struct err set_up(struct bus *bus, const struct bus_config *config)
{
    TRY(keep_config(bus, config));
    TRY(split_urls(bus));
    TRY(judge_servers(bus));
    uint8_t random[8];
    char hex[2 * sizeof(random) + 1];
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), hex);
    const char *prefix = bus->config.inbox_prefix == NULL ? "_INBOX" : bus->config.inbox_prefix;
    (void)snprintf(bus->inbox, sizeof(bus->inbox), "%s.%s", prefix, hex);
    TRY(publisher_new(&bus->publisher));
    TRY(queue_init(&bus->outbox, (size_t)(limits.bus_queue + limits.publish_inflight), outbox_wake,
                   bus));
    char answers[BUS_INBOX_SIZE + 2];
    (void)snprintf(answers, sizeof(answers), "%s.*", bus->inbox);
    bus->answers = subscription_new(slice_str(answers), (struct slice){0});
    if (bus->answers == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_take(&bus->answers->shared.lock);
    bus->answers->shared.bus = bus;
    bus->answers->shared.publisher = bus->publisher;
    lock_drop(&bus->answers->shared.lock);
    lock_take(&bus->shared.lock);
    bus->shared.subscriptions = bus->answers;
    lock_drop(&bus->shared.lock);
    atomic_store(&bus->down_since_ns, clock_mono_ns());
    return OK;
}

/* ---- sending ---- */

struct err bus_enqueue(struct bus *bus, natsMsg *msg, uint64_t token, size_t bytes)
{
    struct outgoing *item = malloc(sizeof(*item));
    if (item == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *item = (struct outgoing){.msg = msg, .token = token, .bytes = bytes};
    uint64_t before = atomic_fetch_add(&bus->outbox_bytes, bytes);
    struct err err =
        before + bytes > limits.bus_inbox_bytes ? FAIL(E_BUS_FULL) : queue_push(&bus->outbox, item);
    if (!err_ok(err)) {
        atomic_fetch_sub(&bus->outbox_bytes, bytes);
        free(item);
        return FAIL(err.code == E_CLOSED ? E_BUS_UNAVAILABLE : E_BUS_FULL);
    }
    return OK;
}

static struct err judge_size(struct bus *bus, const struct bus_outgoing *message)
{
    uint64_t max = atomic_load(&bus->max_payload);
    return max != 0 && message->payload.size > max ? FAIL(E_MESSAGE_TOO_LARGE) : OK;
}

struct err bus_publish(struct bus *bus, const struct bus_outgoing *message)
{
    TRY(judge_size(bus, message));
    if (atomic_load(&bus->down_since_ns) != 0) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    natsMsg *msg = NULL;
    TRY(message_make(message, (struct slice){0}, &msg));
    struct err err = bus_enqueue(bus, msg, /* token= */ 0, message_bytes(message));
    if (!err_ok(err)) {
        natsMsg_Destroy(msg);
    }
    return err;
}

struct err jetstream_publish(struct bus *bus, const struct bus_outgoing *message,
                             struct slice message_id, struct queue *done, void *ctx)
{
    CHECK(message->reply.size == 0);
    CHECK(done->capacity >= limits.publish_inflight);
    TRY(judge_size(bus, message));
    if (bus_down_ms(bus) > DOWN_GRACE_MS) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    uint64_t token = 0;
    TRY(publisher_reserve(bus->publisher, done, ctx, &token));
    char reply[BUS_INBOX_SIZE + 24];
    int size = snprintf(reply, sizeof(reply), "%s.%llx", bus->inbox, (unsigned long long)token);
    CHECK(size > 0 && (size_t)size < sizeof(reply));
    struct bus_outgoing whole = *message;
    whole.reply = slice_of(reply, (size_t)size);
    natsMsg *msg = NULL;
    struct err err = message_make(&whole, message_id, &msg);
    if (err_ok(err)) {
        err = publisher_fill(bus->publisher, token, msg, message_bytes(&whole));
    }
    if (err_ok(err)) {
        err = bus_enqueue(bus, /* msg= */ NULL, token, /* bytes= */ 0);
    }
    if (!err_ok(err) && !publisher_cancel(bus->publisher, token)) {
        return OK; /* its time was over meanwhile: the completion says so. */
    }
    return err;
}

size_t jetstream_inflight(struct bus *bus)
{
    return publisher_count(bus->publisher);
}

/* ---- close ---- */

void bus_close(struct bus *bus)
{
    if (bus == NULL) {
        return;
    }
    queue_close(&bus->outbox);
    lock_take(&bus->shared.lock);
    bus->shared.closing = true;
    lock_drop(&bus->shared.lock);
    bus_signal(bus);
    CHECK(pthread_join(bus->thread, NULL) == 0);
    tear_down(bus);
}

static void outgoing_drop(void *item)
{
    struct outgoing *outgoing = item;
    natsMsg_Destroy(outgoing->msg);
    free(outgoing);
}

static void tear_down(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    struct bus_subscription *sub = bus->shared.subscriptions;
    bus->shared.subscriptions = NULL;
    lock_drop(&bus->shared.lock);
    while (sub != NULL) { /* ends: the list does. */
        struct bus_subscription *next = sub->next;
        bool callers = !atomic_load(&sub->ended) && sub != bus->answers;
        subscription_end(sub);
        if (callers) {
            subscription_release(sub);
        }
        subscription_release(sub);
        sub = next;
    }
    queue_free(&bus->outbox, outgoing_drop);
    if (bus->publisher != NULL) {
        publisher_close(bus->publisher);
    }
    for (int i = 0; i < bus->server_count; i++) {
        free(bus->servers[i]);
    }
    free(bus->servers);
    const char **texts[9];
    size_t count = config_texts(&bus->config, texts);
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)*texts[i]); /* NOLINT(performance-no-int-to-ptr): it is ours. */
    }
    message_spend_all(bus);
    (void)pthread_cond_destroy(&bus->shared.wake);
    (void)pthread_cond_destroy(&bus->shared.changed);
    lock_free(&bus->spent.lock);
    lock_free(&bus->shared.lock);
    free(bus);
}

/* ---- looking ---- */

enum bus_state bus_state(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    enum bus_state state = bus->shared.state;
    lock_drop(&bus->shared.lock);
    return state;
}

uint64_t bus_down_ms(struct bus *bus)
{
    uint64_t since_ns = atomic_load(&bus->down_since_ns);
    return since_ns == 0 ? 0 : (clock_mono_ns() - since_ns) / 1000000;
}

void bus_stats(struct bus *bus, struct bus_stats *out)
{
    struct bus_counters *c = &bus->counters;
    *out = (struct bus_stats){.connects = c->connects,
                              .disconnects = c->disconnects,
                              .messages_in = c->messages_in,
                              .messages_out = c->messages_out,
                              .dropped_in = c->dropped_in,
                              .slow_consumer = c->slow_consumer,
                              .dropped_out = c->dropped_out,
                              .forbidden = c->forbidden,
                              .errors = c->errors};
}

void bus_last_error(struct bus *bus, char out[BUS_ERROR_TEXT_MAX])
{
    lock_take(&bus->shared.lock);
    memcpy(out, bus->shared.error, BUS_ERROR_TEXT_MAX);
    lock_drop(&bus->shared.lock);
}

struct err bus_wait_connected(struct bus *bus, uint64_t timeout_ms)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    lock_take(&bus->shared.lock);
    int waited = 0;
    while (bus->shared.state != BUS_CONNECTED && bus->shared.state != BUS_CLOSED &&
           waited == 0) { /* ends: by the state or by time. */
        waited = pthread_cond_timedwait(&bus->shared.changed, &bus->shared.lock.m, &until);
    }
    enum bus_state state = bus->shared.state;
    lock_drop(&bus->shared.lock);
    if (state == BUS_CONNECTED) {
        return OK;
    }
    return state == BUS_CLOSED ? FAIL(E_CLOSED) : FAIL(E_TIMEOUT);
}
