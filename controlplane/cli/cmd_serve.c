/*
 * cmd_serve: one replica of the control plane, wired together and taken apart again.
 *
 * Order of start: what can be refused first (files, keys, database), then what waits for others
 * (NATS), then the door (API), then leading. Signer and certifier are forked before any thread
 * exists.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/bus/user.h"
#include "common/net/ask.h"
#include "common/net/timer.h"
#include "controlplane/api/api.h"
#include "controlplane/cli/commands.h"
#include "controlplane/publish/check.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/shares.h"

enum { PATH_SIZE = 4096, MESSAGE_MAX = 4096, TOKEN_SIZE = 32, TOKEN_MAX = 256, DRAIN_STEP_MS = 20 };
enum { MEMORY_KEPT = 32 << 20 }; /* glibc takes no more for its mmap threshold. */

static const struct setting_row rows[] = {
    {"environment", "NAME", NULL, "name of the environment", SETTING_TEXT},
    {"data-dir", "DIRECTORY", CP_DATA_DIR, "where the server keeps its files", SETTING_TEXT},
    {"nats-urls", "URL,…", "nats://127.0.0.1:4222", "servers of the bus", SETTING_TEXT},
    {"nats-creds", "FILE", NULL, "credentials for the bus", SETTING_TEXT},
    {"nats-user-file", "FILE", NULL,
     "\"user:password\" for the bus, mode 0600: in a URL on the command line everybody reads it",
     SETTING_TEXT},
    {"nats-ca", "FILE", NULL, "CA of the NATS servers; with it TLS is required", SETTING_TEXT},
    {"nats-cert", "FILE", NULL, "certificate chain for NATS; needs nats-key", SETTING_TEXT},
    {"nats-key", "FILE", NULL, "its private key", SETTING_TEXT},
    {"nats-replicas", "N", "1", "servers that keep each bucket: 1, 3 or 5", SETTING_TEXT},
    {"trust-root", "FILE,…", NULL, "roots in order; the last one is in force", SETTING_TEXT},
    {"store", "URL", NULL, "sqlite:FILE or postgresql://…; default: sqlite:<data-dir>/store.db",
     SETTING_TEXT},
    {"listen", "ADDRESS", "127.0.0.1:9080", "API in clear text, on loopback alone", SETTING_TEXT},
    {"listen-tls", "ADDRESS", NULL, "API under TLS; needs tls-cert and tls-key", SETTING_TEXT},
    {"tls-cert", "FILE", NULL, "certificate chain of the API", SETTING_TEXT},
    {"tls-key", "FILE", NULL, "its private key", SETTING_TEXT},
    {"server-names", "NAME,…", "", "names that Host may carry, beside those of loopback",
     SETTING_TEXT},
    {"key-manifest", "FILE", NULL, "private key that signs manifests, mode 0600; or fd:N",
     SETTING_TEXT},
    {"key-head", "FILE", NULL, "private key that signs heads, mode 0600; or fd:N, read once",
     SETTING_TEXT},
    {"token-file", "FILE", NULL, "token of the API; default: <data-dir>/token, made when missing",
     SETTING_TEXT},
    {"node-keys", "DIRECTORY", NULL,
     "public keys of nodes that were enrolled by hand; default: <data-dir>/nodes", SETTING_TEXT},
    {"ca", "DIRECTORY", NULL, "of ca.pem and ca.key: nodes join here and get certificates of it",
     SETTING_TEXT},
    {"ca-key", "FILE", NULL, "its private key, mode 0600, or fd:N, read once; default: <ca>/ca.key",
     SETTING_TEXT},
    {"dp-check", "PATH", NULL, "trilane-dp, which loads each snapshot before it is signed; or off",
     SETTING_TEXT},
    {"replica", "NAME", "cp-0", "of this replica, for people", SETTING_TEXT},
    {"advertise", "URL", NULL,
     "where other replicas reach this API; default: the address of listen-tls, or of listen",
     SETTING_TEXT},
    {"tls-ca", "FILE", NULL, "CA of the other replicas' certificates; default: the system's",
     SETTING_TEXT},
    {"log-level", "LEVEL", "info", "error, warn, info or debug", SETTING_TEXT},
    {"fault-step", "STEP", NULL,
     "tests: dies with SIGKILL before this step of a publication; stop:STEP: is stopped there",
     SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

struct serve {
    const struct cli *cli;
    struct buf message; /* one sentence about what went wrong. */
    const char *environment;
    const char *data;
    char store[PATH_SIZE];
    char token_path[PATH_SIZE];
    char node_keys[PATH_SIZE];
    char dp_check[PATH_SIZE];
    char signer_state[PATH_SIZE];
    char address[CP_ADDRESS_MAX + 1]; /* of the API, for other replicas. */
    char token[TOKEN_MAX];
    struct cp_warrant_key warrant_key; /* of it. */
    int lock_fd;
    struct cp_roots *roots;
    struct cp_signer *signer;
    struct cp_certifier *certifier; /* NULL: nobody joins here. */
    struct bus *bus;
    struct cp_leader *leader;
    uint32_t nats_replicas;
    struct cp_collector *collector;
    struct cp_shelf *shelf;
    struct cp_worker *publisher;
    struct cp_worker *reader;
    struct cp_worker *signatory; /* judges and signs other replicas' proposals. */
    struct cp_cosigner *cosigner;
    struct cp_worker *doorman;
    struct cp_registrar *registrar;
    struct cp_fleet *fleet;
    struct cp_shares *shares;
    struct net_loop *loop;
    struct net_tls *tls;
    struct cp_api *api;
    pthread_t signals;
    bool signals_started;
    struct net_task on_term;
    struct net_task on_hup;
    struct net_timer drain_timer;
    uint64_t drain_ns; /* when it began; 0: not draining. */
};

static struct err say(struct serve *s, struct err e, const char *what)
{
    if (!err_ok(e) && s->message.size == 0) {
        TRY(buf_addf(&s->message, "%s: %s", what, err_text(e.code)));
    }
    return e;
}

/* What the operating system said about a path. */
static struct err say_errno(struct serve *s, const char *setting, const char *path)
{
    TRY(buf_addf(&s->message, "%s: %s: %s", setting, path, strerrordesc_np(errno)));
    return FAIL(E_IO);
}

/* ---- files ---- */

static struct err path_in_data(struct serve *s, const char *setting, const char *name,
                               char out[PATH_SIZE])
{
    const char *given = setting == NULL ? NULL : settings_get(s->cli->settings, setting);
    int size = given == NULL ? snprintf(out, PATH_SIZE, "%s/%s", s->data, name)
                             : snprintf(out, PATH_SIZE, "%s", given);
    return size > 0 && size < PATH_SIZE ? OK : FAIL(E_TOO_LARGE);
}

/* trilane-dp lies beside our own binary unless it is named. */
static struct err find_check(struct serve *s)
{
    const char *given = settings_get(s->cli->settings, "dp-check");
    if (given != NULL) {
        (void)snprintf(s->dp_check, sizeof(s->dp_check), "%s", given);
    } else {
        char self[PATH_SIZE - 16] = "";
        ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
        char *slash = size > 0 ? strrchr(self, '/') : NULL;
        if (slash == NULL) {
            return say(s, FAIL(E_CHECK_MISSING), "dp-check");
        }
        *slash = '\0';
        (void)snprintf(s->dp_check, sizeof(s->dp_check), "%s/trilane-dp", self);
    }
    if (!err_ok(cp_check_program(s->dp_check))) { /* publishing refuses; all else works. */
        LOG(LOG_WARN, "serve", "check_missing", LOG_STR("path", s->dp_check));
    }
    return OK;
}

static struct err make_token(struct serve *s)
{
    uint8_t random[TOKEN_SIZE];
    char text[2 * TOKEN_SIZE + 2];
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), text);
    text[sizeof(text) - 2] = '\n';
    auto_close int fd = open(s->token_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t size = (ssize_t)sizeof(text) - 1;
    bool fine = fd >= 0 && write(fd, text, (size_t)size) == size && fsync(fd) == 0;
    return fine ? OK : FAIL(E_IO);
}

static struct err read_token(struct serve *s)
{
    auto_close int fd = open(s->token_path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        return FAIL(E_NOT_FOUND);
    }
    if ((info.st_mode & 077) != 0) {
        TRY(buf_addf(&s->message, "%s: others may read it; chmod 600", s->token_path));
        return FAIL(E_USAGE);
    }
    ssize_t size = read(fd, s->token, sizeof(s->token) - 1);
    struct slice text = slice_of(s->token, size < 0 ? 0 : (size_t)size);
    text = slice_head(text, slice_find(text, '\n'));
    s->token[text.size] = '\0';
    return text.size >= 16 ? OK : FAIL(E_MALFORMED);
}

/* An address that means "any" reaches nobody from elsewhere: then there is none. */
static struct err find_address(struct serve *s)
{
    const struct settings *settings = s->cli->settings;
    const char *given = settings_get(settings, "advertise");
    const char *tls = settings_get(settings, "listen-tls");
    const char *listen = tls == NULL ? settings_get(settings, "listen") : tls;
    bool any = listen == NULL || slice_starts(slice_str(listen), SLICE_LIT("0.0.0.0:")) ||
               slice_starts(slice_str(listen), SLICE_LIT("[::]:"));
    if (given != NULL && !slice_starts(slice_str(given), SLICE_LIT("https://")) &&
        !slice_starts(slice_str(given), SLICE_LIT("http://"))) {
        TRY(buf_addf(&s->message, "advertise: found \"%.200s\"; expected https://HOST:PORT",
                     given));
        return FAIL(E_USAGE);
    }
    int size = given != NULL ? snprintf(s->address, sizeof(s->address), "%s", given)
               : any         ? 0
                             : snprintf(s->address, sizeof(s->address), "%s://%s",
                                tls == NULL ? "http" : "https", listen);
    return size >= 0 && (size_t)size < sizeof(s->address) ? OK
                                                          : say(s, FAIL(E_TOO_LARGE), "advertise");
}

/* Who may write there puts an older memory under the signer, or a token of their own. */
static struct err make_data(struct serve *s)
{
    struct stat at;
    if ((mkdir(s->data, 0700) != 0 && errno != EEXIST) || stat(s->data, &at) != 0) {
        return say_errno(s, "data-dir", s->data);
    }
    if ((at.st_mode & S_IWOTH) != 0) {
        TRY(buf_addf(&s->message, "data-dir: everybody may write to %s: chmod 700 it", s->data));
        return FAIL(E_USAGE);
    }
    return OK;
}

static struct err prepare_files(struct serve *s)
{
    TRY(find_address(s));
    TRY(make_data(s));
    char path[PATH_SIZE];
    TRY(path_in_data(s, NULL, "lock", path));
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        return say_errno(s, "data-dir", path);
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        TRY(buf_addf(&s->message, "%s: another trilane-cp has this directory", s->data));
        return FAIL(E_CONFLICT);
    }
    TRY(path_in_data(s, "token-file", "token", s->token_path));
    TRY(path_in_data(s, "node-keys", "nodes", s->node_keys));
    TRY(path_in_data(s, NULL, "signer.state", s->signer_state));
    const char *store = settings_get(s->cli->settings, "store");
    int size = store == NULL ? snprintf(s->store, sizeof(s->store), "sqlite:%s/store.db", s->data)
                             : snprintf(s->store, sizeof(s->store), "%s", store);
    if (size < 0 || (size_t)size >= sizeof(s->store)) {
        return say(s, FAIL(E_TOO_LARGE), "store");
    }
    if (access(s->token_path, F_OK) != 0) {
        struct err made = make_token(s);
        TRY(err_ok(made) ? OK : say_errno(s, "token-file", s->token_path));
    }
    TRY(say(s, read_token(s), s->token_path));
    TRY(say(s, cp_warrant_key_make(slice_str(s->token), s->environment, &s->warrant_key),
            s->token_path));
    return find_check(s);
}

/* ---- keys ---- */

static struct err accept_keys(void *ctx, const struct cp_signer_hello *hello, struct buf *message)
{
    struct serve *s = ctx;
    return cp_roots_check_signer(s->roots, hello, message);
}

/* The roots of the files, and those of the database that they lead to. */
static struct err start_roots(struct serve *s)
{
    struct cp_store *store = NULL;
    TRY(cp_roots_new(settings_get(s->cli->settings, "trust-root"), s->environment, &s->roots,
                     &s->message));
    TRY(cp_store_await(s->store, &store, &s->message));
    struct err e = cp_roots_exchange(s->roots, store, s->environment, &s->message);
    cp_store_close(store);
    return e;
}

static struct err start_signer(struct serve *s)
{
    const struct settings *settings = s->cli->settings;
    struct cp_signer_options options = {.environment = s->environment,
                                        .key_manifest = settings_get(settings, "key-manifest"),
                                        .key_head = settings_get(settings, "key-head"),
                                        .state = s->signer_state,
                                        .accept = accept_keys,
                                        .accept_ctx = s};
    return cp_signer_start(&options, &s->signer, &s->message);
}

static struct err start_certifier(struct serve *s)
{
    struct cp_certifier_options options = {.ca = settings_get(s->cli->settings, "ca"),
                                           .key = settings_get(s->cli->settings, "ca-key")};
    return options.ca == NULL
               ? OK
               : say(s, cp_certifier_start(&options, &s->certifier, &s->message), "ca");
}

/* ---- threads ---- */

static void restore(void *ctx)
{
    struct serve *s = ctx;
    cp_worker_restore(s->publisher);
}

static void heard(void *ctx, const struct cp_fleet_order *most, struct cp_fleet_order *out)
{
    struct serve *s = ctx;
    cp_fleet_order(s->fleet, most, out);
}

static void follow(void *ctx)
{
    struct serve *s = ctx;
    cp_cosigner_wake(s->cosigner);
}

static void republish(void *ctx)
{
    struct serve *s = ctx;
    cp_worker_republish(s->publisher);
}

static struct err make_registrar(struct serve *s)
{
    const struct settings *settings = s->cli->settings;
    bool tls = settings_get(settings, "listen-tls") != NULL;
    struct cp_registrar_options options = {.environment = s->environment,
                                           .certifier = s->certifier,
                                           .tls_cert =
                                               tls ? settings_get(settings, "tls-cert") : NULL,
                                           .attestor = &cp_attest_token,
                                           .vouch_key = s->warrant_key.bytes};
    return say(s, cp_registrar_new(&options, &s->registrar), "registrar");
}

static struct err read_user(struct serve *s, const char *path, struct bus_user *out)
{
    struct err e = bus_user_read(path, out);
    if (!err_ok(e)) {
        TRY(buf_addf(&s->message, "nats-user-file: %s: %s", path, bus_user_why(e)));
    }
    return e;
}

static struct err start_bus(struct serve *s)
{
    char name[128];
    (void)snprintf(name, sizeof(name), "trilane-cp %.64s",
                   settings_get(s->cli->settings, "replica"));
    struct bus_config config = {.urls = settings_get(s->cli->settings, "nats-urls"),
                                .creds_file = settings_get(s->cli->settings, "nats-creds"),
                                .tls_ca = settings_get(s->cli->settings, "nats-ca"),
                                .tls_cert = settings_get(s->cli->settings, "nats-cert"),
                                .tls_key = settings_get(s->cli->settings, "nats-key"),
                                .name = name,
                                .inbox_prefix = "_INBOX.trilane-cp"};
    auto_bus_user struct bus_user user = {.name = ""};
    const char *user_file = settings_get(s->cli->settings, "nats-user-file");
    if (user_file != NULL) {
        TRY(read_user(s, user_file, &user));
        config.user = user.name;
        config.password = user.password;
    }
    if ((config.tls_cert == NULL) != (config.tls_key == NULL)) {
        return say(s, FAIL(E_USAGE), "nats-cert and nats-key go together");
    }
    return say(s, bus_open(&config, &s->bus), "nats-urls");
}

/* What others run on; leader and fleet begin with run_threads(). */
static struct err make_threads(struct serve *s)
{
    struct cp_leader_options leader = {.environment = s->environment,
                                       .name = settings_get(s->cli->settings, "replica"),
                                       .address = s->address,
                                       .store = s->store,
                                       .bus = s->bus,
                                       .roots = s->roots,
                                       .signer = s->signer,
                                       .warrant_key = &s->warrant_key,
                                       .restore = restore,
                                       .republish = republish,
                                       .heard = heard,
                                       .follow = follow,
                                       .ctx = s};
    TRY(cp_leader_new(&leader, &s->leader, &s->message));
    struct cp_fleet_options fleet = {.environment = s->environment,
                                     .node_keys = s->node_keys,
                                     .replicas = s->nats_replicas,
                                     .store = s->store,
                                     .bus = s->bus,
                                     .passports = cp_registrar_passports(s->registrar),
                                     .restore = restore,
                                     .restore_ctx = s};
    TRY(say(s, cp_fleet_new(&fleet, &s->fleet, &s->message), "fleet"));
    struct cp_shares_options shares = {.environment = s->environment,
                                       .bus = s->bus,
                                       .fleet = s->fleet,
                                       .leader = s->leader,
                                       .signer = s->signer};
    TRY(say(s, cp_shares_new(&shares, &s->shares), "shares"));
    TRY(say(s, cp_shelf_new(&s->shelf), "shelf"));
    struct cp_publish_room room = {.environment = s->environment,
                                   .dp_check = s->dp_check,
                                   .directory = s->data,
                                   .fault_step = settings_get(s->cli->settings, "fault-step"),
                                   .bus = s->bus,
                                   .roots = s->roots,
                                   .signer = s->signer,
                                   .warrant_key = &s->warrant_key,
                                   .leader = s->leader,
                                   .fleet = s->fleet,
                                   .shelf = s->shelf,
                                   .bucket.replicas = s->nats_replicas};
    TRY(say(s, cp_collector_new(&s->collector), "collector"));
    room.collector = s->collector;
    TRY(cp_worker_start(&room, s->store, &s->publisher, &s->message));
    room.collector = NULL; /* it is the publisher's. */
    TRY(cp_worker_start(&room, s->store, &s->doorman, &s->message));
    TRY(cp_worker_start(&room, s->store, &s->reader, &s->message));
    TRY(cp_worker_start(&room, s->store, &s->signatory, &s->message));
    return say(s, cp_cosigner_new(s->bus, s->environment, s->signatory, &s->cosigner), "cosigner");
}

static struct err run_threads(struct serve *s)
{
    TRY(say(s, cp_fleet_run(s->fleet), "fleet"));
    TRY(say(s, cp_leader_run(s->leader), "leader"));
    return say(s, cp_shares_run(s->shares), "shares");
}

/* ---- the API ---- */

static struct err load_tls(struct serve *s, struct net_tls **out)
{
    struct net_tls_options options = {.cert_file = settings_get(s->cli->settings, "tls-cert"),
                                      .key_file = settings_get(s->cli->settings, "tls-key"),
                                      .http1_only = true};
    return net_tls_server_new(&options, out);
}

static struct err start_api(struct serve *s)
{
    const struct settings *settings = s->cli->settings;
    struct cp_api_options options = {.loop = s->loop,
                                     .environment = s->environment,
                                     .listen = settings_get(settings, "listen"),
                                     .listen_tls = settings_get(settings, "listen-tls"),
                                     .server_names = settings_get(settings, "server-names"),
                                     .token = s->token,
                                     .forward = {.leader = s->leader,
                                                 .replica = settings_get(settings, "replica"),
                                                 .address = s->address,
                                                 .ca_file = settings_get(settings, "tls-ca")},
                                     .bus = s->bus,
                                     .roots = s->roots,
                                     .leader = s->leader,
                                     .collector = s->collector,
                                     .publisher = s->publisher,
                                     .reader = s->reader,
                                     .doorman = s->doorman,
                                     .registrar = s->registrar,
                                     .fleet = s->fleet,
                                     .shares = s->shares};
    if (options.listen_tls != NULL) {
        TRY(say(s, load_tls(s, &s->tls), "tls-cert, tls-key"));
        options.tls = s->tls;
    }
    return cp_api_new(&options, &s->api, &s->message);
}

/* ---- signals and drain ---- */

static void on_alarm(int number)
{
    (void)number;
    static const char line[] = "level=error module=serve event=forced\n";
    (void)!write(STDERR_FILENO, line, sizeof(line) - 1);
    _exit(CLI_FORCED);
}

/* Whatever hangs from here on ends the process with 6 after the shutdown timeout. Once armed it
 * stays as it is. */
static void arm_watchdog(void)
{
    struct itimerval now;
    (void)signal(SIGALRM, on_alarm);
    if (getitimer(ITIMER_REAL, &now) == 0 && timerisset(&now.it_value)) {
        return;
    }
    struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)(limits.shutdown_timeout_ms / 1000),
                     .tv_usec = (suseconds_t)(limits.shutdown_timeout_ms % 1000 * 1000)}};
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void on_drain_timer(struct net_timer *timer, void *ctx)
{
    struct serve *s = ctx;
    uint64_t age_ms = (clock_mono_ns() - s->drain_ns) / 1000000;
    if (cp_api_idle(s->api) || age_ms > limits.graceful_timeout_ms) {
        net_loop_stop(s->loop);
        return;
    }
    net_timer_arm(s->loop, timer, DRAIN_STEP_MS);
}

static void on_term(struct net_task *task, void *ctx)
{
    struct serve *s = ctx;
    (void)task;
    LOG(LOG_INFO, "serve", "drains", LOG_U64("graceful_timeout_ms", limits.graceful_timeout_ms));
    s->drain_ns = clock_mono_ns();
    arm_watchdog();
    cp_api_drain(s->api);
    net_timer_arm(s->loop, &s->drain_timer, 0);
}

static void on_hup(struct net_task *task, void *ctx)
{
    struct serve *s = ctx;
    struct net_tls *tls = NULL;
    (void)task;
    cp_leader_reload(s->leader);
    struct err e = s->tls == NULL ? OK : load_tls(s, &tls);
    LOG(err_ok(e) ? LOG_INFO : LOG_ERROR, "serve", "reload", LOG_ERR(e));
    if (tls != NULL) {
        cp_api_set_tls(s->api, tls);
        net_tls_unref(s->tls);
        s->tls = tls;
    }
}

static void blocked_signals(sigset_t *out)
{
    (void)sigemptyset(out);
    (void)sigaddset(out, SIGTERM);
    (void)sigaddset(out, SIGINT);
    (void)sigaddset(out, SIGHUP);
    (void)sigaddset(out, SIGUSR1); /* ours: the loop has ended. */
}

static void *wait_for_signals(void *ctx)
{
    struct serve *s = ctx;
    sigset_t set;
    blocked_signals(&set);
    bool draining = false;
    for (;;) { /* ends with SIGUSR1, or with the process. */
        int number = 0;
        if (sigwait(&set, &number) != 0 || number == SIGUSR1) {
            return NULL;
        }
        struct err e = OK;
        if (number == SIGHUP) {
            e = net_loop_post(s->loop, &s->on_hup);
        } else if (!draining) {
            draining = true;
            e = net_loop_post(s->loop, &s->on_term);
        }
        if (!err_ok(e)) {
            LOG(LOG_WARN, "serve", "signal_lost", LOG_I64("signal", number), LOG_ERR(e));
        }
    }
}

static struct err start_signals(struct serve *s)
{
    s->on_term = (struct net_task){.fn = on_term, .ctx = s};
    s->on_hup = (struct net_task){.fn = on_hup, .ctx = s};
    net_timer_init(&s->drain_timer, on_drain_timer, s);
    s->signals_started = pthread_create(&s->signals, NULL, wait_for_signals, s) == 0;
    return s->signals_started ? OK : FAIL(E_IO);
}

/* ---- all of it ---- */

static struct err start(struct serve *s)
{
    TRY(prepare_files(s));
    TRY(start_roots(s));
    TRY(start_signer(s)); /* both fork: no thread of ours exists yet, and no key but theirs. */
    TRY(start_certifier(s));
    TRY(say(s, net_ask_init(), "curl"));
    TRY(make_registrar(s));
    TRY(say(s, net_loop_new(&s->loop), "loop"));
    TRY(start_bus(s));
    TRY(make_threads(s));
    TRY(start_api(s));
    TRY(start_signals(s));
    return run_threads(s); /* last: a replica that cannot serve shall not take the leader's row. */
}

static void stop(struct serve *s)
{
    arm_watchdog();
    if (s->signals_started) {
        (void)pthread_kill(s->signals, SIGUSR1);
        CHECK(pthread_join(s->signals, NULL) == 0);
    }
    if (s->fleet != NULL) {
        cp_fleet_stop(s->fleet); /* a publication that waits for it goes on at once. */
    }
    cp_worker_finish(s->publisher); /* publications end with a leader, and the leader and the */
    cp_worker_finish(s->reader);    /* fleet ask the publisher for restores to their end. */
    cp_worker_finish(s->signatory);
    cp_worker_finish(s->doorman);
    cp_shares_free(s->shares);
    cp_leader_free(s->leader); /* it wakes the cosigner. */
    cp_cosigner_free(s->cosigner);
    cp_fleet_free(s->fleet);
    cp_worker_free(s->publisher);
    cp_worker_free(s->reader);
    cp_worker_free(s->signatory);
    cp_worker_free(s->doorman);
    cp_shelf_free(s->shelf);
    cp_registrar_free(s->registrar);
    cp_certifier_stop(s->certifier);
    cp_collector_free(s->collector);
    bus_close(s->bus);
    cp_api_close(s->api);
    net_loop_free(s->loop); /* its connections name the API. */
    cp_api_free(s->api);
    net_tls_unref(s->tls);
    cp_signer_stop(s->signer);
    cp_roots_free(s->roots);
    sodium_memzero(s->token, sizeof(s->token));
    sodium_memzero(&s->warrant_key, sizeof(s->warrant_key));
    scope_close(&s->lock_fd);
    buf_free(&s->message);
}

static bool settings_whole(const struct cli *cli)
{
    return cli_need(cli, "environment") != NULL && cli_need(cli, "trust-root") != NULL &&
           cli_need(cli, "key-manifest") != NULL && cli_need(cli, "key-head") != NULL;
}

static bool read_replicas(const struct settings *settings, uint32_t *out)
{
    uint64_t number = 0;
    bool fine = slice_to_u64(slice_str(settings_get(settings, "nats-replicas")), &number) &&
                (number == 1 || number == 3 || number == 5);
    *out = fine ? (uint32_t)number : 0;
    return fine;
}

static bool settings_right(const struct cli *cli)
{
    const struct settings *settings = cli->settings;
    const char *fault = settings_get(settings, "fault-step");
    enum log_level level = LOG_INFO;
    bool level_fine = log_level_find(slice_str(settings_get(settings, "log-level")), &level);
    if (!level_fine) {
        cli_say("error: USAGE: --log-level: expected error, warn, info or debug");
    }
    bool fault_fine = fault == NULL || cp_publish_is_step(fault);
    if (!fault_fine) {
        cli_say("error: USAGE: --fault-step is \"%s\"; expected a step of publish.h", fault);
    }
    bool tls_fine = (settings_get(settings, "listen-tls") == NULL) ||
                    (cli_need(cli, "tls-cert") != NULL && cli_need(cli, "tls-key") != NULL);
    bool name_fine = text_is_name(slice_str(settings_get(settings, "environment")));
    if (!name_fine) {
        cli_say("error: USAGE: --environment: expected a name of a-z, 0-9 and '-'");
    }
    bool ca_fine = settings_get(settings, "ca-key") == NULL || settings_get(settings, "ca") != NULL;
    if (!ca_fine) {
        cli_say("error: USAGE: --ca-key goes with --ca, the directory of ca.pem");
    }
    bool fresh_fine = limits.chunk_fresh_ms <= limits.collect_age_ms / 2;
    if (!fresh_fine) {
        cli_say("error: USAGE: --chunk-fresh-ms: expected at most half of --collect-age-ms");
    }
    bool store_fine = cli_store_fine(cli);
    uint32_t replicas = 0;
    bool replicas_fine = read_replicas(settings, &replicas);
    if (!replicas_fine) {
        cli_say("error: USAGE: --nats-replicas is \"%s\"; expected 1, 3 or 5",
                settings_get(settings, "nats-replicas"));
    }
    log_level_set(level);
    return level_fine && fault_fine && tls_fine && name_fine && fresh_fine && replicas_fine &&
           ca_fine && store_fine;
}

/* A publication takes tens of MiB for some milliseconds. Giving the pages back and taking them anew
 * would be a sixth of its compile: so much is kept for the next one. Before any thread. */
static void keep_memory(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, MEMORY_KEPT); /* NOLINT(concurrency-mt-unsafe) */
    (void)mallopt(M_MMAP_THRESHOLD, MEMORY_KEPT); /* NOLINT(concurrency-mt-unsafe) */
}

static int serve(const struct cli *cli)
{
    struct serve *s = calloc(1, sizeof(*s)); /* too large for a stack. */
    if (s == NULL) {
        return cli_fail(FAIL(E_NO_MEMORY), NULL);
    }
    s->cli = cli;
    s->lock_fd = -1;
    s->message = BUF_MAX(MESSAGE_MAX);
    s->environment = settings_get(cli->settings, "environment");
    (void)read_replicas(cli->settings, &s->nats_replicas); /* it was judged before. */
    s->data = settings_get(cli->settings, "data-dir");
    sigset_t set;
    blocked_signals(&set);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    keep_memory();
    int code = CLI_DONE;
    struct err e = start(s);
    if (err_ok(e)) {
        LOG(LOG_INFO, "serve", "started", LOG_STR("environment", s->environment));
        net_loop_run(s->loop);
        LOG(LOG_INFO, "serve", "stopped", LOG_U64("draining", s->drain_ns != 0));
    } else {
        const char *text = NULL;
        (void)cli_fail(e, err_ok(buf_cstr(&s->message, &text)) ? text : NULL);
        code = e.code == E_USAGE ? CLI_USAGE : CLI_REFUSED;
    }
    stop(s);
    free(s);
    return code;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        code = settings_whole(&cli) && settings_right(&cli) ? serve(&cli) : CLI_USAGE;
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_serve = {
    .name = "serve",
    .args = "--environment NAME --trust-root FILE --key-manifest FILE --key-head FILE",
    .summary = "runs one replica of the control plane",
    .rows = rows,
    .row_count = sizeof(rows) / sizeof(rows[0]),
    .needs_limits = true,
    .run = run,
};
