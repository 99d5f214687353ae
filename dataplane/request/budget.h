/*
 * budget: what this node has of the budgets that the fleet shares.
 *
 * Shape      a bounded table of the process: an entry for each limit of scope global in a model
 *            that is alive. Workers count what is asked for and read the node's share; the apply
 *            thread says what was asked, and brings shares. A bucket (GCRA, as of a limit) runs by
 *            a clock of its own, which goes as fast as the share is large: so what was taken stays
 *            taken whatever the share becomes, and a larger share brings no burst with it.
 *            Of a limit that counts by keys the entry says what each key has on this node without
 *            a word about it: DP_BUDGET_BASE of the whole, split by the limit's share. A key that
 *            is asked for more has an entry of its own, by which the rest is split. These are
 *            bounded as well, and half of them are for keys that callers do not make up.
 * Units      parts per million of the budget; *_ns nanoseconds of the monotonic clock.
 * Ownership  dp_budget_hold() gives an entry that dp_budget_drop() gives back.
 * Threads    asking, looking and finding: any worker, without a lock. The rest: any thread, under a
 *            lock.
 * Errors     E_TOO_LARGE: there are more than DP_BUDGET_LIMITS_MAX.
 * Source     docs/decisions/0178-keys-of-the-fleet.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/share.h"

struct dp_budget;

/* How many limits may be held: of several models that are alive each has as many as can be said,
 * and they may be all others. */
enum { DP_BUDGET_LIMITS_MAX = 8 * SHARE_BUDGETS_MAX };

/* Of each key's budget, for all nodes together, however little is asked there: so nodes that have
 * said nothing of a key pass something of it, and all of them no more than this. */
enum { DP_BUDGET_BASE = SHARE_WHOLE / 20 };

/* How much more of that there is at once than of the burst: what eight seconds give. By all nodes
 * together that is 4 % of what a key may in ten seconds. */
#define DP_BUDGET_EXTRA_NS UINT64_C(8000000000)

/* What a limit asks of its budget: the time of one request at the whole rate, and of a burst. Where
 * another model has them otherwise, that holds until dp_budget_use(): what is built may be refused.
 */
MUST_CHECK struct err dp_budget_hold(struct slice limit_id, uint64_t period_ns, uint64_t burst_ns,
                                     struct dp_budget **out);
void dp_budget_drop(struct dp_budget *budget); /* NULL is fine. */

/* What the model in force says of it, by a request. */
void dp_budget_use(struct dp_budget *budget, uint64_t period_ns, uint64_t burst_ns);

/* One request more. */
void dp_budget_ask(struct dp_budget *budget);

/* The node's part at a moment. */
struct dp_budget_view {
    uint32_t share;    /* zero: none is in force. */
    uint32_t equal;    /* what an equal part is, of the nodes that were told last; zero: never. */
    uint64_t now_ns;   /* by the budget's own clock, which goes as fast as the share is large, */
    uint64_t ahead_ns; /* and how far ahead of that requests may be taken. */
};
void dp_budget_look(const struct dp_budget *budget, uint64_t now_ns, struct dp_budget_view *out);

/* Whether there is room for one; else *retry_ns says when there is. 'share' is the part by which
 * time is told: the view's share, or its equal part where the limit says so. */
bool dp_budget_has_room(const struct dp_budget *budget, const struct dp_budget_view *view,
                        uint32_t share, uint64_t *retry_ns);

/* Takes one; and gives it back. */
bool dp_budget_take(struct dp_budget *budget, const struct dp_budget_view *view, uint32_t share,
                    uint64_t *retry_ns);
void dp_budget_return(struct dp_budget *budget);

/* What is left of what the node may take at once, as such a part of the limit's whole burst. */
uint64_t dp_budget_left(const struct dp_budget *budget, const struct dp_budget_view *view,
                        uint32_t share);

/* ---- keys ---- */

/* A key of a limit that is counted by keys. */
struct dp_budget_key {
    uint64_t own; /* a hash of this node; never zero. */
    uint64_t id;  /* what stands for it in the fleet, */
    bool made_up; /* and whether callers made some of it up. */
};

/* What each key of a limit has on a node that has so much of the limit. */
uint32_t dp_budget_base(uint32_t share);

/* The entry of a key; NULL: it has none, and has what each key has. An entry that nobody asked for
 * in a while becomes another key's. */
struct dp_budget *dp_budget_of_key(uint64_t own);

/* Whether a key might have an entry, so that it is worth to make out its id; else it is counted
 * with those that found no room. */
bool dp_budget_has_place(bool made_up);

/*
 * Makes an entry for a key of a limit that is held, which is said soon. It has what each key has
 * until a share comes, from a full bucket. False: it has one already, or there is no room.
 */
bool dp_budget_add_key(struct dp_budget *limit, const struct dp_budget_key *key, uint64_t now_ns);

/* A part of some time, without more bits than there are. */
uint64_t dp_budget_part(uint64_t ns, uint32_t share);

/* What was taken elsewhere already: so much time at the whole rate. */
void dp_budget_charge(struct dp_budget *budget, uint64_t ns);

/* How often a key found no room, since start. */
uint64_t dp_budget_crowded(void);

/* Whether there is a key that was never said; then there is none until the next one comes. */
bool dp_budget_is_news(void);

/* ---- the apply thread's ---- */

/* What was asked since the last call, and what is in force: fills d->of and d->count. What is not
 * said has no share any more. */
void dp_budget_demand(uint64_t now_ns, struct demand *d);

/* Takes shares into force until a moment; budgets that they do not name keep what they have.
 * Whether some share fell, so that others wait for a word of it. */
bool dp_budget_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns);

/*
 * How long the machine has slept since its start. When that is more than the last time, no share
 * holds any more: the clock by which they hold stood still, and elsewhere they are over.
 */
void dp_budget_slept(uint64_t slept_ns, uint64_t now_ns);

/* No share holds any more. */
void dp_budget_give_up(uint64_t now_ns);
