/* Proves: requests find few, well filled connections, wait in a bounded line for the next one, are
 * told why when there is none, and what differs in security never shares a connection. */
#include "common/net/h2_pool.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/limits.h"

#include "tests/support/cmocka.h"
#include "tests/support/ports.h"
#include "tests/unit/common/net/h2_peers.h"

enum { REQUESTS_MAX = 64 };

/* A request that goes through a pool. */
struct request {
    struct h2_pool_wait wait; /* first member. */
    struct call call;
    const char *path;
    bool answered; /* by the pool. */
    bool started;
    struct err why;
};

struct world {
    struct peers p;
    struct h2_pools *pools;
    struct h2_pool *pool;
    struct request requests[REQUESTS_MAX];
};

static void start_on(struct request *rq, struct h2_conn *conn)
{
    struct client c = {.conn = conn};
    assert_true(err_ok(call_start(&c, &rq->call, rq->path, NULL, 0, true)));
    rq->started = true;
}

static void on_ready(struct h2_pool_wait *wait, struct h2_conn *conn, struct err why)
{
    struct request *rq = (struct request *)wait;
    assert_false(rq->answered);
    rq->answered = true;
    rq->why = why;
    assert_true((conn == NULL) == !err_ok(why));
    if (conn != NULL) {
        start_on(rq, conn);
    }
}

static struct err request_start(struct world *w, size_t i, const char *path, uint64_t timeout_ms)
{
    struct request *rq = &w->requests[i];
    *rq = (struct request){.wait = {.ready = on_ready}, .path = path};
    struct h2_conn *conn = NULL;
    struct err e = h2_pool_acquire(w->pool, &rq->wait, timeout_ms, &conn);
    if (err_ok(e) && conn != NULL) {
        rq->answered = true;
        start_on(rq, conn);
    }
    return e;
}

static struct h2_pool_stats stats_of(const struct world *w)
{
    struct h2_pool_stats stats;
    h2_pool_stats(w->pool, &stats);
    return stats;
}

static void world_init(struct world *w)
{
    *w = (struct world){.pool = NULL};
    peers_init(&w->p);
    assert_true(err_ok(h2_pools_new(w->p.env, w->p.loop, &w->pools)));
    struct h2_target target = {.addr = w->p.addr};
    assert_true(err_ok(h2_pools_get(w->pools, &target, &w->pool)));
}

static void world_free(struct world *w)
{
    h2_pool_unref(w->pool);
    h2_pools_free(w->pools);
    peers_free(&w->p);
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        call_free(&w->requests[i].call);
    }
}

static struct world world;

static void one_connection_serves_all_that_fits(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init(w);
    for (size_t i = 0; i < 30; i++) {
        assert_true(err_ok(request_start(w, i, "/unary", PEERS_WAIT_MS)));
    }
    assert_int_equal(stats_of(w).pending, 30);
    for (size_t i = 0; i < 30; i++) {
        peers_wait(&w->p, &w->requests[i].call.closed);
        assert_int_equal(w->requests[i].call.grpc_status, 0);
    }
    assert_int_equal(stats_of(w).opened, 1);
    assert_true(err_ok(request_start(w, 30, "/unary", PEERS_WAIT_MS)));
    assert_true(w->requests[30].started); /* at once, without waiting. */
    peers_wait(&w->p, &w->requests[30].call.closed);
    assert_int_equal(w->p.accepted, 1);
    world_free(w);
}

static void full_streams_open_the_next_connection(void **state)
{
    (void)state;
    uint64_t streams = limits.upstream_streams;
    uint64_t connections = limits.upstream_connections;
    limits.upstream_streams = 4;
    limits.upstream_connections = 3;
    struct world *w = &world;
    world_init(w);
    for (size_t i = 0; i < 20; i++) {
        assert_true(err_ok(request_start(w, i, "/hang", i < 12 ? PEERS_WAIT_MS : 50)));
    }
    for (size_t i = 0; i < 20; i++) {
        peers_wait(&w->p, &w->requests[i].answered);
        assert_int_equal(w->requests[i].why.code, i < 12 ? E_OK : E_DEADLINE_EXCEEDED);
    }
    assert_int_equal(stats_of(w).connections, 3);
    assert_int_equal(h2_pools_open(w->pools), 3);
    assert_int_equal(stats_of(w).streams, 12);
    assert_int_equal(stats_of(w).pending_expired, 8);
    /* A stream that ends makes room for who waits. */
    assert_true(err_ok(request_start(w, 20, "/unary", PEERS_WAIT_MS)));
    assert_false(w->requests[20].answered);
    h2_stream_reset(w->requests[3].call.stream, H2_CANCEL);
    peers_wait(&w->p, &w->requests[20].call.closed);
    assert_int_equal(w->requests[20].call.grpc_status, 0);
    world_free(w);
    limits.upstream_streams = streams;
    limits.upstream_connections = connections;
}

/* The next connection knows what the peer takes before that said so. */
static void how_many_fields_a_peer_takes_is_remembered(void **state)
{
    (void)state;
    uint64_t streams = limits.upstream_streams;
    limits.upstream_streams = 1;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    assert_true(err_ok(request_start(w, 1, "/hang", PEERS_WAIT_MS)));
    w->p.mute = true;
    assert_true(err_ok(request_start(w, 2, "/hang", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[2].answered);
    const struct h2_conn *silent = h2_stream_conn(w->requests[2].call.stream);
    assert_ptr_not_equal(silent, h2_stream_conn(w->requests[1].call.stream));
    assert_int_equal(h2_conn_header_bytes(silent), limits.request_header_bytes);
    world_free(w);
    limits.upstream_streams = streams;
}

static void the_line_is_bounded_and_can_be_left(void **state)
{
    (void)state;
    uint64_t before = limits.upstream_pending;
    limits.upstream_pending = 2;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    assert_true(err_ok(request_start(w, 1, "/unary", PEERS_WAIT_MS)));
    assert_int_equal(request_start(w, 2, "/unary", PEERS_WAIT_MS).code, E_QUEUE_FULL);
    h2_pool_cancel(&w->requests[0].wait);
    h2_pool_cancel(&w->requests[0].wait);
    assert_true(err_ok(request_start(w, 3, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[1].call.closed);
    peers_wait(&w->p, &w->requests[3].call.closed);
    assert_false(w->requests[0].answered);
    assert_int_equal(stats_of(w).pending_refused, 1);
    world_free(w);
    limits.upstream_pending = before;
}

static void no_connection_fails_who_waits(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init(w);
    h2_pool_unref(w->pool);
    struct h2_target target = {.addr = w->p.addr};
    uint16_t port = 0;
    int fd = test_deaf_port(&port);
    net_addr_set_port(&target.addr, port);
    assert_true(err_ok(h2_pools_get(w->pools, &target, &w->pool)));
    for (int round = 0; round < 3; round++) {
        assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
        assert_true(err_ok(request_start(w, 1, "/unary", PEERS_WAIT_MS)));
        peers_wait(&w->p, &w->requests[1].answered);
        assert_int_equal(w->requests[0].why.code, E_UPSTREAM_CONNECT);
        assert_int_equal(w->requests[1].why.code, E_UPSTREAM_CONNECT);
    }
    assert_int_equal(stats_of(w).connect_failed, 3);
    assert_int_equal(stats_of(w).connections, 0);
    (void)close(fd);
    world_free(w);
}

/* A world whose pool has so many connections, which grow so old; zero: as many as limits allow, and
 * any age. */
static void world_init_bounded(struct world *w, uint64_t connections_max, uint64_t max_age_ms)
{
    world_init(w);
    h2_pool_unref(w->pool);
    struct h2_target target = {
        .addr = w->p.addr, .connections_max = connections_max, .max_age_ms = max_age_ms};
    assert_true(err_ok(h2_pools_get(w->pools, &target, &w->pool)));
}

/* Requests 0 and 1 go by one connection, and 1 stays; the peer says GOAWAY. */
static void have_peer_leave(struct world *w)
{
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    assert_true(err_ok(request_start(w, 1, "/hang", PEERS_WAIT_MS)));
    while (w->p.requests < 2) {
        peers_run(&w->p, 1);
    }
    h2_conn_drain(w->p.server);
    while (h2_env_counters(w->p.env)->goaways_received == 0) {
        peers_run(&w->p, 1);
    }
}

/* At once, though one connection is all that the target allows. */
static void goaway_moves_new_requests_to_another_connection(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init_bounded(w, /* connections_max= */ 1, /* max_age_ms= */ 0);
    have_peer_leave(w);
    assert_true(err_ok(request_start(w, 2, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[2].call.closed);
    assert_int_equal(w->requests[2].call.grpc_status, 0);
    assert_int_equal(w->p.accepted, 2);
    assert_false(w->requests[1].call.closed); /* the old one ends in its own time. */
    assert_int_equal(stats_of(w).connections, 2);
    world_free(w);
    assert_true(w->requests[1].call.closed);
}

static void stop_listening(struct world *w)
{
    net_listener_free(w->p.listener);
    w->p.listener = NULL;
    assert_int_equal(shutdown(w->p.fd, SHUT_RDWR), 0);
}

/* Who waits goes to another endpoint, and does not hope for a connection that takes nothing. */
static void who_leaves_and_listens_no_more_has_no_connection(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init(w);
    have_peer_leave(w);
    stop_listening(w);
    assert_true(err_ok(request_start(w, 2, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[2].answered);
    assert_int_equal(w->requests[2].why.code, E_UPSTREAM_CONNECT);
    assert_int_equal(stats_of(w).connect_failed, 1);
    assert_false(w->requests[1].call.closed);
    world_free(w);
}

/* Who waits for room on a connection that is full does not have another one tried all the time. */
static void a_connection_that_fails_beside_another_is_tried_again_later(void **state)
{
    (void)state;
    enum { REST_MS = 1000 };
    uint64_t streams = limits.upstream_streams;
    limits.upstream_streams = 1;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/hang", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].answered);
    stop_listening(w);
    assert_true(err_ok(request_start(w, 1, "/unary", 10 * PEERS_WAIT_MS)));
    while (stats_of(w).connect_failed == 0) {
        peers_run(&w->p, 1);
    }
    peers_run(&w->p, 20);
    assert_true(err_ok(request_start(w, 2, "/unary", 10 * PEERS_WAIT_MS)));
    peers_run(&w->p, 20);
    assert_int_equal(stats_of(w).opened, 2);
    peers_pass(&w->p, REST_MS);
    while (stats_of(w).connect_failed < 2) {
        peers_run(&w->p, 1);
    }
    assert_false(w->requests[1].answered);
    h2_stream_reset(w->requests[0].call.stream, H2_CANCEL);
    for (size_t i = 1; i <= 2; i++) {
        peers_wait(&w->p, &w->requests[i].call.closed);
        assert_int_equal(w->requests[i].call.grpc_status, 0);
    }
    world_free(w);
    limits.upstream_streams = streams;
}

/* What a peer said of its streams holds for the next connection before that has said so itself. */
static void what_a_peer_takes_is_remembered(void **state)
{
    (void)state;
    enum { TAKES = 2, COUNT = 9 };
    uint64_t streams = limits.streams_per_connection;
    limits.streams_per_connection = TAKES;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, COUNT, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[COUNT].call.closed);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(err_ok(request_start(w, i, "/hang", PEERS_WAIT_MS)));
    }
    while (w->p.requests < COUNT + 1) {
        peers_run(&w->p, 1);
    }
    assert_int_equal(h2_env_counters(w->p.env)->streams_refused, 0);
    assert_int_equal(stats_of(w).streams, COUNT);
    assert_int_equal(stats_of(w).connections, (COUNT + TAKES - 1) / TAKES);
    world_free(w);
    limits.streams_per_connection = streams;
}

/* Answers that nobody takes stop all those of their connection: who comes goes by another one. */
static void a_connection_that_is_held_up_takes_no_more(void **state)
{
    (void)state;
    const uint64_t before[] = {limits.connection_held_bytes, limits.connection_window_bytes,
                               limits.connection_window_max_bytes};
    limits.connection_held_bytes = 64 << 10;
    limits.connection_window_bytes = 65535;
    limits.connection_window_max_bytes = 65535;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    assert_true(err_ok(request_start(w, 1, "/many", PEERS_WAIT_MS)));
    struct call *slow = &w->requests[1].call;
    slow->hold = true;
    while (h2_conn_room(h2_stream_conn(slow->stream)) > 0) {
        peers_run(&w->p, 1);
    }
    assert_true(err_ok(request_start(w, 2, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[2].call.closed);
    assert_int_equal(w->requests[2].call.grpc_status, 0);
    assert_int_equal(w->p.accepted, 2);
    assert_false(slow->closed);
    slow->hold = false;
    h2_stream_consume(slow->stream, slow->body.size);
    assert_true(h2_conn_room(h2_stream_conn(slow->stream)) > 0);
    peers_wait(&w->p, &slow->closed);
    world_free(w);
    limits.connection_held_bytes = before[0];
    limits.connection_window_bytes = before[1];
    limits.connection_window_max_bytes = before[2];
}

static void silent_connection_is_asked_and_replaced(void **state)
{
    (void)state;
    enum { PATIENCE_MS = 600000, SILENCE_MS = 11000, ANSWER_MS = 8000 };
    uint64_t wait = limits.upstream_probe_ms;
    limits.upstream_probe_ms = ANSWER_MS;
    assert_true(limits.upstream_probe_after_ms < SILENCE_MS);
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    peers_pass(&w->p, SILENCE_MS);
    assert_true(err_ok(request_start(w, 1, "/unary", PEERS_WAIT_MS)));
    assert_false(w->requests[1].answered); /* it is asked first. */
    peers_wait(&w->p, &w->requests[1].call.closed);
    assert_int_equal(w->p.accepted, 1);
    net_conn_pause(h2_conn_net(w->p.server)); /* a peer that is gone without a word. */
    peers_pass(&w->p, SILENCE_MS);
    assert_true(err_ok(request_start(w, 2, "/unary", PATIENCE_MS)));
    peers_run(&w->p, 20);
    assert_false(w->requests[2].answered);
    peers_pass(&w->p, ANSWER_MS);
    peers_wait(&w->p, &w->requests[2].call.closed);
    assert_int_equal(w->requests[2].call.grpc_status, 0);
    assert_int_equal(w->p.accepted, 2);
    assert_int_equal(stats_of(w).probes, 2);
    world_free(w);
    limits.upstream_probe_ms = wait;
}

static void unused_connections_go(void **state)
{
    (void)state;
    uint64_t before = limits.upstream_idle_ms;
    limits.upstream_idle_ms = 30;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->p.server_closed_once);
    assert_true(err_ok(w->p.server_why));
    while (stats_of(w).connections > 0) {
        peers_run(&w->p, 1);
    }
    assert_int_equal(stats_of(w).connect_failed, 0);
    world_free(w);
    limits.upstream_idle_ms = before;
}

static void wait_for_aged(struct world *w, uint64_t count)
{
    while (h2_env_counters(w->p.env)->connections_aged < count) {
        peers_run(&w->p, 1);
    }
}

/* What an old connection has goes on; what comes finds another one, at once, though one is all that
 * the target allows; the old one ends with its last request. */
static void old_connections_take_no_more_and_end_in_good_order(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init_bounded(w, /* connections_max= */ 1, 40);
    assert_true(err_ok(request_start(w, 0, "/hang", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].answered);
    wait_for_aged(w, 1);
    assert_false(w->requests[0].call.closed);
    assert_true(err_ok(request_start(w, 1, "/unary", PEERS_WAIT_MS)));
    assert_false(w->requests[1].started); /* there is no connection for it yet. */
    peers_wait(&w->p, &w->requests[1].call.closed);
    assert_int_equal(w->requests[1].call.grpc_status, 0);
    assert_false(w->requests[0].call.closed);
    h2_stream_reset(w->requests[0].call.stream, H2_CANCEL);
    peers_wait(&w->p, &w->p.server_closed_once);
    assert_true(err_ok(w->p.server_why));
    assert_int_equal(stats_of(w).connect_failed, 0);
    world_free(w);
}

/* Requests that never end hold as many old connections as new ones, and no more. */
static void as_many_are_old_as_may_be_new(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init_bounded(w, /* connections_max= */ 1, 20);
    for (size_t i = 0; i < 2; i++) {
        assert_true(err_ok(request_start(w, i, "/hang", PEERS_WAIT_MS)));
        peers_wait(&w->p, &w->requests[i].answered);
        assert_int_equal(w->requests[i].why.code, E_OK);
        wait_for_aged(w, 1);
    }
    bool never = false;
    (void)net_loop_run_until(w->p.loop, &never, 100); /* five ages of the second one. */
    assert_int_equal(stats_of(w).connections, 2);
    assert_int_equal(stats_of(w).leaving, 1);
    h2_stream_reset(w->requests[0].call.stream, H2_CANCEL);
    wait_for_aged(w, 2);
    assert_false(w->requests[1].call.closed);
    world_free(w);
}

static void targets_that_differ_share_nothing(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init(w);
    struct h2_target base = {.addr = w->p.addr};
    struct h2_target named = base;
    named.server_name = SLICE_LIT("a.example");
    struct h2_target id = base;
    id.spiffe_id = SLICE_LIT("a.example"); /* the same bytes in another place. */
    struct h2_target port = base;
    net_addr_set_port(&port.addr, (uint16_t)(net_addr_port(&base.addr) ^ 1));
    struct h2_target newest = base;
    newest.terms.version_min = NET_TLS_1_3;
    struct h2_target oldest = base;
    oldest.terms.version_max = NET_TLS_1_2;
    struct h2_target ageing = base;
    ageing.max_age_ms = 1000;
    const struct h2_target *targets[] = {&base, &named, &id, &port, &newest, &oldest, &ageing};
    enum { COUNT = sizeof(targets) / sizeof(targets[0]) };
    struct h2_pool *pools[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(err_ok(h2_pools_get(w->pools, targets[i], &pools[i])));
        for (size_t k = 0; k < i; k++) {
            assert_ptr_not_equal(pools[i], pools[k]);
        }
    }
    assert_ptr_equal(pools[0], w->pool);
    for (size_t i = 0; i < COUNT; i++) {
        h2_pool_unref(pools[i]);
    }
    world_free(w);
}

static void dropped_pool_drains_its_calls(void **state)
{
    (void)state;
    struct world *w = &world;
    world_init(w);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    assert_true(err_ok(request_start(w, 1, "/many", PEERS_WAIT_MS)));
    assert_true(w->requests[1].started);
    h2_pool_unref(w->pool);
    w->pool = NULL;
    peers_wait(&w->p, &w->requests[1].call.closed);
    assert_int_equal(w->requests[1].call.grpc_status, 0);
    peers_wait(&w->p, &w->p.server_closed_once);
    world_free(w);
}

/* ---- peers that are asked about ---- */

struct judgement {
    bool stands;
    unsigned asked;
    unsigned opening; /* of these, as one opened. */
};

static bool judge(void *ctx, struct net_conn *conn, bool opens)
{
    struct judgement *j = ctx;
    assert_non_null(conn);
    j->asked++;
    j->opening += opens ? 1 : 0;
    return j->stands;
}

static void a_peer_is_asked_about_when_it_opens_and_again(void **state)
{
    (void)state;
    struct world *w = &world;
    struct judgement j = {.stands = true};
    world_init(w);
    h2_pools_set_judge(w->pools, judge, &j);
    assert_true(err_ok(request_start(w, 0, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[0].call.closed);
    assert_int_equal(j.asked, 1);
    h2_pools_look_begin(w->pools);
    assert_false(h2_pools_look(w->pools, 10));
    assert_int_equal(j.asked, 2);
    assert_int_equal(j.opening, 1);
    assert_true(err_ok(request_start(w, 1, "/many", PEERS_WAIT_MS)));
    assert_true(w->requests[1].started); /* it stands: nothing changed. */

    /* What is open on it may still end; nothing new begins, not on another connection either. */
    j.stands = false;
    h2_pools_look_begin(w->pools);
    assert_false(h2_pools_look(w->pools, 10));
    assert_true(err_ok(request_start(w, 2, "/unary", PEERS_WAIT_MS)));
    assert_false(w->requests[2].started);
    peers_wait(&w->p, &w->requests[2].answered);
    assert_int_equal(w->requests[2].why.code, E_UPSTREAM_CONNECT);
    peers_wait(&w->p, &w->requests[1].call.closed);
    assert_int_equal(w->requests[1].call.grpc_status, 0);
    while (stats_of(w).connections > 0) {
        peers_run(&w->p, 1);
    }
    j.stands = true;
    assert_true(err_ok(request_start(w, 3, "/unary", PEERS_WAIT_MS)));
    peers_wait(&w->p, &w->requests[3].call.closed);
    assert_int_equal(w->requests[3].call.grpc_status, 0);
    world_free(w);
}

/* A bounded number at a time; one that goes meanwhile is passed over. */
static void connections_are_asked_about_in_turns(void **state)
{
    (void)state;
    uint64_t streams = limits.upstream_streams;
    limits.upstream_streams = 1;
    struct world *w = &world;
    struct judgement j = {.stands = true};
    world_init(w);
    for (size_t i = 0; i < 3; i++) {
        assert_true(err_ok(request_start(w, i, "/hang", PEERS_WAIT_MS)));
        peers_wait(&w->p, &w->requests[i].answered);
    }
    assert_int_equal(stats_of(w).connections, 3);
    h2_pools_set_judge(w->pools, judge, &j);
    h2_pools_look_begin(w->pools);
    assert_true(h2_pools_look(w->pools, 1)); /* the newest. */
    struct h2_conn *middle = h2_stream_conn(w->requests[1].call.stream);
    h2_conn_close(middle, H2_NO_ERROR, FAIL(E_CLOSED));
    peers_wait(&w->p, &w->requests[1].call.closed);
    while (stats_of(w).connections > 2) {
        peers_run(&w->p, 1);
    }
    assert_false(h2_pools_look(w->pools, 1)); /* the oldest. */
    assert_int_equal(j.asked, 2);
    assert_false(h2_pools_look(w->pools, 1));
    assert_int_equal(j.asked, 2);
    world_free(w);
    limits.upstream_streams = streams;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_connection_serves_all_that_fits),
        cmocka_unit_test(full_streams_open_the_next_connection),
        cmocka_unit_test(how_many_fields_a_peer_takes_is_remembered),
        cmocka_unit_test(the_line_is_bounded_and_can_be_left),
        cmocka_unit_test(no_connection_fails_who_waits),
        cmocka_unit_test(goaway_moves_new_requests_to_another_connection),
        cmocka_unit_test(who_leaves_and_listens_no_more_has_no_connection),
        cmocka_unit_test(a_connection_that_fails_beside_another_is_tried_again_later),
        cmocka_unit_test(what_a_peer_takes_is_remembered),
        cmocka_unit_test(a_connection_that_is_held_up_takes_no_more),
        cmocka_unit_test(silent_connection_is_asked_and_replaced),
        cmocka_unit_test(unused_connections_go),
        cmocka_unit_test(old_connections_take_no_more_and_end_in_good_order),
        cmocka_unit_test(as_many_are_old_as_may_be_new),
        cmocka_unit_test(targets_that_differ_share_nothing),
        cmocka_unit_test(dropped_pool_drains_its_calls),
        cmocka_unit_test(a_peer_is_asked_about_when_it_opens_and_again),
        cmocka_unit_test(connections_are_asked_about_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
