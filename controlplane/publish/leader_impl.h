/*
 * leader_impl: the leader's own state, shared by its files: leader.c (the thread, and the order of
 * a beat), lease.c (the row), point.c (the head in KV).
 *
 * Threads    the leader's, but for 'shared'.
 * Errors     those of the store, of KV and of the signer; E_NOT_LEADER: the row is another's.
 */
#pragma once

#include <pthread.h>

#include "common/base/lock.h"
#include "common/bus/subject.h"
#include "controlplane/publish/head.h"
#include "controlplane/publish/leader.h"
#include "controlplane/publish/trust.h"

enum {
    CP_LEASE_RENEWALS = 4, /* in the life of the row. */
    CP_HEAD_FOUND_MAX =
        8 << 20, /* whatever lies under "head", as large as NATS lets a message be. */
};

struct cp_leader {
    struct cp_leader_options options;
    struct subject hint;    /* trilane.<env>.head */
    struct subject content; /* trilane.<env>.content */
    uint8_t holder[CP_HOLDER_SIZE];
    pthread_t thread;
    bool started;
    int wake_fd; /* eventfd: a publication, or the end. */
    struct {
        struct cp_store *store;
        struct cp_bucket bucket;
        struct cp_head_own own;
        struct root root;    /* in force at this beat. */
        uint64_t renewed_ns; /* monotonic, of the last renewal; 0: the row is not ours. */
        uint64_t lease_epoch;
        uint64_t expires_ns;     /* monotonic: when the row that was last seen runs out. */
        uint64_t head_ns;        /* monotonic: when the next head is due. */
        uint64_t signed_ns;      /* monotonic: when the last one was signed. */
        uint64_t pointed_at;     /* version that KV's head of ours names. */
        uint64_t revision;       /* of that head, as of our last write; 0: not known. */
        uint64_t looked_ns;      /* monotonic: when it was last read and judged. */
        uint64_t heard_ns;       /* monotonic: of NATS' last answer, */
        uint64_t kv_ns;          /* and of JetStream's. */
        uint64_t heeded_ns;      /* monotonic: when nodes' word was answered by an epoch. */
        uint64_t taken_ns;       /* monotonic: since when the row is ours. */
        uint64_t left_ns;        /* monotonic: when it was left to others. */
        bool bus_asked;          /* in this beat. */
        bool deaf;               /* NATS has been silent for long. */
        bool content_checked;    /* the bucket was held against the journal. */
        struct cp_record newest; /* of the journal, as it was read last, */
        uint64_t newest_epoch;   /* while we led this epoch; 0: it was not. */
        bool said_address;       /* that the row's is nobody's word. */
        enum err_code said;      /* last state that was logged: each change once. */
        struct cp_trust trust;
    } on_thread;
    struct {
        struct lock lock;
        bool stopping GUARDED;
        uint64_t renewed_ns GUARDED;
        struct cp_leader_status status GUARDED;
        bool reload GUARDED;             /* the key files shall be read anew. */
        uint64_t beside_version GUARDED; /* whose hint 'beside' goes with; 0: none. */
        struct buf beside GUARDED;
    } shared;
};

/* What one beat finds and makes. */
struct cp_leader_beat {
    struct cp_record record; /* what the head shall point at. */
    bool holds;              /* or it is to be signed anew. */
    struct err refused;      /* why the newest row of the journal is not it. */
    struct kv_entry found;
    struct buf bytes; /* what lies under "head"; then the new head's container. */
};

#define CP_COUNT_HEAD(l, name)                                                                     \
    do {                                                                                           \
        lock_take(&(l)->shared.lock);                                                              \
        (l)->shared.status.counters.head_##name++;                                                 \
        lock_drop(&(l)->shared.lock);                                                              \
    } while (0)

/* ---- leader.c ---- */

/* Keeps why no head goes out, or that one does, and logs each change. */
void cp_leader_note_state(struct cp_leader *l, struct err e);

/* ---- lease.c ---- */

/* Takes or renews the row, unless it is fresh. */
MUST_CHECK struct err cp_leader_hold(struct cp_leader *l);

/* Takes or renews the row with an epoch above 'epoch_above'; a new epoch begins with sequence 1. */
MUST_CHECK struct err cp_leader_renew(struct cp_leader *l, uint64_t epoch_above);

/* Gives the row away, or says that it is not ours any more. */
void cp_leader_let_go(struct cp_leader *l);

/* Lets the row go because of 'why', which is returned; who leads is read all the same. */
MUST_CHECK struct err cp_leader_step_down(struct cp_leader *l, struct err why);

/* Leaves the row to the others when NATS does not answer here. */
void cp_leader_leave_when_deaf(struct cp_leader *l);

/* Who left the row looks for NATS, and at the row. OK: it may be taken. */
MUST_CHECK struct err cp_leader_judge_deaf(struct cp_leader *l);

/* NATS and JetStream answered just now. */
void cp_leader_note_answer(struct cp_leader *l);

/* What a write presents that is fenced by 'epoch'. */
struct cp_fence cp_leader_fence_at(const struct cp_leader *l, uint64_t epoch);

/* Whether a renewal is so young that the row is ours beyond doubt. */
bool cp_leader_is_young(uint64_t renewed_ns);

/* Within a part of the row's life that leaves room for three more tries. */
bool cp_leader_is_recent(uint64_t at_ns);

/* KV must not hold the thread past the next renewal. */
uint64_t cp_leader_kv_timeout_ms(void);

/* ---- point.c ---- */

/* Reads what lies under "head" and decides about it: goes on (OK), or says why no head may be
 * written over it. */
MUST_CHECK struct err cp_leader_judge_head(struct cp_leader *l, struct cp_leader_beat *b);

/* Signs and puts the next head when it is due, and sends it as the hint. */
MUST_CHECK struct err cp_leader_point_head(struct cp_leader *l, struct cp_leader_beat *b);

/* The same without KV, which does not answer; E_BUS_UNAVAILABLE when NATS does not, either. */
MUST_CHECK struct err cp_leader_hint_alone(struct cp_leader *l, struct cp_leader_beat *b);

/* What nodes say of heads and versions, up to this epoch and version; zeroes: nothing. */
struct cp_fleet_order cp_leader_heard(struct cp_leader *l, uint64_t epoch, uint64_t version);

/* The bucket lost something: everything is to be put again. */
void cp_leader_want_restore(struct cp_leader *l);
