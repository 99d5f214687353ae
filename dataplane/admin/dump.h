/*
 * dump: what a node says of itself, as JSON. The first few members of /dump are what scripts read:
 * docs/node.md lists them all.
 *
 * Ownership  the caller frees with json_decref(); NULL when out of memory.
 * Threads    the admin's.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/base/slice.h"

struct dp_admin_config;

/* {"ready", "reasons", "version", "state"}; 'tenant' NULL: of the node alone. */
json_t *dp_dump_ready(const struct dp_admin_config *c, const struct slice *tenant, bool *out_ready);

/* All of it. */
json_t *dp_dump_node(const struct dp_admin_config *c);

/* The limits in force: {"name": value, …}. */
json_t *dp_dump_limits(void);
