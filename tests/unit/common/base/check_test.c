/* check: a failed CHECK says condition and place, and ends the process by SIGABRT. */
#include "common/base/check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

_Noreturn static void fail_in_child(int fd)
{
    const struct rlimit no_core = {0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)signal(SIGABRT, SIG_DFL);
    (void)dup2(fd, STDERR_FILENO);
    CHECK(1 + 1 == 3);
    _exit(0);
}

static void a_failed_check_aborts(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fail_in_child(ends[1]);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    char text[256] = "";
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    assert_non_null(strstr(text, "CHECK failed: 1 + 1 == 3 at "));
    assert_non_null(strstr(text, "check_test.c:"));
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void a_true_check_evaluates_once(void **state)
{
    (void)state;
    int count = 0;
    CHECK(++count == 1);
    assert_int_equal(count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_check_aborts),
        cmocka_unit_test(a_true_check_evaluates_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
