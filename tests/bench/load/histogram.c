/* histogram: see histogram.h. */
#include "tests/bench/load/histogram.h"

/* Below two octaves' worth a bucket is one value; from there on an octave has so many buckets. */
static size_t bucket_of(uint64_t us)
{
    if (us < 2 * HISTOGRAM_OCTAVE) {
        return (size_t)us;
    }
    unsigned octave = 63U - (unsigned)__builtin_clzll(us) - 7U; /* 1 for 256 to 511. */
    if (octave > HISTOGRAM_OCTAVES - 2) {
        return HISTOGRAM_BUCKETS - 1;
    }
    return (size_t)octave * HISTOGRAM_OCTAVE + (size_t)(us >> octave);
}

static uint64_t upper_end(size_t bucket)
{
    if (bucket < 2 * HISTOGRAM_OCTAVE) {
        return bucket;
    }
    size_t octave = bucket / HISTOGRAM_OCTAVE - 1;
    size_t leading = bucket % HISTOGRAM_OCTAVE + HISTOGRAM_OCTAVE;
    return ((uint64_t)(leading + 1) << octave) - 1;
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
    uint64_t rank = (uint64_t)((double)h->total * percent / 100.0 + 0.5);
    uint64_t seen = 0;
    /* The last bucket has no upper end of its own: what lies there is told by the maximum. */
    for (size_t i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank && seen > 0) {
            uint64_t end = upper_end(i);
            return end < h->max_us ? end : h->max_us;
        }
    }
    return h->max_us;
}
