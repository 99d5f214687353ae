/* tunnel: see tunnel.h. */
#include "dataplane/proxy/tunnel.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "dataplane/proxy/exchange.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

static const struct net_conn_handler upstream_side;
static const struct net_conn_handler caller_side;

static void count(struct px_exchange *x, int by)
{
    x->counted = by > 0;
    x->worker->tunnel_count += (size_t)by;
    metrics_add(dp_request_metrics_shard(x->worker->host->metrics), x->worker->tunnels, by);
}

void px_tunnel_count(struct px_exchange *x)
{
    CHECK(!x->counted);
    count(x, 1);
}

void px_tunnel_uncount(struct px_exchange *x)
{
    if (x->counted) {
        count(x, -1);
    }
}

/* ---- how long nothing moved ---- */

static uint64_t last_read_ns(const struct px_exchange *x)
{
    uint64_t up = net_conn_stats(x->up)->last_read_ns;
    uint64_t down = net_conn_stats(x->down)->last_read_ns;
    uint64_t last = up > down ? up : down;
    return last > x->began_ns ? last : x->began_ns;
}

static void look_at_idle(struct net_timer *timer, void *ctx)
{
    struct px_exchange *x = ctx;
    struct net_loop *loop = x->worker->host->loop;
    uint64_t silent_ms = (net_loop_now_ns(loop) - last_read_ns(x)) / 1000000;
    if (silent_ms >= x->idle_ms) {
        px_tunnel_end(x, FAIL(E_TIMEOUT));
    } else {
        net_timer_arm(loop, timer, x->idle_ms - silent_ms);
    }
}

/* ---- begin ---- */

static void pass_on(struct net_conn *from, struct net_conn *to, struct slice bytes)
{
    /* There is room: nothing is read while there is not. A side that broke says so itself. */
    struct err err = net_conn_write(to, bytes);
    CHECK(err_ok(err) || err.code == E_NO_MEMORY || net_conn_closing(to));
    if (err.code == E_NO_MEMORY) {
        net_conn_abort(to, err);
    }
    if (net_conn_room(to) < PX_PIECE_MAX) {
        net_conn_pause(from);
        net_conn_want_drained(to);
    }
}

struct err px_tunnel_begin(struct px_exchange *x)
{
    struct dp_request *rq = x->rq;
    struct net_loop *loop = x->worker->host->loop;
    auto_buf struct buf early = BUF_MAX(PX_PIECE_MAX);
    TRY(rq->front->take(rq, &x->down, &early));
    rq->exchange_events = NULL;
    rq->answered = true;
    rq->http_status = 200;
    net_conn_set_handler(x->down, &caller_side, x);
    net_conn_set_handler(x->up, &upstream_side, x);
    x->began_ns = net_loop_now_ns(loop);
    x->idle_ms = rq->transport->idle_timeout_ms != 0 ? rq->transport->idle_timeout_ms
                                                     : limits.idle_timeout_ms;
    net_timer_init(&x->idle, look_at_idle, x);
    net_timer_arm(loop, &x->idle, x->idle_ms);
    if (early.size > 0) {
        rq->request_bytes += early.size;
        pass_on(x->down, x->up, buf_slice(&early));
    }
    return OK;
}

/* ---- both ways ---- */

static void caller_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct px_exchange *x = ctx;
    x->rq->request_bytes += bytes.size;
    pass_on(conn, x->up, bytes);
}

static void upstream_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct px_exchange *x = ctx;
    x->rq->response_bytes += bytes.size;
    pass_on(conn, x->down, bytes);
}

static void caller_drained(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    net_conn_resume(x->up);
}

static void upstream_drained(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    net_conn_resume(x->down);
}

/* ---- the end ---- */

static void release(struct net_conn **conn, bool whole)
{
    struct net_conn *released = *conn;
    *conn = NULL;
    if (released == NULL) {
        return;
    }
    net_conn_set_handler(released, /* handler= */ NULL, /* ctx= */ NULL);
    if (whole) {
        net_conn_close(released);
    } else {
        net_conn_abort(released, FAIL(E_CLOSED));
    }
}

static void end(struct px_exchange *x, struct err how)
{
    struct dp_request *rq = x->rq;
    net_timer_cancel(x->worker->host->loop, &x->idle);
    release(&x->up, err_ok(how));
    release(&x->down, err_ok(how));
    px_tunnel_uncount(x);
    rq->lane_state = NULL;
    dp_request_done(rq, how);
}

void px_tunnel_end(struct px_exchange *x, struct err why)
{
    CHECK(!err_ok(why));
    end(x, why);
}

static void caller_eof(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    x->down_ended = true;
    if (x->up_ended) {
        end(x, OK);
    } else {
        net_conn_shutdown(x->up);
    }
}

static void upstream_eof(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    x->up_ended = true;
    if (x->down_ended) {
        end(x, OK);
    } else {
        net_conn_shutdown(x->down);
    }
}

static void caller_closed(struct net_conn *conn, void *ctx, struct err why)
{
    (void)conn;
    (void)why;
    struct px_exchange *x = ctx;
    x->down = NULL;
    end(x, FAIL(E_CANCELLED));
}

static void upstream_closed(struct net_conn *conn, void *ctx, struct err why)
{
    (void)conn;
    (void)why;
    struct px_exchange *x = ctx;
    x->up = NULL;
    end(x, FAIL(E_UPSTREAM_RESET));
}

static const struct net_conn_handler upstream_side = {.readable = upstream_readable,
                                                      .eof = upstream_eof,
                                                      .drained = upstream_drained,
                                                      .closed = upstream_closed};

static const struct net_conn_handler caller_side = {.readable = caller_readable,
                                                    .eof = caller_eof,
                                                    .drained = caller_drained,
                                                    .closed = caller_closed};
