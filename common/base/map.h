/*
 * map: byte-string keys to pointers.
 *
 * Shape      open addressing with linear probing, at most half full; XXH3-64 with a seed chosen
 *            at start, so that keys from outside cannot be aimed at one slot.
 * Ownership  keys and values are borrowed: they must outlive the map, or their removal.
 * Threads    any number of readers, or one writer.
 * Errors     E_NO_MEMORY from map_put(); the map is unchanged.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct map_entry {
    struct slice key; /* ptr NULL: the slot is free. */
    uint64_t hash;
    void *value;
};

struct map {
    struct map_entry *slots; /* owned; a power of two. NULL while empty. */
    size_t slot_count;
    size_t count;
};

/* Frees the slots; an empty map needs no init but zero. */
void map_free(struct map *m);

/* Sets key to value; an old value under the key goes to *out_old, if that is not NULL. */
MUST_CHECK struct err map_put(struct map *m, struct slice key, void *value, void **out_old);

/* The value under key, or NULL. */
void *map_get(const struct map *m, struct slice key);

/* Takes the key out; returns its value, or NULL. */
void *map_remove(struct map *m, struct slice key);

/* Walks all entries in no particular order: start with *at = 0; NULL at the end. */
const struct map_entry *map_next(const struct map *m, size_t *at);

/* Takes the entry out that map_next() gave last, and returns its value; the walk goes on, leaves
 * out none, and may give one a second time. */
void *map_remove_here(struct map *m, size_t *at);

/* The seeded hash that the map uses; stable within one process only. */
uint64_t map_hash(struct slice key);

/* The same with a seed of the caller's own, for what outlives the process. */
uint64_t map_hash_seeded(struct slice key, uint64_t own_seed);
