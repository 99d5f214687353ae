/* Proves: a handshake is judged as RFC 6455, 4.2.1 says, messages arrive whole however their frames
 * and bytes are cut, and what a client must not send ends the connection with the code that says
 * so. */
#include "common/net/ws.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/net/http1.h"

#include "tests/support/cmocka.h"

/* ---- the handshake ---- */

#define ASK                                                                                        \
    "GET /a.B/C HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define PROTOCOL "Sec-WebSocket-Protocol: other, grpc-websockets\r\n"

static enum ws_ask judge(const char *request, char accept[WS_ACCEPT_SIZE + 1])
{
    uint8_t bytes[1024];
    struct http1_field fields[16];
    const struct http1_store store = {bytes, sizeof(bytes), fields, 16};
    struct http1_parser parser;
    struct slice input = slice_str(request);
    enum http1_event event = HTTP1_MORE;
    http1_parser_init(&parser, HTTP1_REQUEST, &store);
    assert_true(err_ok(http1_parse(&parser, &input, &event)));
    assert_int_equal(event, HTTP1_HEAD);
    return ws_judge(&parser.head, SLICE_LIT("grpc-websockets"), accept);
}

static void a_handshake_as_it_should_be(void **state)
{
    (void)state;
    char accept[WS_ACCEPT_SIZE + 1] = {0};
    assert_int_equal(judge(ASK KEY VERSION PROTOCOL "\r\n", accept), WS_ASK_WELL);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); /* RFC 6455, 1.3. */
}

static void handshakes_that_are_none(void **state)
{
    (void)state;
    char accept[WS_ACCEPT_SIZE + 1];
    assert_int_equal(judge("GET / HTTP/1.1\r\nHost: x\r\n\r\n", accept), WS_ASK_NONE);
    assert_int_equal(
        judge("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" KEY VERSION PROTOCOL "\r\n",
              accept),
        WS_ASK_NONE); /* not asked of this hop. */
    assert_int_equal(judge("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
                           "\r\n",
                           accept),
                     WS_ASK_NONE);
    assert_int_equal(judge(ASK KEY "Sec-WebSocket-Version: 8\r\n" PROTOCOL "\r\n", accept),
                     WS_ASK_VERSION);
    static const char *const wrong[] = {
        ASK KEY VERSION "\r\n",  /* without the protocol. */
        ASK KEY PROTOCOL "\r\n", /* without a version. */
        ASK VERSION PROTOCOL "\r\n",
        ASK KEY KEY VERSION PROTOCOL "\r\n",
        ASK "Sec-WebSocket-Key: c2hvcnQ=\r\n" VERSION PROTOCOL "\r\n",
        ASK "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\r\n" VERSION PROTOCOL "\r\n",
        ASK KEY VERSION PROTOCOL "Content-Length: 1\r\n\r\n",
        ASK KEY VERSION PROTOCOL "Transfer-Encoding: chunked\r\n\r\n",
        ASK KEY VERSION "Sec-WebSocket-Protocol: grpc-websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION
            PROTOCOL "\r\n",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(judge(wrong[i], accept), WS_ASK_WRONG);
    }
}

/* ---- frames ---- */

enum { MESSAGE_MAX = 1000, CONTROL_MAX = 20, PONGS_MAX = 8 };

struct end {
    struct ws *ws;
    struct buf heard; /* messages, each in brackets. */
    struct buf said;  /* what was written. */
    size_t room;
    size_t controls;
    bool inside;
};

static void data(void *ctx, struct slice bytes, bool last)
{
    struct end *e = ctx;
    if (!e->inside) {
        assert_true(err_ok(buf_add_str(&e->heard, "[")));
    }
    e->inside = !last;
    assert_true(err_ok(buf_add(&e->heard, bytes)));
    if (last) {
        assert_true(err_ok(buf_add_str(&e->heard, "]")));
    }
}

static bool control(void *ctx)
{
    struct end *e = ctx;
    return ++e->controls <= CONTROL_MAX;
}

static size_t room(void *ctx)
{
    return ((struct end *)ctx)->room;
}

static struct err write_bytes(void *ctx, struct slice bytes)
{
    struct end *e = ctx;
    assert_true(bytes.size <= e->room);
    e->room -= bytes.size;
    return buf_add(&e->said, bytes);
}

static const struct ws_handler handler = {
    .data = data, .control = control, .room = room, .write = write_bytes};

static void begin(struct end *e)
{
    *e = (struct end){.heard = BUF_MAX(1 << 16), .said = BUF_MAX(1 << 16), .room = 1 << 16};
    assert_true(err_ok(ws_new(&handler, e, MESSAGE_MAX, &e->ws)));
}

static void end(struct end *e)
{
    ws_free(e->ws);
    buf_free(&e->heard);
    buf_free(&e->said);
}

enum { FIN = 0x80, MASK = 0x80, CONTINUES = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9 };

/* A client's frame, masked unless said otherwise. */
static void frame(struct buf *out, unsigned first, const char *payload, size_t size)
{
    static const uint8_t mask[4] = {1, 2, 3, 250};
    assert_true(err_ok(buf_add_byte(out, (uint8_t)first)));
    if (size < 126) {
        assert_true(err_ok(buf_add_byte(out, (uint8_t)(MASK | size))));
    } else {
        assert_true(err_ok(buf_add_byte(out, MASK | 126)));
        assert_true(err_ok(buf_add_byte(out, (uint8_t)(size >> 8))));
        assert_true(err_ok(buf_add_byte(out, (uint8_t)size)));
    }
    assert_true(err_ok(buf_add(out, slice_of(mask, 4))));
    for (size_t i = 0; i < size; i++) {
        assert_true(err_ok(buf_add_byte(out, (uint8_t)payload[i] ^ mask[i % 4])));
    }
}

static void frame_str(struct buf *out, unsigned first, const char *payload)
{
    frame(out, first, payload, strlen(payload));
}

/* What is heard when the bytes come in pieces of 'step'; the last answer of ws_read(). */
static struct err feed(struct end *e, struct slice bytes, size_t step)
{
    struct err last = OK;
    for (size_t at = 0; at < bytes.size && err_ok(last); at += step) {
        last = ws_read(e->ws, slice_head(slice_from(bytes, at), step));
    }
    return last;
}

static void expect_heard(const struct end *e, const char *text)
{
    assert_true(slice_eq(buf_slice(&e->heard), slice_str(text)));
}

static void messages_however_they_are_cut(void **state)
{
    (void)state;
    auto_buf struct buf in = BUF_MAX(1 << 16);
    frame_str(&in, FIN | BINARY, "one");
    frame_str(&in, BINARY, "tw");
    frame_str(&in, FIN | PING, "p");
    frame_str(&in, CONTINUES, "");
    frame_str(&in, FIN | CONTINUES, "o");
    frame_str(&in, FIN | BINARY, "");
    for (size_t step = 1; step <= in.size; step++) {
        struct end e;
        begin(&e);
        assert_true(err_ok(feed(&e, buf_slice(&in), step)));
        expect_heard(&e, "[one][two][]");
        assert_int_equal(e.controls, 2);
        assert_true(err_ok(ws_flush(e.ws)));
        assert_int_equal(e.said.size, 3); /* the pong. */
        assert_memory_equal(e.said.ptr, "\x8a\x01p", 3);
        end(&e);
    }
}

static void messages_to_the_caller(void **state)
{
    (void)state;
    struct end e;
    char many[300];
    memset(many, 'm', sizeof(many));
    begin(&e);
    assert_true(err_ok(ws_send(e.ws, SLICE_LIT("hi"))));
    assert_memory_equal(e.said.ptr, "\x82\x02hi", 4);
    buf_clear(&e.said);
    e.room = 10; /* what has no room waits. */
    assert_true(err_ok(ws_send(e.ws, slice_of(many, sizeof(many)))));
    assert_int_equal(e.said.size, 10);
    assert_true(ws_waits(e.ws));
    e.room = 1000;
    ws_close(e.ws, WS_NORMAL);
    assert_true(err_ok(ws_flush(e.ws)));
    assert_false(ws_waits(e.ws));
    assert_memory_equal(e.said.ptr, "\x82\x7e\x01\x2cm", 5);
    assert_int_equal(e.said.size, 304 + 4);
    assert_memory_equal(e.said.ptr + 304, "\x88\x02\x03\xe8", 4);
    assert_int_equal(ws_send(e.ws, SLICE_LIT("late")).code, E_CLOSED);
    assert_int_equal(ws_read(e.ws, SLICE_LIT("x")).code, E_CLOSED);
    end(&e);
}

/* Nothing more is heard, and the close says why; code 0: it says nothing. */
static void expect_close(struct slice in, unsigned code, const char *heard)
{
    for (size_t step = 1; step <= in.size; step++) {
        struct end e;
        begin(&e);
        assert_int_equal(feed(&e, in, step).code, E_CLOSED);
        expect_heard(&e, heard);
        assert_true(err_ok(ws_flush(e.ws)));
        assert_true(e.said.size >= 2);
        const uint8_t *said = e.said.ptr + e.said.size - (code == 0 ? 2 : 4);
        assert_int_equal(said[0], FIN | CLOSE);
        if (code != 0) {
            assert_int_equal(said[2] << 8 | said[3], code);
        }
        end(&e);
    }
}

static void expect_close_of(unsigned first, const char *payload, unsigned code)
{
    auto_buf struct buf in = BUF_MAX(1 << 16);
    frame_str(&in, FIN | BINARY, "a");
    frame_str(&in, first, payload);
    frame_str(&in, FIN | BINARY, "z");
    expect_close(buf_slice(&in), code, "[a]");
}

static void what_ends_the_connection(void **state)
{
    (void)state;
    expect_close_of(FIN | TEXT, "text", WS_UNSUPPORTED);
    expect_close_of(FIN | CONTINUES, "of nothing", WS_PROTOCOL_ERROR);
    expect_close_of(FIN | 0x40 | BINARY, "reserved bit", WS_PROTOCOL_ERROR);
    expect_close_of(FIN | CLOSE, "", 0);
    expect_close_of(FIN | CLOSE, "\x03\xe9", WS_GOING_AWAY); /* answered with the same. */
    auto_buf struct buf open = BUF_MAX(1 << 16);
    frame_str(&open, BINARY, "a");
    frame_str(&open, FIN | BINARY, "b"); /* the message before it is not whole. */
    expect_close(buf_slice(&open), WS_PROTOCOL_ERROR, "[a");
}

/* RFC 6455, 5.1: a server takes no frame without a mask. */
static void without_a_mask(void **state)
{
    (void)state;
    expect_close(slice_of("\x82\x01"
                          "a",
                          3),
                 WS_PROTOCOL_ERROR, "");
}

static void a_message_over_the_bound(void **state)
{
    (void)state;
    char many[600];
    memset(many, 'm', sizeof(many));
    auto_buf struct buf in = BUF_MAX(1 << 16);
    frame(&in, BINARY, many, 600);
    frame(&in, FIN | CONTINUES, many, 600);
    struct end e;
    begin(&e);
    assert_int_equal(feed(&e, buf_slice(&in), in.size).code, E_CLOSED);
    assert_int_equal(e.heard.size, 601);
    assert_true(err_ok(ws_flush(e.ws)));
    assert_memory_equal(e.said.ptr, "\x88\x02\x03\xf1", 4);
    end(&e);
    /* 2^63 bytes, said in one frame. */
    expect_close(slice_of("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\1\2\3\4!", 15), WS_TOO_BIG, "");
}

static void too_many_pings(void **state)
{
    (void)state;
    auto_buf struct buf in = BUF_MAX(1 << 16);
    for (size_t i = 0; i <= CONTROL_MAX; i++) {
        frame_str(&in, FIN | PING, "p");
    }
    struct end e;
    begin(&e);
    assert_int_equal(feed(&e, buf_slice(&in), in.size).code, E_CLOSED);
    assert_true(err_ok(ws_flush(e.ws)));
    assert_memory_equal(e.said.ptr + e.said.size - 4, "\x88\x02\x03\xf0", 4);
    end(&e);
}

/* Who pings and does not read gets eight answers queued, and then the end. */
static void pings_of_a_peer_that_does_not_read(void **state)
{
    (void)state;
    auto_buf struct buf ping = BUF_MAX(1 << 16);
    frame_str(&ping, FIN | PING, "p");
    struct end e;
    begin(&e);
    e.room = 0;
    for (size_t i = 0; i < PONGS_MAX; i++) {
        assert_true(err_ok(feed(&e, buf_slice(&ping), ping.size)));
    }
    e.room = 3; /* it took one: there is place for one. */
    assert_true(err_ok(feed(&e, buf_slice(&ping), ping.size)));
    assert_int_equal(feed(&e, buf_slice(&ping), ping.size).code, E_CLOSED);
    e.room = 1 << 16;
    assert_true(err_ok(ws_flush(e.ws)));
    assert_false(ws_waits(e.ws));
    assert_true(e.said.size >= 3 + 4 && e.said.size <= 3 * (1 + PONGS_MAX) + 4);
    assert_memory_equal(e.said.ptr + e.said.size - 4, "\x88\x02\x03\xf0", 4);
    end(&e);
}

/* Many at once are not many unread: what has room leaves before the next is answered. */
static void pings_of_a_peer_that_reads(void **state)
{
    (void)state;
    auto_buf struct buf in = BUF_MAX(1 << 16);
    for (size_t i = 0; i < CONTROL_MAX; i++) {
        frame_str(&in, FIN | PING, "p");
    }
    struct end e;
    begin(&e);
    assert_true(err_ok(feed(&e, buf_slice(&in), in.size)));
    assert_true(err_ok(ws_flush(e.ws)));
    assert_int_equal(e.said.size, 3 * CONTROL_MAX);
    end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handshake_as_it_should_be),
        cmocka_unit_test(handshakes_that_are_none),
        cmocka_unit_test(messages_however_they_are_cut),
        cmocka_unit_test(messages_to_the_caller),
        cmocka_unit_test(what_ends_the_connection),
        cmocka_unit_test(without_a_mask),
        cmocka_unit_test(a_message_over_the_bound),
        cmocka_unit_test(too_many_pings),
        cmocka_unit_test(pings_of_a_peer_that_does_not_read),
        cmocka_unit_test(pings_of_a_peer_that_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
