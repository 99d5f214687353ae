/* Proves: workers share a listening socket, hand sockets on to each other's loops, stop at drain
 * and get over a lack of descriptors; addresses are read strictly. */
#include "common/net/listener.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

enum { WAIT_MS = 10000, CONNECTIONS = 40 };

/* A worker that answers each connection with its own letter, and closes. */
struct worker {
    pthread_t thread;
    struct net_loop *loop;
    struct net_listener *listener;
    struct worker *other; /* takes every second socket. */
    char letter;
    unsigned accepted; /* on its loop. */
    unsigned seen;
    bool done; /* a connection was answered. */
};

struct handed {
    struct net_task task;
    struct worker *to;
    int fd;
};

static void on_opened(struct net_conn *conn, void *ctx)
{
    struct worker *w = ctx;
    w->accepted++;
    w->done = true;
    if (!err_ok(net_conn_write(conn, slice_of(&w->letter, 1)))) {
        abort();
    }
    net_conn_close(conn);
}

static const struct net_conn_handler handler = {.opened = on_opened};

static void on_accepted(struct net_conn *conn, void *ctx)
{
    net_conn_set_handler(conn, &handler, ctx);
}

static void on_handed(struct net_task *task, void *ctx)
{
    struct handed *h = ctx;
    (void)task;
    net_listener_adopt(h->to->listener, h->fd);
    free(h);
}

static bool pass_every_second(int fd, void *ctx)
{
    struct worker *w = ctx;
    if (w->seen++ % 2 == 0) {
        return false;
    }
    struct handed *h = malloc(sizeof(*h));
    *h = (struct handed){.task = {.fn = on_handed, .ctx = h}, .to = w->other, .fd = fd};
    if (!err_ok(net_loop_post(w->other->loop, &h->task))) {
        free(h);
        return false;
    }
    return true;
}

static void *run(void *arg)
{
    net_loop_run(((struct worker *)arg)->loop);
    return NULL;
}

static void worker_init(struct worker *w, int fd, char letter)
{
    w->letter = letter;
    assert_int_equal(net_loop_new(&w->loop).code, E_OK);
    struct net_listener_options o = {
        .fd = fd, .accepted = on_accepted, .pass = pass_every_second, .ctx = w};
    assert_int_equal(net_listener_new(w->loop, &o, &w->listener).code, E_OK);
}

static int raw_dial(const struct net_addr *addr)
{
    int fd = socket(addr->sa.any.sa_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &addr->sa.any, net_addr_size(addr)), 0);
    return fd;
}

static void workers_share_and_hand_on(void **state)
{
    (void)state;
    struct worker workers[2] = {{.other = &workers[1]}, {.other = &workers[0]}};
    struct net_addr addr;
    int fd = -1;
    assert_int_equal(net_listen(slice_str("[::1]:0"), &fd, &addr).code, E_OK);
    for (size_t i = 0; i < 2; i++) {
        worker_init(&workers[i], fd, (char)('a' + i));
    }
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
    unsigned answers[2] = {0};
    for (int i = 0; i < CONNECTIONS; i++) {
        int peer = raw_dial(&addr);
        char letter = 0;
        assert_int_equal(recv(peer, &letter, 1, MSG_WAITALL), 1);
        assert_true(letter == 'a' || letter == 'b');
        answers[letter - 'a']++;
        assert_int_equal(close(peer), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        net_loop_stop(workers[i].loop);
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_true(answers[i] > 0);
        assert_int_equal(workers[i].accepted, answers[i]);
        net_listener_free(workers[i].listener);
    }
    for (size_t i = 0; i < 2; i++) {
        net_loop_free(workers[i].loop);
    }
    assert_int_equal(close(fd), 0);
}

static void a_stopped_listener_accepts_nothing_until_started(void **state)
{
    (void)state;
    struct worker w = {.seen = 0};
    struct net_addr addr;
    int fd = -1;
    assert_int_equal(net_listen(slice_str("127.0.0.1:0"), &fd, &addr).code, E_OK);
    worker_init(&w, fd, 'x');
    net_listener_stop(w.listener);
    int peer = raw_dial(&addr); /* the kernel's queue takes it. */
    bool never = false;
    (void)net_loop_run_until(w.loop, &never, 20);
    assert_int_equal(w.accepted, 0);
    net_listener_start(w.listener);
    assert_true(net_loop_run_until(w.loop, &w.done, WAIT_MS));
    assert_int_equal(w.accepted, 1);
    assert_int_equal(net_listener_stats(w.listener)->accepted, 1);
    assert_int_equal(close(peer), 0);
    net_listener_free(w.listener);
    net_loop_free(w.loop);
    assert_int_equal(close(fd), 0);
}

static void a_lack_of_descriptors_passes(void **state)
{
    (void)state;
    enum { TURNS = 100 };
    struct worker w = {.seen = 0};
    struct net_addr addr;
    struct rlimit before;
    int fd = -1;
    bool never = false;
    assert_int_equal(net_listen(slice_str("127.0.0.1:0"), &fd, &addr).code, E_OK);
    worker_init(&w, fd, 'x');
    (void)net_loop_run_until(w.loop, &never, 1);
    int peer = raw_dial(&addr);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)peer + 1, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (net_listener_stats(w.listener)->rests == 0) { /* ends: somebody is at the door. */
        (void)net_loop_run_until(w.loop, &never, 1);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        net_loop_turn(w.loop);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(w.accepted, 0);
    /* It is not tried again in each turn: once, but for a machine that holds the turns up. */
    assert_in_range(net_listener_stats(w.listener)->rests, 1, TURNS / 10);
    assert_true(net_loop_run_until(w.loop, &w.done, WAIT_MS));
    assert_int_equal(w.accepted, 1);
    assert_int_equal(close(peer), 0);
    net_listener_free(w.listener);
    net_loop_free(w.loop);
    assert_int_equal(close(fd), 0);
}

static void addresses_are_read_strictly(void **state)
{
    (void)state;
    char text[NET_ADDR_TEXT_MAX];
    static const char *const good[] = {"1.2.3.4:80", "[::1]:0", "[2001:db8::5]:65535"};
    static const char *const bad[] = {"",         "1.2.3.4",       ":80",        "1.2.3:80",
                                      "::1:80",   "[::1]",         "[::1]80",    "[1.2.3.4]:80",
                                      "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "host:80",
                                      "[::1:80",  "1.2.3.4:080808"};
    struct net_addr addr;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(net_addr_parse(slice_str(good[i]), &addr).code, E_OK);
        assert_string_equal(net_addr_text(&addr, text), good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(net_addr_parse(slice_str(bad[i]), &addr).code, E_MALFORMED);
    }
    assert_int_equal(net_addr_resolve_boot(SLICE_LIT("localhost:7"), &addr).code, E_OK);
    assert_int_equal(net_addr_port(&addr), 7);
    int fd = -1;
    int second = -1;
    struct net_addr again;
    assert_int_equal(net_listen(SLICE_LIT(":0"), &fd, &addr).code, E_OK);
    assert_int_not_equal(net_addr_port(&addr), 0);
    assert_int_equal(net_listen(slice_str(net_addr_text(&addr, text)), &second, &again).code, E_IO);
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_share_and_hand_on),
        cmocka_unit_test(a_stopped_listener_accepts_nothing_until_started),
        cmocka_unit_test(a_lack_of_descriptors_passes),
        cmocka_unit_test(addresses_are_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
