/*
 * apply_impl: the apply thread's own state, shared by its files: apply.c (the steps and their
 * order), fetch.c (what the steps fetch), standing.c (state, ages, status), thread.c.
 *
 * Threads    the apply thread, but for 'shared'.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "common/base/buf.h"
#include "common/base/lock.h"
#include "common/snapshot/disk.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"
#include "dataplane/apply/apply.h"
#include "dataplane/apply/build.h"
#include "dataplane/apply/feed.h"
#include "dataplane/apply/share_order.h"

/* The longest sleep: ages and the state that follows from them are looked at so often, and models
 * that nobody has any more are freed. */
#define DP_TICK_NS UINT64_C(250000000)

/* One walk down the table of steps. */
struct dp_apply_turn {
    struct slice bytes; /* of the head; empty when only its target is tried again. */
    const char *way;    /* "hint", "poll". */
    struct judged judged;
    const struct head_target *target;   /* of apply->accepted. */
    char object[STATUS_OBJECT_MAX + 1]; /* what a failing step was looking at. */
    struct slice
        manifest_bytes; /* of its container: 'fetched', or borrowed of the feed's pushes. */
    struct buf fetched;
    struct manifest manifest;
    struct snap_set *set;
    struct dp_model *model;
    struct dp_build_report report;
    bool over;    /* nothing is left to do. */
    bool failed;  /* the target was refused: try it again. */
    bool later;   /* try the target again in a moment; nothing was refused. */
    bool swapped; /* it is served now. */
};

/* What the node says of itself, before ages are read. */
struct dp_apply_standing {
    enum err_code code; /* of the refusal that holds. */
    char object[STATUS_OBJECT_MAX + 1];
    enum err_code last_code;
    char last_object[STATUS_OBJECT_MAX + 1];
    uint64_t contact_ns; /* boot clock; 0: never. */
    uint64_t content_ns;
    uint64_t applies;
    uint64_t refusals;
    uint64_t parts;
    uint64_t parts_built;
    bool starting;
    bool adopted;             /* every worker serves the model. */
    uint64_t adopted_version; /* the last one that was, */
    uint64_t adopted_ns;      /* and since when; monotonic. */
    bool good;
    bool draining;
    uint64_t root_version;
    uint64_t epoch;
    uint64_t sequence;
    uint8_t content_digest[DIGEST_SIZE];
    uint64_t freshness_max_ms;
    bool strict;
    bool has_model;
};

/* What becomes of the disk. */
enum dp_hand { DP_HAND_NOTHING, DP_HAND_OVER, DP_HAND_BACK };

struct dp_apply {
    struct dp_apply_config config;
    int wake_fd;        /* eventfd. */
    _Atomic bool woken; /* it was written to, and not read yet: one write is enough. */
    pthread_t thread;
    struct disk *disk;
    struct dp_feed feed;
    uint64_t counted_bytes; /* of the feed's, in the metric. */
    struct dp_model_bin *bin;
    struct judge judge;
    struct head_node node;

    /* The thread's alone. */
    struct judged accepted; /* the last head accepted, under the root in force; valid when
                               has_accepted. */
    bool has_accepted;
    struct snap_set *open;  /* what a walk has that found not all chunks; NULL: nothing. Of
                               one manifest; it shares with the model's. */
    struct dp_model *model; /* served; a reference. */
    bool waits_for_room;    /* said so in the log. */
    bool fell_back;         /* the model is the last good one, below the floor. */
    struct dp_apply_standing standing;
    uint64_t walk_ns;     /* when the last walk began, monotonic. */
    uint64_t yielded_ns;  /* when it last let others go first, monotonic. */
    uint64_t accepted_ns; /* monotonic, of the head that led here; 0: none was in this life. */
    uint64_t good_ns;     /* when the version is good, monotonic; 0: not waiting for it. */
    bool mark_failed;     /* its mark could not be written; said so in the log. */
    uint64_t retry_ns;    /* when the target is tried again; 0: not waiting. */
    uint64_t poll_ns;
    uint64_t late_ns;     /* until then a hint may be older than the head that a poll brought. */
    uint64_t replayed_ns; /* since when polls bring but older heads; 0: the last one did not. */
    uint64_t roots_ns;
    uint64_t root_asked_ns;  /* when the last asking for a root had come to none. */
    struct err root_refused; /* why the last asking led to none, when it was there. */
    uint64_t report_ns;      /* the next heartbeat. */
    uint64_t report_rest_ns; /* no status before, whatever changes. */
    uint32_t degraded;       /* services that miss their SLA, as it was looked at last. */
    bool report_due;         /* something changed. */
    uint64_t report_count;
    struct {
        struct dp_share_order order; /* its run: wall clock of the start, in ms. */
        uint64_t said_ns;            /* the last demand, */
        uint64_t due_ns;             /* and the next. */
        bool given_up;               /* nothing is asked for, nor held, any more. */
    } share;                         /* of budgets that the fleet shares; monotonic. */
    struct bus_message *hint;        /* waits for its time. */
    uint64_t hint_ns;                /* when the next hint may be judged. */
    unsigned deaf_polls; /* that brought a newer head, and no hint came since the one before. */
    enum snap_state logged_state;
    enum err_code logged_code;
    uint64_t logged_version;
    bool handed;                /* the disk is another process's: nothing here writes to it. */
    sem_t settled;              /* posted when what 'shared.hand' asked for was done. */
    struct snap_set *positions; /* fetched so far, of somebody's asking; NULL: nothing. */
    size_t positions_at;

    struct {
        struct lock lock;
        struct dp_apply_standing standing GUARDED;
        struct dp_model *model GUARDED;     /* a reference. */
        struct snap_set *positions GUARDED; /* of one version; NULL: none were fetched. */
        struct err positions_why GUARDED;   /* why the last asking led to none. */
        bool positions_wanted GUARDED;
        enum dp_hand hand GUARDED;
        bool stop GUARDED;
        bool drain GUARDED;
    } shared;
};

/* ---- apply.c ---- */

/* Judges a head, and applies its target. */
void dp_apply_head(struct dp_apply *a, struct slice bytes, const char *way);

/* Tries the target of the accepted head again. */
void dp_apply_again(struct dp_apply *a);

/* Serves what the disk has. */
void dp_apply_disk(struct dp_apply *a);

/* Asks for roots beyond the one in force. */
void dp_apply_roots(struct dp_apply *a);

/* Marks the version good once its time has come. */
void dp_apply_prove(struct dp_apply *a, uint64_t now_ns);

/* ---- fetch.c ---- */

/* Walks the roots behind the one in force, and makes them permanent. OK with none is fine. */
MUST_CHECK struct err dp_fetch_roots(struct dp_apply *a);
MUST_CHECK struct err dp_fetch_manifest(struct dp_apply *a, struct dp_apply_turn *t);
/* Goes on with what an earlier walk has of the same manifest. One that takes longer than
 * limits.stale_after_ms ends with CONTENT_UNANSWERED, whatever came. */
MUST_CHECK struct err dp_fetch_chunks(struct dp_apply *a, struct dp_apply_turn *t);
/* Lets go what walks have so far. */
void dp_fetch_drop(struct dp_apply *a);
/* The target is served: what was pushed of it, and before it, is let go. */
void dp_fetch_forget(struct dp_apply *a, const struct dp_apply_turn *t);

/* ---- positions.c ---- */

/* Goes on fetching what is asked for; true: there is more to do. */
bool dp_positions_go_on(struct dp_apply *a);
void dp_positions_free(struct dp_apply *a);

/* ---- hand.c ---- */

/* Does what somebody asks to be done with the disk. */
void dp_hand_look(struct dp_apply *a);

/* ---- thread.c ---- */

/* Opens the node's disk, under a lock of its own or (not -1) one that is there. */
MUST_CHECK struct err dp_apply_open_disk(struct dp_apply *a, int lock_fd, struct disk **out);

/* Between two pieces of work: whoever else waits for the core goes first. */
void dp_apply_yield(struct dp_apply *a);

/* ---- share.c ---- */

/* Takes shares that came, and says what is asked for when that is due. */
void dp_share_turn(struct dp_apply *a);

/* Gives up what this process holds of shared budgets, and says so: others have it then. */
void dp_share_give_up(struct dp_apply *a);

/* ---- standing.c ---- */

/* A step failed: keep what is served, say why. */
void dp_standing_refuse(struct dp_apply *a, struct err why, const char *object);

/* What was refused is settled: the node serves what it should. */
void dp_standing_settle(struct dp_apply *a);

/* Looks at workers and ages; logs and reports what changed. */
void dp_standing_update(struct dp_apply *a);

/* The node swapped: unless its status is due already, it rests for a moment. */
void dp_standing_spread(struct dp_apply *a);

/* Sends the status, on change and as a heartbeat. */
void dp_standing_report(struct dp_apply *a, uint64_t now_ns);

/* When a change is to be sent; 0: there is none, or it cannot be. */
uint64_t dp_standing_due_ns(const struct dp_apply *a);

/* What a standing and the time now make of the state. */
enum snap_state dp_standing_state(const struct dp_apply_standing *s, uint64_t boot_ns);

/* 'ms' ± 20 %, in nanoseconds. */
uint64_t dp_jitter_ns(uint64_t ms);
