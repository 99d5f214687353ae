/* Proves: what no decent server sends costs that server its stream or its connection, and each call
 * to it hears its end once; of an answer nothing goes on that another protocol would read
 * otherwise. */
#include <string.h>

#include "common/base/limits.h"
#include "common/net/h2_impl.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/h2_peers.h"

enum { BYTES_MAX = 8 << 20, CALLS = 4 };

static const struct slice nothing = {NULL, 0};

/* A client of ours with calls under way, and a server that says what a test wants. */
struct world {
    struct peers p;
    struct client c;
    struct raw r;
    struct call calls[CALLS];
    struct buf out;
};

/* Calls 1, 3, ... of which none is ended. */
static void world_open(struct world *w)
{
    w->out = BUF_MAX(BYTES_MAX);
    peers_init(&w->p);
    raw_serve(&w->p, &w->r);
    client_open(&w->p, &w->c);
    for (size_t i = 0; i < CALLS; i++) {
        assert_true(err_ok(call_start(&w->c, &w->calls[i], "/unary", NULL, 0, false)));
    }
    while (w->r.headers < CALLS) {
        peers_run(&w->p, 1);
    }
    frame_add(&w->out, H2_SETTINGS, 0, 0, nothing);
}

static void world_send(struct world *w)
{
    raw_send(&w->r, buf_slice(&w->out));
    buf_clear(&w->out);
}

static void world_free(struct world *w)
{
    raw_free(&w->r);
    if (!w->c.closed) {
        peers_wait(&w->p, &w->c.closed);
    }
    for (size_t i = 0; i < CALLS; i++) {
        assert_true(w->calls[i].closed);
        call_free(&w->calls[i]);
    }
    buf_free(&w->out);
    peers_free(&w->p);
}

/* The connection must end with a GOAWAY of that code, and the calls with it. */
static void expect_end(struct world *w, uint32_t code)
{
    world_send(w);
    peers_wait(&w->p, &w->r.closed);
    assert_true(w->r.goaway);
    assert_int_equal(w->r.goaway_code, code);
    peers_wait(&w->p, &w->c.closed);
}

/* The server's PING comes back: the connection lives. */
static void expect_alive(struct world *w)
{
    w->r.ping_acked = false;
    frame_add(&w->out, H2_PING, 0, 0, slice_of("12345678", 8));
    world_send(w);
    peers_wait(&w->p, &w->r.ping_acked);
    assert_false(w->r.goaway);
}

static void answer_add(struct world *w, uint32_t id, const char *status, const char *length,
                       bool end)
{
    auto_buf struct buf block = BUF_MAX(1 << 10);
    hpack_add(&block, ":status", status);
    if (length != NULL) {
        hpack_add(&block, "content-length", length);
    }
    frame_add(&w->out, H2_HEADERS, (uint8_t)(H2_FLAG_END_HEADERS | (end ? H2_FLAG_END_STREAM : 0)),
              id, buf_slice(&block));
}

/* Resets the call, whatever it heard before. */
static void expect_reset(struct world *w, struct call *call, uint32_t code)
{
    expect_alive(w);
    peers_wait(&w->p, &call->closed);
    assert_true(call->was_reset);
    assert_int_equal(call->reset.code, code);
    assert_false(call->reset.by_peer || call->reset.unprocessed);
    assert_int_equal(w->r.reset_code, code);
}

/* ---- what it takes ---- */

static void headers_add(struct world *w, uint32_t bytes)
{
    uint8_t entry[6] = {0, H2_SETTING_MAX_HEADER_LIST_SIZE};
    h2_write_u32(entry + 2, bytes);
    frame_add(&w->out, H2_SETTINGS, 0, 0, slice_of(entry, sizeof(entry)));
    expect_alive(w);
}

static struct err ask_with(struct world *w, size_t size)
{
    static uint8_t bytes[1000];
    memset(bytes, 'v', sizeof(bytes));
    const struct h2_field extra = h2_field_named(SLICE_LIT("x-large"), slice_of(bytes, size));
    struct call call = {0};
    struct err e = call_start(&w->c, &call, "/unary", &extra, 1, true);
    if (err_ok(e)) {
        h2_stream_reset(call.stream, H2_CANCEL);
        peers_wait(&w->p, &call.closed);
    }
    call_free(&call);
    return e;
}

/* A server that refuses what is too large may refuse what comes with it: it is not asked to. */
static void fields_that_are_too_many_are_not_sent(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    expect_alive(&w);
    assert_int_equal(h2_conn_header_bytes(w.c.conn), UINT32_MAX);
    assert_int_equal(ask_with(&w, 1000).code, E_OK);
    headers_add(&w, 1000);
    uint32_t asked = w.r.headers;
    assert_int_equal(ask_with(&w, 1000).code, E_HEADERS_TOO_LARGE);
    expect_alive(&w);
    assert_int_equal(w.r.headers, asked);
    assert_int_equal(ask_with(&w, 500).code, E_OK);
    /* To the byte. */
    size_t most = 500;
    while (err_ok(ask_with(&w, most + 1))) {
        most++;
    }
    headers_add(&w, 1001);
    assert_int_equal(ask_with(&w, most + 1).code, E_OK);
    assert_int_equal(ask_with(&w, most + 2).code, E_HEADERS_TOO_LARGE);
    for (size_t i = 0; i < CALLS; i++) {
        answer_add(&w, (uint32_t)(2 * i + 1), "200", "0", true);
    }
    expect_alive(&w);
    world_free(&w);
}

/* ---- answers ---- */

static void an_answer_without_a_body_has_none(void **state)
{
    (void)state;
    static const char *const statuses[] = {"204", "304"};
    for (size_t i = 0; i < 4; i++) {
        struct world w;
        world_open(&w);
        answer_add(&w, 1, statuses[i % 2], i < 2 ? NULL : "4", false);
        frame_add(&w.out, H2_DATA, H2_FLAG_END_STREAM, 1, SLICE_LIT("body"));
        answer_add(&w, 3, statuses[i % 2], "4", false); /* it may say how long it would be. */
        frame_add(&w.out, H2_DATA, H2_FLAG_END_STREAM, 3, nothing);
        expect_reset(&w, &w.calls[0], H2_PROTOCOL_ERROR);
        assert_int_equal(w.calls[0].body.size, 0);
        assert_true(w.calls[1].headers && w.calls[1].ended && !w.calls[1].was_reset);
        world_free(&w);
    }
}

static struct h2_stream *ask_head(struct world *w, struct call *call)
{
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("HEAD")),
        h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("http")),
        h2_field_static(H2_TOKEN_PATH, SLICE_LIT("/")),
        h2_field_static(H2_TOKEN_AUTHORITY, SLICE_LIT("test")),
    };
    struct h2_stream *s = NULL;
    *call = (struct call){.body = BUF_MAX(PEERS_BODY_MAX)};
    assert_true(err_ok(h2_conn_request(w->c.conn, fields, 4, /* end= */ true, &s)));
    h2_stream_attach(s, &call_events, call);
    call->stream = s;
    return s;
}

static void an_answer_to_head_has_no_body(void **state)
{
    (void)state;
    struct world w;
    struct call heads[2];
    world_open(&w);
    uint32_t first = (uint32_t)h2_stream_id(ask_head(&w, &heads[0]));
    uint32_t second = (uint32_t)h2_stream_id(ask_head(&w, &heads[1]));
    answer_add(&w, first, "200", "4", true);
    answer_add(&w, second, "200", NULL, false);
    frame_add(&w.out, H2_DATA, H2_FLAG_END_STREAM, second, SLICE_LIT("body"));
    expect_reset(&w, &heads[1], H2_PROTOCOL_ERROR);
    assert_int_equal(heads[1].body.size, 0);
    assert_true(heads[0].closed && !heads[0].was_reset);
    call_free(&heads[0]);
    call_free(&heads[1]);
    world_free(&w);
}

static void interim_answers_are_left_out(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    answer_add(&w, 1, "100", NULL, false);
    answer_add(&w, 1, "103", NULL, false);
    expect_alive(&w);
    assert_false(w.calls[0].headers);
    answer_add(&w, 1, "200", "4", false);
    frame_add(&w.out, H2_DATA, H2_FLAG_END_STREAM, 1, SLICE_LIT("body"));
    expect_alive(&w);
    assert_string_equal(w.calls[0].status, "200");
    assert_true(w.calls[0].ended);
    answer_add(&w, 3, "100", NULL, true); /* nothing comes behind it. */
    expect_reset(&w, &w.calls[1], H2_PROTOCOL_ERROR);
    answer_add(&w, 5, "101", NULL, false);
    expect_reset(&w, &w.calls[2], H2_PROTOCOL_ERROR);
    answer_add(&w, 7, "100", NULL, false);
    frame_add(&w.out, H2_DATA, 0, 7, SLICE_LIT("body")); /* before its head. */
    expect_reset(&w, &w.calls[3], H2_PROTOCOL_ERROR);
    world_free(&w);
}

static void broken_answers_reset_the_call_alone(void **state)
{
    (void)state;
    static const char *const fields[][2] = {
        {"connection", "close"}, {"transfer-encoding", "chunked"}, {":path", "/"},
        {":status", "200"},      {"content-length", "x"},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct world w;
        world_open(&w);
        auto_buf struct buf block = BUF_MAX(1 << 10);
        hpack_add(&block, ":status", "200");
        hpack_add(&block, fields[i][0], fields[i][1]);
        frame_add(&w.out, H2_HEADERS, H2_FLAG_END_HEADERS, 1, buf_slice(&block));
        expect_reset(&w, &w.calls[0], H2_PROTOCOL_ERROR);
        assert_false(w.calls[0].headers);
        world_free(&w);
    }
}

static void trailers_add(struct world *w, uint32_t id, const char *name, const char *value,
                         uint8_t flags)
{
    auto_buf struct buf block = BUF_MAX(1 << 10);
    hpack_add(&block, name, value);
    frame_add(&w->out, H2_HEADERS, (uint8_t)(H2_FLAG_END_HEADERS | flags), id, buf_slice(&block));
}

static void broken_trailers_reset_the_call_alone(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    answer_add(&w, 1, "200", "4", false);
    trailers_add(&w, 1, "grpc-status", "0", H2_FLAG_END_STREAM); /* the body is not there. */
    expect_reset(&w, &w.calls[0], H2_PROTOCOL_ERROR);
    answer_add(&w, 3, "200", NULL, false);
    trailers_add(&w, 3, "grpc-status", "0", 0); /* and no end. */
    expect_reset(&w, &w.calls[1], H2_PROTOCOL_ERROR);
    answer_add(&w, 5, "200", NULL, false);
    trailers_add(&w, 5, ":status", "200", H2_FLAG_END_STREAM);
    expect_reset(&w, &w.calls[2], H2_PROTOCOL_ERROR);
    answer_add(&w, 7, "200", NULL, false);
    trailers_add(&w, 7, "content-length", "0", H2_FLAG_END_STREAM);
    expect_reset(&w, &w.calls[3], H2_PROTOCOL_ERROR);
    for (size_t i = 0; i < CALLS; i++) {
        assert_true(w.calls[i].headers && !w.calls[i].trailers);
    }
    world_free(&w);
}

/* ---- frames ---- */

static void wrong_frames_end_the_connection(void **state)
{
    (void)state;
    const struct {
        uint8_t type;
        uint8_t flags;
        uint32_t id;
        struct slice payload;
        uint32_t code;
    } cases[] = {
        {H2_DATA, 0, 0, SLICE_LIT("body"), H2_PROTOCOL_ERROR},
        {H2_DATA, 0, 99, SLICE_LIT("body"), H2_PROTOCOL_ERROR},               /* idle. */
        {H2_DATA, H2_FLAG_PADDED, 1, SLICE_LIT("\4body"), 0},                 /* all padding. */
        {H2_DATA, H2_FLAG_PADDED, 1, SLICE_LIT("\5body"), H2_PROTOCOL_ERROR}, /* and more. */
        {H2_DATA, H2_FLAG_PADDED, 1, nothing, H2_FRAME_SIZE_ERROR},
        {H2_HEADERS, 4, 0, SLICE_LIT("\x88"), H2_PROTOCOL_ERROR},
        {H2_HEADERS, 4, 2, SLICE_LIT("\x88"), H2_PROTOCOL_ERROR},  /* nobody promised it. */
        {H2_HEADERS, 4, 99, SLICE_LIT("\x88"), H2_PROTOCOL_ERROR}, /* nobody asked. */
        {H2_HEADERS, 4 | H2_FLAG_PADDED, 1, SLICE_LIT("\2\x88"), H2_PROTOCOL_ERROR},
        {H2_HEADERS, 4 | H2_FLAG_PRIORITY, 1, SLICE_LIT("\0\0\0"), H2_PROTOCOL_ERROR},
        {H2_HEADERS, 4, 1, SLICE_LIT("\xff"), H2_COMPRESSION_ERROR},
        {H2_HEADERS, 4, 1, SLICE_LIT("\x3f\xe2\x1f"), H2_COMPRESSION_ERROR}, /* a table of 4097. */
        {H2_RST_STREAM, 0, 0, SLICE_LIT("\0\0\0\7"), H2_PROTOCOL_ERROR},
        {H2_RST_STREAM, 0, 99, SLICE_LIT("\0\0\0\7"), H2_PROTOCOL_ERROR},
        {H2_RST_STREAM, 0, 1, SLICE_LIT("\0\0\0"), H2_FRAME_SIZE_ERROR},
        {H2_SETTINGS, 0, 1, nothing, H2_PROTOCOL_ERROR},
        {H2_SETTINGS, 0, 0, SLICE_LIT("\0\2\0\0\0\1"), H2_PROTOCOL_ERROR}, /* ENABLE_PUSH. */
        {H2_SETTINGS, 0, 0, SLICE_LIT("\0\4\x80\0\0\0"), H2_FLOW_CONTROL_ERROR},
        {H2_SETTINGS, 0, 0, SLICE_LIT("\0\5\0\0\x3f\xff"), H2_PROTOCOL_ERROR}, /* MAX_FRAME. */
        {H2_SETTINGS, 0, 0, SLICE_LIT("\0\5\1\0\0\0"), H2_PROTOCOL_ERROR},
        {H2_SETTINGS, H2_FLAG_ACK, 0, SLICE_LIT("\0\2\0\0\0\0"), H2_FRAME_SIZE_ERROR},
        {H2_PUSH_PROMISE, 4, 1, SLICE_LIT("\0\0\0\2\x82"), H2_PROTOCOL_ERROR},
        {H2_PING, 0, 1, SLICE_LIT("12345678"), H2_PROTOCOL_ERROR},
        {H2_PING, 0, 0, SLICE_LIT("1234567"), H2_FRAME_SIZE_ERROR},
        {H2_GOAWAY, 0, 1, SLICE_LIT("\0\0\0\0\0\0\0\0"), H2_PROTOCOL_ERROR},
        {H2_GOAWAY, 0, 0, SLICE_LIT("\0\0\0\0"), H2_FRAME_SIZE_ERROR},
        {H2_WINDOW_UPDATE, 0, 0, SLICE_LIT("\0\0\0\0"), H2_PROTOCOL_ERROR},
        {H2_WINDOW_UPDATE, 0, 0, SLICE_LIT("\x7f\xff\xff\xff"), H2_FLOW_CONTROL_ERROR},
        {H2_WINDOW_UPDATE, 0, 99, SLICE_LIT("\0\0\0\1"), H2_PROTOCOL_ERROR},
        {H2_WINDOW_UPDATE, 0, 1, SLICE_LIT("\0\0\0"), H2_FRAME_SIZE_ERROR},
        {H2_CONTINUATION, 4, 1, SLICE_LIT("\x88"), H2_PROTOCOL_ERROR},
        {H2_PRIORITY, 0, 0, SLICE_LIT("\0\0\0\0\1"), H2_PROTOCOL_ERROR},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        world_open(&w);
        answer_add(&w, 1, "200", NULL, false);
        frame_add(&w.out, cases[i].type, cases[i].flags, cases[i].id, cases[i].payload);
        if (cases[i].code == 0) {
            expect_alive(&w);
        } else {
            expect_end(&w, cases[i].code);
        }
        world_free(&w);
    }
}

static void a_frame_of_more_than_was_allowed_ends_the_connection(void **state)
{
    (void)state;
    static uint8_t bytes[H2_FRAME_BYTES + 1];
    for (size_t more = 0; more < 2; more++) {
        struct world w;
        world_open(&w);
        answer_add(&w, 1, "200", NULL, false);
        frame_add(&w.out, H2_DATA, 0, 1, slice_of(bytes, H2_FRAME_BYTES + more));
        if (more == 0) {
            expect_alive(&w);
            assert_int_equal(w.calls[0].body.size, H2_FRAME_BYTES);
        } else {
            expect_end(&w, H2_FRAME_SIZE_ERROR);
        }
        world_free(&w);
    }
}

static void the_first_frame_is_settings(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct world w;
        world_open(&w);
        buf_clear(&w.out);
        if (i == 0) {
            answer_add(&w, 1, "200", NULL, false);
        } else {
            frame_add(&w.out, H2_SETTINGS, H2_FLAG_ACK, 0, nothing);
        }
        expect_end(&w, H2_PROTOCOL_ERROR);
        world_free(&w);
    }
}

/* A section is not interrupted (RFC 9113, section 4.3). */
static void nothing_comes_into_a_section(void **state)
{
    (void)state;
    const uint8_t types[] = {H2_DATA, H2_HEADERS, H2_PING, H2_CONTINUATION, 99};
    for (size_t i = 0; i < sizeof(types); i++) {
        struct world w;
        world_open(&w);
        frame_add(&w.out, H2_HEADERS, 0, 1, SLICE_LIT("\x88"));
        frame_add(&w.out, H2_CONTINUATION, 0, 1, nothing);
        frame_add(&w.out, types[i], H2_FLAG_END_HEADERS, 3, SLICE_LIT("\x88"));
        expect_end(&w, H2_PROTOCOL_ERROR);
        world_free(&w);
    }
}

static void a_reset_tells_whether_the_call_may_be_sent_again(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, H2_RST_STREAM, 0, 1, slice_of("\0\0\0\7", 4));
    answer_add(&w, 3, "200", NULL, false);
    frame_add(&w.out, H2_RST_STREAM, 0, 3, slice_of("\0\0\0\7", 4));
    answer_add(&w, 5, "200", NULL, true);
    frame_add(&w.out, H2_RST_STREAM, 0, 5, slice_of("\0\0\0\0", 4));
    frame_add(&w.out, H2_RST_STREAM, 0, 5, slice_of("\0\0\0\0", 4)); /* it is gone. */
    expect_alive(&w);
    assert_true(w.calls[0].was_reset && w.calls[0].reset.by_peer);
    assert_true(w.calls[0].reset.unprocessed && !w.calls[0].reset.unsent);
    assert_true(w.calls[1].was_reset && !w.calls[1].reset.unprocessed);
    assert_true(w.calls[2].closed && !w.calls[2].was_reset); /* its answer is whole. */
    assert_false(w.calls[3].closed);
    world_free(&w);
}

static void calls_above_the_last_id_were_not_seen(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    answer_add(&w, 7, "200", NULL, false);
    frame_add(&w.out, H2_GOAWAY, 0, 0, slice_of("\0\0\0\3\0\0\0\0", 8));
    expect_alive(&w);
    assert_true(w.c.draining);
    assert_int_equal(h2_conn_room(w.c.conn), 0);
    assert_false(w.calls[0].closed || w.calls[1].closed);
    assert_true(w.calls[2].was_reset && w.calls[2].reset.unprocessed);
    assert_true(w.calls[3].was_reset && !w.calls[3].reset.unprocessed); /* it says it did. */
    answer_add(&w, 1, "200", NULL, true);
    frame_add(&w.out, H2_GOAWAY, 0, 0, slice_of("\0\0\0\1\0\0\0\0", 8));
    world_send(&w);
    peers_wait(&w.p, &w.calls[1].closed);
    assert_true(w.calls[1].reset.unprocessed);
    assert_false(w.calls[0].was_reset);
    assert_true(w.calls[0].ended);
    h2_stream_reset(w.calls[0].stream, H2_CANCEL); /* it had not ended its own side. */
    peers_wait(&w.p, &w.c.closed);
    assert_true(err_ok(w.c.why));
    world_free(&w);
}

/* ---- windows ---- */

static void more_than_a_window_costs_the_stream_or_the_connection(void **state)
{
    (void)state;
    static uint8_t bytes[H2_FRAME_BYTES];
    for (size_t kind = 0; kind < 2; kind++) {
        struct world w;
        world_open(&w);
        size_t window = (size_t)limits.stream_window_bytes;
        size_t streams = kind == 0 ? 1 : CALLS;
        for (size_t i = 0; i < streams; i++) {
            w.calls[i].hold = true; /* a call's window stays shut. */
            answer_add(&w, (uint32_t)(2 * i + 1), "200", NULL, false);
        }
        if (kind == 1) { /* none of the streams is over its own. */
            w.c.conn->window.left = (int32_t)window;
        }
        for (size_t sent = 0; sent < window; sent += sizeof(bytes)) {
            frame_add(&w.out, H2_DATA, 0, (uint32_t)(2 * (sent / sizeof(bytes) % streams) + 1),
                      slice_of(bytes, sizeof(bytes)));
        }
        frame_add(&w.out, H2_DATA, 0, 1, SLICE_LIT("x"));
        if (kind == 0) {
            expect_reset(&w, &w.calls[0], H2_FLOW_CONTROL_ERROR);
            assert_int_equal(w.calls[0].body.size, window);
        } else {
            expect_end(&w, H2_FLOW_CONTROL_ERROR);
        }
        world_free(&w);
    }
}

/* Padding counts, and is given back at once: else a stream of it would stand still. */
static void padding_is_given_back(void **state)
{
    (void)state;
    static uint8_t bytes[250] = {249};
    struct world w;
    world_open(&w);
    answer_add(&w, 1, "200", NULL, false);
    world_send(&w);
    for (size_t sent = 0; sent < 3 * limits.stream_window_bytes; sent += 100 * sizeof(bytes)) {
        for (size_t i = 0; i < 100; i++) {
            frame_add(&w.out, H2_DATA, H2_FLAG_PADDED, 1, slice_of(bytes, sizeof(bytes)));
            frame_add(&w.out, H2_DATA, 0, 1, SLICE_LIT("bytes"));
        }
        expect_alive(&w);
    }
    assert_false(w.calls[0].was_reset);
    assert_true(w.c.conn->window.left > (int32_t)limits.connection_window_bytes / 4);
    world_free(&w);
}

static void a_stream_s_window_that_overflows_costs_the_stream(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 1, slice_of("\x7f\xff\xff\xff", 4));
    expect_reset(&w, &w.calls[0], H2_FLOW_CONTROL_ERROR);
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 3, slice_of("\0\0\0\0", 4));
    expect_reset(&w, &w.calls[1], H2_PROTOCOL_ERROR);
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 1, slice_of("\0\0\0\1", 4)); /* it is gone. */
    expect_alive(&w);
    /* One more than the default fits; with it the largest one does not (section 6.9.2). */
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 5, slice_of("\0\0\0\1", 4));
    frame_add(&w.out, H2_SETTINGS, 0, 0, slice_of("\0\4\x7f\xff\xff\xff", 6));
    expect_end(&w, H2_FLOW_CONTROL_ERROR);
    world_free(&w);
}

static void wait_data(struct world *w, size_t size)
{
    world_send(w);
    while (w->r.data < size) {
        peers_run(&w->p, 1);
    }
    expect_alive(w); /* and all that it would send besides. */
    assert_int_equal(w->r.data, size);
}

/* Bytes wait while the server takes back what it allowed: the window is below zero. */
static void a_window_below_zero_holds_what_waits(void **state)
{
    (void)state;
    enum { SENT = H2_WINDOW_DEFAULT, ALL = SENT + 1000 };
    static uint8_t bytes[ALL];
    struct world w;
    world_open(&w);
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 0, slice_of("\0\x10\0\0", 4));
    expect_alive(&w);
    assert_true(err_ok(h2_stream_send(w.calls[0].stream, slice_of(bytes, ALL), false)));
    wait_data(&w, SENT);
    frame_add(&w.out, H2_SETTINGS, 0, 0, slice_of("\0\4\0\0\0\0", 6));
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 1, slice_of("\0\0\xff\xff", 4)); /* zero again. */
    wait_data(&w, SENT);
    assert_int_equal(h2_stream_queued(w.calls[0].stream), ALL - SENT);
    frame_add(&w.out, H2_SETTINGS, 0, 0, slice_of("\0\4\0\0\0\7", 6));
    wait_data(&w, SENT + 7);
    frame_add(&w.out, H2_SETTINGS, 0, 0,
              slice_of("\0\4\0\0\0\0\0\4\0\0\xff\xff", 12)); /* down and up. */
    wait_data(&w, ALL);
    assert_int_equal(w.calls[0].sent, ALL);
    world_free(&w);
}

/* What is reset is not sent any more, whatever waits, and what waits behind others goes on. */
static void a_reset_drops_what_waits(void **state)
{
    (void)state;
    static uint8_t bytes[2 * H2_WINDOW_DEFAULT];
    struct world w;
    world_open(&w);
    expect_alive(&w);
    assert_true(err_ok(h2_stream_send(w.calls[0].stream, slice_of(bytes, sizeof(bytes)), true)));
    wait_data(&w, H2_WINDOW_DEFAULT); /* of the connection, too. */
    assert_true(err_ok(h2_stream_send(w.calls[1].stream, SLICE_LIT("behind"), true)));
    wait_data(&w, H2_WINDOW_DEFAULT);
    frame_add(&w.out, H2_RST_STREAM, 0, 1, slice_of("\0\0\0\10", 4));
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 1, slice_of("\0\1\0\0", 4));
    frame_add(&w.out, H2_WINDOW_UPDATE, 0, 0, slice_of("\0\1\0\0", 4));
    wait_data(&w, H2_WINDOW_DEFAULT + 6);
    assert_true(w.calls[0].closed && w.calls[0].reset.code == H2_CANCEL);
    assert_int_equal(h2_conn_streams(w.c.conn), CALLS - 1);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_that_are_too_many_are_not_sent),
        cmocka_unit_test(an_answer_without_a_body_has_none),
        cmocka_unit_test(an_answer_to_head_has_no_body),
        cmocka_unit_test(interim_answers_are_left_out),
        cmocka_unit_test(broken_answers_reset_the_call_alone),
        cmocka_unit_test(broken_trailers_reset_the_call_alone),
        cmocka_unit_test(wrong_frames_end_the_connection),
        cmocka_unit_test(a_frame_of_more_than_was_allowed_ends_the_connection),
        cmocka_unit_test(the_first_frame_is_settings),
        cmocka_unit_test(nothing_comes_into_a_section),
        cmocka_unit_test(a_reset_tells_whether_the_call_may_be_sent_again),
        cmocka_unit_test(calls_above_the_last_id_were_not_seen),
        cmocka_unit_test(more_than_a_window_costs_the_stream_or_the_connection),
        cmocka_unit_test(padding_is_given_back),
        cmocka_unit_test(a_stream_s_window_that_overflows_costs_the_stream),
        cmocka_unit_test(a_window_below_zero_holds_what_waits),
        cmocka_unit_test(a_reset_drops_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
