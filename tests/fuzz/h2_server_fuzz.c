/* Targets the server side of HTTP/2: h2_server_new() and all behind it, on a socket pair. Property:
 * whatever a client sends, in whatever pieces, every stream and connection is told its end once,
 * and no memory is left. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/conn.h"
#include "common/net/grpc.h"
#include "common/net/h2.h"
#include "common/net/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    unsigned opened;
    unsigned closed;
    bool conn_closed;
};

static void on_data(struct h2_stream *s, struct slice bytes, bool end)
{
    if (h2_stream_responded(s) && !h2_stream_sent_end(s)) {
        (void)err_ok(h2_stream_send(s, bytes, end));
    }
    h2_stream_consume(s, bytes.size);
}

static void on_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    if (!h2_stream_sent_end(s)) {
        (void)err_ok(h2_stream_trailers(s, fields->at, fields->count));
    }
}

static void on_stream_closed(struct h2_stream *s)
{
    struct run *run = h2_stream_user(s);
    run->closed++;
}

static const struct h2_stream_events stream_events = {
    .data = on_data, .trailers = on_trailers, .closed = on_stream_closed};

/* Answers with the client's own fields, so that references travel from one section to another. */
static void on_request(struct h2_conn *c, struct h2_stream *s, const struct h2_fields *fields,
                       bool end)
{
    struct run *run = h2_conn_user(c);
    run->opened++;
    h2_stream_attach(s, &stream_events, run);
    if (run->opened % 5 == 0) {
        grpc_refuse(s, &(struct grpc_refusal){.code = E_NO_ROUTE});
        return;
    }
    struct h2_field answer[32] = {h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200"))};
    size_t count = 1;
    for (size_t i = 0; i < fields->count && count < 32; i++) {
        if (fields->at[i].name.size > 0 && fields->at[i].name.ptr[0] != ':') {
            answer[count++] = fields->at[i];
        }
    }
    (void)err_ok(h2_stream_respond(s, answer, count, end));
}

static void on_conn_closed(struct h2_conn *c, struct err why)
{
    (void)why;
    struct run *run = h2_conn_user(c);
    run->conn_closed = true;
}

static const struct h2_conn_events conn_events = {.request = on_request, .closed = on_conn_closed};

/* Drops what the server answers. */
static void drain(int fd)
{
    uint8_t scrap[16384];
    while (read(fd, scrap, sizeof(scrap)) > 0) {
    }
}

/* A client that reads nothing has us keep what we answer. */
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
static void make_narrow(struct h2_conn *conn, int fd)
{
    enum { SOCKET = 4608, OUTPUT = 34000 };
    int size = SOCKET;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    net_conn_set_output_max(h2_conn_net(conn), OUTPUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_level_set(LOG_ERROR);
    limits.streams_per_connection = 8;
    limits.stream_buffer_bytes = 16 << 10;
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct net_loop *loop = NULL;
    struct h2_env *env = NULL;
    CHECK(err_ok(net_loop_new(&loop)));
    CHECK(err_ok(h2_env_new(loop, &env)));
    struct net_conn_accept_options o = {.tls = NULL};
    struct net_conn *net = NULL;
    int ours = fds[0];
    bool deaf = size > 0 && data[0] % 4 >= 2;
    CHECK(err_ok(net_conn_accept(loop, &fds[0], &o, &net)));
    struct run run = {0};
    struct h2_conn *conn = NULL;
    /* Half of the inputs start behind the preface, where the fuzzer's work is worth more. */
    struct slice early = size > 0 && data[0] % 2 == 0
                             ? SLICE_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                             : (struct slice){NULL, 0};
    CHECK(err_ok(h2_server_new(env, &net, early, &conn_events, &run, &conn)));
    if (deaf && !run.conn_closed) {
        make_narrow(conn, ours);
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
    CHECK(run.opened == run.closed);
    h2_env_free(env);
    return 0;
}
