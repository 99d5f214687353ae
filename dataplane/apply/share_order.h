/*
 * share_order: which shares of the fleet's budgets a node takes, by their order and their moment.
 *
 * Shape      pure judgement over what was taken and said before. Shares answer a demand of this
 *            very process: a moment at which it had not spoken yet is of none. An order below the
 *            last one is of who leads no more; one that no head has come up to yet fences only as
 *            long as its shares hold, so that whoever signs an order that is too high shuts nobody
 *            out behind that.
 * Units      milliseconds of the monotonic clock.
 * Threads    the apply thread's.
 * Source     docs/formats.md; docs/decisions/0117-shares-by-the-nodes-clock.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "common/snapshot/share.h"

/* outcome, label of the metric */
#define DP_SHARE_OUTCOMES(X)                                                                       \
    X(TAKEN, "taken")                                                                              \
    X(LATE, "late")                                                                                \
    X(REFUSED, "refused")                                                                          \
    X(SAME, "")

enum dp_share_outcome {
#define X(name, label) DP_SHARE_##name,
    DP_SHARE_OUTCOMES(X)
#undef X
        DP_SHARE_OUTCOME_COUNT,
};

/* Empty: it is not counted. */
const char *dp_share_outcome_label(enum dp_share_outcome outcome);

struct dp_share_order {
    struct slice node; /* whose shares they are, and of which process. */
    uint64_t run;
    uint64_t said_ms; /* the last demand; zero: none. */
    uint64_t epoch;   /* of what was taken last; zero: nothing. */
    uint64_t sequence;
    uint64_t until_ms; /* when that is over. */
};

/* The order of the heads in force. */
struct dp_share_heads {
    bool found;
    uint64_t epoch;
};

/* TAKEN: the order goes on with them. SAME: those that were taken last, once more. LATE: not of
 * now. REFUSED: no leader can have said that. */
enum dp_share_outcome dp_share_judge(struct dp_share_order *order,
                                     const struct dp_share_heads *heads,
                                     const struct shares *shares, uint64_t now_ms);
