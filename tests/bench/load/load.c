/*
 * load: an open-loop load generator for gRPC and HTTP/1.1.
 *
 * Requests are due at a constant rate whatever the server does, and a latency counts from the
 * moment that its request was due: a server that stalls is charged for all that waited meanwhile
 * (no coordinated omission). Answers are verified. The result is one JSON object on standard
 * output.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/slice.h"

#include "tests/bench/load/histogram.h"
#include "tests/bench/load/session.h"

enum { SESSIONS_MAX = 4096, HEADERS_MAX = 16, BODY_MAX = 1 << 20, STEP_NS = 200000 };

struct options {
    const char *host;
    const char *port;
    uint64_t rate; /* requests a second. */
    size_t connections;
    size_t streams;
    uint64_t warmup_ms;
    uint64_t duration_ms;
    size_t body_bytes;
    const char *headers[2 * HEADERS_MAX + 1];
    size_t header_count;
    struct load_work work;
};

struct load {
    const struct options *o;
    struct session *sessions[SESSIONS_MAX];
    size_t turn; /* whose request is next. */
    uint64_t start_ns;
    uint64_t measure_from_ns;
    uint64_t measure_to_ns;
    uint64_t sent;
    uint64_t good; /* answers in the measured time, by when they were due. */
    uint64_t bad;
    uint64_t lost_connections;
    struct histogram latency;
};

static void done(void *ctx, uint64_t start_ns, bool good)
{
    struct load *load = ctx;
    if (start_ns < load->measure_from_ns || start_ns >= load->measure_to_ns) {
        return;
    }
    if (!good) {
        load->bad++;
        return;
    }
    load->good++;
    histogram_add(&load->latency, (clock_mono_ns() - start_ns) / 1000);
}

/* When request number n is due. */
static uint64_t due_ns(const struct load *load, uint64_t n)
{
    return load->start_ns + (uint64_t)((__uint128_t)n * 1000000000U / load->o->rate);
}

/* Gives what is due to sessions in turn; what finds no room stays due. */
static bool send_due(struct load *load, uint64_t now_ns)
{
    size_t full = 0;
    while (due_ns(load, load->sent) <= now_ns && due_ns(load, load->sent) < load->measure_to_ns &&
           full < load->o->connections) {
        struct session *s = load->sessions[load->turn];
        load->turn = (load->turn + 1) % load->o->connections;
        if (session_room(s) == 0) {
            full++;
            continue;
        }
        full = 0;
        if (!session_send(s, due_ns(load, load->sent))) {
            return false;
        }
        load->sent++;
    }
    return true;
}

static bool flush_all(struct load *load, int epoll_fd)
{
    for (size_t i = 0; i < load->o->connections; i++) {
        struct session *s = load->sessions[i];
        bool before = session_wants_write(s);
        if (!session_flush(s)) {
            return false;
        }
        if (before != session_wants_write(s)) {
            struct epoll_event event = {.data.ptr = s, .events = EPOLLIN};
            event.events |= session_wants_write(s) ? (uint32_t)EPOLLOUT : 0U;
            CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, session_fd(s), &event) == 0);
        }
    }
    return true;
}

static bool open_all(struct load *load, int epoll_fd)
{
    for (size_t i = 0; i < load->o->connections; i++) {
        struct session *s = session_open(load->o->host, load->o->port, &load->o->work,
                                         load->o->streams, done, load);
        if (s == NULL) {
            return false;
        }
        load->sessions[i] = s;
        struct epoll_event event = {.data.ptr = s, .events = EPOLLIN};
        CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, session_fd(s), &event) == 0);
    }
    return true;
}

/* Until the measured time is over and what was sent in it is answered, or two seconds more. */
static bool run(struct load *load, int epoll_fd)
{
    for (;;) { /* ends by the clock. */
        uint64_t now_ns = clock_mono_ns();
        if (now_ns >= load->measure_to_ns + 2000000000ULL) {
            return true;
        }
        if (now_ns >= load->measure_to_ns) {
            size_t open = 0;
            for (size_t i = 0; i < load->o->connections; i++) {
                size_t all = load->o->work.protocol == LOAD_HTTP1 ? 1 : load->o->streams;
                open += all - session_room(load->sessions[i]);
            }
            if (open == 0) {
                return true;
            }
        }
        if (!send_due(load, now_ns) || !flush_all(load, epoll_fd)) {
            return false;
        }
        struct epoll_event events[256];
        const struct timespec step = {.tv_nsec = STEP_NS};
        int count = epoll_pwait2(epoll_fd, events, 256, &step, /* sigmask: */ NULL);
        CHECK(count >= 0 || errno == EINTR);
        for (int i = 0; i < count; i++) {
            if (!session_read(events[i].data.ptr)) {
                load->lost_connections++;
                return false;
            }
        }
    }
}

static void print(const struct load *load)
{
    double seconds = (double)(load->measure_to_ns - load->measure_from_ns) / 1e9;
    const struct histogram *h = &load->latency;
    (void)printf("{\"rate\": %" PRIu64 ", \"seconds\": %.3f, \"answers\": %" PRIu64
                 ", \"errors\": %" PRIu64 ", \"answers_per_s\": %.1f, \"mean_us\": %.1f",
                 load->o->rate, seconds, load->good, load->bad, (double)load->good / seconds,
                 h->total == 0 ? 0.0 : (double)h->sum_us / (double)h->total);
    static const struct {
        const char *name;
        double percent;
    } rows[] = {{"p50_us", 50}, {"p90_us", 90}, {"p99_us", 99}, {"p999_us", 99.9}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)printf(", \"%s\": %" PRIu64, rows[i].name, histogram_at(h, rows[i].percent));
    }
    (void)printf(", \"max_us\": %" PRIu64 ", \"lost_connections\": %" PRIu64 "}\n", h->max_us,
                 load->lost_connections);
}

static void usage(void)
{
    (void)fprintf(stderr,
                  "usage: load --host H --port P --path PATH [--protocol grpc|http1] [--rate N]\n"
                  "            [--connections N] [--streams N] [--warmup-ms N] [--duration-ms N]\n"
                  "            [--body-bytes N] [--header 'name: value']… [--no-echo]\n");
    exit(2);
}

static uint64_t number(const char *text, uint64_t max)
{
    uint64_t value = 0;
    if (!slice_to_u64(slice_str(text), &value) || value > max) {
        usage();
    }
    return value;
}

static void add_header(struct options *o, char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL || o->header_count == HEADERS_MAX) {
        usage();
    }
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " ");
    o->headers[2 * o->header_count] = text;
    o->headers[2 * o->header_count + 1] = value;
    o->header_count++;
}

static void read_options(int argc, char **argv, struct options *o)
{
    static const struct option flags[] = {{"host", 1, NULL, 'h'},
                                          {"port", 1, NULL, 'p'},
                                          {"path", 1, NULL, 'P'},
                                          {"protocol", 1, NULL, 'x'},
                                          {"rate", 1, NULL, 'r'},
                                          {"connections", 1, NULL, 'c'},
                                          {"streams", 1, NULL, 's'},
                                          {"warmup-ms", 1, NULL, 'w'},
                                          {"duration-ms", 1, NULL, 'd'},
                                          {"body-bytes", 1, NULL, 'b'},
                                          {"header", 1, NULL, 'H'},
                                          {"no-echo", 0, NULL, 'n'},
                                          {NULL, 0, NULL, 0}};
    *o = (struct options){.host = "127.0.0.1",
                          .rate = 1000,
                          .connections = 8,
                          .streams = 32,
                          .warmup_ms = 1000,
                          .duration_ms = 5000,
                          .body_bytes = 128,
                          .work.expect_echo = true};
    for (int c = getopt_long(argc, argv, "", flags, NULL); c != -1;
         c = getopt_long(argc, argv, "", flags, NULL)) {
        switch (c) {
        case 'h':
            o->host = optarg;
            break;
        case 'p':
            o->port = optarg;
            break;
        case 'P':
            o->work.path = optarg;
            break;
        case 'x':
            o->work.protocol = strcmp(optarg, "http1") == 0 ? LOAD_HTTP1 : LOAD_GRPC;
            break;
        case 'r':
            o->rate = number(optarg, 10000000);
            break;
        case 'c':
            o->connections = number(optarg, SESSIONS_MAX);
            break;
        case 's':
            o->streams = number(optarg, 10000);
            break;
        case 'w':
            o->warmup_ms = number(optarg, 3600000);
            break;
        case 'd':
            o->duration_ms = number(optarg, 86400000);
            break;
        case 'b':
            o->body_bytes = number(optarg, BODY_MAX);
            break;
        case 'H':
            add_header(o, optarg);
            break;
        case 'n':
            o->work.expect_echo = false;
            break;
        default:
            usage();
        }
    }
    if (o->port == NULL || o->work.path == NULL || o->rate == 0 || o->connections == 0 ||
        o->streams == 0) {
        usage();
    }
}

/* A body of printable bytes; for gRPC one message: field 1, bytes, so that protobuf takes it. */
static void make_body(struct options *o)
{
    static uint8_t body[BODY_MAX + 16];
    size_t at = 0;
    if (o->work.protocol == LOAD_GRPC) {
        size_t varint = o->body_bytes < 128 ? 1 : o->body_bytes < 16384 ? 2 : 3;
        size_t message = 1 + varint + o->body_bytes;
        body[at++] = 0;
        for (int shift = 24; shift >= 0; shift -= 8) {
            body[at++] = (uint8_t)(message >> shift);
        }
        body[at++] = 0x0a;
        size_t left = o->body_bytes;
        for (size_t i = 0; i < varint; i++) {
            body[at++] = (uint8_t)((left & 127) | (i + 1 < varint ? 128 : 0));
            left >>= 7;
        }
    }
    for (size_t i = 0; i < o->body_bytes; i++) {
        body[at++] = (uint8_t)('a' + i % 26);
    }
    o->work.body = body;
    o->work.body_bytes = at;
}

int main(int argc, char **argv)
{
    static struct options o;
    static struct load load;
    read_options(argc, argv, &o);
    make_body(&o);
    char authority[300];
    (void)snprintf(authority, sizeof(authority), "%s:%s", o.host, o.port);
    o.work.authority = authority;
    o.work.headers = o.headers;
    load.o = &o;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_fd >= 0);
    if (!open_all(&load, epoll_fd)) {
        return 1;
    }
    load.start_ns = clock_mono_ns() + 1000000;
    load.measure_from_ns = load.start_ns + o.warmup_ms * 1000000;
    load.measure_to_ns = load.measure_from_ns + o.duration_ms * 1000000;
    bool good = run(&load, epoll_fd);
    print(&load);
    for (size_t i = 0; i < o.connections; i++) {
        session_close(load.sessions[i]);
    }
    if (!good) {
        (void)fprintf(stderr, "load: a connection was lost\n");
        return 1;
    }
    return 0;
}
