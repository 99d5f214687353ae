/*
 * hash: hashes that are the same in every process, on every node, and in every release.
 *
 * Threads    pure functions; any thread.
 * Source     XXH3-64 of xxHash 0.8, whose results are fixed. Keys from outside can be aimed at
 *            what they hash to: for tables of them there is map_hash().
 */
#pragma once

#include <stdint.h>

#include "common/base/slice.h"

/* Of bytes; each 'seed' is another function. */
uint64_t hash_bytes(struct slice bytes, uint64_t seed);

/* Of a number: every bit of it moves half of the bits (the finalizer of splitmix64). */
static inline uint64_t hash_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}
