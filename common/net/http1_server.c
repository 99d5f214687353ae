/* http1_server: requests. All parsing is in server_advance(); answers that are given later only
 * queue its hook, so that handlers never find themselves inside themselves. */
#include "common/net/http1_server.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/net/flood.h"
#include "common/net/http1_server_impl.h"

enum {
    /* Of a body that nobody wants: read on so far, for the connection's sake. */
    DISCARD_BYTES_MAX = 256 << 10,
    /* Pipelined requests that wait; then reading is paused. */
    PENDING_BYTES_MAX = 2 * NET_READ_BYTES,
};

static void server_advance(struct http1_server *s);

void http1_server_free(struct http1_server *s)
{
    buf_free(&s->pending);
    buf_free(&s->scratch);
    buf_free(&s->exchange.body);
    buf_free(&s->exchange.rest);
    free(s->store);
    free(s->fields);
    free(s);
}

static uint64_t idle_ms(const struct http1_server *s)
{
    return s->options.idle_ms == 0 ? limits.idle_timeout_ms : s->options.idle_ms;
}

/* Arms the timer for what the connection waits for now. A head keeps its first time. */
static void server_wait(struct http1_server *s)
{
    const struct http1_exchange *x = &s->exchange;
    enum http1_wait waits = x->active && x->request_done   ? HTTP1_WAIT_ANSWER
                            : x->active                    ? HTTP1_WAIT_BODY
                            : http1_in_message(&s->parser) ? HTTP1_WAIT_HEAD
                                                           : HTTP1_WAIT_REQUEST;
    if (waits == s->waits && waits == HTTP1_WAIT_HEAD) {
        return;
    }
    s->waits = waits;
    s->written_before = net_conn_stats(s->conn)->bytes_out;
    net_timer_arm(net_conn_loop(s->conn), &s->timer,
                  waits == HTTP1_WAIT_HEAD ? limits.header_timeout_ms : idle_ms(s));
}

static void on_timer(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct http1_server *s = ctx;
    bool stuck =
        net_conn_output(s->conn) > 0 && net_conn_stats(s->conn)->bytes_out == s->written_before;
    switch (s->waits) {
    case HTTP1_WAIT_REQUEST:
        net_conn_close(s->conn);
        return;
    case HTTP1_WAIT_HEAD:
    case HTTP1_WAIT_BODY:
        if (s->exchange.paused) { /* it is us who do not read. */
            server_wait(s);
            return;
        }
        net_flood(net_conn_loop(s->conn),
                  s->waits == HTTP1_WAIT_HEAD ? NET_FLOOD_SLOW_HEAD : NET_FLOOD_SLOW_BODY,
                  net_conn_peer(s->conn));
        http1_server_refuse(s, 408, FAIL(E_TIMEOUT));
        return;
    case HTTP1_WAIT_ANSWER: /* the handler may take its time; a caller who does not read, not. */
        if (stuck) {
            net_conn_abort(s->conn, FAIL(E_TIMEOUT));
            return;
        }
        server_wait(s);
        return;
    }
}

static void exchange_tell_gone(struct http1_exchange *x, struct err why)
{
    struct http1_server *s = x->server;
    if (!x->active) {
        return;
    }
    if (s->options.handler->gone != NULL) {
        s->options.handler->gone(x, s->options.ctx, why);
    }
    x->active = false;
}

void http1_server_refuse(struct http1_server *s, unsigned status, struct err why)
{
    struct http1_exchange *x = &s->exchange;
    s->refused = true;
    s->input = (struct slice){0};
    net_timer_cancel(net_conn_loop(s->conn), &s->timer);
    struct http1_refusal more = {0};
    if (x->head_answered) {
        net_conn_abort(s->conn, why);
        return;
    }
    if (s->options.handler->refused != NULL) {
        more = s->options.handler->refused(s->options.ctx, x->active ? x : NULL, status, why);
    }
    http1_answer_refusal(x, status, why, &more);
    exchange_tell_gone(x, why);
    net_conn_close(s->conn);
}

static void exchange_begin(struct http1_server *s)
{
    struct http1_exchange *x = &s->exchange;
    struct buf body = x->body;
    struct buf rest = x->rest;
    buf_clear(&body);
    buf_clear(&rest);
    *x = (struct http1_exchange){.server = s, .active = true, .body = body, .rest = rest};
    x->continue_due = s->parser.head.expect_continue;
    x->close_after = s->parser.head.form == HTTP1_AUTHORITY; /* behind CONNECT comes no request. */
    s->options.handler->head(x, s->options.ctx);
}

static void exchange_send_continue(struct http1_exchange *x)
{
    struct http1_server *s = x->server;
    if (!x->continue_due || x->head_answered || x->paused) {
        return;
    }
    x->continue_due = false;
    if (!err_ok(net_conn_write(s->conn, SLICE_LIT("HTTP/1.1 100 Continue\r\n\r\n")))) {
        net_conn_abort(s->conn, FAIL(E_CLOSED));
    }
}

/* The head was shown to the handler, who may have asked for the body to be held. */
static void exchange_after_head(struct http1_exchange *x)
{
    struct http1_server *s = x->server;
    const struct http1_head *head = &s->parser.head;
    if (s->released || x->answer_done) {
        return;
    }
    if (x->holds && head->framing == HTTP1_LENGTH && head->length > x->hold_max) {
        http1_server_refuse(s, 413, FAIL(E_TOO_LARGE));
        return;
    }
    exchange_send_continue(x);
}

static void exchange_take_body(struct http1_exchange *x, struct slice bytes)
{
    struct http1_server *s = x->server;
    x->continue_due = false;
    if (x->answer_done) {
        x->discarded_bytes += bytes.size;
        if (x->discarded_bytes > DISCARD_BYTES_MAX) {
            x->close_after = true;
            x->request_done = true;
        }
        return;
    }
    if (!x->holds) {
        if (s->options.handler->body != NULL) {
            s->options.handler->body(x, s->options.ctx, bytes);
        }
        return;
    }
    if (!err_ok(buf_add(&x->body, bytes))) {
        http1_server_refuse(s, 413, FAIL(E_TOO_LARGE));
    }
}

static void exchange_end_request(struct http1_exchange *x)
{
    struct http1_server *s = x->server;
    x->request_done = true;
    x->continue_due = false;
    if (!x->answer_done && s->options.handler->end != NULL) {
        s->options.handler->end(x, s->options.ctx);
    }
}

/* One event of the parser; false when there is nothing more to parse now. */
static bool server_step(struct http1_server *s)
{
    struct http1_exchange *x = &s->exchange;
    enum http1_event event = HTTP1_MORE;
    struct err failed = http1_parse(&s->parser, &s->input, &event);
    if (!err_ok(failed)) {
        http1_server_refuse(s, (unsigned)err_http_status(failed.code), failed);
        return false;
    }
    switch (event) {
    case HTTP1_MORE:
        return false;
    case HTTP1_HEAD:
        exchange_begin(s);
        exchange_after_head(x);
        return true;
    case HTTP1_BODY:
        exchange_take_body(x, s->parser.body);
        return true;
    case HTTP1_UPGRADED:
    case HTTP1_END:
        exchange_end_request(x);
        return true;
    }
    return false;
}

/* The answer is whole and the request was read: makes room for the next one. */
static void exchange_finish(struct http1_server *s)
{
    struct http1_exchange *x = &s->exchange;
    bool close = x->close_after;
    exchange_tell_gone(x, OK);
    if (close || s->draining) {
        s->refused = true;
        net_conn_close(s->conn);
        return;
    }
    http1_next(&s->parser);
    s->waits = HTTP1_WAIT_REQUEST; /* the next head has a time of its own. */
    *x = (struct http1_exchange){.server = s, .body = x->body, .rest = x->rest};
}

/* Answers pile up for a caller who does not read them: no further request is begun. */
static bool server_crowded(const struct http1_server *s)
{
    return !s->exchange.active && net_conn_output(s->conn) > limits.output_buffer_bytes / 2;
}

static bool server_may_parse(const struct http1_server *s)
{
    const struct http1_exchange *x = &s->exchange;
    return !s->released && !server_crowded(s) && !s->refused && !net_conn_closing(s->conn) &&
           !x->paused && !(x->active && x->request_done);
}

static void server_parse(struct http1_server *s)
{
    struct http1_exchange *x = &s->exchange;
    /* Ends: a step that takes no input and changes no state answers false. */
    for (;;) {
        if (!s->released && x->active && x->request_done && x->answer_done && !s->refused) {
            exchange_finish(s);
        }
        if (!server_may_parse(s) || !server_step(s)) {
            return;
        }
    }
}

/* Keeps what could not be parsed yet, and holds the caller back when that is too much. */
static void server_keep(struct http1_server *s, bool from_pending)
{
    if (from_pending) {
        buf_drop(&s->pending, s->pending.size - s->input.size);
    } else if (!err_ok(buf_add(&s->pending, s->input))) {
        net_conn_abort(s->conn, FAIL(E_TOO_LARGE));
    }
    s->input = (struct slice){0};
    if (server_crowded(s)) {
        net_conn_want_drained(s->conn);
    }
    if (s->pending.size > 0 || s->exchange.paused || server_crowded(s)) {
        net_conn_pause(s->conn);
    } else {
        net_conn_resume(s->conn);
    }
}

static void server_eof(struct http1_server *s)
{
    enum http1_event event = HTTP1_MORE;
    if (s->refused || s->pending.size > 0) {
        return;
    }
    if (s->exchange.active && s->exchange.request_done) {
        s->exchange.close_after = true; /* half-closed: the answer is still wanted. */
        return;
    }
    s->refused = true;
    if (!err_ok(http1_parse_eof(&s->parser, &event)) || s->exchange.active) {
        net_conn_abort(s->conn, FAIL(E_CLOSED));
        return;
    }
    net_conn_close(s->conn);
}

/* Parses what there is: 's->input', or what was kept before. */
static void server_advance(struct http1_server *s)
{
    bool from_pending = s->pending.size > 0;
    if (s->parsing) {
        return;
    }
    s->parsing = true;
    if (from_pending) {
        s->input = buf_slice(&s->pending);
    }
    server_parse(s);
    s->parsing = false;
    if (s->released) {
        http1_server_free(s);
        return;
    }
    if (s->refused || net_conn_closing(s->conn)) {
        s->input = (struct slice){0};
        return;
    }
    server_keep(s, from_pending);
    if (s->eof) {
        server_eof(s);
    }
    server_wait(s);
}

static void on_hook(struct net_hook *hook, void *ctx)
{
    (void)hook;
    server_advance(ctx);
}

static void on_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct http1_server *s = ctx;
    if (s->refused) {
        return;
    }
    if (s->pending.size > 0) {
        if (!err_ok(buf_add(&s->pending, bytes))) {
            net_conn_abort(conn, FAIL(E_TOO_LARGE));
            return;
        }
    } else {
        s->input = bytes;
    }
    server_advance(s);
}

static void on_eof(struct net_conn *conn, void *ctx)
{
    struct http1_server *s = ctx;
    (void)conn;
    s->eof = true;
    server_eof(s);
}

static void on_drained(struct net_conn *conn, void *ctx)
{
    struct http1_server *s = ctx;
    struct http1_exchange *x = &s->exchange;
    if (!x->active) {
        net_hook_queue(net_conn_loop(conn), &s->hook);
        return;
    }
    if (!http1_answer_pump(x) || !x->want_drained) {
        return;
    }
    x->want_drained = false;
    if (!x->answer_done && s->options.handler->drained != NULL) {
        s->options.handler->drained(x, s->options.ctx);
    }
}

static void on_closed(struct net_conn *conn, void *ctx, struct err why)
{
    struct http1_server *s = ctx;
    struct net_loop *loop = net_conn_loop(conn);
    net_timer_cancel(loop, &s->timer);
    net_hook_cancel(loop, &s->hook);
    exchange_tell_gone(&s->exchange, err_ok(why) ? FAIL(E_CLOSED) : why);
    if (s->options.closed != NULL) {
        s->options.closed(s->options.ctx);
    }
    http1_server_free(s);
}

static const struct net_conn_handler conn_handler = {
    .readable = on_readable,
    .eof = on_eof,
    .drained = on_drained,
    .closed = on_closed,
};

struct err http1_server_start(struct net_conn *conn, const struct http1_server_options *o,
                              struct slice early, struct http1_server **out)
{
    CHECK(o->handler != NULL && o->handler->head != NULL);
    struct http1_server *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct http1_store store = {
        .size = o->head_bytes == 0 ? limits.proxy_head_bytes : o->head_bytes,
        .field_max = o->header_fields == 0 ? limits.request_header_fields : o->header_fields,
    };
    s->pending = BUF_MAX(PENDING_BYTES_MAX);
    s->scratch = BUF_MAX(store.size * 2);
    s->store = store.bytes = malloc(store.size);
    s->fields = store.fields = calloc(store.field_max, sizeof(*store.fields));
    if (s->store == NULL || s->fields == NULL || !err_ok(buf_add(&s->pending, early))) {
        http1_server_free(s);
        return FAIL(E_NO_MEMORY);
    }
    s->conn = conn;
    s->options = *o;
    s->exchange.server = s;
    s->exchange.rest = BUF_MAX(SIZE_MAX / 2);
    http1_parser_init(&s->parser, HTTP1_REQUEST, &store);
    net_hook_init(&s->hook, NET_HOOK_WORK, on_hook, s);
    net_timer_init(&s->timer, on_timer, s);
    net_conn_set_handler(conn, &conn_handler, s);
    net_timer_arm(net_conn_loop(conn), &s->timer, limits.handshake_timeout_ms);
    if (early.size > 0) {
        net_hook_queue(net_conn_loop(conn), &s->hook);
    }
    *out = s;
    return OK;
}

void http1_server_drain(struct http1_server *s)
{
    s->draining = true;
    if (!s->exchange.active && !http1_in_message(&s->parser) && s->pending.size == 0) {
        net_conn_close(s->conn);
    }
}

struct net_conn *http1_server_conn(struct http1_server *s)
{
    return s->conn;
}

const struct http1_head *http1_exchange_head(const struct http1_exchange *x)
{
    return &x->server->parser.head;
}

struct net_conn *http1_exchange_conn(const struct http1_exchange *x)
{
    return x->server->conn;
}

void *http1_exchange_ctx(const struct http1_exchange *x)
{
    return x->server->options.ctx;
}

void *http1_exchange_user(const struct http1_exchange *x)
{
    return x->user;
}

void http1_exchange_set_user(struct http1_exchange *x, void *user)
{
    x->user = user;
}

void http1_exchange_hold(struct http1_exchange *x, size_t max)
{
    x->holds = true;
    x->hold_max = max;
    x->body.max = max;
}

struct slice http1_exchange_body(const struct http1_exchange *x)
{
    return buf_slice(&x->body);
}

const struct http1_field *http1_exchange_trailers(const struct http1_exchange *x, size_t *count)
{
    *count = x->server->parser.trailer_count;
    return x->server->parser.trailers;
}

void http1_exchange_pause(struct http1_exchange *x)
{
    x->paused = true;
    net_conn_pause(x->server->conn);
}

void http1_exchange_resume(struct http1_exchange *x)
{
    struct http1_server *s = x->server;
    if (!x->paused) {
        return;
    }
    x->paused = false;
    exchange_send_continue(x);
    net_hook_queue(net_conn_loop(s->conn), &s->hook);
}

void http1_exchange_abort(struct http1_exchange *x)
{
    net_conn_abort(x->server->conn, FAIL(E_CANCELLED));
}
