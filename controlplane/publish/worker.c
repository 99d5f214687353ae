/* worker: see worker.h. */
#include "controlplane/publish/worker.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/queue.h"
#include "controlplane/compile/reuse.h"
#include "controlplane/publish/departure.h"

enum {
    RESTORE_REST_MS = 1000,   /* between two restores: nodes that ask every second cost little */
    REPUBLISH_REST_MS = 5000, /* between two of these: each takes a number */
};
enum { WHY_MAX = 1024, IDLE_MS = 60000 };

struct cp_worker {
    struct cp_publish_room room;
    struct cp_puts puts; /* of the room's bucket. */
    struct cp_task restore;
    struct cp_task republish;
    struct cp_departures departures; /* the publisher's. */
    struct queue queue;
    sem_t wakes;
    pthread_t thread;
    bool started;
    struct {
        struct lock lock;
        bool restoring GUARDED; /* queued, or at work. */
        uint64_t restored_ns GUARDED;
        uint64_t restores GUARDED;
        enum err_code restore_code GUARDED; /* of the last one; E_OK before the first. */
        bool republishing GUARDED;          /* queued, or at work. */
        uint64_t republished_ns GUARDED;    /* or tried to. */
        bool stopping GUARDED;
    } shared;
};

static void wake(void *ctx)
{
    struct cp_worker *w = ctx;
    CHECK(sem_post(&w->wakes) == 0);
}

static bool is_stopping(struct cp_worker *w)
{
    lock_take(&w->shared.lock);
    bool stopping = w->shared.stopping;
    lock_drop(&w->shared.lock);
    return stopping;
}

static bool room_is_stopping(void *ctx)
{
    return is_stopping(ctx);
}

static bool is_wanted(void *ctx)
{
    struct cp_worker *w = ctx;
    return queue_count(&w->queue) > 0 || is_stopping(w);
}

/* Nothing is queued: what is due is done, and then there is time until it is again. */
static void idle(struct cp_worker *w)
{
    struct timespec until;
    uint64_t ms = IDLE_MS;
    if (w->room.collector != NULL) {
        ms = cp_collector_turn(w->room.collector, &w->room, is_wanted, w);
        if (!is_wanted(w)) {
            uint64_t next_ms = cp_departures_turn(&w->departures, &w->room);
            ms = next_ms < ms ? next_ms : ms;
        }
    }
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (sem_clockwait(&w->wakes, CLOCK_MONOTONIC, &until) != 0 && errno == EINTR) {
    }
}

static void *run(void *ctx)
{
    struct cp_worker *w = ctx;
    for (;;) { /* ends when it is told to and nothing is queued. */
        void *item = NULL;
        if (queue_pop(&w->queue, &item, 1) == 1) {
            struct cp_task *task = item;
            task->run(task, &w->room);
            continue;
        }
        if (is_stopping(w)) {
            return NULL;
        }
        idle(w);
    }
}

static void run_restore(struct cp_task *task, struct cp_publish_room *room)
{
    struct cp_worker *w = (struct cp_worker *)((char *)task - offsetof(struct cp_worker, restore));
    struct cp_fence fence;
    uint64_t version = 0;
    auto_buf struct buf why = BUF_MAX(WHY_MAX);
    struct err e = cp_leader_fence(room->leader, &fence);
    bool leads = err_ok(e);
    if (leads) {
        e = cp_bucket_restore(&room->bucket, room->store, room->environment, &version, &why);
    }
    bool nothing = e.code == E_NOT_FOUND; /* nothing was ever published: the bucket is made. */
    if (err_ok(e)) {
        LOG(LOG_INFO, "publish", "restored", LOG_U64("version", version));
    } else if (!nothing && e.code != cp_worker_restore_code(w)) {
        LOG(LOG_WARN, "publish", "restore_failed", LOG_ERR(e), LOG_SLICE("text", buf_slice(&why)),
            LOG_STR("fix", err_fix(e.code)));
    }
    lock_take(&w->shared.lock);
    w->shared.restoring = false;
    w->shared.restored_ns = clock_mono_ns();
    w->shared.restores += err_ok(e);
    w->shared.restore_code = nothing || !leads ? E_OK : e.code;
    lock_drop(&w->shared.lock);
}

void cp_worker_restore(struct cp_worker *worker)
{
    uint64_t now_ns = clock_mono_ns();
    lock_take(&worker->shared.lock);
    bool rests = worker->shared.restored_ns != 0 &&
                 now_ns - worker->shared.restored_ns < (uint64_t)RESTORE_REST_MS * 1000000;
    bool begin = !worker->shared.restoring && !rests;
    worker->shared.restoring = worker->shared.restoring || begin;
    lock_drop(&worker->shared.lock);
    if (!begin) {
        return;
    }
    if (!err_ok(cp_worker_push(worker, &worker->restore))) {
        lock_take(&worker->shared.lock);
        worker->shared.restoring = false; /* whoever wants it asks again. */
        lock_drop(&worker->shared.lock);
    }
}

enum err_code cp_worker_restore_code(struct cp_worker *worker)
{
    lock_take(&worker->shared.lock);
    enum err_code code = worker->shared.restore_code;
    lock_drop(&worker->shared.lock);
    return code;
}

uint64_t cp_worker_restores(struct cp_worker *worker)
{
    lock_take(&worker->shared.lock);
    uint64_t restores = worker->shared.restores;
    lock_drop(&worker->shared.lock);
    return restores;
}

/* ---- the newest content under a new version ---- */

static void audit_republish(struct cp_publish_room *room, const struct cp_work *work)
{
    struct cp_audit entry = {.action = "republish"};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", work->author);
    (void)snprintf(entry.object, sizeof(entry.object), "version %llu",
                   (unsigned long long)work->record.version);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(work->result.code));
    struct err e = room->store->ops->audit_add(room->store, room->environment, &entry);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "publish", "audit_lost", LOG_ERR(e), LOG_STR("action", entry.action));
    }
}

/* The content goes out as a rollback to itself does: byte for byte. */
static struct err republish(struct cp_publish_room *room, uint64_t root_version)
{
    struct cp_record newest;
    TRY(room->store->ops->latest(room->store, room->environment, &newest));
    struct cp_work work;
    cp_work_init(&work, CP_WORK_ROLLBACK);
    work.target = newest.version;
    work.has_base = true; /* whoever published meanwhile did so under the root in force. */
    work.base = newest.version;
    (void)snprintf(work.author, sizeof(work.author), "trilane-cp");
    (void)snprintf(work.message, sizeof(work.message),
                   "root %llu asks for it: the content of %llu, signed anew",
                   (unsigned long long)root_version, (unsigned long long)newest.version);
    cp_publish_run(room, &work);
    audit_republish(room, &work);
    struct err e = work.result;
    cp_work_free(&work);
    return e;
}

static void run_republish(struct cp_task *task, struct cp_publish_room *room)
{
    struct cp_worker *w =
        (struct cp_worker *)((char *)task - offsetof(struct cp_worker, republish));
    struct root root;
    cp_roots_now(room->roots, &root);
    struct cp_signer_hello hello = cp_signer_hello(room->signer);
    auto_buf struct buf why = BUF_MAX(WHY_MAX);
    struct err useless = cp_roots_check_signer(room->roots, &hello, &why);
    struct err e = err_ok(useless) ? republish(room, root.version) : useless;
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "publish", "republish_failed", LOG_ERR(e), LOG_SLICE("why", buf_slice(&why)),
            LOG_U64("root", root.version));
    }
    lock_take(&w->shared.lock);
    w->shared.republishing = false;
    w->shared.republished_ns = clock_mono_ns();
    lock_drop(&w->shared.lock);
}

void cp_worker_republish(struct cp_worker *worker)
{
    uint64_t now_ns = clock_mono_ns();
    lock_take(&worker->shared.lock);
    bool rests = worker->shared.republished_ns != 0 &&
                 now_ns - worker->shared.republished_ns < (uint64_t)REPUBLISH_REST_MS * 1000000;
    bool begin = !worker->shared.republishing && !rests;
    worker->shared.republishing = worker->shared.republishing || begin;
    lock_drop(&worker->shared.lock);
    if (begin && !err_ok(cp_worker_push(worker, &worker->republish))) {
        lock_take(&worker->shared.lock);
        worker->shared.republishing = false; /* the next beat asks again. */
        lock_drop(&worker->shared.lock);
    }
}

static struct err prepare(struct cp_worker *w, const char *store, struct buf *message)
{
    TRY(cp_bucket_bind(&w->room.bucket, w->room.bus, w->room.environment, w->room.roots));
    w->room.bucket.puts = &w->puts;
    TRY(cp_store_await(store, &w->room.store, message));
    TRY(cp_reuse_new(&w->room.reuse));
    w->started = pthread_create(&w->thread, NULL, run, w) == 0;
    return w->started ? OK : FAIL(E_IO);
}

struct err cp_worker_start(const struct cp_publish_room *room, const char *store,
                           struct cp_worker **out, struct buf *message)
{
    struct cp_worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    w->room = *room;
    w->room.store = NULL;
    w->room.reuse = NULL;
    w->room.stopping = room_is_stopping;
    w->room.stopping_ctx = w;
    w->restore.run = run_restore;
    w->republish.run = run_republish;
    struct err e = queue_init(&w->queue, CP_TASKS_MAX, wake, w);
    if (!err_ok(e)) {
        free(w);
        return e;
    }
    lock_init(&w->shared.lock);
    CHECK(sem_init(&w->wakes, 0, 0) == 0);
    e = prepare(w, store, message);
    if (!err_ok(e)) {
        cp_worker_free(w);
        return e;
    }
    *out = w;
    return OK;
}

void cp_worker_finish(struct cp_worker *worker)
{
    if (worker == NULL || !worker->started) {
        return;
    }
    queue_close(&worker->queue);
    lock_take(&worker->shared.lock);
    worker->shared.stopping = true;
    lock_drop(&worker->shared.lock);
    wake(worker);
    CHECK(pthread_join(worker->thread, NULL) == 0);
    worker->started = false;
}

void cp_worker_free(struct cp_worker *worker)
{
    if (worker == NULL) {
        return;
    }
    cp_worker_finish(worker);
    cp_store_close(worker->room.store);
    cp_puts_free(&worker->puts);
    cp_reuse_free(worker->room.reuse);
    queue_free(&worker->queue, /* drop= */ NULL);
    (void)sem_destroy(&worker->wakes);
    lock_free(&worker->shared.lock);
    free(worker);
}

struct err cp_worker_push(struct cp_worker *worker, struct cp_task *task)
{
    return queue_push(&worker->queue, task);
}
