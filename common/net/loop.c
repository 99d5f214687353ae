/* loop: the turn. prepare runs before libuv sleeps, check after its sockets were served. */
#include "common/net/loop.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/loop_impl.h"

/* Rounds of hooks in one turn; hooks that go on queueing each other wait for the next one. */
enum { HOOK_ROUNDS_MAX = 64 };

#define NS_PER_S UINT64_C(1000000000)

/* How often a loop is asked how busy it is, from when on it is that and from when on no more, and
 * by how much its pause changes then. */
enum { JUDGE_NS = 5000000, BUSY_PERCENT = 60, CALM_PERCENT = 40, PAUSE_STEP_NS = 25000 };

enum { TIMER_SLACK_NS = 1000 };

static struct net_task tasks_closed;
#define TASKS_CLOSED (&tasks_closed)

static void loop_run_hooks(struct net_loop *loop);
static void on_async(uv_async_t *async);
static void on_prepare(uv_prepare_t *prepare);
static void on_check(uv_check_t *check);
static void on_idle(uv_idle_t *idle);
static void on_sleep_end(uv_timer_t *timer);

static void loop_release(struct net_loop *loop)
{
    free(loop->read_buffer);
    free(loop->clear_buffer);
    free(loop);
}

static void loop_init_lists(struct net_loop *loop)
{
    net_wheel_init(&loop->wheel, clock_mono_ns() / NET_NS_PER_MS);
    loop->sleep_tick = UINT64_MAX;
    loop->now_stale = true;
    for (size_t i = 0; i < NET_HOOK_PHASE_COUNT; i++) {
        loop->hooks[i].next = &loop->hooks[i];
        loop->hooks[i].prev = &loop->hooks[i];
    }
    atomic_init(&loop->shared.posted, NULL);
    atomic_init(&loop->shared.posted_count, 0);
    atomic_init(&loop->shared.stop, false);
}

struct err net_loop_new(struct net_loop **out)
{
    struct net_loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    loop->read_buffer = malloc(NET_READ_BYTES);
    loop->clear_buffer = malloc(NET_READ_BYTES);
    if (loop->read_buffer == NULL || loop->clear_buffer == NULL) {
        loop_release(loop);
        return FAIL(E_NO_MEMORY);
    }
    loop_init_lists(loop);
    if (uv_loop_init(&loop->uv) != 0) {
        loop_release(loop);
        return FAIL(E_IO);
    }
    if (uv_async_init(&loop->uv, &loop->async, on_async) != 0) {
        CHECK(uv_loop_close(&loop->uv) == 0);
        loop_release(loop);
        return FAIL(E_IO);
    }
    /* None of these can fail: they only link themselves into the loop. */
    CHECK(uv_prepare_init(&loop->uv, &loop->prepare) == 0);
    CHECK(uv_check_init(&loop->uv, &loop->check) == 0);
    CHECK(uv_idle_init(&loop->uv, &loop->idle) == 0);
    CHECK(uv_timer_init(&loop->uv, &loop->sleep) == 0);
    CHECK(uv_prepare_start(&loop->prepare, on_prepare) == 0);
    CHECK(uv_check_start(&loop->check, on_check) == 0);
    loop->uv.data = loop;
    *out = loop;
    return OK;
}

void net_loop_set_pause(struct net_loop *loop, uint64_t us)
{
    loop->pause_ns = us * 1000;
}

void net_loop_set_busy_pause(struct net_loop *loop, uint64_t us)
{
    loop->busy_pause_max_ns = us * 1000;
    loop->busy_pause_ns = 0;
}

/* Runs what was posted, oldest first; 'leave' becomes the new content of the list. */
static void loop_run_tasks(struct net_loop *loop, struct net_task *leave)
{
    struct net_task *task =
        atomic_exchange_explicit(&loop->shared.posted, leave, memory_order_acquire);
    struct net_task *oldest = NULL;
    size_t count = 0;
    while (task != NULL && task != TASKS_CLOSED) {
        struct net_task *older = task->next;
        task->next = oldest;
        oldest = task;
        task = older;
        count++;
    }
    atomic_fetch_sub_explicit(&loop->shared.posted_count, count, memory_order_relaxed);
    loop->stats.tasks += count;
    while (oldest != NULL) {
        struct net_task *run = oldest;
        oldest = run->next;
        run->next = NULL;
        run->fn(run, run->ctx);
    }
}

/* Whoever runs the loop comes back to it: what passed meanwhile was none of its turns. */
static void loop_begin(struct net_loop *loop)
{
    loop->now_stale = true;
    loop->woke = false;
}

void net_loop_run(struct net_loop *loop)
{
    loop_begin(loop);
    if (loop->busy_pause_max_ns > 0) {
        /* Else the kernel may add 50 us to a pause. Refused: it does. */
        (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
    }
    if (!atomic_exchange(&loop->shared.stop, false)) {
        (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
        atomic_store(&loop->shared.stop, false);
    }
    loop_run_tasks(loop, NULL);
}

static void on_until_timeout(struct net_timer *timer, void *ctx)
{
    (void)timer;
    *(bool *)ctx = true;
}

bool net_loop_run_until(struct net_loop *loop, const bool *done, uint64_t timeout_ms)
{
    bool late = false;
    struct net_timer timer;
    net_timer_init(&timer, on_until_timeout, &late);
    loop_begin(loop);
    net_timer_arm(loop, &timer, timeout_ms);
    loop_run_hooks(loop); /* queued by the caller: they may be what is waited for. */
    while (!*done && !late) {
        (void)uv_run(&loop->uv, UV_RUN_ONCE);
    }
    net_timer_cancel(loop, &timer);
    return *done;
}

void net_loop_turn(struct net_loop *loop)
{
    loop_begin(loop);
    loop_run_hooks(loop);
    (void)uv_run(&loop->uv, UV_RUN_NOWAIT);
}

void net_loop_stop(struct net_loop *loop)
{
    atomic_store(&loop->shared.stop, true);
    CHECK(uv_async_send(&loop->async) == 0);
}

struct err net_loop_post(struct net_loop *loop, struct net_task *task)
{
    size_t count = atomic_fetch_add_explicit(&loop->shared.posted_count, 1, memory_order_relaxed);
    struct err failed = count >= limits.loop_tasks ? FAIL(E_QUEUE_FULL) : OK;
    struct net_task *head = atomic_load_explicit(&loop->shared.posted, memory_order_relaxed);
    do {
        if (head == TASKS_CLOSED) {
            failed = FAIL(E_CLOSED);
        }
        if (!err_ok(failed)) {
            atomic_fetch_sub_explicit(&loop->shared.posted_count, 1, memory_order_relaxed);
            return failed;
        }
        task->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&loop->shared.posted, &head, task,
                                                    memory_order_release, memory_order_relaxed));
    if (head == NULL) {
        CHECK(uv_async_send(&loop->async) == 0); /* else whoever found it empty has called. */
    }
    return OK;
}

/* The first look at the clock in a turn. */
static void loop_wake(struct net_loop *loop)
{
    loop->woke = true;
    loop->woke_ns = loop->now_ns;
    uint64_t slept = loop->now_ns > loop->slept_ns ? loop->now_ns - loop->slept_ns : 0;
    loop->lag_ns = loop->busy_ns > slept ? loop->busy_ns - slept : 0;
}

/* Apart, so that what is asked some twenty times a request is small enough to be inlined. */
__attribute__((noinline)) static void loop_look_at_clock(struct net_loop *loop)
{
    loop->now_ns = clock_mono_ns();
    loop->now_stale = false;
    if (!loop->woke) {
        loop_wake(loop);
    }
}

uint64_t net_loop_now_ns(struct net_loop *loop)
{
    if (loop->now_stale) {
        loop_look_at_clock(loop);
    }
    return loop->now_ns;
}

uint64_t net_loop_lag_ns(struct net_loop *loop)
{
    (void)net_loop_now_ns(loop);
    return loop->lag_ns;
}

/* The turn ends here: the loop sleeps until there is work. */
static void loop_rest(struct net_loop *loop)
{
    loop->slept_ns = clock_mono_ns();
    loop->busy_ns =
        loop->woke && loop->slept_ns > loop->woke_ns ? loop->slept_ns - loop->woke_ns : 0;
    loop->woke = false;
    loop->awake_ns += loop->busy_ns;
}

void net_hook_init(struct net_hook *hook, enum net_hook_phase phase, net_hook_fn *fn, void *ctx)
{
    *hook = (struct net_hook){.fn = fn, .ctx = ctx, .phase = phase};
}

void net_hook_queue(struct net_loop *loop, struct net_hook *hook)
{
    if (hook->queued) {
        return;
    }
    struct net_hook *head = &loop->hooks[hook->phase];
    hook->queued = true;
    hook->next = head;
    hook->prev = head->prev;
    head->prev->next = hook;
    head->prev = hook;
}

void net_hook_cancel(struct net_loop *loop, struct net_hook *hook)
{
    (void)loop;
    if (!hook->queued) {
        return;
    }
    hook->queued = false;
    hook->next->prev = hook->prev;
    hook->prev->next = hook->next;
    hook->next = NULL;
    hook->prev = NULL;
}

const struct net_loop_stats *net_loop_stats(const struct net_loop *loop)
{
    return &loop->stats;
}

struct uv_loop_s *net_loop_uv(struct net_loop *loop)
{
    return &loop->uv;
}

static bool hooks_empty(const struct net_loop *loop, enum net_hook_phase phase)
{
    return loop->hooks[phase].next == &loop->hooks[phase];
}

/* Runs the hooks that are queued now; those that they queue come with the next round. */
static void hooks_run_round(struct net_loop *loop, enum net_hook_phase phase)
{
    struct net_hook *head = &loop->hooks[phase];
    struct net_hook last = {.queued = false}; /* a mark behind what is there now. */
    net_hook_init(&last, phase, NULL, NULL);
    net_hook_queue(loop, &last);
    while (head->next != &last) {
        struct net_hook *hook = head->next;
        net_hook_cancel(loop, hook);
        hook->fn(hook, hook->ctx);
    }
    net_hook_cancel(loop, &last);
}

/* The first phase that has hooks; NET_HOOK_PHASE_COUNT: none has. */
static enum net_hook_phase hooks_next(const struct net_loop *loop)
{
    enum net_hook_phase phase = NET_HOOK_WORK;
    while (phase < NET_HOOK_PHASE_COUNT && hooks_empty(loop, phase)) {
        phase++;
    }
    return phase;
}

static void loop_run_hooks(struct net_loop *loop)
{
    enum net_hook_phase phase = hooks_next(loop);
    for (unsigned round = 0; round < HOOK_ROUNDS_MAX && phase < NET_HOOK_PHASE_COUNT; round++) {
        hooks_run_round(loop, phase);
        phase = hooks_next(loop);
    }
}

static void on_async(uv_async_t *async)
{
    struct net_loop *loop = async->loop->data;
    loop_run_tasks(loop, NULL);
    if (atomic_load(&loop->shared.stop)) {
        uv_stop(&loop->uv);
    }
}

static void loop_plan_sleep(struct net_loop *loop)
{
    uint64_t tick = net_wheel_next(&loop->wheel);
    if (tick == loop->sleep_tick) {
        return;
    }
    loop->sleep_tick = tick;
    if (tick == UINT64_MAX) {
        (void)uv_timer_stop(&loop->sleep);
        return;
    }
    uint64_t now_ns = net_loop_now_ns(loop);
    uint64_t at_ns = tick * NET_NS_PER_MS;
    uint64_t wait_ms = at_ns <= now_ns ? 0 : (at_ns - now_ns + NET_NS_PER_MS - 1) / NET_NS_PER_MS;
    CHECK(uv_timer_start(&loop->sleep, on_sleep_end, wait_ms, 0) == 0);
}

/* Moves the pause of a busy loop by a step, as busy as it was since it was last asked. */
static void judge_load(struct net_loop *loop)
{
    uint64_t passed_ns = loop->slept_ns - loop->judged_ns;
    if (passed_ns < JUDGE_NS) {
        return;
    }
    uint64_t percent = loop->awake_ns * 100 / passed_ns;
    uint64_t pause_ns = loop->busy_pause_ns;
    if (percent > BUSY_PERCENT) {
        pause_ns += PAUSE_STEP_NS;
        loop->busy_pause_ns =
            pause_ns < loop->busy_pause_max_ns ? pause_ns : loop->busy_pause_max_ns;
    } else if (percent < CALM_PERCENT) {
        loop->busy_pause_ns = pause_ns < PAUSE_STEP_NS ? 0 : pause_ns - PAUSE_STEP_NS;
    }
    loop->judged_ns = loop->slept_ns;
    loop->awake_ns = 0;
}

/* Sleeps away what is left of the pause when the turn that ends had work. */
static void loop_pause(struct net_loop *loop)
{
    uint64_t work = loop->stats.reads + loop->stats.tasks;
    judge_load(loop);
    if (work == loop->work_seen) {
        return;
    }
    loop->work_seen = work;
    uint64_t pause_ns = loop->pause_ns > loop->busy_pause_ns ? loop->pause_ns : loop->busy_pause_ns;
    uint64_t until_ns = loop->turn_start_ns + pause_ns;
    loop->turn_start_ns = clock_mono_ns();
    if (loop->turn_start_ns < until_ns) {
        const struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S),
                                       .tv_nsec = (long)(until_ns % NS_PER_S)};
        /* A signal ends it early, which does no harm. */
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        loop->turn_start_ns = until_ns;
        uv_update_time(&loop->uv);
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct net_loop *loop = prepare->loop->data;
    loop_run_hooks(loop);
    loop_plan_sleep(loop);
    loop_rest(loop);
    if (hooks_next(loop) < NET_HOOK_PHASE_COUNT) {
        CHECK(uv_idle_start(&loop->idle, on_idle) == 0);
    } else {
        (void)uv_idle_stop(&loop->idle);
        if (loop->pause_ns > 0 || loop->busy_pause_max_ns > 0) {
            loop_pause(loop);
        }
    }
    loop->now_stale = true;
    loop->stats.turns++;
}

static void on_check(uv_check_t *check)
{
    struct net_loop *loop = check->loop->data;
    net_wheel_advance(&loop->wheel, net_loop_now_ns(loop) / NET_NS_PER_MS);
    loop_run_hooks(loop);
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* only there to skip the sleep. */
}

static void on_sleep_end(uv_timer_t *timer)
{
    struct net_loop *loop = timer->loop->data;
    loop->sleep_tick = UINT64_MAX; /* on_check() runs the wheel; this only woke the loop. */
    loop->now_stale = true;
}

struct net_chunk *net_chunk_new(struct net_loop *loop)
{
    struct net_chunk *chunk = loop->free_chunks;
    if (chunk != NULL) {
        loop->free_chunks = chunk->next;
        loop->free_chunk_count--;
    } else {
        chunk = malloc(sizeof(*chunk) + NET_CHUNK_BYTES);
        if (chunk == NULL) {
            return NULL;
        }
    }
    chunk->next = NULL;
    chunk->bytes = chunk->own;
    chunk->start = 0;
    chunk->end = 0;
    chunk->release = NULL;
    chunk->release_ctx = NULL;
    return chunk;
}

void net_chunk_free(struct net_loop *loop, struct net_chunk *chunk)
{
    if (chunk->release != NULL) {
        chunk->release(chunk->release_ctx);
        free(chunk);
    } else if (loop->free_chunk_count >= NET_CHUNKS_KEPT) {
        free(chunk);
    } else {
        chunk->next = loop->free_chunks;
        loop->free_chunks = chunk;
        loop->free_chunk_count++;
    }
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void net_loop_free(struct net_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    loop->ending = true;
    loop_run_tasks(loop, TASKS_CLOSED);
    net_conn_abort_all(loop);
    loop_run_hooks(loop);
    CHECK(loop->users == 0);
    CHECK(loop->conns == NULL);
    /* Connections close with handles of their own, and so with callbacks that free them. */
    uv_walk(&loop->uv, close_handle, NULL);
    while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0) {
    }
    CHECK(uv_loop_close(&loop->uv) == 0);
    while (loop->free_chunks != NULL) {
        struct net_chunk *chunk = loop->free_chunks;
        loop->free_chunks = chunk->next;
        free(chunk);
    }
    loop_release(loop);
}
