/* web_http1: see web_http1.h. */
#include "dataplane/runtime/web_http1.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/http1_server.h"
#include "common/net/ws.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/web.h"
#include "dataplane/runtime/web_socket.h"
#include "dataplane/runtime/worker.h"

struct web_http1 {
    struct dp_web web;
    struct dp_caller_conn *conn;
    struct http1_exchange *exchange; /* the present one. */
    bool paused;                     /* the lane has enough of the body for now. */
};

static struct web_http1 *http1_of(struct dp_web *w)
{
    return w->impl;
}

/* ---- the sink ---- */

static MUST_CHECK struct err make_fields(struct arena *arena, const struct h2_field *fields,
                                         size_t count, struct http1_field **out)
{
    TRY(arena_calloc(arena, count, sizeof(**out), (void **)out));
    for (size_t i = 0; i < count; i++) {
        (*out)[i] = (struct http1_field){fields[i].name, fields[i].value};
    }
    return OK;
}

/* fields[0] is ":status". */
static struct err head(struct dp_web *w, const struct h2_field *fields, size_t count, bool end)
{
    enum { HEAD_BLOCK = 2048 };
    struct http1_exchange *x = http1_of(w)->exchange;
    auto_arena struct arena arena = {0};
    struct http1_field *made = NULL;
    arena_init(&arena, HEAD_BLOCK, limits.request_arena_bytes);
    TRY(make_fields(&arena, fields + 1, count - 1, &made));
    if (end) {
        return http1_respond(x, 200, made, count - 1, (struct slice){0});
    }
    return http1_respond_head(x, 200, made, count - 1, HTTP1_LENGTH_UNKNOWN);
}

static size_t room(struct dp_web *w)
{
    struct http1_exchange *x = http1_of(w)->exchange;
    size_t bytes = http1_respond_room(x);
    if (bytes < 4) {
        http1_exchange_want_drained(x);
    }
    return bytes;
}

static struct err write_wire(struct dp_web *w, struct slice wire)
{
    return http1_respond_body(http1_of(w)->exchange, wire);
}

static struct err end_body(struct dp_web *w)
{
    struct http1_exchange *x = http1_of(w)->exchange;
    return http1_exchange_done(x) ? OK : http1_respond_end(x, /* trailers= */ NULL, 0);
}

/* Reading stops while more than half of a window is held: what a read brings beyond that has room
 * in the other half. */
static void hold(struct web_http1 *h)
{
    bool much = h->web.held > limits.stream_window_bytes / 2;
    bool little = h->web.held <= limits.stream_window_bytes / 4;
    if (much && !h->paused) {
        h->paused = true;
        http1_exchange_pause(h->exchange);
    } else if (little && h->paused) {
        h->paused = false;
        http1_exchange_resume(h->exchange);
    }
}

static void consume(struct dp_web *w, size_t bytes)
{
    (void)bytes;
    hold(http1_of(w));
}

static void abort_exchange(struct dp_web *w)
{
    http1_exchange_abort(http1_of(w)->exchange);
}

static const struct dp_web_sink sink = {.head = head,
                                        .room = room,
                                        .write = write_wire,
                                        .end = end_body,
                                        .consume = consume,
                                        .abort = abort_exchange};

/* ---- a request ---- */

static bool is_named(const struct http1_head *head, struct slice name)
{
    return http1_has_token(head, SLICE_LIT("connection"), name);
}

/* Fields that "connection" names are of this hop alone (RFC 9110, 7.6.1). */
static struct err add_fields(struct dp_web *w, struct h2_fields *to)
{
    const struct http1_head *head = http1_exchange_head(http1_of(w)->exchange);
    const struct http1_field *connection = http1_find(head, SLICE_LIT("connection"));
    for (size_t i = 0; i < head->field_count; i++) {
        struct slice name = head->fields[i].name;
        if (connection != NULL && is_named(head, name)) {
            continue;
        }
        dp_web_add_text(to, name, head->fields[i].value);
    }
    return OK;
}

static struct slice value_of(const struct http1_head *head, const char *name)
{
    const struct http1_field *field = http1_find(head, slice_str(name));
    return field == NULL ? (struct slice){0} : field->value;
}

struct slice dp_web_origin_http1(const struct http1_head *head)
{
    struct slice origin = {0};
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        if (slice_eq(head->fields[i].name, SLICE_LIT("origin"))) {
            origin = head->fields[i].value;
            count++;
        }
    }
    return count > 1 ? DP_ORIGIN_OPAQUE : origin;
}

static void answer_error(struct web_http1 *h, struct err why)
{
    const struct dp_early early = {
        .conn = h->conn,
        .protocol = "http1",
        .why = why,
        .path = http1_exchange_head(h->exchange)->path,
    };
    dp_early_answer(&early, h->exchange);
}

static void answer_call(struct web_http1 *h, const struct http1_head *head)
{
    if (!slice_eq(head->method, SLICE_LIT("POST"))) {
        answer_error(h, FAIL(E_METHOD_NOT_ALLOWED));
        return;
    }
    const struct dp_web_ask ask = {
        .conn = h->conn,
        .authority = head->authority,
        .path = head->path,
        .content_type = value_of(head, "content-type"),
        .accept = value_of(head, "accept"),
        .origin = dp_web_origin_http1(head),
        .has_browser = true,
        .field_max = head->field_count,
        .add = add_fields,
        .protocol = "http1",
    };
    dp_web_start(&h->web, &ask);
}

static bool is_preflight(const struct http1_head *head)
{
    return slice_eq(head->method, SLICE_LIT("OPTIONS")) && head->form != HTTP1_ASTERISK &&
           http1_find(head, SLICE_LIT("origin")) != NULL &&
           http1_find(head, SLICE_LIT("access-control-request-method")) != NULL;
}

static void answer_preflight(struct web_http1 *h, const struct http1_head *head)
{
    const struct dp_cors_ask ask = {
        .model = dp_request_pool_model(&h->conn->port->worker->pool),
        .authority = head->authority,
        .path = head->path,
        .origin = dp_web_origin_http1(head),
        .tls = net_conn_is_tls(http1_exchange_conn(h->exchange)),
    };
    struct dp_preflight answer;
    struct err e = dp_cors_preflight(&ask, &answer);
    if (!err_ok(e)) {
        answer_error(h, e);
    } else if (!err_ok(http1_respond(h->exchange, 204, answer.fields, answer.count,
                                     (struct slice){0}))) {
        http1_exchange_abort(h->exchange);
    }
}

/* ---- WebSockets ---- */

/* RFC 6455, 4.4: the versions that there are. */
static void answer_version(struct web_http1 *h)
{
    enum { STATUS = 426, FIELDS = 4 };
    const struct dp_early early = {
        .conn = h->conn,
        .protocol = "http1",
        .why = FAIL(E_UNSUPPORTED),
        .http_status = STATUS,
        .path = http1_exchange_head(h->exchange)->path,
    };
    struct http1_refusal told = dp_early_note(&early);
    const struct http1_field fields[FIELDS] = {
        {SLICE_LIT("upgrade"), SLICE_LIT("websocket")},
        {SLICE_LIT("sec-websocket-version"), SLICE_LIT("13")},
        {SLICE_LIT("x-trilane-code"), slice_str(err_name(E_UNSUPPORTED))},
        {SLICE_LIT("x-trilane-explain"), told.explain},
    };
    size_t count = told.explain.size > 0 ? FIELDS : FIELDS - 1;
    if (!err_ok(http1_respond(h->exchange, STATUS, fields, count, (struct slice){0}))) {
        http1_exchange_abort(h->exchange);
    }
}

static void free_http1(struct web_http1 *h)
{
    dp_web_free(&h->web);
    free(h);
}

static void open_socket(struct web_http1 *h, const char *accept)
{
    struct err e = dp_web_socket_open(h->conn, h->exchange, accept);
    if (err_ok(e)) {
        free_http1(h); /* the connection is the socket's. */
    } else {
        answer_error(h, e);
    }
}

/* True when it was a WebSocket that the request asks for. */
static bool answer_upgrade(struct web_http1 *h, const struct http1_head *head)
{
    char accept[WS_ACCEPT_SIZE + 1];
    switch (ws_judge(head, DP_WEB_SOCKET_PROTOCOL, accept)) {
    case WS_ASK_NONE:
        return false;
    case WS_ASK_VERSION:
        answer_version(h);
        return true;
    case WS_ASK_WRONG:
        answer_error(h, FAIL(E_MALFORMED));
        return true;
    case WS_ASK_WELL:
        open_socket(h, accept);
        return true;
    }
    return false;
}

/* ---- the server's handler ---- */

static bool is_web(const struct http1_head *head)
{
    struct slice suffix = {0};
    return grpc_web_content_type(value_of(head, "content-type"), &suffix) != GRPC_WEB_NONE;
}

static void came(struct http1_exchange *x, void *ctx)
{
    struct web_http1 *h = ctx;
    const struct http1_head *asked = http1_exchange_head(x);
    h->exchange = x;
    h->paused = false;
    dp_web_init(&h->web, &sink, h);
    if (is_preflight(asked)) {
        answer_preflight(h, asked);
    } else if (is_web(asked)) {
        answer_call(h, asked);
    } else if (!answer_upgrade(h, asked)) {
        answer_error(h, FAIL(E_HTTP_VERSION));
    }
}

static void body(struct http1_exchange *x, void *ctx, struct slice bytes)
{
    (void)x;
    struct web_http1 *h = ctx;
    dp_web_data(&h->web, bytes, /* end= */ false);
    if (h->web.rq != NULL) {
        hold(h);
    }
}

static void ended(struct http1_exchange *x, void *ctx)
{
    (void)x;
    struct web_http1 *h = ctx;
    dp_web_data(&h->web, (struct slice){0}, /* end= */ true);
}

static void drained(struct http1_exchange *x, void *ctx)
{
    (void)x;
    struct web_http1 *h = ctx;
    dp_web_pump(&h->web);
}

static void gone(struct http1_exchange *x, void *ctx, struct err why)
{
    (void)x;
    struct web_http1 *h = ctx;
    dp_web_gone(&h->web, why);
    dp_web_rest(&h->web);
}

static struct http1_refusal refused(void *ctx, struct http1_exchange *x, unsigned status,
                                    struct err why)
{
    const struct web_http1 *h = ctx;
    return dp_early_refused(h->conn, x == NULL ? NULL : h->web.rq, status, why);
}

static const struct http1_server_handler handler = {
    .head = came,
    .body = body,
    .end = ended,
    .drained = drained,
    .gone = gone,
    .refused = refused,
};

static void closed(void *ctx)
{
    struct web_http1 *h = ctx;
    struct dp_caller_conn *c = h->conn;
    free_http1(h);
    dp_caller_conn_free(c);
}

struct err dp_web_http1_start(struct dp_caller_conn *c, struct slice first)
{
    struct web_http1 *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    h->conn = c;
    struct http1_server_options options = {.handler = &handler, .ctx = h, .closed = closed};
    struct err e = http1_server_start(c->net, &options, first, &c->http1);
    if (!err_ok(e)) {
        free(h);
        return e;
    }
    c->net = NULL;
    return OK;
}
