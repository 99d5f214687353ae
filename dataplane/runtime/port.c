/* port: see port.h. */
#include "dataplane/runtime/port.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/listener.h"
#include "dataplane/runtime/front_h2.h"
#include "dataplane/runtime/front_http1.h"
#include "dataplane/runtime/worker.h"

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
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        w->callers = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    w->caller_count--;
}

void dp_caller_conn_free(struct dp_caller_conn *c)
{
    struct dp_worker *w = c->port->worker;
    net_timer_cancel(w->loop, &c->timer);
    list_remove(c);
    buf_free(&c->early);
    free(c);
    dp_worker_caller_gone(w);
}

/* ---- looking at a new connection ---- */

static void start_h2(struct dp_caller_conn *c, struct slice first)
{
    net_timer_cancel(c->port->worker->loop, &c->timer);
    if (!err_ok(dp_front_h2_start(c, first))) {
        dp_caller_conn_free(c);
    }
}

static void start_http1(struct dp_caller_conn *c, struct slice first)
{
    net_timer_cancel(c->port->worker->loop, &c->timer);
    struct net_conn *net = c->net;
    struct err e = dp_front_http1_start(c, first);
    if (!err_ok(e)) {
        net_conn_set_handler(net, /* handler= */ NULL, /* ctx= */ NULL);
        net_conn_abort(net, e);
        dp_caller_conn_free(c);
    }
}

static void opened(struct net_conn *conn, void *ctx)
{
    struct dp_caller_conn *c = ctx;
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
    net_conn_abort(c->net, FAIL(E_TIMEOUT));
}

static void accepted(struct net_conn *conn, void *ctx)
{
    struct dp_port *port = ctx;
    struct dp_worker *w = port->worker;
    struct dp_caller_conn *c = w->caller_count < w->caller_max ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        net_conn_abort(conn, FAIL(E_OVERLOADED));
        return;
    }
    c->port = port;
    c->net = conn;
    c->early = BUF_MAX(NET_READ_BYTES + DP_PREFACE_BYTES);
    (void)net_addr_text(net_conn_peer(conn), c->peer);
    net_timer_init(&c->timer, too_silent, c);
    net_timer_arm(w->loop, &c->timer, limits.handshake_timeout_ms);
    list_add(c);
    net_conn_set_handler(conn, &looking, c);
}

struct err dp_port_open(struct dp_port *port, int fd, struct net_tls *tls)
{
    struct net_listener_options options = {
        .fd = fd,
        .tls = dp_port_is_tls(port->id) ? tls : NULL,
        .accepted = accepted,
        .ctx = port,
    };
    return net_listener_new(port->worker->loop, &options, &port->listener);
}

/* ---- ending ---- */

void dp_caller_conn_drain(struct dp_caller_conn *c)
{
    if (c->h2 != NULL) {
        h2_conn_drain(c->h2);
    } else if (c->http1 != NULL) {
        http1_server_drain(c->http1);
    } else {
        net_conn_close(c->net);
    }
}

void dp_caller_conn_abort(struct dp_caller_conn *c, struct err why)
{
    if (c->h2 != NULL) {
        h2_conn_close(c->h2, H2_NO_ERROR, why);
    } else if (c->http1 != NULL) {
        net_conn_abort(http1_server_conn(c->http1), why);
    } else {
        net_conn_abort(c->net, why);
    }
}
