/* cache: see cache.h. */
#include "controlplane/source/cache.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "controlplane/source/leaf.h"

struct cp_source_cache {
    struct map by_bytes;
    struct cp_leaf *newest; /* used last. */
    struct cp_leaf *oldest;
    uint64_t serial; /* of the leaf that was kept last. */
    bool busy;       /* a model is alive. */
    struct cp_source_cache_counts counts;
};

struct err cp_source_cache_new(struct cp_source_cache **out)
{
    *out = calloc(1, sizeof(**out));
    return *out == NULL ? FAIL(E_NO_MEMORY) : OK;
}

static size_t leaf_bytes(const struct cp_leaf *leaf)
{
    return sizeof(*leaf) + leaf->arena.total + leaf->capacity * sizeof(*leaf->resources);
}

/* ---- order of use ---- */

static void unlink_leaf(struct cp_source_cache *cache, struct cp_leaf *leaf)
{
    *(leaf->newer != NULL ? &leaf->newer->older : &cache->newest) = leaf->older;
    *(leaf->older != NULL ? &leaf->older->newer : &cache->oldest) = leaf->newer;
    leaf->newer = NULL;
    leaf->older = NULL;
}

static void link_newest(struct cp_source_cache *cache, struct cp_leaf *leaf)
{
    leaf->older = cache->newest;
    *(leaf->older != NULL ? &leaf->older->newer : &cache->oldest) = leaf;
    cache->newest = leaf;
}

static void drop(struct cp_source_cache *cache, struct cp_leaf *leaf)
{
    void *removed = map_remove(&cache->by_bytes, leaf->bytes);
    CHECK(removed == leaf);
    unlink_leaf(cache, leaf);
    cache->counts.leaves--;
    cp_leaf_free(leaf);
}

void cp_source_cache_free(struct cp_source_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    CHECK(!cache->busy);
    while (cache->oldest != NULL) {
        drop(cache, cache->oldest);
    }
    map_free(&cache->by_bytes);
    free(cache);
}

/* ---- a model ---- */

void cp_source_cache_begin(struct cp_source_cache *cache)
{
    CHECK(!cache->busy); /* two models would write into the same leaves. */
    cache->busy = true;
}

/* Leaves grow when their references are linked anew: they are weighed here. */
static void make_room(struct cp_source_cache *cache)
{
    size_t bytes = 0;
    struct cp_leaf *leaf = cache->newest;
    while (leaf != NULL && bytes + leaf_bytes(leaf) <= limits.source_cache_bytes) {
        bytes += leaf_bytes(leaf);
        leaf = leaf->older;
    }
    while (leaf != NULL) {
        struct cp_leaf *older = leaf->older;
        drop(cache, leaf);
        leaf = older;
    }
    cache->counts.bytes = bytes;
}

void cp_source_cache_end(struct cp_source_cache *cache, struct cp_leaf *const *leaves, size_t count)
{
    CHECK(cache->busy);
    for (size_t i = 0; i < count; i++) {
        leaves[i]->used = false;
    }
    cache->busy = false;
    make_room(cache);
}

struct cp_leaf *cp_source_cache_take(struct cp_source_cache *cache, struct slice bytes,
                                     uint32_t file, uint64_t nodes)
{
    CHECK(cache->busy);
    struct cp_leaf *leaf = map_get(&cache->by_bytes, bytes);
    if (leaf == NULL || leaf->used || leaf->nodes > nodes) {
        cache->counts.misses++;
        return NULL;
    }
    cache->counts.hits++;
    unlink_leaf(cache, leaf);
    link_newest(cache, leaf);
    leaf->used = true;
    cp_leaf_renew(leaf, file);
    return leaf;
}

struct err cp_source_cache_keep(struct cp_source_cache *cache, struct cp_leaf *leaf,
                                struct slice bytes)
{
    CHECK(leaf->clean && leaf->serial == 0);
    if (map_get(&cache->by_bytes, bytes) != NULL) {
        return OK;
    }
    TRY(arena_dup(&leaf->arena, bytes, &leaf->bytes));
    TRY(map_put(&cache->by_bytes, leaf->bytes, leaf, /* out_old= */ NULL));
    link_newest(cache, leaf);
    leaf->serial = ++cache->serial;
    leaf->used = true;
    cache->counts.leaves++;
    return OK;
}

struct cp_source_cache_counts cp_source_cache_counts(const struct cp_source_cache *cache)
{
    return cache->counts;
}
