/*
 * loop_impl: what a loop is made of; for the files of common/net alone.
 *
 * Ownership  the loop owns its buffers, its pools and its connections.
 * Threads    the loop's thread, but for 'shared'.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/net/conn.h"
#include "common/net/flood.h"
#include "common/net/loop.h"
#include "common/net/timer.h"

enum { NET_NS_PER_MS = 1000000 };

/* A piece of output: its own NET_CHUNK_BYTES, or somebody's bytes with 'release'. */
struct net_chunk {
    struct net_chunk *next;
    const uint8_t *bytes; /* 'own', or what net_conn_write_ref() was given. */
    size_t start;         /* first byte that is not yet written. */
    size_t end;
    net_release_fn *release; /* NULL: bytes are 'own'. */
    void *release_ctx;
    uint8_t own[]; /* NET_CHUNK_BYTES, or none when released. */
};

/* Free chunks that a loop keeps for reuse; more go back to the heap. */
enum { NET_CHUNKS_KEPT = 1024 };

struct net_loop {
    uv_loop_t uv;
    uv_async_t async;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;      /* active: the next sleep is skipped. */
    uv_timer_t sleep;    /* ends the sleep for the wheel's first timer. */
    uint64_t sleep_tick; /* what 'sleep' is set for; UINT64_MAX: for nothing. */
    struct net_wheel wheel;
    uint64_t now_ns;
    bool now_stale;                              /* the clock is read at the next question. */
    bool ending;                                 /* net_loop_free() runs: nothing new starts. */
    struct net_hook hooks[NET_HOOK_PHASE_COUNT]; /* list heads. */
    struct net_conn *conns;                      /* all that have not been closed. */
    size_t users; /* listeners and resolvers that must be freed before the loop. */
    struct net_loop_stats stats;
    struct net_floods floods;
    uint64_t pause_ns;          /* between two turns that have work; 0: none. */
    uint64_t busy_pause_max_ns; /* what a busy loop waits at most; 0: nothing. */
    uint64_t busy_pause_ns;     /* what it waits now. */
    uint64_t awake_ns;          /* of its turns since 'judged_ns'. */
    uint64_t judged_ns;         /* when it was last asked how busy it is. */
    uint64_t turn_start_ns;     /* of the last one that waited, or could have. */
    uint64_t woke_ns;           /* when the turn that runs began, by its first look at the clock. */
    uint64_t slept_ns;          /* when the turn before ended; the loop slept from then on. */
    uint64_t busy_ns;           /* how long that turn was. */
    uint64_t lag_ns;            /* see net_loop_lag_ns(). */
    bool woke;                  /* woke_ns is of the turn that runs. */
    uint64_t work_seen;         /* 'reads' and 'tasks' of 'stats' at the end of the turn before. */
    uint8_t *read_buffer;       /* NET_READ_BYTES: what the socket gave. */
    uint8_t *clear_buffer;      /* NET_READ_BYTES: what TLS made of it. */
    struct net_chunk *free_chunks;
    size_t free_chunk_count;
    struct {
        _Atomic(struct net_task *) posted; /* newest first; TASKS_CLOSED: no more are taken. */
        atomic_size_t posted_count;
        atomic_bool stop;
    } shared; /* any thread. */
};

/* An empty chunk from the pool; NULL when the heap is full. */
struct net_chunk *net_chunk_new(struct net_loop *loop);

/* Back to the pool; runs 'release'. */
void net_chunk_free(struct net_loop *loop, struct net_chunk *chunk);

/* conn.c: ends all connections of a loop that is being freed. */
void net_conn_abort_all(struct net_loop *loop);
