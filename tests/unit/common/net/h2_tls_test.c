/* Proves: under TLS calls that were made before the handshake leave with its end, or are told that
 * they never left; who does not speak HTTP/2 is not spoken to. */
#include <string.h>

#include "common/base/limits.h"
#include "common/net/h2.h"
#include "common/net/tls.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"
#include "tests/unit/common/net/h2_peers.h"

static struct certs certs;
static struct certs_file server_pem;

static int setup(void **state)
{
    (void)state;
    struct certs_leaf server = {.san = "DNS:server.test"};
    certs_init(&certs);
    server_pem = certs_issue(&certs, "server", &server);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_free(&certs);
    return 0;
}

struct world {
    struct peers p;
    struct client c;
    struct call call;
    struct net_tls *tls;
};

static void world_open(struct world *w, bool http1_only)
{
    const struct net_tls_options server = {.cert_file = server_pem.path, .http1_only = http1_only};
    const struct net_tls_options client = {.ca_file = certs.ca_file};
    struct net_tls *tls = NULL;
    assert_true(err_ok(net_tls_server_new(&server, &tls)));
    assert_true(err_ok(net_tls_client_new(&client, &w->tls)));
    peers_init(&w->p);
    peers_serve_tls(&w->p, tls);
    net_tls_unref(tls);
    w->p.client_tls = w->tls;
    client_open(&w->p, &w->c);
}

static void world_free(struct world *w)
{
    call_free(&w->call);
    peers_free(&w->p);
    net_tls_unref(w->tls);
}

static void calls_leave_with_the_end_of_the_handshake(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, false);
    assert_true(err_ok(call_start(&w.c, &w.call, "/unary", NULL, 0, false)));
    assert_true(err_ok(h2_stream_send(w.call.stream, SLICE_LIT("1234567"), true)));
    assert_false(w.c.ready);
    peers_wait(&w.p, &w.call.closed);
    assert_true(w.c.ready);
    assert_int_equal(w.call.grpc_status, 0);
    assert_true(slice_eq(buf_slice(&w.call.body), SLICE_LIT("7")));
    assert_int_equal(w.call.sent, 7);
    world_free(&w);
}

static void bulk_passes_the_least_output(void **state)
{
    (void)state;
    enum { TOTAL = 3 << 20, PIECE = 30000 };
    static uint8_t piece[PIECE];
    uint64_t before = limits.output_buffer_bytes;
    limits.output_buffer_bytes = 64 << 10;
    struct world w;
    world_open(&w, false);
    assert_true(err_ok(call_start(&w.c, &w.call, "/echo", NULL, 0, false)));
    for (size_t given = 0; given < TOTAL;) {
        if (err_ok(h2_stream_send(w.call.stream, slice_of(piece, PIECE), false))) {
            given += PIECE;
        } else {
            w.call.writable = false;
            peers_wait(&w.p, &w.call.writable);
        }
    }
    assert_true(err_ok(h2_stream_send(w.call.stream, (struct slice){NULL, 0}, true)));
    peers_wait(&w.p, &w.call.closed);
    assert_int_equal(w.call.grpc_status, 0);
    assert_int_equal(w.call.body.size, (TOTAL + PIECE - 1) / PIECE * PIECE);
    world_free(&w);
    limits.output_buffer_bytes = before;
}

static void expect_unsent(struct world *w)
{
    peers_wait(&w->p, &w->c.closed);
    assert_true(w->call.closed && w->call.was_reset);
    assert_true(w->call.reset.unsent && w->call.reset.unprocessed);
    assert_false(w->c.ready);
    assert_int_equal(w->p.requests, 0);
}

static void who_does_not_speak_it_is_not_spoken_to(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, true);
    assert_true(err_ok(call_start(&w.c, &w.call, "/unary", NULL, 0, true)));
    expect_unsent(&w);
    assert_int_equal(w.c.why.code, E_UNSUPPORTED);
    world_free(&w);
}

static void a_close_before_the_handshake_ends_leaves_calls_unsent(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, false);
    assert_true(err_ok(call_start(&w.c, &w.call, "/unary", NULL, 0, true)));
    h2_conn_close(w.c.conn, H2_NO_ERROR, FAIL(E_DRAINING));
    h2_conn_close(w.c.conn, H2_CANCEL, FAIL(E_TIMEOUT)); /* the first one counts. */
    assert_int_equal(h2_conn_room(w.c.conn), 0);
    expect_unsent(&w);
    assert_int_equal(w.c.why.code, E_DRAINING);
    world_free(&w);
}

static void a_drain_before_the_handshake_ends_loses_no_call(void **state)
{
    (void)state;
    struct world w;
    struct call late;
    world_open(&w, false);
    assert_true(err_ok(call_start(&w.c, &w.call, "/unary", NULL, 0, true)));
    h2_conn_drain(w.c.conn);
    assert_int_equal(call_start(&w.c, &late, "/unary", NULL, 0, true).code, E_OVERLOADED);
    peers_wait(&w.p, &w.c.closed);
    assert_true(err_ok(w.c.why));
    assert_int_equal(w.call.grpc_status, 0);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_leave_with_the_end_of_the_handshake),
        cmocka_unit_test(bulk_passes_the_least_output),
        cmocka_unit_test(who_does_not_speak_it_is_not_spoken_to),
        cmocka_unit_test(a_close_before_the_handshake_ends_leaves_calls_unsent),
        cmocka_unit_test(a_drain_before_the_handshake_ends_loses_no_call),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
