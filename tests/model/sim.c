/* sim: see sim.h. */
#include "tests/model/sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"

#include "tests/model/fiber.h"

enum {
    STILL_MAX = 100000,
    /* turns at one moment: somebody waits for nothing. */ THREADS_MAX = 512,
    EVENTS_MAX = 1 << 15,
    LABEL_MAX = 256,
    FAILED = 1
};

#define EPOCH_MS INT64_C(1700000000000)

struct sim_thread {
    struct fiber *fiber;
    struct sim_process *process;
    uint64_t life; /* of the process. */
    void (*main)(void *ctx);
    void *(*body)(void *ctx); /* one of the two. */
    void *ctx;
    bool done;
    int locks;
    int saved_errno;
    bool (*ready)(void *ctx); /* what it waits for. */
    void *ready_ctx;
    uint64_t until_ns;
};

struct event {
    uint64_t at_ns;
    uint64_t order; /* first come, first served at one time. */
    void (*fn)(void *ctx);
    void *ctx;
};

static struct {
    uint64_t random;
    uint64_t filler; /* of sim_fill(). */
    uint64_t now_ns;
    uint64_t digest;
    bool traces;
    struct sim_thread *threads[THREADS_MAX]; /* of living processes. */
    size_t thread_count;
    struct sim_thread *running;
    struct event *events[EVENTS_MAX]; /* a heap. */
    size_t event_count;
    uint64_t event_order;
    struct sim_process *inside; /* of a callback. */
    const struct sim_clock *borrowed;
} sim;

static const struct sim_clock true_clock = {.mono_base_ns = 1000 * SIM_SECOND};

/* ---- randomness ---- */

/* SplitMix64, by Steele, Lea and Flood. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t sim_random(uint64_t below)
{
    CHECK(below > 0);
    return next(&sim.random) % below;
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
    CHECK(least <= most);
    return least + sim_random(most - least + 1);
}

bool sim_chance(unsigned per_mille)
{
    return sim_random(1000) < per_mille;
}

void sim_fill(void *out, size_t size)
{
    uint8_t *at = out;
    for (size_t i = 0; i < size; i++) {
        at[i] = (uint8_t)next(&sim.filler);
    }
}

/* ---- notes ---- */

static const char *self_name(void)
{
    const struct sim_process *self = sim_self();
    return self == NULL ? "-" : self->name;
}

static void say(const char *label)
{
    for (const char *c = label; *c != '\0'; c++) {
        sim.digest = (sim.digest ^ (uint8_t)*c) * UINT64_C(0x100000001b3); /* FNV-1a. */
    }
    sim.digest = (sim.digest ^ sim.now_ns) * UINT64_C(0x100000001b3);
    if (sim.traces) {
        (void)fprintf(stderr, "%12.6f %-6s %s\n", (double)sim.now_ns / 1e9, self_name(), label);
    }
}

void sim_note(const char *format, ...)
{
    char label[LABEL_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(label, sizeof(label), format, args);
    va_end(args);
    say(label);
}

uint64_t sim_digest(void)
{
    return sim.digest;
}

void sim_fail(const char *format, ...)
{
    char label[LABEL_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(label, sizeof(label), format, args);
    va_end(args);
    (void)printf("violated at %.3f s, by %s: %s\n", (double)sim.now_ns / 1e9, self_name(), label);
    (void)fflush(stdout);
    _exit(FAILED);
}

/* ---- events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void swap_events(size_t i, size_t k)
{
    struct event *event = sim.events[i];
    sim.events[i] = sim.events[k];
    sim.events[k] = event;
}

void sim_at(uint64_t at_ns, void (*fn)(void *ctx), void *ctx)
{
    struct event *event = malloc(sizeof(*event));
    CHECK(event != NULL && sim.event_count < EVENTS_MAX);
    *event = (struct event){.at_ns = at_ns < sim.now_ns ? sim.now_ns : at_ns,
                            .order = sim.event_order++,
                            .fn = fn,
                            .ctx = ctx};
    size_t i = sim.event_count++;
    sim.events[i] = event;
    for (; i > 0 && is_before(sim.events[i], sim.events[(i - 1) / 2]); i = (i - 1) / 2) {
        swap_events(i, (i - 1) / 2);
    }
}

static struct event take_event(void)
{
    struct event first = *sim.events[0];
    free(sim.events[0]);
    sim.events[0] = sim.events[--sim.event_count];
    size_t i = 0;
    for (;;) { /* ends where both below are later. */
        size_t least = i;
        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < sim.event_count; k++) {
            least = is_before(sim.events[k], sim.events[least]) ? k : least;
        }
        if (least == i) {
            return first;
        }
        swap_events(i, least);
        i = least;
    }
}

/* ---- the schedule ---- */

void sim_begin(uint64_t seed, bool traces)
{
    memset(&sim, 0, sizeof(sim));
    sim.random = seed;
    sim.filler = ~seed;
    sim.traces = traces;
}

uint64_t sim_now_ns(void)
{
    return sim.now_ns;
}

static void forget_dead(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < sim.thread_count; i++) {
        struct sim_thread *t = sim.threads[i];
        bool dead = !t->process->alive || t->life != t->process->life;
        if (dead || t->done) {
            fiber_free(t->fiber);
            t->fiber = NULL; /* a thread that ended is joined later. */
            continue;
        }
        sim.threads[kept++] = t;
    }
    sim.thread_count = kept;
}

static bool may_run(const struct sim_thread *t)
{
    if (t->process->paused_until_ns > sim.now_ns) {
        return false;
    }
    return t->until_ns <= sim.now_ns || (t->ready != NULL && t->ready(t->ready_ctx));
}

/* One of those that may run; NULL: none may, and '*out_next_ns' is when one will. */
static struct sim_thread *pick(uint64_t *out_next_ns)
{
    struct sim_thread *may[THREADS_MAX];
    size_t count = 0;
    *out_next_ns = sim.event_count > 0 ? sim.events[0]->at_ns : SIM_NEVER;
    for (size_t i = 0; i < sim.thread_count; i++) {
        struct sim_thread *t = sim.threads[i];
        if (may_run(t)) {
            may[count++] = t;
            continue;
        }
        uint64_t paused_ns = t->process->paused_until_ns;
        uint64_t at_ns = t->until_ns < paused_ns ? paused_ns : t->until_ns;
        at_ns = paused_ns > sim.now_ns ? paused_ns : at_ns;
        *out_next_ns = at_ns < *out_next_ns ? at_ns : *out_next_ns;
    }
    return count == 0 ? NULL : may[sim_random(count)];
}

static void run_thread(struct sim_thread *t)
{
    sim.running = t;
    errno = t->saved_errno;
    t->done = fiber_resume(t->fiber);
    t->saved_errno = errno;
    sim.running = NULL;
}

/* Time goes on, or somebody asks again and again without waiting. */
static void watch_time(const struct sim_thread *t)
{
    static uint64_t at_ns;
    static uint64_t turns;
    turns = at_ns == sim.now_ns ? turns + 1 : 0;
    at_ns = sim.now_ns;
    if (turns > STILL_MAX) {
        sim_fail("%s does not wait", t->process->name);
    }
}

void sim_run(uint64_t until_ns, bool (*over)(void), void (*check)(void))
{
    while (sim.now_ns < until_ns && (over == NULL || !over())) {
        while (sim.event_count > 0 && sim.events[0]->at_ns <= sim.now_ns) {
            struct event event = take_event();
            event.fn(event.ctx);
            check();
        }
        forget_dead();
        uint64_t next_ns = 0;
        struct sim_thread *t = pick(&next_ns);
        if (t == NULL) {
            CHECK(next_ns > sim.now_ns);
            sim.now_ns = next_ns < until_ns ? next_ns : until_ns;
            continue;
        }
        watch_time(t);
        run_thread(t);
        check();
    }
}

/* ---- processes ---- */

struct sim_process *sim_self(void)
{
    return sim.running != NULL ? sim.running->process : sim.inside;
}

static void thread_body(void *ctx)
{
    struct sim_thread *t = ctx;
    if (t->main != NULL) {
        t->main(t->ctx);
    } else {
        (void)t->body(t->ctx);
    }
}

static struct sim_thread *add_thread(struct sim_process *process, struct sim_thread from)
{
    struct sim_thread *t = malloc(sizeof(*t));
    CHECK(t != NULL && sim.thread_count < THREADS_MAX);
    *t = from;
    t->process = process;
    t->life = process->life;
    t->fiber = fiber_new(thread_body, t);
    sim.threads[sim.thread_count++] = t;
    return t;
}

void sim_start(struct sim_process *process, void (*body)(void *ctx), void *ctx)
{
    CHECK(!process->alive);
    process->alive = true;
    process->life++;
    process->paused_until_ns = 0;
    process->dies_in = 0;
    process->stops_in = 0;
    process->locked_count = 0;
    (void)add_thread(process, (struct sim_thread){.main = body, .ctx = ctx});
}

void sim_kill(struct sim_process *process)
{
    if (!process->alive) {
        return;
    }
    process->alive = false;
    sim_note("%s dies", process->name);
    for (size_t i = 0; i < process->locked_count; i++) {
        (void)close(process->locked_fds[i]);
    }
    process->locked_count = 0;
    if (process->on_death != NULL) {
        process->on_death(process);
    }
    if (sim.running != NULL && sim.running->process == process) {
        fiber_yield(sim.running->fiber);
        CHECK(false); /* the dead do not come back. */
    }
}

void sim_inside(struct sim_process *process, void (*fn)(void *ctx), void *ctx)
{
    struct sim_process *before = sim.inside;
    struct sim_thread *running = sim.running;
    sim.inside = process;
    sim.running = NULL;
    fn(ctx);
    sim.inside = before;
    sim.running = running;
}

struct sim_thread *sim_thread_new(void *(*body)(void *ctx), void *ctx)
{
    CHECK(sim_self() != NULL);
    return add_thread(sim_self(), (struct sim_thread){.body = body, .ctx = ctx});
}

static bool is_done(void *ctx)
{
    const struct sim_thread *t = ctx;
    return t->done;
}

void sim_thread_join(struct sim_thread *thread)
{
    (void)sim_wait(is_done, thread, SIM_NEVER);
}

/* ---- clocks ---- */

struct sim_clock sim_clock_draw(void)
{
    return (struct sim_clock){
        .mono_base_ns = sim_between(1, 1000) * SIM_SECOND,
        .rate_ppm = (int64_t)sim_between(0, (uint64_t)2 * SIM_RATE_PPM) - SIM_RATE_PPM,
    };
}

uint64_t sim_mono_ns(const struct sim_clock *clock)
{
    int64_t drift_ns = (int64_t)(sim.now_ns / 1000000) * clock->rate_ppm;
    return clock->mono_base_ns + sim.now_ns + (uint64_t)drift_ns;
}

int64_t sim_wall_ms(const struct sim_clock *clock)
{
    return EPOCH_MS + (int64_t)(sim.now_ns / SIM_MS) + clock->wall_offset_ms;
}

const struct sim_clock *sim_clock(void)
{
    const struct sim_process *self = sim_self();
    return sim.borrowed != NULL ? sim.borrowed : self != NULL ? &self->clock : &true_clock;
}

void sim_clock_borrow(const struct sim_clock *clock)
{
    sim.borrowed = clock;
}

uint64_t sim_deadline_ns(uint64_t mono_ns)
{
    int64_t drift_ns = (int64_t)(mono_ns / 1000000) * sim_clock()->rate_ppm;
    return sim.now_ns + mono_ns - (uint64_t)drift_ns;
}

/* ---- waiting ---- */

bool sim_wait(bool (*ready)(void *ctx), void *ctx, uint64_t until_ns)
{
    struct sim_thread *self = sim.running;
    CHECK(self != NULL && self->locks == 0 && sim.borrowed == NULL);
    self->ready = ready;
    self->ready_ctx = ctx;
    self->until_ns = until_ns;
    fiber_yield(self->fiber);
    return ready != NULL && ready(ctx);
}

void sim_sleep(uint64_t ns)
{
    (void)sim_wait(NULL, NULL, sim.now_ns + ns);
}

static bool strikes(const struct sim_process *p, const char *label)
{
    return p->strikes == NULL || strncmp(label, p->strikes, strlen(p->strikes)) == 0;
}

void sim_point(const char *label)
{
    struct sim_thread *self = sim.running;
    if (self == NULL) {
        return; /* a callback: it runs to its end. */
    }
    struct sim_process *p = self->process;
    say(label);
    if (strikes(p, label)) {
        if (p->dies_in > 0 && --p->dies_in == 0) {
            sim_kill(p);
        }
        if (p->stops_in > 0 && --p->stops_in == 0) {
            sim_note("%s stops for %u ms", p->name, (unsigned)(p->stops_ns / SIM_MS));
            p->paused_until_ns = sim.now_ns + p->stops_ns;
        }
    }
    (void)sim_wait(NULL, NULL, sim.now_ns);
}

void sim_lock_count(int by)
{
    if (sim.running != NULL) {
        sim.running->locks += by;
    }
}
