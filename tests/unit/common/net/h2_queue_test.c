/* Proves that what is queued leaves whole and in order, in frames that suit its chunks; that it is
 * lent and not copied when it is much; and that bytes which queues share outlive each of them. */
#include "common/net/h2_queue.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/net/conn.h"
#include "common/net/h2.h"
#include "common/net/loop.h"

#include "tests/support/cmocka.h"

enum { HEAD_BYTES = 9, FRAME_MAX = 16384, OUT_MAX = 1 << 20 };

/* What an env of its own lends to a queue, and a connection that it leaves on. */
struct world {
    struct net_loop *loop;
    struct h2_env *env;
    struct net_conn *conn;
    int far;        /* the other end of 'conn'. */
    struct buf out; /* what came there. */
};

static struct world w;

static int set_up(void **state)
{
    (void)state;
    int fds[2];
    const struct net_conn_accept_options options = {0};
    w = (struct world){.out = BUF_MAX(OUT_MAX)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_true(err_ok(net_loop_new(&w.loop)));
    assert_true(err_ok(h2_env_new(w.loop, &w.env)));
    assert_true(err_ok(net_conn_accept(w.loop, &fds[0], &options, &w.conn)));
    w.far = fds[1];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_free(&w.out);
    (void)close(w.far);
    net_loop_free(w.loop);
    h2_env_free(w.env);
    return 0;
}

/* Byte number n of what is sent. */
static uint8_t byte_at(size_t n)
{
    return (uint8_t)(n * 7 + n / 251);
}

static void add(struct h2_queue *q, size_t from, size_t size)
{
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = byte_at(from + i);
    }
    assert_true(h2_queue_add(q, slice_of(bytes, size)));
    free(bytes);
}

/* Moves all of it, frame by frame: their number. */
static size_t move_all(struct h2_queue *q, size_t max, size_t sizes[], size_t sizes_max)
{
    size_t count = 0;
    while (q->size > 0) {
        uint8_t head[HEAD_BYTES];
        size_t size = h2_queue_frame(q, max);
        assert_in_range(size, 1, max);
        memset(head, 0xf0, sizeof(head));
        assert_true(err_ok(h2_queue_move(q, w.conn, head, size)));
        assert_true(count < sizes_max);
        sizes[count++] = size;
    }
    assert_int_equal(h2_queue_frame(q, max), 0);
    return count;
}

/* Has the connection write, and reads so many bytes at the other end. */
static void receive(size_t size)
{
    buf_clear(&w.out);
    while (w.out.size < size) {
        uint8_t part[4096];
        net_loop_turn(w.loop);
        ssize_t got = recv(w.far, part, sizeof(part), MSG_DONTWAIT);
        if (got > 0) {
            assert_true(err_ok(buf_add(&w.out, slice_of(part, (size_t)got))));
        }
    }
    assert_int_equal(w.out.size, size);
}

/* Holds what came against the frames: each with its head, their bytes from number 'at' on. */
static void expect_frames(const size_t sizes[], size_t count, size_t at)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += HEAD_BYTES + sizes[i];
    }
    receive(total);
    const uint8_t *in = w.out.ptr;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < HEAD_BYTES; k++) {
            assert_int_equal(*in++, 0xf0);
        }
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(*in++, byte_at(at++));
        }
    }
}

static void bulk_leaves_in_large_pieces_that_are_lent(void **state)
{
    (void)state;
    struct h2_queue q;
    size_t sizes[8];
    h2_queue_init(&q, w.env);
    assert_int_equal(h2_queue_frame(&q, FRAME_MAX), 0);
    for (size_t at = 0; at < 60000; at += 12000) {
        add(&q, at, 12000);
    }
    assert_int_equal(q.size, 60000);
    size_t count = move_all(&q, FRAME_MAX, sizes, 8);
    /* Full chunks, but for the last: 60,000 bytes are three of them and a rest. */
    assert_int_equal(count, 4);
    assert_int_equal(sizes[0], sizes[1]);
    assert_int_equal(sizes[0], sizes[2]);
    assert_in_range(sizes[0], FRAME_MAX - 128, FRAME_MAX);
    /* The queue is empty, and its chunks are not free: the output has them. */
    assert_in_range(h2_env_memory(w.env), 60000, 70000);
    expect_frames(sizes, count, 0);
    assert_int_equal(h2_env_memory(w.env), 0);
}

static void small_pieces_leave_together(void **state)
{
    (void)state;
    struct h2_queue q;
    size_t sizes[8];
    h2_queue_init(&q, w.env);
    for (size_t at = 0; at < 1500; at += 100) {
        add(&q, at, 100);
    }
    assert_int_equal(h2_queue_frame(&q, 700), 700);
    size_t count = move_all(&q, FRAME_MAX, sizes, 8);
    assert_int_equal(count, 1);
    assert_int_equal(h2_env_memory(w.env), 0); /* they were copied. */
    expect_frames(sizes, count, 0);
    /* The next large piece is a frame of its own, whose start lies where it is lent. */
    add(&q, 0, 300);
    add(&q, 300, 10000);
    count = move_all(&q, FRAME_MAX, sizes, 8);
    assert_int_equal(count, 2);
    assert_in_range(sizes[0], 300, H2_QUEUE_LEND_BYTES);
    expect_frames(sizes, count, 0);
}

/* A window of the peer may end anywhere. */
static void frames_are_never_above_their_bound(void **state)
{
    (void)state;
    static const size_t bounds[] = {1, 100, H2_QUEUE_LEND_BYTES - 1, H2_QUEUE_LEND_BYTES, 5000};
    static size_t sizes[20100];
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        size_t total = 20000 < 200 * bounds[i] ? 20000 : 200 * bounds[i];
        struct h2_queue q;
        h2_queue_init(&q, w.env);
        add(&q, 0, total);
        size_t count = move_all(&q, bounds[i], sizes, 20100);
        expect_frames(sizes, count, 0);
    }
    assert_int_equal(h2_env_memory(w.env), 0);
}

static void shared_bytes_lie_in_memory_once(void **state)
{
    (void)state;
    struct h2_queue kept;
    struct h2_queue first;
    struct h2_queue second;
    size_t sizes[16];
    h2_queue_init(&kept, w.env);
    h2_queue_init(&first, w.env);
    h2_queue_init(&second, w.env);
    add(&kept, 0, 40000);
    size_t once = h2_env_memory(w.env);
    assert_true(h2_queue_share(&first, &kept, 0));
    assert_true(h2_queue_share(&second, &kept, 17000));
    assert_int_equal(first.size, 40000);
    assert_int_equal(second.size, 23000);
    assert_true(h2_env_memory(w.env) < once + 1000);
    /* What grows is sent as it comes; the others keep what they have. */
    add(&kept, 40000, 20000);
    assert_true(h2_queue_share(&first, &kept, 40000));
    assert_int_equal(first.size, 60000);
    h2_queue_clear(&kept);
    assert_int_equal(kept.size, 0);
    size_t count = move_all(&first, FRAME_MAX, sizes, 16);
    expect_frames(sizes, count, 0);
    /* No head of a frame of the first was written over the bytes of the second. */
    count = move_all(&second, FRAME_MAX, sizes, 16);
    expect_frames(sizes, count, 17000);
    assert_int_equal(h2_env_memory(w.env), 0);
}

static void own_bytes_go_behind_shared_ones(void **state)
{
    (void)state;
    struct h2_queue kept;
    struct h2_queue q;
    size_t sizes[8];
    h2_queue_init(&kept, w.env);
    h2_queue_init(&q, w.env);
    add(&kept, 0, 5000);
    assert_true(h2_queue_share(&q, &kept, 5000)); /* nothing. */
    assert_int_equal(q.size, 0);
    assert_true(h2_queue_share(&q, &kept, 0));
    add(&q, 5000, 3000);
    add(&kept, 0, 3000); /* where it would lie, were it the queue's own chunk. */
    struct h2_queue third;
    h2_queue_init(&third, w.env);
    assert_true(h2_queue_share(&third, &q, 1000)); /* of what is itself shared. */
    h2_queue_clear(&kept);
    size_t count = move_all(&q, FRAME_MAX, sizes, 8);
    expect_frames(sizes, count, 0);
    count = move_all(&third, FRAME_MAX, sizes, 8);
    expect_frames(sizes, count, 1000);
    assert_int_equal(h2_env_memory(w.env), 0);
}

static void a_queue_that_is_dropped_leaves_nothing(void **state)
{
    (void)state;
    struct h2_queue kept;
    struct h2_queue q;
    h2_queue_init(&kept, w.env);
    h2_queue_init(&q, w.env);
    add(&kept, 0, 30000);
    assert_true(h2_queue_share(&q, &kept, 1));
    add(&q, 0, 3000);
    h2_queue_clear(&q);
    h2_queue_clear(&q);
    h2_queue_clear(&kept);
    assert_int_equal(h2_env_memory(w.env), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bulk_leaves_in_large_pieces_that_are_lent, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(small_pieces_leave_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(frames_are_never_above_their_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shared_bytes_lie_in_memory_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(own_bytes_go_behind_shared_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_queue_that_is_dropped_leaves_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
