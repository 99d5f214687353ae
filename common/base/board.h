/*
 * board: a small state and a time for each of many keys, which threads share.
 *
 * Shape      a table of fixed size. A key has a cell among a few places that its hash gives; one
 *            that nobody wrote to for BOARD_STALE_MS is given to another key.
 * Units      milliseconds of one clock, whichever it is.
 * Ownership  cells are the board's.
 * Threads    any number, without a lock: a cell is read and exchanged as a whole.
 * Errors     E_NO_MEMORY. Without a place a key has no cell, which its users must bear.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct board;
struct board_cell;

enum { BOARD_STATE_MAX = 3, BOARD_STREAK_MAX = 63, BOARD_STALE_MS = 900000 };

/* What a cell says; zeroed: nothing yet. */
struct board_entry {
    uint32_t state;  /* up to BOARD_STATE_MAX. */
    uint32_t streak; /* up to BOARD_STREAK_MAX. */
    uint64_t at_ms;  /* below 2^40; 0: never. */
};

MUST_CHECK struct err board_new(size_t cell_count, struct board **out);
void board_free(struct board *board); /* NULL is fine. */

/* The cell of a key, which is not zero; found, or taken for it. NULL: there is no place. */
struct board_cell *board_find(struct board *board, uint64_t key, uint64_t now_ms);

/* What the cell says of the key; false: it was given to another one. */
bool board_read(struct board_cell *cell, uint64_t key, struct board_entry *out);

/* Writes 'after' where 'before' stands still. */
bool board_exchange(struct board_cell *cell, uint64_t key, const struct board_entry *before,
                    const struct board_entry *after);
