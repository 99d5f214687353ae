/* pages: see pages.h. */
#include "common/base/pages.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/base/check.h"

enum { SLAB_BYTES = PAGES_SLAB_BLOCKS * PAGES_BLOCK_BYTES };

/* Room for a slab more, and for its blocks when all are free. */
static bool make_room(struct pages *p)
{
    size_t slabs = p->slab_count + 1;
    void **more = realloc((void *)p->slabs, slabs * sizeof(*p->slabs));
    if (more == NULL) {
        return false;
    }
    p->slabs = more;
    more = realloc((void *)p->free, slabs * PAGES_SLAB_BLOCKS * sizeof(*p->free));
    if (more == NULL) {
        return false;
    }
    p->free = more;
    return true;
}

static bool add_slab(struct pages *p)
{
    if (!make_room(p)) {
        return false;
    }
    unsigned char *slab =
        mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab == MAP_FAILED) {
        return false;
    }
    p->slabs[p->slab_count++] = slab;
    for (size_t i = 0; i < PAGES_SLAB_BLOCKS; i++) {
        p->free[p->free_count++] = slab + (PAGES_SLAB_BLOCKS - 1 - i) * PAGES_BLOCK_BYTES;
    }
    return true;
}

void *pages_take(struct pages *p)
{
    if (p->free_count == 0 && !add_slab(p)) {
        return NULL;
    }
    return p->free[--p->free_count];
}

void pages_give(struct pages *p, void *block)
{
    CHECK(p->free_count < p->slab_count * PAGES_SLAB_BLOCKS);
    (void)madvise(block, PAGES_BLOCK_BYTES, MADV_DONTNEED); /* where it fails, memory stays ours. */
    p->free[p->free_count++] = block;
}

void pages_clear(struct pages *p)
{
    CHECK(p->free_count == p->slab_count * PAGES_SLAB_BLOCKS);
    for (size_t i = 0; i < p->slab_count; i++) {
        CHECK(munmap(p->slabs[i], SLAB_BYTES) == 0);
    }
    free((void *)p->slabs);
    free((void *)p->free);
    *p = (struct pages){0};
}
