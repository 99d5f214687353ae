/*
 * budget: see budget.h.
 *
 * The state that says how the budget's clock goes is read by workers between two looks at its
 * count: odd, or another one behind than before, and it is read again. Its one writer has the
 * table's lock.
 */
#include <pthread.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "dataplane/request/budget_impl.h"

/* The two clocks are read one after the other. */
#define SLEPT_MORE_NS (NS_PER_S / 10)

/* What a rate is told of: a few requests in a moment are none. */
#define LEAST_NS (NS_PER_S / 4)

/* Of the process: a node has one. */
static struct dp_budget table[DP_BUDGET_LIMITS_MAX];
static uint32_t table_held; /* entries that somebody holds. */
static uint64_t table_slept_ns;
static uint64_t table_said_ns; /* the last demand. */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

void dp_budget_lock(void)
{
    CHECK(pthread_mutex_lock(&table_lock) == 0);
}

void dp_budget_unlock(void)
{
    CHECK(pthread_mutex_unlock(&table_lock) == 0);
}

/* ---- the clock ---- */

struct dp_budget_state dp_budget_get_state(const struct dp_budget *b)
{
    for (;;) { /* ends: a writer is there a few times a second. */
        uint64_t count = atomic_load_explicit(&b->count, memory_order_acquire);
        struct dp_budget_state s = {
            .base_ns = atomic_load_explicit(&b->base_ns, memory_order_acquire),
            .clock_ns = atomic_load_explicit(&b->clock_ns, memory_order_acquire),
            .ahead_ns = atomic_load_explicit(&b->ahead_ns, memory_order_acquire),
            .until_ns = atomic_load_explicit(&b->until_ns, memory_order_acquire),
            .extra_ns = atomic_load_explicit(&b->extra_ns, memory_order_acquire),
            .share = atomic_load_explicit(&b->share, memory_order_acquire),
            .nodes = atomic_load_explicit(&b->nodes, memory_order_acquire),
        };
        if (count % 2 == 0 && atomic_load_explicit(&b->count, memory_order_relaxed) == count) {
            return s;
        }
    }
}

void dp_budget_set_state(struct dp_budget *b, const struct dp_budget_state *s)
{
    atomic_fetch_add_explicit(&b->count, 1, memory_order_seq_cst);
    atomic_store_explicit(&b->base_ns, s->base_ns, memory_order_release);
    atomic_store_explicit(&b->clock_ns, s->clock_ns, memory_order_release);
    atomic_store_explicit(&b->ahead_ns, s->ahead_ns, memory_order_release);
    atomic_store_explicit(&b->until_ns, s->until_ns, memory_order_release);
    atomic_store_explicit(&b->extra_ns, s->extra_ns, memory_order_release);
    atomic_store_explicit(&b->share, s->share, memory_order_release);
    atomic_store_explicit(&b->nodes, s->nodes, memory_order_release);
    atomic_fetch_add_explicit(&b->count, 1, memory_order_seq_cst);
}

/* A part of some time, without more bits than there are. */
uint64_t dp_budget_part(uint64_t ns, uint32_t share)
{
    return ns / SHARE_WHOLE * share + ns % SHARE_WHOLE * share / SHARE_WHOLE;
}

static uint64_t between(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

static uint32_t equal_of(const struct dp_budget_state *s)
{
    return s->nodes == 0 ? 0 : SHARE_WHOLE / s->nodes;
}

void dp_budget_look(const struct dp_budget *budget, uint64_t now_ns, struct dp_budget_view *out)
{
    struct dp_budget_state s = dp_budget_get_state(budget);
    uint64_t burst_ns = atomic_load_explicit(&budget->burst_ns, memory_order_relaxed);
    bool holds = now_ns < s.until_ns;
    uint64_t held_to = holds ? now_ns : s.until_ns;
    uint64_t behind = held_to > s.base_ns ? held_to : s.base_ns;
    uint64_t went = dp_budget_part(between(s.base_ns, held_to), s.share) +
                    dp_budget_part(holds ? 0 : between(behind, now_ns), equal_of(&s));
    out->share = holds ? s.share : 0;
    out->equal = equal_of(&s);
    out->now_ns = s.clock_ns + went;
    uint64_t whole =
        dp_budget_part(burst_ns, holds ? s.share : out->equal) + (holds ? s.extra_ns : 0);
    out->ahead_ns = s.ahead_ns + went < whole ? s.ahead_ns + went : whole;
}

/* ---- taking ---- */

/* The TAT behind one more; false: there is no room. A share holds one request at least. */
static bool next(const struct dp_budget *b, const struct dp_budget_view *view, uint32_t share,
                 uint64_t tat_ns, uint64_t *out_next, uint64_t *retry_ns)
{
    uint64_t period_ns = atomic_load_explicit(&b->period_ns, memory_order_relaxed);
    uint64_t ahead_ns = view->ahead_ns > period_ns ? view->ahead_ns : period_ns;
    *out_next = (tat_ns > view->now_ns ? tat_ns : view->now_ns) + period_ns;
    if (*out_next <= view->now_ns + ahead_ns) {
        return true;
    }
    CHECK(share > 0);
    uint64_t lacks_ns = *out_next - view->now_ns - ahead_ns;
    uint64_t parts = lacks_ns / share + 1; /* by the clock of everybody: */
    *retry_ns = parts < UINT64_MAX / SHARE_WHOLE ? parts * SHARE_WHOLE : UINT64_MAX;
    return false;
}

bool dp_budget_has_room(const struct dp_budget *budget, const struct dp_budget_view *view,
                        uint32_t share, uint64_t *retry_ns)
{
    uint64_t then = 0;
    return next(budget, view, share, atomic_load_explicit(&budget->tat_ns, memory_order_relaxed),
                &then, retry_ns);
}

bool dp_budget_take(struct dp_budget *budget, const struct dp_budget_view *view, uint32_t share,
                    uint64_t *retry_ns)
{
    uint64_t tat_ns = atomic_load_explicit(&budget->tat_ns, memory_order_relaxed);
    uint64_t then = 0;
    do { /* ends: each turn some worker's exchange succeeds. */
        if (!next(budget, view, share, tat_ns, &then, retry_ns)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&budget->tat_ns, &tat_ns, then,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void dp_budget_return(struct dp_budget *budget)
{
    uint64_t period_ns = atomic_load_explicit(&budget->period_ns, memory_order_relaxed);
    uint64_t tat_ns = atomic_load_explicit(&budget->tat_ns, memory_order_relaxed);
    uint64_t then = 0;
    do {                                   /* ends: each turn some worker's exchange succeeds. */
        then = between(period_ns, tat_ns); /* the period may be another one by now. */
    } while (!atomic_compare_exchange_weak_explicit(&budget->tat_ns, &tat_ns, then,
                                                    memory_order_relaxed, memory_order_relaxed));
}

uint64_t dp_budget_left(const struct dp_budget *budget, const struct dp_budget_view *view,
                        uint32_t share)
{
    uint64_t tat_ns = atomic_load_explicit(&budget->tat_ns, memory_order_relaxed);
    uint64_t period_ns = atomic_load_explicit(&budget->period_ns, memory_order_relaxed);
    uint64_t burst_ns = atomic_load_explicit(&budget->burst_ns, memory_order_relaxed);
    uint64_t part_ns = dp_budget_part(burst_ns, share);
    uint64_t whole_ns = part_ns > period_ns ? part_ns : period_ns;
    uint64_t left_ns = between(tat_ns, view->now_ns + view->ahead_ns);
    return left_ns >= whole_ns ? burst_ns
                               : (uint64_t)((double)left_ns / (double)whole_ns * (double)burst_ns);
}

void dp_budget_charge(struct dp_budget *budget, uint64_t ns)
{
    atomic_fetch_add_explicit(&budget->tat_ns, ns, memory_order_relaxed);
}

void dp_budget_ask(struct dp_budget *budget)
{
    atomic_fetch_add_explicit(&budget->asked, 1, memory_order_relaxed);
}

/* ---- the table ---- */

static struct dp_budget *find(uint64_t id)
{
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        if (table[i].id == id) {
            return &table[i];
        }
    }
    return NULL;
}

/* Nothing is lost with it: it was never used, or what was taken has filled again. */
bool dp_budget_is_full(const struct dp_budget *b, uint64_t now_ns)
{
    struct dp_budget_view view;
    dp_budget_look(b, now_ns, &view);
    return b->id == 0 || atomic_load_explicit(&b->tat_ns, memory_order_relaxed) <= view.now_ns;
}

/* An entry that nobody holds, a full one before others: a limit that comes back has its bucket as
 * it was. NULL: none is there. */
static struct dp_budget *find_free(uint64_t now_ns)
{
    struct dp_budget *found = NULL;
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        if (table[i].holders == 0 && dp_budget_is_full(&table[i], now_ns)) {
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
    dp_budget_lock();
    struct dp_budget *b = find(id);
    b = b != NULL ? b : find_free(clock_mono_ns());
    if (b == NULL) {
        dp_budget_unlock();
        return FAIL(E_TOO_LARGE);
    }
    if (b->id != id) {
        dp_budget_keys_forget(b);
        b->id = id;
        b->from_ns = table_said_ns + 1; /* that said nothing of it. */
        b->counted = atomic_load_explicit(&b->asked, memory_order_relaxed);
        b->counted_ns = 0;
        atomic_store_explicit(&b->tat_ns, 0, memory_order_relaxed);
        dp_budget_set_state(b, &(struct dp_budget_state){.base_ns = 0});
    }
    if (b->holders++ == 0) {
        table_held++;
        dp_budget_use(b, period_ns, burst_ns);
        dp_budget_keys_follow(b);
    }
    dp_budget_unlock();
    *out = b;
    return OK;
}

void dp_budget_use(struct dp_budget *budget, uint64_t period_ns, uint64_t burst_ns)
{
    if (atomic_load_explicit(&budget->period_ns, memory_order_relaxed) != period_ns) {
        atomic_store_explicit(&budget->period_ns, period_ns, memory_order_relaxed);
        atomic_store_explicit(&budget->renewed, true, memory_order_relaxed);
    }
    if (atomic_load_explicit(&budget->burst_ns, memory_order_relaxed) != burst_ns) {
        atomic_store_explicit(&budget->burst_ns, burst_ns, memory_order_relaxed);
    }
}

void dp_budget_drop(struct dp_budget *budget)
{
    if (budget != NULL) {
        dp_budget_lock();
        CHECK(budget->holders > 0);
        table_held -= --budget->holders == 0;
        dp_budget_unlock();
    }
}

/* Requests in 'ns', in parts of what the whole budget gives in as long, at most four times that:
 * more gets nobody more. In floating point, where no product of these overflows. */
static uint32_t parts_of(uint64_t requests, uint64_t period_ns, uint64_t ns)
{
    if (requests == 0) {
        return 0;
    }
    double parts = (double)requests * (double)period_ns / (double)(ns > 0 ? ns : 1) * SHARE_WHOLE;
    double least = parts < 1.0 ? 1.0 : parts; /* something, and not nothing. */
    return least < 4.0 * SHARE_WHOLE ? (uint32_t)(least + 0.5) : 4 * SHARE_WHOLE;
}

/* Not at once: until all workers have a new snapshot two of them go by two rates. */
void dp_budget_forgive(struct dp_budget *b, uint64_t now_ns)
{
    if (!atomic_exchange_explicit(&b->renewed, false, memory_order_relaxed)) {
        return;
    }
    struct dp_budget_view view;
    dp_budget_look(b, now_ns, &view);
    uint64_t period_ns = atomic_load_explicit(&b->period_ns, memory_order_relaxed);
    uint64_t most_ns = view.now_ns + (view.ahead_ns > period_ns ? view.ahead_ns : period_ns);
    uint64_t tat_ns = atomic_load_explicit(&b->tat_ns, memory_order_relaxed);
    while (tat_ns > most_ns && /* ends: each turn some worker's exchange succeeds. */
           !atomic_compare_exchange_weak_explicit(&b->tat_ns, &tat_ns, most_ns,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static int demand_cmp(const void *x, const void *y)
{
    const struct demand_of *a = x;
    const struct demand_of *b = y;
    return a->budget < b->budget ? -1 : a->budget > b->budget;
}

uint32_t dp_budget_say(struct dp_budget *b, uint64_t now_ns)
{
    uint64_t asked = atomic_load_explicit(&b->asked, memory_order_relaxed);
    uint64_t period_ns = atomic_load_explicit(&b->period_ns, memory_order_relaxed);
    uint64_t went_ns = b->counted_ns == 0 ? NS_PER_S : between(b->counted_ns, now_ns);
    uint64_t ns = went_ns > LEAST_NS ? went_ns : LEAST_NS;
    uint64_t since = asked - b->counted;
    b->counted = asked;
    b->counted_ns = now_ns;
    return parts_of(since, period_ns, ns);
}

/* Says those that were said before, or those that were not, as far as there is room: while a
 * snapshot takes the place of another one both have their limits. */
static void say_limits(uint64_t now_ns, bool said_before, struct demand *d)
{
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        struct dp_budget *b = &table[i];
        struct dp_budget_view view;
        bool said = b->counted_ns != 0;
        if (b->holders == 0 || said != said_before || d->count == SHARE_BUDGETS_MAX) {
            continue;
        }
        dp_budget_forgive(b, now_ns);
        dp_budget_look(b, now_ns, &view);
        d->of[d->count++] = (struct demand_of){b->id, dp_budget_say(b, now_ns), view.share};
    }
}

void dp_budget_demand(uint64_t now_ns, struct demand *d)
{
    d->count = 0;
    dp_budget_lock();
    table_said_ns = now_ns;
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        struct dp_budget *b = &table[i];
        if (b->holders == 0) {
            dp_budget_end(b, now_ns);
            b->counted = atomic_load_explicit(&b->asked, memory_order_relaxed);
            b->counted_ns = 0; /* as one that was never said. */
        }
    }
    say_limits(now_ns, /* said_before= */ true, d);
    say_limits(now_ns, /* said_before= */ false, d);
    dp_budget_keys_demand(now_ns, d);
    dp_budget_unlock();
    qsort(d->of, d->count, sizeof(d->of[0]), demand_cmp);
}

/* ---- shares ---- */

void dp_budget_go_by(struct dp_budget *b, const struct dp_budget_state *to, uint64_t now_ns)
{
    struct dp_budget_view view;
    struct dp_budget_state s = *to;
    dp_budget_look(b, now_ns, &view);
    s.base_ns = now_ns;
    s.clock_ns = view.now_ns;
    s.ahead_ns = view.ahead_ns;
    dp_budget_set_state(b, &s);
}

const struct share_of *dp_budget_named(const struct dp_budget *b, const struct shares *shares)
{
    uint32_t low = 0;
    uint32_t high = shares->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (shares->of[middle].budget < b->id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool named = low < shares->count && shares->of[low].budget == b->id;
    return named && shares->at_ms >= b->from_ns / NS_PER_MS + (b->from_ns % NS_PER_MS > 0)
               ? &shares->of[low]
               : NULL;
}

bool dp_budget_fell(uint32_t before, uint32_t share)
{
    return before > share && before - share > SHARE_WHOLE / 50;
}

static bool share_limits(const struct shares *shares, uint64_t until_ns, uint64_t now_ns)
{
    bool fell = false;
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        struct dp_budget *b = &table[i];
        const struct share_of *of = b->holders == 0 ? NULL : dp_budget_named(b, shares);
        if (of == NULL) {
            continue;
        }
        struct dp_budget_view view;
        dp_budget_look(b, now_ns, &view);
        fell = fell || dp_budget_fell(view.share, of->share);
        const struct dp_budget_state to = {
            .until_ns = until_ns, .share = of->share, .nodes = shares->nodes};
        dp_budget_go_by(b, &to, now_ns);
    }
    return fell;
}

bool dp_budget_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns)
{
    dp_budget_lock();
    bool fell = share_limits(shares, until_ns, now_ns);
    fell = dp_budget_keys_share(shares, until_ns, now_ns) || fell;
    dp_budget_unlock();
    return fell;
}

void dp_budget_end(struct dp_budget *b, uint64_t now_ns)
{
    struct dp_budget_state s = dp_budget_get_state(b);
    b->given = 0;
    b->from_ns = now_ns;
    if (s.base_ns > 0) {
        const struct dp_budget_state to = {.until_ns = now_ns, .nodes = s.nodes};
        dp_budget_go_by(b, &to, now_ns);
    }
}

/* From now on all go by their equal parts: what was taken stays taken. */
static void end_all(uint64_t now_ns)
{
    for (size_t i = 0; i < DP_BUDGET_LIMITS_MAX; i++) {
        dp_budget_end(&table[i], now_ns);
    }
    dp_budget_keys_end(now_ns);
}

void dp_budget_slept(uint64_t slept_ns, uint64_t now_ns)
{
    dp_budget_lock();
    if (slept_ns > table_slept_ns + SLEPT_MORE_NS) {
        end_all(now_ns);
    }
    table_slept_ns = slept_ns;
    dp_budget_unlock();
}

void dp_budget_give_up(uint64_t now_ns)
{
    dp_budget_lock();
    end_all(now_ns);
    dp_budget_unlock();
}

uint32_t dp_budget_limits(void)
{
    return table_held;
}

bool dp_budget_is_limit(uint64_t id)
{
    return find(id) != NULL;
}
