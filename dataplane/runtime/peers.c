/* peers: see peers.h. */
#include "dataplane/runtime/peers.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/conn.h"
#include "dataplane/request/metrics.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/worker.h"

enum {
    BATCH = 128,    /* connections looked at in a turn; */
    TRUST_BATCH = 4 /* of those whose certificate is verified again. */
};

/* Half of what a swap may take of a turn: the last one looked at may end, which takes longer. */
#define LOOK_NS UINT64_C(50000)

/* Whether its certificate would not be taken today. One that was not yet looked at by TLS began
 * under the CAs before: who connects again meets those of today. */
static bool is_distrusted(const struct dp_worker *w, const struct dp_caller_conn *c,
                          const struct net_conn *conn)
{
    const struct net_tls *tls = dp_port_is_proxy(c->port->id) ? w->tls.proxy : w->tls.server;
    if (!net_conn_is_tls(conn) || tls == NULL) {
        return false;
    }
    return !net_conn_is_open(conn) || !net_conn_peer_trusted(conn, tls);
}

static struct err judge(const struct dp_worker *w, const struct dp_caller_conn *c)
{
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    const struct net_conn *conn = dp_caller_conn_net(c);
    const struct net_identity *peer = net_conn_identity(conn);
    if (model != NULL && dp_model_peer_revoked(model, peer)) {
        return FAIL(E_IDENTITY_REVOKED);
    }
    if (model != NULL && peer != NULL && peer->spiffe_id.size > 0 &&
        !dp_model_trusts_domain(model, peer->spiffe.trust_domain)) {
        return FAIL(E_UNAUTHENTICATED);
    }
    if (model != NULL && net_conn_is_open(conn) &&
        !net_conn_meets(conn, &dp_model_environment(model)->terms)) {
        return FAIL(E_UNAUTHENTICATED);
    }
    return w->peers.trust && is_distrusted(w, c, conn) ? FAIL(E_UNAUTHENTICATED) : OK;
}

static void end(struct dp_worker *w, struct dp_caller_conn *c, struct err why)
{
    struct slice label = slice_str(err_name(why.code));
    metrics_add(w->shard, metrics_series(w->config->metrics, DP_METRIC_CONNECTIONS_ENDED, &label),
                1);
    w->peers.ended++;
    dp_caller_conn_end(c, why);
}

/* Where no cleartext is taken, who came by a port without TLS is let go. */
static void look_at(struct dp_worker *w, struct dp_caller_conn *c)
{
    struct err why = c->ending ? OK : judge(w, c);
    if (!err_ok(why)) {
        end(w, c, why);
    } else if (w->tls_only && !dp_port_is_tls(c->port->id)) {
        dp_caller_conn_drain(c);
    }
}

static void walked(struct dp_worker *w)
{
    if (w->peers.ended > 0) {
        LOG(LOG_INFO, "runtime", "peers-ended", LOG_U64("worker", w->index),
            LOG_U64("connections", w->peers.ended));
    }
    w->peers.ended = 0;
    w->peers.trust = false;
}

static void walk(struct net_timer *timer, void *ctx)
{
    struct dp_worker *w = ctx;
    struct dp_metrics_turn turn = dp_request_metrics_turn_begin();
    bool swap = !w->peers.trust;
    size_t batch = w->peers.trust ? TRUST_BATCH : BATCH;
    uint64_t spent_ns = 0;
    for (size_t i = 0; i < batch && w->peers.next != NULL && spent_ns < LOOK_NS; i++) {
        struct dp_caller_conn *c = w->peers.next;
        w->peers.next = c->next; /* what ends now is taken out of the list by itself. */
        look_at(w, c);
        spent_ns = clock_mono_ns() - turn.mono_ns;
    }
    if (w->peers.next == NULL && w->peers.again) {
        w->peers.again = false;
        w->peers.next = w->callers;
    }
    if (w->peers.next != NULL) {
        net_timer_arm(w->loop, timer, 1);
    } else {
        walked(w);
    }
    if (swap) {
        dp_request_metrics_turn_end(w->metrics, &turn);
    }
}

void dp_peers_init(struct dp_worker *w)
{
    w->peers = (struct dp_peers){0};
    net_timer_init(&w->peers.timer, walk, w);
}

void dp_peers_look(struct dp_worker *w, bool trust)
{
    w->peers.trust = w->peers.trust || trust;
    if (w->peers.next != NULL) {
        w->peers.again = true;
        return;
    }
    w->peers.next = w->callers;
    net_timer_arm(w->loop, &w->peers.timer, 1);
}

void dp_peers_gone(struct dp_worker *w, const struct dp_caller_conn *c)
{
    if (w->peers.next == c) {
        w->peers.next = c->next;
    }
}

void dp_peers_stop(struct dp_worker *w)
{
    net_timer_cancel(w->loop, &w->peers.timer);
    w->peers.next = NULL;
}
