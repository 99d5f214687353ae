/* drain: see drain.h. */
#include "dataplane/runtime/drain.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "dataplane/apply/apply.h"
#include "dataplane/runtime/node.h"
#include "dataplane/runtime/worker.h"

void dp_drain_init(struct dp_drain *d)
{
    CHECK(sem_init(&d->done, /* pshared= */ 0, 0) == 0);
}

void dp_drain_free(struct dp_drain *d)
{
    CHECK(sem_destroy(&d->done) == 0);
}

void dp_drain_worker_done(struct dp_drain *d)
{
    CHECK(sem_post(&d->done) == 0);
}

static void forced(int signal_number)
{
    (void)signal_number;
    _exit(DP_NODE_FORCED);
}

/* Behind the shutdown timeout: for a main thread that hangs and cannot end the process itself. */
enum { ALARM_MORE_MS = 500 };

/* From now on the process ends soon after the shutdown timeout, even when this thread hangs. */
static void arm_shutdown_timeout(void)
{
    struct sigaction action = {.sa_handler = forced};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    uint64_t ms = limits.shutdown_timeout_ms + ALARM_MORE_MS;
    struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* Waits for 'count' workers to have nobody left; returns how many are still busy. */
static size_t wait_done(struct dp_drain *d, size_t count, uint64_t timeout_ms)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (count > 0) {
        if (sem_clockwait(&d->done, CLOCK_MONOTONIC, &until) == 0) {
            count--;
        } else if (errno != EINTR) {
            break;
        }
    }
    return count;
}

/* What is left of the shutdown timeout. */
static uint64_t shutdown_left_ms(uint64_t start_ns)
{
    uint64_t spent_ms = (clock_mono_ns() - start_ns) / 1000000;
    return spent_ms < limits.shutdown_timeout_ms ? limits.shutdown_timeout_ms - spent_ms : 0;
}

/* Who is still there after the graceful timeout is ended, when there is time left to end them; past
 * the shutdown timeout the process ends. */
void dp_drain_run(struct dp_drain *d, struct dp_apply *apply, struct dp_worker *workers,
                  size_t count)
{
    uint64_t graceful_ms = limits.graceful_timeout_ms;
    uint64_t shutdown_ms = limits.shutdown_timeout_ms;
    uint64_t start_ns = clock_mono_ns();
    arm_shutdown_timeout();
    dp_apply_drain(apply);
    for (size_t i = 0; i < count; i++) {
        dp_worker_drain(&workers[i]);
    }
    size_t busy = wait_done(d, count, graceful_ms < shutdown_ms ? graceful_ms : shutdown_ms);
    if (busy > 0 && shutdown_left_ms(start_ns) > 0) {
        LOG(LOG_WARN, "runtime", "drain-cut-short", LOG_U64("busy_workers", busy));
        for (size_t i = 0; i < count; i++) {
            dp_worker_abort(&workers[i]);
        }
        busy = wait_done(d, busy, shutdown_left_ms(start_ns));
    }
    if (busy > 0) {
        LOG(LOG_ERROR, "runtime", "shutdown-forced", LOG_U64("busy_workers", busy));
        _exit(DP_NODE_FORCED);
    }
    LOG(LOG_INFO, "runtime", "drained", LOG_U64("busy_workers", busy));
}
