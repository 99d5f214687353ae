/* Proves that what is kept is sent whole, small or large, as often as is asked for, from any byte
 * on; that it lies in memory once; and that it is never more than the bound. */
#include "dataplane/operator/kept.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/h2_peers.h"

enum { MAX = 100000 };

static struct peers peers;
static struct client client;
static struct op_kept kept;

static int set_up(void **state)
{
    (void)state;
    peers_init(&peers);
    client_open(&peers, &client);
    memset(&kept, 0xee, sizeof(kept)); /* as an arena lends it. */
    op_kept_init(&kept, peers.env, MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    op_kept_free(&kept);
    peers_free(&peers);
    return 0;
}

static void add(size_t from, size_t size)
{
    static uint8_t bytes[MAX];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)((from + i) * 7);
    }
    assert_true(err_ok(op_kept_add(&kept, slice_of(bytes, size))));
}

static void start(struct call *call)
{
    assert_true(err_ok(call_start(&client, call, "/echo", NULL, 0, false)));
}

static void expect_echo(struct call *call, size_t skip, size_t size)
{
    peers_wait(&peers, &call->closed);
    assert_int_equal(call->grpc_status, 0);
    assert_int_equal(call->body.size, size - skip);
    for (size_t i = 0; i < size - skip; i++) {
        assert_int_equal(call->body.ptr[i], (uint8_t)((skip + i) * 7));
    }
    call_free(call);
}

/* Sends what lies behind 'skip' bytes, and holds what a server heard against it. */
static void expect_from(size_t skip, size_t size)
{
    struct call call;
    assert_int_equal(op_kept_size(&kept), size);
    start(&call);
    assert_true(err_ok(op_kept_send(&kept, skip, call.stream, /* end: */ true)));
    expect_echo(&call, skip, size);
}

static void small_takes_no_memory(void **state)
{
    (void)state;
    expect_from(0, 0);
    size_t before = h2_env_memory(peers.env);
    add(0, 0);
    add(0, 500);
    add(500, 12);
    assert_int_equal(h2_env_memory(peers.env), before);
    expect_from(0, OP_KEPT_SMALL);
    expect_from(500, OP_KEPT_SMALL);
}

static void large_moves(void **state)
{
    (void)state;
    add(0, 500);
    add(500, 13);
    expect_from(0, 513);
    add(513, 1);
    expect_from(500, 514);
    add(514, 60000);
    expect_from(0, 60514);
    expect_from(20000, 60514);
    op_kept_free(&kept);
    expect_from(0, 0);
    add(0, 600);
    expect_from(0, 600);
}

static void what_was_sent_lies_in_memory_once_and_lives_on(void **state)
{
    (void)state;
    struct call calls[3];
    add(0, 60000);
    for (size_t i = 0; i < 3; i++) {
        start(&calls[i]);
    }
    size_t before = h2_env_memory(peers.env);
    for (size_t i = 0; i < 3; i++) {
        assert_true(err_ok(op_kept_send(&kept, i, calls[i].stream, /* end: */ true)));
    }
    assert_true(h2_env_memory(peers.env) < before + 3000);
    op_kept_free(&kept);
    for (size_t i = 0; i < 3; i++) {
        expect_echo(&calls[i], i, 60000);
    }
}

static void the_bound_holds(void **state)
{
    (void)state;
    uint8_t byte = 0;
    add(0, 400);
    add(400, MAX - 400);
    assert_int_equal(op_kept_add(&kept, slice_of(&byte, 1)).code, E_TOO_LARGE);
    expect_from(0, MAX);
    op_kept_free(&kept);
    op_kept_init(&kept, peers.env, 10);
    add(0, 10);
    assert_int_equal(op_kept_add(&kept, slice_of(&byte, 1)).code, E_TOO_LARGE);
    expect_from(0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_takes_no_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_sent_lies_in_memory_once_and_lives_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_bound_holds, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
