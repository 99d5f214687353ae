/*
 * health: endpoints are asked how they are.
 *
 * Shape      a timer of the set walks its slots; an endpoint whose time has come is probed by the
 *            worker that takes it first, on the board that all workers share, where it also leaves
 *            what it found: one probe an interval and a node, whichever workers have calls for it.
 *            Each worker takes over from the board what others found. What nobody found out yet is
 *            taken for well. A worker has HEALTH_PROBES_MAX under way at most; who is left over is
 *            asked a little later.
 * Units      milliseconds of the loop's clock, which is one for all workers.
 * Ownership  a probe is freed when its verdict is there; it holds its endpoint.
 * Threads    one worker; the board is shared.
 * Errors     none: a probe that fails is what it is for.
 * Source     grpc/grpc, doc/health-checking.md; Envoy's health checks: thresholds, jitter;
 *            docs/decisions/0102-health-checks.md.
 */
#pragma once

#include <stdint.h>

struct net_timer;
struct op_endpoint;
struct op_set;
struct op_upstreams;

enum { HEALTH_PROBES_MAX = 64 };

/* The set has slots anew: asks as its cluster says from now on. */
void op_health_begin(struct op_set *set);

/* The endpoint was put in a slot of the present edition. */
void op_health_joined(struct op_endpoint *e);

/* net_timer_fn of a set's health_timer. */
void op_health_walk(struct net_timer *timer, void *ctx);

/* Gives up all probes that are under way. */
void op_health_stop(struct op_upstreams *ups);
