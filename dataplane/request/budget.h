/*
 * budget: what this node has of the budgets that the fleet shares.
 *
 * Shape      a bounded table of the process: an entry for each limit of scope global in a model
 *            that is alive. Workers count what is asked for and read the node's share; the apply
 *            thread says what was asked, and brings shares. A share holds until a moment; what
 *            comes with a larger one fills at its rate, so that moving a budget to and fro makes
 *            no more of it.
 * Units      parts per million of the budget; *_ns nanoseconds of the monotonic clock.
 * Ownership  dp_budget_hold() gives an entry that dp_budget_drop() gives back.
 * Threads    asking and looking: any worker, without a lock. The rest: any thread, under a lock.
 * Errors     E_TOO_LARGE: there are more than SHARE_BUDGETS_MAX.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/share.h"

struct dp_budget;

/* What a limit asks of its budget: the time of one request at the whole rate, and of a burst. */
MUST_CHECK struct err dp_budget_hold(struct slice limit_id, uint64_t period_ns, uint64_t burst_ns,
                                     struct dp_budget **out);
void dp_budget_drop(struct dp_budget *budget); /* NULL is fine. */

/* One request more. */
void dp_budget_ask(struct dp_budget *budget);

/* The node's part now. */
struct dp_budget_view {
    uint32_t share;    /* zero: none is in force. */
    uint32_t nodes;    /* that share, as was said last; zero: never. */
    uint64_t burst_ns; /* how far ahead requests may be taken. */
};
void dp_budget_look(const struct dp_budget *budget, uint64_t now_ns, struct dp_budget_view *out);

/* What was asked since the last call, and what is in force: fills d->of and d->count. */
void dp_budget_demand(uint64_t now_ns, struct demand *d);

/* Takes shares into force until a moment; budgets that they do not name keep what they have.
 * Whether some share is another one now. */
bool dp_budget_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns);
