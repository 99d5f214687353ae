/* conn: a connection's life. What happens in a turn only leaves marks; conn_turn_end() acts on
 * them, in one place and outside of every callback, so that handlers may do anything anywhere. */
#include "common/net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/net/conn_impl.h"

enum {
    READS_PER_TURN = 2,      /* full buffers that one connection may bring a turn. */
    FLUSH_MS = 10000,        /* net_conn_close(): for the peer to take what is queued. */
    LINGER_MS = 1000,        /* ... and then for its FIN. */
    DISCARD_BYTES = 1 << 20, /* ... and what it may still send meanwhile. */
    /* Under TLS less is read at once, so that with a record that OpenSSL had begun to gather
     * the clear text fits into the loop's buffer. */
    TLS_READ_BYTES = NET_READ_BYTES - 17 * 1024,
};

static const struct net_conn_handler nobody = {0};

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_timer(struct net_timer *timer, void *ctx);
static void on_turn_end(struct net_hook *hook, void *ctx);
static void on_poll_closed(uv_handle_t *handle);

void net_conn_set_handler(struct net_conn *conn, const struct net_conn_handler *handler, void *ctx)
{
    conn->handler = handler == NULL ? &nobody : handler;
    conn->ctx = ctx;
}

void *net_conn_ctx(const struct net_conn *conn)
{
    return conn->ctx;
}

struct net_loop *net_conn_loop(const struct net_conn *conn)
{
    return conn->loop;
}

static void socket_tune(int fd)
{
    /* Each is a wish: a socket that is not TCP (a test's pair) refuses them, and works. */
    int on = 1;
    int idle_s = 60;
    int interval_s = 15;
    int probes = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static void conn_read_addresses(struct net_conn *conn)
{
    struct net_addr a = {0};
    socklen_t size = sizeof(a.sa);
    if (getpeername(conn->fd, &a.sa.any, &size) == 0) {
        conn->peer = a;
    }
    size = sizeof(a.sa);
    if (getsockname(conn->fd, &a.sa.any, &size) == 0) {
        conn->local = a;
    }
}

/* Makes a connection of a socket, which it takes when all went well. */
static struct err conn_new(struct net_loop *loop, int *fd, struct net_conn **out)
{
    if (loop->ending) {
        return FAIL(E_CLOSED);
    }
    struct net_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    /* libuv makes the socket non-blocking. */
    if (uv_poll_init(&loop->uv, &conn->poll, *fd) != 0) {
        free(conn);
        return FAIL(E_IO);
    }
    conn->poll.data = conn;
    conn->fd = TAKE_FD(*fd);
    conn->loop = loop;
    conn->handler = &nobody;
    conn->output_max = limits.output_buffer_bytes;
    conn->stats.opened_ns = net_loop_now_ns(loop);
    conn->stats.last_read_ns = conn->stats.opened_ns;
    net_hook_init(&conn->hook, NET_HOOK_WRITE, on_turn_end, conn);
    net_timer_init(&conn->timer, on_timer, conn);
    conn->next = loop->conns;
    conn->link = &loop->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    loop->conns = conn;
    loop->stats.connections_open++;
    loop->stats.connections_made++;
    *out = conn;
    return OK;
}

/* Gives up the socket and unlinks; memory goes with libuv's callback. */
static void conn_bury(struct net_conn *conn)
{
    struct net_loop *loop = conn->loop;
    net_hook_cancel(loop, &conn->hook);
    net_timer_cancel(loop, &conn->timer);
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
    loop->stats.connections_open--;
    uv_close((uv_handle_t *)&conn->poll, on_poll_closed);
    if (conn->reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    (void)close(conn->fd);
    conn->fd = -1;
    net_chunks_clear(loop, &conn->output);
    net_conn_tls_free(conn);
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct err net_conn_accept(struct net_loop *loop, int *fd, const struct net_conn_accept_options *o,
                           struct net_conn **out)
{
    auto_close int owned = TAKE_FD(*fd);
    struct net_conn *conn = NULL;
    TRY(conn_new(loop, &owned, &conn));
    socket_tune(conn->fd);
    conn_read_addresses(conn);
    if (o->tls != NULL) {
        struct err failed = net_conn_tls_init(conn, o->tls, &o->terms, /* client= */ NULL);
        if (!err_ok(failed)) {
            conn_bury(conn);
            return failed;
        }
        conn->state = NET_CONN_HANDSHAKE;
        net_timer_arm(loop, &conn->timer, limits.handshake_timeout_ms);
    } else {
        conn->state = NET_CONN_OPEN;
        conn->opened_due = true;
        net_hook_queue(loop, &conn->hook);
    }
    net_conn_set_handler(conn, o->handler, o->ctx);
    net_conn_watch(conn);
    *out = conn;
    return OK;
}

struct err net_dial(struct net_loop *loop, const struct net_dial_options *o, struct net_conn **out)
{
    auto_close int fd =
        socket(o->addr->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    struct net_conn *conn = NULL;
    TRY(conn_new(loop, &fd, &conn));
    socket_tune(conn->fd);
    if (o->tls != NULL) {
        struct net_conn_tls_expect expect = {o->server_name, o->spiffe_id, o->http1_only};
        struct err failed = net_conn_tls_init(conn, o->tls, &o->terms, &expect);
        if (!err_ok(failed)) {
            conn_bury(conn);
            return failed;
        }
    }
    conn->peer = *o->addr;
    conn->state = NET_CONN_CONNECTING;
    net_conn_set_handler(conn, o->handler, o->ctx);
    net_timer_arm(loop, &conn->timer,
                  o->timeout_ms == 0 ? limits.connect_timeout_ms : o->timeout_ms);
    if (connect(conn->fd, &o->addr->sa.any, net_addr_size(o->addr)) != 0 && errno != EINPROGRESS) {
        net_conn_break(conn, FAIL(E_UNAVAILABLE));
    }
    net_conn_watch(conn);
    *out = conn;
    return OK;
}

void net_conn_pause(struct net_conn *conn)
{
    /* The socket stays watched until it has something: short pauses cost no system call. */
    conn->paused = !conn->closing; /* what comes while closing is dropped, not kept. */
}

void net_conn_resume(struct net_conn *conn)
{
    if (!conn->paused) {
        return;
    }
    conn->paused = false;
    net_conn_watch(conn);
    if (conn->tls.stash != NULL || conn->eof_due) {
        net_hook_queue(conn->loop, &conn->hook);
    }
}

bool net_conn_paused(const struct net_conn *conn)
{
    return conn->paused;
}

void net_conn_shutdown(struct net_conn *conn)
{
    conn->shutdown_asked = true;
    net_hook_queue(conn->loop, &conn->hook);
}

void net_conn_close(struct net_conn *conn)
{
    if (conn->closing || conn->broken) {
        return;
    }
    if (conn->state != NET_CONN_OPEN) {
        net_conn_abort(conn, FAIL(E_CLOSED));
        return;
    }
    conn->closing = true;
    conn->paused = false;
    net_timer_arm(conn->loop, &conn->timer, FLUSH_MS);
    net_conn_watch(conn);
    net_hook_queue(conn->loop, &conn->hook);
}

void net_conn_abort(struct net_conn *conn, struct err why)
{
    if (!conn->broken) {
        conn->reset = true;
        net_conn_break(conn, why);
    }
}

bool net_conn_closing(const struct net_conn *conn)
{
    return conn->closing || conn->broken;
}

bool net_conn_is_open(const struct net_conn *conn)
{
    return conn->state == NET_CONN_OPEN;
}

const struct net_addr *net_conn_peer(const struct net_conn *conn)
{
    return &conn->peer;
}

const struct net_addr *net_conn_local(const struct net_conn *conn)
{
    return &conn->local;
}

const struct net_conn_stats *net_conn_stats(const struct net_conn *conn)
{
    return &conn->stats;
}

void net_conn_abort_all(struct net_loop *loop)
{
    for (struct net_conn *conn = loop->conns; conn != NULL; conn = conn->next) {
        net_conn_abort(conn, FAIL(E_CLOSED));
    }
}

void net_conn_break(struct net_conn *conn, struct err why)
{
    if (conn->broken) {
        return;
    }
    conn->broken = true;
    conn->why = why;
    net_hook_queue(conn->loop, &conn->hook);
}

void net_conn_watch(struct net_conn *conn)
{
    int want = 0;
    if (!conn->broken) {
        bool reads = conn->state != NET_CONN_CONNECTING && !conn->eof && !conn->paused;
        bool writes = conn->state == NET_CONN_CONNECTING || conn->blocked;
        want = (reads ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0);
        /* A pause takes effect when something comes: see conn_read(). */
        want |= conn->paused && !conn->eof ? conn->polled & UV_READABLE : 0;
    }
    if (want == conn->polled) {
        return;
    }
    conn->polled = want;
    int failed = want == 0 ? uv_poll_stop(&conn->poll) : uv_poll_start(&conn->poll, want, on_poll);
    CHECK(failed == 0);
}

void net_conn_opened(struct net_conn *conn)
{
    conn->state = NET_CONN_OPEN;
    net_timer_cancel(conn->loop, &conn->timer);
    net_conn_watch(conn);
    net_hook_queue(conn->loop, &conn->hook); /* for what was written before. */
    if (conn->handler->opened != NULL) {
        conn->handler->opened(conn, conn->ctx);
    }
}

void net_conn_deliver(struct net_conn *conn, struct slice bytes)
{
    conn->stats.bytes_in += bytes.size;
    if (conn->closing) {
        conn->discarded_bytes += bytes.size;
        if (conn->discarded_bytes > DISCARD_BYTES) {
            net_conn_break(conn, FAIL(E_CLOSED));
        }
        return;
    }
    if (conn->handler->readable != NULL) {
        conn->handler->readable(conn, conn->ctx, bytes);
    }
}

static struct err read_failure(const struct net_conn *conn, int number)
{
    if (conn->state == NET_CONN_CONNECTING) {
        return FAIL(E_UNAVAILABLE);
    }
    return number == ECONNRESET || number == EPIPE || number == ETIMEDOUT ? FAIL(E_CLOSED)
                                                                          : FAIL(E_IO);
}

static void conn_tell_eof(struct net_conn *conn)
{
    conn->eof_due = false;
    if (conn->closing) {
        return; /* conn_turn_end() sees it. */
    }
    if (conn->handler->eof != NULL) {
        conn->handler->eof(conn, conn->ctx);
    } else {
        net_conn_close(conn);
    }
}

static void conn_eof(struct net_conn *conn)
{
    conn->eof = true;
    net_conn_watch(conn);
    net_hook_queue(conn->loop, &conn->hook);
    if (conn->state != NET_CONN_OPEN || (conn->tls.ssl != NULL && !conn->closing)) {
        /* Under TLS an end without close_notify is a cut (RFC 8446, 6.1). */
        net_conn_break(conn, FAIL(E_CLOSED));
        return;
    }
    conn->eof_due = true;
}

/* One recv; true when the socket may have more. */
static bool conn_read_once(struct net_conn *conn)
{
    struct net_loop *loop = conn->loop;
    bool tls = conn->tls.ssl != NULL;
    size_t size = tls ? (size_t)TLS_READ_BYTES : (size_t)NET_READ_BYTES;
    ssize_t got = recv(conn->fd, loop->read_buffer, size, 0);
    conn->stats.reads++;
    loop->stats.reads++;
    if (got < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            net_conn_break(conn, read_failure(conn, errno));
        }
        return false;
    }
    if (got == 0) {
        conn_eof(conn);
        return false;
    }
    loop->stats.bytes_in += (uint64_t)got;
    conn->stats.last_read_ns = net_loop_now_ns(loop);
    struct slice bytes = slice_of(loop->read_buffer, (size_t)got);
    if (tls) {
        net_conn_tls_input(conn, bytes);
    } else {
        net_conn_deliver(conn, bytes);
    }
    return (size_t)got == size;
}

static void conn_read(struct net_conn *conn)
{
    if (conn->opened_due) {
        conn->opened_due = false;
        net_conn_opened(conn);
    }
    net_conn_tls_unstash(conn);
    for (unsigned i = 0; i < READS_PER_TURN; i++) {
        if (conn->paused) {
            conn->polled &= ~UV_READABLE; /* now the pause is worth a system call. */
            int failed = conn->polled == 0 ? uv_poll_stop(&conn->poll)
                                           : uv_poll_start(&conn->poll, conn->polled, on_poll);
            CHECK(failed == 0);
            return;
        }
        if (conn->broken || conn->eof || !conn_read_once(conn)) {
            break;
        }
    }
    if (conn->eof_due && !conn->paused && !conn->broken) {
        conn_tell_eof(conn);
    }
}

static void conn_connected(struct net_conn *conn)
{
    int failed = 0;
    socklen_t size = sizeof(failed);
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0 || failed != 0) {
        net_conn_break(conn, FAIL(E_UNAVAILABLE));
        return;
    }
    conn_read_addresses(conn);
    if (conn->tls.ssl == NULL) {
        net_conn_opened(conn);
        return;
    }
    conn->state = NET_CONN_HANDSHAKE;
    net_conn_watch(conn);
    net_conn_tls_handshake(conn);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct net_conn *conn = poll->data;
    if (status < 0) {
        /* libuv stopped watching: the socket has an error. What came before it is still read. */
        conn->polled = 0;
        events = conn->state == NET_CONN_CONNECTING ? UV_WRITABLE : UV_READABLE;
    }
    if (conn->broken) {
        return;
    }
    if (conn->state == NET_CONN_CONNECTING) {
        conn_connected(conn);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        conn->blocked = false;
        net_hook_queue(conn->loop, &conn->hook);
    }
    if ((events & UV_READABLE) != 0) {
        conn_read(conn);
    }
    if (status < 0 && !conn->broken) {
        net_conn_break(conn, FAIL(E_CLOSED));
    }
}

/* What a peer is to blame for when the time is up; a server that we dialled has its own reasons. */
static void note_slowness(const struct net_conn *conn)
{
    if (conn->state == NET_CONN_OPEN && !conn->closing) {
        net_flood(conn->loop, NET_FLOOD_UNREAD, &conn->peer);
    } else if (conn->state == NET_CONN_HANDSHAKE && SSL_is_server(conn->tls.ssl) == 1) {
        net_flood(conn->loop, NET_FLOOD_SILENT, &conn->peer);
    }
}

static void on_timer(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct net_conn *conn = ctx;
    if (conn->state == NET_CONN_HANDSHAKE) {
        conn->loop->stats.handshakes_failed++;
    }
    note_slowness(conn);
    conn->reset = !conn->lingering;
    net_conn_break(conn, FAIL(E_TIMEOUT));
}

/* The last call to the handler. */
static void conn_tell_closed(struct net_conn *conn, struct err why)
{
    const struct net_conn_handler *handler = conn->handler;
    conn->handler = &nobody;
    if (handler->closed != NULL) {
        handler->closed(conn, conn->ctx, why);
    }
}

/* All output is with the kernel: FIN behind it. */
static void conn_send_fin(struct net_conn *conn)
{
    if (conn->shutdown_done) {
        return;
    }
    if (conn->tls.ssl != NULL && !conn->tls.said_goodbye) {
        net_conn_tls_goodbye(conn);
        net_conn_write_out(conn);
        if (conn->tls.sealed.bytes > 0 || conn->broken) {
            return; /* the next writable event comes back here. */
        }
    }
    conn->shutdown_done = true;
    (void)shutdown(conn->fd, SHUT_WR); /* fails only when the peer is gone already. */
}

static void conn_finish_closing(struct net_conn *conn)
{
    if (!conn->shutdown_done) {
        return;
    }
    if (!conn->lingering) {
        conn->lingering = true;
        net_timer_arm(conn->loop, &conn->timer, LINGER_MS);
        conn_tell_closed(conn, OK);
    }
    if (conn->eof) {
        conn_bury(conn);
    }
}

static void conn_tell_drained(struct net_conn *conn)
{
    if (conn->want_drained && net_conn_output(conn) <= conn->output_max / 2) {
        conn->want_drained = false;
        if (conn->handler->drained != NULL && !conn->closing) {
            conn->handler->drained(conn, conn->ctx);
        }
    }
}

static void conn_turn_end(struct net_conn *conn)
{
    if (conn->opened_due && !conn->broken) {
        conn->opened_due = false;
        net_conn_opened(conn);
    }
    if (!conn->paused && !conn->broken) {
        net_conn_tls_unstash(conn);
        if (conn->eof_due && !conn->paused && !conn->broken) {
            conn_tell_eof(conn);
        }
    }
    if (!conn->broken && !conn->blocked) {
        net_conn_write_out(conn);
    }
    if (conn->broken) {
        conn_tell_closed(conn, conn->why);
        conn_bury(conn);
        return;
    }
    if (conn->state != NET_CONN_OPEN) {
        return;
    }
    conn_tell_drained(conn);
    if ((conn->shutdown_asked || conn->closing) && net_conn_output(conn) == 0) {
        conn_send_fin(conn);
    }
    if (conn->closing && !conn->broken) {
        conn_finish_closing(conn);
    }
}

static void on_turn_end(struct net_hook *hook, void *ctx)
{
    (void)hook;
    conn_turn_end(ctx);
}
