/* clock: monotonic clocks never go back, the wall clock is the system's, shifts move each. */
#include "common/base/clock.h"

#include <time.h>

#include "tests/support/cmocka.h"

static void monotonic_clocks_do_not_go_back(void **state)
{
    (void)state;
    uint64_t mono = clock_mono_ns();
    uint64_t boot = clock_boot_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t mono_next = clock_mono_ns();
        uint64_t boot_next = clock_boot_ns();
        assert_true(mono_next >= mono && boot_next >= boot);
        mono = mono_next;
        boot = boot_next;
    }
    assert_true(boot >= mono);
}

static void the_wall_clock_is_the_systems(void **state)
{
    (void)state;
    int64_t before_s = (int64_t)time(NULL);
    int64_t wall_ms = clock_wall_ms();
    int64_t after_s = (int64_t)time(NULL);
    assert_in_range(wall_ms, (before_s - 1) * 1000, (after_s + 2) * 1000);
}

static void shifts_move_the_clocks(void **state)
{
    (void)state;
    uint64_t mono = clock_mono_ns();
    uint64_t boot = clock_boot_ns();
    int64_t wall = clock_wall_ms();
    clock_shift_for_test(3600LL * 1000000000, -86400000);
    assert_true(clock_mono_ns() - mono >= 3600ULL * 1000000000);
    assert_true(clock_boot_ns() - boot >= 3600ULL * 1000000000);
    assert_true(clock_wall_ms() - wall < -86400000 + 60000);
    clock_shift_for_test(0, 0);
    assert_true(clock_mono_ns() - mono < 60ULL * 1000000000);
    assert_true(clock_wall_ms() - wall > -60000);
}

/* It stands still while the thread sleeps, which the monotonic one does not. */
static void a_threads_clock_counts_what_it_worked(void **state)
{
    (void)state;
    const struct timespec rest = {.tv_nsec = 20 * 1000000};
    uint64_t thread = clock_thread_ns();
    uint64_t mono = clock_mono_ns();
    assert_int_equal(nanosleep(&rest, NULL), 0);
    assert_true(clock_thread_ns() - thread < clock_mono_ns() - mono);
    thread = clock_thread_ns();
    for (mono = clock_mono_ns(); clock_mono_ns() - mono < 2000000;) {
    }
    assert_true(clock_thread_ns() > thread);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_clocks_do_not_go_back),
        cmocka_unit_test(the_wall_clock_is_the_systems),
        cmocka_unit_test(shifts_move_the_clocks),
        cmocka_unit_test(a_threads_clock_counts_what_it_worked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
