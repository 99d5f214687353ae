/*
 * failing_alloc: the allocator of a test's program, with one call that fails: the 'failing'-th of
 * 'allocations'. For one file of a program that is linked with
 * -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc.
 */
#pragma once

#include <stdbool.h>
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
static unsigned long allocations;
static unsigned long failing; /* zero: none. */

static bool fails_now(void)
{
    return ++allocations == failing;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return fails_now() ? NULL : __real_realloc(p, size);
}
