/*
 * gate: how many joins and renewals are looked at in a second.
 *
 * Shape      two counts, started anew each second: of all, and of each address. Addresses share
 *            slots, which only makes the bound tighter; there is nothing to fill up.
 * Threads    one.
 * Errors     E_RATE_LIMITED.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "common/net/addr.h"

enum { CP_GATE_SLOTS = 256, CP_GATE_SHARE = 8 /* an address has this part of all. */ };

struct cp_gate {
    uint64_t second;
    uint64_t all;
    uint64_t slots[CP_GATE_SLOTS];
    uint64_t refused; /* since the start. */
};

/* One more from that address, at a moment of the monotonic clock; limits.joins_per_second. */
MUST_CHECK struct err cp_gate_pass(struct cp_gate *gate, const struct net_addr *from,
                                   uint64_t now_ns);
