/*
 * judge: what a node does with a head, check by check in the order of docs/formats.md.
 *
 * Shape      A plain state and pure functions over it. A head goes through judge_head(), which
 *            may ask for a root; then judge_accept() raises the order; then judge_target() says
 *            what is to be served. The leader judges what lies in KV by the same functions.
 * Ownership  plain values; a judged head borrows nothing and must be given to head_free().
 * Threads    one owner at a time.
 * Errors     in struct judged: each check has its code.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/head.h"
#include "common/snapshot/refused.h"
#include "common/snapshot/root.h"

/* What a node knows. Three numbers grow, each by itself: root, order, version. */
struct judge {
    struct root root; /* in force. */
    /* order of the last head accepted; has_order false: none yet, the first is taken. */
    bool has_order;
    bool has_head; /* 'head_digest' is set; false after a start and after a root's floor. */
    uint64_t epoch;
    uint64_t sequence;
    uint8_t head_digest[DIGEST_SIZE]; /* of the last accepted head's body. */
    /* the floor; version zero: none. */
    uint64_t version;
    bool has_digest; /* false: any manifest of the floor's version will do. */
    uint8_t digest[DIGEST_SIZE];
    struct refused refused;
};

/* What the clocks and settings say at the moment. */
struct judge_now {
    int64_t wall_ms;
    int64_t tolerance_ms; /* limits.clock_tolerance_ms */
    bool root_asked;      /* root.<n+1> was asked for just now (or within the last second) and
                             there is none: judge with the root in force. */
};

enum judge_verdict {
    JUDGE_REFUSED,   /* keep what is; 'err' says why. */
    JUDGE_SAME,      /* the head that was accepted last: no news. */
    JUDGE_NEWS,      /* judge_accept() it. */
    JUDGE_WANT_ROOT, /* fetch root.<root version + 1>, judge_walk(), and judge the head again. */
};

struct judged {
    enum judge_verdict verdict;
    struct err err;   /* of a refusal; E_OK otherwise. */
    struct head head; /* of JUDGE_SAME and JUDGE_NEWS; head_free() it in any case. */
    uint8_t digest[DIGEST_SIZE];
};

/* Judges a head up to its acceptance. The state is not changed. */
void judge_head(const struct judge *j, struct slice bytes, const struct judge_now *now,
                struct judged *out);

/* Accepts a head that is JUDGE_NEWS: the order is raised, whatever comes of its target. */
void judge_accept(struct judge *j, const struct judged *judged);

/*
 * Takes the roots of a walk into force. A floor on the way sets epoch and version, and clears
 * order, remembered and refused digests; the caller writes both to disk in one go.
 */
void judge_walk(struct judge *j, const struct root_walk *walk);

enum judge_move {
    JUDGE_KEEP,   /* 'err' says why. */
    JUDGE_SERVED, /* the target is what the floor names: nothing to fetch. */
    JUDGE_FETCH,  /* fetch and apply the target. */
};

struct judge_step {
    enum judge_move move;
    struct err err;
    const struct head_target *target; /* of the head; NULL when none matches. */
};

/* Judges the target of an accepted head: NO_TARGET, the floor, refused digests. */
struct judge_step judge_target(const struct judge *j, const struct head *head,
                               const struct head_node *node);

/* Raises the floor after a version was persisted. */
void judge_raise(struct judge *j, uint64_t version, const uint8_t digest[DIGEST_SIZE]);
