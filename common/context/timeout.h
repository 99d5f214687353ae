/*
 * timeout: how much time a caller gives, as text on the wire.
 *
 * Units      nanoseconds; a time past TIMEOUT_MAX_NS counts as that.
 * Threads    pure functions; any thread. No call allocates.
 * Errors     E_CONTEXT_INVALID for text that is not of the form; *out untouched.
 * Source     gRPC over HTTP/2: Timeout → "grpc-timeout" TimeoutValue TimeoutUnit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

#define TIMEOUT_MAX_NS (UINT64_C(365) * 24 * 3600 * 1000000000)

enum { TIMEOUT_TEXT_MAX = 24 };

/* 1 to 8 digits and one of H M S m u n. "0n" is a time that is over. */
MUST_CHECK struct err timeout_parse_grpc(struct slice text, uint64_t *out_ns);

/* 1 to 12 digits: x-request-timeout-ms. */
MUST_CHECK struct err timeout_parse_ms(struct slice text, uint64_t *out_ns);

/*
 * Writes the finest unit that takes at most 8 digits, rounded down so that the next hop gets no
 * more time than is left; at least "1n". Returns the size; a NUL is behind it.
 */
size_t timeout_format_grpc(uint64_t ns, char out[TIMEOUT_TEXT_MAX]);

/* The same in whole milliseconds, at least 1. */
size_t timeout_format_ms(uint64_t ns, char out[TIMEOUT_TEXT_MAX]);
