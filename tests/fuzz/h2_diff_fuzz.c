/* Targets h2_recv() and all behind it, beside nghttp2. Property: of what a client sends, our server
 * and nghttp2's take the same requests: the same streams in the same order, with the same fields,
 * bytes and ends. A connection that one of them gives up ends the comparison there: where RFC 9113
 * leaves open whether a stream or the connection is wrong, the two decide differently. */
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/conn.h"
#include "common/net/h2.h"
#include "common/net/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REQUESTS_MAX = 64 };

/* What a request was made of, in the order in which it came: fields, body, trailers, end. */
struct request {
    int32_t id;
    struct buf said;
    bool begun;  /* its header section was taken. */
    bool broken; /* the server reset it, or heard a reset. */
};

struct side {
    struct request at[REQUESTS_MAX];
    size_t count;
    bool ended; /* the server gave the connection up. */
};

static void say(struct request *r, const char *what, struct slice bytes)
{
    CHECK(err_ok(buf_add_str(&r->said, what)));
    CHECK(err_ok(buf_add(&r->said, bytes)));
}

static struct request *open_request(struct side *side, int32_t id)
{
    if (side->count == REQUESTS_MAX) {
        return NULL;
    }
    struct request *r = &side->at[side->count++];
    *r = (struct request){.id = id, .said = BUF_MAX(1 << 22)};
    return r;
}

static struct request *find(struct side *side, int32_t id)
{
    for (size_t i = side->count; i > 0; i--) {
        if (side->at[i - 1].id == id) {
            return &side->at[i - 1];
        }
    }
    return NULL;
}

static void side_clear(struct side *side)
{
    for (size_t i = 0; i < side->count; i++) {
        buf_free(&side->at[i].said);
    }
    *side = (struct side){0};
}

/* ---- ours ---- */

static void say_fields(struct request *r, const struct h2_fields *fields)
{
    for (size_t i = 0; i < fields->count; i++) {
        say(r, "|", fields->at[i].name);
        say(r, "=", fields->at[i].value);
    }
}

static struct request *request_of(struct h2_stream *s)
{
    return find(h2_stream_user(s), h2_stream_id(s));
}

static void on_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct request *r = request_of(s);
    h2_stream_consume(s, bytes.size);
    if (r != NULL) {
        say(r, "", bytes);
        say(r, end ? "." : "", (struct slice){NULL, 0});
    }
}

static void on_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct request *r = request_of(s);
    if (r != NULL) {
        say_fields(r, fields);
        say(r, ".", (struct slice){NULL, 0});
    }
}

static void on_reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct request *r = request_of(s);
    if (r != NULL) {
        r->broken = true;
    }
}

static const struct h2_stream_events stream_events = {
    .data = on_data, .trailers = on_trailers, .reset = on_reset};

static void on_request(struct h2_conn *c, struct h2_stream *s, const struct h2_fields *fields,
                       bool end)
{
    struct side *side = h2_conn_user(c);
    h2_stream_attach(s, &stream_events, side);
    struct request *r = open_request(side, h2_stream_id(s));
    if (r != NULL) {
        say_fields(r, fields);
        say(r, end ? "." : "!", (struct slice){NULL, 0});
    }
}

static void on_conn_closed(struct h2_conn *c, struct err why)
{
    (void)why;
    struct side *side = h2_conn_user(c);
    side->ended = true;
}

static const struct h2_conn_events conn_events = {.request = on_request, .closed = on_conn_closed};

static void drain(int fd)
{
    uint8_t scrap[16384];
    while (read(fd, scrap, sizeof(scrap)) > 0) {
    }
}

static void serve_ours(struct side *side, struct slice bytes, size_t step)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct net_loop *loop = NULL;
    struct h2_env *env = NULL;
    CHECK(err_ok(net_loop_new(&loop)));
    CHECK(err_ok(h2_env_new(loop, &env)));
    struct net_conn_accept_options o = {.tls = NULL};
    struct net_conn *net = NULL;
    struct h2_conn *conn = NULL;
    CHECK(err_ok(net_conn_accept(loop, &fds[0], &o, &net)));
    CHECK(err_ok(h2_server_new(env, &net, (struct slice){NULL, 0}, &conn_events, side, &conn)));
    for (size_t at = 0; at < bytes.size && !side->ended; at += step) {
        struct slice piece = slice_head(slice_from(bytes, at), step);
        if (write(fds[1], piece.ptr, piece.size) < 0) {
            break;
        }
        net_loop_turn(loop);
        drain(fds[1]);
    }
    bool ended = side->ended;
    (void)close(fds[1]);
    net_loop_turn(loop);
    net_loop_free(loop);
    h2_env_free(env);
    side->ended = ended;
}

/* ---- theirs ---- */

/* Fields of the section under way: a request is one only when its section is whole. */
static struct buf section;

static int their_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    (void)frame;
    (void)user;
    buf_clear(&section);
    return 0;
}

static int their_header(/* NOLINT(readability-function-size): nghttp2's shape. */
                        nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                        size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                        void *user)
{
    (void)session;
    (void)frame;
    (void)flags;
    (void)user;
    CHECK(err_ok(buf_add_str(&section, "|")));
    CHECK(err_ok(buf_add(&section, slice_of(name, name_size))));
    CHECK(err_ok(buf_add_str(&section, "=")));
    CHECK(err_ok(buf_add(&section, slice_of(value, value_size))));
    return 0;
}

/* A malformed request costs its stream with us. */
static int their_invalid(/* NOLINT(readability-function-size): nghttp2's shape. */
                         nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                         void *user)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)name_size;
    (void)value;
    (void)value_size;
    (void)flags;
    (void)user;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* A path of another scheme than HTTP's may be anything with nghttp2; we serve none of these. */
static bool is_path_of_http(void)
{
    static const char name[] = "|:path=";
    const uint8_t *at = memmem(section.ptr, section.size, name, sizeof(name) - 1);
    if (at == NULL) {
        return true; /* CONNECT. */
    }
    at += sizeof(name) - 1;
    return at < section.ptr + section.size && (*at == '/' || *at == '*');
}

static int their_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct side *side = user;
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (!is_path_of_http()) {
            return 0;
        }
        struct request *r = open_request(side, frame->hd.stream_id);
        if (r != NULL) {
            say(r, "", buf_slice(&section));
            say(r, end ? "." : "!", (struct slice){NULL, 0});
        }
        return 0;
    }
    struct request *r = find(side, frame->hd.stream_id);
    if (r == NULL) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS) {
        say(r, "", buf_slice(&section));
        say(r, end ? "." : "", (struct slice){NULL, 0});
    } else if (frame->hd.type == NGHTTP2_DATA && end) {
        say(r, ".", (struct slice){NULL, 0});
    }
    return 0;
}

static int their_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                      size_t size, void *user)
{
    (void)session;
    (void)flags;
    struct request *r = find(user, id);
    if (r != NULL) {
        say(r, "", slice_of(data, size));
    }
    return 0;
}

static int their_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)session;
    (void)code;
    struct request *r = find(user, id);
    if (r != NULL) {
        r->broken = true;
    }
    return 0;
}

static int their_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct side *side = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        side->ended = true;
    }
    return 0;
}

static nghttp2_session *their_session(struct side *side)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, their_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, their_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, their_invalid);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, their_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, their_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, their_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, their_sent);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
    CHECK(nghttp2_session_server_new2(&session, callbacks, side, option) == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)limits.stream_window_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    CHECK(nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, 2) == 0);
    CHECK(nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0,
                                                (int32_t)limits.connection_window_bytes) == 0);
    return session;
}

static void serve_theirs(struct side *side, struct slice bytes, size_t step)
{
    nghttp2_session *session = their_session(side);
    section = BUF_MAX(1 << 22);
    for (size_t at = 0; at < bytes.size && !side->ended; at += step) {
        struct slice piece = slice_head(slice_from(bytes, at), step);
        if (nghttp2_session_mem_recv(session, piece.ptr, piece.size) < 0) {
            side->ended = true;
            break;
        }
        const uint8_t *out = NULL;
        while (nghttp2_session_mem_send(session, &out) > 0) {
        }
    }
    buf_free(&section);
    nghttp2_session_del(session);
}

/* ---- both ---- */

static void expect_same(const struct side *ours, const struct side *theirs)
{
    if (!ours->ended && !theirs->ended) {
        CHECK(ours->count == theirs->count);
    }
    for (size_t i = 0; i < ours->count && i < theirs->count; i++) {
        const struct request *a = &ours->at[i];
        const struct request *b = &theirs->at[i];
        CHECK(a->id == b->id);
        if (!a->broken && !b->broken && !ours->ended && !theirs->ended) {
            CHECK(slice_eq(buf_slice(&a->said), buf_slice(&b->said)));
            continue;
        }
        /* One of them heard less of it, of the same. */
        size_t common = a->said.size < b->said.size ? a->said.size : b->said.size;
        CHECK(slice_eq(slice_head(buf_slice(&a->said), common),
                       slice_head(buf_slice(&b->said), common)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    log_level_set(LOG_ERROR);
    limits.control_frames_per_second = 1000000;
    limits.resets_per_second = 1000000;
    limits.request_header_bytes = 1 << 20;
    limits.request_header_fields = 1024;
    limits.streams_per_connection = 10000;
    auto_buf struct buf bytes = BUF_MAX(1 << 22);
    static struct side ours;
    static struct side theirs;
    if (size == 0) {
        return 0;
    }
    CHECK(err_ok(buf_add(&bytes, slice_of(start, sizeof(start)))));
    CHECK(err_ok(buf_add(&bytes, slice_of(data + 1, size - 1))));
    size_t step = 1 + (size_t)data[0] * 17;
    serve_ours(&ours, buf_slice(&bytes), step);
    serve_theirs(&theirs, buf_slice(&bytes), step);
    expect_same(&ours, &theirs);
    side_clear(&ours);
    side_clear(&theirs);
    return 0;
}
