/*
 * split: which part of each shared budget each node has.
 *
 * Shape      a table of nodes, each with what it was asked for and what it may hold: the highest
 *            share that it may have in force, of what it was sent; what it says that it has counts
 *            only while others' shares may be in force. The sum of these is never above the whole.
 *            So what a node is to lose it loses first; another one has it when the node said so, or
 *            when its shares are over, which they are a bounded time behind its last demand. A
 *            process of a node that follows another one has nothing of what that holds until it
 *            gave that up or its shares are over: at a hand-over both serve. Who asks for less than
 *            an equal part has all that it asks for and some more; the others have equal parts of
 *            the rest; what nobody asks for is for all alike. So no node's word takes from another
 *            more than what that does not use.
 * Units      parts per million; nanoseconds of the monotonic clock.
 * Ownership  cp_split_new() gives a split that cp_split_free() ends.
 * Threads    one at a time.
 * Errors     E_NO_MEMORY; E_CONFLICT for a demand that is older than the last one of its node, or
 *            of a process too many within the time that shares hold.
 * Source     docs/rate-limits.md, "Budgets of the fleet"; max-min fairness, as in Jain's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/snapshot/share.h"

struct cp_split;

enum {
    CP_SPLIT_VALID_MS = 3000,  /* shares hold so long behind the demand that they answer. */
    CP_SPLIT_MARGIN_MS = 200,  /* clocks run at rates that differ. */
    CP_SPLIT_FLOOR = 50000,    /* of a budget, for all nodes together, however little they ask. */
    CP_SPLIT_FORGET_MS = 60000 /* a node that was silent so long is as new. */
};

MUST_CHECK struct err cp_split_new(struct cp_split **out);
void cp_split_free(struct cp_split *split);

/*
 * Others split until now, in a way that nobody here knows: until all that they gave is over, nodes
 * have no more than what they say that they have.
 */
void cp_split_begin(struct cp_split *split, uint64_t now_ns);

/* What a node says, verified; it is answered at the next turn. Without a budget it gives all up
 * that it has: the process that speaks, or the one before it. */
MUST_CHECK struct err cp_split_demand(struct cp_split *split, const struct demand *demand,
                                      uint64_t now_ns);

/*
 * Calls 'send' with the shares of each node that waits for an answer, whole but for epoch and
 * sequence, which it sets: a higher sequence each time. False: they were not sent, and cannot
 * arrive.
 */
typedef bool cp_split_send_fn(void *ctx, struct shares *shares);
MUST_CHECK struct err cp_split_turn(struct cp_split *split, uint64_t now_ns, cp_split_send_fn *send,
                                    void *ctx);

/* Nodes whose shares may be in force. */
size_t cp_split_nodes(const struct cp_split *split, uint64_t now_ns);
