/*
 * cache: leaves that are kept from one load to the next, so that an unchanged file is not parsed
 * again.
 *
 * Shape      found by the bytes of the file, all of them; those that were not used longest go
 *            when limits.source_cache_bytes are full. A file with anything wrong in it is not kept:
 *            it is parsed each time, and says each time what is wrong.
 * Ownership  the cache owns its leaves. A model that was loaded with it borrows them: only one
 *            such model is alive at a time, and none outlives the cache.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY; then nothing is kept.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct cp_leaf;
struct cp_source_cache;

MUST_CHECK struct err cp_source_cache_new(struct cp_source_cache **out);
void cp_source_cache_free(struct cp_source_cache *cache); /* NULL is fine. */

/* For cp_source_load() and cp_model_free(): a model begins, and ends with its leaves. */
void cp_source_cache_begin(struct cp_source_cache *cache);
void cp_source_cache_end(struct cp_source_cache *cache, struct cp_leaf *const *leaves,
                         size_t count);

/*
 * The leaf of a file of these bytes, renewed for its number; NULL when there is none, when it has
 * more YAML nodes than 'nodes', or when another file of the model has the same bytes.
 */
struct cp_leaf *cp_source_cache_take(struct cp_source_cache *cache, struct slice bytes,
                                     uint32_t file, uint64_t nodes);

/* Keeps a clean leaf of the present model; not a second one of the same bytes. */
MUST_CHECK struct err cp_source_cache_keep(struct cp_source_cache *cache, struct cp_leaf *leaf,
                                           struct slice bytes);

/* What it holds, for tests and figures. */
struct cp_source_cache_counts {
    size_t leaves;
    size_t bytes;
    uint64_t hits; /* files that were not parsed. */
    uint64_t misses;
};
struct cp_source_cache_counts cp_source_cache_counts(const struct cp_source_cache *cache);
