/*
 * h2_queue: bytes of a body on their way out, in chunks that several queues may share.
 *
 * Shape      chunks of a few sizes, the larger the more comes. What is added is copied once, into
 *            the last chunk; another queue takes it over by reference, so that a request that is
 *            kept lies in memory once, however often it is sent. A large piece is lent to the
 *            connection's output and not copied again; small ones are, together.
 * Units      bytes.
 * Ownership  chunks are counted: the last queue or the output that needs one frees it. Their memory
 *            is the worker's (h2_env), which outlives all its queues.
 * Threads    one worker.
 * Errors     false when memory is out; the queue is what it was.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct h2_chunk;
struct h2_env;
struct h2_mem;
struct net_conn;

/* From this size on a piece is lent to the connection's output instead of copied. */
enum { H2_QUEUE_LEND_BYTES = 2048 };

struct h2_queue {
    struct h2_mem *mem;    /* borrowed. */
    struct h2_chunk *head; /* NULL: it is empty. */
    struct h2_chunk *tail;
    size_t size; /* bytes in it. */
};

/* Empty; takes no memory yet. */
void h2_queue_init(struct h2_queue *q, struct h2_env *env);

/* Drops all; the queue is empty, and may be used again. */
void h2_queue_clear(struct h2_queue *q);

/* Copies bytes behind the others: whole, or not at all. */
bool h2_queue_add(struct h2_queue *q, struct slice bytes);

/* Takes over, by reference, what lies in 'from' behind its first 'skip' bytes. 'from' may grow and
 * be cleared after; of the same h2_env. */
bool h2_queue_share(struct h2_queue *q, const struct h2_queue *from, size_t skip);

/* How many bytes, 'max' at most, the next frame carries best: one large piece, or the small ones
 * up to the next large one. Zero when the queue is empty. */
size_t h2_queue_frame(const struct h2_queue *q, size_t max);

/* Moves a frame into the output: its head of H2_FRAME_HEAD_BYTES, and the first 'size' bytes, which
 * are in the queue. E_NO_MEMORY and what net_conn_write() says: the connection is not to be used
 * any more. */
MUST_CHECK struct err h2_queue_move(struct h2_queue *q, struct net_conn *to, const uint8_t *head,
                                    size_t size);
