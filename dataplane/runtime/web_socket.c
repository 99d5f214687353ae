/* web_socket: see web_socket.h. */
#include "dataplane/runtime/web_socket.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_guard.h"
#include "common/net/http1_server.h"
#include "common/net/ws.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/web.h"
#include "dataplane/runtime/web_http1.h"
#include "dataplane/runtime/worker.h"

/* What a frame has beside its payload, what is left for frames of control, and the longest message
 * of ours. */
enum { FRAME_BYTES = 14, CONTROL_ROOM = 1024, MESSAGE_MAX = 64 << 10 };

/* What waits in the connection for a slow page, at most. */
enum { OUTPUT_MAX = 2 * MESSAGE_MAX };

/* The byte in front of each message behind the first. */
enum { MESSAGE_DATA = 0, MESSAGE_END = 1 };

enum state {
    AT_FIELDS, /* the first message is awaited. */
    AT_CALL,   /* the call goes on. */
    AT_CLOSE,  /* a close was sent; the connection ends when that has left. */
};

struct dp_web_socket {
    struct dp_web web;
    struct dp_caller_conn *conn;
    struct net_conn *net;
    struct ws *ws;
    struct net_timer timer; /* until the fields are there. */
    struct h2_guard control;
    struct buf fields; /* the first message. */
    enum state state;
    bool in_message; /* the first byte of a message was seen; */
    uint8_t kind;    /* ... and this was it. */
    bool whole;      /* the request is. */
    bool paused;     /* the lane has enough for now. */
    struct slice authority;
    struct slice path;
    struct slice origin; /* empty: none. */
    struct arena arena;  /* of these. */
};

static struct dp_web_socket *socket_of(struct dp_web *w)
{
    return w->impl;
}

/* ---- how it ends ---- */

static void flush(struct dp_web_socket *s)
{
    if (!err_ok(ws_flush(s->ws))) {
        net_conn_abort(s->net, FAIL(E_CLOSED));
    } else if (ws_waits(s->ws)) {
        net_conn_want_drained(s->net);
    } else if (s->state == AT_CLOSE) {
        net_conn_close(s->net);
    }
}

/* Says why, and ends the connection when that has left. */
static void finish(struct dp_web_socket *s, enum ws_code code)
{
    if (s->state != AT_CLOSE) {
        s->state = AT_CLOSE;
        net_timer_cancel(net_conn_loop(s->net), &s->timer);
        ws_close(s->ws, code);
        flush(s);
    }
}

/* The caller broke the protocol, or left: its call ends, too. */
static void break_off(struct dp_web_socket *s, enum ws_code code)
{
    finish(s, code);
    dp_web_gone(&s->web, FAIL(E_CLOSED));
}

static void too_late(struct net_timer *timer, void *ctx)
{
    (void)timer;
    finish(ctx, WS_POLICY);
}

void dp_web_socket_drain(struct dp_web_socket *s)
{
    if (s->state == AT_FIELDS) {
        finish(s, WS_GOING_AWAY);
    }
}

void dp_web_socket_abort(struct dp_web_socket *s, struct err why)
{
    break_off(s, why.code == E_DRAINING ? WS_GOING_AWAY : WS_POLICY);
    if (!net_conn_closing(s->net)) {
        net_conn_abort(s->net, why);
    }
}

/* ---- the sink ---- */

/* Fields are a frame like any other, behind what waits. */
static struct err head(struct dp_web *w, const struct h2_field *fields, size_t count, bool end)
{
    (void)end;
    return grpc_web_write_fields(&w->waiting, fields, count);
}

static size_t room(struct dp_web *w)
{
    struct dp_web_socket *s = socket_of(w);
    size_t bytes = ws_waits(s->ws) ? 0 : net_conn_room(s->net);
    if (bytes <= CONTROL_ROOM) {
        net_conn_want_drained(s->net);
        return 0;
    }
    return bytes - CONTROL_ROOM < MESSAGE_MAX ? bytes - CONTROL_ROOM : MESSAGE_MAX;
}

static struct err write_wire(struct dp_web *w, struct slice wire)
{
    return ws_send(socket_of(w)->ws, wire);
}

static struct err end_body(struct dp_web *w)
{
    struct dp_web_socket *s = socket_of(w);
    finish(s, s->conn->port->worker->draining ? WS_GOING_AWAY : WS_NORMAL);
    return OK;
}

static void hold(struct dp_web_socket *s)
{
    bool much = s->web.held > limits.stream_window_bytes / 2;
    bool little = s->web.held <= limits.stream_window_bytes / 4;
    if (much && !s->paused) {
        s->paused = true;
        net_conn_pause(s->net);
    } else if (little && s->paused) {
        s->paused = false;
        net_conn_resume(s->net);
    }
}

static void consume(struct dp_web *w, size_t bytes)
{
    (void)bytes;
    hold(socket_of(w));
}

static void abort_socket(struct dp_web *w)
{
    finish(socket_of(w), WS_INTERNAL);
}

static const struct dp_web_sink sink = {.head = head,
                                        .room = room,
                                        .write = write_wire,
                                        .end = end_body,
                                        .consume = consume,
                                        .abort = abort_socket};

/* ---- the fields: a request ---- */

static size_t count_lines(struct slice section)
{
    size_t lines = 0;
    for (size_t i = 0; i < section.size; i++) {
        lines += section.ptr[i] == '\n';
    }
    return lines;
}

/* Browsers' libraries write names as they are given them. */
static void lower(struct buf *section)
{
    bool in_name = true;
    for (size_t i = 0; i < section->size; i++) {
        uint8_t *c = &section->ptr[i];
        in_name = *c == '\n' || (in_name && *c != ':');
        *c |= in_name && *c >= 'A' && *c <= 'Z' ? 0x20 : 0;
    }
}

static struct err add_fields(struct dp_web *w, struct h2_fields *to)
{
    struct slice section = buf_slice(&socket_of(w)->fields);
    bool found = true;
    while (found) {
        struct slice name = {0};
        struct slice value = {0};
        TRY(grpc_web_next_field(&section, &name, &value, &found));
        if (found) {
            dp_web_add_text(to, name, value);
        }
    }
    return OK;
}

/* The content type that the caller names says how it writes messages; frames are binary. */
static struct slice find_type(struct slice section)
{
    bool found = true;
    struct slice type = SLICE_LIT("application/grpc-web+proto");
    while (found) {
        struct slice name = {0};
        struct slice value = {0};
        struct slice suffix = {0};
        struct err e = grpc_web_next_field(&section, &name, &value, &found);
        found = err_ok(e) && found;
        if (found && slice_eq(name, SLICE_LIT("content-type")) &&
            grpc_web_content_type(value, &suffix) == GRPC_WEB_BINARY) {
            type = value;
        }
    }
    return type;
}

static void start_call(struct dp_web_socket *s)
{
    lower(&s->fields);
    struct slice section = buf_slice(&s->fields);
    size_t lines = count_lines(section);
    if (lines > limits.request_header_fields) {
        finish(s, WS_TOO_BIG);
        return;
    }
    net_timer_cancel(net_conn_loop(s->net), &s->timer);
    s->state = AT_CALL;
    const struct dp_web_ask ask = {
        .conn = s->conn,
        .authority = s->authority,
        .path = s->path,
        .content_type = find_type(section),
        .origin = s->origin,
        .field_max = lines,
        .add = add_fields,
        .protocol = "websocket",
    };
    dp_web_start(&s->web, &ask);
}

static void take_fields(struct dp_web_socket *s, struct slice bytes, bool end)
{
    if (!err_ok(buf_add(&s->fields, bytes))) {
        finish(s, WS_TOO_BIG);
    } else if (end) {
        start_call(s);
    }
}

/* ---- messages ---- */

static void take_message(struct dp_web_socket *s, struct slice bytes, bool end)
{
    if (!s->in_message && bytes.size > 0) {
        s->in_message = true;
        s->kind = bytes.ptr[0];
        bytes = slice_from(bytes, 1);
    }
    bool wrong = (end && !s->in_message) || (s->in_message && s->kind > MESSAGE_END) ||
                 (s->kind == MESSAGE_END && bytes.size > 0) || s->whole;
    if (wrong) {
        break_off(s, WS_PROTOCOL_ERROR);
        return;
    }
    if (bytes.size > 0) {
        dp_web_data(&s->web, bytes, /* end= */ false);
    }
    if (!end) {
        return;
    }
    s->in_message = false;
    if (s->kind == MESSAGE_END) {
        s->whole = true;
        dp_web_data(&s->web, (struct slice){0}, /* end= */ true);
    }
    s->kind = MESSAGE_DATA;
}

static void data(void *ctx, struct slice bytes, bool end)
{
    struct dp_web_socket *s = ctx;
    switch (s->state) {
    case AT_FIELDS:
        take_fields(s, bytes, end);
        return;
    case AT_CALL:
        take_message(s, bytes, end);
        return;
    case AT_CLOSE:
        return;
    }
}

static bool control(void *ctx)
{
    struct dp_web_socket *s = ctx;
    uint64_t now_ms = net_loop_now_ns(net_conn_loop(s->net)) / 1000000;
    return h2_guard_charge(&s->control, now_ms, /* charges= */ 1);
}

static size_t output_room(void *ctx)
{
    const struct dp_web_socket *s = ctx;
    return net_conn_room(s->net);
}

static struct err output(void *ctx, struct slice bytes)
{
    struct dp_web_socket *s = ctx;
    return net_conn_write(s->net, bytes);
}

static const struct ws_handler frames = {
    .data = data, .control = control, .room = output_room, .write = output};

/* ---- the connection ---- */

static void read_frames(struct dp_web_socket *s, struct slice bytes)
{
    struct err e = ws_read(s->ws, bytes);
    if (!err_ok(e)) {
        break_off(s, WS_NORMAL); /* the library said what there is to say. */
        return;
    }
    flush(s);
    if (s->web.rq != NULL) {
        hold(s);
    }
}

static void readable(struct net_conn *net, void *ctx, struct slice bytes)
{
    (void)net;
    read_frames(ctx, bytes);
}

static void eof(struct net_conn *net, void *ctx)
{
    struct dp_web_socket *s = ctx;
    dp_web_gone(&s->web, FAIL(E_CLOSED));
    net_conn_close(net);
}

static void drained(struct net_conn *net, void *ctx)
{
    (void)net;
    struct dp_web_socket *s = ctx;
    flush(s);
    dp_web_pump(&s->web);
}

static void free_socket(struct dp_web_socket *s)
{
    if (s != NULL) {
        ws_free(s->ws);
        buf_free(&s->fields);
        arena_free(&s->arena);
        dp_web_free(&s->web);
        free(s);
    }
}

static void closed(struct net_conn *net, void *ctx, struct err why)
{
    (void)why;
    struct dp_web_socket *s = ctx;
    struct dp_caller_conn *c = s->conn;
    s->state = AT_CLOSE;
    net_timer_cancel(net_conn_loop(net), &s->timer);
    dp_web_gone(&s->web, FAIL(E_CLOSED));
    free_socket(s);
    dp_caller_conn_free(c);
}

static const struct net_conn_handler handler = {
    .readable = readable, .eof = eof, .drained = drained, .closed = closed};

/* ---- the handshake ---- */

static MUST_CHECK struct err judge(const struct dp_caller_conn *c, const struct http1_head *asked)
{
    const struct dp_worker *w = c->port->worker;
    const struct dp_cors_ask cors = {
        .model = dp_request_pool_model(&w->pool),
        .authority = asked->authority,
        .path = asked->path,
        .origin = dp_web_origin_http1(asked),
        .tls = net_conn_is_tls(dp_caller_conn_net(c)),
        .ambient = dp_caller_conn_is_proven(c),
    };
    struct dp_cors_answer nothing_to_say;
    if (w->draining) {
        return FAIL(E_DRAINING);
    }
    if (cors.model == NULL) {
        return FAIL(E_NOT_READY);
    }
    TRY(dp_cors_judge(&cors, &nothing_to_say));
    return dp_web_judge_path(asked->path);
}

static MUST_CHECK struct err make(struct dp_caller_conn *c, const struct http1_head *asked,
                                  struct dp_web_socket **out)
{
    enum { ARENA_BLOCK = 512 };
    struct dp_web_socket *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->conn = c;
    s->fields = BUF_MAX(limits.request_header_bytes);
    arena_init(&s->arena, ARENA_BLOCK, limits.request_arena_bytes);
    dp_web_init(&s->web, &sink, s);
    net_timer_init(&s->timer, too_late, s);
    /* One message carries at least one of gRPC, and the byte before it. */
    struct err e = ws_new(&frames, s, limits.request_body_bytes + FRAME_BYTES, &s->ws);
    if (err_ok(e)) {
        e = arena_dup(&s->arena, asked->authority, &s->authority);
    }
    if (err_ok(e)) {
        e = arena_dup(&s->arena, asked->path, &s->path);
    }
    if (err_ok(e)) {
        e = arena_dup(&s->arena, dp_web_origin_http1(asked), &s->origin);
    }
    if (!err_ok(e)) {
        free_socket(s);
        return e;
    }
    *out = s;
    return OK;
}

static void begin(struct dp_web_socket *s, struct slice early)
{
    struct net_loop *loop = net_conn_loop(s->net);
    h2_guard_init(&s->control, limits.control_frames_per_second, net_loop_now_ns(loop) / 1000000);
    net_conn_set_handler(s->net, &handler, s);
    net_conn_set_output_max(s->net, OUTPUT_MAX); /* a slow page has to take it behind the close. */
    net_timer_arm(loop, &s->timer, limits.header_timeout_ms);
    dp_caller_conn_socket(s->conn, s->net, s);
    if (early.size > 0) {
        read_frames(s, early);
    }
}

struct err dp_web_socket_open(struct dp_caller_conn *c, struct http1_exchange *x,
                              const char *accept)
{
    const struct http1_field fields[] = {
        {SLICE_LIT("upgrade"), SLICE_LIT("websocket")},
        {SLICE_LIT("sec-websocket-accept"), slice_str(accept)},
        {SLICE_LIT("sec-websocket-protocol"), DP_WEB_SOCKET_PROTOCOL},
    };
    auto_buf struct buf early = BUF_MAX((size_t)2 * NET_READ_BYTES);
    struct dp_web_socket *s = NULL;
    TRY(judge(c, http1_exchange_head(x)));
    TRY(make(c, http1_exchange_head(x), &s));
    struct err e = http1_exchange_take_conn(x, 101, fields, 3, &s->net, &early);
    if (!err_ok(e)) {
        free_socket(s);
        return e;
    }
    begin(s, buf_slice(&early));
    return OK;
}
