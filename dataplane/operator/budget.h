/*
 * budget: what trying more than once may cost a cluster, on one worker.
 *
 * Shape      a budget a cluster whose methods are retried or hedged: tokens (gRPC A6), further
 *            attempts at once, and a share of hedges. Budgets outlive snapshots; one that no call
 *            asked for in a minute goes.
 * Units      tokens and hedges in thousandths.
 * Ownership  the budgets own each one. A call holds its own from op_budgets_open() to
 *            op_budget_close().
 * Threads    one worker.
 * Source     gRPC A6, "Throttling Retry Attempts and Hedged RPCs"; Envoy's retry budget.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/telemetry/metrics.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/lane.h"

struct op_budgets;

/* What is counted of a cluster. */
enum op_count {
    OP_COUNT_RETRY,
    OP_COUNT_HEDGE,
    OP_COUNT_DENIED_TOKENS,      /* too many attempts failed. */
    OP_COUNT_DENIED_CONCURRENCY, /* too many further attempts at once. */
    OP_COUNT_DENIED_SHARE,       /* too many hedges for so many calls. */
    OP_COUNT_DENIED_PUSHBACK,    /* the upstream said not to. */
    OP_COUNT_WON,                /* a hedge answered before the first attempt. */
    OP_COUNT_COUNT
};

struct op_budget {
    struct slice id; /* owned; of the cluster. */
    struct op_budgets *all;
    struct op_budget *next;            /* in their list. */
    struct dp_retry_budget rules;      /* of the snapshot that the last call came by. */
    uint32_t tokens;                   /* thousandths. */
    uint32_t hedges;                   /* thousandths that calls have earned. */
    uint32_t open;                     /* calls that hold it. */
    uint32_t further;                  /* attempts beyond the first, waiting ones counted. */
    uint64_t used_ns;                  /* when a call began or ended last. */
    metrics_id counts[OP_COUNT_COUNT]; /* 0: not made yet. */
};

/* Hedges that calls may save up. */
enum { OP_HEDGES_SAVED = 10 };

/* 'host' is borrowed for as long as the budgets live. E_NO_MEMORY. */
MUST_CHECK struct err op_budgets_new(const struct dp_lane_host *host, struct op_budgets **out);

/* No call holds one any more. Accepts NULL. */
void op_budgets_free(struct op_budgets *all);

/* How many there are. */
size_t op_budgets_count(const struct op_budgets *all);

/* A call of a method with a policy begins: its cluster's budget. E_NO_MEMORY. */
MUST_CHECK struct err op_budgets_open(struct op_budgets *all, const struct dp_cluster *cluster,
                                      struct op_budget **out);
void op_budget_close(struct op_budget *budget);

/* A full one. */
void op_budget_init(struct op_budget *budget, const struct dp_retry_budget *rules);

/* A call begins, by these rules. */
void op_budget_enter(struct op_budget *budget, const struct dp_retry_budget *rules);

/* An attempt succeeded, or failed in a way that its policy names. */
void op_budget_note(struct op_budget *budget, bool succeeded);

/* Asks for one more attempt at once. False: 'out_why' says what there is none left of. */
bool op_budget_take_retry(struct op_budget *budget, enum op_count *out_why);

/*
 * The same for a hedge. Who asks for the first time leaves half of what can be saved up to those
 * who were denied before and wait still; after 'denials' of them a call leaves that much less: a
 * quarter, an eighth, …
 */
bool op_budget_take_hedge(struct op_budget *budget, uint32_t denials, enum op_count *out_why);

/* Gives back so many. */
void op_budget_give(struct op_budget *budget, uint32_t count);

/* Whether tokens are left for another attempt of a call that has taken one already. */
bool op_budget_has_tokens(const struct op_budget *budget);

void op_budget_count(struct op_budget *budget, enum op_count what);
