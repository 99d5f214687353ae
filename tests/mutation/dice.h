/*
 * dice: the only source of chance here: an input's number and the seed give the same input again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/check.h"

struct dice {
    uint64_t state;
};

static inline struct dice dice_of(uint64_t seed, uint64_t number)
{
    return (struct dice){.state = seed * UINT64_C(0xd1342543de82ef95) + number};
}

/* splitmix64. */
static inline uint64_t dice_next(struct dice *d)
{
    d->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = d->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 to bound - 1. */
static inline uint64_t dice_below(struct dice *d, uint64_t bound)
{
    CHECK(bound > 0);
    return dice_next(d) % bound;
}

/* Least to most, both included. */
static inline uint64_t dice_between(struct dice *d, uint64_t least, uint64_t most)
{
    return least + dice_below(d, most - least + 1);
}

static inline bool dice_even(struct dice *d)
{
    return dice_below(d, 2) == 0;
}
