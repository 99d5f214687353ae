/*
 * loop: one thread's event loop, and the doors through which other threads reach it.
 *
 * Shape      libuv underneath. A turn: sleep, sockets, tasks, timers, and then the hooks, which
 *            end the turn: first those that make output (WORK), then those that write it (WRITE),
 *            so that a connection makes one write a turn however many parts wrote to it, and last
 *            what others wait for (REST): a thread that it wakes may take the core.
 * Units      nanoseconds, milliseconds, as named.
 * Ownership  tasks, timers and hooks are intrusive: their owner keeps their memory while queued.
 * Threads    all calls from the loop's thread, but for net_loop_post() and net_loop_stop().
 * Errors     net_loop_post(): E_QUEUE_FULL past limits.loop_tasks, E_CLOSED once the loop ended.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/timer.h"

struct net_loop;
struct net_task;
struct net_hook;
struct uv_loop_s;

/* Runs on the loop's thread, once for each accepted post. May free its own task. */
typedef void net_task_fn(struct net_task *task, void *ctx);

struct net_task {
    struct net_task *next; /* the loop's, while posted. */
    net_task_fn *fn;
    void *ctx;
};

typedef void net_hook_fn(struct net_hook *hook, void *ctx);

/* Which of a turn's last three parts a hook belongs to. */
enum net_hook_phase { NET_HOOK_WORK, NET_HOOK_WRITE, NET_HOOK_REST, NET_HOOK_PHASE_COUNT };

/* Queued at most once; runs once before the loop sleeps, then has to be queued again. */
struct net_hook {
    struct net_hook *next; /* the loop's, while queued. */
    struct net_hook *prev;
    net_hook_fn *fn;
    void *ctx;
    enum net_hook_phase phase;
    bool queued;
};

/* What a loop counted since it was made; read on its thread. */
struct net_loop_stats {
    uint64_t turns;
    uint64_t tasks;
    uint64_t connections_open;
    uint64_t connections_made; /* accepted and dialled. */
    uint64_t reads;            /* system calls. */
    uint64_t writes;           /* system calls. */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t handshakes;        /* TLS, finished. */
    uint64_t handshakes_failed; /* TLS, refused or timed out. */
};

/* Makes a loop; it belongs to the thread that first calls net_loop_run(). E_NO_MEMORY, E_IO. */
MUST_CHECK struct err net_loop_new(struct net_loop **out);

/*
 * Has at least 'us' microseconds lie between the starts of two turns that have work, so that one
 * turn serves what arrived meanwhile: fewer wake-ups and system calls for as much more latency.
 * Behind a silence of that length the first two wait for nothing. 0, the default: no pause.
 */
void net_loop_set_pause(struct net_loop *loop, uint64_t us);

/*
 * Has a loop that is busy do the same by itself, up to 'us' microseconds: the more of its time goes
 * into turns, the longer they lie apart, as network cards moderate their interrupts. A loop that is
 * awake for less than two fifths of its time waits for nothing. 0, the default: never.
 */
void net_loop_set_busy_pause(struct net_loop *loop, uint64_t us);

/* Runs until net_loop_stop(). Every task accepted so far has run when it returns. May be called
 * again. */
void net_loop_run(struct net_loop *loop);

/* Runs turns until '*done' is true or 'timeout_ms' has passed; returns *done. For tests and
 * commands that wait for one thing. */
bool net_loop_run_until(struct net_loop *loop, const bool *done, uint64_t timeout_ms);

/* One turn over what is ready now; it waits for nothing. For fuzzers, which drive a loop by hand.
 */
void net_loop_turn(struct net_loop *loop);

/* Ends net_loop_run() after its turn. Any thread. */
void net_loop_stop(struct net_loop *loop);

/*
 * Aborts what is still open (closed() of each connection runs, with E_CLOSED), runs the tasks
 * that are left, and frees all. Only when no other thread posts any more. Accepts NULL.
 */
void net_loop_free(struct net_loop *loop);

/* Has 'task' run on the loop's thread. Any thread. The task must not be posted already. */
MUST_CHECK struct err net_loop_post(struct net_loop *loop, struct net_task *task);

/* CLOCK_MONOTONIC as it was when this turn began: one read of the clock a turn. */
uint64_t net_loop_now_ns(struct net_loop *loop);

/*
 * How long what arrived during the turn before had to wait for this one to begin: the length of
 * that turn, less what the loop slept since, for then nothing had arrived.
 */
uint64_t net_loop_lag_ns(struct net_loop *loop);

void net_hook_init(struct net_hook *hook, enum net_hook_phase phase, net_hook_fn *fn, void *ctx);
void net_hook_queue(struct net_loop *loop, struct net_hook *hook);

/* Takes a hook out again; safe on one that is not queued. */
void net_hook_cancel(struct net_loop *loop, struct net_hook *hook);

const struct net_loop_stats *net_loop_stats(const struct net_loop *loop);

/* For common/net alone: what the loop stands on. */
struct uv_loop_s *net_loop_uv(struct net_loop *loop);
