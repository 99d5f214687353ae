/*
 * chaos: what goes wrong in a schedule, and when: drawn from its seed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FAULTS_MAX = 64 };

/* Draws the faults of a schedule; returns how many. Those whose bit is in 'left_out' are drawn and
 * do not happen. 'favourites' (may be NULL): names of those that most shall be of. */
size_t chaos_begin(uint64_t end_ns, uint64_t left_out, const char *favourites);

/* Nothing more goes wrong. */
void chaos_end(void);

/* Takes leaked keys away, if there are any: a new root without them, with a floor if nodes may have
 * been led too far for a leader to follow. */
void chaos_revoke(void);

/* Writes a line for each fault to stdout. */
void chaos_print(uint64_t left_out);
