/*
 * clock: the clocks, and a way for tests to move them.
 *
 * Units      *_ns nanoseconds, *_ms milliseconds.
 * Threads    any; clock_shift_for_test() only while no other thread reads.
 */
#pragma once

#include <stdint.h>

/* CLOCK_MONOTONIC: for timers and latencies. Stands still while the machine sleeps. */
uint64_t clock_mono_ns(void);

/* CLOCK_BOOTTIME: for ages of heads; goes on while the machine sleeps. */
uint64_t clock_boot_ns(void);

/* Wall clock since the epoch: for what people and other machines read. May jump. */
int64_t clock_wall_ms(void);

/* CLOCK_THREAD_CPUTIME_ID: what the calling thread has used of a core; others cannot make it
 * longer. Tests do not move it. */
uint64_t clock_thread_ns(void);

/* Adds to what each clock returns from now on; zero is the real one. For tests. */
void clock_shift_for_test(int64_t mono_ns, int64_t wall_ms);
