/*
 * libc: what the product's code asks of clocks, threads and the kernel's generator, as the
 * simulation has it. Calls of libraries are not taken over: they neither wait nor ask the time.
 *
 * The functions of clock.h and lock.h stand here in place of common/base/'s; the others are given
 * to the linker by --wrap, see CMakeLists.txt.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/lock.h"

#include "tests/model/sim.h"

/* ---- clocks ---- */

uint64_t clock_mono_ns(void)
{
    return sim_mono_ns(sim_clock());
}

/* No machine sleeps. */
uint64_t clock_boot_ns(void)
{
    return sim_mono_ns(sim_clock());
}

int64_t clock_wall_ms(void)
{
    return sim_wall_ms(sim_clock());
}

/* What a thread works is no part of the simulation. */
uint64_t clock_thread_ns(void)
{
    return sim_mono_ns(sim_clock());
}

int __wrap_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
    uint64_t ns =
        id == CLOCK_REALTIME ? (uint64_t)clock_wall_ms() * SIM_MS : sim_mono_ns(sim_clock());
    *out =
        (struct timespec){.tv_sec = (time_t)(ns / SIM_SECOND), .tv_nsec = (long)(ns % SIM_SECOND)};
    return 0;
}

/* ---- locks ---- */

#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

void lock_init(struct lock *l)
{
    CHECK(pthread_mutex_init(&l->m, NULL) == 0);
}

void lock_free(struct lock *l)
{
    CHECK(pthread_mutex_destroy(&l->m) == 0);
}

/* Nobody waits with a lock (sim_wait() looks), so it is always free. */
void lock_take(struct lock *l)
{
    CHECK(pthread_mutex_trylock(&l->m) == 0);
    sim_lock_count(1);
}

void lock_drop(struct lock *l)
{
    CHECK(pthread_mutex_unlock(&l->m) == 0);
    sim_lock_count(-1);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif

/* ---- randomness ---- */

void __wrap_ids_random(void *out, size_t size);
void __wrap_ids_random(void *out, size_t size)
{
    sim_fill(out, size);
}

void __wrap_ids_quick(void *out, size_t size);
void __wrap_ids_quick(void *out, size_t size)
{
    sim_fill(out, size);
}

/* Maps take their seed before main(): they are walked in the same order each time. */
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    (void)flags;
    memset(out, 7, size);
    return (ssize_t)size;
}

/* ---- threads ---- */

union thread_handle {
    pthread_t plain;
    struct sim_thread *thread;
};
_Static_assert(sizeof(pthread_t) >= sizeof(struct sim_thread *), "a handle holds a thread");

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*body)(void *ctx), void *ctx);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*body)(void *ctx), void *ctx)
{
    CHECK(attributes == NULL);
    union thread_handle handle = {0};
    handle.thread = sim_thread_new(body, ctx);
    *out = handle.plain;
    return 0;
}

int __wrap_pthread_join(pthread_t plain, void **out);
int __wrap_pthread_join(pthread_t plain, void **out)
{
    union thread_handle handle = {.plain = plain};
    CHECK(out == NULL);
    sim_thread_join(handle.thread);
    return 0;
}

int __wrap_setpriority(int which, int who, int priority);
int __wrap_setpriority(int which, int who, int priority)
{
    (void)which;
    (void)who;
    (void)priority;
    return 0;
}

/* ---- waiting ---- */

struct poll_wait {
    struct pollfd *fds;
    nfds_t count;
    int ready;
    uint64_t write_count; /* when the kernel was asked last. */
};

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
ssize_t __real_write(int fd, const void *bytes, size_t size);

/* An eventfd becomes readable by a write: the kernel is asked when there was one. */
static uint64_t write_count = 1;

ssize_t __wrap_write(int fd, const void *bytes, size_t size);
ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    write_count++;
    return __real_write(fd, bytes, size);
}

static bool poll_is_ready(void *ctx)
{
    struct poll_wait *w = ctx;
    if (w->count > 0 && w->write_count != write_count) {
        w->write_count = write_count;
        w->ready = __real_poll(w->fds, w->count, 0);
    }
    return w->ready > 0;
}

static uint64_t deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? SIM_NEVER : sim_deadline_ns((uint64_t)timeout_ms * SIM_MS);
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct poll_wait w = {.fds = fds, .count = count};
    (void)sim_wait(poll_is_ready, &w, deadline_ns(timeout_ms));
    return w.ready;
}

static bool semaphore_is_up(void *ctx)
{
    int value = 0;
    CHECK(sem_getvalue(ctx, &value) == 0);
    return value > 0;
}

int __wrap_sem_wait(sem_t *semaphore);
int __wrap_sem_wait(sem_t *semaphore)
{
    (void)sim_wait(semaphore_is_up, semaphore, SIM_NEVER);
    return sem_trywait(semaphore);
}

static int wait_until(sem_t *semaphore, uint64_t until_ns)
{
    if (!sim_wait(semaphore_is_up, semaphore, until_ns)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return sem_trywait(semaphore);
}

/* By the wall clock, as it is when the wait begins. */
int __wrap_sem_timedwait(sem_t *semaphore, const struct timespec *until);
int __wrap_sem_timedwait(sem_t *semaphore, const struct timespec *until)
{
    int64_t left_ms = (int64_t)until->tv_sec * 1000 + until->tv_nsec / 1000000 - clock_wall_ms();
    return wait_until(semaphore, sim_now_ns() + (left_ms > 0 ? (uint64_t)left_ms * SIM_MS : 0));
}

int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until);
int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until)
{
    CHECK(clock == CLOCK_MONOTONIC);
    uint64_t at_ns = (uint64_t)until->tv_sec * SIM_SECOND + (uint64_t)until->tv_nsec;
    uint64_t now_ns = clock_mono_ns();
    return wait_until(semaphore, sim_deadline_ns(at_ns > now_ns ? at_ns - now_ns : 0));
}

/* ---- files ---- */

int __real_flock(int fd, int operation);

/* A lock goes with its process: here it is closed when the process dies. */
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
    struct sim_process *self = sim_self();
    int failed = __real_flock(fd, operation);
    if (failed == 0 && self != NULL) {
        CHECK(self->locked_count < SIM_LOCKS_MAX);
        self->locked_fds[self->locked_count++] = fd;
    }
    return failed;
}
