/*
 * The cache of decisions: two places for a key, found by its hash, compared as a whole.
 *
 * A key is the target and exactly the attributes that its rules read, each with its length, so
 * that two requests which the rules cannot tell apart share an entry, and no others do. Of a
 * header or trait that is only asked whether it is there the key has that; of a schedule whether it
 * holds now: no entry outlives it, whatever the clock does; of a comparison whether the number is
 * in its range. A key that is longer than an entry holds is not cached.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { KEY_MAX = 192 };

struct entry {
    uint64_t hash;
    uint64_t expires_ns;
    uint64_t epoch; /* of the cache when it was put; another one: forgotten. */
    struct slice rule;
    struct slice shadow;
    uint16_t key_size;
    bool allow;
    uint8_t key[KEY_MAX];
};

struct dp_policy_cache {
    struct entry *entries;
    size_t mask;
    uint64_t ttl_ns;
    uint64_t epoch; /* never zero: a zeroed entry is free. */
    uint64_t asked;
    uint64_t hits;
};

struct key {
    uint8_t bytes[KEY_MAX];
    size_t size; /* KEY_MAX + 1: it does not fit. */
};

static bool reads(const struct dp_policy_target *target, Trilane__Parts__V1__Attribute attribute)
{
    return (target->attributes & (1U << (unsigned)attribute)) != 0;
}

static void add(struct key *key, struct slice value)
{
    if (key->size > KEY_MAX || value.size > UINT16_MAX || value.size + 2 > KEY_MAX - key->size) {
        key->size = KEY_MAX + 1;
        return;
    }
    key->bytes[key->size++] = (uint8_t)value.size;
    key->bytes[key->size++] = (uint8_t)(value.size >> 8);
    if (value.size > 0) {
        (void)memcpy(key->bytes + key->size, value.ptr, value.size);
        key->size += value.size;
    }
}

/* Whether there is a value, and which, where the rules ask for that. */
static void add_found(struct key *key, const struct policy_column *column, bool found,
                      struct slice value)
{
    uint8_t byte = found;
    add(key, slice_of(&byte, 1));
    add(key, found && column->compared ? value : (struct slice){0});
}

static void add_caller(struct key *key, const struct dp_policy_target *target,
                       const struct dp_caller *caller)
{
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER)) {
        add(key, caller->id);
    }
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT)) {
        add(key, caller->tenant);
    }
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN)) {
        add(key, caller->domain);
    }
    for (size_t i = 0; i < target->trait_count; i++) {
        struct slice value = {0};
        bool found = dp_caller_trait(caller, target->traits[i], &value);
        add_found(key, &target->columns[POLICY_COLUMN_NAMELESS + i], found, value);
    }
}

static void add_headers(struct key *key, const struct dp_policy_target *target,
                        const struct dp_policy_query *query)
{
    const struct policy_column *columns =
        target->columns + POLICY_COLUMN_NAMELESS + target->trait_count;
    for (size_t i = 0; i < target->header_count; i++) {
        struct slice value = {0};
        bool found = query->header != NULL && query->header(query->ctx, target->headers[i], &value);
        add_found(key, &columns[i], found, value);
    }
}

/* Of the value only what the rules make of it. */
static void add_comparisons(struct key *key, const struct dp_policy_target *target,
                            const struct dp_policy_query *query)
{
    for (size_t i = 0; i < target->comparison_count; i++) {
        uint8_t compared = (uint8_t)policy_compare(&target->comparisons[i], query);
        add(key, slice_of(&compared, 1));
    }
}

static void add_schedules(struct key *key, const struct dp_policy_target *target,
                          const struct dp_policy_query *query)
{
    for (size_t i = 0; i < target->schedule_count; i++) {
        uint8_t holds = policy_schedule_holds(&target->schedules[i], query->wall_ms);
        add(key, slice_of(&holds, 1));
    }
}

/* False: what is asked cannot be cached. */
static bool make_key(const struct dp_policy_target *target, const struct dp_policy_query *query,
                     struct key *key)
{
    (void)memcpy(key->bytes, &target, sizeof(target));
    key->size = sizeof(target);
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB)) {
        uint8_t verb = (uint8_t)query->verb;
        add(key, slice_of(&verb, 1));
    }
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE)) {
        add(key, query->lane);
    }
    if (reads(target, TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD)) {
        add(key, query->method);
    }
    add_caller(key, target, query->caller);
    add_headers(key, target, query);
    add_comparisons(key, target, query);
    add_schedules(key, target, query);
    return key->size <= KEY_MAX;
}

struct err dp_policy_cache_new(size_t entries, uint64_t ttl_ms, struct dp_policy_cache **out)
{
    CHECK(entries > 0);
    size_t count = 2;
    while (count < entries) {
        count *= 2;
    }
    struct dp_policy_cache *cache = calloc(1, sizeof(*cache));
    struct entry *table = calloc(count, sizeof(*table));
    if (cache == NULL || table == NULL) {
        free(cache);
        free(table);
        return FAIL(E_NO_MEMORY);
    }
    *cache = (struct dp_policy_cache){
        .entries = table, .mask = count - 1, .ttl_ns = ttl_ms * 1000000, .epoch = 1};
    *out = cache;
    return OK;
}

void dp_policy_cache_free(struct dp_policy_cache *cache)
{
    if (cache != NULL) {
        free(cache->entries);
        free(cache);
    }
}

void dp_policy_cache_clear(struct dp_policy_cache *cache)
{
    cache->epoch++;
}

static bool holds(const struct dp_policy_cache *cache, const struct entry *entry, uint64_t hash,
                  const struct key *key, uint64_t now_ns)
{
    return entry->epoch == cache->epoch && entry->hash == hash && entry->expires_ns > now_ns &&
           entry->key_size == key->size && memcmp(entry->key, key->bytes, key->size) == 0;
}

/* Of the two places of a hash the free one, or the one that runs out first. */
static struct entry *place(struct dp_policy_cache *cache, uint64_t hash)
{
    struct entry *first = &cache->entries[(size_t)hash & cache->mask];
    struct entry *second = &cache->entries[((size_t)hash & cache->mask) ^ 1];
    if (first->epoch != cache->epoch) {
        return first;
    }
    if (second->epoch != cache->epoch) {
        return second;
    }
    return first->expires_ns <= second->expires_ns ? first : second;
}

struct dp_verdict dp_policy_cache_decide(struct dp_policy_cache *cache,
                                         const struct dp_policy_target *target,
                                         const struct dp_policy_query *query, uint64_t now_ns)
{
    struct key key;
    cache->asked++;
    /* Also where nothing is kept: it looks at all headers that the rules read, so that whether one
     * that is there twice was looked at is none of the cache. */
    bool keyed = target != NULL && make_key(target, query, &key);
    if (!keyed || cache->ttl_ns == 0) {
        return dp_policy_decide(target, query);
    }
    uint64_t hash = map_hash(slice_of(key.bytes, key.size));
    for (size_t way = 0; way < 2; way++) {
        const struct entry *entry = &cache->entries[((size_t)hash & cache->mask) ^ way];
        if (holds(cache, entry, hash, &key, now_ns)) {
            cache->hits++;
            return (struct dp_verdict){.allow = entry->allow,
                                       .cached = true,
                                       .rule = entry->rule,
                                       .shadow = entry->shadow};
        }
    }
    struct dp_verdict verdict = dp_policy_decide(target, query);
    if (verdict.fast) {
        return verdict;
    }
    struct entry *entry = place(cache, hash);
    *entry = (struct entry){.hash = hash,
                            .expires_ns = now_ns + cache->ttl_ns,
                            .epoch = cache->epoch,
                            .rule = verdict.rule,
                            .shadow = verdict.shadow,
                            .key_size = (uint16_t)key.size,
                            .allow = verdict.allow};
    (void)memcpy(entry->key, key.bytes, key.size);
    return verdict;
}

void dp_policy_cache_counts(const struct dp_policy_cache *cache, uint64_t *out_asked,
                            uint64_t *out_hits)
{
    *out_asked = cache->asked;
    *out_hits = cache->hits;
}
