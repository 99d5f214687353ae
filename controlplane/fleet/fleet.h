/*
 * fleet: what every node says that it runs, and what it refused.
 *
 * Shape      a thread that fills the roll (roll.h) from the node bucket: each new status arrives as
 *            a message, and what lay there before is read for every enrolled node after each
 *            connect. Nodes are enrolled in the store, where they joined and whose certificates say
 *            their keys (passport.h), or by hand, in DIRECTORY/<id>.pub. A status that does not
 *            count is shown as unverified and believed in nothing.
 * Units      milliseconds.
 * Ownership  cp_fleet_new() gives a fleet that cp_fleet_free() ends.
 * Threads    one thread of its own, with a store of its own; all calls but _new, _run and _free
 *            from any.
 * Errors     none: what does not verify is counted and shown.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/bus/bus.h"
#include "common/snapshot/status.h"
#include "controlplane/identity/passport.h"

struct cp_fleet;

struct cp_fleet_options {
    const char *environment;
    const char *node_keys; /* directory of <id>.pub. */
    uint32_t replicas;     /* that the bucket of statuses should have. */
    const char *store;     /* URL. */
    struct bus *bus;
    struct cp_passports *passports; /* what the store's nodes are judged by; NULL: there is no CA
                                       here, and none of them is believed. */
    /* A verified node misses what should lie in the bucket. */
    void (*restore)(void *ctx);
    void *restore_ctx;
};

struct cp_fleet_node {
    char id[KEY_NAME_MAX + 1];
    bool verified;
    bool claimed; /* unverified: it is signed by the key of a row that a release before wrote, and
                     that nothing vouches for. It holds up and keeps; nothing else of it counts. */
    enum err_code why;    /* of an unverified one. */
    struct status status; /* of a verified or claimed one: the newest. */
    uint64_t age_ms;      /* since its last status came. */
    bool live;            /* verified or claimed, and heard of within three heartbeats. */
};

#define CP_STATUS_COUNTERS(X)                                                                      \
    X(accepted, "statuses that counted")                                                           \
    X(verified, "signatures that were verified, for whatever they were")                           \
    X(unverified, "statuses that no enrolled key signed")                                          \
    X(superseded, "statuses dropped unread for a later one of the same node")                      \
    X(replayed, "statuses whose count had been there before")                                      \
    X(skewed, "statuses of another time than now")                                                 \
    X(removed, "statuses of nodes that were removed")                                              \
    X(unknown, "statuses under names that no node has, or past the places for such names")         \
    X(crowded, "statuses dropped for want of a place to wait, or because they were too large")

struct cp_status_counters {
#define X(name, text) uint64_t name;
    CP_STATUS_COUNTERS(X)
#undef X
};

/* Makes a fleet; it takes nothing in before cp_fleet_run(). */
MUST_CHECK struct err cp_fleet_new(const struct cp_fleet_options *options, struct cp_fleet **out,
                                   struct buf *message);
/* Starts its thread. */
MUST_CHECK struct err cp_fleet_run(struct cp_fleet *fleet);
/* Ends every wait, now and later: nobody stands still for a fleet that is about to end. */
void cp_fleet_stop(struct cp_fleet *fleet);
/* Ends the thread and frees. Accepts NULL. */
void cp_fleet_free(struct cp_fleet *fleet);

/*
 * Waits until the statuses that lay in the bucket were read, which happens once in the life of the
 * fleet: until then nobody knows which nodes live. False when the time was over first, or the fleet
 * stops.
 */
bool cp_fleet_wait_read(struct cp_fleet *fleet, uint64_t timeout_ms);

/* The store's nodes have changed: look at them now. */
void cp_fleet_refresh(struct cp_fleet *fleet);

/* Copies the table, by id; the caller frees *out. */
MUST_CHECK struct err cp_fleet_list(struct cp_fleet *fleet, struct cp_fleet_node **out,
                                    size_t *out_count);

/* Services that miss their SLA, as the node says; 0 as well of one that says nothing of it, as
 * those of a release before. */
static inline uint32_t cp_fleet_degraded(const struct status *status)
{
    return status->health_count > STATUS_HEALTH_DEGRADED ? status->health[STATUS_HEALTH_DEGRADED]
                                                         : 0;
}

/* How many there are, for who needs no more than that: nothing is copied. */
struct cp_fleet_tally {
    uint64_t heard;    /* nodes that were heard of. */
    uint64_t live;     /* of these. */
    uint64_t refusing; /* live ones that refuse what the head names. */
    uint64_t degraded; /* live ones that say of a service that it misses its SLA. */
};
void cp_fleet_tally(struct cp_fleet *fleet, struct cp_fleet_tally *out);

/* The highest of what live nodes say: the order of a head that was accepted, a version that is
 * served. Zeroes: none. What a node says that is above the epoch or the version of 'most' is left
 * out: so a word that nobody believes does not drown the others. */
struct cp_fleet_order {
    uint64_t epoch;
    uint64_t sequence;
    uint64_t version;
};
void cp_fleet_order(struct cp_fleet *fleet, const struct cp_fleet_order *most,
                    struct cp_fleet_order *out);

/* The key by which a node's word is verified; false: none of it is believed. */
bool cp_fleet_key(struct cp_fleet *fleet, struct slice id, struct key_public *out);

void cp_fleet_counters(struct cp_fleet *fleet, struct cp_status_counters *out);
