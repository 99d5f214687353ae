/*
 * wait: for a descriptor, by who has no loop.
 *
 * Units      milliseconds of the monotonic clock.
 * Threads    any.
 * Errors     E_TIMEOUT, E_IO. Signals, and a process that is stopped and continued, neither end the
 *            wait nor prolong it.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

/* Waits for one of poll()'s events: POLLIN, POLLOUT. What the peer ended counts as one. */
MUST_CHECK struct err net_wait(int fd, short events, uint64_t timeout_ms);
