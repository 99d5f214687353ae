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

/* Takes so many charges; false when the bucket has less: that is a flood. */
bool h2_guard_charge(struct h2_guard *g, uint64_t now_ms, uint64_t charges);

/* Useful work was done: gives so many thousandths of a charge back, up to the bucket's size. */
static inline void h2_guard_earn(struct h2_guard *g, uint64_t thousandths)
{
    uint64_t left = g->left + thousandths;
    g->left = left > g->rate * 1000 ? g->rate * 1000 : left;
}
