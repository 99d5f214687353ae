/*
 * intruder: somebody who has access to NATS, and in some schedules the keys of one replica: a head
 * key, or a manifest key below the threshold, too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { INTRUDER_VICTIM = 0 }; /* the replica whose keys leaked. */

/* Draws what there is of it in this schedule. */
void intruder_begin(void);

/* One of the things that it can do. */
void intruder_strike(uint64_t size);

bool intruder_has_key(void);

/* Whether it showed nodes an epoch so far above that no leader goes there by itself. */
bool intruder_went_far(void);
