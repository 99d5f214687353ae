/*
 * timer: many timers on one loop, nearly all of which are cancelled.
 *
 * Shape      an intrusive timer on a hierarchical wheel: ten wheels of 64 slots, 1 ms a tick.
 *            Arming, arming anew and cancelling are O(1) and make no system call.
 * Units      milliseconds; a timer runs at the first tick at or after its time, never before.
 * Ownership  the owner of a struct net_timer cancels it before its memory goes.
 * Threads    the loop's thread only.
 * Source     h2o's timer wheel and Varghese and Lauck's paper, for the idea.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_loop;
struct net_timer;

typedef void net_timer_fn(struct net_timer *timer, void *ctx);

enum { NET_WHEEL_BITS = 6, NET_WHEEL_SLOTS = 1 << NET_WHEEL_BITS, NET_WHEEL_LEVELS = 10 };

struct net_timer_link {
    struct net_timer_link *next;
    struct net_timer_link *prev;
};

struct net_timer {
    struct net_timer_link link; /* first member; next is NULL while the timer is not armed. */
    uint64_t tick;              /* runs at this tick of the wheel. */
    net_timer_fn *fn;
    void *ctx;
    uint16_t slot; /* level * NET_WHEEL_SLOTS + slot: where it hangs. */
};

/* The wheel itself; a loop has one. Public so that its arithmetic can be tested apart. */
struct net_wheel {
    uint64_t now;                        /* ticks that were run. */
    size_t count;                        /* timers armed. */
    uint64_t occupied[NET_WHEEL_LEVELS]; /* one bit a slot that is not empty. */
    struct net_timer_link slots[NET_WHEEL_LEVELS * NET_WHEEL_SLOTS];
};

/* An empty wheel that stands at tick 'now'. */
void net_wheel_init(struct net_wheel *w, uint64_t now);

/* Arms 't' (again) for tick 'tick'; one in the past runs with the next advance. */
void net_wheel_arm(struct net_wheel *w, struct net_timer *t, uint64_t tick);
void net_wheel_cancel(struct net_wheel *w, struct net_timer *t);

/* Runs all that is due up to 'now', in order of ticks. Callbacks may arm and cancel any timer. */
void net_wheel_advance(struct net_wheel *w, uint64_t now);

/* A tick not after the first timer's, for deciding how long to sleep; UINT64_MAX when none. */
uint64_t net_wheel_next(const struct net_wheel *w);

/* A timer that is not armed. */
void net_timer_init(struct net_timer *t, net_timer_fn *fn, void *ctx);

/* Runs t->fn once, 'delay_ms' after the loop's time of this turn. An armed timer is moved. */
void net_timer_arm(struct net_loop *loop, struct net_timer *t, uint64_t delay_ms);

/* Safe on a timer that is not armed. */
void net_timer_cancel(struct net_loop *loop, struct net_timer *t);

static inline bool net_timer_armed(const struct net_timer *t)
{
    return t->link.next != NULL;
}
