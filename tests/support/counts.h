/*
 * counts: whether this run of a test is the one that counts far.
 *
 * `./run test --long` sets TRILANE_TEST_LONG, and builds what plays thousands of inputs once more
 * under preset counts, without sanitizers: there it counts far, here it is one more short run.
 */
#pragma once

#include <stdbool.h>
#include <stdlib.h>

static inline bool counts_far(void)
{
#ifdef __SANITIZE_ADDRESS__
    return false;
#else
    return getenv("TRILANE_TEST_LONG") != NULL; /* NOLINT(concurrency-mt-unsafe): one thread. */
#endif
}
