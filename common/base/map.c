/* map: see map.h. */
#include "common/base/map.h"

#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

#include "common/base/check.h"

enum { MAP_FIRST = 16 };

static uint64_t seed;

/* Before main() runs, so that a hash needs no check. */
__attribute__((constructor)) static void seed_make(void)
{
    CHECK(getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed));
}

uint64_t map_hash(struct slice key)
{
    return map_hash_seeded(key, seed);
}

uint64_t map_hash_seeded(struct slice key, uint64_t own_seed)
{
    return XXH3_64bits_withSeed(key.size == 0 ? (const void *)"" : key.ptr, key.size, own_seed);
}

void map_free(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}

/* The slot that holds the key, or the free one where it would go. */
static struct map_entry *find(const struct map *m, struct slice key, uint64_t hash)
{
    size_t mask = m->slot_count - 1;
    for (size_t i = (size_t)hash & mask;;
         i = (i + 1) & mask) { /* ends: half of the slots are free. */
        struct map_entry *slot = &m->slots[i];
        if (slot->key.ptr == NULL || (slot->hash == hash && slice_eq(slot->key, key))) {
            return slot;
        }
    }
}

static MUST_CHECK struct err grow(struct map *m)
{
    size_t slot_count = m->slot_count == 0 ? MAP_FIRST : m->slot_count * 2;
    struct map bigger = {.slots = calloc(slot_count, sizeof(struct map_entry)),
                         .slot_count = slot_count,
                         .count = m->count};
    if (bigger.slots == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < m->slot_count; i++) {
        if (m->slots[i].key.ptr != NULL) {
            *find(&bigger, m->slots[i].key, m->slots[i].hash) = m->slots[i];
        }
    }
    free(m->slots);
    *m = bigger;
    return OK;
}

/* A key of no bytes still needs a pointer: NULL marks a free slot. */
static struct slice key_of(struct slice key)
{
    return key.ptr == NULL ? slice_of("", 0) : key;
}

struct err map_put(struct map *m, struct slice key, void *value, void **out_old)
{
    CHECK(value != NULL);
    if ((m->count + 1) * 2 > m->slot_count) {
        TRY(grow(m));
    }
    key = key_of(key);
    uint64_t hash = map_hash(key);
    struct map_entry *slot = find(m, key, hash);
    if (out_old != NULL) {
        *out_old = slot->key.ptr == NULL ? NULL : slot->value;
    }
    m->count += slot->key.ptr == NULL;
    *slot = (struct map_entry){.key = key, .hash = hash, .value = value};
    return OK;
}

void *map_get(const struct map *m, struct slice key)
{
    if (m->count == 0) {
        return NULL;
    }
    key = key_of(key);
    struct map_entry *slot = find(m, key, map_hash(key));
    return slot->key.ptr == NULL ? NULL : slot->value;
}

/* Entries behind it move up while that brings them nearer to their place. */
static void close_gap(struct map *m, size_t gap)
{
    size_t mask = m->slot_count - 1;
    for (size_t i = (gap + 1) & mask; m->slots[i].key.ptr != NULL; i = (i + 1) & mask) {
        size_t home = (size_t)m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            m->slots[gap] = m->slots[i];
            gap = i;
        }
    }
    m->slots[gap] = (struct map_entry){0};
    m->count--;
}

void *map_remove(struct map *m, struct slice key)
{
    if (m->count == 0) {
        return NULL;
    }
    key = key_of(key);
    struct map_entry *slot = find(m, key, map_hash(key));
    if (slot->key.ptr == NULL) {
        return NULL;
    }
    void *value = slot->value;
    close_gap(m, (size_t)(slot - m->slots));
    return value;
}

void *map_remove_here(struct map *m, size_t *at)
{
    CHECK(*at > 0 && m->slots[*at - 1].key.ptr != NULL);
    void *value = m->slots[--*at].value; /* another one may stand there behind this. */
    close_gap(m, *at);
    return value;
}

const struct map_entry *map_next(const struct map *m, size_t *at)
{
    while (*at < m->slot_count) {
        const struct map_entry *entry = &m->slots[(*at)++];
        if (entry->key.ptr != NULL) {
            return entry;
        }
    }
    return NULL;
}
