/*
 * kv_internal: what the two files of a bucket share.
 *
 * Threads    pure functions; any thread.
 * Errors     none.
 */
#pragma once

#include <stdbool.h>

#include "common/base/slice.h"

/* Whether the header KV-Operation says that a message is a marker, no value. */
bool kv_is_marker(struct slice operation);
