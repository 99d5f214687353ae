/*
 * worker: a thread that does one task after the other in a room of its own.
 *
 * Shape      the control plane has two: the publisher, which alone writes versions and puts
 *            content into KV, and the reader, for what only looks (history, validate, plan). So a
 *            long publication delays no question, and a long question no publication.
 * Ownership  a task is its maker's; the worker touches it no more once run() has returned.
 * Threads    cp_worker_push(), cp_worker_restore() and cp_worker_republish() from any thread.
 * Errors     E_QUEUE_FULL at once when too many tasks wait; E_CLOSED after cp_worker_finish()
 *            began.
 */
#pragma once

#include "common/base/err.h"
#include "controlplane/publish/publish.h"

enum { CP_TASKS_MAX = 64 };

struct cp_worker;

struct cp_task {
    void (*run)(struct cp_task *task, struct cp_publish_room *room);
};

/* Starts a worker; 'room' is copied, its store is opened from 'store', its 'reuse' made. */
MUST_CHECK struct err cp_worker_start(const struct cp_publish_room *room, const char *store,
                                      struct cp_worker **out, struct buf *message);

/* Does what is queued, then ends its thread; pushes fail from now on. Accepts NULL. */
void cp_worker_finish(struct cp_worker *worker);
/* When no other thread knows it any more. Accepts NULL. */
void cp_worker_free(struct cp_worker *worker);

MUST_CHECK struct err cp_worker_push(struct cp_worker *worker, struct cp_task *task);

/* Puts everything of the newest publication into KV again, soon and once. */
void cp_worker_restore(struct cp_worker *worker);

/* Publishes the newest content under a new version, soon and once: the root in force wants other
 * signatures on it, or a higher version (trust.h). */
void cp_worker_republish(struct cp_worker *worker);

/* How often everything was put again, and why the last one was not. */
uint64_t cp_worker_restores(struct cp_worker *worker);
enum err_code cp_worker_restore_code(struct cp_worker *worker);
