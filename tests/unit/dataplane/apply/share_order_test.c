/* Proves which shares are taken: those that answer what this process said, newer than the last
 * ones, of who leads; and that none shuts out those behind it for longer than it holds. */
#include "dataplane/apply/share_order.h"

#include "common/snapshot/format.h"

#include "tests/support/cmocka.h"

enum { RUN = 7, VALID_MS = 3000, NOW_MS = 100000, EPOCH = 5 };

static struct dp_share_order order;
static const struct dp_share_heads heads = {.found = true, .epoch = EPOCH};

static int set_up(void **state)
{
    (void)state;
    order =
        (struct dp_share_order){.node = SLICE_LIT("node-1"), .run = RUN, .said_ms = NOW_MS - 10};
    return 0;
}

static struct shares some(uint64_t epoch, uint64_t sequence)
{
    return (struct shares){.epoch = epoch,
                           .sequence = sequence,
                           .node = "node-1",
                           .run = RUN,
                           .at_ms = NOW_MS - 10,
                           .valid_ms = VALID_MS,
                           .nodes = 1};
}

static void expect(struct shares shares, uint64_t now_ms, enum dp_share_outcome wanted)
{
    assert_int_equal(dp_share_judge(&order, &heads, &shares, now_ms), wanted);
}

static void in_their_order(void **state)
{
    (void)state;
    expect(some(EPOCH, 2), NOW_MS, DP_SHARE_TAKEN);
    assert_int_equal(order.until_ms, NOW_MS - 10 + VALID_MS);
    expect(some(EPOCH, 1), NOW_MS, DP_SHARE_LATE);
    expect(some(EPOCH, 3), NOW_MS, DP_SHARE_TAKEN);
    expect(some(EPOCH + 1, 1), NOW_MS, DP_SHARE_TAKEN); /* heads come up to it. */
    expect(some(EPOCH, 4), NOW_MS, DP_SHARE_LATE);
    expect(some(EPOCH - 1, 9), NOW_MS, DP_SHARE_LATE);
    assert_int_equal(order.epoch, EPOCH + 1);
    assert_int_equal(order.sequence, 1);
}

/* Delivered twice, they change nothing and are not worth a word. */
static void once_more(void **state)
{
    (void)state;
    expect(some(EPOCH, 2), NOW_MS, DP_SHARE_TAKEN);
    expect(some(EPOCH, 2), NOW_MS + 1, DP_SHARE_SAME);
    expect(some(EPOCH, 2), NOW_MS + VALID_MS, DP_SHARE_SAME);
    assert_int_equal(dp_share_outcome_label(DP_SHARE_SAME)[0], '\0');
    assert_string_equal(dp_share_outcome_label(DP_SHARE_LATE), "late");
}

static void of_this_process(void **state)
{
    (void)state;
    struct shares s = some(EPOCH, 2);
    s.run = RUN - 1;
    expect(s, NOW_MS, DP_SHARE_LATE);
    s = some(EPOCH, 2);
    s.node[5] = '2';
    expect(s, NOW_MS, DP_SHARE_LATE);
    expect(some(EPOCH, 2), NOW_MS - 10 + VALID_MS, DP_SHARE_LATE);
    expect(some(EPOCH, 2), NOW_MS - 11 + VALID_MS, DP_SHARE_TAKEN);
}

/* A moment at which nothing was said is no answer, and stands in nobody's way. */
static void of_a_moment_to_come(void **state)
{
    (void)state;
    static const uint64_t moments[] = {
        NOW_MS - 9, NOW_MS + 3600000,          INT64_MAX,
        UINT64_MAX, UINT64_MAX - VALID_MS + 1, UINT64_MAX / 1000000 + 1};
    for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        struct shares s = some(EPOCH, UINT64_MAX);
        s.at_ms = moments[i];
        expect(s, NOW_MS, DP_SHARE_REFUSED);
        assert_int_equal(order.until_ms, 0);
    }
    expect(some(EPOCH, 1), NOW_MS, DP_SHARE_TAKEN);
    order.said_ms = 0; /* who has said nothing has no answer. */
    expect(some(EPOCH, 2), NOW_MS, DP_SHARE_REFUSED);
}

static void of_an_epoch_too_high(void **state)
{
    (void)state;
    expect(some(EPOCH + HEAD_EPOCH_JUMP + 1, 1), NOW_MS, DP_SHARE_REFUSED);
    expect(some(UINT64_MAX, UINT64_MAX), NOW_MS, DP_SHARE_REFUSED);
    expect(some(EPOCH, 1), NOW_MS, DP_SHARE_TAKEN);
    expect(some(EPOCH + HEAD_EPOCH_JUMP, UINT64_MAX), NOW_MS, DP_SHARE_TAKEN);
    order.said_ms = NOW_MS + 2000;
    struct shares s = some(EPOCH, 2);
    s.at_ms = NOW_MS + 2000;
    expect(s, NOW_MS + 2000, DP_SHARE_LATE);   /* that may be of the next leader: it fences. */
    expect(s, order.until_ms, DP_SHARE_TAKEN); /* no head came up to it. */
    assert_int_equal(order.epoch, EPOCH);
}

/* Of the epoch of the heads an order stands, however long ago it was. */
static void of_the_heads_epoch(void **state)
{
    (void)state;
    expect(some(EPOCH, 9), NOW_MS, DP_SHARE_TAKEN);
    order.said_ms = NOW_MS + 60000;
    struct shares s = some(EPOCH, 8);
    s.at_ms = NOW_MS + 60000;
    expect(s, NOW_MS + 60000, DP_SHARE_LATE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(in_their_order),       TEST(once_more),
        TEST(of_this_process),      TEST(of_a_moment_to_come),
        TEST(of_an_epoch_too_high), TEST(of_the_heads_epoch),
    };
    return cmocka_run_group_tests_name("share_order", tests, NULL, NULL);
}
