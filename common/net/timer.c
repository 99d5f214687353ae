/* timer: the wheel. A timer hangs at the level of the highest digit (base 64) in which its tick
 * differs from the wheel's: so everything on a level comes before everything on the next one. */
#include "common/net/timer.h"

#include "common/base/check.h"
#include "common/net/loop_impl.h"

enum { SLOT_DUE = UINT16_MAX }; /* taken off the wheel, about to run. */

static const uint64_t tick_max = (1ULL << (NET_WHEEL_BITS * NET_WHEEL_LEVELS)) - 1;

static void list_init(struct net_timer_link *head)
{
    head->next = head;
    head->prev = head;
}

static void list_add(struct net_timer_link *head, struct net_timer_link *link)
{
    link->next = head;
    link->prev = head->prev;
    head->prev->next = link;
    head->prev = link;
}

static void list_remove(struct net_timer_link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
    link->next = NULL;
    link->prev = NULL;
}

void net_wheel_init(struct net_wheel *w, uint64_t now)
{
    *w = (struct net_wheel){.now = now};
    for (size_t i = 0; i < sizeof(w->slots) / sizeof(w->slots[0]); i++) {
        list_init(&w->slots[i]);
    }
}

static void wheel_hang(struct net_wheel *w, struct net_timer *t)
{
    CHECK(t->tick > w->now);
    unsigned top_bit = 63U - (unsigned)__builtin_clzll(t->tick ^ w->now);
    unsigned level = top_bit / NET_WHEEL_BITS;
    unsigned slot = (unsigned)(t->tick >> (level * NET_WHEEL_BITS)) % NET_WHEEL_SLOTS;
    t->slot = (uint16_t)(level * NET_WHEEL_SLOTS + slot);
    w->occupied[level] |= 1ULL << slot;
    list_add(&w->slots[t->slot], &t->link);
}

void net_wheel_arm(struct net_wheel *w, struct net_timer *t, uint64_t tick)
{
    net_wheel_cancel(w, t);
    t->tick = tick <= w->now ? w->now + 1 : tick;
    if (t->tick > tick_max) {
        t->tick = tick_max;
    }
    wheel_hang(w, t);
    w->count++;
}

void net_wheel_cancel(struct net_wheel *w, struct net_timer *t)
{
    if (!net_timer_armed(t)) {
        return;
    }
    CHECK(w->count > 0);
    list_remove(&t->link);
    w->count--;
    if (t->slot != SLOT_DUE && w->slots[t->slot].next == &w->slots[t->slot]) {
        w->occupied[t->slot / NET_WHEEL_SLOTS] &= ~(1ULL << (t->slot % NET_WHEEL_SLOTS));
    }
}

/* Where the first occupied slot is, and its first tick; false when the wheel is empty. */
static bool wheel_first(const struct net_wheel *w, size_t *out_index, uint64_t *out_tick)
{
    for (unsigned level = 0; level < NET_WHEEL_LEVELS; level++) {
        if (w->occupied[level] == 0) {
            continue;
        }
        unsigned slot = (unsigned)__builtin_ctzll(w->occupied[level]);
        unsigned shift = level * NET_WHEEL_BITS;
        uint64_t above = w->now >> (shift + NET_WHEEL_BITS);
        *out_index = level * NET_WHEEL_SLOTS + slot;
        *out_tick = ((above << NET_WHEEL_BITS) | slot) << shift;
        return true;
    }
    return false;
}

uint64_t net_wheel_next(const struct net_wheel *w)
{
    size_t index = 0;
    uint64_t tick = 0;
    return wheel_first(w, &index, &tick) ? tick : UINT64_MAX;
}

/* Empties a slot: what is due at w->now goes to 'due', the rest hangs lower. */
static void wheel_empty_slot(struct net_wheel *w, size_t index, struct net_timer_link *due)
{
    struct net_timer_link *head = &w->slots[index];
    w->occupied[index / NET_WHEEL_SLOTS] &= ~(1ULL << (index % NET_WHEEL_SLOTS));
    while (head->next != head) {
        struct net_timer *t = (struct net_timer *)head->next;
        list_remove(&t->link);
        if (t->tick > w->now) {
            wheel_hang(w, t);
        } else {
            t->slot = SLOT_DUE;
            list_add(due, &t->link);
        }
    }
}

void net_wheel_advance(struct net_wheel *w, uint64_t now)
{
    size_t index = 0;
    uint64_t tick = 0;
    /* Ends: each round moves w->now up to the next occupied slot, and no further than 'now'. */
    while (wheel_first(w, &index, &tick) && tick <= now) {
        struct net_timer_link due;
        list_init(&due);
        w->now = tick;
        wheel_empty_slot(w, index, &due);
        while (due.next != &due) {
            struct net_timer *t = (struct net_timer *)due.next;
            net_wheel_cancel(w, t);
            t->fn(t, t->ctx);
        }
    }
    if (now > w->now) {
        w->now = now;
    }
}

void net_timer_init(struct net_timer *t, net_timer_fn *fn, void *ctx)
{
    *t = (struct net_timer){.fn = fn, .ctx = ctx};
}

void net_timer_arm(struct net_loop *loop, struct net_timer *t, uint64_t delay_ms)
{
    /* Rounded up, so that a timer never runs early. */
    uint64_t now_ticks = (net_loop_now_ns(loop) + NET_NS_PER_MS - 1) / NET_NS_PER_MS;
    net_wheel_arm(&loop->wheel, t, now_ticks + (delay_ms > tick_max / 2 ? tick_max / 2 : delay_ms));
}

void net_timer_cancel(struct net_loop *loop, struct net_timer *t)
{
    net_wheel_cancel(&loop->wheel, t);
}
