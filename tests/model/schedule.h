/*
 * schedule: one seed played from its beginning to its end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/bugs.h"

struct schedule {
    uint64_t seed;
    uint64_t left_out;     /* faults that do not happen, by bit. */
    enum bug bug;          /* that is made. */
    bool traces;           /* what happens goes to stderr. */
    bool says_faults;      /* a list of them goes to stdout. */
    const char *directory; /* an empty one. */
};

struct schedule_figures {
    uint64_t faults;
    uint64_t publications;
    uint64_t digest;
    uint64_t virtual_ms;
};

/* Plays it in this process, which it ends when something does not hold. */
void schedule_run(const struct schedule *schedule, struct schedule_figures *out);
