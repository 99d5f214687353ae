/* port: see port.h. */
#include "dataplane/runtime/port.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/net/flood.h"
#include "common/net/listener.h"
#include "common/net/tls.h"
#include "dataplane/request/metrics.h"
#include "dataplane/runtime/front_h2.h"
#include "dataplane/runtime/front_http1.h"
#include "dataplane/runtime/spread.h"
#include "dataplane/runtime/web_http1.h"
#include "dataplane/runtime/web_socket.h"
#include "dataplane/runtime/worker.h"

/* Between the notice that a connection ends and its end. */
enum { END_MS = 1000 };

/* ---- the worker's list ---- */

static void list_add(struct dp_caller_conn *c)
{
    struct dp_worker *w = c->port->worker;
    c->next = w->callers;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    w->callers = c;
    w->caller_count++;
}

static void list_remove(struct dp_caller_conn *c)
{
    struct dp_worker *w = c->port->worker;
    CHECK(w->caller_count > 0);
    dp_peers_gone(w, c);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        w->callers = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    w->caller_count--;
    dp_spread_drop(w->config->spread, w->index, c->source);
}

void dp_caller_conn_free(struct dp_caller_conn *c)
{
    struct dp_worker *w = c->port->worker;
    net_timer_cancel(w->loop, &c->timer);
    net_timer_cancel(w->loop, &c->age);
    list_remove(c);
    buf_free(&c->early);
    free(c);
    dp_worker_caller_gone(w);
}

/* ---- growing old ---- */

/* Spread over a fifth, so that those who came together do not come again together. */
static uint64_t age_max_ms(void)
{
    uint64_t draw = 0;
    uint64_t tenth = limits.connection_max_age_ms / 10;
    ids_quick(&draw, sizeof(draw));
    return limits.connection_max_age_ms - tenth + draw % (2 * tenth + 1);
}

/* At its age it is told to leave; what is left of it behind its grace is cut off. A tunnel is one
 * request, and as old as that. */
static void too_old(struct net_timer *timer, void *ctx)
{
    struct dp_caller_conn *c = ctx;
    struct dp_worker *w = c->port->worker;
    if (c->tunnel != NULL || c->ending) {
        return;
    }
    if (c->aged) {
        dp_caller_conn_abort(c, FAIL(E_DRAINING));
        return;
    }
    c->aged = true;
    metrics_add(w->shard, metrics_plain(w->config->metrics, DP_METRIC_CONNECTIONS_AGED), 1);
    if (limits.connection_grace_ms != 0) {
        net_timer_arm(w->loop, timer, limits.connection_grace_ms);
    }
    dp_caller_conn_drain(c);
}

static void start_ageing(struct dp_caller_conn *c)
{
    net_timer_init(&c->age, too_old, c);
    if (limits.connection_max_age_ms != 0) {
        net_timer_arm(c->port->worker->loop, &c->age, age_max_ms());
    }
}

/* ---- looking at a new connection ---- */

static void start_h2(struct dp_caller_conn *c, struct slice first)
{
    net_timer_cancel(c->port->worker->loop, &c->timer);
    if (!err_ok(dp_front_h2_start(c, first))) {
        dp_caller_conn_free(c);
    } else if (c->port->worker->draining) {
        dp_caller_conn_drain(c); /* behind what it asks for now. */
    }
}

static void start_http1(struct dp_caller_conn *c, struct slice first)
{
    net_timer_cancel(c->port->worker->loop, &c->timer);
    struct net_conn *net = c->net;
    struct err e = dp_port_is_proxy(c->port->id) ? dp_front_http1_start(c, first)
                                                 : dp_web_http1_start(c, first);
    if (!err_ok(e)) {
        net_conn_set_handler(net, /* handler= */ NULL, /* ctx= */ NULL);
        net_conn_abort(net, e);
        dp_caller_conn_free(c);
    } else if (c->port->worker->draining && c->http1 != NULL) {
        http1_server_drain(c->http1);
    }
}

/* A handshake may have begun before the model that is in force. */
static bool is_what_is_demanded(const struct dp_worker *w, const struct net_conn *conn)
{
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    return model == NULL || net_conn_meets(conn, &dp_model_environment(model)->terms);
}

static void opened(struct net_conn *conn, void *ctx)
{
    struct dp_caller_conn *c = ctx;
    if (!is_what_is_demanded(c->port->worker, conn)) {
        net_conn_abort(conn, FAIL(E_UNAUTHENTICATED));
        return;
    }
    struct slice alpn = net_conn_alpn(conn);
    struct slice none = {0};
    if (slice_eq(alpn, SLICE_LIT("h2"))) {
        start_h2(c, none);
    } else if (slice_eq(alpn, SLICE_LIT("http/1.1"))) {
        start_http1(c, none);
    }
    /* Nothing chosen, or in clear: the first bytes tell. */
}

static void readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct dp_caller_conn *c = ctx;
    bool matches = h2_preface_matches(bytes);
    if (c->early.size > 0 || (matches && bytes.size < DP_PREFACE_BYTES)) {
        struct err e = buf_add(&c->early, bytes);
        if (!err_ok(e)) {
            net_conn_abort(conn, e);
            return;
        }
        bytes = buf_slice(&c->early);
        matches = h2_preface_matches(bytes);
    }
    if (!matches) {
        start_http1(c, bytes);
    } else if (bytes.size >= DP_PREFACE_BYTES) {
        start_h2(c, bytes);
    }
}

static void closed(struct net_conn *conn, void *ctx, struct err why)
{
    (void)conn;
    (void)why;
    dp_caller_conn_free(ctx);
}

static const struct net_conn_handler looking = {
    .opened = opened, .readable = readable, .closed = closed};

static void too_silent(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct dp_caller_conn *c = ctx;
    if (net_conn_is_open(c->net)) { /* one that shakes hands still has its own time, and count. */
        net_flood(c->port->worker->loop, NET_FLOOD_SILENT, net_conn_peer(c->net));
    }
    net_conn_abort(c->net, FAIL(E_TIMEOUT));
}

static void accepted(struct net_conn *conn, void *ctx)
{
    struct dp_port *port = ctx;
    struct dp_worker *w = port->worker;
    struct dp_caller_conn *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        dp_spread_drop(w->config->spread, w->index, port->adopted);
        net_conn_abort(conn, FAIL(E_NO_MEMORY));
        return;
    }
    c->port = port;
    c->net = conn;
    c->source = port->adopted;
    c->early = BUF_MAX(NET_READ_BYTES + DP_PREFACE_BYTES);
    (void)net_addr_text(net_conn_peer(conn), c->peer);
    net_timer_init(&c->timer, too_silent, c);
    net_timer_arm(w->loop, &c->timer, limits.handshake_timeout_ms);
    start_ageing(c);
    list_add(c);
    net_conn_set_handler(conn, &looking, c);
}

/* The caller learns at once, and nothing lingers here. */
static void reset(int fd)
{
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    (void)close(fd);
}

void dp_port_adopt(struct dp_port *port, struct dp_socket socket)
{
    struct dp_worker *w = port->worker;
    if (port->listener == NULL || (port->closed && !w->config->sockets_go_on)) {
        reset(socket.fd);
        dp_spread_drop(w->config->spread, w->index, socket.source);
        return;
    }
    uint64_t failed = net_listener_stats(port->listener)->failed;
    port->adopted = socket.source;
    net_listener_adopt(port->listener, socket.fd);
    if (net_listener_stats(port->listener)->failed != failed) {
        dp_spread_drop(w->config->spread, w->index, socket.source);
    }
}

/* Whom a socket counts for. The kernel is not asked while nobody is counted. */
static uint64_t source_of(int fd)
{
    struct net_addr peer = {0};
    socklen_t size = sizeof(peer.sa);
    if (limits.connections_per_address == 0 || getpeername(fd, &peer.sa.any, &size) != 0) {
        return 0; /* its peer has left already. */
    }
    return net_addr_source(&peer);
}

/* Every accepted socket comes by here: it stays, goes to a worker with fewer, or is too many. */
static bool pass(int fd, void *ctx)
{
    struct dp_port *port = ctx;
    struct dp_worker *w = port->worker;
    struct dp_socket socket = {.fd = fd, .port = port->id, .source = source_of(fd)};
    switch (dp_spread_place(w->config->spread, w->index, socket)) {
    case DP_SPREAD_HERE:
        dp_port_adopt(port, socket);
        break;
    case DP_SPREAD_PASSED:
        break;
    case DP_SPREAD_FULL:
        reset(fd);
        dp_worker_count_refused(w, "connections", 1);
        break;
    case DP_SPREAD_CROWD:
        reset(fd);
        dp_worker_count_refused(w, "address", 1);
        break;
    }
    return true;
}

struct err dp_port_open(struct dp_port *port, int fd, struct net_tls *tls)
{
    struct net_listener_options options = {
        .fd = fd,
        .tls = dp_port_is_tls(port->id) ? tls : NULL,
        .accepted = accepted,
        .pass = pass,
        .ctx = port,
    };
    TRY(net_listener_new(port->worker->loop, &options, &port->listener));
    if (port->worker->config->ports_wait) {
        net_listener_stop(port->listener);
        port->closed = true;
    }
    return OK;
}

/*
 * The kernel would go on to shake hands with callers whom nobody accepts. The socket is shared by
 * all workers, so one of them speaks for all: the first.
 */
void dp_port_close(struct dp_port *port)
{
    struct dp_worker *w = port->worker;
    if (port->listener == NULL || port->closed) {
        return;
    }
    port->closed = true;
    net_listener_stop(port->listener);
    if (w->index == 0 && !w->config->sockets_go_on) {
        net_listen_pause(w->config->port_fds[port->id]);
    }
}

void dp_port_reopen(struct dp_port *port)
{
    struct dp_worker *w = port->worker;
    if (port->listener == NULL || !port->closed) {
        return;
    }
    port->closed = false;
    if (w->index == 0) {
        net_listen_resume(w->config->port_fds[port->id]);
    }
    net_listener_start(port->listener);
}

/* ---- a connection that a front or a lane has ---- */

struct net_conn *dp_caller_conn_net(const struct dp_caller_conn *c)
{
    return c->h2 != NULL      ? h2_conn_net(c->h2)
           : c->http1 != NULL ? http1_server_conn(c->http1)
                              : c->net;
}

bool dp_caller_conn_is_proven(const struct dp_caller_conn *c)
{
    const struct net_identity *identity = net_conn_identity(dp_caller_conn_net(c));
    return identity != NULL && identity->spiffe_id.size > 0;
}

void dp_caller_conn_tunnel(struct dp_caller_conn *c, struct net_conn *net, struct dp_request *rq)
{
    CHECK(c->net == NULL && c->h2 == NULL);
    c->http1 = NULL; /* it let the connection go. */
    c->net = net;
    c->tunnel = rq;
}

void dp_caller_conn_socket(struct dp_caller_conn *c, struct net_conn *net,
                           struct dp_web_socket *socket)
{
    CHECK(c->net == NULL && c->h2 == NULL);
    c->http1 = NULL; /* it let the connection go. */
    c->net = net;
    c->socket = socket;
}

/* ---- ending ---- */

bool dp_caller_conn_is_new(const struct dp_caller_conn *c)
{
    return c->net != NULL && c->tunnel == NULL && c->socket == NULL;
}

void dp_caller_conn_drain(struct dp_caller_conn *c)
{
    if (c->h2 != NULL) {
        h2_conn_drain(c->h2);
    } else if (c->http1 != NULL) {
        http1_server_drain(c->http1);
    } else if (c->socket != NULL) {
        dp_web_socket_drain(c->socket);
    } else if (c->tunnel == NULL) {
        net_conn_close(c->net);
    }
}

static void cut_off(struct net_timer *timer, void *ctx)
{
    (void)timer;
    dp_caller_conn_abort(ctx, FAIL(E_UNAUTHENTICATED));
}

void dp_caller_conn_end(struct dp_caller_conn *c, struct err why)
{
    struct net_loop *loop = c->port->worker->loop;
    CHECK(!c->ending);
    c->ending = true;
    if (c->tunnel != NULL) {
        c->tunnel->lane->abort(c->tunnel, why); /* and with it goes 'c'. */
        return;
    }
    if (c->net != NULL && c->socket == NULL) {
        net_conn_abort(c->net, why);
        return;
    }
    net_timer_init(&c->timer, cut_off, c);
    net_timer_arm(loop, &c->timer, END_MS);
    dp_caller_conn_drain(c);
}

void dp_caller_conn_abort(struct dp_caller_conn *c, struct err why)
{
    if (c->h2 != NULL) {
        h2_conn_close(c->h2, H2_NO_ERROR, why);
    } else if (c->http1 != NULL) {
        net_conn_abort(http1_server_conn(c->http1), why);
    } else if (c->socket != NULL) {
        dp_web_socket_abort(c->socket, why);
    } else if (c->tunnel == NULL) {
        net_conn_abort(c->net, why);
    }
}
