/* The server and the clients that the tests of HTTP/2 talk with. */
#include "tests/unit/common/net/h2_peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"

#include "tests/support/cmocka.h"

enum { LARGE_FIELDS = 300 };

/* ---- the server ---- */

struct served {
    struct peers *peers;
    struct h2_stream *stream;
    char path[32];
    unsigned left; /* messages still to send. */
    size_t bytes;
};

static void finish_ok(struct h2_stream *s)
{
    struct h2_field trailers[] = {h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0"))};
    if (!h2_stream_sent_end(s)) {
        assert_true(err_ok(h2_stream_trailers(s, trailers, 1)));
    }
}

static void begin(struct h2_stream *s)
{
    struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc")),
    };
    assert_true(err_ok(h2_stream_respond(s, fields, 2, /* end= */ false)));
}

/* Sends as many of the messages as the queue takes. */
static void send_many(struct served *v)
{
    uint8_t message[GRPC_PREFIX_BYTES + 1000] = {0};
    grpc_prefix_write(1000, message);
    while (v->left > 0) {
        struct err e = h2_stream_send(v->stream, slice_of(message, sizeof(message)), false);
        if (!err_ok(e)) {
            assert_int_equal(e.code, E_QUEUE_FULL);
            return;
        }
        v->left--;
    }
    finish_ok(v->stream);
}

static void request_ended(struct served *v)
{
    if (strcmp(v->path, "/echo") == 0) {
        finish_ok(v->stream);
    } else if (strcmp(v->path, "/unary") == 0) {
        begin(v->stream);
        char text[32];
        int size = snprintf(text, sizeof(text), "%zu", v->bytes);
        assert_true(err_ok(h2_stream_send(v->stream, slice_of(text, (size_t)size), false)));
        finish_ok(v->stream);
    } else if (strcmp(v->path, "/many") == 0) {
        begin(v->stream);
        v->left = PEERS_MANY;
        send_many(v);
    }
}

static void served_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct served *v = h2_stream_user(s);
    v->bytes += bytes.size;
    v->peers->server_bytes += bytes.size;
    if (strcmp(v->path, "/echo") == 0) {
        if (bytes.size > 0) {
            assert_true(err_ok(h2_stream_send(s, bytes, false)));
        }
    } else if (strcmp(v->path, "/sink") != 0) {
        h2_stream_consume(s, bytes.size);
    }
    if (end) {
        request_ended(v);
    }
}

static void served_sent(struct h2_stream *s, size_t bytes)
{
    struct served *v = h2_stream_user(s);
    if (strcmp(v->path, "/echo") == 0) {
        h2_stream_consume(s, bytes);
    }
}

static void served_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields;
    request_ended(h2_stream_user(s));
}

static void served_writable(struct h2_stream *s)
{
    struct served *v = h2_stream_user(s);
    if (v->left > 0) {
        send_many(v);
    }
}

static void served_reset(struct h2_stream *s, struct h2_reset why)
{
    struct served *v = h2_stream_user(s);
    v->peers->server_resets++;
    v->peers->server_reset = why;
}

static void served_closed(struct h2_stream *s)
{
    struct served *v = h2_stream_user(s);
    v->peers->server_streams_closed++;
    free(v);
}

static const struct h2_stream_events served_events = {.data = served_data,
                                                      .trailers = served_trailers,
                                                      .sent = served_sent,
                                                      .writable = served_writable,
                                                      .reset = served_reset,
                                                      .closed = served_closed};

static void answer_early(struct h2_stream *s)
{
    begin(s);
    assert_true(err_ok(h2_stream_send(s, SLICE_LIT("early"), false)));
    finish_ok(s);
}

/* A section that has more fields than anybody takes. */
static void answer_large(struct h2_stream *s, bool end)
{
    static struct h2_field fields[LARGE_FIELDS];
    fields[0] = h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200"));
    for (size_t i = 1; i < LARGE_FIELDS; i++) {
        fields[i] = h2_field_named(SLICE_LIT("x-one"), SLICE_LIT("of many"));
    }
    assert_true(err_ok(h2_stream_respond(s, fields, LARGE_FIELDS, end)));
}

static void answer_mirror(struct h2_stream *s, const struct h2_fields *fields)
{
    struct h2_field answer[] = {h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
                                fields->at[fields->count - 1]};
    assert_true(err_ok(h2_stream_respond(s, answer, 2, /* end= */ false)));
    assert_true(err_ok(h2_stream_trailers(s, answer + 1, 1)));
}

static void server_request(struct h2_conn *c, struct h2_stream *s, const struct h2_fields *fields,
                           bool end)
{
    struct peers *p = h2_conn_user(c);
    p->requests++;
    struct served *v = calloc(1, sizeof(*v));
    assert_non_null(v);
    v->peers = p;
    v->stream = s;
    struct slice path = h2_fields_value(fields, H2_TOKEN_PATH);
    assert_true(path.size < sizeof(v->path));
    (void)snprintf(v->path, sizeof(v->path), "%.*s", SLICE_ARG(path));
    h2_stream_attach(s, &served_events, v);
    if (strcmp(v->path, "/refuse") == 0) {
        grpc_refuse(s, &(struct grpc_refusal){
                           .code = E_POLICY_DENIED, .rule = SLICE_LIT("rule-7"), .version = 42});
    } else if (strcmp(v->path, "/early") == 0) {
        answer_early(s);
    } else if (strcmp(v->path, "/mirror") == 0) {
        answer_mirror(s, fields);
    } else if (strcmp(v->path, "/large") == 0) {
        answer_large(s, /* end= */ true);
    } else if (strcmp(v->path, "/large-head") == 0) {
        answer_large(s, /* end= */ false);
        assert_true(err_ok(h2_stream_send(s, SLICE_LIT("body"), /* end= */ true)));
    } else if (strcmp(v->path, "/echo") == 0) {
        begin(s);
    }
    if (end) {
        request_ended(v);
    }
}

static void server_closed(struct h2_conn *c, struct err why)
{
    struct peers *p = h2_conn_user(c);
    p->server_closed++;
    p->server_closed_once = true;
    p->server_why = why;
    if (p->server == c) {
        p->server = NULL;
    }
}

static const struct h2_conn_events server_events = {.request = server_request,
                                                    .closed = server_closed};

static const struct net_conn_handler raw_handler;

static void accepted(struct net_conn *conn, void *ctx)
{
    struct peers *p = ctx;
    p->accepted++;
    if (p->serves != NULL) {
        p->serves->conn = conn;
        net_conn_set_handler(conn, &raw_handler, p->serves);
        p->serves = NULL;
        return;
    }
    if (p->mute) {
        p->raw_server = conn;
        return;
    }
    assert_true(err_ok(
        h2_server_new(p->env, &conn, (struct slice){NULL, 0}, &server_events, p, &p->server)));
}

void peers_init(struct peers *p)
{
    *p = (struct peers){.fd = -1};
    assert_true(err_ok(net_loop_new(&p->loop)));
    assert_true(err_ok(h2_env_new(p->loop, &p->env)));
    assert_true(err_ok(net_listen(SLICE_LIT("127.0.0.1:0"), &p->fd, &p->addr)));
    peers_serve_tls(p, /* tls= */ NULL);
}

void peers_serve_tls(struct peers *p, struct net_tls *tls)
{
    net_listener_free(p->listener);
    struct net_listener_options o = {.fd = p->fd, .tls = tls, .accepted = accepted, .ctx = p};
    assert_true(err_ok(net_listener_new(p->loop, &o, &p->listener)));
}

void peers_free(struct peers *p)
{
    net_listener_free(p->listener);
    net_loop_free(p->loop);
    h2_env_free(p->env);
    (void)close(p->fd);
    clock_shift_for_test(0, 0);
}

void peers_wait(struct peers *p, const bool *done)
{
    assert_true(net_loop_run_until(p->loop, done, PEERS_WAIT_MS));
}

void peers_run(struct peers *p, uint64_t ms)
{
    bool never = false;
    (void)net_loop_run_until(p->loop, &never, ms);
}

void peers_pass(struct peers *p, uint64_t ms)
{
    p->passed_ms += ms;
    clock_shift_for_test((int64_t)p->passed_ms * 1000000, 0);
    net_loop_turn(p->loop);
}

/* ---- clients of ours ---- */

static void client_ready(struct h2_conn *conn)
{
    struct client *c = h2_conn_user(conn);
    c->ready = true;
}

static void client_room(struct h2_conn *conn)
{
    struct client *c = h2_conn_user(conn);
    c->rooms++;
}

static void client_draining(struct h2_conn *conn)
{
    struct client *c = h2_conn_user(conn);
    c->draining = true;
}

static void client_closed(struct h2_conn *conn, struct err why)
{
    struct client *c = h2_conn_user(conn);
    c->closed = true;
    c->conn = NULL;
    c->why = why;
}

static const struct h2_conn_events client_events = {.ready = client_ready,
                                                    .room = client_room,
                                                    .draining = client_draining,
                                                    .closed = client_closed};

void client_open(struct peers *p, struct client *c)
{
    *c = (struct client){.peers = p};
    struct net_conn *net = NULL;
    struct net_dial_options o = {
        .addr = &p->addr, .tls = p->client_tls, .server_name = SLICE_LIT("server.test")};
    assert_true(err_ok(net_dial(p->loop, &o, &net)));
    assert_true(err_ok(h2_client_new(p->env, &net, &client_events, c, &c->conn)));
}

static void copy_value(char *out, size_t capacity, struct slice value)
{
    assert_true(value.size < capacity);
    if (value.size > 0) {
        memcpy(out, value.ptr, value.size);
    }
    out[value.size] = '\0';
}

static void note_end(struct call *call, const struct h2_fields *fields)
{
    call->ended = true;
    call->grpc_status = (int)grpc_status_parse(h2_fields_value(fields, H2_TOKEN_GRPC_STATUS));
    copy_value(call->code, sizeof(call->code), h2_fields_value(fields, H2_TOKEN_X_TRILANE_CODE));
}

static void call_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct call *call = h2_stream_user(s);
    call->headers = true;
    call->last_field = fields->at[fields->count - 1].value.size;
    copy_value(call->status, sizeof(call->status), h2_fields_value(fields, H2_TOKEN_STATUS));
    if (end) {
        call->trailers_only = true;
        note_end(call, fields);
    }
}

static void call_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct call *call = h2_stream_user(s);
    assert_true(err_ok(buf_add(&call->body, bytes)));
    if (!call->hold) {
        h2_stream_consume(s, bytes.size);
    }
    call->ended = call->ended || end;
}

static void call_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct call *call = h2_stream_user(s);
    call->trailers = true;
    note_end(call, fields);
}

static void call_sent(struct h2_stream *s, size_t bytes)
{
    struct call *call = h2_stream_user(s);
    call->sent += bytes;
}

static void call_writable(struct h2_stream *s)
{
    struct call *call = h2_stream_user(s);
    call->writable = true;
}

static void call_reset(struct h2_stream *s, struct h2_reset why)
{
    struct call *call = h2_stream_user(s);
    assert_false(call->was_reset);
    call->was_reset = true;
    call->reset = why;
}

static void call_closed(struct h2_stream *s)
{
    struct call *call = h2_stream_user(s);
    assert_false(call->closed);
    call->closed = true;
    call->stream = NULL;
}

const struct h2_stream_events call_events = {.headers = call_headers,
                                             .data = call_data,
                                             .trailers = call_trailers,
                                             .sent = call_sent,
                                             .writable = call_writable,
                                             .reset = call_reset,
                                             .closed = call_closed};

enum { EXTRA_MAX = 2000, BASE_FIELDS = 6 };

struct err call_start(struct client *c, struct call *call, const char *path,
                      const struct h2_field *extra, size_t extra_count, bool end)
{
    static struct h2_field fields[BASE_FIELDS + EXTRA_MAX];
    assert_true(extra_count <= EXTRA_MAX);
    fields[0] = h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("POST"));
    fields[1] = h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("http"));
    fields[2] = h2_field_of(H2_TOKEN_PATH, slice_str(path));
    fields[3] = h2_field_static(H2_TOKEN_AUTHORITY, SLICE_LIT("test"));
    fields[4] = h2_field_static(H2_TOKEN_TE, SLICE_LIT("trailers"));
    fields[5] = h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc"));
    for (size_t i = 0; i < extra_count; i++) {
        fields[BASE_FIELDS + i] = extra[i];
    }
    *call = (struct call){.body = BUF_MAX(PEERS_BODY_MAX), .grpc_status = -1};
    TRY(h2_conn_request(c->conn, fields, BASE_FIELDS + extra_count, end, &call->stream));
    h2_stream_attach(call->stream, &call_events, call);
    return OK;
}

void call_free(struct call *call)
{
    buf_free(&call->body);
}

/* ---- raw clients ---- */

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void raw_settings(struct raw *r, struct slice payload)
{
    for (size_t at = 0; at + 6 <= payload.size; at += 6) {
        if (payload.ptr[at + 1] == 3) {
            r->max_streams = be32(payload.ptr + at + 2);
        }
    }
}

static void raw_frame(struct raw *r, uint8_t type, uint8_t flags, struct slice payload)
{
    switch (type) {
    case 0:
        r->data += payload.size;
        break;
    case 1:
        r->headers++;
        r->got_headers = true;
        break;
    case 3:
        r->resets++;
        r->got_reset = true;
        r->reset_code = be32(payload.ptr);
        break;
    case 4:
        raw_settings(r, payload);
        break;
    case 6:
        r->pings += (flags & 1) == 0 ? 1 : 0;
        r->ping_acked = r->ping_acked || (flags & 1) != 0;
        break;
    case 7:
        r->goaways++;
        r->goaway = true;
        r->goaway_last = be32(payload.ptr);
        r->goaway_code = be32(payload.ptr + 4);
        break;
    default:
        break;
    }
}

static void raw_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    (void)conn;
    struct raw *r = ctx;
    assert_true(err_ok(buf_add(&r->in, bytes)));
    while (r->in.size >= r->parsed + 9) {
        const uint8_t *at = r->in.ptr + r->parsed;
        size_t size = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2];
        if (r->in.size - r->parsed < 9 + size) {
            return;
        }
        raw_frame(r, at[3], at[4], slice_of(at + 9, size));
        r->parsed += 9 + size;
    }
}

static void raw_closed(struct net_conn *conn, void *ctx, struct err why)
{
    (void)conn;
    (void)why;
    struct raw *r = ctx;
    r->closed = true;
    r->conn = NULL;
}

static const struct net_conn_handler raw_handler = {.readable = raw_readable, .closed = raw_closed};

void raw_open(struct peers *p, struct raw *r)
{
    *r = (struct raw){.peers = p, .in = BUF_MAX(PEERS_BODY_MAX)};
    struct net_dial_options o = {.addr = &p->addr, .handler = &raw_handler, .ctx = r};
    assert_true(err_ok(net_dial(p->loop, &o, &r->conn)));
}

void raw_serve(struct peers *p, struct raw *r)
{
    enum { PREFACE = 24 };
    *r = (struct raw){.peers = p, .in = BUF_MAX(PEERS_BODY_MAX), .parsed = PREFACE};
    p->serves = r;
}

void raw_free(struct raw *r)
{
    if (r->conn != NULL) {
        net_conn_abort(r->conn, FAIL(E_CLOSED));
        peers_wait(r->peers, &r->closed);
    }
    buf_free(&r->in);
}

void raw_send(struct raw *r, struct slice bytes)
{
    if (r->conn != NULL) {
        assert_true(err_ok(net_conn_write(r->conn, bytes)));
    }
}

void frame_add(struct buf *out, uint8_t type, uint8_t flags, uint32_t id, struct slice payload)
{
    uint8_t head[9] = {(uint8_t)(payload.size >> 16),
                       (uint8_t)(payload.size >> 8),
                       (uint8_t)payload.size,
                       type,
                       flags,
                       (uint8_t)(id >> 24),
                       (uint8_t)(id >> 16),
                       (uint8_t)(id >> 8),
                       (uint8_t)id};
    assert_true(err_ok(buf_add(out, slice_of(head, sizeof(head)))));
    assert_true(err_ok(buf_add(out, payload)));
}

void preface_add(struct buf *out)
{
    assert_true(err_ok(buf_add_str(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")));
    frame_add(out, 4, 0, 0, (struct slice){NULL, 0});
}

void hpack_add(struct buf *out, const char *name, const char *value)
{
    assert_true(strlen(name) < 127 && strlen(value) < 127);
    assert_true(err_ok(buf_add_byte(out, 0)));
    assert_true(err_ok(buf_add_byte(out, (uint8_t)strlen(name))));
    assert_true(err_ok(buf_add_str(out, name)));
    assert_true(err_ok(buf_add_byte(out, (uint8_t)strlen(value))));
    assert_true(err_ok(buf_add_str(out, value)));
}

void request_add(struct buf *out, uint32_t id, const char *path, bool end, struct slice extra)
{
    auto_buf struct buf block = BUF_MAX(1 << 20);
    hpack_add(&block, ":method", "POST");
    hpack_add(&block, ":scheme", "http");
    hpack_add(&block, ":path", path);
    hpack_add(&block, ":authority", "test");
    hpack_add(&block, "content-type", "application/grpc");
    assert_true(err_ok(buf_add(&block, extra)));
    frame_add(out, 1, (uint8_t)(4 | (end ? 1 : 0)), id, buf_slice(&block));
}
