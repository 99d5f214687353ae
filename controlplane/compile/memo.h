/*
 * memo: what was made from a key, kept for when the same key comes again.
 *
 * Shape      keys are bytes that name all that the value depends on. What was not asked for longest
 *            goes when the values are heavier than the bound.
 * Ownership  the memo owns its values and copies its keys; what it lends lives until the next put.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY; then the value is the caller's still.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"

struct cp_memo_entry;

struct cp_memo {
    struct map map;
    struct cp_memo_entry *newest; /* asked for last. */
    struct cp_memo_entry *oldest;
    size_t bytes; /* of all values, keys and what holds them. */
    size_t bytes_max;
    void (*drop)(void *value); /* gives a value back. */
};

void cp_memo_init(struct cp_memo *memo, size_t bytes_max, void (*drop)(void *value));
void cp_memo_free(struct cp_memo *memo);

/* The value, or NULL. */
void *cp_memo_get(struct cp_memo *memo, struct slice key);

/* Takes a value of so many bytes, for a key that has none. It may be dropped at once: a value that
 * goes on being used needs a hold of its own. */
MUST_CHECK struct err cp_memo_put(struct cp_memo *memo, struct slice key, void *value,
                                  size_t bytes);
