/* Proves that keys come back from disk as they were put, with a time that can be believed, that
 * what is no file of ours is none, and that several processes may write at once. */
#include "dataplane/issuers/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

/* A file of this text in the place of the source's. */
static void put_text(const char *text)
{
    char path[256];
    path_of(path, sizeof(path));
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void expect_none(void)
{
    auto_buf struct buf keys = BUF_MAX(1 << 20);
    int64_t read_ms = 0;
    assert_int_equal(dp_issuer_cache_get(directory, source, NOW_MS, &keys, &read_ms).code,
                     E_NOT_FOUND);
    assert_int_equal(keys.size, 0);
}

static void what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "x",
                                      "trilane issuer keys 1\n1\n{}",
                                      "trilane issuer keys 2\n",
                                      "trilane issuer keys 2\n1\n{}",
                                      "trilane issuer keys 2\nsource 00\n1\n{}"};
    static const char *const bad_times[] = {"",      "1",      "\n{}",
                                            "x\n{}", "-1\n{}", "99999999999999999999\n{}"};
    char name[2 * DIGEST_SIZE + 1];
    char text[256];
    text_hex(slice_of(source, DIGEST_SIZE), name);
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("{}"), 1)));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_text(bad[i]);
        expect_none();
    }
    for (size_t i = 0; i < sizeof(bad_times) / sizeof(bad_times[0]); i++) {
        (void)snprintf(text, sizeof(text), "trilane issuer keys 2\nsource %s\n%s", name,
                       bad_times[i]);
        put_text(text);
        expect_none();
    }
    (void)snprintf(text, sizeof(text), "trilane issuer keys 2\nsource %s\n5\n{}", name);
    put_text(text);
    expect("{}", 5);
}

/* Keys of one source are never those of another one, whatever the file is called. */
static void of_another_source(void **state)
{
    (void)state;
    static const uint8_t other[DIGEST_SIZE] = {3, 2, 1};
    char name[2 * DIGEST_SIZE + 1];
    char from[256];
    char to[256];
    assert_true(err_ok(dp_issuer_cache_put(directory, other, SLICE_LIT("{\"keys\":[]}"), 7)));
    text_hex(slice_of(other, DIGEST_SIZE), name);
    (void)snprintf(from, sizeof(from), "%s/issuers/%s", directory, name);
    path_of(to, sizeof(to));
    assert_int_equal(rename(from, to), 0);
    expect_none();
}

/* What another process writes aside is its own; a link in the way leads nowhere. */
static void what_lies_aside(void **state)
{
    (void)state;
    char other[256];
    char aside[256];
    char victim[256];
    struct stat found;
    (void)snprintf(other, sizeof(other), "%s/issuers/next", directory);
    (void)snprintf(aside, sizeof(aside), "%s/issuers/next.%ld", directory, (long)getpid());
    (void)snprintf(victim, sizeof(victim), "%s/victim", directory);
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("{}"), 1)));
    FILE *file = fopen(other, "we");
    assert_non_null(file);
    assert_true(fputs("half of", file) >= 0);
    assert_int_equal(fclose(file), 0);
    file = fopen(victim, "we");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(symlink(victim, aside), 0);
    assert_true(err_ok(dp_issuer_cache_put(directory, source, SLICE_LIT("[]"), 2)));
    expect("[]", 2);
    assert_int_equal(stat(other, &found), 0);
    assert_int_equal(found.st_size, 7);
    assert_int_equal(stat(victim, &found), 0);
    assert_int_equal(found.st_size, 0);
    assert_int_equal(lstat(aside, &found), -1);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(unlink(victim), 0);
}

enum { WRITES = 100 };

static bool put_many(const char *keys)
{
    bool whole = true;
    for (int i = 0; i < WRITES; i++) {
        whole = whole && err_ok(dp_issuer_cache_put(directory, source, slice_str(keys), i));
    }
    return whole;
}

/* As in a hand-over: both succeed each time, and what is there is whole. */
static void two_processes(void **state)
{
    (void)state;
    int status = 0;
    auto_buf struct buf keys = BUF_MAX(1 << 20);
    int64_t read_ms = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(put_many("{\"keys\":[]}") ? 0 : 1);
    }
    bool whole = put_many("[]");
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(whole);
    assert_int_equal(status, 0);
    assert_true(err_ok(dp_issuer_cache_get(directory, source, NOW_MS, &keys, &read_ms)));
    assert_true(slice_eq(buf_slice(&keys), SLICE_LIT("[]")) ||
                slice_eq(buf_slice(&keys), SLICE_LIT("{\"keys\":[]}")));
    assert_int_equal(read_ms, WRITES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_another_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_lies_aside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_processes, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
