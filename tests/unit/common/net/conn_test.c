/* Proves: bytes come through whole under every size and back-pressure, one write leaves a turn,
 * and each way to end (close, abort, half-close, refusal, time-out) is told once. */
#include "common/net/conn.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/flood.h"
#include "common/net/listener.h"

#include "tests/support/cmocka.h"
#include "tests/support/ports.h"

enum { WAIT_MS = 10000 };

/* One side of a connection, and what its handler saw. */
struct side {
    struct net_conn *conn;
    struct net_loop *loop;
    bool opened;
    bool eof;
    bool closed;
    bool got; /* 'wanted' bytes came. */
    struct err why;
    size_t bytes;
    size_t wanted;
    unsigned reads;
    unsigned drains;
    uint64_t sum; /* of the bytes, each multiplied by its place. */
    void (*on_read)(struct side *s, struct slice bytes);
    void (*on_drained)(struct side *s);
    void (*on_opened)(struct side *s);
    bool close_on_eof;
    size_t sent;
    bool drained_once;
};

static void side_opened(struct net_conn *conn, void *ctx)
{
    struct side *s = ctx;
    (void)conn;
    s->opened = true;
    if (s->on_opened != NULL) {
        s->on_opened(s);
    }
}

static void side_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct side *s = ctx;
    (void)conn;
    s->reads++;
    for (size_t i = 0; i < bytes.size; i++) {
        s->sum += (s->bytes + i + 1) * bytes.ptr[i];
    }
    s->bytes += bytes.size;
    s->got = s->bytes >= s->wanted;
    if (s->on_read != NULL) {
        s->on_read(s, bytes);
    }
}

static void side_eof(struct net_conn *conn, void *ctx)
{
    struct side *s = ctx;
    s->eof = true;
    if (s->close_on_eof) {
        net_conn_close(conn);
    }
}

static void side_drained(struct net_conn *conn, void *ctx)
{
    struct side *s = ctx;
    (void)conn;
    s->drains++;
    s->drained_once = true;
    if (s->on_drained != NULL) {
        s->on_drained(s);
    }
}

static void side_closed(struct net_conn *conn, void *ctx, struct err why)
{
    struct side *s = ctx;
    assert_false(s->closed);
    assert_ptr_equal(s->conn, conn);
    s->closed = true;
    s->why = why;
    s->conn = NULL;
}

static const struct net_conn_handler side_handler = {
    .opened = side_opened,
    .readable = side_readable,
    .eof = side_eof,
    .drained = side_drained,
    .closed = side_closed,
};

/* Two sides of one loop, over a real TCP connection of the loopback. */
struct pair {
    struct net_loop *loop;
    struct net_listener *listener;
    int fd;
    struct net_addr addr;
    struct side server;
    struct side client;
};

static void on_accepted(struct net_conn *conn, void *ctx)
{
    struct pair *p = ctx;
    p->server.conn = conn;
    net_conn_set_handler(conn, &side_handler, &p->server);
}

static void pair_init(struct pair *p)
{
    *p = (struct pair){.fd = -1};
    assert_int_equal(net_loop_new(&p->loop).code, E_OK);
    assert_int_equal(net_listen(slice_str("127.0.0.1:0"), &p->fd, &p->addr).code, E_OK);
    struct net_listener_options o = {.fd = p->fd, .accepted = on_accepted, .ctx = p};
    assert_int_equal(net_listener_new(p->loop, &o, &p->listener).code, E_OK);
    p->server.loop = p->loop;
    p->client.loop = p->loop;
}

static void pair_dial(struct pair *p)
{
    struct net_dial_options o = {
        .addr = &p->addr, .handler = &side_handler, .ctx = &p->client, .timeout_ms = WAIT_MS};
    assert_int_equal(net_dial(p->loop, &o, &p->client.conn).code, E_OK);
}

static void pair_open(struct pair *p)
{
    pair_init(p);
    pair_dial(p);
    assert_true(net_loop_run_until(p->loop, &p->client.opened, WAIT_MS));
    assert_true(net_loop_run_until(p->loop, &p->server.opened, WAIT_MS));
}

static void pair_free(struct pair *p)
{
    net_listener_free(p->listener);
    net_loop_free(p->loop);
    assert_int_equal(close(p->fd), 0);
    assert_true(p->client.conn == NULL && p->server.conn == NULL);
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void fill(uint8_t *bytes, size_t size, size_t from)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = pattern(from + i);
    }
}

static uint64_t pattern_sum(size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum += (i + 1) * pattern(i);
    }
    return sum;
}

static void sizes_around_a_chunk_come_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,
                                   1,
                                   NET_CHUNK_BYTES - 1,
                                   NET_CHUNK_BYTES,
                                   NET_CHUNK_BYTES + 1,
                                   3 * NET_CHUNK_BYTES + 7,
                                   NET_READ_BYTES,
                                   NET_READ_BYTES + 1,
                                   700001};
    static uint8_t bytes[700001];
    struct pair p;
    pair_open(&p);
    size_t total = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fill(bytes, sizes[i], total);
        total += sizes[i];
        p.server.wanted = total;
        p.server.got = p.server.bytes >= total;
        assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, sizes[i])).code, E_OK);
        assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    }
    assert_int_equal(p.server.bytes, total);
    assert_true(p.server.sum == pattern_sum(total));
    assert_int_equal(net_conn_output(p.client.conn), 0);
    pair_free(&p);
}

static void many_writes_leave_in_one_call(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    uint64_t before = net_conn_stats(p.client.conn)->writes;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("0123456789")).code, E_OK);
        uint8_t *place = NULL;
        assert_int_equal(net_conn_reserve(p.client.conn, 16, &place).code, E_OK);
        memcpy(place, "ab", 2);
        net_conn_commit(p.client.conn, 2);
    }
    assert_int_equal(net_conn_output(p.client.conn), 1200);
    p.server.wanted = 1200;
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_int_equal(net_conn_stats(p.client.conn)->writes - before, 1);
    assert_int_equal(p.server.reads, 1);
    net_conn_flush(p.client.conn);
    assert_int_equal(net_conn_stats(p.client.conn)->writes - before, 1);
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("now")).code, E_OK);
    net_conn_flush(p.client.conn);
    assert_int_equal(net_conn_stats(p.client.conn)->writes - before, 2);
    pair_free(&p);
}

static void output_is_bounded_and_drains(void **state)
{
    (void)state;
    static uint8_t bytes[100000];
    struct pair p;
    pair_open(&p);
    net_conn_set_output_max(p.client.conn, sizeof(bytes));
    net_conn_pause(p.server.conn);
    size_t taken = 0;
    struct err e = OK;
    /* Fills the kernel's buffers, too: ends when the peer, who is paused, lets no more in. */
    while (err_ok(e)) {
        fill(bytes, 50000, taken);
        e = net_conn_write(p.client.conn, slice_of(bytes, 50000));
        taken += err_ok(e) ? 50000 : 0;
        net_conn_flush(p.client.conn);
    }
    assert_int_equal(e.code, E_TOO_LARGE);
    assert_true(net_conn_room(p.client.conn) < 50000);
    assert_true(net_conn_output(p.client.conn) <= sizeof(bytes));
    assert_int_equal(p.client.drains, 0);
    assert_int_equal(p.server.bytes, 0);
    net_conn_resume(p.server.conn);
    assert_true(net_loop_run_until(p.loop, &p.client.drained_once, WAIT_MS));
    p.server.wanted = taken;
    p.server.got = p.server.bytes >= taken;
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_true(p.server.sum == pattern_sum(taken));
    assert_int_equal(p.client.drains, 1);
    pair_free(&p);
}

static void bounds_are_exact(void **state)
{
    (void)state;
    static uint8_t bytes[1001];
    struct pair p;
    pair_open(&p);
    net_conn_set_output_max(p.client.conn, 1000);
    assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, 1001)).code, E_TOO_LARGE);
    assert_int_equal(net_conn_output(p.client.conn), 0);
    assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, 1000)).code, E_OK);
    uint8_t *place = NULL;
    assert_int_equal(net_conn_reserve(p.client.conn, 1, &place).code, E_TOO_LARGE);
    assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, 0)).code, E_OK);
    pair_free(&p);
}

static void drained_may_go_on_writing(struct side *s)
{
    static uint8_t bytes[60000];
    while (s->sent < s->wanted) {
        size_t size = s->wanted - s->sent;
        size = size < sizeof(bytes) ? size : sizeof(bytes);
        fill(bytes, size, s->sent);
        if (!err_ok(net_conn_write(s->conn, slice_of(bytes, size)))) {
            return;
        }
        s->sent += size;
    }
}

static void a_long_stream_flows_by_drained(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.client.wanted = 8 << 20;
    p.server.wanted = 8 << 20;
    p.client.on_drained = drained_may_go_on_writing;
    drained_may_go_on_writing(&p.client);
    assert_true(p.client.sent < p.client.wanted);
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_true(p.server.sum == pattern_sum(8 << 20));
    pair_free(&p);
}

static void pause_in_a_read(struct side *s, struct slice bytes)
{
    (void)bytes;
    net_conn_pause(s->conn);
}

static void nothing_comes_while_paused(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.server.on_read = pause_in_a_read;
    p.server.wanted = 3;
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("one")).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_true(net_conn_paused(p.server.conn));
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("two")).code, E_OK);
    net_conn_shutdown(p.client.conn);
    bool never = false;
    (void)net_loop_run_until(p.loop, &never, 30);
    assert_int_equal(p.server.bytes, 3);
    assert_false(p.server.eof);
    p.server.on_read = NULL;
    net_conn_resume(p.server.conn);
    assert_true(net_loop_run_until(p.loop, &p.server.eof, WAIT_MS));
    assert_int_equal(p.server.bytes, 6);
    pair_free(&p);
}

static void half_close_lets_the_other_way_go_on(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("question")).code, E_OK);
    net_conn_shutdown(p.client.conn);
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("x")).code, E_CLOSED);
    assert_true(net_loop_run_until(p.loop, &p.server.eof, WAIT_MS));
    assert_int_equal(p.server.bytes, 8);
    p.client.wanted = 6;
    assert_int_equal(net_conn_write(p.server.conn, SLICE_LIT("answer")).code, E_OK);
    net_conn_close(p.server.conn);
    assert_int_equal(net_conn_write(p.server.conn, SLICE_LIT("x")).code, E_CLOSED);
    assert_true(net_loop_run_until(p.loop, &p.client.eof, WAIT_MS));
    assert_int_equal(p.client.bytes, 6);
    assert_true(net_loop_run_until(p.loop, &p.server.closed, WAIT_MS));
    assert_int_equal(p.server.why.code, E_OK);
    net_conn_close(p.client.conn);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(p.client.why.code, E_OK);
    pair_free(&p);
}

static void close_in_a_read(struct side *s, struct slice bytes)
{
    (void)bytes;
    assert_int_equal(net_conn_write(s->conn, SLICE_LIT("bye")).code, E_OK);
    net_conn_close(s->conn);
    net_conn_close(s->conn);
    assert_false(s->closed);
}

static void close_flushes_and_lingers(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.server.on_read = close_in_a_read;
    p.client.close_on_eof = true;
    p.client.wanted = 3;
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("end it")).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.client.got, WAIT_MS));
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_true(p.server.closed);
    assert_int_equal(p.server.why.code, E_OK);
    while (net_loop_stats(p.loop)->connections_open > 0) { /* ends: each has heard the other's. */
        bool never = false;
        (void)net_loop_run_until(p.loop, &never, 1);
    }
    pair_free(&p);
}

static void abort_in_a_read(struct side *s, struct slice bytes)
{
    (void)bytes;
    net_conn_abort(s->conn, FAIL(E_POLICY_DENIED));
    assert_int_equal(net_conn_write(s->conn, SLICE_LIT("x")).code, E_CLOSED);
    assert_true(net_conn_closing(s->conn));
}

static void abort_resets_and_is_told_with_its_reason(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.server.on_read = abort_in_a_read;
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("x")).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.server.closed, WAIT_MS));
    assert_int_equal(p.server.why.code, E_POLICY_DENIED);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(p.client.why.code, E_CLOSED);
    assert_false(p.client.eof);
    pair_free(&p);
}

static void abort_self(struct side *s)
{
    net_conn_abort(s->conn, FAIL(E_OVERLOADED));
}

static void a_handler_may_refuse_in_opened(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p);
    p.server.on_opened = abort_self;
    pair_dial(&p);
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("early")).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.server.closed, WAIT_MS));
    assert_int_equal(p.server.why.code, E_OVERLOADED);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    pair_free(&p);
}

static void bytes_written_before_opened_leave(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p);
    pair_dial(&p);
    p.server.wanted = 5;
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("early")).code, E_OK);
    assert_false(p.client.opened);
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_true(p.client.opened);
    assert_true(net_addr_eq(net_conn_peer(p.client.conn), net_conn_local(p.server.conn)));
    assert_true(net_addr_eq(net_conn_peer(p.server.conn), net_conn_local(p.client.conn)));
    pair_free(&p);
}

static void refused_and_silent_peers_are_told(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p);
    uint16_t port = 0;
    int taken = test_deaf_port(&port);
    struct net_addr nobody = p.addr;
    net_addr_set_port(&nobody, port);
    struct net_dial_options o = {.addr = &nobody, .handler = &side_handler, .ctx = &p.client};
    assert_int_equal(net_dial(p.loop, &o, &p.client.conn).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(p.client.why.code, E_UNAVAILABLE);
    assert_false(p.client.opened);
    assert_int_equal(close(taken), 0);
    pair_free(&p);
}

static void count_release(void *ctx)
{
    (*(unsigned *)ctx)++;
}

static void lent_bytes_are_released_once(void **state)
{
    (void)state;
    static uint8_t bytes[300000];
    fill(bytes, sizeof(bytes), 0);
    unsigned released = 0;
    struct pair p;
    pair_open(&p);
    struct slice all = slice_of(bytes, sizeof(bytes));
    assert_int_equal(net_conn_write(p.client.conn, slice_head(all, 10)).code, E_OK);
    assert_int_equal(
        net_conn_write_ref(p.client.conn, slice_of(bytes + 10, 250000), count_release, &released)
            .code,
        E_OK);
    assert_int_equal(net_conn_write(p.client.conn, slice_from(all, 250010)).code, E_OK);
    p.server.wanted = sizeof(bytes);
    assert_true(net_loop_run_until(p.loop, &p.server.got, WAIT_MS));
    assert_true(p.server.sum == pattern_sum(sizeof(bytes)));
    assert_int_equal(released, 1);
    assert_int_equal(net_conn_write_ref(p.client.conn, all, count_release, &released).code, E_OK);
    net_conn_abort(p.client.conn, FAIL(E_CLOSED));
    assert_int_equal(net_conn_write_ref(p.client.conn, all, count_release, &released).code,
                     E_CLOSED);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(released, 2);
    pair_free(&p);
}

static void a_handler_that_is_taken_off_hears_nothing(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    net_conn_set_handler(p.server.conn, NULL, NULL);
    net_conn_close(p.server.conn);
    p.server.conn = NULL;
    p.client.close_on_eof = true;
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_false(p.server.closed);
    pair_free(&p);
}

static void a_socket_pair_works_too(void **state)
{
    (void)state;
    struct net_loop *loop = NULL;
    int fds[2];
    struct side s = {.wanted = 5};
    assert_int_equal(net_loop_new(&loop).code, E_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct net_conn_accept_options o = {.handler = &side_handler, .ctx = &s};
    assert_int_equal(net_conn_accept(loop, &fds[0], &o, &s.conn).code, E_OK);
    assert_int_equal(fds[0], -1);
    assert_int_equal(write(fds[1], "hello", 5), 5);
    assert_true(net_loop_run_until(loop, &s.got, WAIT_MS));
    assert_true(s.opened);
    assert_int_equal(close(fds[1]), 0);
    assert_true(net_loop_run_until(loop, &s.eof, WAIT_MS));
    net_loop_free(loop);
    assert_true(s.closed);
    assert_int_equal(s.why.code, E_CLOSED);
}

static void do_nothing(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
}

static void a_peer_that_never_reads_cannot_hold_a_close(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    struct pair p;
    pair_open(&p);
    net_conn_pause(p.server.conn);
    net_conn_set_output_max(p.client.conn, 64 << 20);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, sizeof(bytes))).code, E_OK);
    }
    net_conn_close(p.client.conn);
    bool never = false;
    (void)net_loop_run_until(p.loop, &never, 20);
    assert_false(p.client.closed);
    clock_shift_for_test(11LL * 1000000000, 0);
    struct net_task wake = {.fn = do_nothing};
    assert_int_equal(net_loop_post(p.loop, &wake).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(p.client.why.code, E_TIMEOUT);
    pair_free(&p);
    clock_shift_for_test(0, 0);
}

/* As long as it takes some it may take its time. */
static void a_peer_that_reads_nothing_is_given_up(void **state)
{
    (void)state;
    enum { MOST = 16 << 20 };
    static uint8_t bytes[1 << 20];
    struct pair p;
    struct net_task wake = {.fn = do_nothing};
    int64_t passed_ns = 0;
    pair_open(&p);
    net_conn_pause(p.server.conn);
    net_conn_set_output_max(p.client.conn, MOST);
    for (size_t i = 0; i < MOST / sizeof(bytes); i++) {
        assert_int_equal(net_conn_write(p.client.conn, slice_of(bytes, sizeof(bytes))).code, E_OK);
    }
    bool never = false;
    (void)net_loop_run_until(p.loop, &never, 20);
    for (int i = 0; i < 3; i++) { /* slow, and slower than the bound in all. */
        passed_ns += (int64_t)(limits.write_timeout_ms - 5000) * 1000000;
        clock_shift_for_test(passed_ns, 0);
        assert_int_equal(net_loop_post(p.loop, &wake).code, E_OK);
        size_t before = net_conn_output(p.client.conn);
        net_conn_resume(p.server.conn);
        while (net_conn_output(p.client.conn) == before) {
            net_loop_turn(p.loop);
        }
        net_conn_pause(p.server.conn);
        (void)net_loop_run_until(p.loop, &never, 20);
    }
    assert_false(p.client.closed);
    assert_true(net_conn_output(p.client.conn) > 0);
    assert_int_equal(net_flood_count(p.loop, NET_FLOOD_UNREAD), 0);
    passed_ns += (int64_t)(limits.write_timeout_ms + 100) * 1000000;
    clock_shift_for_test(passed_ns, 0);
    assert_int_equal(net_loop_post(p.loop, &wake).code, E_OK);
    assert_true(net_loop_run_until(p.loop, &p.client.closed, WAIT_MS));
    assert_int_equal(p.client.why.code, E_TIMEOUT);
    assert_int_equal(net_flood_count(p.loop, NET_FLOOD_UNREAD), 1);
    pair_free(&p);
    clock_shift_for_test(0, 0);
}

/* ---- the last words of a peer that is gone ---- */

struct last_words {
    struct net_task task;
    struct side side;
    int peer;
};

/* The peer speaks and is gone before this side, in the same turn, writes to it. */
static void speak_and_go(struct net_task *task, void *ctx)
{
    (void)task;
    struct last_words *w = ctx;
    assert_int_equal(send(w->peer, "goodbye", 7, MSG_NOSIGNAL), 7);
    struct linger at_once = {.l_onoff = 1};
    assert_int_equal(setsockopt(w->peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    (void)close(w->peer); /* by RST. */
    assert_int_equal(net_conn_write(w->side.conn, SLICE_LIT("too late")).code, E_OK);
}

static void what_a_peer_said_before_it_went_is_read(void **state)
{
    (void)state;
    struct last_words w = {.side = {.wanted = 7}};
    struct net_addr addr;
    int fd = -1;
    assert_int_equal(net_loop_new(&w.side.loop).code, E_OK);
    assert_int_equal(net_listen(slice_str("127.0.0.1:0"), &fd, &addr).code, E_OK);
    struct net_dial_options o = {
        .addr = &addr, .handler = &side_handler, .ctx = &w.side, .timeout_ms = WAIT_MS};
    assert_int_equal(net_dial(w.side.loop, &o, &w.side.conn).code, E_OK);
    assert_true(net_loop_run_until(w.side.loop, &w.side.opened, WAIT_MS));
    do {
        w.peer = accept(fd, NULL, NULL);
    } while (w.peer < 0);
    w.task = (struct net_task){.fn = speak_and_go, .ctx = &w};
    assert_int_equal(net_loop_post(w.side.loop, &w.task).code, E_OK);
    assert_true(net_loop_run_until(w.side.loop, &w.side.closed, WAIT_MS));
    assert_int_equal(w.side.bytes, 7);
    assert_int_equal(w.side.why.code, E_CLOSED);
    net_loop_free(w.side.loop);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_peer_said_before_it_went_is_read),
        cmocka_unit_test(sizes_around_a_chunk_come_whole),
        cmocka_unit_test(many_writes_leave_in_one_call),
        cmocka_unit_test(output_is_bounded_and_drains),
        cmocka_unit_test(bounds_are_exact),
        cmocka_unit_test(a_long_stream_flows_by_drained),
        cmocka_unit_test(nothing_comes_while_paused),
        cmocka_unit_test(half_close_lets_the_other_way_go_on),
        cmocka_unit_test(close_flushes_and_lingers),
        cmocka_unit_test(abort_resets_and_is_told_with_its_reason),
        cmocka_unit_test(a_handler_may_refuse_in_opened),
        cmocka_unit_test(bytes_written_before_opened_leave),
        cmocka_unit_test(refused_and_silent_peers_are_told),
        cmocka_unit_test(lent_bytes_are_released_once),
        cmocka_unit_test(a_handler_that_is_taken_off_hears_nothing),
        cmocka_unit_test(a_socket_pair_works_too),
        cmocka_unit_test(a_peer_that_never_reads_cannot_hold_a_close),
        cmocka_unit_test(a_peer_that_reads_nothing_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
