/* buf: see buf.h. */
#include "common/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { BUF_FIRST = 256 };

/* Makes room for 'more' bytes and one NUL behind them. */
static MUST_CHECK struct err grow(struct buf *b, size_t more)
{
    CHECK(b->size <= b->capacity);
    if (more > b->max || b->size > b->max - more) {
        return FAIL(E_TOO_LARGE);
    }
    size_t need = b->size + more + 1;
    if (need <= b->capacity) {
        return OK;
    }
    size_t capacity = b->capacity < BUF_FIRST ? BUF_FIRST : b->capacity;
    while (capacity < need) {
        capacity *= 2;
    }
    uint8_t *ptr = realloc(b->ptr, capacity);
    if (ptr == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    b->ptr = ptr;
    b->capacity = capacity;
    return OK;
}

void buf_free(struct buf *b)
{
    free(b->ptr);
    *b = BUF_MAX(b->max);
}

void buf_clear(struct buf *b)
{
    b->size = 0;
}

struct err buf_add(struct buf *b, struct slice bytes)
{
    TRY(grow(b, bytes.size));
    if (bytes.size > 0) {
        (void)memcpy(b->ptr + b->size, bytes.ptr, bytes.size);
        b->size += bytes.size;
    }
    return OK;
}

struct err buf_add_str(struct buf *b, const char *text)
{
    return buf_add(b, slice_str(text));
}

struct err buf_add_byte(struct buf *b, uint8_t byte)
{
    return buf_add(b, slice_of(&byte, 1));
}

struct err buf_addf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(size >= 0);
    TRY(grow(b, (size_t)size));
    va_start(args, format);
    (void)vsnprintf((char *)b->ptr + b->size, (size_t)size + 1, format, args);
    va_end(args);
    b->size += (size_t)size;
    return OK;
}

struct err buf_reserve(struct buf *b, size_t size, uint8_t **out)
{
    TRY(grow(b, size));
    *out = b->ptr + b->size;
    return OK;
}

void buf_commit(struct buf *b, size_t size)
{
    CHECK(size <= b->capacity - b->size);
    b->size += size;
}

void buf_drop(struct buf *b, size_t size)
{
    CHECK(size <= b->size);
    if (size > 0 && size < b->size) {
        (void)memmove(b->ptr, b->ptr + size, b->size - size);
    }
    b->size -= size;
}

struct err buf_cstr(struct buf *b, const char **out)
{
    TRY(grow(b, 0));
    b->ptr[b->size] = '\0';
    *out = (const char *)b->ptr;
    return OK;
}
