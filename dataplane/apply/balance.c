/* balance: see balance.h. */
#include "dataplane/apply/balance.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/hash.h"

/* "address|port". */
enum { NAME_MAX_BYTES = 512 };

/* ---- weights ---- */

static uint64_t common_factor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Steps of about the golden section meet every place once a round, and neighbours far apart: an
 * endpoint of weight 9 beside one of weight 1 does not get its nine calls in a row. */
static uint64_t stride_of(uint64_t sum)
{
    uint64_t stride = sum * 618 / 1000 + 1;
    while (sum > 0 && common_factor(stride, sum) != 1) {
        stride++;
    }
    return stride;
}

/* How far weights are shifted down, so that a product of two sums fits. */
static unsigned shift_of(const struct dp_endpoint *endpoints, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += endpoints[i].weight;
    }
    unsigned shift = 0;
    while ((sum >> shift) + count > UINT32_MAX) {
        shift++;
    }
    return shift;
}

static bool all_weigh_the_same(const struct dp_endpoint *endpoints, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (endpoints[i].weight != endpoints[0].weight) {
            return false;
        }
    }
    return true;
}

static MUST_CHECK struct err build_weights(struct arena *arena, const struct dp_endpoint *endpoints,
                                           struct dp_level *b)
{
    size_t count = b->count;
    b->weight_sum = count;
    if (!all_weigh_the_same(endpoints, count)) {
        uint64_t *ends = NULL;
        unsigned shift = shift_of(endpoints, count);
        TRY(arena_calloc(arena, count, sizeof(*ends), (void **)&ends));
        b->weight_sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t weight = endpoints[i].weight >> shift;
            b->weight_sum += weight == 0 ? 1 : weight;
            ends[i] = b->weight_sum;
        }
        b->weight_ends = ends;
    }
    b->stride = stride_of(b->weight_sum);
    return OK;
}

size_t dp_level_by_weight(const struct dp_level *level, uint64_t point)
{
    CHECK(point < level->weight_sum);
    if (level->weight_ends == NULL) {
        return level->first + (size_t)point;
    }
    size_t low = 0;
    size_t high = level->count - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point < level->weight_ends[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return level->first + low;
}

/* ---- pick first ---- */

struct ranked {
    uint32_t weight;
    uint32_t index;
};

static int heavier_first(const void *x, const void *y)
{
    const struct ranked *a = x;
    const struct ranked *b = y;
    int order = (a->weight < b->weight) - (a->weight > b->weight);
    return order != 0 ? order : (a->index > b->index) - (a->index < b->index);
}

static MUST_CHECK struct err build_order(struct arena *arena, const struct dp_endpoint *endpoints,
                                         struct dp_level *b)
{
    size_t count = b->count;
    struct ranked *ranked = NULL;
    uint32_t *order = NULL;
    TRY(arena_calloc(arena, count, sizeof(*ranked), (void **)&ranked));
    TRY(arena_calloc(arena, count, sizeof(*order), (void **)&order));
    for (size_t i = 0; i < count; i++) {
        ranked[i] =
            (struct ranked){.weight = endpoints[i].weight, .index = (uint32_t)(b->first + i)};
    }
    if (count > 1) {
        qsort(ranked, count, sizeof(*ranked), heavier_first);
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = ranked[i].index;
    }
    b->order = order;
    return OK;
}

/* ---- hashes ---- */

static uint64_t hash_of(const struct dp_endpoint *endpoint, uint64_t seed)
{
    char name[NAME_MAX_BYTES];
    int size = snprintf(name, sizeof(name), "%.*s|%u",
                        SLICE_ARG(slice_head(endpoint->address, 500)), (unsigned)endpoint->port);
    CHECK(size > 0 && (size_t)size < sizeof(name));
    return hash_bytes(slice_of(name, (size_t)size), seed);
}

static MUST_CHECK struct err build_hashes(struct arena *arena, const struct dp_endpoint *endpoints,
                                          struct dp_level *b)
{
    size_t count = b->count;
    uint64_t *hashes = NULL;
    TRY(arena_calloc(arena, count, sizeof(*hashes), (void **)&hashes));
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_of(&endpoints[i], /* seed= */ 0);
    }
    b->hashes = hashes;
    return OK;
}

static int point_cmp(const void *x, const void *y)
{
    const struct dp_ring_point *a = x;
    const struct dp_ring_point *b = y;
    int order = (a->hash > b->hash) - (a->hash < b->hash);
    return order != 0 ? order : (a->index > b->index) - (a->index < b->index);
}

static uint64_t weight_of(const struct dp_level *b, size_t i)
{
    return b->weight_ends == NULL ? 1 : b->weight_ends[i] - (i == 0 ? 0 : b->weight_ends[i - 1]);
}

/* An endpoint's first points are the same whoever the others are: only their number follows from
 * the share of the weights, and not even that while weights are the same and the ring is not full.
 */
static MUST_CHECK struct err build_ring(struct arena *arena, const struct dp_endpoint *endpoints,
                                        struct dp_level *b)
{
    size_t count = b->count;
    struct dp_ring_point *ring = NULL;
    uint64_t points = (uint64_t)count * DP_RING_POINTS_EACH;
    points = points > DP_RING_POINTS_MAX ? DP_RING_POINTS_MAX : points;
    TRY(arena_calloc(arena, (size_t)points + count, sizeof(*ring), (void **)&ring));
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t own = points * weight_of(b, i) / b->weight_sum;
        uint64_t seed = hash_of(&endpoints[i], /* seed= */ 0);
        for (uint64_t k = 0; k == 0 || k < own; k++) {
            ring[size++] = (struct dp_ring_point){.hash = hash_mix(seed + k),
                                                  .index = (uint32_t)(b->first + i)};
        }
    }
    if (size > 1) {
        qsort(ring, size, sizeof(*ring), point_cmp);
    }
    b->ring = ring;
    b->ring_size = size;
    return OK;
}

size_t dp_level_on_ring(const struct dp_level *level, uint64_t hash)
{
    size_t low = 0;
    size_t high = level->ring_size;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (level->ring[middle].hash < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == level->ring_size ? 0 : low;
}

/* ---- levels ---- */

static MUST_CHECK struct err build_level(struct arena *arena, enum dp_balance_policy policy,
                                         const struct dp_endpoint *endpoints, struct dp_level *b)
{
    TRY(build_weights(arena, endpoints, b));
    switch (policy) {
    case DP_BALANCE_PICK_FIRST:
        return build_order(arena, endpoints, b);
    case DP_BALANCE_RING_HASH:
        return build_ring(arena, endpoints, b);
    case DP_BALANCE_RENDEZVOUS:
        return build_hashes(arena, endpoints, b);
    case DP_BALANCE_ROUND_ROBIN:
    case DP_BALANCE_LEAST_REQUEST:
    case DP_BALANCE_PEAK_EWMA:
        return OK;
    }
    return OK;
}

/* 0 in the node's zone, 1 in its region, 2 elsewhere, or who knows where. */
static size_t distance_of(const struct dp_endpoint *endpoint, const struct dp_locality *here)
{
    if (here->region.size == 0) {
        return 0;
    }
    if (!slice_eq(endpoint->region, here->region)) {
        return 2;
    }
    return here->zone.size > 0 && slice_eq(endpoint->zone, here->zone) ? 0 : 1;
}

/* Sorts by distance, stably; 'counts' says how many there are of each. */
static MUST_CHECK struct err sort_by_distance(struct arena *arena, const struct dp_locality *here,
                                              struct dp_cluster *cluster,
                                              size_t counts[DP_LEVELS_MAX])
{
    struct dp_endpoint *sorted = NULL;
    size_t at = 0;
    TRY(arena_calloc(arena, cluster->endpoint_count, sizeof(*sorted), (void **)&sorted));
    for (size_t distance = 0; distance < DP_LEVELS_MAX; distance++) {
        for (size_t i = 0; i < cluster->endpoint_count; i++) {
            if (distance_of(&cluster->endpoints[i], here) == distance) {
                sorted[at++] = cluster->endpoints[i];
                counts[distance]++;
            }
        }
    }
    cluster->endpoints = sorted;
    return OK;
}

struct err dp_balance_build(struct arena *arena, const struct dp_locality *here,
                            struct dp_cluster *cluster)
{
    struct dp_balance *b = &cluster->balance;
    size_t counts[DP_LEVELS_MAX] = {0};
    size_t first = 0;
    TRY(sort_by_distance(arena, here, cluster, counts));
    b->level_count = 0;
    for (size_t i = 0; i < DP_LEVELS_MAX; i++) {
        if (counts[i] == 0) {
            continue;
        }
        struct dp_level *level = &b->levels[b->level_count++];
        *level = (struct dp_level){.first = first, .count = counts[i]};
        TRY(build_level(arena, b->policy, cluster->endpoints + first, level));
        first += counts[i];
    }
    return OK;
}
