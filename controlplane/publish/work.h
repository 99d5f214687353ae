/*
 * work: one request to the control plane's background threads, and its answer.
 *
 * Shape      what is asked (kind and inputs), what came of it (result and texts), and a callback
 *            that runs on the working thread when it is over.
 * Ownership  whoever makes a work frees it after done(); bufs are the work's.
 * Threads    one at a time: the maker, then the worker, then (after done()) the maker again.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "controlplane/publish/prepared.h"
#include "controlplane/source/source.h"
#include "controlplane/store/store.h"

enum cp_work_kind {
    CP_WORK_VALIDATE,
    CP_WORK_PLAN,
    CP_WORK_PUBLISH,
    CP_WORK_ROLLBACK,
    CP_WORK_RECOVER,
    CP_WORK_COSIGN, /* of a replica that follows: judges and signs the open proposal. */
};

struct cp_work {
    /* Asked. */
    enum cp_work_kind kind;
    struct cp_source_set sources; /* of all but a rollback, and what was planned. */
    bool has_plan;                /* publish what was planned under 'plan', not 'sources'. */
    uint64_t target;              /* of a rollback: the version whose content comes back. */
    bool with_trust;              /* of a rollback: what was revoked since then comes back, too. */
    bool has_base;                /* refuse unless 'base' is the newest version (0: none yet). */
    uint64_t base;
    bool again; /* publish under a new number even when nothing changed. */
    char
        request[CP_REQUEST_MAX + 1]; /* the sender's id of it: done once, however often it comes. */
    bool gives_up;         /* of a recovery: the bucket's newer version is given up, not adopted. */
    uint64_t above;        /* of a recovery: only numbers above this one from now on. */
    bool recovers;         /* a part of a recovery: that the database is behind is known. */
    uint64_t sign_wait_ms; /* how long to wait for the other replicas' signatures. */
    char author[CP_AUTHOR_MAX + 1];
    char message[CP_MESSAGE_MAX + 1];
    /* Answered. */
    struct err result;
    bool deposed;           /* the result is what keeps this replica from leading. */
    const char *step;       /* at which it was refused; a literal. */
    struct buf sentence;    /* about a refusal; may be empty. */
    struct buf diagnostics; /* JSON array; empty: none. */
    struct buf diagnostics_text;
    struct buf diff; /* JSON of the changes, of a plan. */
    struct buf diff_text;
    uint8_t plan[CP_PREPARED_ID_SIZE]; /* of a plan: by which it can be published; asked, too. */
    struct cp_record before;           /* newest publication; version 0: none. */
    struct cp_record record;           /* what was published, or would be. */
    uint64_t chunks;
    uint64_t chunks_new;   /* that the journal did not know. */
    uint64_t bytes_new;    /* stored bytes of these. */
    uint64_t nodes_live;   /* that it would reach now. */
    uint64_t capabilities; /* that a node needs for it. */
    uint32_t format;       /* of the snapshot. */
    bool in_head;          /* KV's head points at it. */
    bool is_same;          /* the content is that of the newest publication. */
    bool is_unchanged;     /* so are the positions: there is nothing to publish. */
};

void cp_work_init(struct cp_work *work, enum cp_work_kind kind);
void cp_work_free(struct cp_work *work);
