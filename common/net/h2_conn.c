/* A connection's life: its start on a net_conn, its timers, its end in good order or bad. */
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static const struct slice preface = {(const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                     H2_PREFACE_BYTES};

bool h2_preface_matches(struct slice bytes)
{
    return slice_starts(preface, slice_head(bytes, preface.size));
}

/* What our PINGs carry: there is one on its way at a time. */
static const uint8_t no_data[8] = {0};

/* ---- the end ---- */

/* Ends every stream; their owners may not open new ones, since the connection is ending. */
static void finish_streams(struct h2_conn *c, uint32_t code)
{
    while (c->streams != NULL) { /* each turn takes one out of the list. */
        struct h2_stream *s = c->streams;
        h2_stream_finish(s, s->over ? s->over_code : code);
    }
}

static void conn_free(struct h2_conn *c)
{
    struct h2_env *env = c->env;
    net_hook_cancel(env->loop, &c->hook);
    net_timer_cancel(env->loop, &c->timer);
    net_timer_cancel(env->loop, &c->closing);
    net_timer_cancel(env->loop, &c->cut);
    net_timer_cancel(env->loop, &c->unread);
    h2_fields_clear(env, &c->trailers, /* inline_at= */ NULL);
    hpack_decoder_free(&c->decoder);
    hpack_encoder_free(&c->encoder);
    h2_mem_free(&env->mem, c->by_id.at);
    buf_free(&c->part);
    buf_free(&c->section_bytes);
    buf_free(&c->pending);
    CHECK(env->connections > 0);
    env->connections--;
    env->counters.connections_closed++;
    h2_mem_free(&env->mem, c);
}

/* Flushes and closes; 'closed' of the net_conn follows. */
static void close_net(struct h2_conn *c)
{
    if (!c->ended) {
        c->ended = true;
        net_conn_close(c->net);
    }
}

static void abort_net(struct h2_conn *c, struct err why)
{
    c->end_code = c->ending ? c->end_code : H2_CANCEL;
    c->ending = true;
    if (!c->ended) {
        c->ended = true;
        net_conn_abort(c->net, why);
    }
}

/* What a GOAWAY says: never more than the one before (RFC 9113, section 6.8). */
static uint32_t last_id(const struct h2_conn *c)
{
    return c->newest_id < c->last_id ? c->newest_id : c->last_id;
}

void h2_conn_close(struct h2_conn *c, enum h2_code code, struct err why)
{
    if (c->ending) {
        return;
    }
    c->ending = true;
    c->end_code = code;
    c->why = why;
    c->env->counters.protocol_errors += code != H2_NO_ERROR && !c->flooded ? 1 : 0;
    h2_out_goaway(c, last_id(c), code);
}

void h2_conn_flooded(struct h2_conn *c, enum net_flood kind)
{
    if (c->flooded) {
        return;
    }
    c->flooded = true;
    net_flood(c->env->loop, kind, net_conn_peer(c->net));
    h2_conn_close(c, H2_ENHANCE_YOUR_CALM, FAIL(E_OVERLOADED));
}

/* ---- draining ---- */

static void drain_finally(struct h2_conn *c)
{
    if (c->drain != H2_DRAIN_NOTICED || c->ending) {
        return;
    }
    c->drain = H2_DRAIN_FINAL;
    net_timer_cancel(c->env->loop, &c->closing);
    c->goaway_sent = true;
    c->last_id = c->newest_id;
    h2_out_goaway(c, c->last_id, H2_NO_ERROR);
}

void h2_conn_drain(struct h2_conn *c)
{
    if (c->drain != H2_DRAIN_NO || c->ending) {
        return;
    }
    if (!c->server) {
        c->drain = H2_DRAIN_FINAL;
        h2_conn_dirty(c);
        return;
    }
    c->drain = H2_DRAIN_NOTICED;
    /* Some clients take nothing behind a GOAWAY; they read both at once. */
    h2_out_ping(c, no_data, /* ack= */ false);
    h2_out_goaway(c, INT32_MAX, H2_NO_ERROR);
    net_timer_arm(c->env->loop, &c->closing, H2_DRAIN_NOTICE_MS);
}

/* ---- probing ---- */

void h2_conn_probe(struct h2_conn *c, uint64_t timeout_ms)
{
    CHECK(!c->server);
    if (c->probing || c->ending) {
        return;
    }
    c->probing = true;
    h2_out_ping(c, no_data, /* ack= */ false);
    net_timer_arm(c->env->loop, &c->closing, timeout_ms);
}

void h2_conn_ping_answered(struct h2_conn *c)
{
    if (c->server) {
        drain_finally(c);
        return;
    }
    if (!c->probing) {
        return;
    }
    c->probing = false;
    net_timer_cancel(c->env->loop, &c->closing);
    if (c->events->room != NULL) {
        c->events->room(c);
    }
}

static void on_closing_timer(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct h2_conn *c = ctx;
    if (c->server) {
        drain_finally(c);
        return;
    }
    c->env->counters.pings_unanswered++;
    c->why = FAIL(E_TIMEOUT);
    abort_net(c, c->why);
}

/* ---- handshake and idle time ---- */

/* One timer for both, armed anew when it runs and not with each request. */
static void on_timer(struct net_timer *timer, void *ctx)
{
    struct h2_conn *c = ctx;
    if (!c->settings_received) {
        c->env->counters.handshake_timeouts++;
        if (c->server) {
            net_flood(c->env->loop, NET_FLOOD_SILENT, net_conn_peer(c->net));
        }
        h2_conn_close(c, H2_SETTINGS_TIMEOUT, FAIL(E_TIMEOUT));
        return;
    }
    if (!c->server) {
        return; /* whoever pools it decides. */
    }
    /* A PING keeps the network's state, and no connection that nobody asks anything on. */
    uint64_t unused_ms = h2_now_ms(c) - c->used_ms;
    if (c->stream_count > 0 || unused_ms < limits.idle_timeout_ms) {
        uint64_t passed = c->stream_count > 0 ? 0 : unused_ms;
        net_timer_arm(c->env->loop, timer, limits.idle_timeout_ms - passed);
        return;
    }
    c->env->counters.idle_timeouts++;
    h2_conn_drain(c);
}

/* ---- the end of a turn ---- */

/* Nobody opens a stream any more, and none is left. */
static bool is_done(const struct h2_conn *c)
{
    bool last = c->goaway_sent || c->goaway_received || (!c->server && c->drain == H2_DRAIN_FINAL);
    return last && c->stream_count == 0 && c->pending.size == 0;
}

static void on_turn_end(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct h2_conn *c = ctx;
    if (c->ended) {
        return;
    }
    if (!h2_send(c)) {
        if (net_conn_closing(c->net)) {
            return; /* it broke by itself, and says why. */
        }
        c->why = err_ok(c->why) ? FAIL(E_IO) : c->why;
        abort_net(c, c->why);
        return;
    }
    if (c->ending) {
        close_net(c);
        finish_streams(c, c->end_code);
        return;
    }
    if (is_done(c)) {
        c->ending = true;
        close_net(c);
    }
}

/* ---- what the net_conn tells ---- */

static void on_opened(struct net_conn *net, void *ctx)
{
    struct h2_conn *c = ctx;
    if (net_conn_is_tls(net) && !c->server && !slice_eq(net_conn_alpn(net), SLICE_LIT("h2"))) {
        c->why = FAIL(E_UNSUPPORTED);
        abort_net(c, c->why);
        return;
    }
    c->opened = true;
    if (!c->server && !c->ending && c->events->ready != NULL) {
        c->events->ready(c);
    }
}

static void on_readable(struct net_conn *net, void *ctx, struct slice bytes)
{
    (void)net;
    h2_recv(ctx, bytes);
}

static void on_eof(struct net_conn *net, void *ctx)
{
    (void)net;
    struct h2_conn *c = ctx;
    h2_conn_close(c, H2_NO_ERROR, c->stream_count > 0 ? FAIL(E_CLOSED) : OK);
}

static void on_drained(struct net_conn *net, void *ctx)
{
    (void)net;
    h2_conn_dirty(ctx);
}

static void on_closed(struct net_conn *net, void *ctx, struct err why)
{
    (void)net;
    struct h2_conn *c = ctx;
    bool was_ending = c->ending;
    c->ending = true;
    c->ended = true;
    finish_streams(c, was_ending ? c->end_code : H2_CANCEL);
    if (!was_ending) {
        c->why = why;
    }
    if (c->events->closed != NULL) {
        c->events->closed(c, c->why);
    }
    conn_free(c);
}

static const struct net_conn_handler handler = {.opened = on_opened,
                                                .readable = on_readable,
                                                .eof = on_eof,
                                                .drained = on_drained,
                                                .closed = on_closed};

/* ---- the start ---- */

/* Streams that a client opens before it has seen the server's SETTINGS: what other proxies do. */
enum { PEER_STREAMS_BEFORE_SETTINGS = 100 };

/* A header block in pieces, which h2_watch.c bounds lower; and frames that wait for a peer that
 * reads nothing, before the connection is given up. */
enum { SECTION_MAX = 16 << 20, PENDING_MAX = 16 << 20 };

static void init_parts(struct h2_conn *c)
{
    uint64_t now_ms = h2_now_ms(c);
    net_hook_init(&c->hook, NET_HOOK_WORK, on_turn_end, c);
    net_timer_init(&c->timer, on_timer, c);
    net_timer_init(&c->closing, on_closing_timer, c);
    net_timer_init(&c->cut, h2_watch_cut_timer, c);
    net_timer_init(&c->unread, h2_watch_unread_timer, c);
    h2_guard_init(&c->control, limits.control_frames_per_second, now_ms);
    h2_guard_init(&c->resets, limits.resets_per_second, now_ms);
    c->by_id.key = c->env->streams_key;
    h2_link_init(&c->due);
    h2_link_init(&c->ready);
    hpack_decoder_init(&c->decoder, &c->env->mem);
    hpack_encoder_init(&c->encoder, &c->env->mem);
    c->part = BUF_MAX(H2_FRAME_BYTES);
    c->section_bytes = BUF_MAX(SECTION_MAX);
    c->pending = BUF_MAX(PENDING_MAX);
    c->heard_ms = now_ms;
    c->used_ms = now_ms;
    c->preface_left = c->server ? H2_PREFACE_BYTES : 0;
    c->last_id = INT32_MAX;
    h2_window_init(&c->window, limits.connection_window_bytes);
    c->send_window = H2_WINDOW_DEFAULT;
    c->peer_window = H2_WINDOW_DEFAULT;
    c->peer_streams = PEER_STREAMS_BEFORE_SETTINGS;
    c->peer_headers = UINT32_MAX;
    c->next_id = 1;
    c->opened = net_conn_is_open(c->net);
}

static struct h2_conn *conn_start(struct h2_env *env, struct net_conn *net, bool server)
{
    struct h2_conn *c = h2_mem_calloc(&env->mem, 1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->env = env;
    c->net = net;
    c->server = server;
    init_parts(c);
    env->connections++;
    env->counters.connections_opened++;
    net_conn_set_handler(net, &handler, c);
    net_timer_arm(env->loop, &c->timer, limits.handshake_timeout_ms);
    h2_out_start(c);
    return c;
}

static struct err conn_new(struct h2_env *env, struct net_conn **net, bool server,
                           struct h2_conn **out)
{
    *out = conn_start(env, *net, server);
    if (*out == NULL) {
        net_conn_set_handler(*net, /* handler= */ NULL, /* ctx= */ NULL);
        net_conn_abort(*net, FAIL(E_NO_MEMORY));
    }
    *net = NULL;
    return *out == NULL ? FAIL(E_NO_MEMORY) : OK;
}

struct err h2_server_new(struct h2_env *env, struct net_conn **net, struct slice early,
                         const struct h2_conn_events *events, void *user, struct h2_conn **out)
{
    struct h2_conn *c = NULL;
    TRY(conn_new(env, net, /* server= */ true, &c));
    c->events = events;
    c->user = user;
    *out = c;
    h2_recv(c, early);
    return OK;
}

struct err h2_client_new(struct h2_env *env, struct net_conn **net,
                         const struct h2_conn_events *events, void *user, struct h2_conn **out)
{
    struct h2_conn *c = NULL;
    TRY(conn_new(env, net, /* server= */ false, &c));
    c->events = events;
    c->user = user;
    *out = c;
    return OK;
}

/* ---- questions ---- */

void *h2_conn_user(const struct h2_conn *c)
{
    return c->user;
}

struct net_conn *h2_conn_net(const struct h2_conn *c)
{
    return c->net;
}

size_t h2_conn_streams(const struct h2_conn *c)
{
    return c->stream_count;
}

bool h2_conn_leaving(const struct h2_conn *c)
{
    return c->ending || c->ended || c->goaway_received || c->drain != H2_DRAIN_NO;
}

size_t h2_conn_room(const struct h2_conn *c)
{
    if (c->server || c->probing || h2_conn_leaving(c) || c->withheld > 0) {
        return 0; /* what is withheld holds up every answer of the connection. */
    }
    uint64_t most =
        c->peer_streams < limits.upstream_streams ? c->peer_streams : limits.upstream_streams;
    uint64_t numbers = ((uint64_t)INT32_MAX - (uint32_t)c->next_id) / 2; /* those left over. */
    most = most < c->stream_count + numbers ? most : c->stream_count + numbers;
    return c->stream_count >= most ? 0 : (size_t)most - c->stream_count;
}

void h2_conn_assume_streams(struct h2_conn *c, uint32_t count)
{
    CHECK(!c->server);
    if (!c->settings_received && count < c->peer_streams) {
        c->peer_streams = count;
    }
}

bool h2_conn_peer_streams(const struct h2_conn *c, uint32_t *out)
{
    if (c->settings_received) {
        *out = c->peer_streams;
    }
    return c->settings_received;
}

uint32_t h2_conn_header_bytes(const struct h2_conn *c)
{
    return c->peer_headers;
}

void h2_conn_set_header_bytes(struct h2_conn *c, uint32_t bytes)
{
    CHECK(!c->server);
    c->peer_headers = bytes;
}

bool h2_conn_probing(const struct h2_conn *c)
{
    return c->probing;
}

uint64_t h2_conn_heard_ms(const struct h2_conn *c)
{
    return c->heard_ms;
}
