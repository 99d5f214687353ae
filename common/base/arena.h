/*
 * arena: memory for one request or one piece of work, given back all at once.
 *
 * Shape      a first block kept over resets, further blocks as needed up to a bound; 16-byte
 *            aligned.
 * Units      bytes.
 * Ownership  the arena owns all that it lends; a loan dies at arena_reset() or arena_free().
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY past the bound or when the heap is full, which 'full' tells apart; *out
 *            untouched.
 * Source     Varnish workspaces and H2O pools: one reset instead of many frees.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct arena_block;

struct arena {
    struct arena_block *first; /* kept over resets; NULL until the first loan. */
    struct arena_block *last;  /* where the next loan comes from. */
    size_t block_size;         /* of a block; a larger loan gets a block of its own. */
    size_t total;              /* bytes taken from the heap. */
    size_t max;                /* bound of total. */
    bool full;                 /* since the start or the last reset a loan would have passed it. */
};

/* An empty arena; takes memory with the first loan. 'block_size' is at least 256. */
void arena_init(struct arena *a, size_t block_size, size_t max);

/* Gives all memory back to the heap. Safe on a zeroed or freed arena. */
void arena_free(struct arena *a);

/* Ends every loan; keeps the first block. */
void arena_reset(struct arena *a);

/* Lends 'size' bytes, not zeroed. */
MUST_CHECK struct err arena_alloc(struct arena *a, size_t size, void **out);

/* Lends 'count' zeroed items of 'size' bytes; their product is checked. */
MUST_CHECK struct err arena_calloc(struct arena *a, size_t count, size_t size, void **out);

/* Copies bytes into the arena; a NUL is written behind them, outside of the slice. */
MUST_CHECK struct err arena_dup(struct arena *a, struct slice bytes, struct slice *out);

/* Copies pieces, one behind the other, likewise. */
MUST_CHECK struct err arena_join(struct arena *a, const struct slice *pieces, size_t count,
                                 struct slice *out);

/* Formats text into the arena; a NUL is written behind it. */
MUST_CHECK struct err arena_printf(struct arena *a, struct slice *out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define auto_arena __attribute__((cleanup(arena_free)))
