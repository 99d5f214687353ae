/*
 * sim: one thread that plays many processes, their threads, clocks and deaths.
 *
 * Shape      Each thread of the product's code is a fiber: libc.c takes over what makes threads and
 *            lets them wait, and the clocks. A fiber runs until it waits or comes to a
 *            sim_point(); then a seeded generator picks who runs next. Time is virtual, so a seed
 *            gives the same schedule each time.
 * Units      nanoseconds of virtual time, from zero on.
 * Ownership  a killed process gives nothing back: a schedule lives in a child process of its own.
 * Threads    one.
 * Errors     what must not happen ends the program by sim_fail().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_MS UINT64_C(1000000)
#define SIM_SECOND (1000 * SIM_MS)
#define SIM_NEVER UINT64_MAX

/* The clocks of a machine. */
struct sim_clock {
    int64_t wall_offset_ms; /* against true time. */
    int64_t rate_ppm;       /* the monotonic clock is so much too fast. */
    uint64_t mono_base_ns;  /* of the monotonic clock at virtual time zero. */
};

enum { SIM_LOCKS_MAX = 8, SIM_RATE_PPM = 300 };

struct sim_process {
    const char *name;
    struct sim_clock clock;
    bool alive;
    uint64_t life;            /* how often it was started. */
    uint64_t paused_until_ns; /* SIGSTOP until then. */
    unsigned dies_in;         /* points until it is killed; 0: it is not to be. */
    unsigned stops_in;        /* points until it is stopped for 'stops_ns'; 0: it is not to be. */
    uint64_t stops_ns;
    const char *strikes;           /* the two count points of labels that begin so; NULL: all. */
    int locked_fds[SIM_LOCKS_MAX]; /* their flock() goes with the process. */
    size_t locked_count;
    void (*on_death)(struct sim_process *process); /* NULL: nobody is told. */
};

/* ---- the schedule ---- */

/* Begins one. 'traces': what happens is written to stderr. */
void sim_begin(uint64_t seed, bool traces);

/* Runs until 'over' (NULL: never), or until virtual time is 'until_ns'; 'check' is called after
 * each turn. */
void sim_run(uint64_t until_ns, bool (*over)(void), void (*check)(void));

uint64_t sim_now_ns(void);

/* A number below 'below'; one from 'least' to 'most'; true in so many of a thousand cases. */
uint64_t sim_random(uint64_t below);
uint64_t sim_between(uint64_t least, uint64_t most);
bool sim_chance(unsigned per_mille);

/* Random bytes for the product's code, of a generator of their own. */
void sim_fill(void *out, size_t size);

/* Notes what happened: into the digest of the schedule, and to stderr when it traces. */
void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_digest(void);

/* An invariant does not hold: says so and ends the program. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Calls 'fn' at a time. */
void sim_at(uint64_t at_ns, void (*fn)(void *ctx), void *ctx);

/* ---- processes ---- */

/* Starts a process; 'body' is its main thread. */
void sim_start(struct sim_process *process, void (*body)(void *ctx), void *ctx);

/* SIGKILL, also of the process that runs: then it does not return. */
void sim_kill(struct sim_process *process);

/* The process that runs; NULL: none, it is the schedule itself. */
struct sim_process *sim_self(void);

/* Calls 'fn' as a callback in that process: its clocks hold. It must not wait. */
void sim_inside(struct sim_process *process, void (*fn)(void *ctx), void *ctx);

/* A thread of the process that runs, as pthread_create() and pthread_join() have it. */
struct sim_thread;
struct sim_thread *sim_thread_new(void *(*body)(void *ctx), void *ctx);
void sim_thread_join(struct sim_thread *thread);

/* ---- clocks ---- */

/* A machine's: its monotonic clock runs from a second to a quarter of an hour, and is up to
 * SIM_RATE_PPM too fast or too slow. */
struct sim_clock sim_clock_draw(void);

int64_t sim_wall_ms(const struct sim_clock *clock);
uint64_t sim_mono_ns(const struct sim_clock *clock);

/* The clock that holds here. */
const struct sim_clock *sim_clock(void);

/* From now on this one holds, whoever runs; NULL: each its own. For what happens in the database,
 * which does not wait. */
void sim_clock_borrow(const struct sim_clock *clock);

/* When a wait of so long, by the clock that holds here, is over. */
uint64_t sim_deadline_ns(uint64_t mono_ns);

/* ---- waiting ---- */

/* Waits until 'ready' (NULL: never) says so, or a time; false when the time came first. */
bool sim_wait(bool (*ready)(void *ctx), void *ctx, uint64_t until_ns);
void sim_sleep(uint64_t ns);

/* Notes a step. The process may be killed or stopped here, and others run. */
void sim_point(const char *label);

/* How many locks this fiber has: it must not wait with one. */
void sim_lock_count(int by);
