/* budget: see budget.h. */
#include "dataplane/request/budget.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"

#define NS_PER_S UINT64_C(1000000000)

struct dp_budget {
    uint64_t id; /* under the table's lock, and the next ones. */
    size_t holders;
    uint64_t counted;    /* of 'asked', that were said. */
    uint64_t counted_ns; /* when. */
    _Atomic uint64_t period_ns;
    _Atomic uint64_t burst_ns;
    _Atomic uint64_t asked;
    _Atomic uint32_t share;
    _Atomic uint32_t nodes;
    _Atomic uint64_t until_ns;
    _Atomic uint64_t begin_ns; /* when the share became what it is, */
    _Atomic uint64_t first_ns; /* and what of the burst it had then. */
};

/* Of the process: a node has one. */
static struct dp_budget table[SHARE_BUDGETS_MAX];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static void take_table(void)
{
    CHECK(pthread_mutex_lock(&table_lock) == 0);
}

static void give_table(void)
{
    CHECK(pthread_mutex_unlock(&table_lock) == 0);
}

static uint64_t now_burst(const struct dp_budget *b, uint64_t now_ns)
{
    uint64_t begin = atomic_load_explicit(&b->begin_ns, memory_order_relaxed);
    uint64_t grown = atomic_load_explicit(&b->first_ns, memory_order_relaxed) +
                     (now_ns > begin ? now_ns - begin : 0);
    uint64_t whole = atomic_load_explicit(&b->burst_ns, memory_order_relaxed);
    return grown < whole ? grown : whole;
}

/* The entry of an id, else a free one; NULL: neither is there. */
static struct dp_budget *entry_of(uint64_t id)
{
    struct dp_budget *found = NULL;
    for (size_t i = 0; i < SHARE_BUDGETS_MAX; i++) {
        if (table[i].id == id) {
            return &table[i];
        }
        found = found == NULL && table[i].holders == 0 ? &table[i] : found;
    }
    return found;
}

struct err dp_budget_hold(struct slice limit_id, uint64_t period_ns, uint64_t burst_ns,
                          struct dp_budget **out)
{
    uint64_t id = share_budget(limit_id);
    take_table();
    struct dp_budget *b = entry_of(id);
    if (b == NULL) {
        give_table();
        return FAIL(E_TOO_LARGE);
    }
    if (b->id != id) {
        b->id = id;
        b->counted = atomic_load_explicit(&b->asked, memory_order_relaxed);
        b->counted_ns = 0;
        atomic_store_explicit(&b->share, 0, memory_order_relaxed);
        atomic_store_explicit(&b->nodes, 0, memory_order_relaxed);
        atomic_store_explicit(&b->until_ns, 0, memory_order_relaxed);
    }
    b->holders++;
    atomic_store_explicit(&b->period_ns, period_ns, memory_order_relaxed);
    atomic_store_explicit(&b->burst_ns, burst_ns, memory_order_relaxed);
    give_table();
    *out = b;
    return OK;
}

void dp_budget_drop(struct dp_budget *budget)
{
    if (budget != NULL) {
        take_table();
        CHECK(budget->holders > 0);
        budget->holders--;
        give_table();
    }
}

void dp_budget_ask(struct dp_budget *budget)
{
    atomic_fetch_add_explicit(&budget->asked, 1, memory_order_relaxed);
}

void dp_budget_look(const struct dp_budget *budget, uint64_t now_ns, struct dp_budget_view *out)
{
    bool holds = now_ns < atomic_load_explicit(&budget->until_ns, memory_order_acquire);
    out->share = holds ? atomic_load_explicit(&budget->share, memory_order_relaxed) : 0;
    out->nodes = atomic_load_explicit(&budget->nodes, memory_order_relaxed);
    out->burst_ns = now_burst(budget, now_ns);
}

/* Requests in 'ns', in parts of what the whole budget gives in as long. */
static uint32_t parts_of(uint64_t requests, uint64_t period_ns, uint64_t ns)
{
    if (ns == 0 || requests == 0) {
        return 0;
    }
    double parts = (double)requests * (double)period_ns / (double)ns * SHARE_WHOLE;
    return parts < 4.0 * SHARE_WHOLE ? (uint32_t)parts : 4 * SHARE_WHOLE;
}

static int demand_cmp(const void *x, const void *y)
{
    const struct demand_of *a = x;
    const struct demand_of *b = y;
    return a->budget < b->budget ? -1 : a->budget > b->budget;
}

void dp_budget_demand(uint64_t now_ns, struct demand *d)
{
    d->count = 0;
    take_table();
    for (size_t i = 0; i < SHARE_BUDGETS_MAX; i++) {
        struct dp_budget *b = &table[i];
        if (b->holders == 0) {
            continue;
        }
        struct dp_budget_view view;
        dp_budget_look(b, now_ns, &view);
        uint64_t asked = atomic_load_explicit(&b->asked, memory_order_relaxed);
        uint64_t period_ns = atomic_load_explicit(&b->period_ns, memory_order_relaxed);
        uint64_t ns = b->counted_ns == 0 ? NS_PER_S : now_ns - b->counted_ns;
        d->of[d->count++] =
            (struct demand_of){b->id, parts_of(asked - b->counted, period_ns, ns), view.share};
        b->counted = asked;
        b->counted_ns = now_ns;
    }
    give_table();
    qsort(d->of, d->count, sizeof(d->of[0]), demand_cmp);
}

/* A larger share has no more of its burst than the smaller one had. */
static void set_share(struct dp_budget *b, uint32_t share, uint64_t now_ns)
{
    struct dp_budget_view view;
    dp_budget_look(b, now_ns, &view);
    if (share > view.share) {
        uint64_t first = (uint64_t)((double)view.burst_ns * view.share / share);
        atomic_store_explicit(&b->first_ns, first, memory_order_relaxed);
        atomic_store_explicit(&b->begin_ns, now_ns, memory_order_relaxed);
    }
    atomic_store_explicit(&b->share, share, memory_order_release);
}

bool dp_budget_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns)
{
    bool changed = false;
    take_table();
    for (uint32_t i = 0; i < shares->count; i++) {
        struct dp_budget *b = entry_of(shares->of[i].budget);
        if (b == NULL || b->holders == 0 || b->id != shares->of[i].budget) {
            continue;
        }
        struct dp_budget_view view;
        dp_budget_look(b, now_ns, &view);
        changed = changed || view.share != shares->of[i].share;
        set_share(b, shares->of[i].share, now_ns);
        atomic_store_explicit(&b->nodes, shares->nodes, memory_order_relaxed);
        atomic_store_explicit(&b->until_ns, until_ns, memory_order_release);
    }
    give_table();
    return changed;
}
