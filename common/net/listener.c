/* listener: see listener.h. */
#include "common/net/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/net/loop_impl.h"

enum {
    BACKLOG = 1024,
    ACCEPTS_PER_TURN = 16, /* so that a flood of connections leaves time for those that are. */
    REST_MS = 100,
};

struct net_listener {
    uv_poll_t poll;
    struct net_loop *loop;
    struct net_timer rest; /* armed: out of descriptors. */
    struct net_listener_options options;
    struct net_listener_stats stats;
    bool started;
};

struct err net_listen(struct slice address, int *out_fd, struct net_addr *out_bound)
{
    struct net_addr addr = {0};
    TRY(net_addr_resolve_boot(address, &addr));
    auto_close int fd =
        socket(addr.sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, &addr.sa.any, net_addr_size(&addr)) != 0 || listen(fd, BACKLOG) != 0) {
        return FAIL(E_IO);
    }
    socklen_t size = sizeof(addr.sa);
    if (getsockname(fd, &addr.sa.any, &size) != 0) {
        return FAIL(E_IO);
    }
    *out_bound = addr;
    *out_fd = TAKE_FD(fd);
    return OK;
}

void net_listen_pause(int fd)
{
    /* On a listening socket of Linux: it listens no more, and keeps its address. */
    (void)shutdown(fd, SHUT_RDWR);
}

void net_listen_resume(int fd)
{
    CHECK(listen(fd, BACKLOG) == 0);
}

void net_listener_adopt(struct net_listener *l, int fd)
{
    struct net_conn_accept_options o = {.tls = l->options.tls, .terms = l->options.terms};
    struct net_conn *conn = NULL;
    if (!err_ok(net_conn_accept(l->loop, &fd, &o, &conn))) {
        l->stats.failed++;
        return;
    }
    l->stats.accepted++;
    l->options.accepted(conn, l->options.ctx);
}

static void on_rest_end(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct net_listener *l = ctx;
    if (l->started) {
        net_listener_start(l);
    }
}

/* True when there may be more. */
static bool accept_one(struct net_listener *l)
{
    int fd = accept4(l->options.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            l->stats.rests++;
            (void)uv_poll_stop(&l->poll);
            net_timer_arm(l->loop, &l->rest, REST_MS);
            return false;
        }
        /* What is left: nobody there, or somebody who left again. */
        return errno != EAGAIN && errno != EWOULDBLOCK;
    }
    if (l->options.pass != NULL && l->options.pass(fd, l->options.ctx)) {
        l->stats.passed_on++;
        return true;
    }
    net_listener_adopt(l, fd);
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct net_listener *l = poll->data;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN && l->started && accept_one(l); i++) {
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct net_listener *l = handle->data;
    net_tls_unref(l->options.tls);
    free(l);
}

struct err net_listener_new(struct net_loop *loop, const struct net_listener_options *o,
                            struct net_listener **out)
{
    struct net_listener *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    if (uv_poll_init(&loop->uv, &l->poll, o->fd) != 0) {
        free(l);
        return FAIL(E_IO);
    }
    l->poll.data = l;
    l->loop = loop;
    l->options = *o;
    l->options.tls = o->tls == NULL ? NULL : net_tls_ref(o->tls);
    net_timer_init(&l->rest, on_rest_end, l);
    loop->users++;
    net_listener_start(l);
    *out = l;
    return OK;
}

void net_listener_set_tls(struct net_listener *l, struct net_tls *tls)
{
    struct net_tls *old = l->options.tls;
    l->options.tls = tls == NULL ? NULL : net_tls_ref(tls);
    net_tls_unref(old);
}

void net_listener_set_terms(struct net_listener *l, const struct net_tls_terms *terms)
{
    l->options.terms = *terms;
}

void net_listener_stop(struct net_listener *l)
{
    l->started = false;
    net_timer_cancel(l->loop, &l->rest);
    (void)uv_poll_stop(&l->poll);
}

void net_listener_start(struct net_listener *l)
{
    l->started = true;
    CHECK(uv_poll_start(&l->poll, UV_READABLE, on_poll) == 0);
}

const struct net_listener_stats *net_listener_stats(const struct net_listener *l)
{
    return &l->stats;
}

void net_listener_free(struct net_listener *l)
{
    if (l == NULL) {
        return;
    }
    net_listener_stop(l);
    l->loop->users--;
    uv_close((uv_handle_t *)&l->poll, on_closed);
}
