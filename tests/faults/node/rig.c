/* rig: see rig.h. */
#include "tests/faults/node/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/bus/subject.h"
#include "dataplane/admin/ask.h"

#include "tests/support/ports.h"

enum { WAIT_MS = 60000, STEP_MS = 10, TEXT_MAX = 4 << 20, PATH_SIZE = 256 };

#define HEAD_MAX (CONTAINER_HEADER_SIZE + HEAD_BODY_MAX + CONTAINER_SIGNATURE_SIZE)

static const struct slice environment = {(const uint8_t *)PUBLISHER_ENVIRONMENT,
                                         sizeof(PUBLISHER_ENVIRONMENT) - 1};

/* ---- ends ---- */

static void print_file(const char *path)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        (void)fputs(line, stderr);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

static void log_path(const struct rig *r, char out[PATH_SIZE])
{
    (void)snprintf(out, PATH_SIZE, "%s/node.log", r->directory);
}

static _Noreturn void give_up(struct rig *r, const char *what)
{
    char path[PATH_SIZE];
    log_path(r, path);
    (void)fprintf(stderr, "--- the node's log\n");
    print_file(path);
    (void)fprintf(stderr, "--- not seen: %s\n", what);
    if (r->node > 0) {
        (void)kill(r->node, SIGKILL);
    }
    if (r->nats > 0) {
        (void)kill(r->nats, SIGKILL);
    }
    abort();
}

static void must(struct rig *r, struct err e, const char *what)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "%s: %s at %s\n", what, err_name(e.code), e.where);
        give_up(r, what);
    }
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* ---- processes ---- */

/* Runs a program with its output in a file that is appended to. */
static pid_t spawn(const struct rig *r, const char *log, char *const argv[], const char *fault)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves nothing behind. */
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    (void)dup2(fd, STDOUT_FILENO);
    (void)dup2(fd, STDERR_FILENO);
    if (fault != NULL) {
        (void)setenv("TRILANE_FAULT", fault, 1); /* NOLINT(concurrency-mt-unsafe): the child */
    }
    if (r->file_bytes_max != 0) {
        struct rlimit limit = {r->file_bytes_max, r->file_bytes_max};
        (void)setrlimit(RLIMIT_FSIZE, &limit);
    }
    (void)execvp(argv[0], argv);
    _exit(127);
}

static void end(pid_t *pid, int signal_number)
{
    if (*pid > 0) {
        (void)kill(*pid, signal_number);
        (void)waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

void rig_nats_start(struct rig *r)
{
    char log[PATH_SIZE];
    char port[16];
    char store[PATH_SIZE];
    (void)snprintf(log, sizeof(log), "%s/nats.log", r->directory);
    (void)snprintf(port, sizeof(port), "%u", r->nats_port);
    (void)snprintf(store, sizeof(store), "%s/jetstream", r->directory);
    char *argv[] = {publisher_text("nats-server"),
                    publisher_text("-a"),
                    publisher_text("127.0.0.1"),
                    publisher_text("-p"),
                    port,
                    publisher_text("-js"),
                    publisher_text("-sd"),
                    store,
                    NULL};
    struct rig plain = *r;
    plain.file_bytes_max = 0;
    r->nats = spawn(&plain, log, argv, NULL);
    must(r, bus_wait_connected(r->bus, WAIT_MS), "nats-server");
}

void rig_nats_kill(struct rig *r)
{
    end(&r->nats, SIGKILL);
}

static int remove_entry(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    /* Nobody else walks a tree in this process. */
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); /* NOLINT(concurrency-mt-unsafe) */
}

void rig_nats_wipe(struct rig *r)
{
    char store[PATH_SIZE];
    CHECK(r->nats == 0);
    (void)snprintf(store, sizeof(store), "%s/jetstream", r->directory);
    remove_tree(store);
}

/* JetStream is ready somewhat after the connection is. */
static void ensure(struct rig *r, const struct kv *kv)
{
    struct kv_config config = {.history = 1, .max_bytes = 64 << 20};
    uint64_t until_ns = clock_mono_ns() + (uint64_t)WAIT_MS * 1000000;
    struct err e = kv_ensure(kv, &config, 1000, NULL, /* out= */ NULL);
    while (!err_ok(e) && clock_mono_ns() < until_ns) {
        pause_ms(STEP_MS);
        e = kv_ensure(kv, &config, 1000, NULL, /* out= */ NULL);
    }
    must(r, e, "bucket");
}

void rig_buckets(struct rig *r)
{
    ensure(r, &r->snapshots);
    ensure(r, &r->nodes);
}

void rig_node_start(struct rig *r, const char *fault)
{
    const char *build = getenv("TRILANE_BUILD_DIR"); /* NOLINT(concurrency-mt-unsafe) */
    char program[PATH_SIZE];
    char data[PATH_SIZE];
    char root[PATH_SIZE];
    char key[PATH_SIZE];
    char nats[64];
    char listen[64];
    char admin[64];
    char log[PATH_SIZE];
    char fetch[64];
    char level[32];
    CHECK(build != NULL);
    (void)snprintf(program, sizeof(program), "%s/trilane-dp", build);
    (void)snprintf(data, sizeof(data), "--data-dir=%s/data", r->directory);
    (void)snprintf(root, sizeof(root), "--trust-root=%s/root.1", r->directory);
    (void)snprintf(key, sizeof(key), "--key-status=%s/node.key", r->directory);
    (void)snprintf(nats, sizeof(nats), "--nats-urls=nats://127.0.0.1:%u", r->nats_port);
    (void)snprintf(listen, sizeof(listen), "--listen=127.0.0.1:%u", r->listen_port);
    (void)snprintf(admin, sizeof(admin), "--listen-admin=127.0.0.1:%u", r->admin_port);
    (void)snprintf(fetch, sizeof(fetch), "--fetch-timeout-ms=%u", r->fetch_timeout_ms);
    (void)snprintf(level, sizeof(level), "--log-level=%s", r->log_level);
    log_path(r, log);
    char *argv[] = {program,
                    publisher_text("serve"),
                    publisher_text("--environment=" PUBLISHER_ENVIRONMENT),
                    publisher_text("--node-id=node-1"),
                    publisher_text("--workers=2"),
                    publisher_text("--listen-proxy=off"),
                    publisher_text("--access-log=off"),
                    publisher_text("--poll-interval-ms=100"),
                    publisher_text("--good-after-ms=100"),
                    publisher_text("--status-interval-ms=200"),
                    publisher_text("--stale-after-ms=2000"),
                    fetch,
                    level,
                    publisher_text("--hints-per-second=1000"),
                    data,
                    root,
                    key,
                    nats,
                    listen,
                    admin,
                    NULL};
    CHECK(r->node == 0);
    r->node = spawn(r, log, argv, fault);
}

void rig_node_kill(struct rig *r)
{
    end(&r->node, SIGKILL);
}

int rig_node_stop(struct rig *r)
{
    int status = 0;
    (void)kill(r->node, SIGTERM);
    CHECK(waitpid(r->node, &status, 0) == r->node);
    r->node = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool rig_node_died(struct rig *r)
{
    if (r->node != 0 && waitpid(r->node, NULL, WNOHANG) == r->node) {
        r->node = 0;
    }
    return r->node == 0;
}

/* ---- steady calls ---- */

static bool listens(uint16_t port)
{
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static void traffic_path(const struct rig *r, char out[PATH_SIZE])
{
    (void)snprintf(out, PATH_SIZE, "%s/traffic.json", r->directory);
}

/* A program of the benches with its output in a file. */
static pid_t spawn_tool(const struct rig *r, const char *log, char *const argv[])
{
    const char *build = getenv("TRILANE_BUILD_DIR"); /* NOLINT(concurrency-mt-unsafe) */
    char program[PATH_SIZE];
    char *copy[24] = {program};
    CHECK(build != NULL);
    (void)snprintf(program, sizeof(program), "%s/%s", build, argv[0]);
    for (size_t i = 1; argv[i] != NULL; i++) {
        CHECK(i + 1 < sizeof(copy) / sizeof(copy[0]));
        copy[i] = argv[i];
    }
    struct rig plain = *r;
    plain.file_bytes_max = 0;
    return spawn(&plain, log, copy, NULL);
}

static void echo_start(struct rig *r)
{
    char port[16];
    char log[PATH_SIZE];
    (void)snprintf(port, sizeof(port), "%u", r->echo_port);
    (void)snprintf(log, sizeof(log), "%s/echo.log", r->directory);
    r->echo = spawn_tool(r, log, (char *const[]){publisher_text("bench-echo"), port, NULL});
    for (int i = 0; !listens(r->echo_port); i++) {
        CHECK(i < WAIT_MS / STEP_MS);
        pause_ms(STEP_MS);
    }
}

void rig_traffic_start(struct rig *r)
{
    char port[16];
    char rate[16];
    char path[PATH_SIZE];
    CHECK(r->load == 0);
    if (r->echo == 0) {
        echo_start(r);
    }
    (void)snprintf(port, sizeof(port), "%u", r->listen_port);
    (void)snprintf(rate, sizeof(rate), "%d", RIG_CALLS_PER_S);
    traffic_path(r, path);
    (void)remove(path);
    char *argv[] = {publisher_text("bench-load"),
                    publisher_text("--port"),
                    port,
                    publisher_text("--rate"),
                    rate,
                    publisher_text("--connections"),
                    publisher_text("4"),
                    publisher_text("--duration-ms"),
                    publisher_text("3600000"),
                    publisher_text("--path"),
                    publisher_text("/acme.orders/Echo"),
                    publisher_text("--header"),
                    publisher_text("authorization: Bearer token-of-web"),
                    publisher_text("--header"),
                    publisher_text("grpc-timeout: 60S"), /* lost calls count, not slow ones. */
                    publisher_text("--await-ms"),
                    publisher_text("60000"),
                    NULL};
    r->load = spawn_tool(r, path, argv);
}

void rig_traffic_end(struct rig *r)
{
    char path[PATH_SIZE];
    int status = 0;
    CHECK(r->load > 0);
    (void)kill(r->load, SIGTERM);
    CHECK(waitpid(r->load, &status, 0) == r->load);
    r->load = 0;
    traffic_path(r, path);
    json_t *o = json_load_file(path, 0, NULL);
    int64_t answers = json_integer_value(json_object_get(o, "answers"));
    bool whole = WIFEXITED(status) && WEXITSTATUS(status) == 0 && answers > 0 &&
                 json_integer_value(json_object_get(o, "errors")) == 0;
    json_decref(o);
    if (!whole) {
        (void)fprintf(stderr, "--- the calls\n");
        print_file(path);
        give_up(r, "every call answered");
    }
}

/* ---- the rig ---- */

static void write_root(struct rig *r)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/root.1", r->directory);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    struct slice bytes = buf_slice(&r->publisher.root_bytes);
    CHECK(fwrite(bytes.ptr, 1, bytes.size, file) == bytes.size);
    CHECK(fclose(file) == 0);
}

static void open_bus(struct rig *r)
{
    char url[64];
    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", r->nats_port);
    struct bus_config config = {.urls = url, .name = "rig"};
    struct subject name;
    must(r, bus_open(&config, &r->bus), "bus");
    must(r, subject_bucket_snapshots(environment, &name), "bucket's name");
    must(r, kv_bind(&r->snapshots, r->bus, subject_slice(&name)), "bucket");
    must(r, subject_bucket_nodes(environment, &name), "bucket's name");
    must(r, kv_bind(&r->nodes, r->bus, subject_slice(&name)), "bucket");
}

void rig_start(struct rig *r)
{
    char path[PATH_SIZE];
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    *r = (struct rig){.epoch = 1, .fetch_timeout_ms = 5000, .log_level = "info"};
    (void)snprintf(r->directory, sizeof(r->directory), "%s/trilane-faults-XXXXXX",
                   base == NULL ? "/tmp" : base);
    CHECK(mkdtemp(r->directory) != NULL);
    publisher_init(&r->publisher);
    write_root(r);
    must(r, key_pair_new(KEY_ROLE_NODE, SLICE_LIT("node-1"), &r->node_key), "node key");
    (void)snprintf(path, sizeof(path), "%s/node.key", r->directory);
    must(r, key_file_write(path, &r->node_key), "node key's file");
    r->nats_port = test_free_port();
    r->admin_port = test_free_port();
    r->listen_port = test_free_port();
    r->echo_port = test_free_port();
    open_bus(r);
    rig_nats_start(r);
    rig_buckets(r);
}

void rig_end(struct rig *r)
{
    end(&r->load, SIGKILL);
    end(&r->node, SIGKILL);
    end(&r->echo, SIGKILL);
    bus_close(r->bus);
    end(&r->nats, SIGKILL);
    publisher_free(&r->publisher);
    remove_tree(r->directory);
}

/* ---- publishing ---- */

void rig_head_bytes(struct rig *r, struct slice bytes)
{
    if (r->way != RIG_HINT) {
        publisher_put(&r->snapshots, SNAP_KEY_HEAD, bytes);
    }
    if (r->way != RIG_PUT) {
        struct subject subject;
        must(r, subject_head(environment, &subject), "subject");
        struct bus_outgoing hint = {.subject = subject_slice(&subject), .payload = bytes};
        must(r, bus_publish(r->bus, &hint), "hint");
    }
}

void rig_head(struct rig *r, struct head_plan *plan)
{
    auto_buf struct buf bytes = BUF_MAX(HEAD_MAX);
    plan->epoch = plan->epoch == 0 ? r->epoch : plan->epoch;
    plan->sequence = plan->sequence == 0 ? ++r->sequence : plan->sequence;
    publisher_head(&r->publisher, plan, &bytes);
    rig_head_bytes(r, buf_slice(&bytes));
}

/* What the last honest version is, so that a heartbeat can point at it. */
static uint8_t last_digest[DIGEST_SIZE];

void rig_heartbeat(struct rig *r)
{
    struct head_plan plan = {
        .version = r->version, .digest = last_digest, .root_version = r->publisher.root.version};
    rig_head(r, &plan);
}

void rig_publish(struct rig *r)
{
    struct content *c = content_sample(r->echo_port);
    content_move_web(c, (uint16_t)(1000 + r->version));
    content_fill_policies(c, 3000);
    struct version *v = version_new(&r->publisher, c, ++r->version, NULL);
    publisher_put_version(&r->snapshots, v);
    memcpy(last_digest, v->digest, sizeof(last_digest));
    version_free(v);
    content_free(c);
    rig_heartbeat(r);
}

/* ---- what the node says ---- */

static struct err ask(const struct rig *r, const char *path, struct buf *out)
{
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", r->admin_port);
    return dp_ask(slice_str(address), slice_str(path), (struct slice){0}, out);
}

static void copy_text(json_t *from, const char *name, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(from, name));
    (void)snprintf(out, size, "%s", text == NULL ? "" : text);
}

static uint64_t number(json_t *from, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(from, name));
}

bool rig_dump(struct rig *r, struct rig_dump *out)
{
    auto_buf struct buf text = BUF_MAX(TEXT_MAX);
    if (!err_ok(ask(r, "/dump", &text))) {
        return false;
    }
    json_t *o = json_loadb((const char *)text.ptr, text.size, 0, NULL);
    json_t *snapshot = json_object_get(o, "snapshot");
    *out = (struct rig_dump){
        .version = number(o, "version"),
        .refusals = number(snapshot, "refusals"),
        .live = number(snapshot, "live"),
        .root_version = number(snapshot, "root_version"),
    };
    copy_text(o, "state", out->state, sizeof(out->state));
    copy_text(o, "code", out->code, sizeof(out->code));
    copy_text(snapshot, "last_refusal", out->last_refusal, sizeof(out->last_refusal));
    json_decref(o);
    return true;
}

bool rig_ready(struct rig *r)
{
    auto_buf struct buf text = BUF_MAX(TEXT_MAX);
    return err_ok(ask(r, "/ready", &text));
}

double rig_metric(struct rig *r, const char *line)
{
    auto_buf struct buf text = BUF_MAX(TEXT_MAX);
    const char *all = NULL;
    if (!err_ok(ask(r, "/metrics", &text)) || !err_ok(buf_cstr(&text, &all))) {
        return -1;
    }
    const char *at = strstr(all, line);
    return at == NULL ? -1 : strtod(at + strlen(line), NULL);
}

bool rig_log_has(struct rig *r, const char *wanted)
{
    char path[PATH_SIZE];
    log_path(r, path);
    FILE *file = fopen(path, "re");
    char line[2048];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        found = strstr(line, wanted) != NULL;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

bool rig_status(struct rig *r, struct status *out)
{
    auto_buf struct buf bytes = BUF_MAX(4096);
    struct kv_entry entry = {0};
    uint8_t id[ENVIRONMENT_SIZE];
    snap_environment(environment, id);
    return err_ok(kv_get(&r->nodes, SLICE_LIT("node-1"), KV_READ_LEADER, 1000, &bytes, &entry)) &&
           entry.state == KV_VALUE &&
           err_ok(status_open(buf_slice(&bytes), id, &r->node_key.public, out));
}

/* ---- waiting ---- */

/* Beats, so that what a node waits for comes, and looks again. */
#define WAIT_UNTIL(r, condition, ...)                                                              \
    do {                                                                                           \
        uint64_t until_ns_ = clock_mono_ns() + (uint64_t)WAIT_MS * 1000000;                        \
        while (!(condition)) {                                                                     \
            if (clock_mono_ns() > until_ns_) {                                                     \
                char what_[128];                                                                   \
                (void)snprintf(what_, sizeof(what_), __VA_ARGS__);                                 \
                give_up(r, what_);                                                                 \
            }                                                                                      \
            pause_ms(STEP_MS);                                                                     \
        }                                                                                          \
    } while (0)

void rig_wait_version(struct rig *r, uint64_t version)
{
    struct rig_dump d = {0};
    WAIT_UNTIL(r, rig_dump(r, &d) && d.version == version, "version %llu (it is %llu, %s %s)",
               (unsigned long long)version, (unsigned long long)d.version, d.state, d.code);
}

/* On a slow machine GOOD comes after the head is stale: a leader would have sent another. */
static void beat_for_good(struct rig *r, const char *state, const char *found)
{
    if (strcmp(state, "GOOD") == 0 && strcmp(found, "STALE") == 0) {
        rig_heartbeat(r);
        pause_ms(200);
    }
}

static bool is_in_state(struct rig *r, const char *state, struct rig_dump *out)
{
    if (!rig_dump(r, out)) {
        return false;
    }
    beat_for_good(r, state, out->state);
    return strcmp(out->state, state) == 0;
}

void rig_wait_state(struct rig *r, const char *state)
{
    struct rig_dump d = {0};
    WAIT_UNTIL(r, is_in_state(r, state, &d), "state %s (it is %s %s)", state, d.state, d.code);
}

void rig_wait_refusal(struct rig *r, const char *code, uint64_t before)
{
    struct rig_dump d = {0};
    WAIT_UNTIL(r, rig_dump(r, &d) && d.refusals > before && strcmp(d.last_refusal, code) == 0,
               "refusal %s (it is %s, state %s)", code, d.last_refusal, d.state);
}

static bool says_state(struct rig *r, uint64_t version, enum snap_state state, struct status *out)
{
    if (!rig_status(r, out) || out->version != version) {
        return false;
    }
    beat_for_good(r, snap_state_name(state), snap_state_name(out->state));
    return out->state == state;
}

void rig_wait_status(struct rig *r, uint64_t version, enum snap_state state)
{
    struct status s = {0};
    WAIT_UNTIL(r, says_state(r, version, state, &s), "status %llu %s (it is %llu %s)",
               (unsigned long long)version, snap_state_name(state), (unsigned long long)s.version,
               snap_state_name(s.state));
}

void rig_wait_status_code(struct rig *r, enum err_code code)
{
    struct status s = {0};
    WAIT_UNTIL(r, rig_status(r, &s) && s.code == code, "status code %s (it is %s)", err_name(code),
               err_name(s.code));
}
