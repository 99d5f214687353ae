/* Proves that keys come back from disk as they were put, with a time that can be believed, and that
 * what is no file of ours is none. */
#include "dataplane/issuers/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/text.h"

#include "tests/support/cmocka.h"

enum { NOW_MS = 1000000 };

static char directory[] = "/tmp/trilane-issuers-XXXXXX";
static uint8_t source[DIGEST_SIZE] = {1, 2, 3};

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "%s", "/tmp/trilane-issuers-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static void path_of(char *out, size_t size)
{
    char name[2 * DIGEST_SIZE + 1];
    text_hex(slice_of(source, DIGEST_SIZE), name);
    (void)snprintf(out, size, "%s/issuers/%s", directory, name);
}

static int tear_down(void **state)
{
    (void)state;
    char path[256];
    path_of(path, sizeof(path));
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/issuers", directory);
    (void)rmdir(path);
    return rmdir(directory);
}

static void expect(const char *wanted, int64_t read_ms)
{
    auto_buf struct buf keys = BUF_MAX(1 << 20);
    int64_t found_ms = 0;
    assert_true(err_ok(dp_issuer_cache_get(directory, source, NOW_MS, &keys, &found_ms)));
    assert_true(slice_eq(buf_slice(&keys), slice_str(wanted)));
    assert_int_equal(found_ms, read_ms);
}

static void comes_back(void **state)
{
    (void)state;
    auto_buf struct buf keys = BUF_MAX(1 << 20);
    int64_t read_ms = 0;
    assert_int_equal(dp_issuer_cache_get(directory, source, NOW_MS, &keys, &read_ms).code,
                     E_NOT_FOUND);
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("{\n}"), 77)));
    expect("{\n}", 77);
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("[]"), NOW_MS + 5)));
    expect("[]", NOW_MS); /* nothing was read in the time to come. */
    struct stat mode;
    char path[256];
    path_of(path, sizeof(path));
    assert_int_equal(stat(path, &mode), 0);
    assert_int_equal(mode.st_mode & 0777, 0600);
}

static void what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "x",
                                      "trilane issuer keys 1\n",
                                      "trilane issuer keys 1\nx\n{}",
                                      "trilane issuer keys 2\n1\n{}",
                                      "trilane issuer keys 1\n-1\n{}",
                                      "trilane issuer keys 1\n99999999999999999999\n{}"};
    char path[256];
    path_of(path, sizeof(path));
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("{}"), 1)));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        auto_buf struct buf keys = BUF_MAX(1 << 20);
        int64_t read_ms = 0;
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        assert_true(fputs(bad[i], file) >= 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(dp_issuer_cache_get(directory, source, NOW_MS, &keys, &read_ms).code,
                         E_NOT_FOUND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_none, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
