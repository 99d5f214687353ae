/*
 * trace: why a request was refused, as JSON, out of the workers' rings.
 *
 * Ownership  the caller frees with json_decref(); NULL when out of memory.
 * Threads    the admin's; no worker waits.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/base/slice.h"

struct dp_admin_config;

/* The refusal of this id, with the place of what decided it: members are in docs/node.md.
 * *out_found is false, and the answer NULL, when none of that id is kept. */
json_t *dp_trace_one(const struct dp_admin_config *c, struct slice id, bool *out_found);

/* {"total": since the start, "refusals": […]}: the latest of all workers, newest first, at most
 * 'max'. */
json_t *dp_trace_latest(const struct dp_admin_config *c, size_t max);
