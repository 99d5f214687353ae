/*
 * cells: counters by key, in one bounded table that all workers share.
 *
 * Shape      a cell is a key and a value of 64 bits each, changed as one. What a value means is its
 *            user's; one that is not above a floor says no more than an empty cell, which any key
 *            may take. A key looks into two sets of eight cells. Two regions: keys that hold what
 *            callers make up have one of their own, so that they crowd out nobody else's. One that
 *            finds no room there counts with all others that differ from it in that alone; one that
 *            finds none anywhere, in a cell that it shares with whoever else finds none. So a cell
 *            above its floor is never given away, and nobody has his counter set back by making
 *            keys.
 * Units      cells.
 * Threads    any, without a lock: a compare and exchange of 16 bytes. What is read or changed is a
 *            cell of that key, or is reported as lost.
 * Errors     making: E_NO_MEMORY.
 * Source     docs/decisions/0115-limits-are-cells.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct dp_cells;
struct dp_cell;

/* How a key is looked up, and what an empty cell of it says. */
struct dp_cell_key {
    uint64_t own;    /* a hash; never zero. */
    uint64_t shared; /* of what callers do not make up; the same as 'own' when that is all. */
    uint64_t floor;  /* a cell whose value is not above it is free. */
    uint64_t start;  /* the value of a new cell; what is above it counts. */
};

/* Where a key counts. */
struct dp_cell_place {
    struct dp_cell *cell;
    uint64_t key; /* zero: it is shared by all that found no room. */
};

enum dp_cell_outcome { DP_CELL_DONE, DP_CELL_AGAIN, DP_CELL_LOST };

/* 'count' cells in all, rounded up to a power of two, half of them of each region; 128 at least. */
MUST_CHECK struct err dp_cells_new(size_t count, struct dp_cells **out);
void dp_cells_free(struct dp_cells *cells);

/* The place of a key: made when it has none. */
struct dp_cell_place dp_cells_at(struct dp_cells *cells, const struct dp_cell_key *key);

/* The place of a key that counts somewhere; false: nowhere. */
bool dp_cells_seek(struct dp_cells *cells, const struct dp_cell_key *key,
                   struct dp_cell_place *out);

/* The value there; false: the cell is another key's by now. */
bool dp_cell_read(const struct dp_cell_place *place, uint64_t *out);

/*
 * Changes the value from *seen to 'to'. AGAIN: it was another one, which is in *seen now. LOST: the
 * cell is another key's by now.
 */
enum dp_cell_outcome dp_cell_change(const struct dp_cell_place *place, uint64_t *seen, uint64_t to);

/*
 * All cells by an index, for keeping what they say over a restart. dp_cells_get(): false when the
 * cell is free or is changing hands. dp_cells_restore(): before any other thread counts, at 'from'
 * or behind it where the key may be there; TOO_LARGE: there is no room. Keys that are restored in
 * the order of their indexes, each from behind the one before, all find room in a table as large.
 */
size_t dp_cells_count(const struct dp_cells *cells);
size_t dp_cells_index(const struct dp_cells *cells, const struct dp_cell_place *place);
bool dp_cells_is_made_up(const struct dp_cells *cells, size_t index);
bool dp_cells_get(const struct dp_cells *cells, size_t index, uint64_t *out_key,
                  uint64_t *out_value);
MUST_CHECK struct err dp_cells_restore(struct dp_cells *cells, bool made_up, uint64_t key,
                                       uint64_t value, size_t from, size_t *out_index);

/* How often a key found no cell of its own, since start. */
uint64_t dp_cells_crowded(const struct dp_cells *cells);
