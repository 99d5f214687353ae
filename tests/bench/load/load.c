/*
 * load: an open-loop load generator for gRPC and HTTP/1.1.
 *
 * Requests are due at a constant rate whatever the server does, and a latency counts from the
 * moment that its request was due: a server that stalls is charged for all that waited meanwhile
 * (no coordinated omission). Answers are verified. What was due in the measured time is an answer
 * or an error: a wrong answer, and none within two seconds of the end, are errors. The result is
 * one JSON object on standard output. SIGTERM ends the measured time.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"

#include "tests/bench/load/histogram.h"
#include "tests/bench/load/options.h"
#include "tests/bench/load/session.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* Between the last connection and the first request: none is late because of another's dialling. */
#define LEAD_NS NS_PER_MS

enum { STEP_NS = 200000, SPARE_FILES = 64, HOLD_STEP_MS = 50 };

/* While connections are made, those that are there are looked at each so many. */
enum { LOOK_EVERY = 16 };

struct load {
    const struct options *o;
    struct session *sessions[CONNECTIONS_MAX];
    bool touched[CONNECTIONS_MAX]; /* it may have something to write. */
    size_t touched_list[CONNECTIONS_MAX];
    size_t touched_count;
    size_t turn; /* whose request is next. */
    uint64_t start_ns;
    uint64_t measure_from_ns;
    uint64_t measure_to_ns;
    uint64_t sent;
    uint64_t open;    /* sent, not answered. */
    uint64_t good;    /* answers in the measured time, by when they were due. */
    uint64_t in_time; /* of the good ones, those that came before the measured time was over. */
    uint64_t bad;
    uint64_t lost_connections;
    struct histogram latency;
};

/* ---- what is due ---- */

/* When request number n is due. */
static uint64_t due_ns(const struct load *load, uint64_t n)
{
    return load->start_ns + (uint64_t)((__uint128_t)n * NS_PER_S / load->o->rate);
}

/* The first request that is due at a moment or later. */
static uint64_t first_from(const struct load *load, uint64_t at_ns)
{
    __uint128_t scaled = (__uint128_t)(at_ns - load->start_ns) * load->o->rate;
    return (uint64_t)((scaled + NS_PER_S - 1) / NS_PER_S);
}

static uint64_t offered(const struct load *load)
{
    return first_from(load, load->measure_to_ns) - first_from(load, load->measure_from_ns);
}

/* ---- sending and taking ---- */

/* With many connections most have nothing to write: only those are looked at that may have. */
static void touch(struct load *load, size_t index)
{
    if (!load->touched[index]) {
        load->touched[index] = true;
        load->touched_list[load->touched_count++] = index;
    }
}

static void done(void *ctx, uint64_t start_ns, bool good)
{
    struct load *load = ctx;
    load->open--;
    if (start_ns < load->measure_from_ns) {
        return;
    }
    if (!good) {
        load->bad++;
        return;
    }
    uint64_t now_ns = clock_mono_ns();
    load->good++;
    load->in_time += now_ns <= load->measure_to_ns;
    histogram_add(&load->latency, (now_ns - start_ns) / 1000);
}

/* Gives what is due to sessions in turn; what finds no room stays due. */
static bool send_due(struct load *load, uint64_t now_ns)
{
    size_t full = 0;
    uint64_t due = due_ns(load, load->sent);
    while (due <= now_ns && due < load->measure_to_ns && full < load->o->connections) {
        size_t index = load->turn;
        struct session *s = load->sessions[index];
        load->turn = (index + 1) % load->o->connections;
        if (session_room(s) == 0) {
            full++;
            continue;
        }
        full = 0;
        if (!session_send(s, due)) {
            return false;
        }
        touch(load, index);
        load->open++;
        due = due_ns(load, ++load->sent);
    }
    return true;
}

static bool flush_touched(struct load *load, int epoll_fd)
{
    for (size_t i = 0; i < load->touched_count; i++) {
        size_t index = load->touched_list[i];
        struct session *s = load->sessions[index];
        bool before = session_wants_write(s);
        load->touched[index] = false;
        if (!session_flush(s)) {
            return false;
        }
        if (before != session_wants_write(s)) {
            struct epoll_event event = {.data.u64 = index, .events = EPOLLIN};
            event.events |= session_wants_write(s) ? (uint32_t)EPOLLOUT : 0U;
            CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, session_fd(s), &event) == 0);
        }
    }
    load->touched_count = 0;
    return true;
}

/* How long nothing has to be sent. Else requests go in small bursts, which costs less. */
static long step_of(const struct load *load, uint64_t now_ns)
{
    uint64_t due = due_ns(load, load->sent);
    uint64_t wait_ns = due > now_ns ? due - now_ns : STEP_NS; /* what is late waits for room. */
    return load->o->punctual && wait_ns < STEP_NS ? (long)wait_ns : STEP_NS;
}

static bool read_ready(struct load *load, int epoll_fd, long wait_ns)
{
    struct epoll_event events[256];
    const struct timespec step = {.tv_nsec = wait_ns};
    int count = epoll_pwait2(epoll_fd, events, 256, &step, /* sigmask: */ NULL);
    CHECK(count >= 0 || errno == EINTR);
    for (int i = 0; i < count; i++) {
        size_t index = (size_t)events[i].data.u64;
        touch(load, index);
        if (!session_read(load->sessions[index])) {
            return false;
        }
    }
    return true;
}

static volatile sig_atomic_t told_to_end;

static void end_soon(int signal_number)
{
    (void)signal_number;
    told_to_end = 1;
}

/* What was due by the end is sent even when it comes late; then the answers are awaited. */
static bool is_over(const struct load *load, uint64_t now_ns)
{
    bool all_sent = due_ns(load, load->sent) >= load->measure_to_ns;
    return now_ns >= load->measure_to_ns &&
           (now_ns >= load->measure_to_ns + load->o->await_ms * NS_PER_MS ||
            (all_sent && load->open == 0));
}

static bool run(struct load *load, int epoll_fd)
{
    for (;;) { /* ends by the clock. */
        uint64_t now_ns = clock_mono_ns();
        if (told_to_end != 0 && now_ns > load->measure_from_ns && now_ns < load->measure_to_ns) {
            load->measure_to_ns = now_ns;
        }
        if (is_over(load, now_ns)) {
            return true;
        }
        if (!send_due(load, now_ns) || !flush_touched(load, epoll_fd) ||
            !read_ready(load, epoll_fd, step_of(load, now_ns))) {
            load->lost_connections++;
            return false;
        }
    }
}

/* ---- beginning and end ---- */

/* One descriptor a connection, and some: as many as the hard limit allows. */
static bool allow_files(uint64_t connections)
{
    struct rlimit files;
    uint64_t wanted = connections + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return false;
    }
    if (files.rlim_cur < wanted) {
        files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
        return setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur >= wanted;
    }
    return true;
}

/* Adds a connection to those that are served. */
static void add_session(struct load *load, int epoll_fd, size_t index, struct session *s)
{
    load->sessions[index] = s;
    touch(load, index);
    struct epoll_event event = {.data.u64 = index, .events = EPOLLIN};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, session_fd(s), &event) == 0);
}

/* After connection 'index' was made: says what is to be said, and now and then looks who answers.
 */
static bool tend(struct load *load, int epoll_fd, size_t index)
{
    bool look = index % LOOK_EVERY == 0;
    return flush_touched(load, epoll_fd) &&
           (!look ||
            (read_ready(load, epoll_fd, /* wait_ns= */ 0) && flush_touched(load, epoll_fd)));
}

/* One after the other, each established before the next: no burst that a backlog would drop.
 * Meanwhile each says its preface and acknowledges SETTINGS: a server waits so long for these. */
static bool open_all(struct load *load, int epoll_fd)
{
    const struct options *o = load->o;
    if (!allow_files(o->connections)) {
        (void)fprintf(stderr, "load: no descriptors for %" PRIu64 " connections\n", o->connections);
        return false;
    }
    for (size_t i = 0; i < o->connections; i++) {
        struct session *s = session_open(o->host, o->port, &o->work, o->streams, done, load);
        if (s != NULL) {
            add_session(load, epoll_fd, i, s);
        }
        if (s == NULL || !tend(load, epoll_fd, i)) {
            (void)fprintf(stderr, "load: %zu of %" PRIu64 " connections were made\n", i,
                          o->connections);
            return false;
        }
    }
    return true;
}

static void print(const struct load *load)
{
    double seconds = (double)(load->measure_to_ns - load->measure_from_ns) / 1e9;
    const struct histogram *h = &load->latency;
    uint64_t all = offered(load);
    uint64_t unanswered = all - load->good - load->bad;
    (void)printf("{\"rate\": %" PRIu64 ", \"connections\": %" PRIu64 ", \"seconds\": %.3f",
                 load->o->rate, load->o->connections, seconds);
    (void)printf(", \"offered\": %" PRIu64 ", \"answers\": %" PRIu64 ", \"errors\": %" PRIu64, all,
                 load->good, load->bad + unanswered);
    (void)printf(", \"unanswered\": %" PRIu64 ", \"behind\": %" PRIu64
                 ", \"lost_connections\": %" PRIu64,
                 unanswered, load->good - load->in_time, load->lost_connections);
    (void)printf(", \"offered_per_s\": %.1f, \"answers_per_s\": %.1f, \"mean_us\": %.1f",
                 (double)all / seconds, (double)load->in_time / seconds,
                 h->total == 0 ? 0.0 : (double)h->sum_us / (double)h->total);
    static const struct {
        const char *name;
        double percent;
    } rows[] = {{"p50_us", 50}, {"p90_us", 90}, {"p95_us", 95}, {"p99_us", 99}, {"p999_us", 99.9}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)printf(", \"%s\": %" PRIu64, rows[i].name, histogram_at(h, rows[i].percent));
    }
    (void)printf(", \"max_us\": %" PRIu64 "}\n", h->max_us);
    (void)fflush(stdout);
}

static bool measure(struct load *load, int epoll_fd)
{
    load->start_ns = clock_mono_ns() + LEAD_NS;
    load->measure_from_ns = load->start_ns + load->o->warmup_ms * NS_PER_MS;
    load->measure_to_ns = load->measure_from_ns + load->o->duration_ms * NS_PER_MS;
    bool whole = run(load, epoll_fd);
    print(load);
    if (!whole) {
        (void)fprintf(stderr, "load: a connection was lost\n");
    }
    return whole;
}

/* Connections stay as they are; nobody asks anything any more. */
static void hold(void)
{
    while (told_to_end == 0) {
        (void)poll(/* fds= */ NULL, 0, HOLD_STEP_MS);
    }
}

/* Before the first connection is made, which it is for. */
static bool use_tls(struct options *o)
{
    if (o->tls.ca != NULL) {
        o->work.tls = wire_client(&o->tls, o->host, o->work.protocol == LOAD_HTTP1);
    }
    return o->tls.ca == NULL || o->work.tls != NULL;
}

int main(int argc, char **argv)
{
    static struct options o;
    static struct load load;
    options_read(argc, argv, &o);
    load.o = &o;
    /* A sleep ends when it is told to, and not up to 50 us later. */
    CHECK(!o.punctual || prctl(PR_SET_TIMERSLACK, 1UL) == 0);
    struct sigaction action = {.sa_handler = end_soon};
    CHECK(sigaction(SIGTERM, &action, NULL) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    if (!use_tls(&o)) {
        return 2;
    }
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_fd >= 0);
    bool good = open_all(&load, epoll_fd) && measure(&load, epoll_fd);
    if (good && o.hold) {
        hold();
    }
    for (size_t i = 0; i < o.connections; i++) {
        session_close(load.sessions[i]);
    }
    SSL_CTX_free(o.work.tls);
    return good ? 0 : 1;
}
