/*
 * ask: one GET to a node's admin port, for commands.
 *
 * Units      bytes, milliseconds.
 * Threads    any; it waits.
 * Errors     E_UNAVAILABLE: nobody answers there; E_TIMEOUT; E_MALFORMED: no HTTP; what the
 *            answer's status says otherwise: E_UNAUTHENTICATED, E_NOT_FOUND, E_IO.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/* Appends the body of the answer. 'token' may be empty. */
MUST_CHECK struct err dp_ask(struct slice address, struct slice path, struct slice token,
                             struct buf *out);
