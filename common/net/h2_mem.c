/* h2_mem: see h2_mem.h. */
#include "common/net/h2_mem.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { KEEPS = false };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { KEEPS = false };
#else
enum { KEEPS = true };
#endif
#else
enum { KEEPS = true };
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
_Static_assert(PAGES_BLOCK_BYTES < 1 << (H2_MEM_CLASS_MIN_BITS + H2_MEM_CLASSES), "it is a class");

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

static size_t size_of(size_t index)
{
    return (size_t)1 << (index + H2_MEM_CLASS_MIN_BITS);
}

/* Of the heap; but what keeps has its chunks of pages. */
static struct h2_mem_block *block_new(struct h2_mem *mem, size_t total)
{
    bool paged = mem->keeps && total == PAGES_BLOCK_BYTES;
    return paged ? pages_take(&mem->chunks) : malloc(total);
}

static void block_free(struct h2_mem *mem, struct h2_mem_block *block, size_t total)
{
    if (mem->keeps && total == PAGES_BLOCK_BYTES) {
        pages_give(&mem->chunks, block);
    } else {
        free(block);
    }
}

void h2_mem_init(struct h2_mem *mem)
{
    *mem = (struct h2_mem){.keeps = KEEPS};
}

/* Off the list of a class; NULL: it is empty. */
static struct h2_mem_block *pop(struct h2_mem *mem, size_t index)
{
    struct h2_mem_block *block = mem->free[index];
    if (block != NULL) {
        mem->free[index] = block->u.next;
        mem->kept -= size_of(index);
        mem->idle = mem->kept < mem->idle ? mem->kept : mem->idle;
    }
    return block;
}

void *h2_mem_alloc(struct h2_mem *mem, size_t size)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t total = size + sizeof(struct h2_mem_block);
    size_t index = class_of(total);
    if (index < H2_MEM_CLASSES) {
        total = size_of(index);
    }
    struct h2_mem_block *block = index < H2_MEM_CLASSES ? pop(mem, index) : NULL;
    if (block == NULL) {
        block = block_new(mem, total);
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
    if (block->class_index >= H2_MEM_CLASSES || !mem->keeps) {
        block_free(mem, block, total);
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

void h2_mem_give_back(struct h2_mem *mem)
{
    size_t most = mem->idle > H2_MEM_KEPT_BYTES ? mem->idle - H2_MEM_KEPT_BYTES : 0;
    most = most < H2_MEM_GIVE_BYTES ? most : H2_MEM_GIVE_BYTES;
    size_t given = 0;
    for (size_t i = H2_MEM_CLASSES; i-- > 0;) { /* large ones first: they are fewer. */
        while (given < most && mem->free[i] != NULL) {
            block_free(mem, pop(mem, i), size_of(i));
            given += size_of(i);
        }
    }
    mem->idle = mem->kept;
}

void h2_mem_clear(struct h2_mem *mem)
{
    for (size_t i = 0; i < H2_MEM_CLASSES; i++) {
        while (mem->free[i] != NULL) {
            block_free(mem, pop(mem, i), size_of(i));
        }
    }
    pages_clear(&mem->chunks);
    mem->idle = 0;
}
