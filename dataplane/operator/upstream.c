/* upstream: see upstream.h. */
#include "dataplane/operator/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/net/conn.h"
#include "common/net/dns.h"
#include "common/net/loop.h"
#include "common/net/timer.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum {
    KEY_MAX = 1024,
    TRIED_BITS = 64,
    RESOLVE_AGE_MS = 30000,
    FAILED_FIRST_MS = 1000,
    FAILED_MAX_MS = 30000,
    SWEEP_MS = 60000,
    LOOK_BATCH = 16,     /* connections looked at between two looks at the clock; */
    LOOK_TRUST_BATCH = 4 /* of those whose certificate is verified again, in a turn. */
};

/* Half of what a swap may take of a turn: those that do not stand take longer. */
#define LOOK_NS UINT64_C(50000)

struct op_endpoint {
    struct op_upstreams *ups;
    struct slice key; /* owned. */
    char *host;       /* owned. */
    uint16_t port;
    uint32_t security; /* dp_transport.upstream_tls. */
    uint32_t connect_timeout_ms;
    char *server_name; /* owned. */
    char *spiffe_id;   /* owned. */
    char text[NET_ADDR_TEXT_MAX];
    struct h2_pool *pool; /* NULL until the address is known. */
    struct net_addr addr;
    struct net_dns_query *query; /* NULL: no look-up is under way. */
    struct op_wait *line;        /* waits for the look-up. */
    uint64_t resolved_ns;        /* 0: never; a literal: UINT64_MAX. */
    uint64_t failed_until_ns;    /* left alone until then. */
    uint32_t failed_ms;          /* for how long the next time. */
    size_t refs;                 /* balances, waits and attempts. */
};

struct balance {
    struct slice id;  /* owned; of cluster and transport. */
    uint64_t version; /* of the snapshot that it was made from. */
    uint64_t turn;    /* of the call that came last. */
    uint64_t weight_sum;
    uint64_t stride;                /* from turn to turn; shares no factor with the sum. */
    struct op_endpoint **endpoints; /* owned array, each with a reference. */
    uint32_t *weights;
    size_t count;
};

struct op_upstreams {
    const struct dp_lane_host *host;
    struct h2_pools *pools;
    struct map balances;  /* by cluster and transport. */
    struct map endpoints; /* by key. */
    struct net_timer sweep_timer;
    struct net_timer look_timer;
    bool looks_at_trust; /* CAs changed since all connections were looked over. */
    bool looks;          /* connections are being looked over, */
    bool looks_again;    /* and once more behind the last one. */
    uint64_t version;    /* newest that was asked for. */
};

static void sweep(struct net_timer *timer, void *ctx);
static void look_on(struct net_timer *timer, void *ctx);
static bool stands(void *ctx, struct net_conn *conn);

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
    net_timer_init(&ups->sweep_timer, sweep, ups);
    net_timer_arm(host->loop, &ups->sweep_timer, SWEEP_MS);
    net_timer_init(&ups->look_timer, look_on, ups);
    h2_pools_set_judge(ups->pools, stands, ups);
    *out = ups;
    return OK;
}

/* ---- endpoints ---- */

static void endpoint_free(struct op_endpoint *e)
{
    CHECK(e->line == NULL);
    if (e->query != NULL) {
        net_dns_cancel(e->query);
    }
    h2_pool_unref(e->pool);
    free(e->host);
    free(e->server_name);
    free(e->spiffe_id);
    slice_free(e->key);
    free(e);
}

/* What the endpoint's connections are secured by now; a SIGHUP changes it. NULL: nothing. */
static struct net_tls *tls_of(const struct op_endpoint *e)
{
    const struct dp_lane_host *host = e->ups->host;
    return e->security == 0 ? NULL : e->security == 1 ? host->tls : host->mtls;
}

static MUST_CHECK struct err open_pool(struct op_endpoint *e, struct net_addr addr)
{
    struct h2_target target = {.addr = addr,
                               .tls = tls_of(e),
                               .server_name = slice_str(e->server_name),
                               .spiffe_id = slice_str(e->spiffe_id),
                               .connect_timeout_ms = e->connect_timeout_ms};
    if (e->security != 0 && target.tls == NULL) {
        return FAIL(E_UPSTREAM_CONNECT); /* the node was given no certificates. */
    }
    struct h2_pool *before = e->pool;
    TRY(h2_pools_get(e->ups->pools, &target, &e->pool));
    e->addr = addr;
    (void)net_addr_text(&addr, e->text);
    h2_pool_unref(before); /* last: who waits there hears of it, and comes here again. */
    return OK;
}

static void line_remove(struct op_wait *wait)
{
    *wait->at = wait->next;
    if (wait->next != NULL) {
        wait->next->at = wait->at;
    }
    wait->at = NULL;
    wait->next = NULL;
}

static void line_add(struct op_endpoint *e, struct op_wait *wait)
{
    wait->next = e->line;
    wait->at = &e->line;
    if (e->line != NULL) {
        e->line->at = &wait->next;
    }
    e->line = wait;
}

/* From the line into the pool's, or out of it with what came of the look-up. */
static void serve_wait(struct op_endpoint *e, struct op_wait *wait, struct err why)
{
    struct h2_conn *conn = NULL;
    uint64_t now_ns = net_loop_now_ns(e->ups->host->loop);
    struct err err = why;
    if (err_ok(err) && wait->until_ns <= now_ns) {
        err = FAIL(E_DEADLINE_EXCEEDED);
    }
    if (err_ok(err)) {
        err = h2_pool_acquire(e->pool, &wait->pool_wait, (wait->until_ns - now_ns) / 1000000 + 1,
                              &conn);
    }
    if (!err_ok(err) || conn != NULL) {
        wait->endpoint = NULL;
        e->refs--;
        wait->ready(wait, conn, err);
    }
}

/* Ends the look-up for everybody who waits for it now; whoever waits anew waits for the next. */
static void serve_line(struct op_endpoint *e, struct err why)
{
    struct op_wait *line = e->line;
    e->line = NULL;
    if (line != NULL) {
        line->at = &line;
    }
    e->refs++;             /* a 'ready' may let go of the last other reference. */
    while (line != NULL) { /* each turn takes one off; a 'ready' may take off others. */
        struct op_wait *wait = line;
        line_remove(wait);
        serve_wait(e, wait, why);
    }
    e->refs--;
}

static void resolved(void *ctx, struct err how, const struct net_addr *addrs, size_t count)
{
    struct op_endpoint *e = ctx;
    e->query = NULL;
    if (err_ok(how) && count > 0) {
        e->resolved_ns = net_loop_now_ns(e->ups->host->loop);
        if (e->pool == NULL || !net_addr_eq(&e->addr, &addrs[0])) {
            how = open_pool(e, addrs[0]);
        }
    }
    if (!err_ok(how)) {
        LOG(LOG_WARN, "operator", "endpoint-not-resolved", LOG_STR("endpoint", e->text),
            LOG_ERR(how));
    }
    /* An address that was good before is better than none. */
    serve_line(e, e->pool != NULL ? OK : FAIL(E_UPSTREAM_CONNECT));
}

/* Starts a look-up when the address is not known, or was known for long; renews the pool when the
 * node has new certificates. */
static MUST_CHECK struct err refresh(struct op_endpoint *e)
{
    if (e->pool != NULL && h2_pool_target(e->pool)->tls != tls_of(e)) {
        TRY(open_pool(e, e->addr));
    }
    uint64_t now_ns = net_loop_now_ns(e->ups->host->loop);
    if (e->query != NULL || e->resolved_ns == UINT64_MAX ||
        (e->resolved_ns != 0 && now_ns - e->resolved_ns < RESOLVE_AGE_MS * 1000000ULL)) {
        return OK;
    }
    struct net_addr addr;
    if (err_ok(net_addr_from_ip(slice_str(e->host), e->port, &addr))) {
        TRY(open_pool(e, addr));
        e->resolved_ns = UINT64_MAX;
        return OK;
    }
    return net_dns_resolve(e->ups->host->dns, slice_str(e->host), e->port, resolved, e, &e->query);
}

static MUST_CHECK struct err endpoint_key(const struct dp_endpoint *from,
                                          const struct dp_transport *transport, struct buf *out)
{
    TRY(buf_addf(out, "%u|%u|%u|", transport->upstream_tls, transport->connect_timeout_ms,
                 from->port));
    TRY(buf_add(out, from->address));
    TRY(buf_add_str(out, "|"));
    TRY(buf_add(out, transport->upstream_sni));
    TRY(buf_add_str(out, "|"));
    return buf_add(out, transport->upstream_spiffe);
}

/* The endpoint of that address and security, with a reference more. */
static MUST_CHECK struct err endpoint_get(struct op_upstreams *ups, const struct dp_endpoint *from,
                                          const struct dp_transport *transport,
                                          struct op_endpoint **out)
{
    auto_buf struct buf key = BUF_MAX(KEY_MAX);
    TRY(endpoint_key(from, transport, &key));
    struct op_endpoint *e = map_get(&ups->endpoints, buf_slice(&key));
    if (e == NULL) {
        e = calloc(1, sizeof(*e));
        if (e == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        struct slice name =
            transport->upstream_sni.size > 0 ? transport->upstream_sni : from->address;
        e->ups = ups;
        e->key = slice_of(slice_dup(buf_slice(&key)), key.size);
        e->host = slice_dup(from->address);
        e->port = from->port;
        e->security = transport->upstream_tls;
        e->connect_timeout_ms = transport->connect_timeout_ms;
        e->server_name = slice_dup(name);
        e->spiffe_id = slice_dup(transport->upstream_spiffe);
        (void)snprintf(e->text, sizeof(e->text), "%.60s:%u", e->host, e->port);
        struct err err = map_put(&ups->endpoints, e->key, e, /* out_old: */ NULL);
        if (!err_ok(err)) {
            endpoint_free(e);
            return err;
        }
    }
    e->refs++;
    *out = e;
    return OK;
}

void op_endpoint_report(struct op_endpoint *endpoint, bool reached)
{
    if (reached) {
        endpoint->failed_ms = 0;
        endpoint->failed_until_ns = 0;
        return;
    }
    uint64_t now_ns = net_loop_now_ns(endpoint->ups->host->loop);
    if (endpoint->failed_until_ns > now_ns) {
        return; /* one failure, however many waited for the connection. */
    }
    uint32_t ms = endpoint->failed_ms == 0 ? FAILED_FIRST_MS : endpoint->failed_ms * 2;
    endpoint->failed_ms = ms > FAILED_MAX_MS ? FAILED_MAX_MS : ms;
    endpoint->failed_until_ns = now_ns + endpoint->failed_ms * 1000000ULL;
}

void op_attempt_begin(struct op_endpoint *endpoint)
{
    endpoint->refs++;
}

void op_attempt_end(struct op_endpoint *endpoint, const struct op_outcome *how)
{
    if (how->end == OP_END_ANSWERED) {
        op_endpoint_report(endpoint, /* reached: */ true);
    }
    endpoint->refs--;
}

struct slice op_endpoint_text(const struct op_endpoint *endpoint)
{
    return slice_str(endpoint->text);
}

/* ---- balances ---- */

static void balance_clear(struct balance *b)
{
    for (size_t i = 0; i < b->count; i++) {
        b->endpoints[i]->refs--;
    }
    free(b->endpoints);
    free(b->weights);
    b->endpoints = NULL;
    b->weights = NULL;
    b->count = 0;
    b->weight_sum = 0;
}

static void balance_free(struct balance *b)
{
    balance_clear(b);
    slice_free(b->id);
    free(b);
}

static uint64_t common_factor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Steps of about the golden section meet every place once a round, and neighbours far apart: an
 * endpoint of weight 9 beside one of weight 1 does not get its nine calls in a row. */
static uint64_t stride_of(uint64_t sum)
{
    uint64_t stride = sum * 618 / 1000 + 1;
    while (sum > 0 && common_factor(stride, sum) != 1) {
        stride++;
    }
    return stride;
}

static MUST_CHECK struct err balance_fill(struct op_upstreams *ups, struct balance *b,
                                          const struct dp_cluster *cluster,
                                          const struct dp_transport *transport)
{
    balance_clear(b);
    b->endpoints = calloc(cluster->endpoint_count + 1, sizeof(struct op_endpoint *));
    b->weights = calloc(cluster->endpoint_count + 1, sizeof(*b->weights));
    if (b->endpoints == NULL || b->weights == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < cluster->endpoint_count; i++) {
        TRY(endpoint_get(ups, &cluster->endpoints[i], transport, &b->endpoints[i]));
        b->weights[i] = cluster->endpoints[i].weight;
        b->weight_sum += b->weights[i];
        b->count = i + 1;
    }
    b->stride = stride_of(b->weight_sum);
    return OK;
}

/* A cluster has one balance for each transport that routes to it ask for. */
static MUST_CHECK struct err balance_id(const struct dp_cluster *cluster,
                                        const struct dp_transport *transport, uint8_t room[KEY_MAX],
                                        struct slice *out)
{
    struct slice id = cluster->target.id;
    if (slice_eq(transport->id, cluster->transport)) {
        *out = id;
        return OK;
    }
    if (id.size + 1 + transport->id.size > KEY_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    (void)memcpy(room, id.ptr, id.size);
    room[id.size] = ' ';
    (void)memcpy(room + id.size + 1, transport->id.ptr, transport->id.size);
    *out = slice_of(room, id.size + 1 + transport->id.size);
    return OK;
}

static MUST_CHECK struct err balance_get(struct op_upstreams *ups, const struct dp_cluster *cluster,
                                         const struct dp_transport *transport, uint64_t version,
                                         struct balance **out)
{
    uint8_t room[KEY_MAX];
    struct slice id = {0};
    TRY(balance_id(cluster, transport, room, &id));
    struct balance *b = map_get(&ups->balances, id);
    if (b == NULL) {
        b = calloc(1, sizeof(*b));
        if (b == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        b->id = slice_of(slice_dup(id), id.size);
        struct err err = map_put(&ups->balances, b->id, b, /* out_old: */ NULL);
        if (!err_ok(err)) {
            balance_free(b);
            return err;
        }
    }
    if (b->version != version) {
        b->version = 0; /* of none, should it stay half filled. */
        TRY(balance_fill(ups, b, cluster, transport));
        b->version = version;
    }
    *out = b;
    return OK;
}

/* The endpoint whose share of the weights the turn falls into. */
static size_t by_weight(const struct balance *b, uint64_t turn)
{
    uint64_t at = turn % b->weight_sum * b->stride % b->weight_sum;
    size_t i = 0;
    while (at >= b->weights[i]) {
        at -= b->weights[i++];
    }
    CHECK(i < b->count);
    return i;
}

/* The first from its turn on that is well; else the first that failed of late: better to try than
 * to refuse. Endpoints that were tried are left out. */
static size_t first_untried(const struct balance *b, const struct op_tries *tries, uint64_t now_ns)
{
    size_t first = by_weight(b, tries->turn);
    size_t failed = b->count;
    for (size_t i = 0; i < b->count; i++) {
        size_t at = (first + i) % b->count;
        if ((tries->tried >> at % TRIED_BITS & 1) != 0) {
            continue;
        }
        if (b->endpoints[at]->failed_until_ns <= now_ns) {
            return at;
        }
        failed = failed == b->count ? at : failed;
    }
    return failed;
}

struct err op_upstreams_pick(struct op_upstreams *ups, const struct dp_request *rq,
                             struct op_tries *tries, struct op_endpoint **out)
{
    struct balance *b = NULL;
    uint64_t version = dp_model_version(rq->model);
    if (version > ups->version) {
        ups->version = version;
    }
    TRY(balance_get(ups, rq->cluster, rq->transport, version, &b));
    if (b->count == 0) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    if (tries->turn == 0) {
        tries->turn = ++b->turn;
    }
    size_t at = first_untried(b, tries, net_loop_now_ns(ups->host->loop));
    if (at == b->count) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    tries->tried |= UINT64_C(1) << at % TRIED_BITS;
    *out = b->endpoints[at];
    return OK;
}

/* ---- waits ---- */

static void pool_ready(struct h2_pool_wait *pool_wait, struct h2_conn *conn, struct err why)
{
    struct op_wait *wait = pool_wait->ctx;
    struct op_endpoint *e = wait->endpoint;
    CHECK(e != NULL);
    wait->endpoint = NULL;
    wait->ready(wait, conn, why);
    e->refs--;
}

struct err op_wait_start(struct op_wait *wait, struct op_endpoint *endpoint, uint64_t timeout_ms,
                         struct h2_conn **out)
{
    CHECK(wait->endpoint == NULL);
    *out = NULL;
    wait->pool_wait = (struct h2_pool_wait){.ready = pool_ready, .ctx = wait};
    TRY(refresh(endpoint));
    if (endpoint->pool != NULL) {
        TRY(h2_pool_acquire(endpoint->pool, &wait->pool_wait, timeout_ms, out));
        if (*out != NULL) {
            return OK;
        }
    } else {
        wait->until_ns = net_loop_now_ns(endpoint->ups->host->loop) + timeout_ms * 1000000;
        line_add(endpoint, wait);
    }
    wait->endpoint = endpoint;
    endpoint->refs++;
    return OK;
}

void op_wait_cancel(struct op_wait *wait)
{
    struct op_endpoint *e = wait->endpoint;
    if (e == NULL) {
        return;
    }
    if (wait->pool_wait.pool != NULL) {
        h2_pool_cancel(&wait->pool_wait);
    } else if (wait->at != NULL) {
        line_remove(wait);
    }
    wait->endpoint = NULL;
    e->refs--;
}

/* ---- peers that do not stand any more ---- */

static bool stands(void *ctx, struct net_conn *conn)
{
    const struct op_upstreams *ups = ctx;
    const struct dp_model *model = dp_request_pool_model(ups->host->requests);
    if (model != NULL && dp_model_peer_revoked(model, net_conn_identity(conn))) {
        return false;
    }
    return !ups->looks_at_trust || ups->host->tls == NULL ||
           net_conn_peer_trusted(conn, ups->host->tls);
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
    ups->looks_at_trust = ups->looks_at_trust || trust;
    if (ups->looks) {
        ups->looks_again = true; /* swaps in a row leave nobody out. */
        return;
    }
    ups->looks = true;
    h2_pools_look_begin(ups->pools);
    net_timer_arm(ups->host->loop, &ups->look_timer, 1);
}

/* ---- what nobody uses any more ---- */

static void sweep_balances(struct op_upstreams *ups, bool all)
{
    size_t at = 0;
    const struct map_entry *entry = map_next(&ups->balances, &at);
    while (entry != NULL) {
        struct balance *b = entry->value;
        if (all || b->version != ups->version) {
            (void)map_remove(&ups->balances, b->id);
            balance_free(b);
            at = 0; /* removal moves entries. */
        }
        entry = map_next(&ups->balances, &at);
    }
}

static void sweep_endpoints(struct op_upstreams *ups)
{
    size_t at = 0;
    const struct map_entry *entry = map_next(&ups->endpoints, &at);
    while (entry != NULL) {
        struct op_endpoint *e = entry->value;
        if (e->refs == 0) {
            (void)map_remove(&ups->endpoints, e->key);
            endpoint_free(e);
            at = 0;
        }
        entry = map_next(&ups->endpoints, &at);
    }
}

/* A balance of an older snapshot is made anew when it is asked for; its endpoints live on in it. */
static void sweep(struct net_timer *timer, void *ctx)
{
    struct op_upstreams *ups = ctx;
    sweep_balances(ups, /* all: */ false);
    sweep_endpoints(ups);
    net_timer_arm(ups->host->loop, timer, SWEEP_MS);
}

void op_upstreams_free(struct op_upstreams *ups)
{
    if (ups == NULL) {
        return;
    }
    net_timer_cancel(ups->host->loop, &ups->sweep_timer);
    net_timer_cancel(ups->host->loop, &ups->look_timer);
    sweep_balances(ups, /* all: */ true);
    sweep_endpoints(ups);
    CHECK(ups->endpoints.count == 0);
    map_free(&ups->balances);
    map_free(&ups->endpoints);
    h2_pools_free(ups->pools);
    free(ups);
}
