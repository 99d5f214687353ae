/*
 * sla: endpoints that answer too late get fewer calls.
 *
 * Shape      counts in each endpoint, and a timer of the set: that p percent of the answers come
 *            within the latency holds when no more than the rest are late, so that two counts do
 *            for a percentile. Who misses has half of its share from then on, down to an eighth,
 *            by which it is judged again; who holds, twice as much.
 * Threads    one worker.
 * Errors     none.
 * Source     docs/decisions/0103-sla.md.
 */
#pragma once

struct net_timer;
struct op_endpoint;
struct op_outcome;
struct op_set;

/* What an endpoint has of its calls is counted in parts of this. */
enum { OP_WHOLE_SHARE = 1024 };

/* An attempt that was not given up has ended. */
void op_sla_note(struct op_endpoint *e, const struct op_outcome *how);

/* The set has slots anew: judges by what its cluster says from now on. */
void op_sla_begin(struct op_set *set);

/* The endpoint was put in a slot of the present edition. */
void op_sla_joined(struct op_endpoint *e);

/* net_timer_fn of a set's pace_timer. */
void op_sla_judge(struct net_timer *timer, void *ctx);

/* All slots are filled: who is degraded is known. */
void op_sla_filled(struct op_set *set);

/* The set goes. */
void op_sla_end(struct op_set *set);
