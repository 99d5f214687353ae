/* Proves: what no decent client sends costs that client its stream or its connection, as RFC 9113
 * says, and never the server: floods, broken messages, header bombs, and input cut anywhere. */
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/net/flood.h"
#include "common/net/h2_impl.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/h2_peers.h"

enum {
    CALM = 11,
    PROTOCOL = 1,
    REFUSED = 7,
    CANCELLED = 8,
    STREAM_CLOSED = 5,
    BYTES_MAX = 8 << 20
};

static const struct slice nothing = {NULL, 0};

struct world {
    struct peers p;
    struct raw r;
    struct buf out;
};

static void world_open(struct world *w)
{
    w->out = BUF_MAX(BYTES_MAX);
    peers_init(&w->p);
    raw_open(&w->p, &w->r);
    preface_add(&w->out);
}

static void world_send(struct world *w)
{
    raw_send(&w->r, buf_slice(&w->out));
    buf_clear(&w->out);
}

static void world_free(struct world *w)
{
    raw_free(&w->r);
    buf_free(&w->out);
    peers_free(&w->p);
}

/* The connection must end with a GOAWAY of that code. */
static void expect_end(struct world *w, uint32_t code)
{
    world_send(w);
    peers_wait(&w->p, &w->r.closed);
    assert_true(w->r.goaway);
    assert_int_equal(w->r.goaway_code, code);
    assert_int_equal(w->p.server_closed, 1);
}

/* The connection must still answer. */
static void expect_alive(struct world *w, uint32_t id)
{
    w->r.got_headers = false;
    request_add(&w->out, id, "/unary", true, nothing);
    world_send(w);
    peers_wait(&w->p, &w->r.got_headers);
    assert_false(w->r.goaway);
}

static void ping(struct buf *out)
{
    frame_add(out, 6, 0, 0, slice_of("12345678", 8));
}

/* ---- floods ---- */

static void ping_flood_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (uint64_t i = 0; i < limits.control_frames_per_second * 2; i++) {
        ping(&w.out);
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
    world_free(&w);
}

static void settings_flood_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (uint64_t i = 0; i < limits.control_frames_per_second * 2; i++) {
        frame_add(&w.out, 4, 0, 0, nothing);
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
    world_free(&w);
}

/* Each changes the window of every stream: that costs more than the frame, and once a frame. */
static void windows_of_many_streams_have_their_price(void **state)
{
    (void)state;
    enum { STREAMS = 200, PRICE = 1 + STREAMS / 16 };
    static uint8_t entries[32 * 6];
    uint64_t before = limits.control_frames_per_second;
    limits.control_frames_per_second = 2 * PRICE + PRICE / 2;
    struct world w;
    world_open(&w);
    for (uint32_t i = 0; i < STREAMS; i++) {
        request_add(&w.out, 2 * i + 1, "/hang", true, nothing);
    }
    frame_add(&w.out, 4, 0, 0, slice_of("\0\4\0\0\xff\xff", 6)); /* what it is: no walk. */
    for (size_t i = 0; i < 32; i++) {
        entries[6 * i + 1] = 4;
        entries[6 * i + 5] = (uint8_t)i;
    }
    frame_add(&w.out, 4, 0, 0, slice_of(entries, sizeof(entries)));
    request_add(&w.out, 1001, "/unary", true, nothing);
    world_send(&w);
    while (w.r.headers < 1) {
        peers_run(&w.p, 1);
    }
    assert_false(w.r.goaway);
    assert_int_equal(w.p.requests, STREAMS + 1);
    for (uint8_t i = 0; i < 3; i++) {
        entries[5] = i;
        frame_add(&w.out, 4, 0, 0, slice_of(entries, 6));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
    world_free(&w);
    limits.control_frames_per_second = before;
}

static void a_settings_frame_of_many_entries_ends_the_connection(void **state)
{
    (void)state;
    static uint8_t entries[33 * 6];
    struct world w;
    world_open(&w);
    for (size_t i = 0; i < 33; i++) {
        entries[6 * i + 1] = 4; /* INITIAL_WINDOW_SIZE. */
    }
    frame_add(&w.out, 4, 0, 0, slice_of(entries, 32 * 6));
    expect_alive(&w, 1);
    frame_add(&w.out, 4, 0, 0, slice_of(entries, sizeof(entries)));
    expect_end(&w, CALM);
    world_free(&w);
}

/* Who asks and does not read has us keep the answers. */
static void answers_that_nobody_reads_are_bounded(void **state)
{
    (void)state;
    uint64_t before = limits.control_frames_per_second;
    limits.control_frames_per_second = 1000000;
    struct world w;
    world_open(&w);
    expect_alive(&w, 1);
    net_conn_pause(w.r.conn);
    for (int i = 0; i < 400 && w.p.server_closed == 0; i++) {
        for (int k = 0; k < 1000; k++) {
            ping(&w.out);
        }
        world_send(&w);
        while (net_conn_output(w.r.conn) > 0 && w.p.server_closed == 0) {
            peers_run(&w.p, 1);
        }
    }
    net_conn_resume(w.r.conn);
    peers_wait(&w.p, &w.r.closed);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
    world_free(&w);
    limits.control_frames_per_second = before;
}

/* Nor are answers that are whole kept without bound: who does not read them is refused more. */
static void requests_of_who_reads_nothing_are_bounded(void **state)
{
    (void)state;
    enum { MIB = 1 << 20 };
    struct world w;
    world_open(&w);
    expect_alive(&w, 1);
    net_conn_pause(w.r.conn);
    uint32_t id = 3;
    while (w.p.server_closed == 0) {
        for (int k = 0; k < 500; k++, id += 2) {
            request_add(&w.out, id, "/refuse", true, nothing);
        }
        world_send(&w);
        while (net_conn_output(w.r.conn) > 0 && w.p.server_closed == 0) {
            peers_run(&w.p, 1);
        }
        assert_true(w.p.server == NULL || w.p.server->pending.size < MIB + (MIB >> 2));
    }
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_RESET), 1);
    net_conn_resume(w.r.conn);
    peers_wait(&w.p, &w.r.closed);
    world_free(&w);
}

static void empty_data_flood_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    request_add(&w.out, 1, "/hang", false, nothing);
    for (uint64_t i = 0; i < limits.control_frames_per_second * 2; i++) {
        frame_add(&w.out, 0, 0, 1, nothing);
    }
    expect_end(&w, CALM);
    assert_int_equal(w.p.server_streams_closed, w.p.requests);
    world_free(&w);
}

/* What a frame of padding, or of a byte, brings is no gRPC message. */
static void little_data_flood_ends_the_connection(void **state)
{
    (void)state;
    const struct {
        uint8_t flags;
        struct slice payload;
    } cases[] = {{0, SLICE_LIT("x")}, {8, SLICE_LIT("\7\0\0\0\0\0\0\0")}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        world_open(&w);
        request_add(&w.out, 1, "/echo", false, nothing);
        for (uint64_t k = 0; k < limits.control_frames_per_second * 2; k++) {
            frame_add(&w.out, 0, cases[i].flags, 1, cases[i].payload);
        }
        expect_end(&w, CALM);
        assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
        world_free(&w);
    }
}

/* Each WINDOW_UPDATE has us make a DATA frame of one byte: that is no work done for the peer. */
static void data_by_the_byte_earns_nothing(void **state)
{
    (void)state;
    uint64_t before = limits.control_frames_per_second;
    limits.control_frames_per_second = 10;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 4, 0, 0, slice_of("\0\4\0\0\0\0", 6)); /* INITIAL_WINDOW_SIZE 0. */
    request_add(&w.out, 1, "/many", true, nothing);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_headers);
    for (size_t i = 0; i < 60 && !w.r.goaway; i++) {
        frame_add(&w.out, 8, 0, 1, slice_of("\0\0\0\1", 4));
        world_send(&w);
        while (w.r.data < i + 1 && !w.r.goaway) {
            peers_run(&w.p, 1);
        }
    }
    expect_end(&w, CALM);
    assert_true(w.r.data < 40);
    world_free(&w);
    limits.control_frames_per_second = before;
}

static void window_of_one_flood_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (uint64_t i = 0; i < limits.control_frames_per_second * 2; i++) {
        frame_add(&w.out, 8, 0, 0, slice_of("\0\0\0\1", 4));
    }
    expect_end(&w, CALM);
    world_free(&w);
}

static void unknown_frames_are_ignored_and_counted(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 99, 0, 0, SLICE_LIT("anything"));
    expect_alive(&w, 1);
    for (uint64_t i = 0; i < limits.control_frames_per_second * 2; i++) {
        frame_add(&w.out, 99, 0, 0, nothing);
    }
    expect_end(&w, CALM);
    world_free(&w);
}

static void priority_of_no_stream_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 2, 0, 1, slice_of("\0\0\0\0\1", 5));
    expect_alive(&w, 1);
    frame_add(&w.out, 2, 0, 0, slice_of("\0\0\0\1\1", 5));
    expect_end(&w, H2_PROTOCOL_ERROR);
    world_free(&w);
}

static void rapid_reset_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (uint32_t i = 0; i < limits.resets_per_second + 10; i++) {
        request_add(&w.out, 2 * i + 1, "/hang", true, nothing);
        frame_add(&w.out, 3, 0, 2 * i + 1, slice_of("\0\0\0\10", 4));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_RESET), 1);
    assert_true(w.p.requests <= limits.resets_per_second + 1);
    assert_int_equal(w.p.server_streams_closed, w.p.requests);
    world_free(&w);
}

/* CVE-2025-8671: the client makes the server reset, by a window update past the largest window. */
static void forced_resets_end_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (uint32_t i = 0; i < limits.resets_per_second + 60; i++) {
        request_add(&w.out, 2 * i + 1, "/hang", true, nothing);
        frame_add(&w.out, 8, 0, 2 * i + 1, slice_of("\x7f\xff\xff\xff", 4));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_RESET), 1);
    assert_int_equal(w.p.server_streams_closed, w.p.requests);
    world_free(&w);
}

/* Who hedges cancels some calls, at any rate. */
static void whole_answers_earn_resets(void **state)
{
    (void)state;
    enum { ROUNDS = 40, ANSWERS = 6 };
    uint64_t before = limits.resets_per_second;
    limits.resets_per_second = 10;
    struct world w;
    world_open(&w);
    uint32_t id = 1;
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < ANSWERS; k++, id += 2) {
            request_add(&w.out, id, "/unary", true, nothing);
        }
        world_send(&w);
        while (w.r.headers < 2U * ANSWERS * (unsigned)(i + 1)) { /* the trailers, too. */
            peers_run(&w.p, 1);
            assert_false(w.r.closed);
        }
        request_add(&w.out, id, "/hang", true, nothing);
        frame_add(&w.out, 3, 0, id, slice_of("\0\0\0\10", 4));
        id += 2;
    }
    expect_alive(&w, id);
    world_free(&w);
    limits.resets_per_second = before;
}

static void useful_work_earns_control_frames(void **state)
{
    (void)state;
    struct world w;
    uint64_t before = limits.control_frames_per_second;
    limits.control_frames_per_second = 20;
    world_open(&w);
    request_add(&w.out, 1, "/hang", false, nothing);
    for (int i = 0; i < 200; i++) {
        frame_add(&w.out, 0, 0, 1, SLICE_LIT("\0\0\0\0\0"));
        ping(&w.out);
        frame_add(&w.out, 8, 0, 0, slice_of("\0\0\0\1", 4));
    }
    expect_alive(&w, 3);
    world_free(&w);
    limits.control_frames_per_second = before;
}

/* A body that nobody waits for pays for no PINGs: there may be one for ever, by who may ask
 * nothing. */
static void bodies_of_no_stream_earn_nothing(void **state)
{
    (void)state;
    struct world w;
    uint64_t before = limits.control_frames_per_second;
    limits.control_frames_per_second = 20;
    world_open(&w);
    request_add(&w.out, 1, "/early", false, nothing);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    for (int i = 0; i < 200; i++) {
        frame_add(&w.out, 0, 0, 1, SLICE_LIT("\0\0\0\0\0"));
        ping(&w.out);
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTROL), 1);
    world_free(&w);
    limits.control_frames_per_second = before;
}

/* ---- bombs ---- */

/* One large value enters the HPACK table, then one byte each repeats it. */
static void bomb_add(struct world *w, size_t repeats)
{
    auto_buf struct buf bomb = BUF_MAX(1 << 20);
    static uint8_t value[3000];
    memset(value, 'v', sizeof(value));
    /* Literal with indexing, new name "b"; length 3000 as an HPACK integer of 7 bits. */
    assert_true(err_ok(buf_add(&bomb, slice_of("\x40\x01\x62\x7f\xb9\x16", 6))));
    assert_true(err_ok(buf_add(&bomb, slice_of(value, sizeof(value)))));
    for (size_t i = 0; i < repeats; i++) {
        assert_true(err_ok(buf_add_byte(&bomb, 0xbe))); /* the newest entry: 62. */
    }
    request_add(&w->out, 1, "/unary", true, buf_slice(&bomb));
}

static void hpack_bomb_is_refused_and_bounded(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    bomb_add(&w, /* repeats= */ 20);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_headers);
    assert_int_equal(w.p.requests, 0);
    assert_int_equal(h2_env_counters(w.p.env)->headers_too_large, 1);
    assert_true(h2_env_memory(w.p.env) < 512 << 10);
    expect_alive(&w, 3);
    world_free(&w);
}

/* To look at each byte of what one stands for would take a core. */
static void a_large_hpack_bomb_is_put_out(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    bomb_add(&w, /* repeats= */ 8000);
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_HEADERS), 1);
    assert_int_equal(h2_env_counters(w.p.env)->headers_too_large, 1);
    assert_int_equal(w.p.requests, 0);
    world_free(&w);
}

static void cookie_crumbs_are_counted(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    auto_buf struct buf crumbs = BUF_MAX(1 << 20);
    for (int i = 0; i < 500; i++) {
        hpack_add(&crumbs, "cookie", "");
    }
    request_add(&w.out, 1, "/unary", true, buf_slice(&crumbs));
    expect_alive(&w, 3);
    assert_int_equal(w.p.requests, 1);
    world_free(&w);
}

static void continuation_flood_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    auto_buf struct buf block = BUF_MAX(1 << 20);
    hpack_add(&block, ":method", "POST");
    frame_add(&w.out, 1, 0, 1, buf_slice(&block));
    buf_clear(&block);
    hpack_add(&block, "x-more", "y");
    for (int i = 0; i < 200; i++) {
        frame_add(&w.out, 9, 0, 1, buf_slice(&block));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_CONTINUATION), 1);
    assert_int_equal(w.p.requests, 0);
    world_free(&w);
}

static void a_section_far_over_the_bounds_ends_the_connection(void **state)
{
    (void)state;
    enum { PIECE = 16000 };
    static uint8_t piece[PIECE]; /* HPACK that is never looked at: it is too much before. */
    struct world w;
    world_open(&w);
    frame_add(&w.out, 1, 0, 1, nothing);
    for (uint64_t i = 0; i <= 2 * limits.request_header_bytes / PIECE; i++) {
        frame_add(&w.out, 9, 0, 1, slice_of(piece, PIECE));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_HEADERS), 1);
    world_free(&w);
}

/* Each is answered and costs its stream alone; hundreds of them a second cost the connection. */
static void sections_over_the_bounds_are_a_flood(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    auto_buf struct buf crumbs = BUF_MAX(1 << 20);
    for (int i = 0; i < 500; i++) {
        hpack_add(&crumbs, "cookie", "");
    }
    for (uint32_t i = 0; i < limits.resets_per_second; i++) {
        request_add(&w.out, 2 * i + 1, "/unary", true, buf_slice(&crumbs));
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_HEADERS), 1);
    assert_int_equal(w.p.requests, 0);
    world_free(&w);
}

/* Of a stream that its client ended, or passed over. */
static void a_section_of_a_stream_that_is_over_ends_the_connection(void **state)
{
    (void)state;
    for (uint32_t id = 1; id <= 3; id += 2) {
        struct world w;
        world_open(&w);
        expect_alive(&w, 3);
        while (w.r.headers < 2) { /* its trailers. */
            peers_run(&w.p, 1);
        }
        request_add(&w.out, id, "/unary", true, nothing);
        expect_end(&w, STREAM_CLOSED);
        assert_int_equal(w.p.requests, 1);
        world_free(&w);
    }
}

/* Once we ended a stream before its client did, what comes for it is decoded and dropped. */
static void sections_of_no_stream_are_a_flood(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    request_add(&w.out, 1, "/early", false, nothing);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    request_add(&w.out, 1, "/unary", true, nothing);
    expect_alive(&w, 3);
    for (uint32_t i = 0; i < limits.resets_per_second + 10; i++) {
        request_add(&w.out, 1, "/unary", true, nothing);
    }
    expect_end(&w, CALM);
    assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_HEADERS), 1);
    assert_int_equal(w.p.requests, 2);
    world_free(&w);
}

/* ---- what is begun and does not end ---- */

/* The first 'left_out' bytes less of a request. */
static void begin_request(struct world *w, uint32_t id, size_t left_out)
{
    request_add(&w->out, id, "/unary", true, nothing);
    w->out.size -= left_out;
    world_send(w);
}

static void a_slow_head_ends_the_connection(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct world w;
        world_open(&w);
        expect_alive(&w, 1);
        if (kind == 0) {
            begin_request(&w, 3, /* left_out= */ 7); /* in the midst of a frame. */
        } else if (kind == 1) {
            auto_buf struct buf block = BUF_MAX(100);
            hpack_add(&block, ":method", "POST");
            frame_add(&w.out, 1, 0, 3, buf_slice(&block)); /* no END_HEADERS. */
        } else {
            ping(&w.out);
            w.out.size -= 10; /* in the midst of a frame's head. */
        }
        world_send(&w);
        peers_run(&w.p, 20);
        peers_pass(&w.p, limits.header_timeout_ms - 500);
        peers_run(&w.p, 20);
        assert_false(w.r.goaway);
        peers_pass(&w.p, 500);
        peers_pass(&w.p, 500);
        peers_wait(&w.p, &w.r.closed);
        assert_int_equal(w.r.goaway_code, CALM);
        assert_int_equal(net_flood_count(w.p.loop, NET_FLOOD_SLOW_HEAD), 1);
        world_free(&w);
    }
}

/* Reads that end in the midst of a frame each, and each time of another one, are no slow head. */
static void frames_that_go_on_are_not_slow(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    expect_alive(&w, 1);
    for (unsigned i = 0; i < 5; i++) {
        ping(&w.out);
        raw_send(&w.r, slice_head(buf_slice(&w.out), w.out.size - 7));
        struct slice rest = slice_from(buf_slice(&w.out), w.out.size - 7);
        peers_run(&w.p, 10);
        peers_pass(&w.p, limits.header_timeout_ms - 1000);
        uint8_t kept[7]; /* they go with the next frame. */
        memcpy(kept, rest.ptr, rest.size);
        buf_clear(&w.out);
        assert_true(err_ok(buf_add(&w.out, slice_of(kept, sizeof(kept)))));
    }
    expect_alive(&w, 3);
    world_free(&w);
}

/* A body takes the time that its call has. */
static void a_slow_body_is_its_calls_matter(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    request_add(&w.out, 1, "/hang", false, nothing);
    frame_add(&w.out, 0, 0, 1, SLICE_LIT("\0\0\0\0\3abc"));
    w.out.size -= 2;
    world_send(&w);
    peers_run(&w.p, 20);
    peers_pass(&w.p, 3 * limits.header_timeout_ms);
    peers_run(&w.p, 20);
    assert_false(w.r.goaway);
    world_free(&w);
}

static void an_answer_that_is_not_read_is_given_up(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 4, 0, 0, slice_of("\0\4\0\0\0\0", 6)); /* INITIAL_WINDOW_SIZE 0. */
    request_add(&w.out, 1, "/unary", true, nothing);
    request_add(&w.out, 3, "/many", true, nothing);
    world_send(&w);
    while (w.r.headers < 2) {
        peers_run(&w.p, 1);
    }
    peers_pass(&w.p, limits.write_timeout_ms - 1000);
    frame_add(&w.out, 8, 0, 3, slice_of("\0\0\0\1", 4)); /* this one is slow, and not stuck. */
    world_send(&w);
    while (w.r.data < 1) {
        peers_run(&w.p, 1);
    }
    assert_int_equal(w.r.resets, 0);
    peers_pass(&w.p, 1500);
    peers_pass(&w.p, 500);
    peers_wait(&w.p, &w.r.got_reset);
    assert_int_equal(w.r.resets, 1);
    assert_int_equal(w.r.reset_code, CANCELLED);
    assert_int_equal(h2_env_counters(w.p.env)->streams_unread, 1);
    peers_pass(&w.p, limits.write_timeout_ms);
    peers_pass(&w.p, 500);
    while (w.r.resets < 2) { /* the other one, too, once it stands still. */
        peers_run(&w.p, 1);
    }
    assert_int_equal(h2_env_counters(w.p.env)->streams_unread, 2);
    expect_alive(&w, 5);
    world_free(&w);
}

/* ---- broken messages ---- */

static void body_longer_or_shorter_than_declared_resets_the_stream(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    auto_buf struct buf length = BUF_MAX(64);
    hpack_add(&length, "content-length", "4");
    request_add(&w.out, 1, "/hang", false, buf_slice(&length));
    frame_add(&w.out, 0, 1, 1, SLICE_LIT("12345"));
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    assert_int_equal(w.r.reset_code, PROTOCOL);
    w.r.got_reset = false;
    request_add(&w.out, 3, "/hang", false, buf_slice(&length));
    frame_add(&w.out, 0, 1, 3, SLICE_LIT("123"));
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    assert_int_equal(w.r.reset_code, PROTOCOL);
    assert_int_equal(w.p.server_resets, 2);
    assert_false(w.p.server_reset.by_peer);
    expect_alive(&w, 5);
    world_free(&w);
}

static void broken_fields_reset_the_stream_alone(void **state)
{
    (void)state;
    static const char *const fields[][2] = {
        {"connection", "close"},  {"transfer-encoding", "chunked"},
        {"te", "gzip"},           {":path", "/again"},
        {":unknown", "x"},        {"host", ""},
        {"X-Upper", "x"},         {"x-line", "a\r\nb"},
        {"x-blank", " x"},        {"x name", "x"},
        {"content-length", "+1"},
    };
    struct world w;
    world_open(&w);
    for (uint32_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        auto_buf struct buf extra = BUF_MAX(256);
        hpack_add(&extra, fields[i][0], fields[i][1]);
        w.r.got_reset = false;
        request_add(&w.out, 2 * i + 1, "/unary", true, buf_slice(&extra));
        world_send(&w);
        peers_wait(&w.p, &w.r.got_reset);
        assert_int_equal(w.r.reset_code, PROTOCOL);
    }
    assert_int_equal(w.p.requests, 0);
    expect_alive(&w, 101);
    world_free(&w);
}

static void wrong_frames_end_the_connection(void **state)
{
    (void)state;
    struct {
        uint8_t type;
        uint32_t id;
        size_t size;
        uint32_t code;
    } cases[] = {
        {0, 0, 4, PROTOCOL}, /* DATA on stream 0. */
        {0, 7, 4, PROTOCOL}, /* DATA on an idle stream. */
        {3, 7, 4, PROTOCOL}, /* RST_STREAM on an idle stream. */
        {6, 0, 7, 6},        /* PING of 7 bytes. */
        {4, 0, 5, 6},        /* SETTINGS of 5 bytes. */
        {9, 1, 4, PROTOCOL}, /* CONTINUATION without HEADERS. */
        {5, 1, 8, PROTOCOL}, /* PUSH_PROMISE from a client. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        world_open(&w);
        frame_add(&w.out, cases[i].type, 0, cases[i].id,
                  slice_of("\0\0\0\1\0\0\0\0", cases[i].size));
        expect_end(&w, cases[i].code);
        world_free(&w);
    }
}

/* What a client must not say in the head of a request, and what costs the stream alone. */
static void wrong_headers_end_the_connection(void **state)
{
    (void)state;
    const struct {
        uint8_t flags;
        uint32_t id;
        struct slice payload;
        uint32_t code;
    } cases[] = {
        {4, 0, SLICE_LIT("\x83"), PROTOCOL},
        {4, 2, SLICE_LIT("\x83"), PROTOCOL},                  /* a server's number. */
        {4 | 8, 1, nothing, PROTOCOL},                        /* no length of padding. */
        {4 | 8, 1, SLICE_LIT("\1"), PROTOCOL},                /* more than there is. */
        {4 | 0x20, 1, SLICE_LIT("\0\0\0\1\1\x83"), PROTOCOL}, /* depends on itself. */
        {4, 1, SLICE_LIT("\x82\x20"), 9},                     /* COMPRESSION_ERROR. */
        {4, 1, SLICE_LIT("\xbe"), 9},                         /* no such entry. */
        {4 | 8, 1, SLICE_LIT("\1\x83\0"), 0},                 /* malformed, but whole. */
        {4 | 0x20, 1, SLICE_LIT("\0\0\0\0\1\x83"), 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        world_open(&w);
        frame_add(&w.out, 1, cases[i].flags, cases[i].id, cases[i].payload);
        if (cases[i].code != 0) {
            expect_end(&w, cases[i].code);
        } else {
            expect_alive(&w, 3);
            assert_int_equal(w.r.reset_code, PROTOCOL);
            assert_int_equal(w.r.resets, 1);
        }
        world_free(&w);
    }
}

/* More than the server allowed, of a stream or of all together. */
static void more_than_a_window_is_refused(void **state)
{
    (void)state;
    enum { FRAME = 16384, FLOW_CONTROL = 3 };
    static uint8_t bytes[FRAME];
    for (uint32_t streams = 1; streams <= 8; streams += 7) {
        uint64_t window =
            streams == 1 ? limits.stream_window_bytes : limits.connection_window_bytes;
        uint64_t held_before = limits.connection_held_bytes;
        limits.connection_held_bytes = 64 << 10; /* what is held is not given back. */
        struct world w;
        world_open(&w);
        for (uint32_t i = 0; i < streams; i++) {
            request_add(&w.out, 2 * i + 1, "/sink", false, nothing);
        }
        for (uint64_t sent = 0; sent < window; sent += FRAME) {
            frame_add(&w.out, 0, 0, (uint32_t)(2 * (sent / FRAME % streams) + 1),
                      slice_of(bytes, FRAME));
            world_send(&w);
            while (net_conn_output(w.r.conn) > 0) {
                peers_run(&w.p, 1);
            }
        }
        ping(&w.out);
        world_send(&w);
        peers_wait(&w.p, &w.r.ping_acked);
        assert_false(w.r.goaway || w.r.got_reset);
        if (streams == 1) {
            frame_add(&w.out, 0, 0, 1, SLICE_LIT("x"));
            world_send(&w);
            peers_wait(&w.p, &w.r.got_reset);
            assert_int_equal(w.r.reset_code, FLOW_CONTROL);
            expect_alive(&w, 101);
        } else { /* what was given back of the first 64 KiB, and more. */
            for (uint32_t i = 0; i < 5; i++) {
                frame_add(&w.out, 0, 0, 2 * i + 1, slice_of(bytes, FRAME));
            }
            expect_end(&w, FLOW_CONTROL);
        }
        world_free(&w);
        limits.connection_held_bytes = held_before;
    }
}

/* Bytes of streams that are over are nobody's: their window is given back. */
static void bodies_of_no_stream_leave_the_window_open(void **state)
{
    (void)state;
    enum { FRAME = 16384 };
    static uint8_t bytes[FRAME];
    struct world w;
    world_open(&w);
    request_add(&w.out, 1, "/early", false, nothing);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    for (uint64_t sent = 0; sent < 3 * limits.connection_window_max_bytes;) {
        for (int i = 0; i < 16; i++, sent += FRAME) {
            frame_add(&w.out, 0, 0, 1, slice_of(bytes, FRAME));
        }
        w.r.ping_acked = false;
        ping(&w.out);
        world_send(&w);
        peers_wait(&w.p, &w.r.ping_acked);
    }
    expect_alive(&w, 3);
    assert_int_equal(w.p.server_bytes, 0);
    world_free(&w);
}

static void no_preface_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    buf_clear(&w.out);
    assert_true(err_ok(buf_add_str(&w.out, "INVALID CONNECTION PREFACE\r\n\r\n")));
    world_send(&w);
    peers_wait(&w.p, &w.r.closed);
    assert_int_equal(w.p.server_closed, 1);
    world_free(&w);
}

static void silence_ends_the_connection(void **state)
{
    (void)state;
    uint64_t before = limits.handshake_timeout_ms;
    limits.handshake_timeout_ms = 30;
    struct world w;
    world_open(&w);
    peers_wait(&w.p, &w.r.closed);
    assert_int_equal(h2_env_counters(w.p.env)->handshake_timeouts, 1);
    limits.handshake_timeout_ms = before;
    world_free(&w);
}

static void idle_connection_is_drained(void **state)
{
    (void)state;
    enum { NOTICE_MS = 1000 };
    struct world w;
    world_open(&w);
    expect_alive(&w, 1);
    peers_pass(&w.p, limits.idle_timeout_ms / 2);
    ping(&w.out); /* is no request. */
    world_send(&w);
    peers_wait(&w.p, &w.r.ping_acked);
    assert_int_equal(w.r.goaways, 0);
    peers_pass(&w.p, limits.idle_timeout_ms / 2);
    while (w.r.goaways == 0) {
        peers_run(&w.p, 1);
    }
    peers_pass(&w.p, NOTICE_MS); /* it never answers the PING: the timer makes it final. */
    peers_wait(&w.p, &w.r.closed);
    assert_int_equal(w.r.goaways, 2);
    assert_int_equal(w.r.goaway_code, 0);
    assert_int_equal(w.r.goaway_last, 1);
    assert_int_equal(h2_env_counters(w.p.env)->idle_timeouts, 1);
    world_free(&w);
}

/* What a GOAWAY said stays true in the next one: requests behind it are sent again elsewhere. */
static void the_last_id_never_rises(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    request_add(&w.out, 1, "/hang", true, nothing);
    world_send(&w);
    while (w.p.requests == 0) {
        peers_run(&w.p, 1);
    }
    h2_conn_drain(w.p.server);
    frame_add(&w.out, 6, 1, 0, slice_of("\0\0\0\0\0\0\0\0", 8)); /* answers the PING. */
    world_send(&w);
    while (w.r.goaways < 2) {
        peers_run(&w.p, 1);
    }
    assert_int_equal(w.r.goaway_last, 1);
    request_add(&w.out, 3, "/unary", true, nothing); /* was on its way. */
    ping(&w.out);
    world_send(&w);
    peers_wait(&w.p, &w.r.ping_acked);
    assert_int_equal(w.p.requests, 1);
    frame_add(&w.out, 0, 0, 0, nothing);
    expect_end(&w, PROTOCOL);
    assert_int_equal(w.r.goaways, 3);
    assert_int_equal(w.r.goaway_last, 1);
    world_free(&w);
}

/* ---- streams ---- */

static void excess_streams_are_refused_after_the_ack_too(void **state)
{
    (void)state;
    uint64_t before = limits.streams_per_connection;
    limits.streams_per_connection = 3;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 4, 1, 0, nothing); /* acknowledges what it was told. */
    for (uint32_t i = 0; i < 5; i++) {
        request_add(&w.out, 2 * i + 1, "/hang", true, nothing);
    }
    world_send(&w);
    peers_wait(&w.p, &w.r.got_reset);
    assert_int_equal(w.r.max_streams, 3);
    assert_int_equal(w.r.resets, 2);
    assert_int_equal(w.r.reset_code, REFUSED);
    assert_int_equal(w.p.requests, 3);
    assert_false(w.r.goaway);
    frame_add(&w.out, 3, 0, 1, slice_of("\0\0\0\10", 4)); /* room again. */
    expect_alive(&w, 11);
    world_free(&w);
    limits.streams_per_connection = before;
}

static void window_that_never_opens_holds_the_answer(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    frame_add(&w.out, 4, 0, 0, slice_of("\0\4\0\0\0\0", 6)); /* INITIAL_WINDOW_SIZE 0. */
    request_add(&w.out, 1, "/many", true, nothing);
    world_send(&w);
    peers_wait(&w.p, &w.r.got_headers);
    peers_run(&w.p, 30);
    assert_int_equal(w.r.data, 0);
    frame_add(&w.out, 8, 0, 1, slice_of("\0\0\0\7", 4));
    world_send(&w);
    while (w.r.data < 7) {
        peers_run(&w.p, 1);
    }
    peers_run(&w.p, 10);
    assert_int_equal(w.r.data, 7);
    world_free(&w);
}

/* ---- input cut anywhere ---- */

static void session_bytes(struct buf *out)
{
    preface_add(out);
    request_add(out, 1, "/unary", false, nothing);
    frame_add(out, 0, 0, 1, SLICE_LIT("\0\0\0\0\3abc"));
    ping(out);
    frame_add(out, 0, 1, 1, SLICE_LIT("\0\0\0\0\1z"));
    request_add(out, 3, "/refuse", true, nothing);
    request_add(out, 5, "/echo", false, nothing);
    frame_add(out, 0, 1, 5, SLICE_LIT("echo"));
    ping(out);
}

static void expect_session(struct world *w)
{
    while (w->r.headers < 5 || !w->r.ping_acked || w->r.data < 6) {
        peers_run(&w->p, 1);
        assert_false(w->r.closed);
    }
    assert_int_equal(w->p.requests, 3);
    assert_int_equal(w->r.data, 2 + 4); /* "14" and "echo". */
    assert_false(w->r.goaway);
}

static void splits_make_no_difference(void **state)
{
    (void)state;
    unsigned seed = 20240607;
    for (int round = 0; round < 12; round++) {
        struct world w;
        world_open(&w);
        buf_clear(&w.out);
        session_bytes(&w.out);
        struct slice rest = buf_slice(&w.out);
        while (rest.size > 0) {
            seed = seed * 1103515245 + 12345;
            size_t size = round == 0 ? 1 : 1 + (seed >> 16) % 40;
            raw_send(&w.r, slice_head(rest, size));
            net_conn_flush(w.r.conn);
            rest = slice_from(rest, size);
            size_t turns = net_loop_stats(w.p.loop)->turns;
            while (net_loop_stats(w.p.loop)->turns < turns + 2) {
                peers_run(&w.p, 1);
            }
        }
        expect_session(&w);
        world_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ping_flood_ends_the_connection),
        cmocka_unit_test(settings_flood_ends_the_connection),
        cmocka_unit_test(windows_of_many_streams_have_their_price),
        cmocka_unit_test(a_settings_frame_of_many_entries_ends_the_connection),
        cmocka_unit_test(answers_that_nobody_reads_are_bounded),
        cmocka_unit_test(requests_of_who_reads_nothing_are_bounded),
        cmocka_unit_test(empty_data_flood_ends_the_connection),
        cmocka_unit_test(little_data_flood_ends_the_connection),
        cmocka_unit_test(window_of_one_flood_ends_the_connection),
        cmocka_unit_test(data_by_the_byte_earns_nothing),
        cmocka_unit_test(unknown_frames_are_ignored_and_counted),
        cmocka_unit_test(priority_of_no_stream_ends_the_connection),
        cmocka_unit_test(rapid_reset_ends_the_connection),
        cmocka_unit_test(forced_resets_end_the_connection),
        cmocka_unit_test(useful_work_earns_control_frames),
        cmocka_unit_test(bodies_of_no_stream_earn_nothing),
        cmocka_unit_test(whole_answers_earn_resets),
        cmocka_unit_test(hpack_bomb_is_refused_and_bounded),
        cmocka_unit_test(a_large_hpack_bomb_is_put_out),
        cmocka_unit_test(cookie_crumbs_are_counted),
        cmocka_unit_test(continuation_flood_ends_the_connection),
        cmocka_unit_test(a_section_far_over_the_bounds_ends_the_connection),
        cmocka_unit_test(sections_over_the_bounds_are_a_flood),
        cmocka_unit_test(a_section_of_a_stream_that_is_over_ends_the_connection),
        cmocka_unit_test(sections_of_no_stream_are_a_flood),
        cmocka_unit_test(a_slow_head_ends_the_connection),
        cmocka_unit_test(frames_that_go_on_are_not_slow),
        cmocka_unit_test(a_slow_body_is_its_calls_matter),
        cmocka_unit_test(an_answer_that_is_not_read_is_given_up),
        cmocka_unit_test(body_longer_or_shorter_than_declared_resets_the_stream),
        cmocka_unit_test(broken_fields_reset_the_stream_alone),
        cmocka_unit_test(wrong_frames_end_the_connection),
        cmocka_unit_test(wrong_headers_end_the_connection),
        cmocka_unit_test(more_than_a_window_is_refused),
        cmocka_unit_test(bodies_of_no_stream_leave_the_window_open),
        cmocka_unit_test(no_preface_ends_the_connection),
        cmocka_unit_test(silence_ends_the_connection),
        cmocka_unit_test(idle_connection_is_drained),
        cmocka_unit_test(the_last_id_never_rises),
        cmocka_unit_test(excess_streams_are_refused_after_the_ack_too),
        cmocka_unit_test(window_that_never_opens_holds_the_answer),
        cmocka_unit_test(splits_make_no_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
