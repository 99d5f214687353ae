/* Proves that a cell keeps what was written for its key, that of many threads one takes each turn,
 * and what a full board does. */
#include "common/base/board.h"

#include <pthread.h>

#include "tests/support/cmocka.h"

static void a_cell_keeps_what_was_written(void **state)
{
    (void)state;
    struct board *board = NULL;
    assert_true(err_ok(board_new(100, &board)));
    struct board_cell *cell = board_find(board, 77, 1);
    assert_non_null(cell);
    assert_ptr_equal(board_find(board, 77, 1), cell);
    struct board_entry e = {.state = 9};
    assert_true(board_read(cell, 77, &e));
    assert_true(e.state == 0 && e.streak == 0 && e.at_ms == 0);
    const struct board_entry most = {BOARD_STATE_MAX, BOARD_STREAK_MAX, (UINT64_C(1) << 40) - 1};
    assert_true(board_exchange(cell, 77, &e, &most));
    assert_false(board_exchange(cell, 77, &e, &most)); /* it does not stand still. */
    assert_true(board_read(cell, 77, &e));
    assert_int_equal(e.state, most.state);
    assert_int_equal(e.streak, most.streak);
    assert_int_equal(e.at_ms, most.at_ms);
    assert_false(board_read(cell, 78, &e));
    board_free(board);
    board_free(NULL);
}

static void a_full_board_gives_away_what_is_stale(void **state)
{
    (void)state;
    struct board *board = NULL;
    assert_true(err_ok(board_new(8, &board)));
    const struct board_entry none = {0};
    struct board_cell *first = NULL;
    for (uint64_t key = 1; key <= 8; key++) {
        struct board_cell *cell = board_find(board, key, 1000);
        assert_non_null(cell);
        first = key == 1 ? cell : first;
        const struct board_entry e = {.state = 2, .at_ms = key == 1 ? 1000 : 500000};
        assert_true(board_exchange(cell, key, &none, &e));
    }
    assert_null(board_find(board, 9, 1000 + BOARD_STALE_MS));
    struct board_cell *taken = board_find(board, 9, 1001 + BOARD_STALE_MS);
    assert_ptr_equal(taken, first);
    struct board_entry e = {0};
    assert_false(board_read(first, 1, &e));
    assert_true(board_read(taken, 9, &e));
    assert_int_equal(e.state, 0); /* not what stood there for another key. */
    board_free(board);
}

enum { THREADS = 4, TURNS = 20000 };

static struct board_cell *shared_cell;

/* Takes each turn, by its number, if nobody did. */
static void *take_turns(void *ctx)
{
    size_t *taken = ctx;
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        struct board_entry now = {0};
        (void)board_read(shared_cell, 5, &now);
        struct board_entry mine = {.state = 1, .at_ms = turn};
        if (now.at_ms + 1 == turn && board_exchange(shared_cell, 5, &now, &mine)) {
            (*taken)++;
        }
    }
    return NULL;
}

static void of_many_threads_one_takes_a_turn(void **state)
{
    (void)state;
    struct board *board = NULL;
    assert_true(err_ok(board_new(64, &board)));
    shared_cell = board_find(board, 5, 1);
    pthread_t threads[THREADS];
    size_t taken[THREADS] = {0};
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, &taken[i]), 0);
    }
    size_t sum = 0;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum += taken[i];
    }
    struct board_entry now = {0};
    assert_true(board_read(shared_cell, 5, &now));
    assert_int_equal(sum, now.at_ms); /* none was taken twice. */
    board_free(board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cell_keeps_what_was_written),
        cmocka_unit_test(a_full_board_gives_away_what_is_stale),
        cmocka_unit_test(of_many_threads_one_takes_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
