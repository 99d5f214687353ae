/*
 * trace: sends calls of many keys when a trace says, and counts which were answered well.
 *
 *     trace PORT PATH HEADER CONNECTIONS TOKEN < TRACE
 *
 * A line of the trace is "MICROSECONDS KEY", ascending; a call has its key's number in HEADER. The
 * result is one JSON object: "good", a list of each key's calls that were answered with grpc-status
 * 0, "late_us", the most by which a call was sent behind its time, and "lost", calls without any
 * answer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/check.h"
#include "common/base/clock.h"

#include "tests/bench/load/session.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)

enum { SESSIONS_MAX = 64, STREAMS = 100, KEYS_MAX = 100000, LINES_MAX = 10000000 };
enum { LEAD_MS = 100, AWAIT_MS = 3000, KEY_TEXT = 24, ARGUMENTS = 6, BODY = 16 };

struct call {
    uint64_t due_us;
    uint32_t key;
};

static struct {
    struct call *calls;
    size_t count;
    struct session *sessions[SESSIONS_MAX];
    size_t session_count;
    uint64_t start_ns;
    size_t sent;
    size_t answered;
    uint64_t late_ns;
    uint64_t *good; /* by key. */
    size_t key_count;
    char (*names)[KEY_TEXT]; /* by key: fields are borrowed. */
} t;

static void done(void *ctx, uint64_t key, bool good)
{
    (void)ctx;
    t.answered++;
    t.good[key] += good;
}

static void read_trace(void)
{
    t.calls = calloc(LINES_MAX, sizeof(*t.calls));
    t.good = calloc(KEYS_MAX, sizeof(*t.good));
    t.names = calloc(KEYS_MAX, sizeof(*t.names));
    CHECK(t.calls != NULL && t.good != NULL && t.names != NULL);
    char line[64];
    while (t.count < LINES_MAX && fgets(line, sizeof(line), stdin) != NULL) {
        char *end = NULL;
        struct call *call = &t.calls[t.count++];
        call->due_us = strtoull(line, &end, 10);
        call->key = (uint32_t)strtoul(end, NULL, 10);
        CHECK(call->key < KEYS_MAX);
        t.key_count = call->key >= t.key_count ? call->key + 1 : t.key_count;
    }
    for (size_t i = 0; i < t.key_count; i++) {
        (void)snprintf(t.names[i], KEY_TEXT, "%zu", i);
    }
}

/* Calls that are due go to the connections in turn; one whose connection is full waits. */
static bool send_due(const char *header)
{
    uint64_t now_ns = clock_mono_ns();
    while (t.sent < t.count) {
        const struct call *call = &t.calls[t.sent];
        struct session *s = t.sessions[t.sent % t.session_count];
        uint64_t due_ns = t.start_ns + call->due_us * NS_PER_US;
        if (due_ns > now_ns || session_room(s) == 0) {
            break;
        }
        t.late_ns = now_ns - due_ns > t.late_ns ? now_ns - due_ns : t.late_ns;
        if (!session_send_with(s, call->key, header, t.names[call->key])) {
            return false;
        }
        t.sent++;
    }
    for (size_t i = 0; i < t.session_count; i++) {
        if (!session_flush(t.sessions[i])) {
            return false;
        }
    }
    return true;
}

static bool run(int epoll_fd, const char *header)
{
    uint64_t until_ns = t.start_ns + t.calls[t.count - 1].due_us * NS_PER_US;
    until_ns += AWAIT_MS * NS_PER_MS;
    while (t.answered < t.count && clock_mono_ns() < until_ns) {
        struct epoll_event events[SESSIONS_MAX];
        if (!send_due(header)) {
            return false;
        }
        int count = epoll_wait(epoll_fd, events, SESSIONS_MAX, /* timeout= */ 1);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        for (int i = 0; i < count; i++) {
            if (!session_read(events[i].data.ptr)) {
                return false;
            }
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != ARGUMENTS) {
        (void)fprintf(stderr, "usage: trace PORT PATH HEADER CONNECTIONS TOKEN < TRACE\n");
        return 2;
    }
    read_trace();
    static const uint8_t body[BODY] = {0, 0, 0, 0, BODY - 5, 0x0a, BODY - 7};
    const char *headers[] = {"authorization", argv[5], NULL};
    struct load_work work = {.protocol = LOAD_GRPC,
                             .authority = "127.0.0.1",
                             .path = argv[2],
                             .headers = headers,
                             .body = body,
                             .body_bytes = sizeof(body)};
    t.session_count = strtoul(argv[4], NULL, 10);
    CHECK(t.count > 0 && t.session_count > 0 && t.session_count <= SESSIONS_MAX);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_fd >= 0);
    for (size_t i = 0; i < t.session_count; i++) {
        t.sessions[i] = session_open("127.0.0.1", argv[1], &work, STREAMS, done, NULL);
        if (t.sessions[i] == NULL) {
            return 1;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = t.sessions[i]};
        CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, session_fd(t.sessions[i]), &event) == 0);
    }
    t.start_ns = clock_mono_ns() + LEAD_MS * NS_PER_MS;
    if (!run(epoll_fd, argv[3])) {
        (void)fprintf(stderr, "trace: a connection was lost\n");
        return 1;
    }
    (void)printf("{\"late_us\": %" PRIu64 ", \"lost\": %zu, \"good\": [", t.late_ns / NS_PER_US,
                 t.count - t.answered);
    for (size_t i = 0; i < t.key_count; i++) {
        (void)printf("%s%" PRIu64, i == 0 ? "" : ", ", t.good[i]);
    }
    (void)printf("]}\n");
    return 0;
}
