/*
 * budget_keys: keys of limits that the whole fleet shares, each with a share of its own.
 *
 * An entry is found by a word that is its key's, within a few places of where that says. What it
 * holds is set before the word is, and a place is not another key's before nobody has asked for it
 * in a while and its bucket is full: so a worker that found one just then takes, at the worst, one
 * request from another key.
 */
#include <stdlib.h>

#include "common/base/check.h"
#include "dataplane/request/budget_impl.h"

enum {
    KEYS = SHARE_BUDGETS_MAX,
    PLACES = 2 * KEYS, /* a power of two. */
    WINDOW = 16,       /* places where a key may be. */
};

/* An entry that was asked for no more than each key has goes after so long; or at once, when others
 * find no room. */
#define REST_NS (10 * NS_PER_S)

static _Atomic uint64_t words[PLACES]; /* zero: free. */
static struct dp_budget entries[PLACES];
static uint32_t used;         /* under the lock, */
static uint32_t used_made_up; /* and of these, by keys that callers make up. */
static _Atomic bool full[2];  /* a key found no room; of those that callers make up. */
static _Atomic bool news;
static _Atomic uint64_t crowded;

_Static_assert((PLACES & (PLACES - 1)) == 0, "places are found by a mask");

uint32_t dp_budget_base(uint32_t share)
{
    return (uint32_t)((uint64_t)share * DP_BUDGET_BASE / SHARE_WHOLE);
}

static size_t place_of(uint64_t own, size_t turn)
{
    return (size_t)(own + turn) & (PLACES - 1);
}

struct dp_budget *dp_budget_of_key(uint64_t own)
{
    for (size_t i = 0; i < WINDOW; i++) {
        size_t at = place_of(own, i);
        if (atomic_load_explicit(&words[at], memory_order_acquire) == own) {
            return &entries[at];
        }
    }
    return NULL;
}

static bool find_no_room(void)
{
    atomic_fetch_add_explicit(&crowded, 1, memory_order_relaxed);
    return false;
}

bool dp_budget_has_place(bool made_up)
{
    return !atomic_load_explicit(&full[made_up], memory_order_relaxed) || find_no_room();
}

uint64_t dp_budget_crowded(void)
{
    return atomic_load_explicit(&crowded, memory_order_relaxed);
}

bool dp_budget_is_news(void)
{
    return atomic_exchange_explicit(&news, false, memory_order_relaxed);
}

/* ---- entries come ---- */

/* Two of one id could not be said. */
static bool is_said(uint64_t id)
{
    for (size_t i = 0; i < PLACES; i++) {
        if (entries[i].id == id) {
            return true;
        }
    }
    return dp_budget_is_limit(id);
}

/* Half of the entries is for keys that callers do not make up. */
static bool has_room(bool made_up)
{
    uint32_t limits = dp_budget_limits();
    uint32_t most = limits < KEYS ? KEYS - limits : 0;
    return used < most && (!made_up || used_made_up < most / 2);
}

static bool find_place(const struct dp_budget_key *key, size_t *out)
{
    if (!has_room(key->made_up)) {
        atomic_store_explicit(&full[key->made_up], true, memory_order_relaxed);
        return false;
    }
    for (size_t i = 0; i < WINDOW; i++) {
        *out = place_of(key->own, i);
        if (atomic_load_explicit(&words[*out], memory_order_relaxed) == 0) {
            return !is_said(key->id);
        }
    }
    return false;
}

static uint32_t base_of(const struct dp_budget_state *limit, uint64_t now_ns)
{
    return now_ns < limit->until_ns ? dp_budget_base(limit->share) : 0;
}

/* What a key has beside what it is given. */
static struct dp_budget_state base_state(const struct dp_budget *limit, uint64_t now_ns)
{
    struct dp_budget_state s = dp_budget_get_state(limit);
    uint32_t base = base_of(&s, now_ns);
    return (struct dp_budget_state){.until_ns = s.until_ns,
                                    .extra_ns = dp_budget_part(DP_BUDGET_EXTRA_NS, base),
                                    .share = base,
                                    .nodes = s.nodes};
}

static void begin(struct dp_budget *b, struct dp_budget *limit, const struct dp_budget_key *key,
                  uint64_t now_ns)
{
    struct dp_budget_state s = base_state(limit, now_ns);
    b->id = key->id;
    b->limit = limit;
    b->made_up = key->made_up;
    b->given = 0;
    b->from_ns = now_ns;
    b->needed_ns = now_ns;
    b->asked_before = 0;
    b->counted = atomic_load_explicit(&b->asked, memory_order_relaxed);
    b->counted_ns = now_ns;
    uint64_t burst_ns = atomic_load_explicit(&limit->burst_ns, memory_order_relaxed);
    atomic_store_explicit(&b->burst_ns, burst_ns, memory_order_relaxed);
    atomic_store_explicit(&b->period_ns,
                          atomic_load_explicit(&limit->period_ns, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&b->tat_ns, 0, memory_order_relaxed);
    s.base_ns = now_ns;
    s.ahead_ns = dp_budget_part(burst_ns, s.share) + s.extra_ns;
    dp_budget_set_state(b, &s);
}

bool dp_budget_add_key(struct dp_budget *limit, const struct dp_budget_key *key, uint64_t now_ns)
{
    size_t at = 0;
    dp_budget_lock();
    bool found = dp_budget_of_key(key->own) != NULL; /* another worker was faster. */
    bool added = !found && find_place(key, &at);
    if (added) {
        begin(&entries[at], limit, key, now_ns);
        used++;
        used_made_up += key->made_up;
        atomic_store_explicit(&words[at], key->own, memory_order_release);
        atomic_store_explicit(&news, true, memory_order_relaxed);
    }
    dp_budget_unlock();
    return found || added ? added : find_no_room();
}

/* ---- and go ---- */

static void forget(size_t at)
{
    struct dp_budget *b = &entries[at];
    atomic_store_explicit(&words[at], 0, memory_order_relaxed);
    used--;
    used_made_up -= b->made_up;
    b->id = 0;
    b->limit = NULL;
}

void dp_budget_keys_forget(struct dp_budget *limit)
{
    for (size_t i = 0; i < PLACES; i++) {
        if (entries[i].limit == limit) {
            forget(i);
        }
    }
}

void dp_budget_keys_follow(struct dp_budget *limit)
{
    uint64_t period_ns = atomic_load_explicit(&limit->period_ns, memory_order_relaxed);
    uint64_t burst_ns = atomic_load_explicit(&limit->burst_ns, memory_order_relaxed);
    for (size_t i = 0; i < PLACES; i++) {
        if (entries[i].limit == limit) {
            atomic_store_explicit(&entries[i].period_ns, period_ns, memory_order_relaxed);
            atomic_store_explicit(&entries[i].burst_ns, burst_ns, memory_order_relaxed);
        }
    }
}

/* ---- demand ---- */

/* An entry that may be said. */
struct candidate {
    struct dp_budget *budget;
    uint32_t asked;
};

static int candidate_cmp(const void *x, const void *y)
{
    const struct candidate *a = x;
    const struct candidate *b = y;
    if (a->asked != b->asked) {
        return a->asked > b->asked ? -1 : 1;
    }
    return a->budget->id < b->budget->id ? -1 : a->budget->id > b->budget->id;
}

/* What was not said has what each key has; and what is on its way comes too late. */
static void take_back(struct dp_budget *b, uint64_t now_ns)
{
    struct dp_budget_state s = base_state(b->limit, now_ns);
    b->given = 0;
    b->from_ns = now_ns;
    dp_budget_go_by(b, &s, now_ns);
}

static bool may_go(const struct dp_budget *b, uint64_t now_ns)
{
    uint64_t rest_ns = atomic_load_explicit(&full[b->made_up], memory_order_relaxed) ? 0 : REST_NS;
    bool rests = b->needed_ns < now_ns && now_ns - b->needed_ns >= rest_ns;
    return (rests || b->limit->holders == 0) && dp_budget_is_full(b, now_ns);
}

/* Those that may be said, of an array under the lock; the others have no share, or are gone. */
static uint32_t list(uint64_t now_ns, struct candidate *out)
{
    uint32_t count = 0;
    for (size_t i = 0; i < PLACES; i++) {
        struct dp_budget *b = &entries[i];
        if (b->limit == NULL) {
            continue;
        }
        struct dp_budget_state s = dp_budget_get_state(b->limit);
        dp_budget_forgive(b, now_ns);
        uint32_t asked = dp_budget_say(b, now_ns);
        b->needed_ns = asked > base_of(&s, now_ns) ? now_ns : b->needed_ns;
        uint32_t between = b->asked_before / 2 + asked / 2; /* a moment without is no shift yet. */
        b->asked_before = asked > between ? asked : between;
        if (may_go(b, now_ns)) {
            forget(i);
        } else if (b->limit->holders == 0) {
            take_back(b, now_ns);
        } else {
            out[count++] = (struct candidate){b, b->asked_before};
        }
    }
    return count;
}

void dp_budget_keys_demand(uint64_t now_ns, struct demand *d)
{
    static struct candidate candidates[KEYS];
    uint32_t count = list(now_ns, candidates);
    qsort(candidates, count, sizeof(candidates[0]), candidate_cmp);
    for (uint32_t i = 0; i < count; i++) {
        struct dp_budget *b = candidates[i].budget;
        if (d->count >= SHARE_BUDGETS_MAX) {
            take_back(b, now_ns);
            continue;
        }
        bool holds = now_ns < dp_budget_get_state(b).until_ns;
        d->of[d->count++] = (struct demand_of){b->id, candidates[i].asked, holds ? b->given : 0};
    }
    for (int made_up = 0; made_up < 2; made_up++) {
        if (has_room(made_up != 0)) {
            atomic_store_explicit(&full[made_up], false, memory_order_relaxed);
        }
    }
}

/* ---- shares ---- */

/* Of each key DP_BUDGET_BASE is split as the limit is, and the rest by demand. */
bool dp_budget_keys_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns)
{
    bool fell = false;
    for (size_t i = 0; i < PLACES; i++) {
        struct dp_budget *b = &entries[i];
        if (b->limit == NULL || b->limit->holders == 0) {
            continue;
        }
        const struct share_of *of = dp_budget_named(b, shares);
        struct dp_budget_state s = base_state(b->limit, now_ns);
        if (of == NULL && b->given > 0) {
            continue; /* it has that until it is over. */
        }
        uint32_t given = of == NULL ? 0 : of->share;
        uint64_t part = (uint64_t)given * (SHARE_WHOLE - DP_BUDGET_BASE) / SHARE_WHOLE;
        fell = fell || dp_budget_fell(b->given, given);
        b->given = given;
        s.share += (uint32_t)part;
        s.until_ns = until_ns;
        s.nodes = shares->nodes;
        dp_budget_go_by(b, &s, now_ns);
    }
    return fell;
}

void dp_budget_keys_end(uint64_t now_ns)
{
    for (size_t i = 0; i < PLACES; i++) {
        if (entries[i].limit != NULL) {
            dp_budget_end(&entries[i], now_ns);
        }
    }
}
