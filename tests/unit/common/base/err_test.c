/* err: each cause is found by its name and has a status that its protocols know; TRY passes the
 * first failure on untouched. */
#include "common/base/err.h"

#include <string.h>

#include "tests/support/cmocka.h"

static void every_row_is_whole(void **state)
{
    (void)state;
    for (int i = 0; i < E_COUNT; i++) {
        enum err_code code = (enum err_code)i;
        enum err_code found = E_COUNT;
        assert_true(err_find(err_name(code), &found));
        assert_int_equal(found, code);
        assert_in_range(err_grpc_status(code), 0, 16);
        assert_in_range(err_http_status(code), 200, 599);
        assert_true(strlen(err_text(code)) > 0);
    }
}

static void only_success_is_nobodys_fault(void **state)
{
    (void)state;
    assert_int_equal(err_fault(E_OK), ERR_FAULT_NOBODY);
    assert_int_equal(err_grpc_status(E_OK), 0);
    for (int i = E_OK + 1; i < E_COUNT; i++) {
        assert_int_not_equal(err_fault((enum err_code)i), ERR_FAULT_NOBODY);
        assert_int_not_equal(err_grpc_status((enum err_code)i), 0);
        assert_true(err_http_status((enum err_code)i) >= 400);
    }
}

static void names_are_capitals(void **state)
{
    (void)state;
    for (int i = 0; i < E_COUNT; i++) {
        const char *name = err_name((enum err_code)i);
        assert_int_equal(strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"), strlen(name));
    }
}

static void unknown_name_is_not_found(void **state)
{
    (void)state;
    enum err_code found = E_TIMEOUT;
    assert_false(err_find("NO_SUCH_CODE", &found));
    assert_false(err_find("", &found));
    assert_false(err_find("policy_denied", &found));
    assert_int_equal(found, E_TIMEOUT);
}

static MUST_CHECK struct err inner(bool fails)
{
    return fails ? FAIL(E_CONFLICT) : OK;
}

static MUST_CHECK struct err outer(bool fails, int *reached)
{
    TRY(inner(fails));
    *reached = 1;
    return OK;
}

static void try_keeps_cause_and_birthplace(void **state)
{
    (void)state;
    int reached = 0;
    struct err err = outer(true, &reached);
    assert_int_equal(err.code, E_CONFLICT);
    assert_non_null(strstr(err.where, "err_test.c:"));
    assert_int_equal(reached, 0);
    err = outer(false, &reached);
    assert_true(err_ok(err));
    assert_null(err.where);
    assert_int_equal(reached, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_whole),
        cmocka_unit_test(only_success_is_nobodys_fault),
        cmocka_unit_test(names_are_capitals),
        cmocka_unit_test(unknown_name_is_not_found),
        cmocka_unit_test(try_keeps_cause_and_birthplace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
