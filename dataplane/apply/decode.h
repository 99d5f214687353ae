/*
 * decode: names of parts, and lists out of decoded messages.
 *
 * Ownership  lists lie in the arena; their strings borrow from the message.
 * Threads    pure functions; any thread.
 * Errors     PART_MALFORMED for a list that is not sorted, or has something twice; E_NO_MEMORY.
 * Source     proto/trilane/parts/v1/parts.proto.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/* Keys and ids begin with these. */
#define DP_HOST_PREFIX SLICE_LIT("host/")
#define DP_SERVICE_PREFIX SLICE_LIT("service/")
#define DP_ISSUER_PREFIX SLICE_LIT("issuer/")
#define DP_TOPIC_PREFIX SLICE_LIT("topic/")
#define DP_EGRESS_PREFIX SLICE_LIT("egress/")
#define DP_ENVIRONMENT_KEY SLICE_LIT("environment")

/* Partitions of the bus that a node handles. */
enum { DP_PARTITIONS_MAX = 4096 };

/* Whether a sorted list has the name. */
bool dp_decode_has(const struct slice *sorted, size_t count, struct slice name);

/* A sorted list of strings as slices. */
MUST_CHECK struct err dp_decode_strings(struct arena *arena, char *const *strings, size_t count,
                                        struct slice **out);
