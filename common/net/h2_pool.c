/*
 * A worker's connections to upstreams: who gets which, when another is opened, who waits.
 *
 * A link is one connection of a pool. Requests that wait are served by a hook at the end of a
 * turn, so that nobody's request is made from inside another's event.
 */
#include "common/net/h2_pool.h"

#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/net/conn.h"
#include "common/net/h2_impl.h"
#include "common/net/loop.h"

/* How long no connection is opened behind one that failed, where others are there. */
enum { REST_MS = 1000 };

struct pool_link {
    struct h2_pool *pool;
    struct h2_conn *conn;
    struct pool_link *next;     /* oldest first: the older are filled first, the newer idle out. */
    struct pool_link *all_next; /* of all pools. */
    struct pool_link *all_prev;
    struct net_timer idle;
    struct net_timer age; /* armed from when it opened until it is old. */
    uint64_t used_ms;     /* when it last got a request. */
    bool opened;
    bool served; /* it got a request since it opened. */
    bool judged; /* its peer does not stand any more: it ends when 'idle' runs. */
};

struct h2_pool {
    struct h2_pools *pools;
    struct h2_target target;
    struct slice key; /* owned: what the map of pools finds it by. */
    struct pool_link *links;
    struct h2_pool_wait *first; /* who waits, in order. */
    struct h2_pool_wait *last;
    struct net_hook hook; /* serves who waits. */
    size_t references;
    struct h2_pool_stats stats; /* 'streams' and 'leaving' are counted when asked for. */
    uint32_t peer_streams;      /* that the peer takes on a connection, as it said last. */
    struct net_timer rest;      /* armed: no connection is opened beside those there are. */
    uint32_t header_bytes;      /* h2_conn_header_bytes() of the connection that said so last. */
    struct err why;             /* of the last connection that served nobody. */
    bool closing;
};

struct h2_pools {
    struct h2_env *env;
    struct net_loop *loop;
    struct map by_key;
    h2_pool_judge_fn *judge; /* NULL: every peer is fine. */
    void *judge_ctx;
    struct pool_link *all;  /* newest first. */
    struct pool_link *look; /* the next to be asked of. */
    size_t count;           /* pools alive, those that drain counted. */
    size_t open;            /* connections. */
    bool freed;             /* goes with its last pool. */
};

static uint64_t now_ms(const struct h2_pool *pool)
{
    return net_loop_now_ns(pool->pools->loop) / 1000000;
}

/* ---- waiting ---- */

static void wait_remove(struct h2_pool_wait *wait)
{
    struct h2_pool *pool = wait->pool;
    CHECK(pool->stats.pending > 0);
    *(wait->prev == NULL ? &pool->first : &wait->prev->next) = wait->next;
    *(wait->next == NULL ? &pool->last : &wait->next->prev) = wait->prev;
    pool->stats.pending--;
    net_timer_cancel(pool->pools->loop, &wait->timer);
    wait->pool = NULL;
    wait->next = NULL;
    wait->prev = NULL;
}

static void wait_expired(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct h2_pool_wait *wait = ctx;
    wait->pool->stats.pending_expired++;
    wait_remove(wait);
    wait->ready(wait, /* conn= */ NULL, FAIL(E_DEADLINE_EXCEEDED));
}

static void wait_add(struct h2_pool *pool, struct h2_pool_wait *wait, uint64_t timeout_ms)
{
    wait->pool = pool;
    wait->next = NULL;
    wait->prev = pool->last;
    *(pool->last == NULL ? &pool->first : &pool->last->next) = wait;
    pool->last = wait;
    pool->stats.pending++;
    net_timer_init(&wait->timer, wait_expired, wait);
    net_timer_arm(pool->pools->loop, &wait->timer, timeout_ms);
}

static void fail_waiting(struct h2_pool *pool, struct err why)
{
    /* Only those that wait now: whoever is failed may wait anew. */
    for (size_t left = pool->stats.pending; left > 0 && pool->first != NULL; left--) {
        struct h2_pool_wait *wait = pool->first;
        wait_remove(wait);
        wait->ready(wait, /* conn= */ NULL, why);
    }
}

/* ---- the end of a pool ---- */

static void target_clear(struct h2_target *target)
{
    net_tls_unref(target->tls);
    slice_free(target->server_name);
    slice_free(target->spiffe_id);
}

static void pools_release(struct h2_pools *pools)
{
    if (pools->freed && pools->count == 0) {
        map_free(&pools->by_key);
        free(pools);
    }
}

static void pool_maybe_free(struct h2_pool *pool)
{
    if (!pool->closing || pool->references > 0 || pool->links != NULL || pool->first != NULL) {
        return;
    }
    struct h2_pools *pools = pool->pools;
    net_hook_cancel(pools->loop, &pool->hook);
    net_timer_cancel(pools->loop, &pool->rest);
    target_clear(&pool->target);
    slice_free(pool->key);
    free(pool);
    CHECK(pools->count > 0);
    pools->count--;
    pools_release(pools);
}

static void pool_close(struct h2_pool *pool)
{
    if (pool->closing) {
        return;
    }
    pool->closing = true;
    (void)map_remove(&pool->pools->by_key, pool->key);
    fail_waiting(pool, FAIL(E_DRAINING));
    for (struct pool_link *link = pool->links; link != NULL; link = link->next) {
        h2_conn_drain(link->conn);
    }
}

/* ---- links ---- */

static void serve_soon(struct h2_pool *pool)
{
    if (pool->first != NULL) {
        net_hook_queue(pool->pools->loop, &pool->hook);
    }
}

static bool link_stands(const struct pool_link *link)
{
    const struct h2_pools *pools = link->pool->pools;
    return pools->judge == NULL ||
           pools->judge(pools->judge_ctx, h2_conn_net(link->conn), /* opens= */ !link->opened);
}

/* ---- connections that take no more ---- */

static size_t links_leaving(const struct h2_pool *pool)
{
    size_t count = 0;
    for (const struct pool_link *link = pool->links; link != NULL; link = link->next) {
        count += h2_conn_leaving(link->conn) ? 1 : 0;
    }
    return count;
}

/* Whether those who wait have nothing left to hope for. */
static bool is_forlorn(const struct h2_pool *pool)
{
    return links_leaving(pool) == pool->stats.connections;
}

static uint64_t connections_max(const struct h2_pool *pool)
{
    uint64_t max = pool->target.connections_max;
    return max == 0 || max > limits.upstream_connections ? limits.upstream_connections : max;
}

/* Spread over a fifth, so that those that opened together do not open anew together. */
static uint64_t age_max_ms(const struct h2_pool *pool)
{
    uint64_t draw = 0;
    uint64_t tenth = pool->target.max_age_ms / 10;
    ids_quick(&draw, sizeof(draw));
    return pool->target.max_age_ms - tenth + draw % (2 * tenth + 1);
}

/* Whether one more may be opened: beside those that leave, so that nobody waits for the end of
 * their requests. Of these as many count for nothing as there may be others, however long the
 * requests last. */
static bool may_open(const struct h2_pool *pool)
{
    uint64_t max = connections_max(pool);
    uint64_t leaving = links_leaving(pool);
    return pool->stats.connections - (leaving < max ? leaving : max) < max;
}

/* ---- growing old ---- */

/* As many grow old as there may be others. */
static void too_old(struct net_timer *timer, void *ctx)
{
    struct pool_link *link = ctx;
    struct h2_pool *pool = link->pool;
    if (h2_conn_leaving(link->conn)) {
        return;
    }
    if (links_leaving(pool) >= connections_max(pool) && h2_conn_streams(link->conn) > 0) {
        net_timer_arm(pool->pools->loop, timer, age_max_ms(pool));
        return;
    }
    pool->pools->env->counters.connections_aged++;
    h2_conn_drain(link->conn);
    serve_soon(pool);
}

static void start_ageing(struct pool_link *link)
{
    if (link->pool->target.max_age_ms != 0) {
        net_timer_arm(link->pool->pools->loop, &link->age, age_max_ms(link->pool));
    }
}

/* ---- what a link's connection says ---- */

static void link_ready(struct h2_conn *conn)
{
    struct pool_link *link = h2_conn_user(conn);
    struct h2_pool *pool = link->pool;
    CHECK(!link->opened);
    CHECK(pool->stats.connecting > 0);
    if (!link_stands(link)) {
        h2_conn_close(conn, H2_NO_ERROR, FAIL(E_UNAUTHENTICATED)); /* as one that never opened. */
        return;
    }
    link->opened = true;
    pool->stats.connecting--;
    pool->pools->open++;
    start_ageing(link);
    if (pool->closing) {
        h2_conn_drain(conn);
    }
    serve_soon(pool);
}

/* It has room again, or leaves. What it says of its streams holds for the next ones, too, until
 * they have said so themselves: what would be one too many would only be refused. */
static void link_changed(struct h2_conn *conn)
{
    struct pool_link *link = h2_conn_user(conn);
    (void)h2_conn_peer_streams(conn, &link->pool->peer_streams);
    link->pool->header_bytes = h2_conn_header_bytes(conn);
    serve_soon(link->pool);
}

static void link_remove(struct pool_link *link)
{
    struct pool_link **at = &link->pool->links;
    while (*at != link) {
        at = &(*at)->next;
    }
    *at = link->next;
    link->pool->stats.connections--;
    struct h2_pools *pools = link->pool->pools;
    pools->look = pools->look == link ? link->all_next : pools->look;
    *(link->all_prev == NULL ? &pools->all : &link->all_prev->all_next) = link->all_next;
    if (link->all_next != NULL) {
        link->all_next->all_prev = link->all_prev;
    }
}

static void link_list(struct pool_link *link)
{
    struct h2_pools *pools = link->pool->pools;
    link->all_next = pools->all;
    if (link->all_next != NULL) {
        link->all_next->all_prev = link;
    }
    pools->all = link;
}

/* Asking for another connection at once would go round in circles, where there are some left. */
static void rest(struct h2_pool *pool)
{
    net_timer_arm(pool->pools->loop, &pool->rest, REST_MS);
}

static void rest_is_over(struct net_timer *timer, void *ctx)
{
    (void)timer;
    serve_soon(ctx);
}

/*
 * A connection that ended before it did anything is a failure to connect. Who waits is failed
 * unless other links are left to hope for.
 */
static void link_closed(struct h2_conn *conn, struct err why)
{
    struct pool_link *link = h2_conn_user(conn);
    struct h2_pool *pool = h2_pool_ref(link->pool); /* whoever is failed may give up the last. */
    bool failed = !link->opened || (!link->served && pool->first != NULL);
    if (link->opened) {
        CHECK(pool->pools->open > 0);
        pool->pools->open--;
    } else {
        pool->stats.connecting--;
    }
    link_remove(link);
    net_timer_cancel(pool->pools->loop, &link->idle);
    net_timer_cancel(pool->pools->loop, &link->age);
    free(link);
    if (failed && !pool->closing) {
        pool->stats.connect_failed++;
        pool->why = err_ok(why) ? FAIL(E_CLOSED) : why;
        if (is_forlorn(pool)) {
            fail_waiting(pool, FAIL(E_UPSTREAM_CONNECT));
        } else {
            rest(pool);
        }
    }
    serve_soon(pool);
    h2_pool_unref(pool);
}

static const struct h2_conn_events link_events = {
    .ready = link_ready, .room = link_changed, .draining = link_changed, .closed = link_closed};

/* Armed anew when it runs, not with each request. */
static void link_idle(struct net_timer *timer, void *ctx)
{
    struct pool_link *link = ctx;
    struct net_loop *loop = link->pool->pools->loop;
    if (link->judged) {
        h2_conn_close(link->conn, H2_CANCEL, FAIL(E_UNAUTHENTICATED));
        return;
    }
    uint64_t unused_ms = now_ms(link->pool) - link->used_ms;
    if (h2_conn_streams(link->conn) > 0) {
        unused_ms = 0;
    }
    if (unused_ms < limits.upstream_idle_ms) {
        net_timer_arm(loop, timer, limits.upstream_idle_ms - unused_ms);
        return;
    }
    h2_conn_drain(link->conn);
}

static struct err link_dial(struct h2_pool *pool, struct pool_link *link)
{
    struct net_conn *net = NULL;
    TRY(net_dial(pool->pools->loop,
                 &(struct net_dial_options){.addr = &pool->target.addr,
                                            .timeout_ms = pool->target.connect_timeout_ms,
                                            .tls = pool->target.tls,
                                            .server_name = pool->target.server_name,
                                            .spiffe_id = pool->target.spiffe_id,
                                            .terms = pool->target.terms},
                 &net));
    TRY(h2_client_new(pool->pools->env, &net, &link_events, link, &link->conn));
    h2_conn_assume_streams(link->conn, pool->peer_streams);
    h2_conn_set_header_bytes(link->conn, pool->header_bytes);
    return OK;
}

static struct err link_new(struct h2_pool *pool)
{
    struct pool_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    link->pool = pool;
    link->used_ms = now_ms(pool);
    struct err e = link_dial(pool, link);
    if (!err_ok(e)) {
        free(link);
        return e;
    }
    struct pool_link **at = &pool->links;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = link;
    link_list(link);
    pool->stats.connections++;
    pool->stats.connecting++;
    pool->stats.opened++;
    net_timer_init(&link->idle, link_idle, link);
    net_timer_init(&link->age, too_old, link);
    net_timer_arm(pool->pools->loop, &link->idle, limits.upstream_idle_ms);
    return OK;
}

/* ---- picking ---- */

/* Silence is no proof of life: such a link is asked first, and has no room until it answered. */
static bool link_is_fresh(struct h2_pool *pool, struct pool_link *link, uint64_t now)
{
    if (now - h2_conn_heard_ms(link->conn) < limits.upstream_probe_after_ms) {
        return true;
    }
    pool->stats.probes++;
    h2_conn_probe(link->conn, limits.upstream_probe_ms);
    return false;
}

/* The oldest that is less than half full, so that few are in use; else the least loaded. */
static struct pool_link *pick(struct h2_pool *pool)
{
    uint64_t now = now_ms(pool);
    struct pool_link *best = NULL;
    for (struct pool_link *link = pool->links; link != NULL; link = link->next) {
        if (!link->opened || h2_conn_room(link->conn) == 0 || !link_is_fresh(pool, link, now)) {
            continue;
        }
        if (h2_conn_streams(link->conn) < h2_conn_room(link->conn)) {
            best = link;
            break;
        }
        if (best == NULL || h2_conn_streams(link->conn) < h2_conn_streams(best->conn)) {
            best = link;
        }
    }
    if (best != NULL) {
        best->used_ms = now;
        best->served = true;
    }
    return best;
}

/* How many requests those hold that may soon have room: they connect, or are asked. */
static uint64_t room_coming(const struct h2_pool *pool)
{
    uint64_t count = pool->stats.connecting;
    for (const struct pool_link *link = pool->links; link != NULL; link = link->next) {
        count += h2_conn_probing(link->conn) && !h2_conn_leaving(link->conn) ? 1 : 0;
    }
    uint64_t each = pool->peer_streams == 0 ? 1 : pool->peer_streams;
    return count * (each < limits.upstream_streams ? each : limits.upstream_streams);
}

/* Opens the next connection, when those that connect or are asked cannot hold all who wait. */
static struct err connect_more(struct h2_pool *pool)
{
    bool rests = net_timer_armed(&pool->rest) && !is_forlorn(pool);
    if (rests || pool->stats.pending <= room_coming(pool) || !may_open(pool)) {
        return OK;
    }
    if (pool->peer_streams == 0) {
        rest(pool); /* who takes nothing is not asked by many connections at once. */
    }
    return link_new(pool);
}

static void serve(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct h2_pool *pool = h2_pool_ref(ctx); /* who waits may let go of the last other one. */
    while (pool->first != NULL) {            /* each turn takes one off the line. */
        struct pool_link *link = pick(pool);
        if (link == NULL) {
            break;
        }
        struct h2_pool_wait *wait = pool->first;
        wait_remove(wait);
        wait->ready(wait, link->conn, OK);
    }
    struct err more = pool->first == NULL ? OK : connect_more(pool);
    if (!err_ok(more) && is_forlorn(pool)) {
        pool->why = more;
        fail_waiting(pool, FAIL(E_UPSTREAM_CONNECT));
    }
    h2_pool_unref(pool);
}

struct err h2_pool_acquire(struct h2_pool *pool, struct h2_pool_wait *wait, uint64_t timeout_ms,
                           struct h2_conn **out)
{
    CHECK(wait->pool == NULL);
    CHECK(wait->ready != NULL);
    if (pool->closing) {
        return FAIL(E_DRAINING);
    }
    struct pool_link *link = pool->first == NULL ? pick(pool) : NULL;
    if (link != NULL) {
        *out = link->conn;
        return OK;
    }
    if (pool->stats.pending >= limits.upstream_pending) {
        pool->stats.pending_refused++;
        return FAIL(E_QUEUE_FULL);
    }
    wait_add(pool, wait, timeout_ms);
    struct err e = connect_more(pool);
    if (!err_ok(e) && is_forlorn(pool)) {
        wait_remove(wait);
        pool->why = e;
        return FAIL(e.code == E_NO_MEMORY ? E_NO_MEMORY : E_UPSTREAM_CONNECT);
    }
    *out = NULL;
    return OK;
}

void h2_pool_cancel(struct h2_pool_wait *wait)
{
    if (wait->pool == NULL) {
        return;
    }
    wait_remove(wait);
}

/* ---- peers that do not stand any more ---- */

void h2_pools_set_judge(struct h2_pools *pools, h2_pool_judge_fn *judge, void *ctx)
{
    pools->judge = judge;
    pools->judge_ctx = ctx;
}

void h2_pools_look_begin(struct h2_pools *pools)
{
    pools->look = pools->all;
}

bool h2_pools_look(struct h2_pools *pools, size_t max)
{
    for (size_t i = 0; i < max && pools->look != NULL; i++) {
        struct pool_link *link = pools->look;
        pools->look = link->all_next;
        if (!link->opened || link->judged || link_stands(link)) {
            continue;
        }
        link->judged = true;
        h2_conn_drain(link->conn);
        net_timer_arm(pools->loop, &link->idle, H2_POOL_END_MS);
    }
    return pools->look != NULL;
}

/* ---- pools ---- */

struct err h2_pools_new(struct h2_env *env, struct net_loop *loop, struct h2_pools **out)
{
    struct h2_pools *pools = calloc(1, sizeof(*pools));
    if (pools == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    pools->env = env;
    pools->loop = loop;
    *out = pools;
    return OK;
}

void h2_pools_free(struct h2_pools *pools)
{
    if (pools == NULL) {
        return;
    }
    pools->freed = true;
    pools->count++; /* holds them until the walk is over. */
    size_t at = 0;
    for (const struct map_entry *e = map_next(&pools->by_key, &at); e != NULL;
         at = 0, e = map_next(&pools->by_key, &at)) {
        struct h2_pool *pool = e->value;
        pool_close(pool); /* takes it out of the map. */
        for (struct pool_link *link = pool->links; link != NULL; link = link->next) {
            h2_conn_close(link->conn, H2_CANCEL, FAIL(E_DRAINING));
        }
        pool_maybe_free(pool);
    }
    pools->count--;
    pools_release(pools);
}

size_t h2_pools_open(const struct h2_pools *pools)
{
    return pools->open;
}

static struct err key_add_sized(struct buf *key, struct slice bytes)
{
    uint64_t size = bytes.size;
    TRY(buf_add(key, slice_of(&size, sizeof(size))));
    return buf_add(key, bytes);
}

static struct err key_add_addr(struct buf *key, const struct net_addr *addr)
{
    TRY(buf_add(key, slice_of(&addr->sa.any.sa_family, sizeof(addr->sa.any.sa_family))));
    if (addr->sa.any.sa_family == AF_INET) {
        TRY(buf_add(key, slice_of(&addr->sa.v4.sin_port, sizeof(addr->sa.v4.sin_port))));
        return buf_add(key, slice_of(&addr->sa.v4.sin_addr, sizeof(addr->sa.v4.sin_addr)));
    }
    TRY(buf_add(key, slice_of(&addr->sa.v6.sin6_port, sizeof(addr->sa.v6.sin6_port))));
    TRY(buf_add(key, slice_of(&addr->sa.v6.sin6_scope_id, sizeof(addr->sa.v6.sin6_scope_id))));
    return buf_add(key, slice_of(&addr->sa.v6.sin6_addr, sizeof(addr->sa.v6.sin6_addr)));
}

/* Everything that two requests must share to share a connection, and nothing else. */
static struct err key_make(const struct h2_target *target, struct buf *key)
{
    TRY(key_add_addr(key, &target->addr));
    const uint8_t versions[] = {(uint8_t)target->terms.version_min,
                                (uint8_t)target->terms.version_max};
    TRY(buf_add(key, slice_of(&target->tls, sizeof(struct net_tls *))));
    TRY(buf_add(key, slice_of(versions, sizeof(versions))));
    TRY(buf_add(key, slice_of(&target->connect_timeout_ms, sizeof(target->connect_timeout_ms))));
    TRY(buf_add(key, slice_of(&target->connections_max, sizeof(target->connections_max))));
    TRY(buf_add(key, slice_of(&target->max_age_ms, sizeof(target->max_age_ms))));
    TRY(key_add_sized(key, target->server_name));
    return key_add_sized(key, target->spiffe_id);
}

static struct slice slice_owned(struct slice s)
{
    return slice_of(s.size == 0 ? NULL : slice_dup(s), s.size);
}

/* Keys and names are bounded by what a snapshot may say; this bounds them once more. */
enum { KEY_BYTES_MAX = 16 << 10 };

static struct err pool_new(struct h2_pools *pools, const struct h2_target *target, struct slice key,
                           struct h2_pool **out)
{
    struct h2_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    pool->key = slice_owned(key);
    pool->header_bytes = UINT32_MAX;
    struct err e = map_put(&pools->by_key, pool->key, pool, /* out_old= */ NULL);
    if (!err_ok(e)) {
        slice_free(pool->key);
        free(pool);
        return e;
    }
    pool->pools = pools;
    pool->target.addr = target->addr;
    pool->target.tls = target->tls == NULL ? NULL : net_tls_ref(target->tls);
    pool->target.server_name = slice_owned(target->server_name);
    pool->target.spiffe_id = slice_owned(target->spiffe_id);
    pool->target.connect_timeout_ms = target->connect_timeout_ms;
    pool->target.connections_max = target->connections_max;
    pool->target.max_age_ms = target->max_age_ms;
    pool->target.terms = target->terms;
    pool->peer_streams = UINT32_MAX;
    net_hook_init(&pool->hook, NET_HOOK_WORK, serve, pool);
    net_timer_init(&pool->rest, rest_is_over, pool);
    pools->count++;
    *out = pool;
    return OK;
}

struct err h2_pools_get(struct h2_pools *pools, const struct h2_target *target,
                        struct h2_pool **out)
{
    CHECK(!pools->freed);
    auto_buf struct buf key = BUF_MAX(KEY_BYTES_MAX);
    TRY(key_make(target, &key));
    struct h2_pool *pool = map_get(&pools->by_key, buf_slice(&key));
    if (pool == NULL) {
        TRY(pool_new(pools, target, buf_slice(&key), &pool));
    }
    *out = h2_pool_ref(pool);
    return OK;
}

struct h2_pool *h2_pool_ref(struct h2_pool *pool)
{
    pool->references++;
    return pool;
}

void h2_pool_unref(struct h2_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    CHECK(pool->references > 0);
    pool->references--;
    if (pool->references == 0) {
        pool_close(pool);
        pool_maybe_free(pool);
    }
}

struct err h2_pool_why(const struct h2_pool *pool)
{
    return pool->why;
}

bool h2_pool_connected(const struct h2_pool *pool)
{
    const struct pool_link *link = pool->links;
    while (link != NULL &&
           (!link->opened || h2_conn_leaving(link->conn) || h2_conn_probing(link->conn))) {
        link = link->next;
    }
    return link != NULL;
}

void h2_pool_stats(const struct h2_pool *pool, struct h2_pool_stats *out)
{
    *out = pool->stats;
    out->leaving = links_leaving(pool);
    for (const struct pool_link *link = pool->links; link != NULL; link = link->next) {
        out->streams += h2_conn_streams(link->conn);
    }
}

const struct h2_target *h2_pool_target(const struct h2_pool *pool)
{
    return &pool->target;
}
