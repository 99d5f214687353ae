/*
 * h2_mem: a worker's memory for HTTP/2: blocks of a few sizes, kept for the next stream.
 *
 * Shape      size classes of powers of two, each with a list of free blocks; larger ones go to
 *            the heap. In steady state a stream costs no call of malloc().
 * Units      bytes.
 * Ownership  whoever allocates frees, with the same h2_mem, which outlives all its blocks.
 * Threads    one worker.
 * Errors     NULL when the heap is full.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Classes of 32 bytes to 32 KiB, the block's head counted. */
enum { H2_MEM_CLASS_MIN_BITS = 5, H2_MEM_CLASSES = 11 };

/* Bytes of a block's head. */
enum { H2_MEM_HEAD_BYTES = 16 };

struct h2_mem_block;

struct h2_mem {
    struct h2_mem_block *free[H2_MEM_CLASSES];
    size_t kept;  /* bytes in the lists. */
    size_t lent;  /* blocks in use. */
    size_t bytes; /* bytes in use, heads and slack counted. */
};

/* Contents are undefined. */
void *h2_mem_alloc(struct h2_mem *mem, size_t size);
void *h2_mem_calloc(struct h2_mem *mem, size_t count, size_t size);

/* Accepts NULL. */
void h2_mem_free(struct h2_mem *mem, void *ptr);

/* Bytes that a block really has room for. */
size_t h2_mem_size(const void *ptr);

/* Gives the kept blocks back to the heap. */
void h2_mem_clear(struct h2_mem *mem);
