/*
 * echo: the upstream of the benches: a gRPC server that answers every request with its own body.
 *
 * nghttp2 and epoll on one thread, as little else as can be, so that what is measured is the
 * program in between. SIGUSR1 has it say how many requests came.
 *
 *     echo PORT                     answers at once
 *     echo PORT stall EVERY MS      one answer of EVERY is late by MS milliseconds
 *     echo PORT fail                every answer is UNAVAILABLE, without a message
 *     echo PORT tls CERT KEY CA …   under mutual TLS; what comes behind is as above
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/slice.h"

#include "tests/bench/load/wire.h"

enum { NS_PER_MS = 1000000 };
/* A message of the generator's largest body, with what frames it. */
enum { BODY_MAX = (1 << 20) + 64 };

enum { INPUT_BYTES = 1 << 18, OUTPUT_BYTES = 1 << 20, WINDOW = 1 << 24 };

struct stream {
    uint8_t *body;
    size_t size;
    size_t capacity;
    size_t sent;
    struct stream *next_free;
};

struct peer {
    nghttp2_session *h2;
    struct wire wire;
    bool waits;         /* for the socket to take more. */
    size_t output_from; /* what lies before it was sent. */
    size_t output_size; /* end of what is to be sent. */
    uint8_t output[OUTPUT_BYTES];
};

/* An answer that is late. All are by the same time: the first one is due first. */
struct late {
    struct peer *peer; /* NULL: it is gone. */
    int32_t id;
    uint64_t due_ns;
    struct late *next;
};

static struct stream *free_streams;
static int epoll_fd;
static bool fails;
static uint64_t stall_every; /* 0: none. */
static uint64_t stall_ms;
static struct late *first_late;
static struct late **last_late = &first_late;
static SSL_CTX *tls; /* NULL: in clear. */
static uint64_t requests;
static volatile sig_atomic_t asked; /* how many there were. */

static struct stream *stream_new(void)
{
    struct stream *s = free_streams;
    if (s != NULL) {
        free_streams = s->next_free;
        s->size = 0;
        s->sent = 0;
        return s;
    }
    s = calloc(1, sizeof(*s));
    CHECK(s != NULL);
    s->capacity = 4096;
    s->body = malloc(s->capacity);
    CHECK(s->body != NULL);
    return s;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are those that nghttp2 hands over. */
static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)user;
    struct stream *s = source->ptr;
    size_t left = s->size - s->sent;
    size_t part = left < size ? left : size;
    (void)memcpy(to, s->body + s->sent, part);
    s->sent += part;
    if (s->sent == s->size) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        static uint8_t name[] = "grpc-status";
        static uint8_t value[] = "0";
        const nghttp2_nv trailer = {name, value, sizeof(name) - 1, sizeof(value) - 1,
                                    NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
        CHECK(nghttp2_submit_trailer(h2, id, &trailer, 1) == 0);
    }
    return (ssize_t)part;
}

static int on_begin(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)user;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        CHECK(nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, stream_new()) == 0);
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t size, void *user)
{
    (void)flags;
    (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(h2, id);
    if (s == NULL || s->size + size > BODY_MAX) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    while (s->size + size > s->capacity) {
        s->capacity *= 2;
        s->body = realloc(s->body, s->capacity);
        CHECK(s->body != NULL);
    }
    (void)memcpy(s->body + s->size, bytes, size);
    s->size += size;
    return 0;
}

static bool answer(nghttp2_session *h2, int32_t id, struct stream *s)
{
    static uint8_t status[] = ":status";
    static uint8_t ok[] = "200";
    static uint8_t type[] = "content-type";
    static uint8_t grpc[] = "application/grpc";
    static uint8_t grpc_status[] = "grpc-status";
    static uint8_t unavailable[] = "14";
    enum { BORROWED = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
    const nghttp2_nv fields[] = {{status, ok, 7, 3, BORROWED},
                                 {type, grpc, 12, 16, BORROWED},
                                 {grpc_status, unavailable, 11, 2, BORROWED}};
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_body};
    return nghttp2_submit_response(h2, id, fields, fails ? 3 : 2, fails ? NULL : &body) == 0;
}

static void answer_later(struct peer *p, int32_t id)
{
    struct late *late = calloc(1, sizeof(*late));
    CHECK(late != NULL);
    *late = (struct late){.peer = p, .id = id, .due_ns = clock_mono_ns() + stall_ms * NS_PER_MS};
    *last_late = late;
    last_late = &late->next;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
                (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS);
    struct stream *s = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!ends || s == NULL) {
        return 0;
    }
    requests++;
    if (stall_every != 0 && requests % stall_every == 0) {
        answer_later(user, frame->hd.stream_id);
        return 0;
    }
    return answer(h2, frame->hd.stream_id, s) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *user)
{
    (void)code;
    (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(h2, id);
    if (s != NULL) {
        s->next_free = free_streams;
        free_streams = s;
    }
    return 0;
}

static nghttp2_session *session_new(struct peer *p)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_session *h2 = NULL;
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    CHECK(nghttp2_session_server_new(&h2, callbacks, p) == 0);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    CHECK(nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, settings, 2) == 0);
    CHECK(nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
    return h2;
}

static void drop(struct peer *p)
{
    for (struct late *late = first_late; late != NULL; late = late->next) {
        late->peer = late->peer == p ? NULL : late->peer;
    }
    nghttp2_session_del(p->h2);
    wire_close(&p->wire);
    free(p);
}

static bool flush(struct peer *p)
{
    if (!wire_ready(&p->wire)) {
        return true; /* what comes next calls again. */
    }
    for (;;) { /* ends when nothing is left, or the socket takes no more. */
        while (p->output_size < OUTPUT_BYTES / 2) {
            const uint8_t *bytes = NULL;
            ssize_t size = nghttp2_session_mem_send(p->h2, &bytes);
            if (size < 0) {
                return false;
            }
            if (size == 0) {
                break;
            }
            (void)memcpy(p->output + p->output_size, bytes, (size_t)size);
            p->output_size += (size_t)size;
        }
        if (p->output_size == 0) {
            return true;
        }
        ssize_t n =
            wire_send(&p->wire, p->output + p->output_from, p->output_size - p->output_from);
        if (n < 0 && errno == EAGAIN) {
            return true;
        }
        if (n <= 0) {
            return false;
        }
        p->output_from += (size_t)n;
        if (p->output_from == p->output_size) {
            p->output_from = 0;
            p->output_size = 0;
        }
    }
}

static bool take(struct peer *p)
{
    static uint8_t input[INPUT_BYTES];
    do {
        ssize_t n = wire_recv(&p->wire, input, sizeof(input));
        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        if (nghttp2_session_mem_recv(p->h2, input, (size_t)n) != n) {
            return false;
        }
    } while (wire_pending(&p->wire));
    return true;
}

static void serve(struct peer *p, uint32_t events)
{
    bool reads = (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
    bool good = !reads || take(p);
    if (!good || !flush(p)) {
        drop(p);
        return;
    }
    bool waits = p->output_size > 0;
    if (waits != p->waits) {
        p->waits = waits;
        struct epoll_event event = {.data.ptr = p, .events = EPOLLIN};
        event.events |= waits ? (uint32_t)EPOLLOUT : 0U;
        CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, p->wire.fd, &event) == 0);
    }
}

static void accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    int one = 1;
    struct peer *p = calloc(1, sizeof(*p));
    CHECK(p != NULL && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    wire_accept(&p->wire, fd, tls);
    p->h2 = session_new(p);
    struct epoll_event event = {.data.ptr = p, .events = EPOLLIN};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
    if (!flush(p)) {
        drop(p);
    }
}

/* What is due is answered, unless its caller does not wait any more. */
static void answer_late(void)
{
    uint64_t now_ns = clock_mono_ns();
    while (first_late != NULL && first_late->due_ns <= now_ns) {
        struct late *late = first_late;
        first_late = late->next;
        last_late = first_late == NULL ? &first_late : last_late;
        struct peer *p = late->peer;
        struct stream *s = p == NULL ? NULL : nghttp2_session_get_stream_user_data(p->h2, late->id);
        if (s != NULL && (!answer(p->h2, late->id, s) || !flush(p))) {
            drop(p);
        }
        free(late);
    }
}

static int until_due_ms(void)
{
    uint64_t now_ns = clock_mono_ns();
    if (first_late == NULL) {
        return -1;
    }
    return first_late->due_ns <= now_ns
               ? 0
               : (int)((first_late->due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void note_asked(int number)
{
    (void)number;
    asked = 1;
}

static void say_requests(void)
{
    if (asked != 0) {
        asked = 0;
        (void)printf("requests: %" PRIu64 "\n", requests);
        (void)fflush(stdout);
    }
}

/* Takes the four words of TLS out of the line; false when their files are of no use. */
static bool read_tls(int *argc, char **argv)
{
    enum { AT = 2, WORDS = 4 };
    if (*argc < AT + WORDS || strcmp(argv[AT], "tls") != 0) {
        return true;
    }
    tls = wire_server(
        &(struct wire_files){.cert = argv[AT + 1], .key = argv[AT + 2], .ca = argv[AT + 3]});
    *argc -= WORDS;
    (void)memmove(argv + AT, argv + AT + WORDS, (size_t)(*argc - AT) * sizeof(*argv));
    return tls != NULL;
}

static bool read_options(int argc, char **argv, uint64_t *out_port)
{
    bool stalls = argc == 5 && strcmp(argv[2], "stall") == 0 &&
                  slice_to_u64(slice_str(argv[3]), &stall_every) &&
                  slice_to_u64(slice_str(argv[4]), &stall_ms) && stall_ms < 1000000;
    fails = argc == 3 && strcmp(argv[2], "fail") == 0;
    return (argc == 2 || stalls || fails) && slice_to_u64(slice_str(argv[1]), out_port) &&
           *out_port <= 65535;
}

int main(int argc, char **argv)
{
    uint64_t port = 0;
    if (!read_tls(&argc, argv)) {
        return 2;
    }
    if (!read_options(argc, argv, &port)) {
        (void)fprintf(stderr, "usage: echo PORT [tls CERT KEY CA] [stall EVERY MS | fail]\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = note_asked};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    const struct sockaddr_in addr = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)port),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(listener >= 0);
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    if (bind(listener, (const struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        listen(listener, 1024) != 0) {
        (void)fprintf(stderr, "echo: port %d: %s\n", (int)port, strerror(errno));
        return 1;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.data.ptr = NULL, .events = EPOLLIN};
    CHECK(epoll_fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) == 0);
    for (;;) { /* ends by a signal. */
        struct epoll_event events[256];
        int count = epoll_wait(epoll_fd, events, 256, until_due_ms());
        say_requests();
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL) {
                accept_one(listener);
            } else {
                serve(events[i].data.ptr, events[i].events);
            }
        }
        answer_late();
    }
}
