/* wait: ends when the descriptor is ready or by its time, whatever signals come meanwhile. */
#include "common/net/wait.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/base/clock.h"

#include "tests/support/cmocka.h"

static int pair[2];

static int setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **state)
{
    (void)state;
    (void)close(pair[0]);
    (void)close(pair[1]);
    return 0;
}

static void what_is_ready_is_said_at_once(void **state)
{
    (void)state;
    assert_true(err_ok(net_wait(pair[0], POLLOUT, 0)));
    assert_int_equal(net_wait(pair[0], POLLIN, 0).code, E_TIMEOUT);
    assert_int_equal(write(pair[1], "x", 1), 1);
    assert_true(err_ok(net_wait(pair[0], POLLIN, UINT32_MAX)));
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted++;
}

/* Interrupted again and again: no signal ends it, and it lasts no longer. */
static void it_ends_by_its_time(void **state)
{
    (void)state;
    enum { WAIT_MS = 100, EVERY_MS = 7 };
    const struct sigaction action = {.sa_handler = interrupt};
    const struct itimerval often = {{0, EVERY_MS * 1000}, {0, EVERY_MS * 1000}};
    const struct itimerval never = {0};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    uint64_t begin_ns = clock_mono_ns();
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    assert_int_equal(net_wait(pair[0], POLLIN, WAIT_MS).code, E_TIMEOUT);
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(clock_mono_ns() - begin_ns >= (WAIT_MS - 1) * UINT64_C(1000000));
    assert_true(interrupted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_ready_is_said_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(it_ends_by_its_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
