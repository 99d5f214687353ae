/*
 * h2_guard: how much trouble a connection may make.
 *
 * Shape      a bucket that fills with time, up to one second's worth, and with useful work, which
 *            earns a few control frames: a busy peer rightly sends many WINDOW_UPDATEs and PINGs,
 *            a flood comes without work.
 * Units      charges; milliseconds of the loop's clock.
 * Threads    one worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct h2_guard {
    uint64_t rate;      /* charges a second; also the bucket's size. */
    uint64_t left;      /* charges left, in thousandths. */
    uint64_t filled_ms; /* when it was last filled. */
};

void h2_guard_init(struct h2_guard *g, uint64_t rate, uint64_t now_ms);

/* Takes one charge; false when the bucket is empty: that is a flood. */
bool h2_guard_charge(struct h2_guard *g, uint64_t now_ms);

/* Useful work was done: gives 'charges' back, up to the bucket's size. */
static inline void h2_guard_earn(struct h2_guard *g, uint64_t charges)
{
    uint64_t left = g->left + charges * 1000;
    g->left = left > g->rate * 1000 ? g->rate * 1000 : left;
}
