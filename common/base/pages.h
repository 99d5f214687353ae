/*
 * pages: blocks of 16 KiB that the system has back when they are given back.
 *
 * Shape      slabs of 1 MiB of mapped memory, cut into blocks. What is given back keeps its
 *            addresses and loses its memory, so that resident memory follows use: free() gives
 *            back only what lies at the end of the heap, or on pages that hold nothing else.
 * Units      bytes.
 * Ownership  whoever takes gives back, to the same pages.
 * Threads    one.
 * Errors     NULL when memory is out.
 */
#pragma once

#include <stddef.h>

enum { PAGES_BLOCK_BYTES = 16384, PAGES_SLAB_BLOCKS = 64 };

struct pages { /* zeroed: empty. */
    void **slabs;
    size_t slab_count;
    void **free; /* has room for all blocks. */
    size_t free_count;
};

/* Zeroed where it has its memory anew; a first touch of each of its pages costs a fault. */
void *pages_take(struct pages *p);

/* One system call. What stood in the block is gone. */
void pages_give(struct pages *p, void *block);

/* Unmaps all; no block is in use. */
void pages_clear(struct pages *p);
