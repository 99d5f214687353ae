/*
 * kept: the bytes of a request that may have to be sent once more.
 *
 * Shape      a small body lies in the struct itself, so that a unary call takes no memory; a larger
 *            one moves to a buf.
 * Ownership  whoever calls op_kept_init() calls op_kept_free().
 * Threads    one worker.
 * Errors     E_TOO_LARGE past the bound, E_NO_MEMORY; what is kept stays.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum { OP_KEPT_SMALL = 512 };

struct op_kept {
    size_t small_size;
    struct buf large; /* all of it, once it is more than 'small' holds. */
    uint8_t small[OP_KEPT_SMALL];
};

/* Nothing kept yet, at most 'max' bytes ever. */
void op_kept_init(struct op_kept *kept, size_t max);

/* Forgets all. Safe to call again. */
void op_kept_free(struct op_kept *kept);

MUST_CHECK struct err op_kept_add(struct op_kept *kept, struct slice bytes);

/* All of it; borrowed until the next change. */
struct slice op_kept_slice(const struct op_kept *kept);
