/*
 * head: one beat of the leader: judge what lies in KV, sign, compare-and-set, hint.
 *
 * Shape      pure judgement (cp_head_judge) apart from what is done about it.
 * Threads    the leader's.
 * Source     docs/formats.md, "Publishing": "Compare-and-set keeps two honest leaders apart;
 *            nothing rests on it."
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/head.h"
#include "common/snapshot/root.h"

/* What the leader knows of its own last head. */
struct cp_head_own {
    uint64_t epoch;
    uint64_t sequence;           /* of the last head signed; 0: none in this epoch. */
    uint8_t digest[DIGEST_SIZE]; /* of the last body put. */
    uint64_t version_max;        /* highest version that the database handed out. */
};

enum cp_head_verdict {
    CP_HEAD_OURS,      /* what we wrote last: go on. */
    CP_HEAD_MISSING,   /* nothing, or a marker. */
    CP_HEAD_MALFORMED, /* written over, and counted: this and the next three. */
    CP_HEAD_UNSIGNED,
    CP_HEAD_LOWER,
    CP_HEAD_JUMP,
    CP_HEAD_FOREIGN, /* valid and not ours: the next epoch above it is taken. */
    CP_HEAD_BEHIND,  /* valid, and names a version that the database does not know: if anybody ever
                        published that, which its manifest tells. */
    CP_HEAD_VERDICT_COUNT,
};

struct cp_head_judged {
    enum cp_head_verdict verdict;
    uint64_t epoch;              /* of a foreign one. */
    uint64_t version_max;        /* highest that a valid head names, */
    uint8_t digest[DIGEST_SIZE]; /* and its manifest's. */
    enum cp_head_verdict order;  /* what it is by its order alone. */
};

/* Judges the bytes under "head". Time is not asked: nodes remember an expired order, too. */
void cp_head_judge(const struct root *root, struct slice bytes, const struct cp_head_own *own,
                   struct cp_head_judged *out);
