/* Proves what is thought of endpoints of whom the board has no room to say anything. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(who_has_no_room_is_taken_for_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
