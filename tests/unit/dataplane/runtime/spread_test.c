/* Proves that connections go to the worker with the fewest, that one which takes no more is passed
 * over, that the node's bound and that of one address hold, and that no socket is lost on the way.
 */
#include "dataplane/runtime/spread.h"

#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

enum { WORKERS = 3, ROOM = 2000, PER_SOURCE = 5 };

struct worker {
    struct net_loop *loop;
    size_t index;
    size_t taken;
};

static struct dp_spread *spread;
static struct worker workers[WORKERS];

static void arrived(struct net_task *task, void *ctx)
{
    (void)task;
    struct worker *w = ctx;
    struct dp_socket sockets[DP_SPREAD_WAITING_MAX];
    size_t count = dp_spread_take(spread, w->index, sockets);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(sockets[i].port, 1);
        assert_int_equal(close(sockets[i].fd), 0);
    }
    w->taken += count;
}

static int set_up(void **state)
{
    (void)state;
    const struct dp_spread_bounds bounds = {.connections = ROOM, .per_source = PER_SOURCE};
    assert_true(err_ok(dp_spread_new(WORKERS, &bounds, &spread)));
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.index = i};
        assert_true(err_ok(net_loop_new(&workers[i].loop)));
        dp_spread_join(spread, i, workers[i].loop, arrived, &workers[i]);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < WORKERS; i++) {
        dp_spread_leave(spread, i);
        net_loop_free(workers[i].loop);
    }
    dp_spread_free(spread);
    return 0;
}

/* A real descriptor, so that one that is lost or closed twice shows. */
static enum dp_spread_place place_of(size_t worker, uint64_t source)
{
    struct dp_socket s = {
        .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .port = 1, .source = source};
    assert_true(s.fd >= 0);
    enum dp_spread_place found = dp_spread_place(spread, worker, s);
    if (found != DP_SPREAD_PASSED) {
        assert_int_equal(close(s.fd), 0);
    }
    return found;
}

static enum dp_spread_place place(size_t worker)
{
    return place_of(worker, 0);
}

static void run(size_t worker)
{
    net_loop_turn(workers[worker].loop);
}

static void one_accepts_and_all_have_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < 30; i++) {
        assert_int_not_equal(place(1), DP_SPREAD_FULL);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        run(i);
        assert_int_equal(dp_spread_count(spread, i), 10);
        assert_int_equal(workers[i].taken, i == 1 ? 0 : 10);
    }
    /* Who lost some gets the next ones. */
    dp_spread_drop(spread, 2, 0);
    dp_spread_drop(spread, 2, 0);
    assert_int_equal(place(0), DP_SPREAD_PASSED);
    assert_int_equal(place(2), DP_SPREAD_HERE);
    assert_int_equal(dp_spread_count(spread, 2), 10);
}

static void a_worker_that_is_full_of_waiting_ones_is_passed_over(void **state)
{
    (void)state;
    dp_spread_leave(spread, 2);
    size_t here = 0;
    for (int i = 0; i < 4 * DP_SPREAD_WAITING_MAX; i++) {
        here += place(0) == DP_SPREAD_HERE;
    }
    assert_int_equal(dp_spread_count(spread, 1), DP_SPREAD_WAITING_MAX);
    assert_int_equal(dp_spread_count(spread, 2), 0);
    assert_int_equal(here, 3 * DP_SPREAD_WAITING_MAX);
    run(1);
    assert_int_equal(workers[1].taken, DP_SPREAD_WAITING_MAX);
    assert_int_equal(place(0), DP_SPREAD_PASSED);
}

static void the_bound_is_of_all_together(void **state)
{
    (void)state;
    for (int i = 0; i < ROOM; i++) {
        for (size_t k = 0; k < WORKERS; k++) {
            run(k);
        }
        assert_int_not_equal(place(0), DP_SPREAD_FULL);
    }
    assert_int_equal(place(0), DP_SPREAD_FULL);
    dp_spread_drop(spread, 0, 0);
    assert_int_not_equal(place(1), DP_SPREAD_FULL);
    assert_int_equal(place(0), DP_SPREAD_FULL);
}

static uint64_t source_of(const char *ip)
{
    struct net_addr a = {0};
    assert_true(err_ok(net_addr_from_ip(slice_str(ip), 1, &a)));
    return net_addr_source(&a);
}

static void an_address_is_one_source(void **state)
{
    (void)state;
    assert_int_equal(source_of("192.0.2.1"), source_of("::ffff:192.0.2.1"));
    assert_int_not_equal(source_of("192.0.2.1"), source_of("192.0.2.2"));
    assert_int_equal(source_of("2001:db8:1:2::1"), source_of("2001:db8:1:2:ffff::9"));
    assert_int_not_equal(source_of("2001:db8:1:2::1"), source_of("2001:db8:1:3::1"));
    assert_int_not_equal(source_of("0.0.0.0"), 0);
    assert_int_not_equal(source_of("::"), 0);
    assert_int_not_equal(source_of("::1"), source_of("0.0.0.1"));
}

/* Many, in random order of coming and going, against a plain count. */
static void a_source_has_its_bound(void **state)
{
    (void)state;
    enum { SOURCES = 300, STEPS = 20000 };
    static size_t counts[SOURCES + 1];
    unsigned seed = 42;
    dp_spread_leave(spread, 1); /* so that every connection stays here. */
    dp_spread_leave(spread, 2);
    for (int step = 0; step < STEPS; step++) {
        seed = seed * 1103515245 + 12345;
        size_t id = 1 + (seed >> 16) % SOURCES;
        if ((seed >> 8 & 3) == 0 && counts[id] > 0) {
            counts[id]--;
            dp_spread_drop(spread, 0, id);
            continue;
        }
        enum dp_spread_place found = place_of(0, id);
        assert_int_equal(found, counts[id] < PER_SOURCE ? DP_SPREAD_HERE : DP_SPREAD_CROWD);
        counts[id] += found == DP_SPREAD_HERE;
    }
    assert_int_equal(place_of(0, 0), DP_SPREAD_HERE); /* who is nobody has no bound. */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_accepts_and_all_have_the_same),
        CASE(a_worker_that_is_full_of_waiting_ones_is_passed_over),
        CASE(the_bound_is_of_all_together),
        CASE(an_address_is_one_source),
        CASE(a_source_has_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
