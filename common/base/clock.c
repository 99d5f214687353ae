/* clock: see clock.h. */
#include "common/base/clock.h"

#include <stdatomic.h>
#include <time.h>

#include "common/base/check.h"

static _Atomic int64_t shift_mono_ns;
static _Atomic int64_t shift_wall_ms;

static int64_t read_ns(clockid_t id)
{
    struct timespec now;
    CHECK(clock_gettime(id, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
    return (uint64_t)(read_ns(CLOCK_MONOTONIC) +
                      atomic_load_explicit(&shift_mono_ns, memory_order_relaxed));
}

uint64_t clock_boot_ns(void)
{
    return (uint64_t)(read_ns(CLOCK_BOOTTIME) +
                      atomic_load_explicit(&shift_mono_ns, memory_order_relaxed));
}

int64_t clock_wall_ms(void)
{
    return read_ns(CLOCK_REALTIME) / 1000000 +
           atomic_load_explicit(&shift_wall_ms, memory_order_relaxed);
}

uint64_t clock_thread_ns(void)
{
    return (uint64_t)read_ns(CLOCK_THREAD_CPUTIME_ID);
}

void clock_shift_for_test(int64_t mono_ns, int64_t wall_ms)
{
    atomic_store(&shift_mono_ns, mono_ns);
    atomic_store(&shift_wall_ms, wall_ms);
}
