/* session: see session.h. */
#include "tests/bench/load/session.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/slice.h"

enum { HEADERS_MAX = 40, INPUT_BYTES = 1 << 18, WINDOW = 1 << 24 };

/* Output is framed until it is so much, small enough for a cache; a request of HTTP/1.1 lies in it
 * whole. */
enum { FRAMED_BYTES = 1 << 18, OUTPUT_BYTES = 1 << 21 };

/* One request in flight; its index is kept as the stream's user data. */
struct exchange {
    struct session *session;
    uint64_t start_ns;
    size_t sent;     /* of the body. */
    size_t received; /* of the answer's body. */
    bool status_ok;
    bool grpc_ok;
    bool body_ok;
    bool head_read; /* HTTP/1.1. */
    struct exchange *next_free;
};

struct session {
    const struct load_work *work;
    session_done_fn *done;
    void *ctx;
    nghttp2_session *h2;        /* NULL: HTTP/1.1. */
    struct exchange *exchanges; /* 'streams' of them. */
    struct exchange *free;
    size_t free_count;
    struct wire wire;
    uint8_t *output;
    size_t output_from; /* what lies before it was sent. */
    size_t output_size; /* end of what is to be sent. */
    uint8_t *input;
    nghttp2_nv fields[HEADERS_MAX];
    size_t field_count;
    size_t h1_kept; /* bytes of input that wait for more. */
    size_t h1_left; /* bytes of the body of the answer that is being read. */
    char *h1_request;
    size_t h1_request_size;
};

/* ---- HTTP/2 ---- */

static void release(struct session *s, struct exchange *x)
{
    x->next_free = s->free;
    s->free = x;
    s->free_count++;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are those that nghttp2 hands over. */
static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)h2;
    (void)id;
    (void)user;
    struct exchange *x = source->ptr;
    const struct load_work *work = x->session->work;
    size_t left = work->body_bytes - x->sent;
    size_t part = left < size ? left : size;
    (void)memcpy(to, work->body + x->sent, part);
    x->sent += part;
    if (x->sent == work->body_bytes) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)part;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are those that nghttp2 hands over. */
static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)flags;
    (void)user;
    struct exchange *x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (x == NULL) {
        return 0;
    }
    if (name_size == 7 && memcmp(name, ":status", 7) == 0) {
        x->status_ok = value_size == 3 && memcmp(value, "200", 3) == 0;
    } else if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
        x->grpc_ok = value_size == 1 && value[0] == '0';
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t size, void *user)
{
    (void)flags;
    (void)user;
    struct exchange *x = nghttp2_session_get_stream_user_data(h2, id);
    if (x == NULL) {
        return 0;
    }
    const struct load_work *work = x->session->work;
    bool fits = x->received + size <= work->body_bytes;
    x->body_ok = x->body_ok && (!work->expect_echo ||
                                (fits && memcmp(work->body + x->received, bytes, size) == 0));
    x->received += size;
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *user)
{
    struct session *s = user;
    struct exchange *x = nghttp2_session_get_stream_user_data(h2, id);
    if (x == NULL) {
        return 0;
    }
    bool good = code == 0 && x->status_ok && x->grpc_ok && x->body_ok &&
                (!s->work->expect_echo || x->received == s->work->body_bytes);
    s->done(s->ctx, x->start_ns, good);
    release(s, x);
    return 0;
}

static void add_field(struct session *s, const char *name, const char *value)
{
    CHECK(s->field_count < HEADERS_MAX);
    s->fields[s->field_count++] =
        (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                     .namelen = strlen(name),
                     .value = (uint8_t *)(uintptr_t)value,
                     .valuelen = strlen(value),
                     .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void start_h2(struct session *s)
{
    nghttp2_session_callbacks *callbacks = NULL;
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    CHECK(nghttp2_session_client_new(&s->h2, callbacks, s) == 0);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    CHECK(nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, 2) == 0);
    CHECK(nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
    add_field(s, ":method", "POST");
    add_field(s, ":scheme", s->work->tls == NULL ? "http" : "https");
    add_field(s, ":path", s->work->path);
    add_field(s, ":authority", s->work->authority);
    add_field(s, "content-type", "application/grpc");
    add_field(s, "te", "trailers");
    for (const char *const *h = s->work->headers; h[0] != NULL; h += 2) {
        add_field(s, h[0], h[1]);
    }
}

/* Frames what there is to say, up to some bytes more than that. */
static bool fill_h2(struct session *s)
{
    while (s->output_size < FRAMED_BYTES) {
        const uint8_t *bytes = NULL;
        ssize_t size = nghttp2_session_mem_send(s->h2, &bytes);
        if (size < 0) {
            return false;
        }
        if (size == 0) {
            return true;
        }
        CHECK((size_t)size <= OUTPUT_BYTES - s->output_size);
        (void)memcpy(s->output + s->output_size, bytes, (size_t)size);
        s->output_size += (size_t)size;
    }
    return true;
}

/* ---- HTTP/1.1: one request at a time; the answer must say its length ---- */

static void start_h1(struct session *s)
{
    size_t size = 0;
    FILE *out = open_memstream(&s->h1_request, &size);
    CHECK(out != NULL);
    (void)fprintf(out, "%s %s HTTP/1.1\r\nhost: %s\r\n", s->work->body_bytes > 0 ? "POST" : "GET",
                  s->work->path, s->work->authority);
    for (const char *const *h = s->work->headers; h[0] != NULL; h += 2) {
        (void)fprintf(out, "%s: %s\r\n", h[0], h[1]);
    }
    if (s->work->body_bytes > 0) {
        (void)fprintf(out, "content-length: %zu\r\n", s->work->body_bytes);
    }
    (void)fprintf(out, "\r\n");
    (void)fwrite(s->work->body, 1, s->work->body_bytes, out);
    CHECK(fclose(out) == 0);
    s->h1_request_size = size;
}

/* The value of "name: value", when the line is of that name; else nothing. */
static struct slice value_of(struct slice line, struct slice name)
{
    if (!slice_eq_nocase(slice_head(line, name.size), name)) {
        return (struct slice){0};
    }
    struct slice value = slice_from(line, name.size);
    while (value.size > 0 && value.ptr[0] == ' ') {
        value = slice_from(value, 1);
    }
    while (value.size > 0 &&
           (value.ptr[value.size - 1] == '\r' || value.ptr[value.size - 1] == ' ')) {
        value.size--;
    }
    return value;
}

/* Reads the head of an answer: its status and length. 0: not whole yet; -1: not to be read. */
static ssize_t read_h1_head(struct session *s, struct slice in, struct exchange *x)
{
    const uint8_t *end = memmem(in.ptr, in.size, "\r\n\r\n", 4);
    if (end == NULL) {
        return in.size > INPUT_BYTES / 2 ? -1 : 0;
    }
    size_t head_size = (size_t)(end - in.ptr) + 4;
    bool has_length = false;
    x->status_ok = head_size > 12 && memcmp(in.ptr + 9, "200", 3) == 0;
    struct slice rest = slice_head(in, head_size);
    while (rest.size > 2) {
        size_t line = slice_find(rest, '\n');
        struct slice value = value_of(slice_head(rest, line), SLICE_LIT("content-length:"));
        uint64_t length = 0;
        if (slice_to_u64(value, &length)) {
            s->h1_left = length;
            has_length = true;
        }
        rest = slice_from(rest, line + 1);
    }
    return has_length ? (ssize_t)head_size : -1;
}

static void take_h1_body(struct session *s, struct slice part)
{
    const struct load_work *work = s->work;
    struct exchange *x = &s->exchanges[0];
    bool fits = x->received + part.size <= work->body_bytes;
    x->body_ok =
        x->body_ok && (!work->expect_echo ||
                       (fits && slice_eq(part, slice_of(work->body + x->received, part.size))));
    x->received += part.size;
    s->h1_left -= part.size;
}

/* Takes what answers the request in flight; false when it is no such answer. */
static bool take_h1(struct session *s, struct slice in, size_t *out_used)
{
    struct exchange *x = &s->exchanges[0];
    *out_used = 0;
    if (s->free_count > 0) {
        return in.size == 0; /* nothing was asked. */
    }
    if (!x->head_read) {
        ssize_t head = read_h1_head(s, in, x);
        if (head <= 0) {
            return head == 0;
        }
        x->head_read = true;
        *out_used = (size_t)head;
    }
    struct slice part = slice_head(slice_from(in, *out_used), s->h1_left);
    take_h1_body(s, part);
    *out_used += part.size;
    if (s->h1_left > 0) {
        return true;
    }
    bool whole = !s->work->expect_echo || x->received == s->work->body_bytes;
    s->done(s->ctx, x->start_ns, x->status_ok && x->body_ok && whole);
    release(s, x);
    return *out_used == in.size;
}

/* ---- both ---- */

static int dial(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd >= 0 && (connect(fd, found->ai_addr, found->ai_addrlen) != 0 ||
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0)) {
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

struct session *session_open(const char *host, const char *port, const struct load_work *work,
                             size_t streams, session_done_fn *done, void *ctx)
{
    int fd = dial(host, port);
    if (fd < 0) {
        (void)fprintf(stderr, "load: no connection to %s:%s: %s\n", host, port, strerror(errno));
        return NULL;
    }
    struct wire wire = {0};
    if (!wire_connect(&wire, fd, work->tls) || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        wire_close(&wire);
        return NULL;
    }
    struct session *s = calloc(1, sizeof(*s));
    CHECK(s != NULL);
    size_t count = work->protocol == LOAD_HTTP1 ? 1 : streams;
    *s = (struct session){.work = work,
                          .done = done,
                          .ctx = ctx,
                          .wire = wire,
                          .exchanges = calloc(count, sizeof(struct exchange)),
                          .output = malloc(OUTPUT_BYTES),
                          .input = malloc(INPUT_BYTES)};
    CHECK(s->exchanges != NULL && s->output != NULL && s->input != NULL);
    for (size_t i = 0; i < count; i++) {
        release(s, &s->exchanges[i]);
    }
    if (work->protocol == LOAD_GRPC) {
        start_h2(s);
    } else {
        start_h1(s);
    }
    return s;
}

void session_close(struct session *s)
{
    if (s == NULL) {
        return;
    }
    nghttp2_session_del(s->h2);
    wire_close(&s->wire);
    free(s->exchanges);
    free(s->output);
    free(s->input);
    free(s->h1_request);
    free(s);
}

int session_fd(const struct session *s)
{
    return s->wire.fd;
}

size_t session_room(const struct session *s)
{
    return s->free_count;
}

static struct exchange *take_exchange(struct session *s, uint64_t start_ns)
{
    struct exchange *x = s->free;
    CHECK(x != NULL);
    s->free = x->next_free;
    s->free_count--;
    *x = (struct exchange){.session = s, .start_ns = start_ns, .body_ok = true};
    return x;
}

static bool submit(struct session *s, struct exchange *x)
{
    nghttp2_data_provider body = {.source.ptr = x, .read_callback = read_body};
    return nghttp2_submit_request(s->h2, /* priority: */ NULL, s->fields, s->field_count, &body,
                                  x) >= 0;
}

bool session_send_with(struct session *s, uint64_t start_ns, const char *name, const char *value)
{
    struct exchange *x = take_exchange(s, start_ns);
    CHECK(s->h2 != NULL);
    add_field(s, name, value);
    bool sent = submit(s, x);
    s->field_count--;
    return sent;
}

bool session_send(struct session *s, uint64_t start_ns)
{
    struct exchange *x = take_exchange(s, start_ns);
    if (s->h2 == NULL) {
        CHECK(s->h1_request_size <= OUTPUT_BYTES - s->output_size);
        (void)memcpy(s->output + s->output_size, s->h1_request, s->h1_request_size);
        s->output_size += s->h1_request_size;
        return true;
    }
    return submit(s, x);
}

/* Sends what is framed; false: the connection is lost. 'out_blocked': the socket took no more. */
static bool send_output(struct session *s, bool *out_blocked)
{
    *out_blocked = false;
    while (s->output_from < s->output_size) {
        ssize_t n =
            wire_send(&s->wire, s->output + s->output_from, s->output_size - s->output_from);
        if (n < 0 && errno == EAGAIN) {
            *out_blocked = true;
            return true;
        }
        if (n <= 0) {
            return false;
        }
        s->output_from += (size_t)n;
    }
    s->output_from = 0;
    s->output_size = 0;
    return true;
}

bool session_flush(struct session *s)
{
    for (;;) { /* ends when nothing is left to say, or the socket takes no more. */
        bool blocked = false;
        if (s->h2 != NULL && !fill_h2(s)) {
            return false;
        }
        if (s->output_size == 0) {
            return true;
        }
        if (!send_output(s, &blocked)) {
            return false;
        }
        if (blocked || s->h2 == NULL) {
            return true;
        }
    }
}

/* Takes so many bytes more, which lie in the input behind what is kept. */
static bool take(struct session *s, size_t more)
{
    if (s->h2 != NULL) {
        return nghttp2_session_mem_recv(s->h2, s->input, more) == (ssize_t)more;
    }
    size_t used = 0;
    size_t size = s->h1_kept + more;
    bool good = take_h1(s, slice_of(s->input, size), &used);
    s->h1_kept = size - used;
    (void)memmove(s->input, s->input + used, s->h1_kept);
    return good;
}

bool session_read(struct session *s)
{
    do {
        size_t have = s->h1_kept; /* of a head that is not whole. */
        ssize_t n = wire_recv(&s->wire, s->input + have, INPUT_BYTES - have);
        if (n < 0) {
            return errno == EAGAIN;
        }
        if (n == 0 || !take(s, (size_t)n)) {
            return false;
        }
    } while (wire_pending(&s->wire));
    return true;
}

bool session_wants_write(const struct session *s)
{
    return s->output_size > 0;
}
