/*
 * retry: whether a call is tried once more, and when.
 *
 * Shape      struct op_retry is what a call knows of its method's policy; a call without a policy
 *            has none. It decides; call.c does.
 * Units      milliseconds; *_ns of the loop's clock.
 * Ownership  of the call, in its request's arena; it holds its cluster's budget from
 *            op_retry_begin() to op_retry_end(). The policy is a copy: a swap may take the model.
 * Threads    one worker.
 * Source     gRPC A6, client retries: backoff, push-back, throttling, hedging.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "common/net/h2_field.h"
#include "common/net/timer.h"
#include "dataplane/apply/model.h"
#include "dataplane/operator/budget.h"
#include "dataplane/operator/latency.h"

struct op_retry {
    struct dp_method_policy policy; /* its name is not valid. */
    struct op_budget *budget;
    struct net_timer timer; /* the pause before a retry, or until the next hedge. */
    uint64_t latency_key;
    uint64_t began_ns;
    uint64_t hedge_ms; /* until the next hedge; zero: none is timed. */
    uint32_t made;     /* attempts; those that are transparent are not counted. */
    uint32_t pauses;   /* since the upstream said when to retry. */
    uint32_t held;     /* of the budget's room. */
    uint32_t denials;  /* of hedges, for want of budget. */
    bool safe;         /* doing it twice is as good as once. */
    bool stopped;      /* the upstream wants no further attempt. */
    bool paid;         /* the next hedge has its part of the budget already. */
};

/* What the end of an attempt says to a policy. */
struct op_failure {
    int status;     /* of gRPC. */
    bool sent;      /* the upstream may have begun with it. */
    bool timed_out; /* it outlasted perTryTimeout, by our clock or the upstream's. */
    bool ours;      /* this node refused it, and would do so again. */
    const struct h2_field *pushback; /* grpc-retry-pushback-ms; NULL: it is not there. */
};

enum op_pushback { OP_PUSHBACK_NONE, OP_PUSHBACK_WAIT, OP_PUSHBACK_STOP };

/* Reads grpc-retry-pushback-ms: a time (WAIT, in *out_ms), or negative or anything else (STOP). */
enum op_pushback op_pushback_read(const struct h2_field *field, uint64_t *out_ms);

/* The pause before retry 'number', the first being 0: min(initial * multiplier^number, max), times
 * 0.8 to 1.2 as 'draw' has it. */
uint64_t op_backoff_ms(const struct dp_method_policy *policy, uint32_t number, uint64_t draw);

/* Begins with an attempt made. 'budget' is taken. */
void op_retry_begin(struct op_retry *retry, const struct dp_method_policy *policy,
                    struct op_budget *budget, bool safe);

/* The call has its answer or is over: gives the budget back but for the call itself; and that. */
void op_retry_settle(struct op_retry *retry);
void op_retry_end(struct op_retry *retry);

/* Whether an attempt that ended so is one that the policy names. */
bool op_retry_names(const struct op_retry *retry, const struct op_failure *failure);

/* What one that it does not name costs: gRPC A6 has an upstream that says not to come again take a
 * token, whatever its status is. */
void op_retry_unnamed(struct op_retry *retry, const struct op_failure *failure);

/*
 * An attempt failed that was the only one: charges the budget, and says whether another one is made
 * in *out_pause_ms. Not when that would be past the deadline: the answer at hand says more.
 */
bool op_retry_next(struct op_retry *retry, const struct op_failure *failure, uint64_t left_ms,
                   uint64_t *out_pause_ms);

/* How long the first attempt is alone: false when the policy or what was measured says nothing. */
bool op_retry_hedge_delay(struct op_retry *retry, struct op_latencies *latencies);

/* Whether a hedge may start now; it is paid for then. */
bool op_retry_take_hedge(struct op_retry *retry);

/*
 * The same for one in the place of an attempt that failed, which is no further load: it needs none
 * of the hedges' share, and has the room that the other had. The call's first attempt had none:
 * what follows it counts like a retry.
 */
bool op_retry_take_place(struct op_retry *retry, bool first);

/* A hedge failed, and the call goes on without another in its place: gives its room back. */
void op_retry_give_hedge(struct op_retry *retry);

/* One of several attempts failed, or the last one. Charges the budget; says in *out_wait_ms how
 * long the upstream wants the next one to wait. */
enum op_pushback op_retry_hedge_failed(struct op_retry *retry, const struct op_failure *failure,
                                       uint64_t *out_wait_ms);

/* Whether there could be another attempt, budget apart. */
bool op_retry_may(const struct op_retry *retry);
