/* latency: see latency.h. */
#include "dataplane/operator/latency.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"

enum {
    SETS = 128, /* a power of two. */
    WAYS = 4,
    UNIT_BITS = 3, /* a bucket is 8 us wide at least; */
    SUB_BITS = 3,  /* there are 8 an octave, */
    OCTAVES = 22,  /* and the last one ends above a minute. */
    BUCKETS = (OCTAVES + 1) << SUB_BITS,
    RECORDS_MAX = 4096,
    RECORDS_MIN = 100,
    KNOWN_FOR = 64 /* records; then the percentile is looked for again. */
};

struct op_latency {
    uint64_t key;  /* zero: nobody's. */
    uint64_t used; /* by the table's clock. */
    uint64_t known_us;
    uint32_t known_percent; /* that 'known_us' is of; zero: of none. */
    uint32_t fresh;         /* records since then. */
    uint32_t records;
    uint16_t buckets[BUCKETS];
};

struct op_latencies {
    uint64_t clock;
    struct op_latency at[SETS][WAYS];
};

struct err op_latencies_new(struct op_latencies **out)
{
    struct op_latencies *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *out = all;
    return OK;
}

void op_latencies_free(struct op_latencies *all)
{
    free(all);
}

uint64_t op_latency_key(struct slice cluster, struct slice method)
{
    uint64_t high = map_hash(cluster);
    uint64_t key = (high << 1 | high >> 63) ^ map_hash(method);
    return key == 0 ? 1 : key;
}

struct op_latency *op_latencies_get(struct op_latencies *all, uint64_t key)
{
    CHECK(key != 0);
    struct op_latency *set = all->at[key % SETS];
    struct op_latency *oldest = &set[0];
    all->clock++;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].key == key) {
            set[i].used = all->clock;
            return &set[i];
        }
        oldest = set[i].used < oldest->used ? &set[i] : oldest;
    }
    *oldest = (struct op_latency){.key = key, .used = all->clock};
    return oldest;
}

static size_t bucket_of(uint64_t us)
{
    uint64_t units = us >> UNIT_BITS;
    if (units < 1U << SUB_BITS) {
        return (size_t)units;
    }
    size_t octave = (size_t)(63 - __builtin_clzll(units)) - SUB_BITS; /* from 0 on. */
    size_t sub = (size_t)(units >> octave) & ((1U << SUB_BITS) - 1);
    size_t bucket = ((octave + 1) << SUB_BITS) + sub;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The first time that is behind a bucket. */
static uint64_t bucket_end(size_t bucket)
{
    if (bucket < 1U << SUB_BITS) {
        return (uint64_t)(bucket + 1) << UNIT_BITS;
    }
    size_t octave = (bucket >> SUB_BITS) - 1;
    uint64_t sub = bucket & ((1U << SUB_BITS) - 1);
    return ((1U << SUB_BITS) + sub + 1) << octave << UNIT_BITS;
}

static void halve(struct op_latency *latency)
{
    latency->records = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        latency->buckets[i] /= 2;
        latency->records += latency->buckets[i];
    }
}

void op_latency_add(struct op_latency *latency, uint64_t us)
{
    if (latency->records >= RECORDS_MAX) {
        halve(latency);
    }
    latency->buckets[bucket_of(us)]++;
    latency->records++;
    latency->fresh++;
}

static uint64_t find_percentile(const struct op_latency *latency, uint32_t percent)
{
    uint64_t wanted = ((uint64_t)latency->records * percent + 99) / 100;
    uint64_t seen = 0;
    size_t at = 0;
    while (seen + latency->buckets[at] < wanted) { /* ends: all of them are 'records'. */
        seen += latency->buckets[at++];
    }
    CHECK(at < BUCKETS);
    return bucket_end(at);
}

bool op_latency_percentile(struct op_latency *latency, uint32_t percent, uint64_t *out_us)
{
    if (latency->records < RECORDS_MIN) {
        return false;
    }
    if (latency->known_percent != percent || latency->fresh >= KNOWN_FOR) {
        latency->known_us = find_percentile(latency, percent);
        latency->known_percent = percent;
        latency->fresh = 0;
    }
    *out_us = latency->known_us;
    return true;
}
