/* histogram: see histogram.h. */
#include "tests/bench/load/histogram.h"

static size_t bucket_of(uint64_t us)
{
    if (us < HISTOGRAM_OCTAVE) {
        return (size_t)us;
    }
    unsigned octave = 63U - (unsigned)__builtin_clzll(us) - 6U; /* 1 for 128 to 255. */
    size_t bucket = (size_t)octave * HISTOGRAM_OCTAVE + (size_t)(us >> octave);
    size_t last = (size_t)HISTOGRAM_OCTAVES * HISTOGRAM_OCTAVE - 1;
    return bucket < last ? bucket : last;
}

static uint64_t upper_end(size_t bucket)
{
    size_t octave = bucket / HISTOGRAM_OCTAVE;
    if (octave == 0) {
        return bucket;
    }
    return ((uint64_t)(bucket % HISTOGRAM_OCTAVE + 1) << octave) - 1;
}

void histogram_add(struct histogram *h, uint64_t us)
{
    h->counts[bucket_of(us)]++;
    h->total++;
    h->sum_us += us;
    if (us > h->max_us) {
        h->max_us = us;
    }
}

uint64_t histogram_at(const struct histogram *h, double percent)
{
    if (h->total == 0) {
        return 0;
    }
    uint64_t rank = (uint64_t)((double)h->total * percent / 100.0 + 0.5);
    uint64_t seen = 0;
    for (size_t i = 0; i < (size_t)HISTOGRAM_OCTAVES * HISTOGRAM_OCTAVE; i++) {
        seen += h->counts[i];
        if (seen >= rank && seen > 0) {
            uint64_t end = upper_end(i);
            return end < h->max_us ? end : h->max_us;
        }
    }
    return h->max_us;
}
