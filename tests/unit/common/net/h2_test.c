/* Proves: calls of all four kinds pass between our client and our server, refusals and bounds are
 * answered on the stream alone, back-pressure bounds memory, and each end is told once. */
#include "common/net/h2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/net/h2_impl.h"

#include "tests/support/cmocka.h"
#include "tests/support/ports.h"
#include "tests/unit/common/net/h2_peers.h"

static struct slice zeros(size_t size)
{
    static uint8_t bytes[1 << 20];
    assert_true(size <= sizeof(bytes));
    return slice_of(bytes, size);
}

/* ---- calls ---- */

static void unary_answers_with_body_and_trailers(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, false)));
    assert_true(err_ok(h2_stream_send(call.stream, zeros(128), true)));
    peers_wait(&p, &call.closed);
    assert_true(call.headers && call.trailers && call.ended && !call.was_reset);
    assert_false(call.trailers_only);
    assert_string_equal(call.status, "200");
    assert_int_equal(call.grpc_status, 0);
    assert_true(slice_eq(buf_slice(&call.body), SLICE_LIT("128")));
    assert_int_equal(call.sent, 128);
    call_free(&call);
    peers_free(&p);
}

static void many_calls_share_a_connection_and_leave_no_memory(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    static struct call calls[64];
    peers_init(&p);
    client_open(&p, &c);
    size_t settled = 0;
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < 64; i++) {
            assert_true(err_ok(call_start(&c, &calls[i], "/unary", NULL, 0, false)));
            assert_true(err_ok(h2_stream_send(calls[i].stream, zeros(i), true)));
        }
        for (size_t i = 0; i < 64; i++) {
            peers_wait(&p, &calls[i].closed);
            assert_int_equal(calls[i].grpc_status, 0);
            call_free(&calls[i]);
        }
        settled = round == 2 ? h2_env_memory(p.env) : settled;
    }
    assert_int_equal(p.accepted, 1);
    assert_int_equal(p.requests, 64 * 20);
    assert_true(h2_env_memory(p.env) <= settled * 11 / 10);
    assert_int_equal(h2_env_counters(p.env)->streams_opened, 2 * 64 * 20);
    assert_int_equal(h2_env_counters(p.env)->streams_closed, 2 * 64 * 20);
    peers_free(&p);
}

static void server_streams_through_its_bounded_queue(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    uint64_t before = limits.stream_buffer_bytes;
    limits.stream_buffer_bytes = 16 << 10;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/many", NULL, 0, true)));
    peers_wait(&p, &call.closed);
    assert_int_equal(call.body.size, PEERS_MANY * 1005);
    assert_int_equal(call.grpc_status, 0);
    call_free(&call);
    peers_free(&p);
    limits.stream_buffer_bytes = before;
}

static void bidi_echoes_before_the_request_ends(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/echo", NULL, 0, false)));
    peers_wait(&p, &call.headers);
    assert_true(err_ok(h2_stream_send(call.stream, SLICE_LIT("hello"), false)));
    for (int i = 0; i < 1000 && call.body.size < 5; i++) {
        peers_run(&p, 1);
    }
    assert_true(slice_eq(buf_slice(&call.body), SLICE_LIT("hello")));
    assert_false(call.ended);
    assert_true(err_ok(h2_stream_send(call.stream, (struct slice){NULL, 0}, true)));
    peers_wait(&p, &call.closed);
    assert_int_equal(call.grpc_status, 0);
    call_free(&call);
    peers_free(&p);
}

/* Sends 'total' bytes through /echo, as the queue takes them. */
static void push_all(struct peers *p, struct call *call, size_t total)
{
    size_t given = 0;
    uint8_t piece[10007];
    while (given < total) {
        size_t size = total - given < sizeof(piece) ? total - given : sizeof(piece);
        for (size_t i = 0; i < size; i++) {
            piece[i] = (uint8_t)((given + i) * 31 >> 3);
        }
        struct err e = h2_stream_send(call->stream, slice_of(piece, size), false);
        if (err_ok(e)) {
            given += size;
            continue;
        }
        assert_int_equal(e.code, E_QUEUE_FULL);
        call->writable = false;
        peers_wait(p, &call->writable);
    }
    assert_true(err_ok(h2_stream_send(call->stream, (struct slice){NULL, 0}, true)));
}

static void bulk_comes_back_unchanged(void **state)
{
    (void)state;
    enum { TOTAL = 9 << 20 };
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/echo", NULL, 0, false)));
    push_all(&p, &call, TOTAL);
    peers_wait(&p, &call.closed);
    assert_int_equal(call.body.size, TOTAL);
    for (size_t i = 0; i < TOTAL; i++) {
        if (call.body.ptr[i] != (uint8_t)(i * 31 >> 3)) {
            fail_msg("byte %zu differs", i);
        }
    }
    call_free(&call);
    peers_free(&p);
}

static void refusal_is_trailers_only_with_its_details(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/refuse", NULL, 0, false)));
    peers_wait(&p, &call.closed);
    assert_true(call.trailers_only && !call.was_reset);
    assert_int_equal(call.grpc_status, GRPC_PERMISSION_DENIED);
    assert_string_equal(call.code, "POLICY_DENIED");
    call_free(&call);
    peers_free(&p);
}

static void early_answer_is_whole_and_stops_the_request(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/early", NULL, 0, false)));
    peers_wait(&p, &call.closed);
    assert_true(call.trailers && !call.was_reset);
    assert_true(slice_eq(buf_slice(&call.body), SLICE_LIT("early")));
    assert_int_equal(p.server_resets, 0);
    assert_int_equal(p.server_streams_closed, 1);
    call_free(&call);
    peers_free(&p);
}

/* ---- resets and ends ---- */

static void reset_by_the_client_reaches_the_server(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/hang", NULL, 0, true)));
    while (p.requests == 0) {
        peers_run(&p, 1);
    }
    h2_stream_reset(call.stream, H2_CANCEL);
    peers_wait(&p, &call.closed);
    assert_false(call.was_reset); /* its owner knows. */
    while (p.server_streams_closed == 0) {
        peers_run(&p, 1);
    }
    assert_int_equal(p.server_resets, 1);
    assert_int_equal(p.server_reset.code, H2_CANCEL);
    assert_true(p.server_reset.by_peer);
    assert_non_null(p.server);
    call_free(&call);
    peers_free(&p);
}

static void lost_connection_ends_its_streams_once(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/hang", NULL, 0, true)));
    while (p.requests == 0) {
        peers_run(&p, 1);
    }
    net_conn_abort(h2_conn_net(p.server), FAIL(E_IO));
    peers_wait(&p, &c.closed);
    assert_true(call.closed && call.was_reset);
    assert_false(call.reset.unprocessed || call.reset.unsent);
    assert_int_equal(p.server_resets, 1);
    call_free(&call);
    peers_free(&p);
}

/* Though output was on its way when it broke. */
static void a_connection_that_breaks_says_why(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/sink", NULL, 0, false)));
    while (p.requests == 0) {
        peers_run(&p, 1);
    }
    assert_true(err_ok(h2_stream_send(call.stream, zeros(limits.stream_buffer_bytes), false)));
    assert_true(h2_stream_queued(call.stream) > 0);
    net_conn_abort(h2_conn_net(c.conn), FAIL(E_CRYPTO));
    peers_wait(&p, &c.closed);
    assert_int_equal(c.why.code, E_CRYPTO);
    assert_true(call.was_reset && call.closed);
    call_free(&call);
    peers_free(&p);
}

/* A connection that has no number for a request more ends, so that its pool opens another. */
static void the_last_number_of_a_stream_ends_the_connection(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call calls[3];
    peers_init(&p);
    client_open(&p, &c);
    c.conn->next_id = INT32_MAX - 4;
    assert_int_equal(h2_conn_room(c.conn), 2);
    for (int i = 0; i < 2; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/echo", NULL, 0, false)));
        assert_int_equal(h2_stream_id(calls[i].stream), INT32_MAX - 4 + 2 * i);
    }
    assert_int_equal(h2_conn_room(c.conn), 0);
    assert_int_equal(call_start(&c, &calls[2], "/echo", NULL, 0, false).code, E_OVERLOADED);
    for (int i = 0; i < 2; i++) {
        assert_true(err_ok(h2_stream_send(calls[i].stream, SLICE_LIT("last"), true)));
        peers_wait(&p, &calls[i].closed);
        assert_int_equal(calls[i].grpc_status, 0);
        call_free(&calls[i]);
    }
    peers_wait(&p, &c.closed);
    assert_true(err_ok(c.why));
    peers_free(&p);
}

static void refused_dial_leaves_requests_unprocessed(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    uint16_t port = 0;
    int fd = test_deaf_port(&port);
    struct net_addr listening = p.addr;
    net_addr_set_port(&p.addr, port);
    client_open(&p, &c);
    p.addr = listening;
    assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, true)));
    peers_wait(&p, &c.closed);
    assert_int_equal(c.why.code, E_UNAVAILABLE);
    assert_true(call.was_reset && call.reset.unprocessed && call.closed);
    assert_true(call.reset.unsent);
    call_free(&call);
    (void)close(fd);
    peers_free(&p);
}

/* ---- draining ---- */

static void server_drains_without_losing_a_call(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call open;
    struct call late;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &open, "/echo", NULL, 0, false)));
    peers_wait(&p, &open.headers);
    h2_conn_drain(p.server);
    h2_conn_drain(p.server);
    peers_wait(&p, &c.draining);
    assert_int_equal(h2_conn_room(c.conn), 0);
    assert_int_equal(call_start(&c, &late, "/unary", NULL, 0, true).code, E_CLOSED);
    assert_true(err_ok(h2_stream_send(open.stream, SLICE_LIT("still"), true)));
    peers_wait(&p, &open.closed);
    assert_int_equal(open.grpc_status, 0);
    peers_wait(&p, &c.closed);
    assert_true(err_ok(c.why));
    while (p.server_closed == 0) {
        peers_run(&p, 1);
    }
    assert_true(err_ok(p.server_why));
    assert_int_equal(h2_env_counters(p.env)->goaways_received, 2);
    call_free(&open);
    peers_free(&p);
}

static void idle_connections_drain_too(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, true)));
    peers_wait(&p, &call.closed);
    h2_conn_drain(p.server);
    peers_wait(&p, &c.closed);
    assert_true(err_ok(c.why));
    call_free(&call);
    peers_free(&p);
}

static void stale_connection_is_found_by_a_probe(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, true)));
    peers_wait(&p, &call.closed);
    unsigned rooms = c.rooms;
    h2_conn_probe(c.conn, PEERS_WAIT_MS);
    assert_int_equal(h2_conn_room(c.conn), 0);
    while (c.rooms == rooms) {
        peers_run(&p, 1);
    }
    assert_int_not_equal(h2_conn_room(c.conn), 0);
    struct call open;
    assert_true(err_ok(call_start(&c, &open, "/hang", NULL, 0, true)));
    net_conn_pause(h2_conn_net(p.server)); /* it answers no more. */
    h2_conn_probe(c.conn, 20);
    peers_wait(&p, &c.closed);
    assert_true(open.was_reset && open.closed);
    assert_int_equal(open.reset.code, H2_CANCEL);
    call_free(&open);
    assert_int_equal(c.why.code, E_TIMEOUT);
    assert_int_equal(h2_env_counters(p.env)->pings_unanswered, 1);
    call_free(&call);
    peers_free(&p);
}

/* ---- bounds ---- */

static void header_sections_are_bounded_by_fields(void **state)
{
    (void)state;
    static struct h2_field extra[1100];
    for (size_t i = 0; i < 1100; i++) {
        extra[i] = h2_field_named(SLICE_LIT("cookie"), SLICE_LIT("a=b"));
    }
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    size_t most = limits.request_header_fields - 6;
    assert_true(err_ok(call_start(&c, &call, "/unary", extra, most, true)));
    peers_wait(&p, &call.closed);
    assert_int_equal(call.grpc_status, 0);
    call_free(&call);
    assert_true(err_ok(call_start(&c, &call, "/unary", extra, most + 1, true)));
    peers_wait(&p, &call.closed);
    assert_true(call.trailers_only);
    assert_int_equal(call.grpc_status, GRPC_RESOURCE_EXHAUSTED);
    assert_string_equal(call.code, "HEADERS_TOO_LARGE");
    call_free(&call);
    assert_int_equal(p.requests, 1);
    assert_int_equal(h2_env_counters(p.env)->headers_too_large, 1);
    assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, true)));
    peers_wait(&p, &call.closed); /* the connection lives. */
    assert_int_equal(call.grpc_status, 0);
    call_free(&call);
    peers_free(&p);
}

static void header_sections_are_bounded_by_bytes(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    struct h2_field large = h2_field_named(SLICE_LIT("x-large"), zeros(0));
    char *text = malloc(limits.request_header_bytes);
    assert_non_null(text);
    memset(text, 'a', limits.request_header_bytes);
    large.value = slice_of(text, limits.request_header_bytes - 600);
    assert_true(err_ok(call_start(&c, &call, "/unary", &large, 1, true)));
    peers_wait(&p, &call.closed);
    assert_int_equal(call.grpc_status, 0);
    call_free(&call);
    large.value = slice_of(text, limits.request_header_bytes);
    h2_conn_set_header_bytes(c.conn, UINT32_MAX); /* what the server said is passed over. */
    assert_true(err_ok(call_start(&c, &call, "/unary", &large, 1, true)));
    peers_wait(&p, &call.closed);
    assert_int_equal(call.grpc_status, GRPC_RESOURCE_EXHAUSTED);
    call_free(&call);
    free(text);
    peers_free(&p);
}

/* Sections of many frames, there and back, for who allows them. */
static void large_sections_pass_both_ways(void **state)
{
    (void)state;
    enum { LARGE = 600 << 10 };
    uint64_t before = limits.request_header_bytes;
    limits.request_header_bytes = 1 << 20;
    const size_t sizes[] = {100, H2_FRAME_BYTES - 200, H2_FRAME_BYTES, 40000, LARGE};
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    char *text = malloc(LARGE);
    assert_non_null(text);
    memset(text, 'a', LARGE);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct h2_field field = h2_field_named(SLICE_LIT("x-large"), slice_of(text, sizes[i]));
        assert_true(err_ok(call_start(&c, &call, "/mirror", &field, 1, true)));
        peers_wait(&p, &call.closed);
        assert_int_equal(call.last_field, sizes[i]);
        assert_true(call.trailers && !call.was_reset);
        call_free(&call);
    }
    assert_int_equal(p.accepted, 1);
    free(text);
    peers_free(&p);
    limits.request_header_bytes = before;
}

/* Whether its request is whole, or goes on. */
static void an_answer_over_the_bounds_is_a_reset(void **state)
{
    (void)state;
    static const char *const paths[] = {"/large", "/large-head"};
    for (size_t i = 0; i < 4; i++) {
        bool whole = i % 2 == 0;
        struct peers p;
        struct client c;
        struct call call;
        peers_init(&p);
        client_open(&p, &c);
        assert_true(err_ok(call_start(&c, &call, paths[i / 2], NULL, 0, whole)));
        peers_wait(&p, &call.closed);
        assert_true(call.was_reset && call.reset.too_large);
        assert_false(call.headers || call.ended || call.reset.unprocessed);
        call_free(&call);
        assert_true(err_ok(call_start(&c, &call, "/unary", NULL, 0, true)));
        peers_wait(&p, &call.closed); /* the connection lives. */
        assert_int_equal(call.grpc_status, 0);
        call_free(&call);
        peers_free(&p);
    }
}

static void sender_is_bounded_by_its_queue(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/sink", NULL, 0, false)));
    size_t taken = 0;
    for (int i = 0; i < 200; i++) {
        while (err_ok(h2_stream_send(call.stream, zeros(1000), false))) {
            taken += 1000;
        }
        peers_run(&p, 1);
    }
    /* One window at the server, one queue here; then it stands. */
    assert_true(taken <= limits.stream_window_bytes + limits.stream_buffer_bytes);
    assert_true(taken > limits.stream_buffer_bytes);
    assert_true(p.server_bytes <= limits.stream_window_bytes); /* it does not grow for nobody. */
    assert_true(h2_env_memory(p.env) < 3 << 20);
    /* Another stream of the connection is not held up. */
    struct call other;
    assert_true(err_ok(call_start(&c, &other, "/unary", NULL, 0, true)));
    peers_wait(&p, &other.closed);
    assert_int_equal(other.grpc_status, 0);
    h2_stream_reset(call.stream, H2_CANCEL);
    peers_wait(&p, &call.closed);
    call_free(&call);
    call_free(&other);
    peers_free(&p);
}

static const struct h2_queue *shared(struct peers *p, struct h2_queue *q, size_t size)
{
    h2_queue_init(q, p->env);
    for (size_t left = size; left > 0;) {
        uint8_t piece[5003];
        size_t has = left < sizeof(piece) ? left : sizeof(piece);
        for (size_t i = 0; i < has; i++) {
            piece[i] = (uint8_t)((size - left + i) * 31 >> 3);
        }
        assert_true(h2_queue_add(q, slice_of(piece, has)));
        left -= has;
    }
    return q;
}

/* What several calls send by reference keeps to each one's window, and to the order. */
static void shared_bytes_wait_for_windows(void **state)
{
    (void)state;
    enum { ALL = 700000, SKIP = 12345 };
    struct peers p;
    struct client c;
    struct call calls[3];
    struct h2_queue q;
    peers_init(&p);
    client_open(&p, &c);
    (void)shared(&p, &q, ALL);
    for (size_t i = 0; i < 3; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/echo", NULL, 0, false)));
        assert_true(err_ok(h2_stream_send(calls[i].stream, SLICE_LIT("first"), false)));
        assert_true(err_ok(h2_stream_send_shared(calls[i].stream, &q, i * SKIP, false)));
        assert_int_equal(h2_stream_send_shared(calls[i].stream, &q, 0, false).code, E_QUEUE_FULL);
        assert_true(err_ok(h2_stream_send_shared(calls[i].stream, &q, ALL, true))); /* the end. */
    }
    h2_queue_clear(&q);
    for (size_t i = 0; i < 3; i++) {
        peers_wait(&p, &calls[i].closed);
        assert_int_equal(calls[i].body.size, 5 + ALL - i * SKIP);
        for (size_t k = i * SKIP; k < ALL; k++) {
            if (calls[i].body.ptr[5 + k - i * SKIP] != (uint8_t)(k * 31 >> 3)) {
                fail_msg("call %zu: byte %zu differs", i, k);
            }
        }
        call_free(&calls[i]);
    }
    peers_free(&p);
}

/* Peers that are full: the end of a message waits for room, too, and then comes. */
static void an_end_waits_for_room(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call calls[3];
    peers_init(&p);
    client_open(&p, &c);
    for (size_t i = 0; i < 3; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/echo", NULL, 0, false)));
        peers_wait(&p, &calls[i].headers);
    }
    struct net_conn *net = h2_conn_net(c.conn);
    net_conn_set_output_max(net, 1000); /* no room for a frame. */
    assert_true(err_ok(h2_stream_send(calls[0].stream, (struct slice){NULL, 0}, true)));
    assert_true(err_ok(h2_stream_send(calls[1].stream, zeros(3), false)));
    assert_true(err_ok(h2_stream_send(calls[2].stream, zeros(3), true)));
    assert_int_equal(h2_stream_send(calls[0].stream, zeros(3), true).code, E_CLOSED);
    assert_true(h2_stream_sent_end(calls[0].stream));
    net_conn_set_output_max(net, limits.output_buffer_bytes);
    peers_wait(&p, &calls[0].closed);
    peers_wait(&p, &calls[2].closed);
    assert_int_equal(calls[0].grpc_status, 0);
    assert_int_equal(calls[0].body.size, 0);
    assert_int_equal(calls[2].body.size, 3);
    h2_stream_reset(calls[1].stream, H2_CANCEL);
    peers_wait(&p, &calls[1].closed);
    for (size_t i = 0; i < 3; i++) {
        call_free(&calls[i]);
    }
    peers_free(&p);
}

/* The least output is drained at its half: then a frame has to fit, or the wait is for ever. */
static void a_frame_fits_when_the_output_has_drained(void **state)
{
    (void)state;
    enum { LEAST = 64 << 10 }; /* of limits.output_buffer_bytes. */
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    uint16_t port = 0;
    int fd = test_deaf_port(&port); /* what is written stays. */
    struct net_addr listening = p.addr;
    net_addr_set_port(&p.addr, port);
    client_open(&p, &c);
    p.addr = listening;
    assert_true(err_ok(call_start(&c, &call, "/sink", NULL, 0, false)));
    struct net_conn *net = h2_conn_net(c.conn);
    net_conn_set_output_max(net, LEAST);
    assert_true(err_ok(net_conn_write(net, zeros(LEAST / 2 - net_conn_output(net)))));
    assert_true(err_ok(h2_stream_send(call.stream, zeros(1000), false)));
    assert_int_equal(h2_stream_queued(call.stream), 1000);
    peers_wait(&p, &c.closed);
    assert_int_equal(call.sent, 1000);
    call_free(&call);
    (void)close(fd);
    peers_free(&p);
}

/* Though all of it left at once: who sends as much as there is room for may have more. */
static void who_fills_the_queue_hears_when_there_is_room(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/echo", NULL, 0, false)));
    peers_run(&p, 10); /* the server's windows are known. */
    for (int i = 0; i < 3; i++) {
        size_t room = (size_t)limits.stream_buffer_bytes - h2_stream_queued(call.stream);
        call.writable = false;
        assert_true(err_ok(h2_stream_send(call.stream, zeros(room), false)));
        peers_wait(&p, &call.writable);
    }
    h2_stream_reset(call.stream, H2_CANCEL);
    peers_wait(&p, &call.closed);
    call_free(&call);
    peers_free(&p);
}

/* A stream of many bytes is given more of them at a time, up to a bound, and others are not. */
static void windows_grow_with_use(void **state)
{
    (void)state;
    struct h2_window w;
    h2_window_init(&w, 100);
    assert_true(h2_window_take(&w, 100));
    assert_false(h2_window_take(&w, 1));
    assert_int_equal(h2_window_consume(&w, 49, 350), 0);
    assert_int_equal(h2_window_consume(&w, 1, 350), 50);
    assert_int_equal(w.size, 100); /* not all of it was used yet. */
    assert_int_equal(h2_window_consume(&w, 50, 350), 150);
    assert_int_equal(w.size, 200);
    assert_int_equal(w.left, 200);
    assert_true(h2_window_take(&w, 200));
    assert_int_equal(h2_window_consume(&w, 200, 350), 350);
    assert_int_equal(w.size, 350); /* the bound. */
    assert_true(h2_window_take(&w, 350));
    assert_int_equal(h2_window_consume(&w, 350, 350), 350);
    assert_int_equal(w.size, 350);
}

static void windows_of_a_connection_grow_with_use(void **state)
{
    (void)state;
    enum { TOTAL = 6 << 20 };
    struct peers p;
    struct client c;
    struct call call;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &call, "/echo", NULL, 0, false)));
    peers_run(&p, 5);
    struct h2_stream *s = call.stream;
    assert_int_equal(s->window.size, limits.stream_window_bytes);
    int32_t conn_size = c.conn->window.size;
    size_t given = 0;
    while (given < TOTAL) {
        if (err_ok(h2_stream_send(s, zeros(10000), false))) {
            given += 10000;
        } else {
            call.writable = false;
            peers_wait(&p, &call.writable);
        }
    }
    while (call.body.size < given) {
        peers_run(&p, 1);
    }
    assert_int_equal(s->window.size, limits.stream_window_max_bytes);
    assert_true(c.conn->window.size > conn_size);
    assert_true(c.conn->window.size <= (int32_t)limits.connection_window_max_bytes);
    assert_int_equal(s->window.left + (int32_t)s->window.owed, s->window.size);
    assert_int_equal(s->held, 0);
    /* The peer's books say the same: it was given what we think it has. */
    peers_run(&p, 5);
    assert_int_equal(p.server->send_window, c.conn->window.left);
    h2_stream_reset(s, H2_CANCEL);
    peers_wait(&p, &call.closed);
    call_free(&call);
    peers_free(&p);
}

static void reader_that_never_reads_bounds_the_answer(void **state)
{
    (void)state;
    enum { CALLS = 40 };
    struct peers p;
    struct client c;
    static struct call calls[CALLS];
    peers_init(&p);
    client_open(&p, &c);
    uint64_t before = limits.stream_buffer_bytes;
    limits.stream_buffer_bytes = 16 << 10;
    for (size_t i = 0; i < CALLS; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/many", NULL, 0, true)));
        calls[i].hold = true;
    }
    peers_run(&p, 200);
    net_conn_pause(h2_conn_net(c.conn));
    peers_run(&p, 100);
    assert_true(h2_env_memory(p.env) < 4 << 20);
    net_conn_resume(h2_conn_net(c.conn));
    for (size_t i = 0; i < CALLS; i++) {
        peers_wait(&p, &calls[i].closed); /* each fits into its window. */
        assert_int_equal(calls[i].body.size, PEERS_MANY * 1005);
        call_free(&calls[i]);
    }
    limits.stream_buffer_bytes = before;
    peers_free(&p);
}

static void client_obeys_the_number_of_streams(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    static struct call calls[8];
    uint64_t before = limits.streams_per_connection;
    limits.streams_per_connection = 4;
    peers_init(&p);
    client_open(&p, &c);
    assert_true(err_ok(call_start(&c, &calls[0], "/hang", NULL, 0, true)));
    while (h2_conn_room(c.conn) > 3) {
        peers_run(&p, 1);
    }
    assert_int_equal(h2_conn_room(c.conn), 3);
    for (size_t i = 1; i < 4; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/hang", NULL, 0, true)));
    }
    assert_int_equal(call_start(&c, &calls[4], "/hang", NULL, 0, true).code, E_OVERLOADED);
    peers_run(&p, 20);
    assert_int_equal(p.requests, 4);
    h2_conn_close(c.conn, H2_NO_ERROR, OK);
    peers_wait(&p, &c.closed);
    for (size_t i = 0; i < 4; i++) {
        assert_true(calls[i].closed && calls[i].was_reset);
        call_free(&calls[i]);
    }
    peers_free(&p);
    limits.streams_per_connection = before;
}

static void early_flood_of_streams_is_refused_not_fatal(void **state)
{
    (void)state;
    struct peers p;
    struct client c;
    static struct call calls[20];
    uint64_t before = limits.streams_per_connection;
    limits.streams_per_connection = 4;
    peers_init(&p);
    client_open(&p, &c); /* it knows no SETTINGS yet, and allows itself 100. */
    for (size_t i = 0; i < 20; i++) {
        assert_true(err_ok(call_start(&c, &calls[i], "/unary", NULL, 0, false)));
    }
    for (size_t i = 4; i < 20; i++) {
        peers_wait(&p, &calls[i].closed);
        assert_true(calls[i].was_reset && calls[i].reset.unprocessed);
        assert_false(calls[i].reset.unsent); /* the peer's library saw it. */
        assert_int_equal(calls[i].reset.code, H2_REFUSED_STREAM);
        call_free(&calls[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_true(err_ok(h2_stream_send(calls[i].stream, zeros(3), true)));
        peers_wait(&p, &calls[i].closed);
        assert_int_equal(calls[i].grpc_status, 0);
        call_free(&calls[i]);
    }
    assert_int_equal(h2_env_counters(p.env)->streams_refused, 16);
    peers_free(&p);
    limits.streams_per_connection = before;
}

/* ---- streams by their number ---- */

enum { FOUND = 256 };

static struct h2_stream *stream_of(struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->id = (int32_t)id;
    assert_true(h2_streams_add(c, s));
    return s;
}

static void streams_are_found_by_their_number(void **state)
{
    (void)state;
    struct peers p;
    peers_init(&p);
    static struct h2_conn c;
    c = (struct h2_conn){.env = p.env, .by_id.key = p.env->streams_key};
    struct h2_stream *at[FOUND] = {0};
    unsigned seed = 7;
    assert_null(h2_streams_find(&c.by_id, 1));
    for (uint32_t step = 0; step < 20000; step++) { /* some stay long, and some a step. */
        seed = seed * 1103515245 + 12345;
        size_t i = (seed >> 16) % FOUND;
        if (at[i] != NULL) {
            h2_streams_remove(&c.by_id, (uint32_t)at[i]->id);
            assert_null(h2_streams_find(&c.by_id, (uint32_t)at[i]->id));
            free(at[i]);
            at[i] = NULL;
        } else {
            at[i] = stream_of(&c, 2 * step + 1);
        }
        if (step % 100 == 0) {
            for (size_t k = 0; k < FOUND; k++) {
                if (at[k] != NULL) {
                    assert_ptr_equal(h2_streams_find(&c.by_id, (uint32_t)at[k]->id), at[k]);
                }
            }
            assert_null(h2_streams_find(&c.by_id, 2 * step + 3));
        }
    }
    for (size_t i = 0; i < FOUND; i++) {
        if (at[i] != NULL) {
            at[i]->over = true; /* it is not found any more, and still in its place. */
            assert_null(h2_streams_find(&c.by_id, (uint32_t)at[i]->id));
            h2_streams_remove(&c.by_id, (uint32_t)at[i]->id);
            free(at[i]);
        }
    }
    assert_int_equal(c.by_id.count, 0);
    h2_mem_free(&p.env->mem, c.by_id.at);
    peers_free(&p);
}

/* Streams whose numbers are so far from each other that they would all begin at one place. */
static void far_numbers_do_not_crowd(void **state)
{
    (void)state;
    struct peers p;
    peers_init(&p);
    for (uint32_t far = 2; far <= 1 << 20; far *= 2) {
        static struct h2_conn c;
        struct h2_stream *at[FOUND];
        c = (struct h2_conn){.env = p.env, .by_id.key = UINT32_C(0x9e3779b1)};
        for (uint32_t i = 0; i < FOUND; i++) {
            at[i] = stream_of(&c, i * far + 1);
        }
        unsigned row = 0;
        for (uint32_t i = 0; i < c.by_id.capacity; i++) {
            row = c.by_id.at[i] == NULL ? 0 : row + 1;
            assert_true(row < 64);
        }
        for (uint32_t i = 0; i < FOUND; i++) {
            assert_ptr_equal(h2_streams_find(&c.by_id, i * far + 1), at[i]);
            h2_streams_remove(&c.by_id, i * far + 1);
            free(at[i]);
        }
        h2_mem_free(&p.env->mem, c.by_id.at);
    }
    peers_free(&p);
}

static void preface_is_told_from_http1(void **state)
{
    (void)state;
    assert_true(h2_preface_matches(SLICE_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore")));
    assert_true(h2_preface_matches(SLICE_LIT("PRI")));
    assert_true(h2_preface_matches(SLICE_LIT("P")));
    assert_false(h2_preface_matches(SLICE_LIT("POST / HTTP/1.1")));
    assert_false(h2_preface_matches(SLICE_LIT("PRI * HTTP/1.1")));
    assert_false(h2_preface_matches(SLICE_LIT("GET")));
}

static void tokens_find_their_names(void **state)
{
    (void)state;
    for (int t = 1; t < H2_TOKEN_COUNT; t++) {
        assert_int_equal(h2_token_find(h2_token_name((enum h2_token)t)), t);
    }
    assert_int_equal(h2_token_find(SLICE_LIT("")), H2_TOKEN_OTHER);
    assert_int_equal(h2_token_find(SLICE_LIT("x")), H2_TOKEN_OTHER);
    assert_int_equal(h2_token_find(SLICE_LIT("tf")), H2_TOKEN_OTHER);
    assert_int_equal(h2_token_find(SLICE_LIT("a-name-that-is-longer-than-any-token-is")),
                     H2_TOKEN_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unary_answers_with_body_and_trailers),
        cmocka_unit_test(many_calls_share_a_connection_and_leave_no_memory),
        cmocka_unit_test(server_streams_through_its_bounded_queue),
        cmocka_unit_test(bidi_echoes_before_the_request_ends),
        cmocka_unit_test(bulk_comes_back_unchanged),
        cmocka_unit_test(refusal_is_trailers_only_with_its_details),
        cmocka_unit_test(early_answer_is_whole_and_stops_the_request),
        cmocka_unit_test(reset_by_the_client_reaches_the_server),
        cmocka_unit_test(lost_connection_ends_its_streams_once),
        cmocka_unit_test(a_connection_that_breaks_says_why),
        cmocka_unit_test(the_last_number_of_a_stream_ends_the_connection),
        cmocka_unit_test(refused_dial_leaves_requests_unprocessed),
        cmocka_unit_test(server_drains_without_losing_a_call),
        cmocka_unit_test(idle_connections_drain_too),
        cmocka_unit_test(stale_connection_is_found_by_a_probe),
        cmocka_unit_test(header_sections_are_bounded_by_fields),
        cmocka_unit_test(header_sections_are_bounded_by_bytes),
        cmocka_unit_test(large_sections_pass_both_ways),
        cmocka_unit_test(an_answer_over_the_bounds_is_a_reset),
        cmocka_unit_test(sender_is_bounded_by_its_queue),
        cmocka_unit_test(a_frame_fits_when_the_output_has_drained),
        cmocka_unit_test(who_fills_the_queue_hears_when_there_is_room),
        cmocka_unit_test(windows_grow_with_use),
        cmocka_unit_test(shared_bytes_wait_for_windows),
        cmocka_unit_test(an_end_waits_for_room),
        cmocka_unit_test(windows_of_a_connection_grow_with_use),
        cmocka_unit_test(reader_that_never_reads_bounds_the_answer),
        cmocka_unit_test(client_obeys_the_number_of_streams),
        cmocka_unit_test(early_flood_of_streams_is_refused_not_fatal),
        cmocka_unit_test(streams_are_found_by_their_number),
        cmocka_unit_test(far_numbers_do_not_crowd),
        cmocka_unit_test(preface_is_told_from_http1),
        cmocka_unit_test(tokens_find_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
