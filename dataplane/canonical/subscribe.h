/*
 * subscribe: one Subscribe call: its credit, and the deliveries that it has not answered.
 *
 * Shape      the first request opens: it names a consumer and types, each a group of group.h. A
 *            delivery takes one of the call's credit, and stays open until an ack, a nack or
 *            ack_wait; open ones are bounded by limits.subscription_credit whatever credit is
 *            given. A call that ends gives its open deliveries back at once.
 * Ownership  a subscription lies in its request's arena; deliveries are its own.
 * Threads    the worker's.
 * Errors     SUBSCRIPTION_INVALID, TYPE_UNKNOWN, POLICY_DENIED, RATE_LIMITED for the open;
 *            ACK_UNKNOWN for a delivery that never was.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct bus_message;
struct canon;
struct canon_group;
struct canon_subscription;
struct dp_request;

/* As dp_lane.forward(), .abort(), .redecide(). */
MUST_CHECK struct err canon_subscribe_start(struct dp_request *rq);
void canon_subscribe_abort(struct dp_request *rq, struct err why);
MUST_CHECK struct err canon_subscribe_redecide(struct dp_request *rq);

/* ---- for group.c ---- */

/* How many more messages it takes now. */
size_t canon_subscription_room(const struct canon_subscription *sub);

/* Hands a message over; only with room. No call ends inside of this. */
void canon_subscription_deliver(struct canon_subscription *sub, struct canon_group *group,
                                const struct bus_message *message);

/* Whether it was told that it is open. */
bool canon_subscription_is_open(const struct canon_subscription *sub);

/* The durable cannot be had: ends the call. */
void canon_subscription_refuse(struct canon_subscription *sub, struct err why, struct slice what);

/* Some group is open now. */
void canon_subscriptions_opened(struct canon *lane);

/* ---- for state.c, canonical.c ---- */

/* Deliveries past ack_wait are no longer open. */
void canon_subscriptions_tick(struct canon *lane);

/* All end UNAVAILABLE, so that clients go elsewhere. */
void canon_subscriptions_drain(struct canon *lane);
