/* Proves what is thought of endpoints of whom the board has no room to say anything, and of what a
 * probe says whose question is none any more. */
#include "common/base/board.h"

#include "tests/unit/dataplane/operator/upstream_world.h"

enum { KEYS = 100000, MS = 1000 };

/* Has every place of the board be somebody else's. */
static void fill_board(struct world *w)
{
    uint64_t now_ms = net_loop_now_ns(w->loop) / 1000000;
    for (uint64_t key = 1; key <= KEYS; key++) {
        struct board_entry before = {0};
        struct board_entry after = {.state = 1, .at_ms = now_ms};
        struct board_cell *cell = board_find(w->ups->board, key * 0x9e3779b97f4a7c15ULL, now_ms);
        assert_true(cell == NULL ||
                    board_exchange(cell, key * 0x9e3779b97f4a7c15ULL, &before, &after));
    }
}

static void who_has_no_room_is_taken_for_well(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 2});
    struct op_endpoint *e = world_endpoint(w, 0);
    struct op_set *set = e->set;
    set->health.kind = DP_HEALTH_TCP;
    set->health.interval_ms = MS;
    e->unwell = true; /* by another question than that of now. */
    set->unwell = 1;
    op_set_count_out(e);
    fill_board(w);
    op_health_walk(&set->health_timer, set);
    assert_false(e->unwell);
    assert_int_equal(set->unwell, 0);
    assert_int_equal(set->out, 0);
    net_timer_cancel(w->loop, &set->health_timer);
}

/* A look-up that does not end; it is nobody's to cancel. */
static struct net_dns_query *no_end(void)
{
    static char query;
    return (struct net_dns_query *)(void *)&query;
}

static void what_was_asked_by_another_snapshot_says_nothing(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 2});
    struct op_endpoint *e = world_endpoint(w, 0);
    struct op_set *set = e->set;
    set->health.kind = DP_HEALTH_TCP;
    set->health.interval_ms = set->health.timeout_ms = MS;
    set->health.unhealthy = 3;
    set->health.print++;
    world_endpoint(w, 1)->query = no_end();
    e->query = no_end();
    op_health_walk(&set->health_timer, set);
    assert_int_equal(w->ups->probe_count, 2);
    world_publish(w, &(struct plan){.count = 3}); /* it is asked nothing any more. */
    (void)world_pick(w, 0);
    assert_int_equal(set->health.kind, DP_HEALTH_NONE);
    world_settle(w, MS);
    world_endpoint(w, 1)->query = NULL;
    e->query = NULL;
    assert_int_equal(w->ups->probe_count, 0);
    assert_false(e->unwell);
    assert_int_equal(set->unwell, 0);
    assert_int_equal(set->out, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(who_has_no_room_is_taken_for_well),
        WORLD_TEST(what_was_asked_by_another_snapshot_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
