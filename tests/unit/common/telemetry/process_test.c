/* What the process says of itself follows what it does. */
#include "common/telemetry/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/clock.h"

#include "tests/support/cmocka.h"

static void memory_is_counted(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20 };
    struct process_usage before;
    struct process_usage after;
    process_usage(&before);
    char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    memset(bytes, 1, SIZE);
    process_usage(&after);
    free(bytes);
    assert_true(after.resident_bytes >= before.resident_bytes + SIZE / 2);
    assert_true(after.virtual_bytes > after.resident_bytes);
}

static void open_files_are_counted(void **state)
{
    (void)state;
    struct process_usage before;
    struct process_usage after;
    struct rlimit files;
    process_usage(&before);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    process_usage(&after);
    assert_int_equal(close(fd), 0);
    assert_int_equal(after.open_files, before.open_files + 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(after.open_files_max, files.rlim_cur);
}

static void time_passes(void **state)
{
    (void)state;
    struct process_usage before;
    struct process_usage after;
    process_usage(&before);
    do {
        process_usage(&after);
    } while (after.cpu_us == before.cpu_us);
    assert_true(after.cpu_us > before.cpu_us);
    uint64_t now_s = (uint64_t)clock_wall_ms() / 1000;
    assert_true(after.start_s <= now_s + 1);
    assert_true(after.start_s + 3600 > now_s); /* a test has begun within the hour. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(open_files_are_counted),
        cmocka_unit_test(time_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
