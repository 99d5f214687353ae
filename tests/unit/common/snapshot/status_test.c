/* status: comes back the same, only by the node's own key, within its bounds. */
#include "common/snapshot/status.h"

#include <stdio.h>
#include <string.h>

#include "fixture.h"
#include "tests/support/cmocka.h"

static struct fx fx;

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_free(&fx);
    return 0;
}

static struct status status_full(void)
{
    struct status s = {.node = "node-1",
                       .epoch = UINT64_MAX,
                       .sequence = UINT64_MAX,
                       .version = UINT64_MAX,
                       .content_prefix = {1, 2, 3, 4, 5, 6, 7, 8},
                       .state = SNAP_REFUSED,
                       .code = E_CHUNK_BOMB,
                       .at_ms = FX_NOW_MS,
                       .format = CONTAINER_FORMAT,
                       .health_count = 3,
                       .health = {1, 2, 3},
                       .count = UINT64_MAX,
                       .capabilities = UINT64_MAX};
    memset(s.object, 'o', STATUS_OBJECT_MAX);
    return s;
}

static void comes_back_the_same(void **state)
{
    (void)state;
    struct status cases[3] = {status_full(), {.node = "node-1"}, {.node = "node-1", .version = 1}};
    for (size_t i = 0; i < 3; i++) {
        auto_buf struct buf bytes = BUF_MAX(4096);
        struct status got;
        EXPECT_OK(status_seal(&cases[i], fx.environment, &fx.node, &bytes));
        EXPECT_OK(status_open(buf_slice(&bytes), fx.environment, &fx.node.public, &got));
        assert_memory_equal(&got, &cases[i], sizeof(got));
    }
}

static void every_bit_counts(void **state)
{
    (void)state;
    struct status s = status_full();
    struct status got;
    auto_buf struct buf bytes = BUF_MAX(4096);
    EXPECT_OK(status_seal(&s, fx.environment, &fx.node, &bytes));
    for (size_t bit = 0; bit < bytes.size * 8; bit++) {
        bytes.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        struct err e = status_open(buf_slice(&bytes), fx.environment, &fx.node.public, &got);
        bytes.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_true(e.code == E_MALFORMED || e.code == E_UNAUTHENTICATED);
    }
    for (size_t size = 0; size < bytes.size; size++) {
        EXPECT(
            status_open(slice_head(buf_slice(&bytes), size), fx.environment, &fx.node.public, &got),
            E_MALFORMED);
    }
}

static void only_by_the_key_of_that_node(void **state)
{
    (void)state;
    struct status s = status_full();
    struct status got;
    auto_buf struct buf bytes = BUF_MAX(4096);
    EXPECT_OK(status_seal(&s, fx.environment, &fx.heads[0], &bytes));
    EXPECT(status_open(buf_slice(&bytes), fx.environment, &fx.node.public, &got),
           E_UNAUTHENTICATED);
    buf_clear(&bytes);
    (void)snprintf(s.node, sizeof(s.node), "node-2"); /* says to be another. */
    EXPECT_OK(status_seal(&s, fx.environment, &fx.node, &bytes));
    EXPECT(status_open(buf_slice(&bytes), fx.environment, &fx.node.public, &got),
           E_UNAUTHENTICATED);
}

static void bounds(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(4096);
    struct status s = status_full();
    s.code = E_OK; /* an object without a refusal. */
    EXPECT(status_seal(&s, fx.environment, &fx.node, &bytes), E_USAGE);
    s = status_full();
    s.state = SNAP_STATE_COUNT;
    EXPECT(status_seal(&s, fx.environment, &fx.node, &bytes), E_USAGE);
    s = status_full();
    s.health_count = STATUS_HEALTH_MAX + 1;
    EXPECT(status_seal(&s, fx.environment, &fx.node, &bytes), E_USAGE);
    s = status_full();
    s.node[0] = '\0';
    EXPECT(status_seal(&s, fx.environment, &fx.node, &bytes), E_USAGE);
    s = status_full();
    s.health_count = STATUS_HEALTH_MAX; /* all at their largest: within 512 bytes. */
    memset(s.health, 0xff, sizeof(s.health));
    memset(s.node, 'n', KEY_NAME_MAX);
    EXPECT_OK(status_seal(&s, fx.environment, &fx.node, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(only_by_the_key_of_that_node),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
