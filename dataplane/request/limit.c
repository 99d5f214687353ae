/*
 * limit: GCRA over one atomic word a bucket.
 *
 * A bucket is full when its TAT is not after now. A request moves the TAT one period on; it passes
 * when the TAT is then at most 'burst' periods after now. So the word alone is the bucket: no
 * refill, no timer, and a full bucket needs no memory, which is why its cell may be reused.
 */
#include "dataplane/request/limit.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { PROBES = 8, LIMITS_MAX = 64, KEY_MAX = 1024 };

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

struct cell {
    _Atomic uint64_t key;    /* hash of limit and key values; zero: free. */
    _Atomic uint64_t tat_ns; /* theoretical arrival time. */
};

struct dp_limit_table {
    struct cell *cells;
    size_t mask;
    _Atomic uint64_t evicted;
};

struct limit {
    struct slice id;
    char **methods; /* of the decoded part. */
    size_t method_count;
    uint64_t period_ns;
    uint64_t burst_ns; /* burst * period. */
    uint32_t by;
};

struct dp_limit_target {
    ProtobufCMessage *part; /* owned; the texts below lie in it. */
    struct slice id;
    size_t limit_count;
    struct limit limits[];
};

static MUST_CHECK struct err copy_limit(const part_limit *from, struct limit *to)
{
    uint64_t burst_ns = 0;
    uint32_t known = (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER) |
                     (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_TENANT) |
                     (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_METHOD);
    if (from->id[0] == '\0' || from->period_ns == 0 || from->burst == 0 ||
        (from->by & ~known) != 0 ||
        __builtin_mul_overflow(from->period_ns, (uint64_t)from->burst, &burst_ns) ||
        burst_ns > INT64_MAX / 4) {
        return FAIL(E_PART_MALFORMED);
    }
    *to = (struct limit){.id = slice_str(from->id),
                         .methods = from->methods,
                         .method_count = from->n_methods,
                         .period_ns = from->period_ns,
                         .burst_ns = burst_ns,
                         .by = from->by};
    return OK;
}

struct err dp_limit_build(struct slice part, struct dp_limit_target **out)
{
    ProtobufCMessage *message = NULL;
    const struct proto_rules rules = {.memory_max = part.size * PART_MEMORY_FACTOR,
                                      .malformed = E_PART_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    TRY(proto_decode(&trilane__parts__v1__limit_target__descriptor, part, &rules, &message));
    const part_target *from = (const part_target *)message;
    struct err err;
    struct dp_limit_target *t = NULL;
    if (from->target[0] == '\0' || from->n_limits == 0 || from->n_limits > LIMITS_MAX) {
        err = FAIL(E_PART_MALFORMED);
    } else {
        t = calloc(1, sizeof(*t) + from->n_limits * sizeof(t->limits[0]));
        err = t == NULL ? FAIL(E_NO_MEMORY) : OK;
    }
    for (size_t i = 0; err_ok(err) && i < from->n_limits; i++) {
        err = copy_limit(from->limits[i], &t->limits[i]);
    }
    if (!err_ok(err)) {
        free(t);
        proto_free(message);
        return err;
    }
    t->part = message;
    t->id = slice_str(from->target);
    t->limit_count = from->n_limits;
    *out = t;
    return OK;
}

void dp_limit_free(struct dp_limit_target *target)
{
    if (target != NULL) {
        proto_free(target->part);
        free(target);
    }
}

struct slice dp_limit_target_id(const struct dp_limit_target *target)
{
    return target->id;
}

struct err dp_limit_table_new(size_t cells, struct dp_limit_table **out)
{
    size_t count = PROBES;
    while (count < cells) {
        count *= 2;
    }
    struct dp_limit_table *table = calloc(1, sizeof(*table));
    struct cell *memory = calloc(count, sizeof(*memory));
    if (table == NULL || memory == NULL) {
        free(table);
        free(memory);
        return FAIL(E_NO_MEMORY);
    }
    table->cells = memory;
    table->mask = count - 1;
    *out = table;
    return OK;
}

void dp_limit_table_free(struct dp_limit_table *table)
{
    if (table != NULL) {
        free(table->cells);
        free(table);
    }
}

uint64_t dp_limit_table_evicted(const struct dp_limit_table *table)
{
    return atomic_load_explicit(&table->evicted, memory_order_relaxed);
}

static bool matches(const struct limit *limit, struct slice method)
{
    for (size_t i = 0; i < limit->method_count; i++) {
        if (text_glob(slice_str(limit->methods[i]), method)) {
            return true;
        }
    }
    return limit->method_count == 0;
}

static size_t add(uint8_t *key, size_t size, struct slice value)
{
    value = slice_head(value, KEY_MAX - size - 1);
    (void)memcpy(key + size, value.ptr, value.size);
    key[size + value.size] = 0;
    return size + value.size + 1;
}

/* A word for limit and key values; never zero. */
static uint64_t key_of(const struct limit *limit, struct slice method,
                       const struct dp_caller *caller)
{
    uint8_t key[KEY_MAX + 8];
    size_t size = add(key, 0, limit->id);
    if ((limit->by & (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER)) != 0) {
        size = add(key, size, caller->id);
    }
    if ((limit->by & (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_TENANT)) != 0) {
        size = add(key, size, caller->tenant);
    }
    if ((limit->by & (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_METHOD)) != 0) {
        size = add(key, size, method);
    }
    uint64_t hash = map_hash(slice_of(key, size));
    return hash == 0 ? 1 : hash;
}

/* The cell of a key: its own, else one whose bucket is full, else the one that is nearest to it. */
static struct cell *find(struct dp_limit_table *table, uint64_t key, uint64_t now_ns)
{
    struct cell *best = NULL;
    uint64_t best_tat = UINT64_MAX;
    for (size_t probe = 0; probe < PROBES; probe++) {
        struct cell *cell = &table->cells[((size_t)key + probe) & table->mask];
        if (atomic_load_explicit(&cell->key, memory_order_relaxed) == key) {
            return cell;
        }
        uint64_t tat = atomic_load_explicit(&cell->tat_ns, memory_order_relaxed);
        if (tat < best_tat) {
            best = cell;
            best_tat = tat;
        }
    }
    if (best_tat > now_ns) {
        atomic_fetch_add_explicit(&table->evicted, 1, memory_order_relaxed);
        atomic_store_explicit(&best->tat_ns, now_ns, memory_order_relaxed);
    }
    atomic_store_explicit(&best->key, key, memory_order_relaxed);
    return best;
}

/* Takes one period from the bucket; false, and when it would pass, when it is empty. */
static bool take(struct cell *cell, const struct limit *limit, uint64_t now_ns,
                 uint64_t *out_retry_ns)
{
    uint64_t tat = atomic_load_explicit(&cell->tat_ns, memory_order_relaxed);
    for (;;) { /* ends: each turn some worker's exchange succeeds. */
        uint64_t next = (tat > now_ns ? tat : now_ns) + limit->period_ns;
        if (next > now_ns + limit->burst_ns) {
            *out_retry_ns = next - limit->burst_ns - now_ns;
            return false;
        }
        if (atomic_compare_exchange_weak_explicit(&cell->tat_ns, &tat, next, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
}

struct err dp_limit_take(struct dp_limit_table *table, const struct dp_limit_target *target,
                         struct slice method, const struct dp_caller *caller, uint64_t now_ns,
                         struct dp_limit_refusal *out)
{
    if (target == NULL) {
        return OK;
    }
    struct cell *taken[LIMITS_MAX];
    for (size_t i = 0; i < target->limit_count; i++) {
        const struct limit *limit = &target->limits[i];
        taken[i] = NULL;
        if (!matches(limit, method)) {
            continue;
        }
        struct cell *cell = find(table, key_of(limit, method, caller), now_ns);
        if (!take(cell, limit, now_ns, &out->retry_ns)) {
            out->limit = limit->id;
            for (size_t k = 0; k < i; k++) {
                if (taken[k] != NULL) {
                    atomic_fetch_sub_explicit(&taken[k]->tat_ns, target->limits[k].period_ns,
                                              memory_order_relaxed);
                }
            }
            return FAIL(E_RATE_LIMITED);
        }
        taken[i] = cell;
    }
    return OK;
}
