/*
 * mailbox: how the apply thread hands a model to a worker.
 *
 * Shape      one place: a newer model replaces one that was not taken yet. The worker takes it
 *            between two turns of its loop.
 * Ownership  the mailbox owns the reference that it holds; a taken one is the taker's.
 * Threads    _put() and _version(): any; _take() and _adopted(): the worker, which waits for no
 *            lock: who puts may be preempted by the very worker that it wakes.
 * Errors     none: a loop that takes no task now is asked again with the next _put() or _version().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/lock.h"
#include "common/net/loop.h"

struct dp_model;

struct dp_mailbox {
    struct net_loop *loop; /* set by dp_mailbox_init(); borrowed. */
    struct net_task task;  /* queued on the loop while 'posted'. */
    struct {
        _Atomic(struct dp_model *) waiting; /* owned; NULL: none. */
        _Atomic bool posted;
        _Atomic uint64_t version;    /* that the worker serves; 0: none. */
        _Atomic uint64_t content_ns; /* boot clock, when a head last named it; 0: never. */
    } shared;                        /* any thread. */
    struct {
        struct lock lock; /* while the loop is posted to. */
        bool closed GUARDED;
    } posters; /* any thread but the worker. */
};

/* 'arrived' runs on the loop when there is something to take. */
void dp_mailbox_init(struct dp_mailbox *m, struct net_loop *loop, net_task_fn *arrived, void *ctx);

/* From now on nothing is taken in and no task is queued: before the loop is stopped, so that the
 * loop's end runs the last one. Any thread. */
void dp_mailbox_close(struct dp_mailbox *m);

/* Drops what was not taken. The loop has ended. */
void dp_mailbox_free(struct dp_mailbox *m);

/* Puts a model in; takes a reference of its own. */
void dp_mailbox_put(struct dp_mailbox *m, struct dp_model *model);

/* The model that waits, or NULL. */
struct dp_model *dp_mailbox_take(struct dp_mailbox *m);

/* When a head last named what is served, by the boot clock; 0: not since the start. */
void dp_mailbox_fresh(struct dp_mailbox *m, uint64_t content_ns);
uint64_t dp_mailbox_content_ns(struct dp_mailbox *m);

/* The worker serves this version from now on. */
void dp_mailbox_adopted(struct dp_mailbox *m, uint64_t version);
uint64_t dp_mailbox_version(struct dp_mailbox *m);
