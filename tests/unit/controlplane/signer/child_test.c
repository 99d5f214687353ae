/* Proves that a child has longer for its start than for an answer, and that its end is seen in
 * either. */
#include "controlplane/signer/child.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "controlplane/signer/wire.h"

#include "tests/support/cmocka.h"

enum { GREETING = 5 };

/* A shell; descriptor 3 is its end of the socket. */
static struct signer_child start(const char *script)
{
    struct signer_child child;
    const struct signer_child_plan plan = {.program = "/bin/sh", .args = {"-c", script}};
    assert_int_equal(signer_child_start(&plan, &child).code, E_OK);
    return child;
}

static long bound_s(const struct signer_child *child, int which)
{
    struct timeval bound = {0};
    socklen_t size = sizeof(bound);
    assert_int_equal(getsockopt(child->fd, SOL_SOCKET, which, &bound, &size), 0);
    return bound.tv_sec;
}

static void a_start_has_longer_than_an_answer(void **state)
{
    (void)state;
    char words[GREETING];
    struct signer_child child = start("printf hello >&3; read line <&3; printf again >&3");
    long greeting_s = bound_s(&child, SO_RCVTIMEO);
    assert_int_equal(signer_child_greeting(&child, words, GREETING).code, E_OK);
    assert_memory_equal(words, "hello", GREETING);
    assert_in_range(bound_s(&child, SO_RCVTIMEO), 1, greeting_s / 2);
    assert_in_range(bound_s(&child, SO_SNDTIMEO), 1, greeting_s / 2);
    assert_int_equal(signer_send(child.fd, SLICE_LIT("go\n")).code, E_OK);
    assert_int_equal(signer_receive(child.fd, words, GREETING).code, E_OK);
    assert_memory_equal(words, "again", GREETING);
    assert_int_equal(signer_child_end(&child, /* hangs= */ false), 0);
}

static void an_urgent_start_has_no_longer_than_an_answer(void **state)
{
    (void)state;
    char words[GREETING];
    struct signer_child child;
    const struct signer_child_plan plan = {
        .program = "/bin/sh", .args = {"-c", "printf hello >&3"}, .urgent = true};
    assert_int_equal(signer_child_start(&plan, &child).code, E_OK);
    long greeting_s = bound_s(&child, SO_RCVTIMEO);
    assert_int_equal(signer_child_greeting(&child, words, GREETING).code, E_OK);
    assert_int_equal(greeting_s, bound_s(&child, SO_RCVTIMEO));
    (void)signer_child_end(&child, /* hangs= */ true);
}

static void one_that_ends_before_its_greeting_is_gone(void **state)
{
    (void)state;
    char words[GREETING];
    struct signer_child child = start("printf hell >&3");
    assert_int_equal(signer_child_greeting(&child, words, GREETING).code, E_CLOSED);
    assert_int_equal(signer_child_end(&child, /* hangs= */ false), 0);
}

/* So that it wipes its keys. */
static void one_whose_input_ends_has_time_to_end(void **state)
{
    (void)state;
    char words[GREETING];
    struct signer_child child = start("printf hello >&3; read line <&3; exit 7");
    assert_int_equal(signer_child_greeting(&child, words, GREETING).code, E_OK);
    int how = signer_child_end(&child, /* hangs= */ false);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 7);
}

static void one_that_is_stopped_is_not_waited_for(void **state)
{
    (void)state;
    char words[GREETING];
    struct signer_child child = start("printf hello >&3; read line <&3");
    assert_int_equal(signer_child_greeting(&child, words, GREETING).code, E_OK);
    assert_int_equal(kill(child.pid, SIGSTOP), 0);
    int how = signer_child_end(&child, /* hangs= */ false); /* returns. */
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGKILL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_has_longer_than_an_answer),
        cmocka_unit_test(an_urgent_start_has_no_longer_than_an_answer),
        cmocka_unit_test(one_that_ends_before_its_greeting_is_gone),
        cmocka_unit_test(one_whose_input_ends_has_time_to_end),
        cmocka_unit_test(one_that_is_stopped_is_not_waited_for),
    };
    return cmocka_run_group_tests_name("signer.child", tests, NULL, NULL);
}
