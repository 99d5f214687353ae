/*
 * group: one durable consumer on this worker, and the subscriptions that share it.
 *
 * Shape      a durable is one (consumer, tenant, type), made by the keeper. The group asks the
 *            server for as many messages as its members have credit for, one pull at a time, and
 *            hands them out in turn. What is no envelope of its type is quarantined.
 * Ownership  the lane's. A group lives as long as it has members, a job of the keeper or an open
 *            pull; canon_groups_tick() frees it. A member is its subscription's.
 * Threads    the worker's.
 * Errors     a group that cannot be opened ends its members.
 * Source     docs/canonical.md, "Subscribing"; docs/decisions/0030-pull.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/bus/subject.h"
#include "dataplane/canonical/state.h"

struct dp_topic;

/* A subscription's place in a group. */
struct canon_member {
    struct canon_group *group; /* NULL: in none. */
    struct canon_subscription *subscription;
    struct canon_member *next; /* in the group's ring: whose turn it is comes first. */
    struct canon_member *prev;
};

/* Who asks for a group. */
struct canon_group_key {
    struct slice consumer; /* a resource name. */
    struct slice tenant;
    const struct dp_topic *topic;
    bool from_start;
};

/* The durable's name: <env>_<consumer>_<type, readable>-<digest of tenant and type>. */
MUST_CHECK struct err canon_group_durable(struct slice environment, struct slice consumer,
                                          struct slice tenant, struct slice type,
                                          struct subject *out);

/* Puts the member into the group, which is made if it is missing. E_NO_MEMORY,
 * E_SUBSCRIPTION_INVALID for a name that is none. */
MUST_CHECK struct err canon_group_join(struct canon *lane, const struct canon_group_key *key,
                                       struct canon_member *member);

/* Accepts a member that is in no group. */
void canon_group_leave(struct canon_member *member);

bool canon_group_is_open(const struct canon_group *group);
struct slice canon_group_type(const struct canon_group *group);
struct slice canon_group_tenant(const struct canon_group *group);
const struct canon_topic *canon_group_topic(const struct canon_group *group);

/* Members have credit again: messages that wait are handed out, and more are asked for. */
void canon_group_pump(struct canon_group *group);

/* How long a message that nobody is left to take stays away, so that it does not come back to a
 * pull of ours: 0 when others are there. */
uint64_t canon_group_return_ms(const struct canon_group *group);

/* ---- for state.c ---- */

/* Takes back the keeper's jobs. */
void canon_group_opened(struct canon *lane);

/* A message came to the group's inbox; takes it. */
void canon_group_received(struct canon_group *group, struct bus_message *message);

/* Pulls of the connection before are lost. */
void canon_groups_reconnected(struct canon *lane);

void canon_groups_tick(struct canon *lane);
void canon_groups_free(struct canon *lane);
