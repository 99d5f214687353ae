/* worker: see worker.h. */
#include "dataplane/runtime/worker.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/net/dns.h"
#include "common/net/listener.h"
#include "common/net/tls.h"
#include "dataplane/request/access.h"
#include "dataplane/request/degraded.h"
#include "dataplane/request/metrics.h"
#include "dataplane/runtime/health.h"
#include "dataplane/runtime/spread.h"

/* How often lines of the access log are handed over and gauges are set. */
enum { TICK_MS = 100 };

/* Names of services that miss their SLA. */
enum { DEGRADED_BLOCK = 1 << 10, DEGRADED_MAX_BYTES = DP_DEGRADED_MAX * 512 };

static void tick(struct net_timer *timer, void *ctx);
static void model_arrived(struct net_task *task, void *ctx);
static void tell_adopted(struct net_hook *hook, void *ctx);
static void sockets_arrived(struct net_task *task, void *ctx);
static void do_drain(struct net_task *task, void *ctx);
static void do_abort(struct net_task *task, void *ctx);
static void do_close(struct net_task *task, void *ctx);
static void do_reload(struct net_task *task, void *ctx);

void dp_worker_tls_unref(struct dp_worker_tls *tls)
{
    net_tls_unref(tls->server);
    net_tls_unref(tls->proxy);
    net_tls_unref(tls->client);
    net_tls_unref(tls->client_cert);
    *tls = (struct dp_worker_tls){0};
}

/* ---- making ---- */

static struct err init_loop(struct dp_worker *w)
{
    TRY(net_loop_new(&w->loop));
    net_loop_set_pause(w->loop, limits.turn_pause_us);
    net_loop_set_busy_pause(w->loop, limits.busy_pause_us);
    TRY(h2_env_new(w->loop, &w->h2));
    TRY(net_dns_new(w->loop, w->config->dns_servers, &w->dns));
    dp_mailbox_init(&w->mailbox, w->loop, model_arrived, w);
    w->mailbox_ready = true;
    w->drain_task = (struct net_task){.fn = do_drain, .ctx = w};
    w->abort_task = (struct net_task){.fn = do_abort, .ctx = w};
    w->close_task = (struct net_task){.fn = do_close, .ctx = w};
    w->reload_task = (struct net_task){.fn = do_reload, .ctx = w};
    net_timer_init(&w->tick, tick, w);
    net_hook_init(&w->tell, NET_HOOK_REST, tell_adopted, w);
    dp_peers_init(w);
    return OK;
}

static struct err init_pool(struct dp_worker *w)
{
    const struct dp_worker_config *c = w->config;
    w->shard = metrics_shard(c->metrics, w->index);
    TRY(dp_request_metrics_new(c->metrics, w->shard, &w->metrics));
    if (c->access != NULL) {
        TRY(dp_access_log_new(c->access, &w->access));
    }
    TRY(dp_refusals_new((size_t)limits.explain_entries, &w->refusals));
    TRY(dp_request_pool_init(&w->pool, w->loop, c->limits, w->access, w->metrics));
    w->pool.refusals = w->refusals;
    w->pool_ready = true;
    return OK;
}

static struct net_tls *port_tls(const struct dp_worker *w, enum dp_port_id id)
{
    return dp_port_is_proxy(id) ? w->tls.proxy : w->tls.server;
}

static void use_tls(struct dp_worker *w)
{
    w->host.tls = w->tls.client;
    w->host.mtls = w->tls.client_cert;
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        if (w->ports[i].listener != NULL && dp_port_is_tls(w->ports[i].id)) {
            net_listener_set_tls(w->ports[i].listener, port_tls(w, w->ports[i].id));
        }
    }
}

static struct err init_lanes(struct dp_worker *w)
{
    w->host = (struct dp_lane_host){
        .loop = w->loop,
        .h2 = w->h2,
        .dns = w->dns,
        .metrics = w->metrics,
        .requests = &w->pool,
        .bus = w->config->bus,
        .bus_replicas = w->config->bus_replicas,
        .environment = w->config->environment,
        .listens = w->config->listens,
        .listen_count = w->config->listen_count,
        .board = w->config->board,
        .degraded = w->config->degraded,
        .worker_count = w->config->worker_count,
    };
    use_tls(w);
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        const struct dp_lane *lane = w->config->lanes[i];
        if (lane != NULL) {
            TRY(lane->start(&w->host, &w->pool.lanes[i]));
            w->lane_started[i] = true;
        }
    }
    return OK;
}

struct err dp_worker_init(struct dp_worker *w, const struct dp_worker_config *config, size_t index,
                          struct dp_worker_tls *tls)
{
    *w = (struct dp_worker){
        .config = config,
        .index = index,
        .tls = *tls,
    };
    *tls = (struct dp_worker_tls){0};
    lock_init(&w->reload.lock);
    arena_init(&w->degraded.arena, DEGRADED_BLOCK, DEGRADED_MAX_BYTES);
    TRY(init_loop(w));
    TRY(init_pool(w));
    TRY(init_lanes(w));
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        w->ports[i] = (struct dp_port){.worker = w, .id = (enum dp_port_id)i};
        if (config->port_fds[i] >= 0) {
            TRY(dp_port_open(&w->ports[i], config->port_fds[i], port_tls(w, w->ports[i].id)));
        }
    }
    dp_spread_join(config->spread, index, w->loop, sockets_arrived, w);
    return OK;
}

static void free_lanes(struct dp_worker *w)
{
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        if (w->lane_started[i]) {
            w->config->lanes[i]->stop(w->pool.lanes[i]);
        }
    }
}

void dp_worker_free(struct dp_worker *w)
{
    if (w->config == NULL) {
        return;
    }
    CHECK(!w->running);
    dp_spread_leave(w->config->spread, w->index);
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        net_listener_free(w->ports[i].listener);
    }
    free_lanes(w);
    net_dns_free(w->dns);
    if (w->mailbox_ready) {
        dp_mailbox_free(&w->mailbox);
    }
    dp_issuer_keys_unref(dp_keys_mail_take(&w->keys_mail));
    if (w->pool_ready) {
        dp_request_pool_free(&w->pool);
    }
    if (w->access != NULL) {
        dp_access_log_free(w->access);
    }
    dp_request_metrics_free(w->metrics);
    dp_refusals_free(w->refusals);
    net_loop_free(w->loop);
    h2_env_free(w->h2);
    dp_worker_tls_unref(&w->tls);
    lock_take(&w->reload.lock);
    dp_worker_tls_unref(&w->reload.tls);
    lock_drop(&w->reload.lock);
    lock_free(&w->reload.lock);
    arena_free(&w->degraded.arena);
    *w = (struct dp_worker){0};
}

/* ---- running ---- */

/* The thread that made this one gives way to workers, and what it makes begins so. A wish. */
static void take_policy(const struct dp_worker *w)
{
    const struct sched_param none = {.sched_priority = 0};
    (void)sched_setscheduler(0, w->config->policy, &none);
}

/* On the core of its number among those that the process may use: its caches stay its own. Where
 * there are fewer cores than workers they are left to the kernel; so is what fails. */
static void take_core(const struct dp_worker *w)
{
    cpu_set_t allowed;
    if (!w->config->pin || sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
        (size_t)CPU_COUNT(&allowed) < w->config->worker_count) {
        return;
    }
    size_t left = w->index;
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &allowed) || left-- > 0) {
            continue;
        }
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(i, &own);
        (void)sched_setaffinity(0, sizeof(own), &own);
        return;
    }
}

static void *thread_main(void *ctx)
{
    struct dp_worker *w = ctx;
    take_policy(w);
    take_core(w);
    net_timer_arm(w->loop, &w->tick, TICK_MS);
    net_loop_run(w->loop);
    net_timer_cancel(w->loop, &w->tick);
    net_hook_cancel(w->loop, &w->tell);
    dp_peers_stop(w);
    return NULL;
}

struct err dp_worker_start(struct dp_worker *w)
{
    if (pthread_create(&w->thread, NULL, thread_main, w) != 0) {
        return FAIL(E_IO);
    }
    w->running = true;
    char name[16];
    (void)snprintf(name, sizeof(name), "worker-%zu", w->index);
    (void)pthread_setname_np(w->thread, name);
    return OK;
}

void dp_worker_join(struct dp_worker *w)
{
    if (w->running) {
        dp_mailbox_close(&w->mailbox);
        dp_spread_leave(w->config->spread, w->index);
        net_loop_stop(w->loop);
        CHECK(pthread_join(w->thread, NULL) == 0);
        w->running = false;
    }
}

/* The loop counts by itself; its counts become metrics here, as do those of HTTP/2. */
static void count_floods(struct dp_worker *w)
{
    for (size_t kind = 0; kind < NET_FLOOD_COUNT; kind++) {
        uint64_t now = net_flood_count(w->loop, (enum net_flood)kind);
        struct slice label = slice_str(net_flood_name((enum net_flood)kind));
        if (now > w->floods_counted[kind]) {
            metrics_add(w->shard, metrics_series(w->config->metrics, DP_METRIC_FLOODS, &label),
                        (int64_t)(now - w->floods_counted[kind]));
            w->floods_counted[kind] = now;
        }
    }
}

static void count_h2(struct dp_worker *w)
{
    const struct h2_counters *now = h2_env_counters(w->h2);
    metrics_add(w->shard, metrics_plain(w->config->metrics, DP_METRIC_HEADERS_TOO_LARGE),
                (int64_t)(now->headers_too_large - w->counted.headers_too_large));
    metrics_add(w->shard, metrics_plain(w->config->metrics, DP_METRIC_STREAMS_UNREAD),
                (int64_t)(now->streams_unread - w->counted.streams_unread));
    metrics_add(w->shard, metrics_plain(w->config->metrics, DP_METRIC_UPSTREAM_AGED),
                (int64_t)(now->connections_aged - w->counted.connections_aged));
    w->counted = *now;
}

void dp_worker_count_refused(struct dp_worker *w, const char *why, uint64_t count)
{
    struct slice label = slice_str(why);
    metrics_add(w->shard, metrics_series(w->config->metrics, DP_METRIC_CONNECTIONS_REFUSED, &label),
                (int64_t)count);
}

/* Out of descriptors or memory, callers wait in the kernel's queue until accepting goes on. */
static void count_rests(struct dp_worker *w)
{
    uint64_t rests = 0;
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        if (w->ports[i].listener != NULL) {
            rests += net_listener_stats(w->ports[i].listener)->rests;
        }
    }
    if (rests > w->rests_counted) {
        dp_worker_count_refused(w, "descriptors", rests - w->rests_counted);
        LOG(LOG_ERROR, "runtime", "accepting-rests", LOG_U64("worker", w->index),
            LOG_STR("text", "out of descriptors or memory: callers wait"),
            LOG_STR("fix", "raise the limit of open files (LimitNOFILE=), or add nodes"));
    }
    w->rests_counted = rests;
}

/* The kill switch of policy decisions: counted, shown, and said in the log when it changes. */
static void look_at_guard(struct dp_worker *w)
{
    static const char *const whys[DP_GUARD_WHY_COUNT] = {"misses", "time"};
    const struct dp_guard *guard = &w->pool.guard;
    bool thrown = dp_guard_is_fast(guard, net_loop_now_ns(w->loop));
    for (size_t i = 0; i < DP_GUARD_WHY_COUNT; i++) {
        uint64_t trips = guard->trips[i] - w->trips_counted[i];
        if (trips > 0) {
            const struct slice value[] = {slice_str(whys[i])};
            metrics_add(w->shard, metrics_series(w->config->metrics, DP_METRIC_GUARD_TRIPS, value),
                        (int64_t)trips);
            LOG(LOG_WARN, "runtime", "policy-guard-thrown", LOG_U64("worker", w->index),
                LOG_STR("why", whys[i]), LOG_U64("hold_ms", guard->rails.hold_ms),
                LOG_STR("text", "policy decisions come from the cache and the fast path alone"),
                LOG_STR("fix", "see policy_decision_cache_hit_ratio; docs/policy.md"));
        }
        w->trips_counted[i] = guard->trips[i];
    }
    if (w->guard_thrown && !thrown) {
        LOG(LOG_INFO, "runtime", "policy-guard-returned", LOG_U64("worker", w->index),
            LOG_STR("text", "policies decide again"));
    }
    w->guard_thrown = thrown;
    metrics_set(w->shard, metrics_plain(w->config->metrics, DP_METRIC_GUARD_OPEN), thrown);
}

static void set_gauges(struct dp_worker *w)
{
    metrics_set(w->shard, metrics_plain(w->config->metrics, DP_METRIC_CONNECTIONS),
                (int64_t)w->caller_count);
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        if (w->lane_started[i] && w->config->lanes[i]->measure != NULL) {
            w->config->lanes[i]->measure(w->pool.lanes[i]);
        }
    }
}

/* Content that no head named for longer than freshnessMax allows nothing. */
static void look_at_freshness(struct dp_worker *w)
{
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    uint64_t max_ms = model == NULL ? 0 : dp_model_environment(model)->freshness_max_ms;
    uint64_t content_ns = dp_mailbox_content_ns(&w->mailbox);
    bool stale =
        max_ms != 0 && (content_ns == 0 || (clock_boot_ns() - content_ns) / 1000000 > max_ms);
    dp_request_pool_set_stale(&w->pool, stale);
}

/* What any worker found: who watches the health of a service hears of it. */
static void look_at_degraded(struct dp_worker *w)
{
    struct dp_degraded *node = w->config->degraded;
    uint32_t edition = node == NULL ? w->degraded.edition : dp_degraded_edition(node);
    if (edition == w->degraded.edition) {
        return;
    }
    w->degraded.count = 0;
    arena_reset(&w->degraded.arena);
    if (err_ok(dp_degraded_list(node, &w->degraded.arena, &w->degraded.at, &w->degraded.count))) {
        w->degraded.edition = edition; /* else: again with the next tick. */
        dp_health_changed(w);
    }
}

static void take_keys(struct dp_worker *w)
{
    struct dp_issuer_keys *keys = dp_keys_mail_take(&w->keys_mail);
    if (keys != NULL) {
        dp_request_pool_keys(&w->pool, keys);
    }
}

static void tick(struct net_timer *timer, void *ctx)
{
    struct dp_worker *w = ctx;
    take_keys(w);
    if (w->access != NULL) {
        dp_access_flush(w->access, net_loop_now_ns(w->loop));
    }
    set_gauges(w);
    count_floods(w);
    count_h2(w);
    count_rests(w);
    h2_env_give_back(w->h2);
    look_at_guard(w);
    look_at_degraded(w);
    look_at_freshness(w);
    /* The last requests end after their connections: tunnels, and calls that were aborted. */
    dp_worker_caller_gone(w);
    net_timer_arm(w->loop, timer, TICK_MS);
}

/* ---- models ---- */

/* Where the environment takes no cleartext, its ports are closed until a model allows it again. Who
 * came by them is let go as connections are looked over. The others are closed only until the first
 * model, where they wait for one. */
static void open_or_close_ports(struct dp_worker *w, bool tls_only)
{
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        struct dp_port *port = &w->ports[i];
        if (w->draining) {
            continue;
        }
        if (tls_only && !dp_port_is_tls(port->id)) {
            dp_port_close(port);
        } else {
            dp_port_reopen(port);
        }
    }
    w->tls_only = tls_only;
}

/* What connections of callers must be from now on; those that are open are looked over. */
static void demand(struct dp_worker *w, const struct net_tls_terms *terms)
{
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        if (w->ports[i].listener != NULL) {
            net_listener_set_terms(w->ports[i].listener, terms);
        }
    }
    if (terms->client_cert && w->index == 0 &&
        (w->tls.server == NULL || !net_tls_verifies(w->tls.server))) {
        LOG(LOG_ERROR, "runtime", "callers-unverifiable",
            LOG_STR("text", "callers must prove themselves, and nothing here can verify them"),
            LOG_STR("fix", "give the node tls-cert, tls-key and tls-ca"));
    }
}

/* Connections are looked over, to callers and to upstreams. */
static void look_at_peers(struct dp_worker *w, bool trust)
{
    dp_peers_look(w, trust);
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        if (w->lane_started[i] && w->config->lanes[i]->look != NULL) {
            w->config->lanes[i]->look(w->pool.lanes[i], trust);
        }
    }
}

static void model_arrived(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    struct dp_metrics_turn turn = dp_request_metrics_turn_begin();
    struct dp_model *model = dp_mailbox_take(&w->mailbox);
    if (model == NULL) {
        return;
    }
    uint64_t version = dp_model_version(model);
    const struct dp_environment *environment = dp_model_environment(model);
    dp_request_pool_adopt(&w->pool, model);
    look_at_freshness(w);
    demand(w, &environment->terms);
    open_or_close_ports(w, environment->tls_only);
    look_at_peers(w, /* trust= */ false);
    dp_health_changed(w);
    dp_mailbox_adopted(&w->mailbox, version);
    net_hook_queue(w->loop, &w->tell);
    dp_request_metrics_turn_end(w->metrics, &turn);
}

/* Whoever is woken may take the core: not before what came with the model in one turn of the loop
 * was answered. */
static void tell_adopted(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct dp_worker *w = ctx;
    w->config->adopted(w->config->ctx);
}

/* ---- connections that another worker accepted ---- */

static void sockets_arrived(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    struct dp_socket sockets[DP_SPREAD_WAITING_MAX];
    size_t count = dp_spread_take(w->config->spread, w->index, sockets);
    for (size_t i = 0; i < count; i++) {
        dp_port_adopt(&w->ports[sockets[i].port], sockets[i]);
    }
}

/* ---- drain ---- */

static void do_drain(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    w->draining = true;
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        dp_port_close(&w->ports[i]);
    }
    dp_health_changed(w);
    for (struct dp_caller_conn *c = w->callers; c != NULL;) {
        struct dp_caller_conn *next = c->next;
        if (!w->config->sockets_go_on || !dp_caller_conn_is_new(c)) {
            dp_caller_conn_drain(c);
        }
        c = next;
    }
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        if (w->lane_started[i] && w->config->lanes[i]->drain != NULL) {
            w->config->lanes[i]->drain(w->pool.lanes[i]);
        }
    }
    dp_worker_caller_gone(w);
}

static void do_abort(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    dp_request_pool_drain(&w->pool);
    dp_request_pool_abort(&w->pool, FAIL(E_DRAINING));
    if (!err_ok(net_loop_post(w->loop, &w->close_task))) {
        do_close(&w->close_task, w);
    }
}

/* A turn after the abort: what the calls were told as they ended has been written by then, behind
 * the bytes that waited before it. */
static void do_close(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    for (struct dp_caller_conn *c = w->callers; c != NULL;) {
        struct dp_caller_conn *next = c->next;
        dp_caller_conn_abort(c, FAIL(E_DRAINING));
        c = next;
    }
}

void dp_worker_caller_gone(struct dp_worker *w)
{
    if (w->draining && !w->drained_told && w->callers == NULL && w->pool.open_count == 0) {
        w->drained_told = true;
        w->config->drained(w->config->ctx);
    }
}

void dp_worker_drain(struct dp_worker *w)
{
    struct err e = net_loop_post(w->loop, &w->drain_task);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "runtime", "drain-not-posted", LOG_ERR(e));
    }
}

void dp_worker_abort(struct dp_worker *w)
{
    struct err e = net_loop_post(w->loop, &w->abort_task);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "runtime", "abort-not-posted", LOG_ERR(e));
    }
}

/* ---- certificates ---- */

/* All contexts of a worker have the same CAs; NULL: it has none. */
static bool are_same_cas(const struct net_tls *a, const struct net_tls *b)
{
    return a == NULL || b == NULL ? a == b : net_tls_same_trust(a, b);
}

static void do_reload(struct net_task *task, void *ctx)
{
    (void)task;
    struct dp_worker *w = ctx;
    lock_take(&w->reload.lock);
    struct dp_worker_tls fresh = w->reload.tls;
    w->reload.tls = (struct dp_worker_tls){0};
    w->reload.tls_waits = false;
    lock_drop(&w->reload.lock);
    struct dp_worker_tls before = w->tls;
    w->tls = fresh;
    use_tls(w);
    if (!are_same_cas(before.client, fresh.client)) {
        look_at_peers(w, /* trust= */ true);
    }
    dp_worker_tls_unref(&before);
}

void dp_worker_reload(struct dp_worker *w, struct dp_worker_tls *tls)
{
    lock_take(&w->reload.lock);
    struct dp_worker_tls before = w->reload.tls;
    w->reload.tls = *tls;
    *tls = (struct dp_worker_tls){0};
    if (!w->reload.tls_waits) {
        w->reload.tls_waits = err_ok(net_loop_post(w->loop, &w->reload_task));
    }
    lock_drop(&w->reload.lock);
    dp_worker_tls_unref(&before);
}
