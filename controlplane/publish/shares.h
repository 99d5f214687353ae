/*
 * shares: the leader's part in budgets that all nodes share: hears what nodes are asked for,
 * splits, signs with the head key, and answers.
 *
 * Shape      a thread. Demands come as plain messages; of each node four a second are looked at,
 *            and only by the key that its statuses are verified by. A replica that does not lead
 *            hears and forgets. Shares are for one node each, and are not kept anywhere: who begins
 *            to lead waits until all that others gave is over (fleet/split.h).
 * Ownership  what the options name is borrowed.
 * Threads    one of its own; the counters from any.
 * Errors     none after the start: what is wrong is counted.
 */
#pragma once

#include "common/bus/bus.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/publish/leader.h"
#include "controlplane/signer/signer.h"

struct cp_shares;

struct cp_shares_options {
    const char *environment;
    struct bus *bus;
    struct cp_fleet *fleet;
    struct cp_leader *leader;
    struct cp_signer *signer;
};

#define CP_SHARES_COUNTERS(X)                                                                      \
    X(demands, "demands that counted")                                                             \
    X(unverified, "demands that no key of a live node signed")                                     \
    X(replayed, "demands that were older than the last one of their node")                         \
    X(dropped, "demands of a node that spoke too often, or names that no node has")                \
    X(sent, "shares that were signed and sent")                                                    \
    X(refused, "shares that the signer refused")

struct cp_shares_counters {
#define X(name, text) uint64_t name;
    CP_SHARES_COUNTERS(X)
#undef X
};

/* Makes one; it hears nothing before cp_shares_run() has started its thread. */
MUST_CHECK struct err cp_shares_new(const struct cp_shares_options *options,
                                    struct cp_shares **out);
MUST_CHECK struct err cp_shares_run(struct cp_shares *shares);
/* Ends the thread and frees. Accepts NULL. */
void cp_shares_free(struct cp_shares *shares);

void cp_shares_counters(struct cp_shares *shares, struct cp_shares_counters *out);
