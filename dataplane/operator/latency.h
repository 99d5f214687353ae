/*
 * latency: how long calls of a method take, as one worker measured it of late.
 *
 * Shape      a table of bounded size; a method has a histogram of 8 buckets an octave, from 8 us
 *            up. Of 4096 records all are halved, so that what is new counts more. In a full set of
 *            the table the method that was asked for longest ago makes room.
 * Units      microseconds.
 * Ownership  the table owns all; a pointer to a method's histogram is good until the next look-up.
 * Threads    one worker.
 * Source     hedging after a percentile: Dean and Barroso, "The Tail at Scale".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct op_latencies;
struct op_latency;

/* E_NO_MEMORY. op_latencies_free() accepts NULL. */
MUST_CHECK struct err op_latencies_new(struct op_latencies **out);
void op_latencies_free(struct op_latencies *all);

/* What a method of a cluster is found by. */
uint64_t op_latency_key(struct slice cluster, struct slice method);

/* Its histogram: found, or made empty. */
struct op_latency *op_latencies_get(struct op_latencies *all, uint64_t key);

void op_latency_add(struct op_latency *latency, uint64_t us);

/* The time within which 'percent' of 100 calls were answered: the end of its bucket, at most 1/8
 * too much. False: there are less than 100 records to tell by. */
bool op_latency_percentile(struct op_latency *latency, uint32_t percent, uint64_t *out_us);
