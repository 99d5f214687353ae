/* Targets the client side of HTTP/2: h2_client_new() and all behind it, on a socket pair, with
 * calls of several kinds under way. Property: whatever a server sends, in whatever pieces, every
 * call and the connection are told their end once, nothing comes behind the end of an answer, a
 * body keeps to its content-length, and no memory is left. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/conn.h"
#include "common/net/h2.h"
#include "common/net/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CALLS_MAX = 64, CALLS_FIRST = 6, BODY_BYTES = 60000 };

struct call {
    struct h2_stream *stream; /* NULL once closed. */
    bool head;                /* asked by HEAD. */
    bool headers;
    bool ended; /* all of the answer came. */
    bool reset;
    uint64_t length; /* as the answer says, or UINT64_MAX. */
    uint64_t bytes;
};

struct run {
    struct h2_conn *conn;
    struct call calls[CALLS_MAX];
    size_t count;
    bool conn_closed;
};

static const uint8_t body[BODY_BYTES];

/* ---- what calls hear ---- */

static bool is_bodiless(const struct call *call, struct slice status)
{
    return call->head || slice_eq(status, SLICE_LIT("204")) || slice_eq(status, SLICE_LIT("304"));
}

static void on_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct call *call = h2_stream_user(s);
    struct slice status = h2_fields_value(fields, H2_TOKEN_STATUS);
    CHECK(!call->headers && !call->reset);
    CHECK(status.size == 3 && status.ptr[0] >= '2');
    for (size_t i = 0; i < fields->count; i++) {
        CHECK(fields->at[i].name.size > 0);
        CHECK(memchr(fields->at[i].value.ptr == NULL ? "" : (const char *)fields->at[i].value.ptr,
                     '\n', fields->at[i].value.size) == NULL);
    }
    call->headers = true;
    call->ended = end;
    if (is_bodiless(call, status)) {
        call->length = 0;
    } else if (!slice_to_u64(h2_fields_value(fields, H2_TOKEN_CONTENT_LENGTH), &call->length)) {
        call->length = UINT64_MAX;
    }
    CHECK(!end || call->length == 0 || call->length == UINT64_MAX);
}

static void end_call(struct call *call)
{
    call->ended = true;
    CHECK(call->length == UINT64_MAX || call->length == call->bytes);
}

static void on_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct call *call = h2_stream_user(s);
    CHECK(call->headers && !call->ended && !call->reset);
    call->bytes += bytes.size;
    CHECK(call->bytes <= call->length);
    if (end) {
        end_call(call);
    }
    if (call->bytes % 7 == 6) { /* its owner has enough. */
        h2_stream_reset(s, H2_CANCEL);
    } else if (call->bytes % 7 != 5) { /* or lets it wait. */
        h2_stream_consume(s, bytes.size);
    }
}

static void on_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct call *call = h2_stream_user(s);
    CHECK(call->headers && !call->ended && !call->reset);
    CHECK(h2_fields_get(fields, H2_TOKEN_STATUS) == NULL);
    end_call(call);
}

static void on_reset(struct h2_stream *s, struct h2_reset why)
{
    struct call *call = h2_stream_user(s);
    CHECK(!call->reset && !call->ended);
    CHECK(!why.unprocessed || !call->headers);
    call->reset = true;
}

static void on_closed(struct h2_stream *s)
{
    struct call *call = h2_stream_user(s);
    CHECK(call->stream == s);
    call->stream = NULL;
}

/* What goes on when there is room for it, whether it ends or not. */
static void on_writable(struct h2_stream *s)
{
    if (!h2_stream_sent_end(s)) {
        (void)err_ok(h2_stream_send(s, slice_of(body, 1000), /* end= */ false));
    }
}

static const struct h2_stream_events stream_events = {.headers = on_headers,
                                                      .data = on_data,
                                                      .trailers = on_trailers,
                                                      .writable = on_writable,
                                                      .reset = on_reset,
                                                      .closed = on_closed};

/* ---- calls ---- */

/* By turns: HEAD, no body, a body that ends, one that goes on, one with trailers behind it. */
static void ask(struct run *run)
{
    if (run->count == CALLS_MAX || h2_conn_room(run->conn) == 0) {
        return;
    }
    size_t kind = run->count % 5;
    struct call *call = &run->calls[run->count];
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_METHOD, kind == 0 ? SLICE_LIT("HEAD") : SLICE_LIT("POST")),
        h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("http")),
        h2_field_static(H2_TOKEN_PATH, SLICE_LIT("/a")),
        h2_field_static(H2_TOKEN_AUTHORITY, SLICE_LIT("test")),
    };
    if (!err_ok(h2_conn_request(run->conn, fields, 4, /* end= */ kind < 2, &call->stream))) {
        return;
    }
    run->count++;
    call->head = kind == 0;
    h2_stream_attach(call->stream, &stream_events, call);
    if (kind >= 2) {
        (void)err_ok(h2_stream_send(call->stream, slice_of(body, kind == 3 ? 7 : BODY_BYTES),
                                    /* end= */ kind == 2));
    }
    if (kind == 4) {
        const struct h2_field last = h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0"));
        (void)err_ok(h2_stream_trailers(call->stream, &last, 1));
    }
}

static void on_room(struct h2_conn *c)
{
    ask(h2_conn_user(c));
}

static void on_conn_closed(struct h2_conn *c, struct err why)
{
    (void)why;
    struct run *run = h2_conn_user(c);
    CHECK(!run->conn_closed);
    run->conn_closed = true;
}

static const struct h2_conn_events conn_events = {.room = on_room, .closed = on_conn_closed};

/* ---- the server ---- */

static void drain(int fd)
{
    uint8_t scrap[16384];
    while (read(fd, scrap, sizeof(scrap)) > 0) {
    }
}

/* A server that reads nothing has us keep what we send. */
static void feed(struct net_loop *loop, const struct run *run, int fd, struct slice bytes,
                 size_t step, bool deaf)
{
    for (size_t at = 0; at < bytes.size && !run->conn_closed; at += step) {
        struct slice piece = slice_head(slice_from(bytes, at), step);
        if (write(fd, piece.ptr, piece.size) < 0) {
            return;
        }
        net_loop_turn(loop);
        if (!deaf) {
            drain(fd);
        }
    }
}

/* The output has room for a frame and little more. */
static void make_narrow(struct net_conn *net, int fd)
{
    enum { SOCKET = 4608, OUTPUT = 34000 };
    int size = SOCKET;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    net_conn_set_output_max(net, OUTPUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char settings[] = "\0\0\0\4\0\0\0\0";
    log_level_set(LOG_ERROR);
    limits.stream_buffer_bytes = 64 << 10;
    limits.upstream_streams = 8;
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct net_loop *loop = NULL;
    struct h2_env *env = NULL;
    CHECK(err_ok(net_loop_new(&loop)));
    CHECK(err_ok(h2_env_new(loop, &env)));
    struct net_conn_accept_options o = {.tls = NULL};
    struct net_conn *net = NULL;
    static struct run run;
    run = (struct run){0};
    int ours = fds[0];
    bool deaf = size > 0 && data[0] % 4 >= 2;
    CHECK(err_ok(net_conn_accept(loop, &fds[0], &o, &net)));
    if (deaf) {
        make_narrow(net, ours);
    }
    CHECK(err_ok(h2_client_new(env, &net, &conn_events, &run, &run.conn)));
    for (size_t i = 0; i < CALLS_FIRST; i++) {
        ask(&run);
    }
    net_loop_turn(loop);
    if (!deaf) {
        drain(fds[1]);
    }
    /* Half of the inputs start behind the first SETTINGS. */
    if (size > 0 && data[0] % 2 == 0) {
        CHECK(write(fds[1], settings, sizeof(settings)) == sizeof(settings));
    }
    if (size > 1) {
        feed(loop, &run, fds[1], slice_of(data + 1, size - 1), 1 + (size_t)data[0] * 17, deaf);
    }
    for (int i = 0; deaf && i < 8; i++) { /* it reads some of it after all. */
        drain(fds[1]);
        net_loop_turn(loop);
    }
    (void)close(fds[1]);
    net_loop_turn(loop);
    net_loop_free(loop);
    CHECK(run.conn_closed);
    for (size_t i = 0; i < run.count; i++) {
        CHECK(run.calls[i].stream == NULL);
    }
    h2_env_free(env);
    return 0;
}
