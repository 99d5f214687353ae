/* Proves: requests of every kind are answered in order over real sockets, at once or later; bounds
 * and time-outs are answered and close; a tunnel is handed over with its early bytes. */
#include "common/net/http1_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/net/listener.h"

#include "tests/support/cmocka.h"

enum { WAIT_MS = 10000, HELD_MAX = 1000, REPLY_MAX = 4 << 20, BIG = 3 << 20 };

/* A server, and a bare socket as its client. */
struct rig {
    struct net_loop *loop;
    struct net_conn *conn;
    struct http1_server *server;
    struct net_conn *peer; /* the client's side, by our own connection. */
    struct buf reply;      /* what the client got. */
    bool peer_ended;
    bool peer_closed;
    bool server_closed;
    bool gone_once;
    unsigned heads;
    unsigned ends;
    unsigned gones;
    unsigned refusals; /* of what was no request. */
    struct err gone_why;
    struct http1_exchange *waiting; /* to be answered later. */
    struct buf streamed;            /* bodies that came in pieces. */
    size_t sent;                    /* of a long answer. */
    const char *until;              /* a text that the reply is waited for. */
    bool seen;
    struct buf early;
    struct net_conn *tunnel;
};

static uint8_t big[BIG];

static void answer_text(struct http1_exchange *x, const char *text)
{
    struct http1_field fields[] = {{SLICE_LIT("content-type"), SLICE_LIT("text/plain")}};
    assert_int_equal(http1_respond(x, 200, fields, 1, slice_str(text)).code, E_OK);
}

static bool is_path(const struct http1_exchange *x, const char *path)
{
    return slice_eq(http1_exchange_head(x)->path, slice_str(path));
}

static void on_head(struct http1_exchange *x, void *ctx)
{
    struct rig *r = ctx;
    struct net_conn *conn = NULL;
    r->heads++;
    assert_null(http1_exchange_user(x));
    http1_exchange_set_user(x, r);
    if (is_path(x, "/held")) {
        http1_exchange_hold(x, HELD_MAX);
    } else if (is_path(x, "/no")) {
        assert_int_equal(http1_respond_error(x, FAIL(E_POLICY_DENIED), NULL).code, E_OK);
    } else if (http1_exchange_head(x)->form == HTTP1_AUTHORITY) {
        assert_int_equal(http1_exchange_take_conn(x, 200, NULL, 0, &conn, &r->early).code, E_OK);
        r->tunnel = conn;
    }
}

static void on_body(struct http1_exchange *x, void *ctx, struct slice bytes)
{
    struct rig *r = ctx;
    assert_ptr_equal(http1_exchange_user(x), r);
    assert_int_equal(buf_add(&r->streamed, bytes).code, E_OK);
    if (is_path(x, "/paused") && r->waiting == NULL) {
        http1_exchange_pause(x);
        r->waiting = x;
    }
}

static void send_more(struct http1_exchange *x, void *ctx)
{
    struct rig *r = ctx;
    while (r->sent < BIG) {
        struct slice part = slice_head(slice_of(big + r->sent, BIG - r->sent), 50000);
        struct err e = http1_respond_body(x, part);
        if (e.code == E_TOO_LARGE) {
            return;
        }
        assert_int_equal(e.code, E_OK);
        r->sent += part.size;
    }
    struct http1_field trailers[] = {{SLICE_LIT("x-sum"), SLICE_LIT("7")}};
    assert_int_equal(http1_respond_end(x, trailers, 1).code, E_OK);
}

static void on_end(struct http1_exchange *x, void *ctx)
{
    struct rig *r = ctx;
    r->ends++;
    if (is_path(x, "/held")) {
        assert_int_equal(http1_respond(x, 201, NULL, 0, http1_exchange_body(x)).code, E_OK);
    } else if (is_path(x, "/later")) {
        r->waiting = x;
    } else if (is_path(x, "/stream")) {
        assert_int_equal(http1_respond_head(x, 200, NULL, 0, HTTP1_LENGTH_UNKNOWN).code, E_OK);
        send_more(x, r);
    } else if (is_path(x, "/big")) {
        assert_int_equal(http1_respond(x, 200, NULL, 0, slice_of(big, BIG)).code, E_OK);
    } else if (is_path(x, "/short")) {
        assert_int_equal(http1_respond_head(x, 200, NULL, 0, 10).code, E_OK);
        assert_int_equal(http1_respond_body(x, SLICE_LIT("12345678901")).code, E_TOO_LARGE);
        assert_int_equal(http1_respond_body(x, SLICE_LIT("123")).code, E_OK);
        assert_int_equal(http1_respond_end(x, NULL, 0).code, E_PROTOCOL_ERROR);
    } else {
        answer_text(x, "hello");
    }
}

static void on_gone(struct http1_exchange *x, void *ctx, struct err why)
{
    struct rig *r = ctx;
    (void)x;
    r->gones++;
    r->gone_once = true;
    r->gone_why = why;
    r->waiting = NULL;
}

static struct http1_refusal on_refused(void *ctx, struct http1_exchange *x, unsigned status,
                                       struct err why)
{
    assert_false(err_ok(why));
    assert_true(status >= 400);
    ((struct rig *)ctx)->refusals += x == NULL;
    return (struct http1_refusal){.explain = SLICE_LIT("0123456789ab"), .version = 7};
}

static const struct http1_server_handler handler = {
    .head = on_head,
    .body = on_body,
    .end = on_end,
    .drained = send_more,
    .gone = on_gone,
    .refused = on_refused,
};

static void on_server_closed(void *ctx)
{
    ((struct rig *)ctx)->server_closed = true;
}

static void on_reply(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct rig *r = ctx;
    const char *text = NULL;
    (void)conn;
    assert_int_equal(buf_add(&r->reply, bytes).code, E_OK);
    assert_int_equal(buf_cstr(&r->reply, &text).code, E_OK);
    r->seen = r->until != NULL && slice_ends(buf_slice(&r->reply), slice_str(r->until));
}

static void on_peer_eof(struct net_conn *conn, void *ctx)
{
    ((struct rig *)ctx)->peer_ended = true;
    net_conn_close(conn);
}

static void on_peer_closed(struct net_conn *conn, void *ctx, struct err why)
{
    struct rig *r = ctx;
    (void)conn;
    (void)why;
    r->peer_closed = true;
    r->peer = NULL;
}

static const struct net_conn_handler peer_handler = {
    .readable = on_reply, .eof = on_peer_eof, .closed = on_peer_closed};

static void rig_init(struct rig *r)
{
    int fds[2];
    *r = (struct rig){.reply = BUF_MAX(REPLY_MAX), .streamed = BUF_MAX(REPLY_MAX)};
    r->early = BUF_MAX(1000);
    assert_int_equal(net_loop_new(&r->loop).code, E_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct net_conn_accept_options server = {0};
    struct net_conn_accept_options peer = {.handler = &peer_handler, .ctx = r};
    struct http1_server_options o = {
        .handler = &handler, .ctx = r, .head_bytes = 1024, .closed = on_server_closed};
    assert_int_equal(net_conn_accept(r->loop, &fds[0], &server, &r->conn).code, E_OK);
    assert_int_equal(net_conn_accept(r->loop, &fds[1], &peer, &r->peer).code, E_OK);
    assert_int_equal(http1_server_start(r->conn, &o, (struct slice){0}, &r->server).code, E_OK);
}

static void rig_free(struct rig *r)
{
    net_loop_free(r->loop);
    assert_int_equal(r->gones, r->heads - (r->tunnel != NULL));
    assert_true(r->server_closed || r->tunnel != NULL);
    buf_free(&r->reply);
    buf_free(&r->streamed);
    buf_free(&r->early);
}

static void say(struct rig *r, const char *text)
{
    assert_int_equal(net_conn_write(r->peer, slice_str(text)).code, E_OK);
}

static void wait_reply(struct rig *r, const char *until)
{
    r->until = until;
    r->seen = slice_ends(buf_slice(&r->reply), slice_str(until));
    assert_true(net_loop_run_until(r->loop, &r->seen, WAIT_MS));
}

static void expect_whole(struct rig *r, const char *wanted)
{
    const char *text = NULL;
    assert_int_equal(buf_cstr(&r->reply, &text).code, E_OK);
    assert_string_equal(text, wanted);
    buf_clear(&r->reply);
}

#define HELLO "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
            "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, HELLO);
    assert_non_null(r.waiting);
    assert_int_equal(r.heads, 2);
    answer_text(r.waiting, "slow");
    assert_int_equal(http1_respond(r.waiting, 200, NULL, 0, SLICE_LIT("x")).code, E_CLOSED);
    wait_reply(&r, "content-length: 5\r\n\r\n");
    expect_whole(&r, HELLO
                 "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nslow"
                 "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n");
    assert_int_equal(r.gones, 3);
    assert_int_equal(r.gone_why.code, E_OK);
    rig_free(&r);
}

static void bodies_are_held_up_to_their_bound(void **state)
{
    (void)state;
    char text[HELD_MAX + 200];
    for (size_t extra = 0; extra <= 1; extra++) {
        for (int chunked = 0; chunked <= 1; chunked++) {
            struct rig r;
            rig_init(&r);
            char body[HELD_MAX + 2];
            memset(body, 'b', sizeof(body));
            body[HELD_MAX + 1] = '\0';
            int size = chunked ? snprintf(text, sizeof(text),
                                          "PUT /held HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                                          "chunked\r\n\r\n%zx\r\n%.*s\r\n0\r\n\r\n",
                                          HELD_MAX + extra, (int)(HELD_MAX + extra), body)
                               : snprintf(text, sizeof(text),
                                          "PUT /held HTTP/1.1\r\nHost: x\r\nContent-Length: "
                                          "%zu\r\n\r\n%.*s",
                                          HELD_MAX + extra, (int)(HELD_MAX + extra), body);
            assert_true(size > 0 && size < (int)sizeof(text));
            say(&r, text);
            if (extra == 0) {
                wait_reply(&r, body + 1); /* as many as were sent. */
            } else {
                assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
            }
            struct slice start = extra == 0 ? SLICE_LIT("HTTP/1.1 201 Created\r\n")
                                            : SLICE_LIT("HTTP/1.1 413 Content Too Large\r\n");
            assert_true(slice_starts(buf_slice(&r.reply), start));
            assert_int_equal(r.ends, extra == 0);
            rig_free(&r);
        }
    }
}

static void bodies_stream_and_100_is_sent_when_wanted(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n");
    wait_reply(&r, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&r, "abc");
    say(&r, "def");
    wait_reply(&r, HELLO);
    assert_true(slice_eq(buf_slice(&r.streamed), SLICE_LIT("abcdef")));
    buf_clear(&r.reply);
    /* A refusal comes instead of 100, and closes: nobody knows whether the body will come. */
    say(&r, "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_starts(buf_slice(&r.reply), SLICE_LIT("HTTP/1.1 403 Forbidden\r\n")));
    assert_int_equal(r.ends, 1);
    rig_free(&r);
}

static void an_early_answer_drops_the_body_and_goes_on(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: "
            "x\r\n\r\n");
    wait_reply(&r, HELLO);
    assert_int_equal(r.streamed.size, 0);
    assert_int_equal(r.heads, 2);
    rig_free(&r);
}

static void long_answers_flow_with_the_reader(void **state)
{
    (void)state;
    struct rig r;
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (uint8_t)('a' + i % 23);
    }
    rig_init(&r);
    say(&r, "GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, HELLO);
    size_t head = sizeof("HTTP/1.1 200 OK\r\ncontent-length: 3145728\r\n\r\n") - 1;
    assert_int_equal(r.reply.size, head + BIG + sizeof(HELLO) - 1);
    assert_memory_equal(r.reply.ptr + head, big, BIG);
    buf_clear(&r.reply);
    say(&r, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, "\r\n0\r\nx-sum: 7\r\n\r\n");
    assert_true(r.reply.size > BIG);
    assert_int_equal(r.sent, BIG);
    rig_free(&r);
}

static void http_1_0_gets_no_chunks(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    wait_reply(&r, "connection: keep-alive\r\n\r\nhello");
    buf_clear(&r.reply);
    say(&r, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    size_t head = sizeof("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n") - 1;
    assert_int_equal(r.reply.size, head + BIG);
    rig_free(&r);
}

static void an_answer_that_falls_short_resets(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET /short HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(net_loop_run_until(r.loop, &r.gone_once, WAIT_MS));
    assert_int_equal(r.gone_why.code, E_PROTOCOL_ERROR);
    rig_free(&r);
}

static void bad_requests_are_answered_and_closed(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *status;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"nonsense\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/3.0\r\n\r\n", "HTTP/1.1 505 "},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 501 "},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 "},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig r;
        rig_init(&r);
        say(&r, cases[i].request);
        assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
        assert_true(slice_starts(buf_slice(&r.reply), slice_str(cases[i].status)));
        assert_int_equal(r.refusals, r.heads == 0);
        rig_free(&r);
    }
    struct rig r;
    rig_init(&r);
    char head[1200];
    memset(head, 'a', sizeof(head));
    assert_int_equal(net_conn_write(r.peer, slice_of(head, sizeof(head))).code, E_OK);
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_starts(buf_slice(&r.reply), SLICE_LIT("HTTP/1.1 431 ")));
    assert_int_equal(r.refusals, 1);
    rig_free(&r);
}

static void slow_heads_time_out(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.header_timeout_ms;
    limits.header_timeout_ms = 100;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\n");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_starts(buf_slice(&r.reply), SLICE_LIT("HTTP/1.1 408 Request Timeout\r\n")));
    rig_free(&r);
    limits.header_timeout_ms = before;
}

/* The end of one head and the start of the next may come at once. */
static void each_head_has_its_own_time(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.header_timeout_ms;
    limits.header_timeout_ms = 400;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\n");
    assert_false(net_loop_run_until(r.loop, &r.peer_ended, 300));
    say(&r, "Host: x\r\n\r\nGET / HTTP/1.1\r\n");
    wait_reply(&r, HELLO);
    assert_false(net_loop_run_until(r.loop, &r.peer_ended, 200));
    say(&r, "Host: x\r\n\r\n");
    wait_reply(&r, HELLO HELLO);
    net_conn_close(r.peer);
    assert_true(net_loop_run_until(r.loop, &r.server_closed, WAIT_MS));
    rig_free(&r);
    limits.header_timeout_ms = before;
}

/* A body that nobody reads for as long is no slow one. */
static void who_is_paused_is_not_slow(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.idle_timeout_ms;
    limits.idle_timeout_ms = 100;
    rig_init(&r);
    say(&r, "POST /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    assert_false(net_loop_run_until(r.loop, &r.peer_ended, 350));
    assert_non_null(r.waiting);
    http1_exchange_resume(r.waiting);
    say(&r, "cd");
    wait_reply(&r, HELLO);
    assert_true(slice_eq(buf_slice(&r.streamed), SLICE_LIT("abcd")));
    net_conn_close(r.peer);
    assert_true(net_loop_run_until(r.loop, &r.server_closed, WAIT_MS));
    rig_free(&r);
    rig_init(&r);
    say(&r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_starts(buf_slice(&r.reply), SLICE_LIT("HTTP/1.1 408 Request Timeout\r\n")));
    rig_free(&r);
    limits.idle_timeout_ms = before;
}

static void silent_connections_are_closed(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.handshake_timeout_ms;
    limits.handshake_timeout_ms = 100;
    rig_init(&r);
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_int_equal(r.reply.size, 0);
    rig_free(&r);
    limits.handshake_timeout_ms = before;
}

static void callers_who_leave_are_told(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, HELLO);
    r.gone_once = false;
    net_conn_abort(r.peer, FAIL(E_CANCELLED));
    net_conn_abort(r.conn, FAIL(E_CLOSED)); /* a socket pair knows no reset. */
    assert_true(net_loop_run_until(r.loop, &r.gone_once, WAIT_MS));
    assert_int_equal(r.gone_why.code, E_CLOSED);
    rig_free(&r);
}

static void a_half_closed_caller_still_gets_the_answer(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    net_conn_shutdown(r.peer);
    for (int turn = 0; turn < 5;
         turn++) { /* a socket pair has at once what was sent, and its end. */
        net_loop_turn(r.loop);
    }
    assert_non_null(r.waiting);
    answer_text(r.waiting, "late");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_ends(buf_slice(&r.reply), SLICE_LIT("connection: close\r\n\r\nlate")));
    rig_free(&r);
}

static void drain_closes_behind_the_answer(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, HELLO);
    http1_server_drain(r.server);
    answer_text(r.waiting, "last");
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    assert_true(slice_ends(buf_slice(&r.reply), SLICE_LIT("connection: close\r\n\r\nlast")));
    rig_free(&r);
    rig_init(&r);
    http1_server_drain(r.server); /* idle. */
    assert_true(net_loop_run_until(r.loop, &r.peer_ended, WAIT_MS));
    rig_free(&r);
}

static void tunnels_are_handed_over(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "CONNECT h.x:443 HTTP/1.1\r\nHost: h.x:443\r\n\r\nearly bytes");
    wait_reply(&r, "HTTP/1.1 200 OK\r\n\r\n");
    assert_non_null(r.tunnel);
    assert_true(slice_eq(buf_slice(&r.early), SLICE_LIT("early bytes")));
    assert_int_equal(net_conn_write(r.tunnel, SLICE_LIT("raw")).code, E_OK);
    wait_reply(&r, "\r\n\r\nraw");
    assert_false(r.server_closed);
    rig_free(&r);
}

static void fields_that_would_split_are_refused(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    say(&r, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_reply(&r, HELLO);
    buf_clear(&r.reply);
    struct http1_field split = {SLICE_LIT("a"), SLICE_LIT("b\r\nc: d")};
    struct http1_field ours = {SLICE_LIT("Content-Length"), SLICE_LIT("1")};
    assert_int_equal(http1_respond(r.waiting, 200, &split, 1, SLICE_LIT("x")).code, E_USAGE);
    assert_int_equal(http1_respond(r.waiting, 200, &ours, 1, SLICE_LIT("x")).code, E_USAGE);
    assert_int_equal(http1_respond_interim(r.waiting, 103, NULL, 0).code, E_OK);
    answer_text(r.waiting, "fine");
    wait_reply(&r, "fine");
    assert_true(slice_starts(buf_slice(&r.reply),
                             SLICE_LIT("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")));
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(bodies_are_held_up_to_their_bound),
        cmocka_unit_test(bodies_stream_and_100_is_sent_when_wanted),
        cmocka_unit_test(an_early_answer_drops_the_body_and_goes_on),
        cmocka_unit_test(long_answers_flow_with_the_reader),
        cmocka_unit_test(http_1_0_gets_no_chunks),
        cmocka_unit_test(an_answer_that_falls_short_resets),
        cmocka_unit_test(bad_requests_are_answered_and_closed),
        cmocka_unit_test(slow_heads_time_out),
        cmocka_unit_test(each_head_has_its_own_time),
        cmocka_unit_test(who_is_paused_is_not_slow),
        cmocka_unit_test(silent_connections_are_closed),
        cmocka_unit_test(callers_who_leave_are_told),
        cmocka_unit_test(a_half_closed_caller_still_gets_the_answer),
        cmocka_unit_test(drain_closes_behind_the_answer),
        cmocka_unit_test(tunnels_are_handed_over),
        cmocka_unit_test(fields_that_would_split_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
