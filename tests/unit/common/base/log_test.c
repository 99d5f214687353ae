/* log: one line an event, whatever the values hold; long values are cut, a module's rate is
 * bounded, errors always pass, and lines of several threads never mix. */
#include "common/base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

enum { THREADS = 4, LINES = 100 };

static int ends[2];
static char text[1 << 20];

static const char *read_lines(void)
{
    ssize_t size = read(ends[0], text, sizeof(text) - 1);
    text[size < 0 ? 0 : size] = '\0';
    return text;
}

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
    log_fd_set(ends[1]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_fd_set(STDERR_FILENO);
    log_level_set(LOG_INFO);
    limits.log_lines_per_second = 1000;
    (void)close(ends[0]);
    (void)close(ends[1]);
    return 0;
}

static void a_line_is_logfmt(void **state)
{
    (void)state;
    LOG(LOG_WARN, "apply", "applied", LOG_U64("version", UINT64_MAX), LOG_I64("skew", -3),
        LOG_STR("state", "GOOD"), LOG_STR("empty", ""), LOG_ERR(FAIL(E_TIMEOUT)));
    const char *line = read_lines();
    assert_int_equal(strncmp(line, "ts=2", 4), 0);
    assert_int_equal(line[26], 'Z');
    assert_non_null(strstr(line, "Z level=warn module=apply event=applied "
                                 "version=18446744073709551615 skew=-3 state=GOOD empty=\"\" "
                                 "code=TIMEOUT where="));
    assert_non_null(strstr(line, "log_test.c:"));
}

static void values_from_outside_cannot_forge_a_line(void **state)
{
    (void)state;
    LOG(LOG_INFO, "m", "e", LOG_SLICE("v", SLICE_LIT("a\nlevel=error \"x\"\\\x1b[31m\xff\0z")));
    const char *line = read_lines();
    assert_non_null(strstr(line, " v=\"a\\x0alevel=error \\\"x\\\"\\\\\\x1b[31m\\xff\\x00z\"\n"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void long_values_are_cut(void **state)
{
    (void)state;
    char value[LOG_VALUE_MAX + 100];
    (void)memset(value, 'x', sizeof(value));
    LOG(LOG_INFO, "m", "e", LOG_SLICE("v", slice_of(value, LOG_VALUE_MAX)), LOG_U64("n", 1));
    const char *line = read_lines();
    assert_int_equal(strspn(strstr(line, "v=") + 2, "x"), LOG_VALUE_MAX);
    LOG(LOG_INFO, "m", "e", LOG_SLICE("v", slice_of(value, sizeof(value))), LOG_U64("n", 1));
    line = read_lines();
    assert_int_equal(strspn(strstr(line, "v=") + 2, "x"), LOG_VALUE_MAX);
    assert_non_null(strstr(line, " n=1\n"));
}

static void many_long_values_still_end_the_line(void **state)
{
    (void)state;
    char value[LOG_VALUE_MAX];
    (void)memset(value, '\n', sizeof(value));
    struct slice v = slice_of(value, sizeof(value));
    LOG(LOG_INFO, "m", "e", LOG_SLICE("a", v), LOG_SLICE("b", v), LOG_SLICE("c", v),
        LOG_SLICE("d", v), LOG_SLICE("e", v), LOG_SLICE("f", v));
    const char *line = read_lines();
    assert_int_equal(strlen(line), 4096);
    assert_ptr_equal(strchr(line, '\n'), line + 4095);
}

static void levels(void **state)
{
    (void)state;
    LOG(LOG_DEBUG, "m", "hidden", LOG_U64("n", 1));
    assert_string_equal(read_lines(), "");
    log_level_set(LOG_DEBUG);
    LOG(LOG_DEBUG, "m", "shown", LOG_U64("n", 1));
    assert_non_null(strstr(read_lines(), "level=debug module=m event=shown n=1\n"));
    enum log_level level = LOG_INFO;
    assert_true(log_level_find(SLICE_LIT("error"), &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_find(SLICE_LIT("loud"), &level));
    assert_int_equal(level, LOG_ERROR);
}

static size_t count_lines(const char *at)
{
    size_t count = 0;
    for (; *at != '\0'; at++) {
        count += *at == '\n';
    }
    return count;
}

static void a_module_has_a_rate_but_for_errors(void **state)
{
    (void)state;
    limits.log_lines_per_second = 5;
    clock_shift_for_test(60LL * 1000000000, 0);
    uint64_t before = log_dropped();
    uint64_t second = clock_mono_ns() / 1000000000;
    for (int i = 0; i < 50; i++) {
        LOG(LOG_INFO, "rated", "e", LOG_U64("n", i));
    }
    uint64_t seconds = clock_mono_ns() / 1000000000 - second + 1; /* that were begun. */
    size_t count = count_lines(read_lines());
    assert_in_range(count, 5, 5 * seconds);
    assert_int_equal(log_dropped() - before, 50 - count);
    for (int i = 0; i < 50; i++) {
        LOG(LOG_ERROR, "rated", "e", LOG_U64("n", i));
    }
    assert_int_equal(count_lines(read_lines()), 50);
    clock_shift_for_test(120LL * 1000000000, 0);
    LOG(LOG_INFO, "rated", "e", LOG_U64("n", 1));
    assert_int_equal(count_lines(read_lines()), 1);
    clock_shift_for_test(0, 0);
}

static void a_full_pipe_drops_and_counts(void **state)
{
    (void)state;
    uint64_t before = log_dropped();
    char fill[4096] = {0};
    while (write(ends[1], fill, sizeof(fill)) > 0) {
    }
    LOG(LOG_ERROR, "m", "e", LOG_U64("n", 1));
    assert_int_equal(log_dropped() - before, 1);
}

static void *write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        LOG(LOG_ERROR, "threads", "e", LOG_STR("who", (const char *)arg), LOG_I64("n", i));
    }
    return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
    (void)state;
    static char names[THREADS][2] = {"a", "b", "c", "d"};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    size_t count = 0;
    for (const char *line = read_lines(); *line != '\0'; line = strchr(line, '\n') + 1) {
        assert_int_equal(strncmp(line, "ts=", 3), 0);
        assert_int_equal(strncmp(line + 27, " level=error module=threads event=e who=", 40), 0);
        count++;
    }
    assert_int_equal(count, THREADS * LINES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_line_is_logfmt),
        TEST(values_from_outside_cannot_forge_a_line),
        TEST(long_values_are_cut),
        TEST(many_long_values_still_end_the_line),
        TEST(levels),
        TEST(a_module_has_a_rate_but_for_errors),
        TEST(a_full_pipe_drops_and_counts),
        TEST(threads_do_not_mix_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
