/*
 * bus: see bus.h. The life of a connection, top to bottom: open, the thread's turn, its parts,
 * what nats.c calls, close.
 *
 * Traps of libnats 3.4.1 that are avoided here:
 *  - natsSubscription_Fetch() overflows the heap: never called.
 *  - its reader may look at a subscription that another thread just freed (nats.c issue 637):
 *    an ended subscription is kept for GRAVE_NS before it is destroyed.
 *  - retry-on-failed-connect may stop for good: the first connect is our own loop, and a
 *    connection that nats.c gives up (two refused logins) is replaced by a new one.
 *  - the flusher thread adds a millisecond: SendAsap; what is sent is sent by our thread, so no
 *    worker ever waits for the socket.
 *  - pings every two minutes: five seconds here, so that a silent server is noticed within 15.
 */
#include "common/bus/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/bus/bus_internal.h"
#include "common/bus/jetstream.h"
#include "common/bus/subject.h"

enum {
    PING_INTERVAL_MS = 5000,
    PINGS_OUT = 2,
    CONNECT_TIMEOUT_MS = 2000,
    RECONNECT_WAIT_MS = 200,
    RECONNECT_JITTER_MS = 300,
    RETRY_FIRST_MS = 100,
    RETRY_LAST_MS = 2000,
    DOWN_GRACE_MS = 1000,
    IDLE_NS = 1000000000,
    BATCH = 64,
    SERVERS_MAX = 16
};

static const uint64_t GRAVE_NS = UINT64_C(10000000000);

static struct err set_up(struct bus *bus, const struct bus_config *config);
static void tear_down(struct bus *bus);
static void *thread_main(void *ctx);
static void try_connect(struct bus *bus);
static void follow_link(struct bus *bus);
static void sync_subscriptions(struct bus *bus);
static void send_outbox(struct bus *bus);
static void resend(struct bus *bus);
static void bury(struct bus *bus, struct bus_subscription *sub);
static void sweep_graves(struct bus *bus, bool all);
static void drop_link(struct bus *bus);
static void wait_for_work(struct bus *bus, uint64_t deadline_ns);
static void set_state(struct bus *bus, enum bus_state state);
static void subscription_release(struct bus_subscription *sub);
static struct bus_subscription *subscription_new(struct slice subject, struct slice group);
static natsConnection *connection_of(struct bus *bus);

const char *bus_state_name(enum bus_state state)
{
    static const char *const names[BUS_STATE_COUNT] = {"connecting", "connected", "reconnecting",
                                                       "closed"};
    CHECK(state < BUS_STATE_COUNT);
    return names[state];
}

bool bus_tls_is_safe(void)
{
    return nats_GetVersionNumber() >= 0x030b00;
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
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&bus->shared.wake, &monotonic) == 0);
    CHECK(pthread_cond_init(&bus->shared.changed, &monotonic) == 0);
    (void)pthread_condattr_destroy(&monotonic);
    struct err err = set_up(bus, config);
    if (err_ok(err) && pthread_create(&bus->thread, NULL, thread_main, bus) != 0) {
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

static void outbox_wake(void *ctx)
{
    bus_signal(ctx);
}

static struct err set_up(struct bus *bus, const struct bus_config *config)
{
    TRY(keep_config(bus, config));
    TRY(split_urls(bus));
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

/* ---- the thread ---- */

static void *thread_main(void *ctx)
{
    struct bus *bus = ctx;
    bool closing = false;
    while (!closing) { /* ends: bus_close() sets it. */
        follow_link(bus);
        if (connection_of(bus) == NULL && clock_mono_ns() >= bus->on_thread.next_attempt_ns) {
            try_connect(bus);
        }
        sync_subscriptions(bus);
        send_outbox(bus);
        sweep_graves(bus, /* all= */ false);
        uint64_t next_ns = publisher_expire(bus->publisher, clock_mono_ns());
        wait_for_work(bus, next_ns);
        lock_take(&bus->shared.lock);
        closing = bus->shared.closing;
        lock_drop(&bus->shared.lock);
    }
    sync_subscriptions(bus);
    send_outbox(bus);
    drop_link(bus);
    sweep_graves(bus, /* all= */ true);
    set_state(bus, BUS_CLOSED);
    return NULL;
}

/* What nats.c's threads saw since the last turn. */
static void follow_link(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    bool lost = bus->shared.lost;
    bool regained = bus->shared.regained;
    bool closed = bus->shared.link_closed;
    bus->shared.lost = false;
    bus->shared.regained = false;
    lock_drop(&bus->shared.lock);
    if (lost || closed) {
        atomic_store(&bus->down_since_ns, clock_mono_ns());
        set_state(bus, BUS_RECONNECTING);
    }
    if (closed) {
        drop_link(bus);
    } else if (regained) {
        atomic_store(&bus->max_payload, (uint64_t)natsConnection_GetMaxPayload(connection_of(bus)));
        atomic_store(&bus->down_since_ns, 0);
        set_state(bus, BUS_CONNECTED);
        resend(bus);
    }
}

static natsConnection *connection_of(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    natsConnection *nc = bus->shared.connection;
    lock_drop(&bus->shared.lock);
    return nc;
}

static void wait_for_work(struct bus *bus, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t wait_ns = IDLE_NS;
    if (deadline_ns != 0) {
        wait_ns = deadline_ns <= now_ns ? 0 : deadline_ns - now_ns;
    }
    if (connection_of(bus) == NULL) {
        uint64_t next_ns = bus->on_thread.next_attempt_ns;
        uint64_t attempt_ns = next_ns <= now_ns ? 0 : next_ns - now_ns;
        wait_ns = attempt_ns < wait_ns ? attempt_ns : wait_ns;
    }
    wait_ns = wait_ns > IDLE_NS ? IDLE_NS : wait_ns;
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    uint64_t ns = (uint64_t)until.tv_nsec + wait_ns;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    lock_take(&bus->shared.lock);
    int waited = 0;
    while (!bus->shared.signalled && waited == 0) { /* ends: by a signal or by time. */
        waited = pthread_cond_timedwait(&bus->shared.wake, &bus->shared.lock.m, &until);
    }
    bus->shared.signalled = false;
    lock_drop(&bus->shared.lock);
}

void bus_signal(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    bus->shared.signalled = true;
    CHECK(pthread_cond_signal(&bus->shared.wake) == 0);
    lock_drop(&bus->shared.lock);
}

static void set_state(struct bus *bus, enum bus_state state)
{
    lock_take(&bus->shared.lock);
    bool changed = bus->shared.state != state;
    bus->shared.state = state;
    CHECK(pthread_cond_broadcast(&bus->shared.changed) == 0);
    lock_drop(&bus->shared.lock);
    if (!changed) {
        return;
    }
    if (state == BUS_CONNECTED) {
        bus->counters.connects++;
    } else if (state == BUS_RECONNECTING) {
        bus->counters.disconnects++;
    }
    if (bus->config.on_state != NULL) {
        bus->config.on_state(state, bus->config.on_state_ctx);
    }
}

/* ---- connecting ---- */

static void note_error(struct bus *bus, const char *text)
{
    lock_take(&bus->shared.lock);
    (void)snprintf(bus->shared.error, sizeof(bus->shared.error), "%s", text == NULL ? "" : text);
    lock_drop(&bus->shared.lock);
}

/* nats.c's async thread: flags alone, the bus' thread does the work. */
static void on_disconnected(natsConnection *nc, void *ctx)
{
    (void)nc;
    struct bus *bus = ctx;
    lock_take(&bus->shared.lock);
    bus->shared.lost = true;
    bus->shared.regained = false;
    lock_drop(&bus->shared.lock);
    bus_signal(bus);
}

static void on_reconnected(natsConnection *nc, void *ctx)
{
    (void)nc;
    struct bus *bus = ctx;
    lock_take(&bus->shared.lock);
    bus->shared.regained = true;
    lock_drop(&bus->shared.lock);
    bus_signal(bus);
}

static void on_closed(natsConnection *nc, void *ctx)
{
    (void)nc;
    struct bus *bus = ctx;
    lock_take(&bus->shared.lock);
    bus->shared.link_closed = true;
    CHECK(pthread_cond_broadcast(&bus->shared.changed) == 0);
    /* The last call for this connection: drop_link() waits for it, so signal under the lock. */
    bus->shared.signalled = true;
    CHECK(pthread_cond_signal(&bus->shared.wake) == 0);
    lock_drop(&bus->shared.lock);
}

/* 'sub' may be freed already (3.4.1): it is not looked at. */
static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus status, void *ctx)
{
    (void)sub;
    struct bus *bus = ctx;
    if (status == NATS_SLOW_CONSUMER) {
        bus->counters.slow_consumer++;
        return;
    }
    if (status == NATS_NOT_PERMITTED) {
        bus->counters.forbidden++;
    } else {
        bus->counters.errors++;
    }
    const char *text = NULL;
    (void)natsConnection_GetLastError(nc, &text);
    note_error(bus, text == NULL || text[0] == '\0' ? natsStatus_GetText(status) : text);
}

static natsStatus set_tls(const struct bus_config *c, natsOptions *o)
{
    natsStatus s = NATS_OK;
    if (c->tls_ca == NULL && c->tls_cert == NULL) {
        return NATS_OK;
    }
    s = natsOptions_SetSecure(o, true);
    if (s == NATS_OK && c->tls_ca != NULL) {
        s = natsOptions_LoadCATrustedCertificates(o, c->tls_ca);
    }
    if (s == NATS_OK && c->tls_cert != NULL) {
        s = natsOptions_LoadCertificatesChain(o, c->tls_cert, c->tls_key);
    }
    return s;
}

static natsStatus set_identity(struct bus *bus, natsOptions *o)
{
    const struct bus_config *c = &bus->config;
    natsStatus s = NATS_OK;
    if (c->name != NULL) {
        s = natsOptions_SetName(o, c->name);
    }
    if (s == NATS_OK && c->user != NULL) {
        s = natsOptions_SetUserInfo(o, c->user, c->password);
    }
    if (s == NATS_OK && c->creds_file != NULL) {
        s = natsOptions_SetUserCredentialsFromFiles(o, c->creds_file, NULL);
    }
    if (s == NATS_OK && c->inbox_prefix != NULL) {
        s = natsOptions_SetCustomInboxPrefix(o, c->inbox_prefix);
    }
    return s == NATS_OK ? set_tls(c, o) : s;
}

static natsStatus set_behaviour(struct bus *bus, natsOptions *o)
{
    natsStatus s =
        natsOptions_SetServers(o, (const char **)(void *)bus->servers, bus->server_count);
    s = s != NATS_OK ? s : natsOptions_SetTimeout(o, CONNECT_TIMEOUT_MS);
    s = s != NATS_OK ? s : natsOptions_SetPingInterval(o, PING_INTERVAL_MS);
    s = s != NATS_OK ? s : natsOptions_SetMaxPingsOut(o, PINGS_OUT);
    s = s != NATS_OK ? s : natsOptions_SetMaxReconnect(o, -1);
    s = s != NATS_OK ? s : natsOptions_SetReconnectWait(o, RECONNECT_WAIT_MS);
    s = s != NATS_OK ? s
                     : natsOptions_SetReconnectJitter(o, RECONNECT_JITTER_MS, RECONNECT_JITTER_MS);
    s = s != NATS_OK ? s : natsOptions_SetReconnectBufSize(o, 64 << 10); /* we send again. */
    s = s != NATS_OK ? s : natsOptions_SetMaxPendingMsgs(o, (int)limits.bus_queue);
    s = s != NATS_OK ? s : natsOptions_SetSendAsap(o, true);
    s = s != NATS_OK ? s : natsOptions_SetFailRequestsOnDisconnect(o, true);
    s = s != NATS_OK ? s : natsOptions_SetWriteDeadline(o, BUS_WRITE_DEADLINE_MS);
    s = s != NATS_OK ? s : natsOptions_SetErrorHandler(o, on_error, bus);
    s = s != NATS_OK ? s : natsOptions_SetDisconnectedCB(o, on_disconnected, bus);
    s = s != NATS_OK ? s : natsOptions_SetReconnectedCB(o, on_reconnected, bus);
    return s != NATS_OK ? s : natsOptions_SetClosedCB(o, on_closed, bus);
}

static natsStatus connect_once(struct bus *bus, natsConnection **out)
{
    natsOptions *options = NULL;
    natsStatus s = natsOptions_Create(&options);
    s = s != NATS_OK ? s : set_behaviour(bus, options);
    s = s != NATS_OK ? s : set_identity(bus, options);
    s = s != NATS_OK ? s : natsConnection_Connect(out, options);
    natsOptions_Destroy(options);
    return s;
}

static uint64_t retry_ms(unsigned attempts)
{
    uint64_t ms = attempts > 5 ? RETRY_LAST_MS : (uint64_t)RETRY_FIRST_MS << attempts;
    ms = ms > RETRY_LAST_MS ? RETRY_LAST_MS : ms;
    uint16_t jitter = 0;
    ids_quick(&jitter, sizeof(jitter));
    return ms / 2 + jitter % (ms / 2 + 1); /* so that nodes do not come back as one. */
}

static void try_connect(struct bus *bus)
{
    natsConnection *nc = NULL;
    natsStatus s = connect_once(bus, &nc);
    if (s != NATS_OK) {
        note_error(bus, natsStatus_GetText(s));
        uint64_t wait_ms = retry_ms(bus->on_thread.attempts++);
        bus->on_thread.next_attempt_ns = clock_mono_ns() + wait_ms * 1000000;
        return;
    }
    bus->on_thread.attempts = 0;
    lock_take(&bus->shared.lock);
    bus->shared.connection = nc;
    lock_drop(&bus->shared.lock);
    atomic_store(&bus->max_payload, (uint64_t)natsConnection_GetMaxPayload(nc));
    sync_subscriptions(bus); /* before anyone may expect an answer. */
    atomic_store(&bus->down_since_ns, 0);
    set_state(bus, BUS_CONNECTED);
    resend(bus);
}

/* Ends the present connection, if there is one; returns when no call for it can come any more. */
static void drop_link(struct bus *bus)
{
    natsConnection *nc = connection_of(bus);
    if (nc == NULL) {
        return;
    }
    lock_take(&bus->shared.lock);
    struct bus_subscription *first = bus->shared.subscriptions;
    lock_drop(&bus->shared.lock);
    for (struct bus_subscription *s = first; s != NULL; s = s->next) {
        bury(bus, s);
    }
    natsConnection_Close(nc); /* kicks blocking calls out, too. */
    lock_take(&bus->shared.lock);
    while (!bus->shared.link_closed || bus->shared.holders > 0) { /* ends: both follow a close. */
        CHECK(pthread_cond_wait(&bus->shared.changed, &bus->shared.lock.m) == 0);
    }
    bus->shared.connection = NULL;
    bus->shared.link_closed = false;
    bus->shared.lost = false;
    bus->shared.regained = false;
    lock_drop(&bus->shared.lock);
    sweep_graves(bus, /* all= */ true);
    natsConnection_Destroy(nc);
    uint64_t wait_ms = retry_ms(bus->on_thread.attempts++);
    bus->on_thread.next_attempt_ns = clock_mono_ns() + wait_ms * 1000000;
}

/* ---- sending ---- */

static struct err status_of(natsStatus s)
{
    if (s == NATS_OK) {
        return OK;
    }
    return s == NATS_MAX_PAYLOAD ? FAIL(E_MESSAGE_TOO_LARGE) : FAIL(E_BUS_UNAVAILABLE);
}

static void send_publish(struct bus *bus, natsConnection *nc, uint64_t token)
{
    natsMsg *msg = publisher_take(bus->publisher, token);
    if (msg == NULL) {
        return; /* it is over already. */
    }
    struct err err = nc == NULL ? OK : status_of(natsConnection_PublishMsg(nc, msg));
    bus->counters.messages_out += nc != NULL && err_ok(err) ? 1 : 0;
    if (err.code == E_BUS_UNAVAILABLE) {
        err = OK; /* it waits for the reconnect, as long as it may. */
    }
    publisher_sent(bus->publisher, token, msg, err);
}

static void send_core(struct bus *bus, natsConnection *nc, natsMsg *msg)
{
    bool sent = nc != NULL && natsConnection_PublishMsg(nc, msg) == NATS_OK;
    if (sent) {
        bus->counters.messages_out++;
    } else {
        bus->counters.dropped_out++;
    }
    natsMsg_Destroy(msg);
}

/* The connection if it is up: nats.c holds its lock while it dials, so it is not asked. */
static natsConnection *connection_if_up(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    bool up = bus->shared.state == BUS_CONNECTED && !bus->shared.lost && !bus->shared.link_closed;
    natsConnection *nc = up ? bus->shared.connection : NULL;
    lock_drop(&bus->shared.lock);
    return nc;
}

static void send_outbox(struct bus *bus)
{
    void *items[BATCH];
    size_t count = queue_pop(&bus->outbox, items, BATCH);
    while (count > 0) { /* ends: or goes on as long as others put something in. */
        if (atomic_load(&bus->subscriptions_changed)) {
            sync_subscriptions(bus); /* who subscribed before he published hears it. */
        }
        for (size_t i = 0; i < count; i++) {
            struct outgoing *item = items[i];
            natsConnection *nc = connection_if_up(bus);
            if (item->msg != NULL) {
                send_core(bus, nc, item->msg);
            } else {
                send_publish(bus, nc, item->token);
            }
            atomic_fetch_sub(&bus->outbox_bytes, item->bytes);
            free(item);
        }
        (void)publisher_expire(bus->publisher, clock_mono_ns());
        count = queue_pop(&bus->outbox, items, BATCH);
    }
}

/* After a reconnect: all that waits for an ack goes out again, oldest first. */
static void resend(struct bus *bus)
{
    publisher_rewind(bus->publisher);
    for (;;) { /* ends: at the last one that was sent before. */
        uint64_t token = publisher_next(bus->publisher);
        natsConnection *nc = connection_if_up(bus);
        if (token == 0 || nc == NULL) {
            return;
        }
        send_publish(bus, nc, token);
    }
}

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

/* ---- subscriptions ---- */

struct err bus_subscribe(struct bus *bus, struct slice subject, struct slice group,
                         struct queue *queue, void *ctx, struct bus_subscription **out)
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
    *out = sub;
    return OK;
}

/* From here on callbacks find nothing to do; one that runs now is waited for. */
static void subscription_end(struct bus_subscription *sub)
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

static struct bus_subscription *subscription_new(struct slice subject, struct slice group)
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

static void subscription_release(struct bus_subscription *sub)
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

static void deliver(struct bus *bus, struct bus_subscription *sub, struct queue *queue,
                    natsMsg *msg)
{
    struct bus_message *copy = NULL;
    struct err err = message_copy(msg, sub->ctx, &copy);
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
    lock_drop(&sub->shared.lock);
    natsMsg_Destroy(msg);
}

/* nats.c's thread of this subscription: its last call. */
static void on_complete(void *ctx)
{
    subscription_release(ctx);
}

static void go_live(struct bus *bus, struct bus_subscription *sub, natsConnection *nc)
{
    struct grave *grave = calloc(1, sizeof(*grave));
    if (grave == NULL) {
        return; /* tried again with the next turn. */
    }
    lock_take(&sub->shared.lock);
    sub->shared.references++; /* nats.c's, until on_complete(). */
    lock_drop(&sub->shared.lock);
    natsStatus s = sub->group == NULL
                       ? natsConnection_Subscribe(&grave->sub, nc, sub->subject, on_message, sub)
                       : natsConnection_QueueSubscribe(&grave->sub, nc, sub->subject, sub->group,
                                                       on_message, sub);
    if (s != NATS_OK) {
        bus->counters.errors++;
        subscription_release(sub);
        free(grave);
        return;
    }
    (void)natsSubscription_SetPendingLimits(grave->sub, (int)limits.bus_queue,
                                            (int)limits.bus_inbox_bytes);
    /* It fails only on one that is closed already; then the reference is not given back, since
     * nobody says when its thread is done. */
    (void)natsSubscription_SetOnCompleteCB(grave->sub, on_complete, sub);
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

static void sync_subscriptions(struct bus *bus)
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
            bury(bus, sub);
            unlink_subscription(bus, sub);
            subscription_release(sub);
        } else if (nc != NULL && sub->on_thread.live == NULL) {
            go_live(bus, sub, nc);
        }
        sub = next;
    }
}

static void bury(struct bus *bus, struct bus_subscription *sub)
{
    struct grave *grave = sub->on_thread.live;
    if (grave == NULL) {
        return;
    }
    sub->on_thread.live = NULL;
    (void)natsSubscription_Unsubscribe(grave->sub);
    grave->since_ns = clock_mono_ns();
    grave->next = bus->on_thread.graves;
    bus->on_thread.graves = grave;
}

static void sweep_graves(struct bus *bus, bool all)
{
    uint64_t now_ns = clock_mono_ns();
    struct grave **at = &bus->on_thread.graves;
    while (*at != NULL) { /* ends: each turn goes on or takes one out. */
        struct grave *grave = *at;
        if (!all && now_ns - grave->since_ns < GRAVE_NS) {
            at = &grave->next;
            continue;
        }
        *at = grave->next;
        natsSubscription_Destroy(grave->sub);
        free(grave);
    }
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
        free((void *)(uintptr_t)*texts[i]);
    }
    (void)pthread_cond_destroy(&bus->shared.wake);
    (void)pthread_cond_destroy(&bus->shared.changed);
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

/* ---- for blocking calls ---- */

struct err bus_hold(struct bus *bus, natsConnection **out)
{
    lock_take(&bus->shared.lock);
    bool up = bus->shared.state == BUS_CONNECTED && !bus->shared.lost && !bus->shared.link_closed &&
              !bus->shared.closing;
    if (up) {
        bus->shared.holders++;
        *out = bus->shared.connection;
    }
    lock_drop(&bus->shared.lock);
    return up ? OK : FAIL(E_UNAVAILABLE);
}

void bus_release(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    CHECK(bus->shared.holders > 0);
    bus->shared.holders--;
    CHECK(pthread_cond_broadcast(&bus->shared.changed) == 0);
    lock_drop(&bus->shared.lock);
}

uint64_t bus_forbidden(struct bus *bus)
{
    return bus->counters.forbidden;
}

struct err bus_blame(struct bus *bus, uint64_t forbidden_before, const char *subject,
                     struct err otherwise)
{
    char text[BUS_ERROR_TEXT_MAX];
    if (bus->counters.forbidden == forbidden_before) {
        return otherwise;
    }
    bus_last_error(bus, text);
    return strstr(text, subject) == NULL ? otherwise : FAIL(E_BUS_FORBIDDEN);
}

/* What became of a request, by how nats.c's call ended. */
static struct err request_outcome(natsStatus s)
{
    switch ((int)s) {
    case NATS_OK:
        return OK;
    case NATS_NO_RESPONDERS:
    case NATS_INSUFFICIENT_BUFFER:
        return FAIL(E_UNAVAILABLE);
    case NATS_MAX_PAYLOAD:
        return FAIL(E_TOO_LARGE);
    case NATS_NO_MEMORY:
        return FAIL(E_NO_MEMORY);
    default:
        return FAIL(E_RESULT_UNKNOWN);
    }
}

struct err bus_request(struct bus *bus, const struct bus_outgoing *request, uint64_t timeout_ms,
                       natsMsg **out_answer)
{
    natsMsg *msg = NULL;
    natsConnection *nc = NULL;
    TRY(message_make(request, (struct slice){0}, &msg));
    struct err err = bus_hold(bus, &nc);
    if (!err_ok(err)) {
        natsMsg_Destroy(msg);
        return err;
    }
    uint64_t forbidden = bus_forbidden(bus);
    err = request_outcome(natsConnection_RequestMsg(out_answer, nc, msg, (int64_t)timeout_ms));
    if (err.code == E_RESULT_UNKNOWN) {
        err = bus_blame(bus, forbidden, natsMsg_GetSubject(msg), err);
    }
    bus_release(bus);
    natsMsg_Destroy(msg);
    return err;
}
