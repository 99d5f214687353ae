/* Size-class free lists. */
#include "common/net/h2_mem.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

/* Most bytes that the lists keep; what is freed above goes to the heap. Nothing is kept under a
 * sanitizer, so that it sees every use after free. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { KEPT_MAX = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { KEPT_MAX = 0 };
#else
enum { KEPT_MAX = 16 << 20 };
#endif
#else
enum { KEPT_MAX = 16 << 20 };
#endif

/* Stands before each block; 16 bytes keep what follows aligned. */
struct h2_mem_block {
    union {
        struct h2_mem_block *next; /* while free. */
        uint64_t size;             /* while lent: room of the block, this head counted. */
    } u;
    uint64_t class_index; /* H2_MEM_CLASSES: too large for a class. */
};
_Static_assert(sizeof(struct h2_mem_block) == H2_MEM_HEAD_BYTES, "alignment of what follows");

static struct h2_mem_block *head_of(void *ptr)
{
    return (struct h2_mem_block *)ptr - 1;
}

static size_t class_of(size_t total)
{
    if (total <= (size_t)1 << H2_MEM_CLASS_MIN_BITS) {
        return 0;
    }
    size_t bits = 64U - (size_t)__builtin_clzll(total - 1);
    size_t index = bits - H2_MEM_CLASS_MIN_BITS;
    return index < H2_MEM_CLASSES ? index : H2_MEM_CLASSES;
}

void *h2_mem_alloc(struct h2_mem *mem, size_t size)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t total = size + sizeof(struct h2_mem_block);
    size_t index = class_of(total);
    if (index < H2_MEM_CLASSES) {
        total = (size_t)1 << (index + H2_MEM_CLASS_MIN_BITS);
    }
    struct h2_mem_block *block = index < H2_MEM_CLASSES ? mem->free[index] : NULL;
    if (block != NULL) {
        mem->free[index] = block->u.next;
        mem->kept -= total;
    } else {
        block = malloc(total);
        if (block == NULL) {
            return NULL;
        }
        block->class_index = index;
    }
    block->u.size = total;
    mem->lent++;
    mem->bytes += total;
    return block + 1;
}

void *h2_mem_calloc(struct h2_mem *mem, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    void *ptr = h2_mem_alloc(mem, total);
    if (ptr != NULL) {
        memset(ptr, 0, total);
    }
    return ptr;
}

void h2_mem_free(struct h2_mem *mem, void *ptr)
{
    if (ptr == NULL) {
        return;
    }
    struct h2_mem_block *block = head_of(ptr);
    size_t total = block->u.size;
    CHECK(mem->lent > 0);
    mem->lent--;
    mem->bytes -= total;
    if (block->class_index >= H2_MEM_CLASSES || mem->kept + total > KEPT_MAX) {
        free(block);
        return;
    }
    block->u.next = mem->free[block->class_index];
    mem->free[block->class_index] = block;
    mem->kept += total;
}

size_t h2_mem_size(const void *ptr)
{
    return ((const struct h2_mem_block *)ptr - 1)->u.size - sizeof(struct h2_mem_block);
}

void h2_mem_clear(struct h2_mem *mem)
{
    for (size_t i = 0; i < H2_MEM_CLASSES; i++) {
        while (mem->free[i] != NULL) {
            struct h2_mem_block *block = mem->free[i];
            mem->free[i] = block->u.next;
            free(block);
        }
    }
    mem->kept = 0;
}
