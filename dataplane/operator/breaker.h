/*
 * breaker: how many calls of a cluster may be under way, and may wait.
 *
 * Shape      a count in the set against this worker's part of what the service allows a node.
 * Threads    one worker.
 * Errors     CIRCUIT_OPEN.
 * Source     Envoy's circuit breakers; parts instead of one count for all workers, so that no
 *            request writes what another core reads.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

struct op_set;

enum op_breaker { OP_BREAKER_REQUESTS, OP_BREAKER_PENDING };

/* Whether one more is too many. */
bool op_breaker_is_open(const struct op_set *set, enum op_breaker which);

/* Counts a refusal: CIRCUIT_OPEN. */
MUST_CHECK struct err op_breaker_refuse(struct op_set *set, enum op_breaker which);
