/* node: see node.h. Starting is a list of parts, in order; ending is the same list backwards. */
#include "dataplane/runtime/node.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/board.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/refs.h"
#include "common/base/scope.h"
#include "common/bus/user.h"
#include "common/net/ask.h"
#include "common/net/listener.h"
#include "common/net/tls.h"
#include "dataplane/admin/admin.h"
#include "dataplane/apply/apply.h"
#include "dataplane/issuers/keeper.h"
#include "dataplane/join/renewal.h"
#include "dataplane/request/access.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/quota.h"
#include "dataplane/runtime/handover.h"
#include "dataplane/runtime/options.h"
#include "dataplane/runtime/spread.h"
#include "dataplane/runtime/worker.h"

/* The CAs that a model brings, as they were taken from it. */
struct bundles {
    struct refs refs;
    struct arena arena;
    struct net_tls_bundle *at; /* in the arena, with their text. */
    size_t count;
    uint8_t digest[DIGEST_SIZE]; /* as struct dp_environment has it. */
};

struct dp_node {
    struct dp_options options;
    struct dp_worker_config worker_config;
    struct metrics *metrics;
    struct dp_limit_table *limits;
    struct dp_quota *quota;
    struct dp_access_writer *access;
    struct dp_spread *spread;
    struct board *board; /* of the health of endpoints. */
    struct bus *bus;
    struct dp_worker *workers;
    size_t worker_count; /* of these, how many were made. */
    struct dp_apply *apply;
    struct dp_issuers *issuers;
    struct dp_renewal *renewal; /* NULL: this node did not join. */
    struct dp_admin *admin;
    int before_fd;             /* to the process before, which hands over; -1: there is none. */
    struct dp_handover handed; /* by it, and not taken into use yet. */
    pthread_t main;
    sem_t drained; /* posted by each worker that has nobody left. */
    struct {
        struct lock lock;
        bool has_cert GUARDED;
        int64_t cert_ends_s GUARDED;     /* of the certificate that was read last. */
        struct bundles *bundles GUARDED; /* of the newest model, a reference; NULL: none. */
    } shared;

    /* What was counted into the admin's shard so far; its thread's alone. */
    struct {
        uint64_t log_dropped;
        uint64_t access_dropped;
        uint64_t crowded;
        uint64_t reconnects;
    } scraped;
};

/* ---- CAs of the snapshot ---- */

enum { BUNDLES_BLOCK = 4096, BUNDLES_MAX = 4 << 20 };

static void bundles_unref(struct bundles *bundles)
{
    if (bundles != NULL && refs_drop(&bundles->refs)) {
        arena_free(&bundles->arena);
        free(bundles);
    }
}

static struct err bundles_fill(struct bundles *bundles, const struct dp_environment *from)
{
    TRY(arena_calloc(&bundles->arena, from->bundle_count, sizeof(*bundles->at),
                     (void **)&bundles->at));
    for (size_t i = 0; i < from->bundle_count; i++) {
        struct net_tls_bundle *to = &bundles->at[i];
        TRY(arena_dup(&bundles->arena, from->bundles[i].trust_domain, &to->trust_domain));
        TRY(arena_dup(&bundles->arena, from->bundles[i].ca, &to->ca));
    }
    bundles->count = from->bundle_count;
    memcpy(bundles->digest, from->bundles_digest, DIGEST_SIZE);
    return OK;
}

static struct err bundles_new(const struct dp_environment *from, struct bundles **out)
{
    struct bundles *bundles = calloc(1, sizeof(*bundles));
    if (bundles == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&bundles->refs);
    arena_init(&bundles->arena, BUNDLES_BLOCK, BUNDLES_MAX);
    struct err e = bundles_fill(bundles, from);
    if (!err_ok(e)) {
        bundles_unref(bundles);
        return e;
    }
    *out = bundles;
    return OK;
}

/* With a reference; NULL: there are none. */
static struct bundles *take_bundles(struct dp_node *n)
{
    lock_take(&n->shared.lock);
    struct bundles *bundles = n->shared.bundles;
    if (bundles != NULL) {
        refs_take(&bundles->refs);
    }
    lock_drop(&n->shared.lock);
    return bundles;
}

static bool are_same(const struct bundles *bundles, const struct dp_environment *environment)
{
    return bundles == NULL ? environment->bundle_count == 0
                           : memcmp(bundles->digest, environment->bundles_digest, DIGEST_SIZE) == 0;
}

/* Other CAs are taken into use like those of the files: by the main thread, as if by SIGHUP. */
static void note_bundles(struct dp_node *n, const struct dp_environment *environment)
{
    struct bundles *before = take_bundles(n);
    struct bundles *now = NULL;
    bool same = are_same(before, environment);
    bundles_unref(before);
    struct err e = same ? OK : bundles_new(environment, &now);
    if (same || !err_ok(e)) {
        if (!err_ok(e)) {
            LOG(LOG_ERROR, "runtime", "trust-bundles-not-taken", LOG_ERR(e));
        }
        return;
    }
    lock_take(&n->shared.lock);
    before = n->shared.bundles;
    n->shared.bundles = now;
    lock_drop(&n->shared.lock);
    bundles_unref(before);
    CHECK(pthread_kill(n->main, SIGHUP) == 0);
}

/* ---- what the parts call ---- */

static void swap(void *ctx, struct dp_model *model)
{
    struct dp_node *n = ctx;
    dp_issuers_model(n->issuers, model);
    note_bundles(n, dp_model_environment(model));
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_mailbox_put(&n->workers[i].mailbox, model);
    }
}

static void fresh(void *ctx, uint64_t content_ns)
{
    struct dp_node *n = ctx;
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_mailbox_fresh(&n->workers[i].mailbox, content_ns);
    }
}

static void keys_read(void *ctx, struct dp_issuer_keys *keys)
{
    struct dp_node *n = ctx;
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_keys_mail_put(&n->workers[i].keys_mail, keys);
    }
}

static uint64_t served(void *ctx)
{
    struct dp_node *n = ctx;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < n->worker_count; i++) {
        uint64_t version = dp_mailbox_version(&n->workers[i].mailbox);
        least = version < least ? version : least;
    }
    return n->worker_count == 0 ? 0 : least;
}

static uint64_t worker_version(void *ctx, size_t index)
{
    struct dp_node *n = ctx;
    return dp_mailbox_version(&n->workers[index].mailbox);
}

static size_t worker_connections(void *ctx, size_t index)
{
    struct dp_node *n = ctx;
    return dp_spread_count(n->spread, index);
}

static const struct dp_refusals *worker_refusals(void *ctx, size_t index)
{
    struct dp_node *n = ctx;
    return n->workers[index].refusals;
}

static void adopted(void *ctx)
{
    struct dp_node *n = ctx;
    /* A worker adopts only what the apply thread gave it. */
    if (n->apply != NULL) {
        dp_apply_wake(n->apply);
    }
}

static void drained(void *ctx)
{
    struct dp_node *n = ctx;
    CHECK(sem_post(&n->drained) == 0);
}

/* Counts what a source says it has counted since the last time. */
static void catch_up(struct dp_node *n, metrics_id id, uint64_t *seen, uint64_t now)
{
    struct metrics_shard *shard = metrics_shard(n->metrics, n->options.workers + 1);
    metrics_add(shard, id, (int64_t)(now - *seen));
    *seen = now;
}

/* A certificate took effect on disk: read as if by SIGHUP, by the thread that does that. */
static void renewed(void *ctx)
{
    struct dp_node *n = ctx;
    CHECK(pthread_kill(n->main, SIGHUP) == 0);
}

static void show_certificate(struct dp_node *n)
{
    struct slice label = SLICE_LIT("tls-cert");
    lock_take(&n->shared.lock);
    bool has = n->shared.has_cert;
    int64_t left_s = n->shared.cert_ends_s - clock_wall_ms() / 1000;
    lock_drop(&n->shared.lock);
    if (has) {
        metrics_set(metrics_shard(n->metrics, n->options.workers + 1),
                    metrics_series(n->metrics, DP_METRIC_CERT_EXPIRES, &label), left_s);
    }
}

static void show_left(void *ctx, struct slice limit, uint32_t left_permille)
{
    struct dp_node *n = ctx;
    metrics_set(metrics_shard(n->metrics, n->options.workers + 1),
                metrics_series(n->metrics, DP_METRIC_LIMIT_LEFT, &limit), left_permille);
}

static void before_scrape(void *ctx)
{
    struct dp_node *n = ctx;
    show_certificate(n);
    struct slice log = SLICE_LIT("log");
    struct slice access = SLICE_LIT("access");
    catch_up(n, metrics_series(n->metrics, DP_METRIC_LOG_DROPPED, &log), &n->scraped.log_dropped,
             log_dropped());
    catch_up(n, metrics_plain(n->metrics, DP_METRIC_LIMIT_CROWDED), &n->scraped.crowded,
             dp_limit_table_crowded(n->limits));
    dp_limit_left(n->limits, clock_mono_ns(), show_left, n);
    if (n->access != NULL) {
        catch_up(n, metrics_series(n->metrics, DP_METRIC_LOG_DROPPED, &access),
                 &n->scraped.access_dropped, dp_access_dropped(n->access));
    }
    if (n->bus != NULL) {
        struct bus_stats stats;
        bus_stats(n->bus, &stats);
        catch_up(n, metrics_plain(n->metrics, DP_METRIC_BUS_RECONNECTS), &n->scraped.reconnects,
                 stats.connects == 0 ? 0 : stats.connects - 1);
    }
}

/* ---- parts ---- */

/* Whether a socket that was handed over listens where the setting says. */
static bool listens_on(int fd, const char *text)
{
    struct net_addr wanted = {0};
    struct net_addr bound = {0};
    socklen_t size = sizeof(bound.sa);
    return fd >= 0 && getsockname(fd, &bound.sa.any, &size) == 0 &&
           err_ok(net_addr_resolve_boot(slice_str(text), &wanted)) && net_addr_eq(&wanted, &bound);
}

/* The socket of a port: the one that was handed over, or a new one. */
static struct err get_socket(struct dp_node *n, enum dp_port_id id, struct net_addr *out_bound)
{
    const char *text = n->options.ports[id];
    if (!listens_on(n->handed.ports[id], text)) {
        return net_listen(slice_str(text), &n->worker_config.port_fds[id], out_bound);
    }
    n->worker_config.port_fds[id] = TAKE_FD(n->handed.ports[id]);
    return net_addr_resolve_boot(slice_str(text), out_bound);
}

/* A socket that cannot be had is named with its setting. */
static struct err listen_on(struct dp_node *n, enum dp_port_id id, struct buf *message)
{
    static const char *const settings[DP_PORT_COUNT] = {
        [DP_PORT_TLS] = "listen-tls",
        [DP_PORT_CLEAR] = "listen",
        [DP_PORT_PROXY_TLS] = "listen-proxy-tls",
        [DP_PORT_PROXY_CLEAR] = "listen-proxy",
    };
    const char *text = n->options.ports[id];
    if (text == NULL) {
        return OK;
    }
    struct net_addr bound;
    char shown[NET_ADDR_TEXT_MAX];
    struct err e = get_socket(n, id, &bound);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "%s: %s: the address cannot be listened on; is it taken?",
                     settings[id], text));
        return e;
    }
    n->worker_config.listens[n->worker_config.listen_count++] = bound;
    LOG(LOG_INFO, "runtime", "listening", LOG_STR("setting", settings[id]),
        LOG_STR("address", net_addr_text(&bound, shown)));
    return OK;
}

static struct err open_sockets(struct dp_node *n, struct buf *message)
{
    for (int i = 0; i < DP_PORT_COUNT; i++) {
        TRY(listen_on(n, (enum dp_port_id)i, message));
    }
    struct net_addr admin = {0};
    if (n->options.admin != NULL && err_ok(net_addr_parse(slice_str(n->options.admin), &admin))) {
        n->worker_config.listens[n->worker_config.listen_count++] = admin;
    }
    return OK;
}

static struct err open_bus(struct dp_node *n, struct buf *message)
{
    const struct dp_options *o = &n->options;
    if (o->nats_urls == NULL) {
        return OK;
    }
    char name[KEY_NAME_MAX + 16];
    char inbox[KEY_NAME_MAX + 16];
    (void)snprintf(name, sizeof(name), "trilane-dp %s", o->node);
    (void)snprintf(inbox, sizeof(inbox), "_INBOX.%s", o->node);
    struct bus_config config = {
        .urls = o->nats_urls,
        .name = name,
        .creds_file = o->nats_creds,
        .tls_ca = o->nats_ca,
        .tls_cert = o->nats_cert,
        .tls_key = o->nats_key,
        .inbox_prefix = inbox,
    };
    auto_bus_user struct bus_user user = {.name = ""};
    if (o->nats_user_file != NULL) {
        struct err e = bus_user_read(o->nats_user_file, &user);
        if (!err_ok(e)) {
            TRY(buf_addf(message, "nats-user-file: %s: %s", o->nats_user_file, bus_user_why(e)));
            return e;
        }
        config.user = user.name;
        config.password = user.password;
    }
    return bus_open(&config, &n->bus);
}

static struct err open_shared(struct dp_node *n, struct buf *message)
{
    const struct dp_options *o = &n->options;
    /* A shard a worker, and one each of the threads: apply, admin, renewal, issuers. */
    TRY(metrics_new(dp_metric_families, DP_METRIC_COUNT, o->workers + 4, &n->metrics));
    TRY(dp_limit_table_new((size_t)limits.rate_cells, &n->limits));
    TRY(board_new((size_t)limits.health_cells, &n->board));
    const struct dp_spread_bounds bounds = {
        .connections = (size_t)limits.connections,
        .per_source = (size_t)limits.connections_per_address,
    };
    TRY(dp_spread_new(o->workers, &bounds, &n->spread));
    if (o->access_log != NULL) {
        struct err e = dp_access_writer_new(o->access_log, &n->access);
        if (!err_ok(e)) {
            TRY(buf_addf(message, "access-log: %s: cannot be written", o->access_log));
            return e;
        }
    }
    return open_bus(n, message);
}

static struct err init_workers(struct dp_node *n, struct net_tls_trust *trust)
{
    while (n->worker_count < n->options.workers) {
        struct dp_worker_tls tls = {0};
        TRY(dp_options_tls(&n->options, trust, &tls));
        size_t index = n->worker_count++;
        TRY(dp_worker_init(&n->workers[index], &n->worker_config, index, &tls));
    }
    return OK;
}

static struct err open_workers(struct dp_node *n, const struct dp_lane *const *lanes)
{
    const struct dp_options *o = &n->options;
    n->worker_config.worker_count = o->workers;
    n->worker_config.pin = o->pin_workers;
    n->worker_config.limits = n->limits;
    n->worker_config.board = n->board;
    n->worker_config.access = n->access;
    n->worker_config.spread = n->spread;
    n->worker_config.metrics = n->metrics;
    n->worker_config.bus = n->bus;
    n->worker_config.bus_replicas = o->nats_replicas;
    n->worker_config.environment = o->environment;
    n->worker_config.dns_servers = o->dns_servers;
    n->worker_config.adopted = adopted;
    n->worker_config.drained = drained;
    n->worker_config.ctx = n;
    for (size_t i = 0; i < DP_LANE_COUNT; i++) {
        n->worker_config.lanes[i] = lanes[i];
    }
    n->workers = calloc(o->workers, sizeof(*n->workers));
    if (n->workers == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct net_tls_trust *trust = NULL;
    TRY(dp_options_trust(o, /* bundles= */ NULL, 0, &trust)); /* there is no snapshot yet. */
    struct err e = init_workers(n, trust);
    net_tls_trust_unref(trust);
    return e;
}

static struct err start_issuers(struct dp_node *n)
{
    const struct dp_issuers_config config = {
        .data_dir = n->options.data_dir,
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, n->options.workers + 3),
        .read = keys_read,
        .ctx = n,
    };
    return dp_issuers_start(&config, &n->issuers);
}

static struct err start_apply(struct dp_node *n)
{
    const struct dp_options *o = &n->options;
    struct dp_apply_config config = {
        .environment = o->environment,
        .node = slice_str(o->node),
        .labels = o->labels.items,
        .label_count = o->labels.count,
        .state_dir = (const char *)o->state_dir.ptr,
        .trust_root = buf_slice(&o->trust_root),
        .seed = o->self.seed,
        .handed_lock = n->handed.lock > 0 ? n->handed.lock : 0,
        .key = o->has_key ? &o->key : NULL,
        .bus = n->bus,
        .bucket_api = o->nats_bucket_api,
        .workers = {.swap = swap, .fresh = fresh, .served = served, .ctx = n},
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, o->workers),
    };
    return dp_apply_start(&config, &n->apply);
}

/* As of the files now; what cannot be read was said by whoever reads it to present it. */
static void note_certificate(struct dp_node *n)
{
    int64_t ends_s = 0;
    bool has = err_ok(dp_options_cert_ends(&n->options, &ends_s));
    lock_take(&n->shared.lock);
    n->shared.has_cert = has;
    n->shared.cert_ends_s = ends_s;
    lock_drop(&n->shared.lock);
}

static struct err start_renewal(struct dp_node *n)
{
    const struct dp_options *o = &n->options;
    if (!o->joined) {
        return OK;
    }
    struct dp_renewal_config config = {
        .data_dir = o->data_dir,
        .self = &o->self,
        .cert = &o->cert,
        .key = &o->key,
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, o->workers + 2),
        .renewed = renewed,
        .ctx = n,
    };
    return dp_renewal_start(&config, &n->renewal);
}

static struct err start_admin(struct dp_node *n, struct buf *message)
{
    const struct dp_options *o = &n->options;
    if (o->admin == NULL) {
        return OK;
    }
    bool handed = listens_on(n->handed.admin, o->admin);
    struct dp_admin_config config = {
        .address = o->admin,
        .handed_fd = handed ? n->handed.admin : 0,
        .token = buf_slice(&o->admin_token),
        .environment = o->environment,
        .node = slice_str(o->node),
        .apply = n->apply,
        .renewal = n->renewal,
        .labels = slice_str(o->label_text),
        .bus = n->bus,
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, o->workers + 1),
        .worker_count = n->worker_count,
        .worker_version = worker_version,
        .worker_connections = worker_connections,
        .worker_refusals = worker_refusals,
        .before_scrape = before_scrape,
        .ctx = n,
    };
    struct err e = dp_admin_start(&config, &n->admin);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "listen-admin: %s: the address cannot be listened on; is it taken?",
                     o->admin));
    } else if (handed) {
        n->handed.admin = -1;
    }
    return e;
}

/* ---- from the process before ---- */

static struct err take_over(struct dp_node *n, struct buf *message)
{
    n->worker_config.ports_wait = true;
    struct err e = dp_handover_take(n->before_fd, limits.handover_timeout_ms, &n->handed);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "the process before hands nothing over: %s", err_name(e.code)));
    }
    return e;
}

/* Nobody is let go by the one before until every worker here has a model. */
static struct err wait_served(struct dp_node *n, struct buf *message)
{
    const struct timespec rest = {.tv_nsec = 5000000};
    uint64_t end_ns = clock_mono_ns() + limits.handover_timeout_ms * 1000000;
    while (served(n) == 0) {
        if (clock_mono_ns() > end_ns) {
            TRY(buf_addf(message, "data-dir: %s has no snapshot to serve from",
                         n->options.data_dir));
            return FAIL(E_TIMEOUT);
        }
        (void)nanosleep(&rest, NULL);
    }
    return OK;
}

/* From here on this is the node. One before that is gone by itself has nothing to hear. */
static void finish_handover(struct dp_node *n)
{
    if (n->before_fd < 0) {
        return;
    }
    struct err e = dp_handover_done(n->before_fd);
    LOG(err_ok(e) ? LOG_INFO : LOG_WARN, "runtime", "taken-over", LOG_ERR(e));
    (void)close(n->before_fd);
    n->before_fd = -1;
    dp_handover_close(&n->handed);
}

/* As many descriptors as the system lets us have: the usual limit is below limits.connections. */
static void allow_files(void)
{
    struct rlimit files;
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max < limits.connections) {
        LOG(LOG_WARN, "runtime", "few-descriptors", LOG_U64("files", files.rlim_max),
            LOG_U64("connections", limits.connections),
            LOG_STR("fix", "raise the hard limit of open files, or lower --connections"));
    }
}

/*
 * Every thread begins with its maker's policy, those of nats.c too. As SCHED_BATCH they take the
 * core from nobody by waking up: a worker that serves is not stopped in the middle of it, and they
 * have the core once it sleeps. Workers go back to the policy that the node was started with;
 * another one than the usual is its operator's wish for all.
 */
static void give_way(struct dp_node *n)
{
    const struct sched_param none = {.sched_priority = 0};
    n->worker_config.policy = sched_getscheduler(0);
    if (n->worker_config.policy == SCHED_OTHER) {
        (void)sched_setscheduler(0, SCHED_BATCH, &none);
    }
}

/* Behind the start of apply, by which the directory is this process's alone. */
static struct err open_quotas(struct dp_node *n, struct buf *message)
{
    const char *directory = n->options.data_dir;
    struct err e = dp_quota_open(directory, (size_t)limits.quota_cells, &n->quota);
    if (!err_ok(e)) {
        const char *fix = e.code == E_TOO_LARGE   ? "raise quota-cells"
                          : e.code == E_MALFORMED ? "remove it: quotas begin anew"
                                                  : "it must be readable";
        TRY(buf_addf(message, "data-dir: %s/quotas: %s: %s", directory, err_text(e.code), fix));
        return e;
    }
    dp_limit_table_keep(n->limits, n->quota);
    return dp_quota_start(n->quota);
}

static struct err start(struct dp_node *n, const struct dp_lane *const *lanes, struct buf *message)
{
    give_way(n);
    allow_files();
    TRY(net_ask_init());
    TRY(n->before_fd < 0 ? OK : take_over(n, message));
    TRY(open_sockets(n, message));
    TRY(open_shared(n, message));
    struct err e = open_workers(n, lanes);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "workers: %s: %s", err_name(e.code), err_text(e.code)));
        return e;
    }
    TRY(start_issuers(n));
    e = start_apply(n);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "data-dir: %s: %s: %s", n->options.data_dir, err_name(e.code),
                     e.code == E_CONFLICT ? "another process owns it" : err_text(e.code)));
        return e;
    }
    TRY(open_quotas(n, message));
    for (size_t i = 0; i < n->worker_count; i++) {
        TRY(dp_worker_start(&n->workers[i]));
    }
    note_certificate(n);
    TRY(n->before_fd < 0 ? OK : wait_served(n, message));
    TRY(start_renewal(n));
    TRY(start_admin(n, message));
    finish_handover(n);
    return OK;
}

/* ---- the end ---- */

static struct bundles *take_bundles_last(struct dp_node *n)
{
    lock_take(&n->shared.lock);
    struct bundles *bundles = TAKE_PTR(n->shared.bundles);
    lock_drop(&n->shared.lock);
    return bundles;
}

static void forced(int signal_number)
{
    (void)signal_number;
    _exit(DP_NODE_FORCED);
}

/* Behind the shutdown timeout: for a main thread that hangs and cannot end the process itself. */
enum { ALARM_MORE_MS = 500 };

/* From now on the process ends soon after the shutdown timeout, even when this thread hangs. */
static void arm_shutdown_timeout(void)
{
    struct sigaction action = {.sa_handler = forced};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    uint64_t ms = limits.shutdown_timeout_ms + ALARM_MORE_MS;
    struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* Waits for 'count' workers to have nobody left; returns how many are still busy. */
static size_t wait_drained(struct dp_node *n, size_t count, uint64_t timeout_ms)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (count > 0) {
        if (sem_clockwait(&n->drained, CLOCK_MONOTONIC, &until) == 0) {
            count--;
        } else if (errno != EINTR) {
            break;
        }
    }
    return count;
}

/* What is left of the shutdown timeout. */
static uint64_t shutdown_left_ms(uint64_t start_ns)
{
    uint64_t spent_ms = (clock_mono_ns() - start_ns) / 1000000;
    return spent_ms < limits.shutdown_timeout_ms ? limits.shutdown_timeout_ms - spent_ms : 0;
}

/* Who is still there after the graceful timeout is ended, when there is time left to end them; past
 * the shutdown timeout the process ends. */
static void drain(struct dp_node *n)
{
    uint64_t graceful_ms = limits.graceful_timeout_ms;
    uint64_t shutdown_ms = limits.shutdown_timeout_ms;
    uint64_t start_ns = clock_mono_ns();
    arm_shutdown_timeout();
    dp_apply_drain(n->apply);
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_worker_drain(&n->workers[i]);
    }
    size_t busy =
        wait_drained(n, n->worker_count, graceful_ms < shutdown_ms ? graceful_ms : shutdown_ms);
    if (busy > 0 && shutdown_left_ms(start_ns) > 0) {
        LOG(LOG_WARN, "runtime", "drain-cut-short", LOG_U64("busy_workers", busy));
        for (size_t i = 0; i < n->worker_count; i++) {
            dp_worker_abort(&n->workers[i]);
        }
        busy = wait_drained(n, busy, shutdown_left_ms(start_ns));
    }
    if (busy > 0) {
        LOG(LOG_ERROR, "runtime", "shutdown-forced", LOG_U64("busy_workers", busy));
        _exit(DP_NODE_FORCED);
    }
    LOG(LOG_INFO, "runtime", "drained", LOG_U64("busy_workers", busy));
}

static void stop(struct dp_node *n)
{
    dp_admin_stop(n->admin);
    dp_renewal_stop(n->renewal);
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_worker_join(&n->workers[i]);
    }
    if (n->apply != NULL) {
        dp_apply_stop(n->apply);
    }
    dp_issuers_stop(n->issuers);
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_worker_free(&n->workers[i]);
    }
    dp_apply_free(n->apply);
    free(n->workers);
    dp_spread_free(n->spread);
    bus_close(n->bus);
    dp_access_writer_free(n->access);
    dp_quota_close(n->quota);
    dp_limit_table_free(n->limits);
    board_free(n->board);
    metrics_free(n->metrics);
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        if (n->worker_config.port_fds[i] >= 0) {
            (void)close(n->worker_config.port_fds[i]);
        }
    }
    dp_handover_close(&n->handed);
    if (n->before_fd >= 0) {
        (void)close(n->before_fd);
    }
    dp_options_free(&n->options);
    bundles_unref(take_bundles_last(n));
    lock_free(&n->shared.lock);
    CHECK(sem_destroy(&n->drained) == 0);
}

/* ---- serving ---- */

static void reload(struct dp_node *n)
{
    struct dp_worker_tls *tls = calloc(n->worker_count, sizeof(*tls));
    struct net_tls_trust *trust = NULL;
    struct bundles *bundles = take_bundles(n);
    struct err e = tls == NULL ? FAIL(E_NO_MEMORY)
                   : bundles == NULL
                       ? dp_options_trust(&n->options, NULL, 0, &trust)
                       : dp_options_trust(&n->options, bundles->at, bundles->count, &trust);
    bundles_unref(bundles);
    /* All are read before the first is used: files that are replaced meanwhile change nothing. */
    for (size_t i = 0; i < n->worker_count && err_ok(e); i++) {
        e = dp_options_tls(&n->options, trust, &tls[i]);
    }
    net_tls_trust_unref(trust);
    for (size_t i = 0; i < n->worker_count && tls != NULL; i++) {
        if (err_ok(e)) {
            dp_worker_reload(&n->workers[i], &tls[i]);
        }
        dp_worker_tls_unref(&tls[i]);
    }
    free(tls);
    note_certificate(n);
    LOG(err_ok(e) ? LOG_INFO : LOG_ERROR, "runtime", "certificates-read", LOG_ERR(e));
}

static void block_signals(sigset_t *out)
{
    CHECK(sigemptyset(out) == 0);
    CHECK(sigaddset(out, SIGTERM) == 0);
    CHECK(sigaddset(out, SIGINT) == 0);
    CHECK(sigaddset(out, SIGHUP) == 0);
    CHECK(sigaddset(out, SIGUSR2) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, out, NULL) == 0);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    CHECK(sigaction(SIGPIPE, &ignore, NULL) == 0);
    /* A full quota of the pack is PERSIST_FAILED, not the end of the process. */
    CHECK(sigaction(SIGXFSZ, &ignore, NULL) == 0);
}

/* ---- to the process behind ---- */

static struct err give_over(struct dp_node *n, int fd)
{
    struct dp_handover given = {.admin = dp_admin_fd(n->admin), .lock = dp_apply_hand(n->apply)};
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        given.ports[i] = n->worker_config.port_fds[i];
    }
    dp_quota_leave(n->quota);
    TRY(dp_handover_give(fd, &given));
    return dp_handover_wait(fd, limits.handover_timeout_ms);
}

/* The other process is gone: what it was given is this one's again. */
static struct err take_back(struct dp_node *n)
{
    dp_apply_take_back(n->apply);
    return dp_quota_start(n->quota);
}

/* True when another process serves: what is left here is to let callers end. Else all is as
 * before. */
static bool hand_over(struct dp_node *n)
{
    pid_t pid = 0;
    auto_close int fd = -1;
    struct err e = dp_handover_start(n->worker_config.policy, &pid, &fd);
    if (err_ok(e)) {
        e = give_over(n, fd);
        if (!err_ok(e)) {
            dp_handover_give_up(pid);
            struct err back = take_back(n);
            if (!err_ok(back)) {
                LOG(LOG_ERROR, "runtime", "quotas-not-written", LOG_ERR(back));
            }
        }
    }
    LOG(err_ok(e) ? LOG_INFO : LOG_ERROR, "runtime", "handed-over", LOG_I64("pid", pid),
        LOG_ERR(e));
    return err_ok(e);
}

/* What there is one of in a node is the other process's now. */
static void retire(struct dp_node *n)
{
    n->worker_config.sockets_go_on = true;
    dp_admin_stop(n->admin);
    n->admin = NULL;
    dp_renewal_stop(n->renewal);
    n->renewal = NULL;
}

static void serve(struct dp_node *n, const sigset_t *signals)
{
    LOG(LOG_INFO, "runtime", "started", LOG_STR("node", n->options.node),
        LOG_SLICE("environment", n->options.environment), LOG_U64("workers", n->worker_count));
    dp_handover_notify();
    for (;;) { /* until SIGTERM or SIGINT, or another process serves. */
        int number = 0;
        if (sigwait(signals, &number) != 0) {
            continue;
        }
        if (number == SIGUSR2 && hand_over(n)) {
            retire(n);
            return;
        }
        if (number == SIGUSR2) {
            continue;
        }
        if (number != SIGHUP) {
            LOG(LOG_INFO, "runtime", "stopping", LOG_I64("signal", number));
            return;
        }
        reload(n);
    }
}

struct err dp_node_run(const struct settings *settings,
                       const struct dp_lane *const lanes[DP_LANE_COUNT], struct buf *message)
{
    struct dp_node n = {
        .worker_config = {.port_fds = {-1, -1, -1, -1}},
        .before_fd = dp_handover_found(),
        .handed = {.ports = {-1, -1, -1, -1}, .admin = -1, .lock = -1},
    };
    sigset_t signals;
    CHECK(sem_init(&n.drained, /* shared= */ 0, 0) == 0);
    lock_init(&n.shared.lock);
    n.main = pthread_self();
    dp_handover_init();
    block_signals(&signals);
    struct err e = dp_options_read(settings, &n.options, message);
    if (err_ok(e)) {
        e = start(&n, lanes, message);
    }
    if (err_ok(e)) {
        serve(&n, &signals);
        drain(&n);
    }
    stop(&n);
    return e;
}
