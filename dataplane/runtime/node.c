/* node: see node.h. Starting is a list of parts, in order; ending is the same list backwards. */
#include "dataplane/runtime/node.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/board.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/bus/user.h"
#include "common/net/ask.h"
#include "common/net/tls.h"
#include "dataplane/admin/admin.h"
#include "dataplane/apply/apply.h"
#include "dataplane/issuers/keeper.h"
#include "dataplane/join/renewal.h"
#include "dataplane/request/access.h"
#include "dataplane/request/degraded.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/quota.h"
#include "dataplane/runtime/bundles.h"
#include "dataplane/runtime/drain.h"
#include "dataplane/runtime/handover.h"
#include "dataplane/runtime/options.h"
#include "dataplane/runtime/scrape.h"
#include "dataplane/runtime/sockets.h"
#include "dataplane/runtime/spread.h"
#include "dataplane/runtime/worker.h"

enum { RELOAD_RETRY_S = 1 };

struct dp_node {
    struct dp_options options;
    struct dp_worker_config worker_config;
    struct metrics *metrics;
    struct dp_limit_table *limits;
    struct dp_quota *quota;
    struct dp_access_writer *access;
    struct dp_spread *spread;
    struct board *board; /* of the health of endpoints. */
    struct dp_degraded *degraded;
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
    struct dp_drain drain;
    struct dp_bundles bundles; /* CAs, of the newest model. */
    struct net_tls *own;       /* has the certificate that is shown; NULL: there is none. */
    enum err_code reload_code; /* what the last reload came to. */
    struct dp_scrape scrape;
};

/* ---- what the parts call ---- */

/* Files and CAs are taken into use by the main thread, which waits for signals. */
static void wake_main(struct dp_node *n)
{
    CHECK(pthread_kill(n->main, SIGHUP) == 0);
}

/* Other CAs are taken into use like those of the files. */
static void note_bundles(struct dp_node *n, const struct dp_environment *environment)
{
    bool changed = false;
    struct err e = dp_bundles_note(&n->bundles, environment, &changed);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "runtime", "trust-bundles-not-taken", LOG_ERR(e));
    }
    if (changed) {
        wake_main(n);
    }
}

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
    dp_drain_worker_done(&n->drain);
}

/* A certificate took effect on disk. */
static void renewed(void *ctx)
{
    wake_main(ctx);
}

static void before_scrape(void *ctx)
{
    struct dp_node *n = ctx;
    dp_scrape_run(&n->scrape);
}

/* ---- parts ---- */

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
    TRY(dp_degraded_new(&n->degraded));
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

/* The contexts of this worker have the certificate that is shown from now on. */
static void note_own(struct dp_node *n, const struct dp_worker_tls *tls)
{
    net_tls_unref(n->own);
    n->own = tls->server == NULL ? NULL : net_tls_ref(tls->server);
}

static struct err init_workers(struct dp_node *n, struct net_tls_trust *trust)
{
    while (n->worker_count < n->options.workers) {
        struct dp_worker_tls tls = {0};
        TRY(dp_options_tls(&n->options, trust, n->own, &tls));
        note_own(n, &tls);
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
    n->worker_config.degraded = n->degraded;
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
        .degraded = n->degraded,
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
    dp_scrape_certificate(&n->scrape, has, ends_s);
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
    bool handed = dp_socket_listens_on(n->handed.admin, o->admin);
    n->scrape.parts = (struct dp_scrape_parts){
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, o->workers + 1),
        .limits = n->limits,
        .access = n->access,
        .bus = n->bus,
    };
    struct dp_admin_config config = {
        .address = o->admin,
        .handed_fd = handed ? n->handed.admin : 0,
        .token = buf_slice(&o->admin_token),
        .environment = o->environment,
        .node = slice_str(o->node),
        .apply = n->apply,
        .renewal = n->renewal,
        .degraded = n->degraded,
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
    TRY(dp_sockets_open(&n->options, &n->handed, &n->worker_config, message));
    TRY(open_shared(n, message));
    struct err e = open_workers(n, lanes);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "workers: %s: %s", err_name(e.code), err_text(e.code)));
        return e;
    }
    TRY(start_issuers(n));
    e = start_apply(n);
    if (e.code == E_ROOT_MISSING && n->options.trust_root.size == 0) {
        TRY(buf_addf(message,
                     "trust-root is not set, and %s has no root yet: name the environment's root, "
                     "or make this a node of it by trilane-dp join",
                     n->options.data_dir));
        return FAIL(E_USAGE);
    }
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
    dp_degraded_free(n->degraded);
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
    net_tls_unref(n->own);
    dp_options_free(&n->options);
    dp_scrape_free(&n->scrape);
    dp_bundles_free(&n->bundles);
    dp_drain_free(&n->drain);
}

/* ---- serving ---- */

/* Contexts for all workers: of the newest CAs, and of a certificate that was read before, or NULL
 * for that of the files. */
static struct err make_contexts(struct dp_node *n, struct net_tls *own, struct dp_worker_tls *out)
{
    struct net_tls_trust *trust = NULL;
    struct dp_bundle_set *set = dp_bundles_take(&n->bundles);
    size_t count = 0;
    const struct net_tls_bundle *bundles = dp_bundle_set_at(set, &count);
    struct err e = dp_options_trust(&n->options, bundles, count, &trust);
    dp_bundle_set_unref(set);
    for (size_t i = 0; i < n->worker_count && err_ok(e); i++) {
        /* The files are read once: whatever replaces them meanwhile, all workers show the same. */
        e = dp_options_tls(&n->options, trust, i == 0 ? own : out[0].server, &out[i]);
    }
    net_tls_trust_unref(trust);
    return e;
}

static void drop_contexts(struct dp_node *n, struct dp_worker_tls *tls)
{
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_worker_tls_unref(&tls[i]);
    }
}

static void use_contexts(struct dp_node *n, struct dp_worker_tls *tls)
{
    note_own(n, &tls[0]);
    for (size_t i = 0; i < n->worker_count; i++) {
        dp_worker_reload(&n->workers[i], &tls[i]);
    }
}

/* What the last one could not read is read again each second, without a word. Files that do not
 * load hold up no CAs: whom a snapshot trusts no more would else stay for as long. */
static void reload(struct dp_node *n, bool again)
{
    struct dp_worker_tls *tls = calloc(n->worker_count, sizeof(*tls));
    struct err e = tls == NULL ? FAIL(E_NO_MEMORY) : make_contexts(n, /* own= */ NULL, tls);
    bool made = err_ok(e);
    if (!made && !again && tls != NULL && n->own != NULL) {
        drop_contexts(n, tls);
        made = err_ok(make_contexts(n, n->own, tls));
    }
    if (made) {
        use_contexts(n, tls);
    }
    if (tls != NULL) {
        drop_contexts(n, tls);
    }
    free(tls);
    if (made || !again) {
        note_certificate(n);
        LOG(err_ok(e) ? LOG_INFO : LOG_ERROR, "runtime", "certificates-read", LOG_ERR(e));
    }
    n->reload_code = e.code;
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
    dp_issuers_leave_disk(n->issuers);
    TRY(dp_handover_give(fd, &given));
    return dp_handover_wait(fd, limits.handover_timeout_ms);
}

/* The other process is gone: what it was given is this one's again. */
static void take_back(struct dp_node *n)
{
    dp_apply_take_back(n->apply);
    dp_issuers_take_disk(n->issuers);
    struct err e = dp_quota_start(n->quota);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "runtime", "quotas-not-written", LOG_ERR(e));
    }
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
            take_back(n);
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

/* The next signal; 0: a reload that failed is to be tried again. */
static int wait_signal(const struct dp_node *n, const sigset_t *signals)
{
    const struct timespec retry = {.tv_sec = RELOAD_RETRY_S};
    int number = -1;
    do { /* ends: with a signal, or the time. */
        number = sigtimedwait(signals, NULL, n->reload_code == E_OK ? NULL : &retry);
    } while (number < 0 && errno == EINTR);
    return number < 0 ? 0 : number;
}

static void serve(struct dp_node *n, const sigset_t *signals)
{
    LOG(LOG_INFO, "runtime", "started", LOG_STR("node", n->options.node),
        LOG_SLICE("environment", n->options.environment), LOG_U64("workers", n->worker_count));
    dp_handover_notify();
    for (;;) { /* until SIGTERM or SIGINT, or another process serves. */
        int number = wait_signal(n, signals);
        if (number == SIGUSR2 && hand_over(n)) {
            retire(n);
            return;
        }
        if (number == SIGUSR2) {
            continue;
        }
        if (number != SIGHUP && number != 0) {
            LOG(LOG_INFO, "runtime", "stopping", LOG_I64("signal", number));
            return;
        }
        reload(n, /* again= */ number == 0);
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
    dp_drain_init(&n.drain);
    dp_bundles_init(&n.bundles);
    dp_scrape_init(&n.scrape);
    n.main = pthread_self();
    dp_handover_init();
    block_signals(&signals);
    struct err e = dp_options_read(settings, &n.options, message);
    if (err_ok(e)) {
        e = start(&n, lanes, message);
    }
    if (err_ok(e)) {
        serve(&n, &signals);
        dp_drain_run(&n.drain, n.apply, n.workers, n.worker_count);
    }
    stop(&n);
    return e;
}
