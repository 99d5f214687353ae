/* Proves the exit code of each kind of refusal, and that YAML says what JSON says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "controlplane/cli/cli.h"

static void refusals_have_their_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(cli_exit_of(E_OK), 0);
    assert_int_equal(cli_exit_of(E_SOURCE_INVALID), 1);
    assert_int_equal(cli_exit_of(E_BASE_CHANGED), 1);
    assert_int_equal(cli_exit_of(E_USAGE), 2);
    assert_int_equal(cli_exit_of(E_UNAVAILABLE), 3);
    assert_int_equal(cli_exit_of(E_BUS_UNAVAILABLE), 3);
    assert_int_equal(cli_exit_of(E_NOT_LEADER), 3);
    assert_int_equal(cli_exit_of(E_NOT_LIVE), 4);
}

static void check_yaml(const char *json, const char *yaml)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    struct buf text = BUF_MAX(4096);
    const char *got = NULL;
    assert_int_equal(cli_yaml(value, &text).code, E_OK);
    assert_int_equal(buf_cstr(&text, &got).code, E_OK);
    assert_string_equal(got, yaml);
    buf_free(&text);
    json_decref(value);
}

static void yaml_says_what_json_says(void **state)
{
    (void)state;
    check_yaml("{\"a\": 1, \"b\": \"no\", \"c\": true, \"d\": null}",
               "a: 1\nb: \"no\"\nc: true\nd: null\n");
    check_yaml("{\"a\": {\"b\": [1, {\"c\": []}]}}", "a:\n  b:\n    - 1\n    -\n      c: []\n");
    check_yaml("{}", "{}\n");
    check_yaml("[\"x: y\\n- z\"]", "- \"x: y\\n- z\"\n");
}

static void too_deep_is_refused(void **state)
{
    (void)state;
    json_t *value = json_array();
    for (int i = 0; i < 64; i++) {
        value = json_pack("[o]", value);
    }
    struct buf text = BUF_MAX(64 << 10);
    assert_int_equal(cli_yaml(value, &text).code, E_TOO_LARGE);
    buf_free(&text);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_have_their_exit_codes),
        cmocka_unit_test(yaml_says_what_json_says),
        cmocka_unit_test(too_deep_is_refused),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
