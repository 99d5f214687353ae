/* scope: owners let go exactly once: at the end of their scope, or when they are taken. */
#include "common/base/scope.h"

#include <fcntl.h>
#include <stdbool.h>

#include "tests/support/cmocka.h"

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static int open_and_leave(void)
{
    auto_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd;
}

static int open_and_take(void)
{
    auto_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return TAKE_FD(fd);
}

static void descriptors_close_unless_taken(void **state)
{
    (void)state;
    int left = open_and_leave();
    assert_true(left >= 0);
    assert_false(is_open(left));
    int taken = open_and_take();
    assert_true(is_open(taken));
    assert_int_equal(close(taken), 0);
    int none = -1;
    scope_close(&none); /* closes nothing. */
    assert_int_equal(none, -1);
}

static char *make_and_take(void)
{
    auto_free char *text = malloc(8);
    assert_non_null(text);
    text[0] = 'x';
    auto_free char *dropped = malloc(8); /* LeakSanitizer sees it when it is not freed. */
    assert_non_null(dropped);
    char *taken = TAKE_PTR(text);
    assert_null(text);
    return taken;
}

static void memory_is_freed_unless_taken(void **state)
{
    (void)state;
    char *text = make_and_take();
    assert_int_equal(text[0], 'x');
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_close_unless_taken),
        cmocka_unit_test(memory_is_freed_unless_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
