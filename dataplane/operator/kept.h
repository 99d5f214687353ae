/*
 * kept: the bytes of a request that may have to be sent once more.
 *
 * Shape      a small body lies in the struct itself, so that a unary call takes no memory; a larger
 *            one moves to a queue, whose bytes are sent without a copy.
 * Ownership  whoever calls op_kept_init() calls op_kept_free(). What was sent lives on by itself.
 * Threads    one worker.
 * Errors     E_TOO_LARGE past the bound, E_NO_MEMORY; what is kept stays.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/h2_queue.h"

struct h2_env;
struct h2_stream;

enum { OP_KEPT_SMALL = 512 };

struct op_kept {
    size_t max; /* bound of all of it. */
    size_t small_size;
    struct h2_queue large; /* all of it, once it is more than 'small' holds. */
    uint8_t small[OP_KEPT_SMALL];
};

/* Nothing kept yet, at most 'max' bytes ever; 'env' is the worker's. */
void op_kept_init(struct op_kept *kept, struct h2_env *env, size_t max);

/* Forgets all. Safe to call again. */
void op_kept_free(struct op_kept *kept);

MUST_CHECK struct err op_kept_add(struct op_kept *kept, struct slice bytes);

/* Bytes that are kept. */
size_t op_kept_size(const struct op_kept *kept);

/* Sends all that lies behind the first 'skip' bytes: see h2_stream_send(). */
MUST_CHECK struct err op_kept_send(const struct op_kept *kept, size_t skip, struct h2_stream *to,
                                   bool end);
