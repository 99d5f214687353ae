/* arena: see arena.h. */
#include "common/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { ARENA_ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t size; /* bytes of 'bytes'. */
    size_t used;
    size_t pad;
    uint8_t bytes[];
};

_Static_assert(sizeof(struct arena_block) % ARENA_ALIGN == 0, "loans stay aligned");

void arena_init(struct arena *a, size_t block_size, size_t max)
{
    CHECK(block_size >= 256);
    *a = (struct arena){.block_size = block_size, .max = max};
}

static void free_from(struct arena *a, struct arena_block *block)
{
    while (block != NULL) {
        struct arena_block *next = block->next;
        a->total -= sizeof(*block) + block->size;
        free(block);
        block = next;
    }
}

void arena_free(struct arena *a)
{
    free_from(a, a->first);
    a->first = NULL;
    a->last = NULL;
}

void arena_reset(struct arena *a)
{
    a->full = false;
    if (a->first == NULL) {
        return;
    }
    free_from(a, a->first->next);
    a->first->next = NULL;
    a->first->used = 0;
    a->last = a->first;
}

/* A loan that would pass the bound. */
static struct err refuse(struct arena *a)
{
    a->full = true;
    return FAIL(E_NO_MEMORY);
}

static MUST_CHECK struct err add_block(struct arena *a, size_t size)
{
    size_t want = size < a->block_size ? a->block_size : size;
    size_t bytes = sizeof(struct arena_block) + want;
    if (bytes > a->max || a->total > a->max - bytes) {
        return refuse(a);
    }
    struct arena_block *block = malloc(bytes);
    if (block == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    block->next = NULL;
    block->size = want;
    block->used = 0;
    if (a->last == NULL) {
        a->first = block;
    } else {
        a->last->next = block;
    }
    a->last = block;
    a->total += bytes;
    return OK;
}

struct err arena_alloc(struct arena *a, size_t size, void **out)
{
    CHECK(a->block_size > 0);
    if (size > a->max) {
        return refuse(a);
    }
    size_t need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (a->last == NULL || a->last->size - a->last->used < need) {
        TRY(add_block(a, need));
    }
    *out = a->last->bytes + a->last->used;
    a->last->used += need;
    return OK;
}

struct err arena_calloc(struct arena *a, size_t count, size_t size, void **out)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return refuse(a);
    }
    void *ptr = NULL;
    TRY(arena_alloc(a, bytes, &ptr));
    *out = memset(ptr, 0, bytes);
    return OK;
}

struct err arena_dup(struct arena *a, struct slice bytes, struct slice *out)
{
    if (bytes.size >= a->max) {
        return refuse(a);
    }
    void *ptr = NULL;
    TRY(arena_alloc(a, bytes.size + 1, &ptr));
    if (bytes.size > 0) {
        (void)memcpy(ptr, bytes.ptr, bytes.size);
    }
    ((uint8_t *)ptr)[bytes.size] = '\0';
    *out = slice_of(ptr, bytes.size);
    return OK;
}

struct err arena_join(struct arena *a, const struct slice *pieces, size_t count, struct slice *out)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size >= a->max - size) {
            return refuse(a);
        }
        size += pieces[i].size;
    }
    uint8_t *to = NULL;
    TRY(arena_alloc(a, size + 1, (void **)&to));
    *out = slice_of(to, size);
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > 0) {
            (void)memcpy(to, pieces[i].ptr, pieces[i].size);
            to += pieces[i].size;
        }
    }
    *to = '\0';
    return OK;
}

struct err arena_printf(struct arena *a, struct slice *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(size >= 0);
    void *ptr = NULL;
    TRY(arena_alloc(a, (size_t)size + 1, &ptr));
    va_start(args, format);
    (void)vsnprintf(ptr, (size_t)size + 1, format, args);
    va_end(args);
    *out = slice_of(ptr, (size_t)size);
    return OK;
}
