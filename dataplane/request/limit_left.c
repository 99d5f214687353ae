/*
 * limit_left: how near the budgets of each limit came to their end.
 *
 * A slot has the least of the time that runs and of the one before, so that a scrape sees the
 * seconds before it, whoever else scrapes. A worker writes only where its number is lower: a bucket
 * that is empty is written once a time.
 */
#include <string.h>

#include "dataplane/request/limit_impl.h"

enum { TIME_SHIFT = 33, LEAST_BITS = 16, WHOLE = 1000, PROBES = 16 };

/* Pieces of 2^33 ns, 8.6 s; never zero. */
static uint64_t time_of(uint64_t now_ns)
{
    return (now_ns >> TIME_SHIFT) + 1;
}

/* The slot of a limit, made when it has none; NULL: there is no room. */
static struct dp_limit_left_slot *slot_of(struct dp_limit_table *table,
                                          const struct dp_limit *limit)
{
    struct slice id = limit->id;
    uint64_t hash = limit->hash | 1;
    for (size_t i = 0; i < PROBES; i++) {
        struct dp_limit_left_slot *slot =
            &table->left[(size_t)((hash >> 1) + i) % DP_LIMIT_LEFT_SLOTS];
        uint64_t has = atomic_load_explicit(&slot->hash, memory_order_relaxed);
        if (has == 0 && id.size <= DP_LIMIT_ID_MAX &&
            atomic_compare_exchange_strong(&slot->hash, &has, hash)) {
            memcpy(slot->id, id.ptr, id.size);
            slot->id_size = (uint32_t)id.size;
            atomic_store_explicit(&slot->named, true, memory_order_release);
            return slot;
        }
        if (has == hash) {
            return slot;
        }
    }
    return NULL;
}

static uint32_t permille(const struct dp_limit *limit, uint64_t left)
{
    if (left >= limit->budget) {
        return WHOLE;
    }
    return limit->budget > UINT32_MAX ? (uint32_t)(left / (limit->budget / WHOLE + 1))
                                      : (uint32_t)(left * WHOLE / limit->budget);
}

void dp_limit_note_left(struct dp_limit_table *table, const struct dp_limit *limit, uint64_t left,
                        uint64_t now_ns)
{
    struct dp_limit_left_slot *slot = slot_of(table, limit);
    if (slot == NULL) {
        return;
    }
    uint64_t time = time_of(now_ns);
    uint64_t fresh = time << LEAST_BITS | permille(limit, left);
    uint64_t seen = atomic_load_explicit(&slot->now, memory_order_relaxed);
    while (seen >> LEAST_BITS < time || (seen >> LEAST_BITS == time && seen > fresh)) {
        uint64_t was = seen;
        if (atomic_compare_exchange_weak_explicit(&slot->now, &seen, fresh, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            if (was >> LEAST_BITS < time) {
                atomic_store_explicit(&slot->before, was, memory_order_relaxed);
            }
            return;
        }
    }
}

/* The least of a time that is not older than the one before 'time'. */
static uint32_t least_of(const _Atomic uint64_t *word, uint64_t time)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    bool recent = seen != 0 && (seen >> LEAST_BITS) + 1 >= time;
    return recent ? (uint32_t)(seen & ((1U << LEAST_BITS) - 1)) : WHOLE;
}

void dp_limit_left(const struct dp_limit_table *table, uint64_t now_ns, dp_limit_left_fn *each,
                   void *ctx)
{
    for (size_t i = 0; i < DP_LIMIT_LEFT_SLOTS; i++) {
        const struct dp_limit_left_slot *slot = &table->left[i];
        if (atomic_load_explicit(&slot->named, memory_order_acquire)) {
            uint32_t now = least_of(&slot->now, time_of(now_ns));
            uint32_t before = least_of(&slot->before, time_of(now_ns));
            each(ctx, slice_of((const uint8_t *)slot->id, slot->id_size),
                 now < before ? now : before);
        }
    }
}
