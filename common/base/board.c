/* board: see board.h. */
#include "common/base/board.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/hash.h"

enum { PLACES = 8 };

/* What a cell says, in one word: the key's mark, so that what stood there for another key is not
 * taken for this one's; time, streak and state. */
enum { STATE_BITS = 2, STREAK_BITS = 6, TIME_BITS = 40 };

struct board_cell {
    atomic_uint_fast64_t key; /* 0: free. */
    atomic_uint_fast64_t word;
};

struct board {
    size_t count; /* a power of two. */
    struct board_cell cells[];
};

static uint64_t mark_of(uint64_t key)
{
    return hash_mix(key) >> (STATE_BITS + STREAK_BITS + TIME_BITS);
}

static uint64_t word_of(uint64_t key, const struct board_entry *e)
{
    CHECK(e->state <= BOARD_STATE_MAX);
    CHECK(e->streak <= BOARD_STREAK_MAX);
    uint64_t time = e->at_ms & ((UINT64_C(1) << TIME_BITS) - 1);
    return ((mark_of(key) << TIME_BITS | time) << STREAK_BITS | e->streak) << STATE_BITS | e->state;
}

static struct board_entry entry_of(uint64_t key, uint64_t word)
{
    struct board_entry e = {0};
    if (word >> (STATE_BITS + STREAK_BITS + TIME_BITS) != mark_of(key)) {
        return e; /* another key's. */
    }
    e.state = (uint32_t)(word & BOARD_STATE_MAX);
    e.streak = (uint32_t)(word >> STATE_BITS & BOARD_STREAK_MAX);
    e.at_ms = word >> (STATE_BITS + STREAK_BITS) & ((UINT64_C(1) << TIME_BITS) - 1);
    return e;
}

struct err board_new(size_t cell_count, struct board **out)
{
    size_t count = PLACES;
    while (count < cell_count) {
        count *= 2;
    }
    struct board *board = calloc(1, sizeof(*board) + count * sizeof(struct board_cell));
    if (board == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    board->count = count;
    *out = board;
    return OK;
}

void board_free(struct board *board)
{
    free(board);
}

/* Whether nobody has written to the cell of 'key' for long. */
static bool is_stale(struct board_cell *cell, uint64_t key, uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&cell->word, memory_order_acquire);
    return entry_of(key, word).at_ms + BOARD_STALE_MS < now_ms;
}

static struct board_cell *take(struct board_cell *cell, uint64_t before, uint64_t key)
{
    uint_fast64_t wanted = before;
    bool taken = atomic_compare_exchange_strong(&cell->key, &wanted, key);
    return taken || wanted == key ? cell : NULL;
}

struct board_cell *board_find(struct board *board, uint64_t key, uint64_t now_ms)
{
    CHECK(key != 0);
    struct board_cell *places[PLACES];
    for (size_t i = 0; i < PLACES; i++) {
        places[i] = &board->cells[((size_t)key + i) & (board->count - 1)];
        uint64_t there = atomic_load_explicit(&places[i]->key, memory_order_acquire);
        struct board_cell *cell = there == key ? places[i]
                                  : there == 0 ? take(places[i], 0, key)
                                               : NULL;
        if (cell != NULL) {
            return cell;
        }
    }
    for (size_t i = 0; i < PLACES; i++) {
        uint64_t there = atomic_load_explicit(&places[i]->key, memory_order_acquire);
        struct board_cell *cell =
            is_stale(places[i], there, now_ms) ? take(places[i], there, key) : NULL;
        if (cell != NULL) {
            return cell;
        }
    }
    return NULL;
}

bool board_read(struct board_cell *cell, uint64_t key, struct board_entry *out)
{
    if (atomic_load_explicit(&cell->key, memory_order_acquire) != key) {
        return false;
    }
    *out = entry_of(key, atomic_load_explicit(&cell->word, memory_order_acquire));
    return true;
}

bool board_exchange(struct board_cell *cell, uint64_t key, const struct board_entry *before,
                    const struct board_entry *after)
{
    uint_fast64_t word = atomic_load_explicit(&cell->word, memory_order_acquire);
    struct board_entry now = entry_of(key, word);
    bool same =
        now.state == before->state && now.streak == before->streak && now.at_ms == before->at_ms;
    return same && atomic_compare_exchange_strong(&cell->word, &word, word_of(key, after));
}
