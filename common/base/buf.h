/*
 * buf: bytes that grow at the end, up to a bound.
 *
 * Shape      one heap block, doubled as needed; never more than 'max' bytes of content.
 * Units      bytes.
 * Ownership  the buf owns its block; buf_slice() borrows until the next change.
 * Threads    one owner at a time.
 * Errors     E_TOO_LARGE past the bound, E_NO_MEMORY when the heap is full; content unchanged.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct buf {
    uint8_t *ptr;    /* owned; NULL while nothing was added. */
    size_t size;     /* bytes of content. */
    size_t capacity; /* bytes of the block. */
    size_t max;      /* bound of size. */
};

/* An empty buf with a bound; takes no memory yet. */
#define BUF_MAX(bound) ((struct buf){.max = (bound)})

/* Frees the block; the buf is empty and keeps its bound. Safe on an empty one. */
void buf_free(struct buf *b);

/* Drops the content, keeps the block. */
void buf_clear(struct buf *b);

/* Appends. */
MUST_CHECK struct err buf_add(struct buf *b, struct slice bytes);
MUST_CHECK struct err buf_add_str(struct buf *b, const char *text);
MUST_CHECK struct err buf_add_byte(struct buf *b, uint8_t byte);
MUST_CHECK struct err buf_addf(struct buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Lends at least 'size' writable bytes behind the content; buf_commit() makes them content. */
MUST_CHECK struct err buf_reserve(struct buf *b, size_t size, uint8_t **out);
void buf_commit(struct buf *b, size_t size);

/* Drops the first 'size' bytes of the content (moves the rest to the front). */
void buf_drop(struct buf *b, size_t size);

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->ptr, b->size);
}

/* The content as a C string: a NUL is written behind it, outside of its size. */
MUST_CHECK struct err buf_cstr(struct buf *b, const char **out);

#define auto_buf __attribute__((cleanup(buf_free)))
