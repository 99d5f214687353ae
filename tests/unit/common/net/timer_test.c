/* Proves: a timer runs once, at its tick, in order, at every distance; cancelled ones never. */
#include "common/net/timer.h"

#include <stdlib.h>

#include "common/net/loop.h"

#include "tests/support/cmocka.h"

struct probe {
    struct net_timer timer;
    struct net_wheel *wheel;
    unsigned runs;
    uint64_t ran_at;
    struct net_timer *cancels;
    uint64_t again; /* arms itself anew for this tick. */
};

static void on_run(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct probe *p = ctx;
    p->runs++;
    p->ran_at = p->wheel->now;
    if (p->cancels != NULL) {
        net_wheel_cancel(p->wheel, p->cancels);
    }
    if (p->again != 0) {
        net_wheel_arm(p->wheel, &p->timer, p->again);
        p->again = 0;
    }
}

static struct probe probe_on(struct net_wheel *w)
{
    return (struct probe){.wheel = w};
}

static void arm(struct probe *p, uint64_t tick)
{
    net_timer_init(&p->timer, on_run, p);
    net_wheel_arm(p->wheel, &p->timer, tick);
}

static void runs_at_its_tick_at_every_distance(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 1, 63, 64, 4095, 1000000, (1ULL << 36) - 3};
    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        for (uint64_t delta = 1; delta < 1ULL << 40; delta = delta * 3 + 1) {
            struct net_wheel w;
            net_wheel_init(&w, starts[s]);
            struct probe p = probe_on(&w);
            arm(&p, starts[s] + delta);
            assert_true(net_wheel_next(&w) <= starts[s] + delta);
            net_wheel_advance(&w, starts[s] + delta - 1);
            assert_int_equal(p.runs, 0);
            net_wheel_advance(&w, starts[s] + delta);
            assert_int_equal(p.runs, 1);
            assert_int_equal(p.ran_at, starts[s] + delta);
            net_wheel_advance(&w, starts[s] + delta * 2);
            assert_int_equal(p.runs, 1);
            assert_int_equal(w.count, 0);
            assert_true(net_wheel_next(&w) == UINT64_MAX);
        }
    }
}

static void past_ticks_run_with_the_next_advance(void **state)
{
    (void)state;
    struct net_wheel w;
    net_wheel_init(&w, 100);
    struct probe p = probe_on(&w);
    arm(&p, 5);
    net_wheel_advance(&w, 100);
    assert_int_equal(p.runs, 0);
    net_wheel_advance(&w, 101);
    assert_int_equal(p.runs, 1);
    arm(&p, UINT64_MAX);
    net_wheel_cancel(&w, &p.timer);
    net_wheel_cancel(&w, &p.timer);
    assert_int_equal(w.count, 0);
}

static void callbacks_may_cancel_and_arm(void **state)
{
    (void)state;
    struct net_wheel w;
    net_wheel_init(&w, 0);
    struct probe first = probe_on(&w);
    struct probe second = probe_on(&w);
    arm(&first, 10);
    arm(&second, 10);
    first.cancels = &second.timer;
    first.again = 20;
    net_wheel_advance(&w, 15);
    assert_int_equal(first.runs, 1);
    assert_int_equal(second.runs, 0);
    net_wheel_advance(&w, 20);
    assert_int_equal(first.runs, 2);
    assert_int_equal(first.ran_at, 20);
}

static void agrees_with_a_list(void **state)
{
    (void)state;
    enum { TIMERS = 400 };
    static struct probe probes[TIMERS];
    struct net_wheel w;
    uint64_t seed = 42;
    net_wheel_init(&w, 0);
    for (size_t i = 0; i < TIMERS; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        probes[i] = probe_on(&w);
        arm(&probes[i], 1 + (seed >> 33) % 20000);
    }
    for (size_t i = 0; i < TIMERS; i += 5) {
        net_wheel_cancel(&w, &probes[i].timer);
    }
    for (uint64_t now = 7; now < 20100; now += 1 + now % 97) {
        net_wheel_advance(&w, now);
        for (size_t i = 0; i < TIMERS; i++) {
            bool due = i % 5 != 0 && probes[i].timer.tick <= now;
            assert_int_equal(probes[i].runs, due ? 1 : 0);
            assert_true(!due || probes[i].ran_at == probes[i].timer.tick);
        }
    }
}

static void on_flag(struct net_timer *timer, void *ctx)
{
    (void)timer;
    *(bool *)ctx = true;
}

static void a_loop_wakes_for_its_timers(void **state)
{
    (void)state;
    struct net_loop *loop = NULL;
    assert_int_equal(net_loop_new(&loop).code, E_OK);
    bool ran = false;
    bool other = false;
    struct net_timer timer;
    struct net_timer cancelled;
    net_timer_init(&timer, on_flag, &ran);
    net_timer_init(&cancelled, on_flag, &other);
    uint64_t start_ns = net_loop_now_ns(loop);
    net_timer_arm(loop, &cancelled, 5);
    net_timer_arm(loop, &timer, 20);
    net_timer_cancel(loop, &cancelled);
    assert_true(net_loop_run_until(loop, &ran, 5000));
    assert_true(net_loop_now_ns(loop) - start_ns >= 20000000);
    assert_false(other);
    bool never = false;
    assert_false(net_loop_run_until(loop, &never, 10));
    net_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_at_its_tick_at_every_distance),
        cmocka_unit_test(past_ticks_run_with_the_next_advance),
        cmocka_unit_test(callbacks_may_cancel_and_arm),
        cmocka_unit_test(agrees_with_a_list),
        cmocka_unit_test(a_loop_wakes_for_its_timers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
