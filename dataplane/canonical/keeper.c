/* keeper: see keeper.h. */
#include "dataplane/canonical/keeper.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"

enum { CALL_TIMEOUT_MS = 2000, RETRY_MS = 1000, LOOK_MS = 50 };

struct canon_keeper {
    struct bus *bus;
    uint32_t replicas; /* of the streams that it makes. */
    struct slice environment;
    struct canon_bell *bell;
    pthread_t thread;
    pthread_cond_t wake;
    enum err_code told; /* the thread's: what was last logged of the streams. */
    struct {
        struct lock lock;
        struct canon_job *first GUARDED; /* oldest first. */
        struct canon_job *last GUARDED;
        struct canon_job *done GUARDED; /* in no order. */
        bool streams_due GUARDED;
        uint64_t due_ns GUARDED; /* not before this. */
        bool quit GUARDED;
    } shared;
};

static void *thread_main(void *ctx);

struct err canon_keeper_start(const struct dp_lane_host *host, struct canon_bell *bell,
                              struct canon_keeper **out)
{
    struct canon_keeper *k = calloc(1, sizeof(*k));
    if (k == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    k->bus = host->bus;
    k->replicas = host->bus_replicas;
    k->environment = host->environment;
    k->bell = bell;
    lock_init(&k->shared.lock);
    lock_take(&k->shared.lock);
    k->shared.streams_due = true;
    lock_drop(&k->shared.lock);
    pthread_condattr_t attr;
    CHECK(pthread_condattr_init(&attr) == 0);
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&k->wake, &attr) == 0);
    CHECK(pthread_condattr_destroy(&attr) == 0);
    if (pthread_create(&k->thread, NULL, thread_main, k) != 0) {
        CHECK(pthread_cond_destroy(&k->wake) == 0);
        lock_free(&k->shared.lock);
        free(k);
        return FAIL(E_IO);
    }
    (void)pthread_setname_np(k->thread, "canon-keeper");
    *out = k;
    return OK;
}

static void free_jobs(struct canon_job *job)
{
    while (job != NULL) {
        struct canon_job *next = job->next;
        free(job);
        job = next;
    }
}

void canon_keeper_stop(struct canon_keeper *k)
{
    if (k == NULL) {
        return;
    }
    lock_take(&k->shared.lock);
    k->shared.quit = true;
    CHECK(pthread_cond_signal(&k->wake) == 0);
    lock_drop(&k->shared.lock);
    CHECK(pthread_join(k->thread, NULL) == 0);
    lock_take(&k->shared.lock);
    free_jobs(k->shared.first);
    free_jobs(k->shared.done);
    lock_drop(&k->shared.lock);
    CHECK(pthread_cond_destroy(&k->wake) == 0);
    lock_free(&k->shared.lock);
    free(k);
}

void canon_keeper_ask(struct canon_keeper *k, struct canon_job *job)
{
    job->next = NULL;
    lock_take(&k->shared.lock);
    if (k->shared.last != NULL) {
        k->shared.last->next = job;
    } else {
        k->shared.first = job;
    }
    k->shared.last = job;
    CHECK(pthread_cond_signal(&k->wake) == 0);
    lock_drop(&k->shared.lock);
}

struct canon_job *canon_keeper_done(struct canon_keeper *k)
{
    lock_take(&k->shared.lock);
    struct canon_job *job = k->shared.done;
    if (job != NULL) {
        k->shared.done = job->next;
        job->next = NULL;
    }
    lock_drop(&k->shared.lock);
    return job;
}

void canon_keeper_check(struct canon_keeper *k)
{
    if (k == NULL) {
        return;
    }
    lock_take(&k->shared.lock);
    if (!k->shared.streams_due) {
        k->shared.streams_due = true;
        CHECK(pthread_cond_signal(&k->wake) == 0);
    }
    lock_drop(&k->shared.lock);
}

/* ---- the thread ---- */

static MUST_CHECK struct err ensure_stream(struct canon_keeper *k, const char *name,
                                           const struct subject *subject, struct buf *why)
{
    const char *const subjects[] = {subject->text};
    const struct jetstream_stream want = {
        .name = name, .subjects = subjects, .subject_count = 1, .replicas = k->replicas};
    struct stream_info info = {0};
    struct err err = jetstream_stream_ensure(k->bus, &want, CALL_TIMEOUT_MS, why, &info);
    if (err_ok(err) && info.replicas < k->replicas) { /* whoever owns the stream may raise it. */
        LOG(LOG_WARN, "canonical", "stream-replicas", LOG_STR("stream", name),
            LOG_U64("has", info.replicas), LOG_U64("wanted", k->replicas));
    }
    return err;
}

static MUST_CHECK struct err ensure_streams(struct canon_keeper *k, struct buf *why)
{
    struct subject events;
    struct subject quarantine;
    const struct slice any = {0};
    TRY(subject_events(k->environment, &events));
    TRY(subject_quarantine(k->environment, any, any, &quarantine));
    TRY(ensure_stream(k, "TRILANE_EVENTS", &events, why));
    return ensure_stream(k, "TRILANE_QUARANTINE", &quarantine, why);
}

/* One line for each change of how it goes. */
static void tell(struct canon_keeper *k, struct err err, struct slice why)
{
    if (err.code == k->told) {
        return;
    }
    k->told = err.code;
    LOG(err_ok(err) ? LOG_INFO : LOG_WARN, "canonical", err_ok(err) ? "streams" : "streams-missing",
        LOG_ERR(err), LOG_SLICE("why", why));
}

static void look_at_streams(struct canon_keeper *k)
{
    auto_buf struct buf why = BUF_MAX(CANON_WHY_MAX);
    struct err err = ensure_streams(k, &why);
    tell(k, err, buf_slice(&why));
    if (!err_ok(err)) {
        lock_take(&k->shared.lock);
        k->shared.streams_due = true;
        k->shared.due_ns = clock_mono_ns() + UINT64_C(1000000) * RETRY_MS;
        lock_drop(&k->shared.lock);
    }
}

static MUST_CHECK struct err ensure_consumer(struct canon_keeper *k, const struct canon_job *job,
                                             struct buf *why)
{
    const struct jetstream_consumer want = {.stream = job->stream,
                                            .durable = job->durable.text,
                                            .filter = job->filter.text,
                                            .from_start = job->from_start};
    return jetstream_consumer_ensure(k->bus, &want, CALL_TIMEOUT_MS, why);
}

static void run_job(struct canon_keeper *k, struct canon_job *job)
{
    auto_buf struct buf why = BUF_MAX(CANON_WHY_MAX - 1);
    job->err = ensure_consumer(k, job, &why);
    if (job->err.code == E_NOT_FOUND) {
        look_at_streams(k);
        job->err = ensure_consumer(k, job, &why);
    }
    if (why.size > 0) {
        memcpy(job->why, why.ptr, why.size);
    }
    job->why[why.size] = '\0';
    lock_take(&k->shared.lock);
    job->next = k->shared.done;
    k->shared.done = job;
    lock_drop(&k->shared.lock);
    canon_bell_ring(k->bell);
}

static struct canon_job *next_job(struct canon_keeper *k) REQUIRES(k->shared.lock)
{
    struct canon_job *job = k->shared.first;
    if (job != NULL) {
        k->shared.first = job->next;
        k->shared.last = job->next == NULL ? NULL : k->shared.last;
    }
    return job;
}

static void sleep_some(struct canon_keeper *k) REQUIRES(k->shared.lock)
{
    if (!k->shared.streams_due) {
        CHECK(pthread_cond_wait(&k->wake, &k->shared.lock.m) == 0);
        return;
    }
    uint64_t until_ns = clock_mono_ns() + UINT64_C(1000000) * LOOK_MS;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
    (void)pthread_cond_timedwait(&k->wake, &k->shared.lock.m, &until);
}

static void *thread_main(void *ctx)
{
    struct canon_keeper *k = ctx;
    lock_take(&k->shared.lock);
    while (!k->shared.quit) {
        bool due = k->shared.streams_due && k->shared.due_ns <= clock_mono_ns() &&
                   bus_state(k->bus) == BUS_CONNECTED;
        struct canon_job *job = due ? NULL : next_job(k);
        if (!due && job == NULL) {
            sleep_some(k);
            continue;
        }
        k->shared.streams_due = k->shared.streams_due && !due;
        lock_drop(&k->shared.lock);
        if (due) {
            look_at_streams(k);
        } else {
            run_job(k, job);
        }
        lock_take(&k->shared.lock);
    }
    lock_drop(&k->shared.lock);
    return NULL;
}
