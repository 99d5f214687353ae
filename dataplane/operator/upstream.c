/* upstream: a worker's upstreams: who is asked, who is looked over, who goes. See upstream.h. */
#include "dataplane/operator/upstream.h"

#include <stdlib.h>

#include "common/base/board.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/net/conn.h"
#include "common/net/loop.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum {
    OWN_BOARD_CELLS = 1024,
    SWEEP_MS = 60000,
    UNUSED_MS = 300000,  /* a set that nobody picked from for so long goes. */
    FOLLOW_BATCH = 32,   /* sets that a turn asks whether they are of the model in force. */
    LOOK_BATCH = 16,     /* connections looked at between two looks at the clock; */
    LOOK_TRUST_BATCH = 4 /* of those whose certificate is verified again, in a turn. */
};

/* Half of what a swap may take of a turn: those that do not stand take longer. */
#define LOOK_NS UINT64_C(50000)

static void sweep(struct net_timer *timer, void *ctx);
static void follow_on(struct net_timer *timer, void *ctx);
static void look_on(struct net_timer *timer, void *ctx);
static bool stands(void *ctx, struct net_conn *conn, bool opens);

struct err op_upstreams_new(const struct dp_lane_host *host, struct op_upstreams **out)
{
    struct op_upstreams *ups = calloc(1, sizeof(*ups));
    if (ups == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err err = h2_pools_new(host->h2, host->loop, &ups->pools);
    if (!err_ok(err)) {
        free(ups);
        return err;
    }
    ups->host = host;
    ups->board = host->board;
    if (ups->board == NULL) {
        err = board_new(OWN_BOARD_CELLS, &ups->own_board);
        if (!err_ok(err)) {
            h2_pools_free(ups->pools);
            free(ups);
            return err;
        }
        ups->board = ups->own_board;
    }
    net_timer_init(&ups->sweep_timer, sweep, ups);
    net_timer_arm(host->loop, &ups->sweep_timer, SWEEP_MS);
    net_timer_init(&ups->follow_timer, follow_on, ups);
    net_timer_init(&ups->look_timer, look_on, ups);
    h2_pools_set_judge(ups->pools, stands, ups);
    *out = ups;
    return OK;
}

struct err op_upstreams_pick(struct op_upstreams *ups, const struct dp_request *rq,
                             struct op_tries *tries, struct op_endpoint **out)
{
    struct op_question question;
    struct op_set *set = NULL;
    TRY(op_set_get(ups, rq, &question, &set));
    if (op_breaker_is_open(set, OP_BREAKER_REQUESTS)) {
        return op_breaker_refuse(set, OP_BREAKER_REQUESTS);
    }
    return op_pick(set, rq, question.cluster, tries, out);
}

/* ---- a swap ---- */

/* One set that is made anew is enough for a turn. */
static void follow_on(struct net_timer *timer, void *ctx)
{
    struct op_upstreams *ups = ctx;
    bool renewed = false;
    for (size_t i = 0; i < FOLLOW_BATCH && !renewed && *ups->follow_at != NULL; i++) {
        struct op_set *set = *ups->follow_at;
        ups->follow_at = &set->next;
        renewed = op_set_follow(set);
    }
    if (*ups->follow_at != NULL) {
        net_timer_arm(ups->host->loop, timer, 1);
    } else {
        ups->follow_at = NULL;
    }
}

/* ---- peers that do not stand any more ---- */

/* One that shook hands under the CAs before was not open when the others were looked over. */
static bool is_of_before(const struct op_upstreams *ups, const struct net_conn *conn)
{
    const struct net_tls *tls = net_conn_tls(conn);
    return tls != ups->host->tls && tls != ups->host->mtls;
}

static bool stands(void *ctx, struct net_conn *conn, bool opens)
{
    const struct op_upstreams *ups = ctx;
    const struct dp_model *model = dp_request_pool_model(ups->host->requests);
    if (model != NULL && dp_model_peer_revoked(model, net_conn_identity(conn))) {
        return false;
    }
    bool asks = opens ? is_of_before(ups, conn) : ups->looks_at_trust;
    if (!asks || net_conn_identity(conn) == NULL) {
        return true;
    }
    return ups->host->tls != NULL && net_conn_peer_trusted(conn, ups->host->tls);
}

static void look_on(struct net_timer *timer, void *ctx)
{
    struct op_upstreams *ups = ctx;
    struct dp_metrics_turn turn = dp_request_metrics_turn_begin();
    bool swap = !ups->looks_at_trust;
    bool more = h2_pools_look(ups->pools, swap ? LOOK_BATCH : LOOK_TRUST_BATCH);
    while (more && swap && clock_mono_ns() - turn.mono_ns < LOOK_NS) {
        more = h2_pools_look(ups->pools, LOOK_BATCH);
    }
    if (!more && ups->looks_again) {
        ups->looks_again = false;
        h2_pools_look_begin(ups->pools);
        more = true;
    }
    if (more) {
        net_timer_arm(ups->host->loop, timer, 1);
    } else {
        ups->looks = false;
        ups->looks_at_trust = false;
    }
    if (swap) {
        dp_request_metrics_turn_end(ups->host->metrics, &turn);
    }
}

void op_upstreams_look(struct op_upstreams *ups, bool trust)
{
    ups->follow_at = &ups->all;
    net_timer_arm(ups->host->loop, &ups->follow_timer, 1);
    ups->looks_at_trust = ups->looks_at_trust || trust;
    if (ups->looks) {
        ups->looks_again = true; /* swaps in a row leave nobody out. */
        return;
    }
    ups->looks = true;
    h2_pools_look_begin(ups->pools);
    net_timer_arm(ups->host->loop, &ups->look_timer, 1);
}

void op_upstreams_measure(struct op_upstreams *ups)
{
    struct dp_request_metrics *metrics = ups->host->metrics;
    metrics_set(dp_request_metrics_shard(metrics),
                metrics_plain(dp_request_metrics_set(metrics), DP_METRIC_UPSTREAM_CONNECTIONS),
                (int64_t)h2_pools_open(ups->pools));
}

/* ---- what nobody uses any more ---- */

static bool is_used(const struct op_set *set, uint64_t now_ns)
{
    return set->active + set->pending > 0 || now_ns - set->used_ns < UNUSED_MS * 1000000ULL;
}

/* One set, or a batch of its endpoints; true: it was the last. */
static bool sweep_next(struct op_upstreams *ups, uint64_t now_ns)
{
    struct op_set *set = *ups->sweep_at;
    if (set == NULL) {
        return true;
    }
    if (!is_used(set, now_ns)) {
        op_set_empty(set);
    }
    if (!op_set_sweep(set)) {
        return false;
    }
    if (!set->emptied || set->all != NULL) {
        ups->sweep_at = &set->next;
        return false;
    }
    *ups->sweep_at = set->next;
    ups->follow_at = ups->follow_at == NULL ? NULL : &ups->all; /* it may stand in this one. */
    (void)map_remove(&ups->sets, set->id);
    op_set_free(set);
    return false;
}

/* Sets of an older snapshot that nobody asks for, and endpoints that a snapshot left out: a
 * bounded number a turn. */
static void sweep(struct net_timer *timer, void *ctx)
{
    struct op_upstreams *ups = ctx;
    if (ups->sweep_at == NULL) {
        ups->sweep_at = &ups->all;
    }
    bool done = sweep_next(ups, net_loop_now_ns(ups->host->loop));
    if (done) {
        ups->sweep_at = NULL;
    }
    net_timer_arm(ups->host->loop, timer, done ? SWEEP_MS : 1);
}

void op_upstreams_free(struct op_upstreams *ups)
{
    if (ups == NULL) {
        return;
    }
    net_timer_cancel(ups->host->loop, &ups->sweep_timer);
    net_timer_cancel(ups->host->loop, &ups->follow_timer);
    net_timer_cancel(ups->host->loop, &ups->look_timer);
    op_health_stop(ups);
    while (ups->all != NULL) {
        struct op_set *set = ups->all;
        ups->all = set->next;
        op_set_free(set);
    }
    map_free(&ups->sets);
    board_free(ups->own_board);
    h2_pools_free(ups->pools);
    free(ups);
}
