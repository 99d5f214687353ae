/*
 * puback: what JetStream answers to a message that it was sent.
 *
 * Shape      {"stream":…,"seq":…,"duplicate":…} or {"error":{"code":…,"err_code":…}}.
 * Ownership  texts borrow from the answer.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED for the decoder; the answer's own error is in 'err'.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct puback {
    struct err err;    /* E_OK, E_CONFLICT (wrong last sequence), E_BUS_FULL, E_TOO_LARGE, … */
    uint64_t err_code; /* JetStream's own number, 0 when there is none. */
    struct slice description; /* JetStream's own words for it. */
    struct slice stream;
    uint64_t sequence;
    bool duplicate;
};

MUST_CHECK struct err puback_decode(struct slice answer, struct puback *out);

/* Whether JetStream's number says that its account or server, not the stream, has no room. */
bool puback_is_limit(uint64_t err_code);
