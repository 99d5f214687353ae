/* settings: flag over environment over file over default; every refusal names setting, place,
 * what was found and what was expected; limits are settings with bounds. */
#include "common/base/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/limits.h"

#include "tests/support/cmocka.h"

static const struct setting_row rows[] = {
    {"nats-urls", "URL,...", "nats://127.0.0.1:4222", "where NATS is", SETTING_TEXT},
    {"data-dir", "DIR", NULL, "where state is kept", SETTING_TEXT},
    {"keep", NULL, NULL, "keep it running", SETTING_FLAG},
    {"drop", "KEY,...", "", "keys to take away", SETTING_LIST},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static char config_path[] = "/tmp/trilane-settings-XXXXXX";

static void write_config(const char *content)
{
    FILE *file = fopen(config_path, "we");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Loads; the arguments end with NULL. Settings borrow them from here until the next load. */
static struct err load(const char *const *args, struct settings **out, struct buf *message)
{
    static char store[16][256];
    char *argv[16];
    int argc = 0;
    for (; args[argc] != NULL; argc++) {
        (void)snprintf(store[argc], sizeof(store[argc]), "%s", args[argc]);
        argv[argc] = store[argc];
    }
    buf_clear(message);
    *out = NULL;
    return settings_load(rows, ROWS, argc, argv, out, message);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int tear_down(void **state)
{
    (void)state;
    (void)unsetenv("TRILANE_NATS_URLS");
    (void)unsetenv("TRILANE_KEEP");
    (void)unsetenv("TRILANE_CONFIG");
    (void)unsetenv("TRILANE_ACK_WAIT_MS");
    limits.ack_wait_ms = 30000;
    return 0;
}

static void check_value(const char *const *args, const char *name, const char *expected)
{
    auto_buf struct buf message = BUF_MAX(4096);
    struct settings *s = NULL;
    struct err err = load(args, &s, &message);
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&message, &text)));
    assert_string_equal(text, "");
    assert_true(err_ok(err));
    if (expected == NULL) {
        assert_null(settings_get(s, name));
    } else {
        assert_string_equal(settings_get(s, name), expected);
    }
    settings_free(s);
}

static void check_refused(const char *const *args, const char *sentence)
{
    auto_buf struct buf message = BUF_MAX(4096);
    struct settings *s = NULL;
    struct err err = load(args, &s, &message);
    assert_int_equal(err.code, E_USAGE);
    assert_null(s);
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&message, &text)));
    assert_string_equal(text, sentence);
}

static void each_place_beats_the_one_below(void **state)
{
    (void)state;
    const char *config = config_path;
    write_config("nats-urls: from-file\n");
    check_value(ARGS("x"), "nats-urls", "nats://127.0.0.1:4222");
    check_value(ARGS("--config", config), "nats-urls", "from-file");
    assert_int_equal(setenv("TRILANE_NATS_URLS", "from-environment", 1), 0);
    check_value(ARGS("--config", config), "nats-urls", "from-environment");
    check_value(ARGS("--config", config, "--nats-urls", "from-flag"), "nats-urls", "from-flag");
    check_value(ARGS("--nats-urls=from-flag", "--config", config), "nats-urls", "from-flag");
    assert_int_equal(setenv("TRILANE_NATS_URLS", "", 1), 0); /* empty is unset. */
    assert_int_equal(setenv("TRILANE_CONFIG", config, 1), 0);
    check_value(ARGS("x"), "nats-urls", "from-file");
    check_value(ARGS("x"), "data-dir", NULL);
}

static void the_last_flag_wins(void **state)
{
    (void)state;
    check_value(ARGS("--data-dir=a", "--data_dir=b"), "data-dir", "b");
    check_value(ARGS("--data-dir="), "data-dir", "");
}

static void flags_of_a_list_add_up(void **state)
{
    (void)state;
    const char *config = config_path;
    check_value(ARGS("--drop=a", "--drop", "b,c", "--drop=d"), "drop", "a,b,c,d");
    write_config("drop: from-file\n");
    check_value(ARGS("--config", config), "drop", "from-file");
    check_value(ARGS("--drop=a", "--config", config), "drop", "a");
}

static void files_have_comments_and_quotes(void **state)
{
    (void)state;
    write_config("# a comment\n\n  data_dir :  \"/var/a b\"  \r\nnats-urls: 'nats://h:1'\n");
    check_value(ARGS("--config", config_path), "data-dir", "/var/a b");
    check_value(ARGS("--config", config_path), "nats-urls", "nats://h:1");
}

static void arguments_are_left_over(void **state)
{
    (void)state;
    auto_buf struct buf message = BUF_MAX(4096);
    struct settings *s = NULL;
    assert_true(err_ok(load(ARGS("one", "--keep", "two", "-", "--", "--three"), &s, &message)));
    assert_true(settings_flag(s, "keep"));
    assert_string_equal(settings_arg(s, 0), "one");
    assert_string_equal(settings_arg(s, 1), "two");
    assert_string_equal(settings_arg(s, 2), "-");
    assert_string_equal(settings_arg(s, 3), "--three");
    assert_null(settings_arg(s, 4));
    settings_free(s);
}

static void check_keep(const char *value, bool expected)
{
    auto_buf struct buf message = BUF_MAX(4096);
    struct settings *s = NULL;
    assert_int_equal(setenv("TRILANE_KEEP", value, 1), 0);
    assert_true(err_ok(load(ARGS("x"), &s, &message)));
    assert_int_equal(settings_flag(s, "keep"), expected);
    settings_free(s);
}

static void switches_are_true_or_false(void **state)
{
    (void)state;
    check_keep("true", true);
    check_keep("false", false);
    assert_int_equal(setenv("TRILANE_KEEP", "yes", 1), 0);
    check_refused(ARGS("x"), "TRILANE_KEEP: keep is \"yes\"; expected true or false");
    assert_int_equal(unsetenv("TRILANE_KEEP"), 0);
    check_refused(ARGS("--keep=1"), "command line: keep is \"1\"; expected true or false");
}

static void a_wrong_name_is_answered_by_the_nearest(void **state)
{
    (void)state;
    check_refused(ARGS("--nats-url=x"), "command line: no setting is called \"nats-url\"; "
                                        "did you mean \"nats-urls\"?");
    check_refused(ARGS("--ack-wiat-ms=1"), "command line: no setting is called \"ack-wiat-ms\"; "
                                           "did you mean \"ack-wait-ms\"?");
    check_refused(ARGS("--qqqqqqqq=1"), "command line: no setting is called \"qqqqqqqq\"");
    write_config("a\n");
    char sentence[256];
    (void)snprintf(sentence, sizeof(sentence), "%s:1: found \"a\"; expected \"key: value\"",
                   config_path);
    check_refused(ARGS("--config", config_path), sentence);
    write_config("# fine\ndata-dri: x\n");
    (void)snprintf(sentence, sizeof(sentence),
                   "%s:2: no setting is called \"data-dri\"; did you mean \"data-dir\"?",
                   config_path);
    check_refused(ARGS("--config", config_path), sentence);
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    check_refused(ARGS("--data-dir"), "command line: --data-dir needs a value");
    check_refused(ARGS("--config"), "command line: --config needs a value");
    check_refused(ARGS("--config=/no/such/file"),
                  "--config /no/such/file: the file cannot be read");
}

static void limits_are_settings_with_bounds(void **state)
{
    (void)state;
    check_value(ARGS("--ack-wait-ms=100"), "ack-wait-ms", "100"); /* at the lower bound. */
    assert_int_equal(limits.ack_wait_ms, 100);
    check_value(ARGS("--ack_wait_ms=3600000"), "ack_wait_ms", "3600000");
    assert_int_equal(limits.ack_wait_ms, 3600000);
    check_refused(ARGS("--ack-wait-ms=99"),
                  "command line: ack_wait_ms is \"99\"; expected a whole number of ms from 100 to "
                  "3600000");
    assert_int_equal(setenv("TRILANE_ACK_WAIT_MS", "3600001", 1), 0);
    check_refused(ARGS("x"), "TRILANE_ACK_WAIT_MS: ack_wait_ms is \"3600001\"; expected a whole "
                             "number of ms from 100 to 3600000");
    assert_int_equal(setenv("TRILANE_ACK_WAIT_MS", "30 s", 1), 0);
    check_refused(ARGS("x"),
                  "TRILANE_ACK_WAIT_MS: ack_wait_ms is \"30 s\"; expected a whole number "
                  "of ms from 100 to 3600000");
    assert_int_equal(limits.ack_wait_ms, 3600000);
}

/* The unit may stand with the value instead of in the name. */
static void limits_go_by_their_short_names(void **state)
{
    (void)state;
    check_value(ARGS("--ack-wait=2s"), "ack-wait-ms", "2s");
    assert_int_equal(limits.ack_wait_ms, 2000);
    check_value(ARGS("--ack-wait-ms=1h"), "ack-wait", "1h");
    assert_int_equal(limits.ack_wait_ms, 3600000);
    assert_int_equal(setenv("TRILANE_ACK_WAIT", "250ms", 1), 0);
    check_value(ARGS("x"), "ack-wait-ms", "250ms");
    assert_int_equal(limits.ack_wait_ms, 250);
    assert_int_equal(setenv("TRILANE_ACK_WAIT_MS", "300", 1), 0); /* the full name wins. */
    check_value(ARGS("x"), "ack-wait-ms", "300");
    assert_int_equal(unsetenv("TRILANE_ACK_WAIT_MS"), 0);
    assert_int_equal(unsetenv("TRILANE_ACK_WAIT"), 0);
    check_value(ARGS("--envelope=1MiB"), "envelope-bytes", "1MiB");
    assert_int_equal(limits.envelope_bytes, 1 << 20);
    check_refused(ARGS("--ack-wait=1MiB"),
                  "command line: ack_wait_ms is \"1MiB\"; expected a whole "
                  "number of ms from 100 to 3600000");
    check_refused(
        ARGS("--ack-wait=5124095576030432h"),
        "command line: ack_wait_ms is \"5124095576030432h\"; expected a whole number of ms "
        "from 100 to 3600000");
    check_refused(ARGS("--max-deliver=2s"), "command line: max_deliver is \"2s\"; expected a whole "
                                            "number of deliveries from 1 to 10000");
}

static void a_config_file_has_a_bound(void **state)
{
    (void)state;
    FILE *file = fopen(config_path, "we");
    assert_non_null(file);
    for (size_t i = 0; i < (1 << 20) / 64 + 1; i++) {
        assert_true(fprintf(file, "#%62d\n", 1) > 0);
    }
    assert_int_equal(fclose(file), 0);
    char sentence[256];
    (void)snprintf(sentence, sizeof(sentence), "--config %s: larger than 1 MiB", config_path);
    check_refused(ARGS("--config", config_path), sentence);
}

static void help_shows_rows_and_limits(void **state)
{
    (void)state;
    auto_buf struct buf out = BUF_MAX(1 << 20);
    const struct setting_row more[] = {{"m", "MESSAGE", "", "why", SETTING_TEXT}};
    assert_true(err_ok(settings_help(rows, ROWS, &out)));
    assert_true(err_ok(settings_help(more, 1, &out)));
    assert_true(err_ok(settings_help_limits(/* which= */ NULL, &out)));
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&out, &text)));
    assert_non_null(strstr(text, "--nats-urls URL,..."));
    assert_non_null(strstr(text, "(default nats://127.0.0.1:4222)"));
    assert_non_null(strstr(text, "\n  -m MESSAGE                     why\n"));
    assert_non_null(strstr(text, "--ack-wait-ms"));
    assert_non_null(strstr(text, "(default 30000, 100 to 3600000 ms)"));
}

/* Who is bounded by few of them shows these. */
static void help_shows_the_limits_that_are_meant(void **state)
{
    (void)state;
    auto_buf struct buf out = BUF_MAX(1 << 20);
    assert_true(err_ok(settings_help_limits("source-|policy-nodes", &out)));
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&out, &text)));
    assert_non_null(strstr(text, "--source-file-bytes"));
    assert_non_null(strstr(text, "--source-depth"));
    assert_non_null(strstr(text, "--policy-nodes"));
    assert_null(strstr(text, "--workers"));
    assert_null(strstr(text, "--ack-wait-ms"));
}

int main(void)
{
    int fd = mkstemp(config_path);
    if (fd < 0) {
        return 1;
    }
    (void)close(fd);
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_place_beats_the_one_below),
        TEST(the_last_flag_wins),
        TEST(flags_of_a_list_add_up),
        TEST(files_have_comments_and_quotes),
        TEST(arguments_are_left_over),
        TEST(switches_are_true_or_false),
        TEST(a_wrong_name_is_answered_by_the_nearest),
        TEST(what_is_missing_is_said),
        TEST(limits_are_settings_with_bounds),
        TEST(limits_go_by_their_short_names),
        TEST(a_config_file_has_a_bound),
        TEST(help_shows_rows_and_limits),
        TEST(help_shows_the_limits_that_are_meant),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(config_path);
    return failed;
}
