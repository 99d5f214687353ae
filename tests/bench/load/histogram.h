/*
 * histogram: latencies in HDR buckets.
 *
 * Shape      log-linear: 128 buckets an octave of microseconds up to 2^32; error below 0.8 %.
 * Units      microseconds.
 * Source     HdrHistogram, for the idea.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    HISTOGRAM_OCTAVE = 128,
    HISTOGRAM_OCTAVES = 26,
    HISTOGRAM_BUCKETS = HISTOGRAM_OCTAVES * HISTOGRAM_OCTAVE,
};

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t sum_us;
    uint64_t max_us;
};

void histogram_add(struct histogram *h, uint64_t us);

/* The upper end of the bucket in which 'percent' (0 to 100) of all values lie; 0 when empty. */
uint64_t histogram_at(const struct histogram *h, double percent);
