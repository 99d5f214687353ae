/* user: one line "user:password" is taken, from a file that is ours alone, and nothing else. */
#include "common/bus/user.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

static enum err_code parsed(const char *text, struct bus_user *out)
{
    return bus_user_parse(slice_str(text), out).code;
}

static void one_line_is_taken(void **state)
{
    (void)state;
    struct bus_user user;
    assert_int_equal(parsed("cp:cp-secret\n", &user), E_OK);
    assert_string_equal(user.name, "cp");
    assert_string_equal(user.password, "cp-secret");
    assert_int_equal(parsed("node-1:a:b @/", &user), E_OK); /* it is no URL. */
    assert_string_equal(user.password, "a:b @/");
    bus_user_wipe(&user);
    assert_string_equal(user.password, "");
}

static void anything_else_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",      "\n",       "cp",         "cp:",        ":secret",
                                      "cp:\n", "cp:s\n\n", "cp:s\nmore", "cp:s\x01\n", "c\rp:s"};
    struct bus_user user = {.name = "as it was"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parsed(bad[i], &user), E_MALFORMED);
    }
    char large[2 * BUS_USER_MAX + 4];
    memset(large, 'a', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    large[BUS_USER_MAX] = ':';
    assert_int_equal(parsed(large, &user), E_MALFORMED);
    assert_string_equal(user.name, "as it was");
    large[2 * BUS_USER_MAX + 1] = '\0';
    assert_int_equal(parsed(large, &user), E_OK); /* both at the bound. */
    large[BUS_USER_MAX] = 'a';
    large[BUS_USER_MAX + 1] = ':';
    assert_int_equal(parsed(large, &user), E_MALFORMED);
}

static void write_file(const char *path, const char *text, size_t size, mode_t mode)
{
    (void)unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void the_file_is_ours_alone(void **state)
{
    (void)state;
    char directory[] = "/tmp/trilane-user-XXXXXX";
    char path[64];
    char alias[64];
    struct bus_user user;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/user", directory);
    (void)snprintf(alias, sizeof(alias), "%s/link", directory);
    assert_int_equal(bus_user_read(path, &user).code, E_NOT_FOUND);
    write_file(path, "cp:secret\n", 10, 0600);
    assert_int_equal(bus_user_read(path, &user).code, E_OK);
    assert_string_equal(user.password, "secret");
    static const mode_t open_to_others[] = {0640, 0604, 0620, 0611};
    for (size_t i = 0; i < sizeof(open_to_others) / sizeof(open_to_others[0]); i++) {
        assert_int_equal(chmod(path, open_to_others[i]), 0);
        assert_int_equal(bus_user_read(path, &user).code, E_USAGE);
    }
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(symlink(path, alias), 0);
    assert_int_equal(bus_user_read(alias, &user).code, E_USAGE);
    assert_int_equal(bus_user_read(directory, &user).code, E_USAGE);
    static const char zeroes[4096] = "cp:secret";
    write_file(path, zeroes, sizeof(zeroes), 0600);
    assert_int_equal(bus_user_read(path, &user).code, E_MALFORMED);
    assert_non_null(strstr(bus_user_why(FAIL(E_USAGE)), "chmod 600"));
    (void)unlink(alias);
    (void)unlink(path);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line_is_taken),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(the_file_is_ours_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
