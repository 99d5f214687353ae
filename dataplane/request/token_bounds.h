/*
 * token_bounds: how much checking of tokens callers may ask of a worker.
 *
 * Shape      words of time. Checks that are not yet paid for, of all callers together; wrong tokens
 *            of each connection, in cells that some connections share; and those of each address,
 *            however many connections it makes, in a cell of each of several rows, so that one who
 *            shares some of them with wrongdoers has another one that says so.
 * Units      nanoseconds of the monotonic clock; 'spent_ns' of the thread's own.
 * Ownership  all zeros is one that nothing was asked of.
 * Threads    a worker's own.
 * Source     GCRA; a count-min sketch of it; docs/tokens.md, "Floods".
 */
#pragma once

#include <stdint.h>

#include "common/base/slice.h"
#include "dataplane/request/claims.h"

enum {
    DP_TOKEN_CONNECTIONS = 1024,
    DP_TOKEN_ADDRESS_ROWS = 4,
    DP_TOKEN_ADDRESS_CELLS = 1024, /* of a row. */
};

struct dp_token_bounds {
    uint64_t busy_until_ns; /* all checks so far, as if each took its share of time. */
    uint64_t connections[DP_TOKEN_CONNECTIONS]; /* until when failures so far are paid for. */
    uint64_t addresses[DP_TOKEN_ADDRESS_ROWS][DP_TOKEN_ADDRESS_CELLS];
};

/* Whether a token that is not known may be looked at now: DP_TOKEN_GOOD; else DP_TOKEN_LIMITED or
 * DP_TOKEN_LIMITED_ADDRESS, and *out_retry_ns says when. 'peer': "address:port". */
enum dp_token_outcome dp_token_bounds_ask(const struct dp_token_bounds *b, struct slice peer,
                                          uint64_t now_ns, uint64_t *out_retry_ns);

/* What a check that began then has cost, and what came of it. */
void dp_token_bounds_charge(struct dp_token_bounds *b, struct slice peer, uint64_t began_ns,
                            uint64_t spent_ns, enum dp_token_outcome outcome);
