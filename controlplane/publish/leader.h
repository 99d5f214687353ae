/*
 * leader: holds the leader's row and keeps the head alive.
 *
 * Shape      one thread. A leader renews the row four times in its life and judges what lies
 *            under "head" in KV each time; every limits.head_interval_ms, and at once when
 *            something is new or wrong, it signs the next head, puts it by compare-and-set (for a
 *            publication: on the revision of its own last one) and sends it whole as the hint. It
 *            touches no other key: what the head points at is put by the publisher. A follower
 *            looks at the row, the sooner the nearer its end is. A replica to which NATS does not
 *            answer leaves the row to the others.
 * Units      milliseconds.
 * Ownership  cp_leader_new() gives a leader that cp_leader_free() ends; all in the options is
 *            borrowed until then, but for the store, which the leader opens for itself.
 * Threads    all calls from any thread.
 * Errors     E_NOT_LEADER from cp_leader_fence(): the row is another's, or the last renewal is
 *            not young any more. E_STORE_BEHIND: the bucket names a version above the database's.
 * Source     docs/formats.md, "Publishing"; head.c has what is done with what lies in KV.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/publish/bucket.h"
#include "controlplane/publish/keys.h"
#include "controlplane/publish/roots.h"
#include "controlplane/publish/warrant.h"
#include "controlplane/signer/signer.h"
#include "controlplane/store/store.h"

struct cp_leader;

/* Asks for everything to be put again: the bucket lost something. Called on the leader's thread,
 * at each beat on which it is so. */
typedef void cp_leader_restore_fn(void *ctx);

/* The highest order of a head that a live node says it accepted, up to 'most'; zeroes: none. */
typedef void cp_leader_heard_fn(void *ctx, const struct cp_fleet_order *most,
                                struct cp_fleet_order *out);

/* This replica follows: called at each look at the row, a few times a second. */
typedef void cp_leader_follow_fn(void *ctx);

struct cp_leader_options {
    const char *environment;
    const char *name;    /* of this replica, for people. */
    const char *address; /* of its API, for followers; "": none. */
    const char *store;   /* URL. */
    struct bus *bus;
    struct cp_roots *roots;
    struct cp_signer *signer;
    const struct cp_warrant_key *warrant_key;
    cp_leader_restore_fn *restore;
    cp_leader_heard_fn *heard;   /* NULL: nobody is asked. */
    cp_leader_follow_fn *follow; /* NULL: nobody is told. */
    /* Asks for the newest content under a new version: the root in force wants other signatures, or
     * higher versions. As often as 'restore'. */
    cp_leader_restore_fn *republish;
    void *ctx; /* of all of them. */
};

/* What is counted of heads that were found in KV and written over, and of beats. */
#define CP_HEAD_COUNTERS(X)                                                                        \
    X(signed, "heads signed")                                                                      \
    X(put, "heads that KV took")                                                                   \
    X(hinted, "heads that were hinted alone: JetStream did not answer")                            \
    X(missing, "heads that were missing, or a marker")                                             \
    X(malformed, "heads in KV that do not parse")                                                  \
    X(unsigned, "heads in KV that no head key of ours signed")                                     \
    X(lower, "heads in KV that were older than ours")                                              \
    X(jump, "heads in KV whose epoch is too far above")                                            \
    X(foreign, "valid heads in KV that were not ours: the epoch was raised")                       \
    X(conflict, "writes that lost the race")                                                       \
    X(unknown, "writes without an answer")                                                         \
    X(unreachable, "beats on which KV could not be reached")                                       \
    X(refused, "heads that the signer refused")

struct cp_head_counters {
#define X(name, text) uint64_t head_##name;
    CP_HEAD_COUNTERS(X)
#undef X
};

struct cp_leader_status {
    bool leads;
    uint64_t epoch;
    uint64_t sequence;                       /* of the last head that was signed. */
    uint64_t head_version;                   /* that KV's head points at; 0: none of ours yet. */
    uint64_t named_version;                  /* the same, of this leadership; 0: or given up. */
    int64_t head_at_ms;                      /* wall clock of that write. */
    enum err_code code;                      /* why no head goes out; E_OK: it does. */
    enum err_code store_code;                /* why heads name what was read before; E_OK: they do
                                                not: they name the newest. */
    bool store_silent;                       /* the last beat got no answer of the database. */
    char holder[CP_ENVIRONMENT_MAX + 1];     /* name of who leads. */
    char address[CP_ADDRESS_MAX + 1];        /* of the API of who leads; "": none, or it is not a
                                                replica's word. */
    bool vacant;                             /* the row had run out when it was seen last. */
    uint64_t newest_version;                 /* of the journal; 0: none. */
    char newest_signers[CP_SIGNERS_MAX + 1]; /* of that one. */
    struct cp_keys keys;                     /* of this replica's signer, at the last beat. */
    struct cp_head_counters counters;
};

/* Makes a leader; it does nothing before cp_leader_run(). */
MUST_CHECK struct err cp_leader_new(const struct cp_leader_options *options, struct cp_leader **out,
                                    struct buf *message);

/* Starts its thread. */
MUST_CHECK struct err cp_leader_run(struct cp_leader *leader);

/* Ends the thread, lets the row go and frees. Accepts NULL. */
void cp_leader_free(struct cp_leader *leader);

/* What a write of the leader presents. */
MUST_CHECK struct err cp_leader_fence(struct cp_leader *leader, struct cp_fence *out);

/* Reads the signer's key files anew, soon: trust.h. */
void cp_leader_reload(struct cp_leader *leader);

/*
 * What is sent right before the hint of a version, for nodes that listen: a help and no more. Takes
 * the bytes; those of the version before are let go.
 */
void cp_leader_beside(struct cp_leader *leader, uint64_t version, struct buf *content);

/* What heads named is given up: the journal need not have it. */
void cp_leader_give_up(struct cp_leader *leader);

/* A version was published: the next beat comes now. */
void cp_leader_wake(struct cp_leader *leader);

/* Waits until KV's head points at 'version' or a later one; false when it does not in time. */
bool cp_leader_wait_head(struct cp_leader *leader, uint64_t version, uint64_t timeout_ms);

void cp_leader_status(struct cp_leader *leader, struct cp_leader_status *out);
