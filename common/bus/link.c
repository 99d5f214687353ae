/*
 * link: the bus' own thread. One turn: follow what nats.c's threads saw, connect, bring
 * subscriptions to the connection, send the outbox, end what is past its time, sleep.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/bus/bus_internal.h"

enum {
    PING_INTERVAL_MS = 5000,
    PINGS_OUT = 2,
    CONNECT_TIMEOUT_MS = 2000,
    RECONNECT_WAIT_MS = 200,
    RECONNECT_JITTER_MS = 300,
    RETRY_FIRST_MS = 100,
    RETRY_LAST_MS = 2000,
    PARTING_MS = 1000,
    IDLE_NS = 1000000000,
    BATCH = 64
};

/* nats.c begins TLS by itself when a server asks for it, and verifies by the system's CAs. No
 * certificate is of this name, so that it never gets there: TLS is relay.h's. */
static const char no_host[] = "tls.is.not.configured.invalid";

static void follow_link(struct bus *bus);
static void try_connect(struct bus *bus);
static void drop_link(struct bus *bus);
static void send_outbox(struct bus *bus);
static void await_server(struct bus *bus);
static void resend(struct bus *bus);
static void wait_for_work(struct bus *bus, uint64_t deadline_ns);
static void set_state(struct bus *bus, enum bus_state state);
static natsConnection *connection_of(struct bus *bus);

void *link_main(void *ctx)
{
    struct bus *bus = ctx;
    bool closing = false;
    while (!closing) { /* ends: bus_close() sets it. */
        follow_link(bus);
        if (connection_of(bus) == NULL && clock_mono_ns() >= bus->on_thread.next_attempt_ns) {
            try_connect(bus);
        }
        subscriptions_sync(bus);
        send_outbox(bus);
        graves_sweep(bus, /* all= */ false);
        uint64_t next_ns = publisher_expire(bus->publisher, clock_mono_ns());
        wait_for_work(bus, next_ns);
        lock_take(&bus->shared.lock);
        closing = bus->shared.closing;
        lock_drop(&bus->shared.lock);
    }
    subscriptions_sync(bus);
    send_outbox(bus);
    await_server(bus);
    drop_link(bus);
    graves_sweep(bus, /* all= */ true);
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

/* A server that has no room for another connection says so and closes; a reset may come before its
 * words are read. */
static const char *refusal(natsStatus s)
{
    bool is_cut = s == NATS_PROTOCOL_ERROR || s == NATS_CONNECTION_CLOSED || s == NATS_IO_ERROR;
    const char *words = bus_words(s);
    bool is_said = strstr(words, "exceeded") != NULL || strstr(words, "iolation") != NULL;
    return is_cut && !is_said ? "the server ended the connection before it let us in: a limit of "
                                "connections? its log says why"
                              : words;
}

/* Why the server, or nats.c, ended the connection; nothing when a server just went. */
static void note_end(struct bus *bus, natsConnection *nc)
{
    const char *text = NULL;
    (void)natsConnection_GetLastError(nc, &text);
    if (text != NULL && text[0] != '\0') {
        bus_note_error(bus, text);
    }
}

/* nats.c's async thread: flags alone, the bus' thread does the work. */
static void on_disconnected(natsConnection *nc, void *ctx)
{
    struct bus *bus = ctx;
    note_end(bus, nc);
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
    struct bus *bus = ctx;
    note_end(bus, nc);
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
    bus_note_error(bus, text == NULL || text[0] == '\0' ? natsStatus_GetText(status) : text);
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
    return s;
}

static natsStatus set_behaviour(struct bus *bus, natsOptions *o)
{
    natsStatus s = natsOptions_SetExpectedHostname(o, no_host);
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

static natsStatus connect_clear(struct bus *bus, natsOptions *o, natsConnection **out)
{
    natsStatus s =
        natsOptions_SetServers(o, (const char **)(void *)bus->servers, bus->server_count);
    return s != NATS_OK ? s : natsConnection_Connect(out, o);
}

static natsStatus connect_through(struct bus *bus, natsOptions *o, const struct dial_url *url,
                                  natsConnection **out)
{
    char text[DIAL_URL_MAX + 64];
    (void)snprintf(text, sizeof(text), "nats://%s%s127.0.0.1:%u", url->user,
                   url->user[0] == '\0' ? "" : "@", relay_port(bus->on_thread.relay));
    natsStatus s = natsOptions_SetURL(o, text);
    /* A relay is one connection: after it comes a new one, by try_connect(). */
    s = s != NATS_OK ? s : natsOptions_SetAllowReconnect(o, false);
    s = s != NATS_OK ? s : natsOptions_SetIgnoreDiscoveredServers(o, true);
    return s != NATS_OK ? s : natsConnection_Connect(out, o);
}

static natsStatus connect_tls(struct bus *bus, natsOptions *o, const char *server,
                              natsConnection **out)
{
    struct dial_url url;
    char why[BUS_ERROR_TEXT_MAX] = "";
    CHECK(err_ok(dial_parse(server, &url))); /* as when the bus was opened. */
    const struct bus_config *c = &bus->config;
    struct relay_config config = {.host = url.host,
                                  .port = url.port,
                                  .ca = c->tls_ca,
                                  .cert = c->tls_cert,
                                  .key = c->tls_key};
    natsStatus s = NATS_NO_SERVER;
    if (err_ok(relay_open(&config, CONNECT_TIMEOUT_MS, &bus->on_thread.relay, why, sizeof(why)))) {
        s = connect_through(bus, o, &url, out);
    }
    if (s != NATS_OK) {
        if (why[0] == '\0') {
            (void)snprintf(why, sizeof(why), "%s", refusal(s));
        }
        relay_close(bus->on_thread.relay, why, sizeof(why));
        bus->on_thread.relay = NULL;
        bus_note_error(bus, why);
        return s;
    }
    lock_take(&bus->shared.lock);
    (void)snprintf(bus->shared.server, sizeof(bus->shared.server), "%s:%s", url.host, url.port);
    lock_drop(&bus->shared.lock);
    return NATS_OK;
}

static bool is_closing(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    bool closing = bus->shared.closing;
    lock_drop(&bus->shared.lock);
    return closing;
}

/* Each server once, beginning with the one behind the last. */
static natsStatus connect_any_tls(struct bus *bus, natsOptions *o, natsConnection **out)
{
    natsStatus s = NATS_NO_SERVER;
    for (int i = 0; i < bus->server_count && s != NATS_OK && !is_closing(bus); i++) {
        s = connect_tls(bus, o, bus->servers[bus->on_thread.server % (unsigned)bus->server_count],
                        out);
        bus->on_thread.server++;
    }
    return s;
}

static natsStatus connect_once(struct bus *bus, natsConnection **out)
{
    natsOptions *options = NULL;
    natsStatus s = natsOptions_Create(&options);
    s = s != NATS_OK ? s : set_behaviour(bus, options);
    s = s != NATS_OK ? s : set_identity(bus, options);
    if (s == NATS_OK) {
        s = bus->tls ? connect_any_tls(bus, options, out) : connect_clear(bus, options, out);
    }
    if (s != NATS_OK && !bus->tls) {
        bus_note_error(bus, refusal(s));
    }
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
        uint64_t wait_ms = retry_ms(bus->on_thread.attempts++);
        bus->on_thread.next_attempt_ns = clock_mono_ns() + wait_ms * 1000000;
        return;
    }
    bus->on_thread.attempts = 0;
    lock_take(&bus->shared.lock);
    bus->shared.connection = nc;
    lock_drop(&bus->shared.lock);
    atomic_store(&bus->max_payload, (uint64_t)natsConnection_GetMaxPayload(nc));
    subscriptions_sync(bus); /* before anyone may expect an answer. */
    atomic_store(&bus->down_since_ns, 0);
    set_state(bus, BUS_CONNECTED);
    resend(bus);
}

/* Until nats.c made its last call for the connection, and nobody uses it any more. */
static void wait_link_gone(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    int waited = 0;
    while (waited == 0 && (!bus->shared.link_closed || bus->shared.holders > 0)) {
        waited = pthread_cond_wait(&bus->shared.changed, &bus->shared.lock.m);
    }
    CHECK(waited == 0);
    bus->shared.connection = NULL;
    bus->shared.link_closed = false;
    bus->shared.lost = false;
    bus->shared.regained = false;
    lock_drop(&bus->shared.lock);
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
        subscription_bury(bus, s);
    }
    natsConnection_Close(nc); /* kicks blocking calls out, too. */
    wait_link_gone(bus);
    graves_sweep(bus, /* all= */ true);
    natsConnection_Destroy(nc);
    relay_close(bus->on_thread.relay, /* why= */ NULL, 0);
    bus->on_thread.relay = NULL;
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
    message_spend(bus, msg);
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

static void send_item(struct bus *bus, struct outgoing *item)
{
    natsConnection *nc = connection_if_up(bus);
    if (item->msg != NULL) {
        send_core(bus, nc, item->msg);
    } else {
        send_publish(bus, nc, item->token);
    }
    atomic_fetch_sub(&bus->outbox_bytes, item->bytes);
    free(item);
}

static void send_outbox(struct bus *bus)
{
    void *items[BATCH];
    size_t count = queue_pop(&bus->outbox, items, BATCH);
    while (count > 0) { /* ends: or goes on as long as others put something in. */
        if (atomic_load(&bus->subscriptions_changed)) {
            subscriptions_sync(bus); /* who subscribed before he published hears it. */
        }
        for (size_t i = 0; i < count; i++) {
            send_item(bus, items[i]);
        }
        (void)publisher_expire(bus->publisher, clock_mono_ns());
        count = queue_pop(&bus->outbox, items, BATCH);
    }
}

/* Until the server has what was sent: a socket that is closed with something unread in it throws
 * away what it did not send yet, and with it what lies unread at the other end. */
static void await_server(struct bus *bus)
{
    natsConnection *nc = connection_if_up(bus);
    if (nc != NULL) {
        (void)natsConnection_FlushTimeout(nc, PARTING_MS); /* one that is silent has what it has. */
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
