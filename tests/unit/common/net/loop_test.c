/* Proves: posts of many threads run once each, in their thread's order; bounds and ends hold;
 * hooks run once a turn, those that write after those that make output, and last what others wait
 * for. */
#include "common/net/loop.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/loop_impl.h"
#include "common/net/timer.h"

#include "tests/support/cmocka.h"

enum { THREADS = 4, POSTS = 2000 };

struct post {
    struct net_task task;
    unsigned thread;
    unsigned number;
};

struct crew {
    struct net_loop *loop;
    unsigned next[THREADS]; /* on the loop: the number that must come next. */
    unsigned left;
};

static struct crew crew;

static void on_post(struct net_task *task, void *ctx)
{
    struct post *p = ctx;
    (void)task;
    assert_int_equal(p->number, crew.next[p->thread]);
    crew.next[p->thread]++;
    free(p);
    if (--crew.left == 0) {
        net_loop_stop(crew.loop);
    }
}

static void *post_many(void *arg)
{
    unsigned thread = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < POSTS; i++) {
        struct post *p = malloc(sizeof(*p));
        *p = (struct post){.task = {.fn = on_post, .ctx = p}, .thread = thread, .number = i};
        struct err e = net_loop_post(crew.loop, &p->task);
        if (e.code != E_OK) {
            abort();
        }
    }
    return NULL;
}

static void posts_of_threads_run_once_in_order(void **state)
{
    (void)state;
    crew = (struct crew){.left = THREADS * POSTS};
    assert_int_equal(net_loop_new(&crew.loop).code, E_OK);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, (void *)i), 0);
    }
    net_loop_run(crew.loop);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(crew.next[i], POSTS);
    }
    assert_int_equal(net_loop_stats(crew.loop)->tasks, THREADS * POSTS);
    net_loop_free(crew.loop);
}

struct relay {
    struct net_loop *loop;
    unsigned left;
};

static void post_next(struct net_task *task, void *ctx)
{
    struct relay *relay = ctx;
    if (--relay->left == 0) {
        net_loop_stop(relay->loop);
    } else {
        assert_int_equal(net_loop_post(relay->loop, task).code, E_OK);
    }
}

/* Each post makes a turn with work; behind a silence, as at the start, the second waits for
 * nothing. */
static void turns_with_work_are_a_pause_apart(void **state)
{
    (void)state;
    enum { PAUSE_US = 2000, TURNS = 20 };
    struct relay relay = {.left = TURNS};
    struct net_task task = {.fn = post_next, .ctx = &relay};
    assert_int_equal(net_loop_new(&relay.loop).code, E_OK);
    net_loop_set_pause(relay.loop, PAUSE_US);
    assert_int_equal(net_loop_post(relay.loop, &task).code, E_OK);
    uint64_t start_ns = clock_mono_ns();
    net_loop_run(relay.loop);
    assert_true(clock_mono_ns() - start_ns >= UINT64_C(1000) * PAUSE_US * (TURNS - 2));
    net_loop_free(relay.loop);
}

/* A loop that is kept busy, and one that is not. */
struct load {
    struct net_loop *loop;
    uint64_t until_ns;
};

/* Works for a moment, and has itself called again, until the loop pauses. */
static void work_on(struct net_task *task, void *ctx)
{
    enum { WORK_NS = 200000 };
    struct load *load = ctx;
    uint64_t start_ns = net_loop_now_ns(load->loop); /* a turn begins with a look at the clock. */
    while (clock_mono_ns() - start_ns < WORK_NS) {
    }
    if (load->loop->busy_pause_ns > 0 || clock_mono_ns() > load->until_ns) {
        net_loop_stop(load->loop);
    } else {
        assert_int_equal(net_loop_post(load->loop, task).code, E_OK);
    }
}

static void look_on(struct net_timer *timer, void *ctx)
{
    struct load *load = ctx;
    if (load->loop->busy_pause_ns == 0 || clock_mono_ns() > load->until_ns) {
        net_loop_stop(load->loop);
    } else {
        net_timer_arm(load->loop, timer, 7);
    }
}

static void a_busy_loop_pauses_until_it_is_calm(void **state)
{
    (void)state;
    const uint64_t patience_ns = UINT64_C(20000000000);
    struct load load = {.until_ns = clock_mono_ns() + patience_ns};
    struct net_task task = {.fn = work_on, .ctx = &load};
    struct net_timer timer;
    assert_int_equal(net_loop_new(&load.loop).code, E_OK);
    net_loop_set_busy_pause(load.loop, 200);
    assert_int_equal(net_loop_post(load.loop, &task).code, E_OK);
    net_loop_run(load.loop);
    assert_true(load.loop->busy_pause_ns > 0);
    net_timer_init(&timer, look_on, &load);
    net_timer_arm(load.loop, &timer, 7);
    net_loop_run(load.loop);
    assert_int_equal(load.loop->busy_pause_ns, 0);
    net_loop_free(load.loop);
}

static void count_task(struct net_task *task, void *ctx)
{
    (void)task;
    (*(unsigned *)ctx)++;
}

static void posts_are_bounded_and_none_is_lost(void **state)
{
    (void)state;
    struct net_loop *loop = NULL;
    uint64_t bound = limits.loop_tasks;
    limits.loop_tasks = 3;
    unsigned runs = 0;
    struct net_task tasks[4];
    assert_int_equal(net_loop_new(&loop).code, E_OK);
    for (size_t i = 0; i < 4; i++) {
        tasks[i] = (struct net_task){.fn = count_task, .ctx = &runs};
        assert_int_equal(net_loop_post(loop, &tasks[i]).code, i < 3 ? E_OK : E_QUEUE_FULL);
    }
    net_loop_stop(loop);
    net_loop_run(loop);
    assert_int_equal(runs, 3);
    assert_int_equal(net_loop_post(loop, &tasks[3]).code, E_OK);
    net_loop_free(loop); /* runs what is left. */
    assert_int_equal(runs, 4);
    limits.loop_tasks = bound;
}

struct late {
    struct net_task task;
    struct net_task second;
    struct net_loop *loop;
    struct err second_failed;
};

static void post_again(struct net_task *task, void *ctx)
{
    (void)task;
    struct late *l = ctx;
    l->second = (struct net_task){.fn = post_again, .ctx = l};
    l->second_failed = net_loop_post(l->loop, &l->second);
}

static void an_ended_loop_takes_no_posts(void **state)
{
    (void)state;
    struct late l = {.task = {.fn = post_again, .ctx = &l}};
    assert_int_equal(net_loop_new(&l.loop).code, E_OK);
    assert_int_equal(net_loop_post(l.loop, &l.task).code, E_OK);
    net_loop_free(l.loop);
    assert_int_equal(l.second_failed.code, E_CLOSED);
}

struct hooked {
    struct net_hook hook;
    struct net_loop *loop;
    struct net_hook *queues;
    char mark;
    char *trace;
};

static void on_hook(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct hooked *h = ctx;
    size_t size = strlen(h->trace);
    h->trace[size] = h->mark;
    h->trace[size + 1] = '\0';
    if (h->queues != NULL) {
        net_hook_queue(h->loop, h->queues);
        h->queues = NULL;
    }
}

static void hooks_run_by_phase_and_once(void **state)
{
    (void)state;
    struct net_loop *loop = NULL;
    assert_int_equal(net_loop_new(&loop).code, E_OK);
    char trace[16] = "";
    struct hooked write = {.loop = loop, .mark = 'w', .trace = trace};
    struct hooked late = {.loop = loop, .mark = 'l', .trace = trace};
    struct hooked work = {.loop = loop, .queues = &late.hook, .mark = 'm', .trace = trace};
    struct hooked gone = {.loop = loop, .mark = 'x', .trace = trace};
    struct hooked rest = {.loop = loop, .mark = 'r', .trace = trace};
    net_hook_init(&rest.hook, NET_HOOK_REST, on_hook, &rest);
    net_hook_init(&write.hook, NET_HOOK_WRITE, on_hook, &write);
    net_hook_init(&late.hook, NET_HOOK_WORK, on_hook, &late);
    net_hook_init(&work.hook, NET_HOOK_WORK, on_hook, &work);
    net_hook_init(&gone.hook, NET_HOOK_WORK, on_hook, &gone);
    net_hook_queue(loop, &rest.hook);
    net_hook_queue(loop, &write.hook);
    net_hook_queue(loop, &gone.hook);
    net_hook_queue(loop, &work.hook);
    net_hook_queue(loop, &work.hook);
    net_hook_cancel(loop, &gone.hook);
    net_hook_cancel(loop, &gone.hook);
    net_loop_stop(loop);
    bool done = false;
    (void)net_loop_run_until(loop, &done, 1);
    assert_string_equal(trace, "mlwr");
    net_loop_free(loop);
}

struct endless {
    struct net_hook hook;
    struct net_loop *loop;
    unsigned left;
    bool done;
};

static void on_endless(struct net_hook *hook, void *ctx)
{
    struct endless *e = ctx;
    if (--e->left > 0) {
        net_hook_queue(e->loop, hook);
    }
    e->done = e->left == 0;
}

static void hooks_that_go_on_do_not_wait_for_events(void **state)
{
    (void)state;
    struct endless e = {.left = 1000};
    assert_int_equal(net_loop_new(&e.loop).code, E_OK);
    net_hook_init(&e.hook, NET_HOOK_WORK, on_endless, &e);
    net_hook_queue(e.loop, &e.hook);
    assert_true(net_loop_run_until(e.loop, &e.done, 10000));
    net_loop_free(e.loop);
    net_loop_free(NULL);
}

static void on_flag(struct net_task *task, void *ctx)
{
    (void)task;
    *(bool *)ctx = true;
}

static void never(struct net_timer *timer, void *ctx)
{
    (void)timer;
    (void)ctx;
    abort();
}

static void a_turn_takes_what_is_ready_and_waits_for_nothing(void **state)
{
    (void)state;
    struct net_loop *loop = NULL;
    assert_int_equal(net_loop_new(&loop).code, E_OK);
    struct net_timer far;
    net_timer_init(&far, never, NULL);
    net_timer_arm(loop, &far, 3600000);
    bool ran = false;
    struct net_task task = {.fn = on_flag, .ctx = &ran};
    assert_int_equal(net_loop_post(loop, &task).code, E_OK);
    net_loop_turn(loop);
    assert_true(ran);
    net_loop_turn(loop); /* nothing is ready: it would wait an hour. */
    net_timer_cancel(loop, &far);
    net_loop_free(loop);
}

enum { LONG_MS = 50 };

struct lagging {
    struct net_task first;
    struct net_task second;
    struct net_loop *loop;
    uint64_t seen_ns;
    bool done;
};

static void be_long(struct net_task *task, void *ctx)
{
    (void)task;
    struct lagging *l = ctx;
    (void)net_loop_now_ns(l->loop);
    clock_shift_for_test(INT64_C(1000000) * LONG_MS, 0);
    assert_int_equal(net_loop_post(l->loop, &l->second).code, E_OK);
}

static void see_lag(struct net_task *task, void *ctx)
{
    (void)task;
    struct lagging *l = ctx;
    l->seen_ns = net_loop_lag_ns(l->loop);
    l->done = true;
}

static void lag_is_the_turn_before_less_its_sleep(void **state)
{
    (void)state;
    struct lagging l = {.first = {.fn = be_long, .ctx = &l}, .second = {.fn = see_lag, .ctx = &l}};
    assert_int_equal(net_loop_new(&l.loop).code, E_OK);
    assert_int_equal(net_loop_post(l.loop, &l.first).code, E_OK);
    assert_true(net_loop_run_until(l.loop, &l.done, 600000));
    assert_true(l.seen_ns > 0); /* what the machine slept in between goes off. */
    assert_true(l.seen_ns < UINT64_C(1000000000) * 600);
    clock_shift_for_test(INT64_C(3600) * 1000000000, 0); /* an hour without work. */
    l.done = false;
    assert_int_equal(net_loop_post(l.loop, &l.second).code, E_OK);
    assert_true(net_loop_run_until(l.loop, &l.done, 600000));
    assert_true(l.seen_ns < UINT64_C(1000000000) * 600); /* of the hour nothing. */
    clock_shift_for_test(0, 0);
    net_loop_free(l.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_of_threads_run_once_in_order),
        cmocka_unit_test(turns_with_work_are_a_pause_apart),
        cmocka_unit_test(a_busy_loop_pauses_until_it_is_calm),
        cmocka_unit_test(posts_are_bounded_and_none_is_lost),
        cmocka_unit_test(an_ended_loop_takes_no_posts),
        cmocka_unit_test(hooks_run_by_phase_and_once),
        cmocka_unit_test(hooks_that_go_on_do_not_wait_for_events),
        cmocka_unit_test(lag_is_the_turn_before_less_its_sleep),
        cmocka_unit_test(a_turn_takes_what_is_ready_and_waits_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
