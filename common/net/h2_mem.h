/*
 * h2_mem: a worker's memory for HTTP/2: blocks of a few sizes, kept for the next stream.
 *
 * Shape      size classes of powers of two, each with a list of free blocks; larger ones go to
 *            the heap. In steady state a stream costs no call of malloc(). What a burst left in the
 *            lists goes back bit by bit, when it has lain idle; the chunks of bodies, which are
 *            most of that, to the system.
 * Units      bytes.
 * Ownership  whoever allocates frees, with the same h2_mem, which outlives all its blocks.
 * Threads    one worker.
 * Errors     NULL when the heap is full.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/pages.h"

/* Classes of 32 bytes to 32 KiB, the block's head counted. */
enum { H2_MEM_CLASS_MIN_BITS = 5, H2_MEM_CLASSES = 11 };

/* Bytes of a block's head. */
enum { H2_MEM_HEAD_BYTES = 16 };

/* What the lists keep in any case; and about how much more goes back at once. */
enum { H2_MEM_KEPT_BYTES = 16 << 20, H2_MEM_GIVE_BYTES = 2 << 20 };

struct h2_mem_block;

struct h2_mem { /* zeroed: keeps nothing. */
    struct h2_mem_block *free[H2_MEM_CLASSES];
    struct pages chunks; /* blocks of PAGES_BLOCK_BYTES. */
    bool keeps;
    size_t kept;  /* bytes in the lists. */
    size_t idle;  /* the least of 'kept' since h2_mem_give_back(). */
    size_t lent;  /* blocks in use. */
    size_t bytes; /* bytes in use, heads and slack counted. */
};

/* Empty, and keeps; but under a sanitizer, which then sees every use after free. */
void h2_mem_init(struct h2_mem *mem);

/* Contents are undefined. */
void *h2_mem_alloc(struct h2_mem *mem, size_t size);
void *h2_mem_calloc(struct h2_mem *mem, size_t count, size_t size);

/* Accepts NULL. */
void h2_mem_free(struct h2_mem *mem, void *ptr);

/* Bytes that a block really has room for. */
size_t h2_mem_size(const void *ptr);

/* Gives back some of what was not needed since the last call, H2_MEM_GIVE_BYTES at most. */
void h2_mem_give_back(struct h2_mem *mem);

/* Gives all kept blocks back; none is lent. */
void h2_mem_clear(struct h2_mem *mem);
