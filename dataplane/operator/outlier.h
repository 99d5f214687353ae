/*
 * outlier: endpoints that fail are left alone for a while.
 *
 * Shape      a record in each endpoint. So many failures in a row eject it at once; a timer of the
 *            set judges success rates each interval. A worker judges by the calls that it made.
 * Units      *_ns of the loop's clock.
 * Threads    one worker.
 * Errors     none.
 * Source     Envoy's outlier detection, and what it does not do: grpc-status is read where gRPC
 *            puts it, in the trailers (envoy#8228); docs/decisions/0101-outliers.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct net_timer;
struct op_endpoint;
struct op_set;

enum op_ejection { OP_EJECTED_IN_A_ROW, OP_EJECTED_BY_RATE };

/* An attempt ended, and was a failure or not. */
void op_outlier_note(struct op_endpoint *e, bool failed);

/* Whether it is ejected now; ends what is over. */
bool op_outlier_is_out(struct op_endpoint *e, uint64_t now_ns);

/* The set has slots anew: judges by what its cluster says from now on. */
void op_outlier_begin(struct op_set *set);

/* The endpoint was put in a slot of the present edition. */
void op_outlier_joined(struct op_endpoint *e);

/* net_timer_fn of a set's judge_timer. */
void op_outlier_judge(struct net_timer *timer, void *ctx);
