/*
 * roll: the table of nodes, and what their statuses are held against.
 *
 * Shape      one entry a node: the key that it is enrolled with, its newest verified status, and a
 *            status that waits for its turn. A status counts when the node's key signed it, it
 *            came under the node's own name, its count is above every one before, and its time is
 *            now. Of each node at most one is verified in a second: the latest; what came before it
 *            is dropped unread. So a flood in a node's name costs no more than that node does.
 * Units      milliseconds; nanoseconds of the monotonic clock.
 * Ownership  cp_roll_new() gives a roll that cp_roll_free() ends.
 * Threads    one thread judges; cp_roll_list(), _tally(), _order() and _counters() from any.
 * Errors     none: what does not count is counted and shown.
 * Source     docs/formats.md, "Bodies"; docs/threats.md, "Keys and status".
 */
#pragma once

#include "common/base/slice.h"
#include "common/snapshot/format.h"
#include "controlplane/fleet/fleet.h"

enum {
    CP_ROLL_VERIFY_MS = 1000, /* between two verifications of one node's statuses. */
    CP_ROLL_WAITING_MAX = 1024,
    /* Bytes; no status is larger. */
    CP_ROLL_STATUS_MAX = CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + STATUS_BODY_MAX,
    CP_ROLL_UNKNOWN_MAX = 256, /* ids that nobody enrolled: names that others make up. */
    CP_ROLL_UNKNOWN_KEPT_S = 600,
};

struct cp_roll;

/* The moment, by the clocks that the caller reads. */
struct cp_roll_now {
    uint64_t mono_ns;
    int64_t wall_ms;
};

/* A node of the store. */
struct cp_roll_member {
    char id[KEY_NAME_MAX + 1];
    bool proved; /* false: no certificate of ours says its key. One that is known stays. */
    uint8_t status_key[KEY_PUBLIC_SIZE]; /* zeroes: none. */
    bool removed;
};

/* 'node_keys': directory of <id>.pub, of nodes that were enrolled by hand. */
MUST_CHECK struct err cp_roll_new(const char *environment, const char *node_keys,
                                  struct cp_roll **out);
/* Accepts NULL. */
void cp_roll_free(struct cp_roll *roll);

/* The store's nodes, all of them. */
void cp_roll_enrol(struct cp_roll *roll, const struct cp_roll_member *members, size_t count,
                   const struct cp_roll_now *now);

/* A status came under a node's name: judged now, kept for its turn, or dropped. */
void cp_roll_offer(struct cp_roll *roll, struct slice id, struct slice bytes,
                   const struct cp_roll_now *now);

/* A status lay in the bucket when we came: it may be of any age, and is judged now. */
void cp_roll_recall(struct cp_roll *roll, struct slice id, struct slice bytes,
                    const struct cp_roll_now *now);

/* Judges what waited and is due; returns in how many milliseconds the next one is, UINT64_MAX: none
 * waits. */
uint64_t cp_roll_turn(struct cp_roll *roll, const struct cp_roll_now *now);

/* Whether a name came up that the store may know by now; asking clears it. */
bool cp_roll_wants_members(struct cp_roll *roll);
/* Whether a verified node misses what should lie in the bucket; asking clears it. */
bool cp_roll_wants_restore(struct cp_roll *roll);

/* The ids of enrolled nodes of the store that are not removed, one after the other: start with
 * *at = 0. False at the end. The judging thread. */
bool cp_roll_next_member(struct cp_roll *roll, size_t *at, char out[KEY_NAME_MAX + 1]);

/* Copies the entries of nodes that were heard of, by id; the caller frees *out. */
MUST_CHECK struct err cp_roll_list(struct cp_roll *roll, const struct cp_roll_now *now,
                                   struct cp_fleet_node **out, size_t *out_count);

/* Counts them. */
void cp_roll_tally(struct cp_roll *roll, const struct cp_roll_now *now, struct cp_fleet_tally *out);

/* The highest of what live nodes say, up to 'most'. */
void cp_roll_order(struct cp_roll *roll, const struct cp_roll_now *now,
                   const struct cp_fleet_order *most, struct cp_fleet_order *out);

/* The key by which a node's word is verified: of one that is verified, and not removed. */
bool cp_roll_key(struct cp_roll *roll, struct slice id, struct key_public *out);

void cp_roll_counters(struct cp_roll *roll, struct cp_status_counters *out);
