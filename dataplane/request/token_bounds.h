/*
 * token_bounds: how much checking of tokens callers may ask of a worker.
 *
 * Shape      two words of time: checks that are not yet paid for, of all callers together, and
 * wrong tokens of each connection, in cells that some connections share. Units      nanoseconds of
 * the monotonic clock; 'spent_ns' of the thread's own. Ownership  all zeros is one that nothing was
 * asked of. Threads    a worker's own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "dataplane/request/claims.h"

enum { DP_TOKEN_PEERS = 1024 };

struct dp_token_bounds {
    uint64_t busy_until_ns; /* all checks so far, as if each took its share of time. */
    uint64_t failed_until_ns[DP_TOKEN_PEERS];
};

/* Whether a token that is not known may be looked at now; else when. 'peer': the connection. */
bool dp_token_bounds_allow(const struct dp_token_bounds *b, struct slice peer, uint64_t now_ns,
                           uint64_t *out_retry_ns);

/* What a check that began then has cost, and what came of it. */
void dp_token_bounds_charge(struct dp_token_bounds *b, struct slice peer, uint64_t began_ns,
                            uint64_t spent_ns, enum dp_token_outcome outcome);
