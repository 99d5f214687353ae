/* limits: at boot each limit has its default; names make legal flags and variables. */
#include "common/base/limits.h"

#include <stdbool.h>
#include <string.h>

#include "tests/support/cmocka.h"

static void defaults_hold_at_boot(void **state)
{
    (void)state;
#define X(name, dflt, min, max, unit, why) assert_int_equal(limits.name, dflt);
    LIMITS_LIST(X)
#undef X
}

static void names_and_texts_are_whole(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
#define X(name, dflt, min, max, unit, why) {#name, unit, why},
        LIMITS_LIST(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(strspn(rows[i][0], "abcdefghijklmnopqrstuvwxyz_"), strlen(rows[i][0]));
        assert_true(strlen(rows[i][0]) < 60);
        assert_true(strlen(rows[i][1]) > 0);
        assert_true(strlen(rows[i][2]) > 0);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(rows[i][0], rows[k][0]);
        }
    }
}

static void unit_of_time_stands_in_the_name(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
#define X(name, dflt, min, max, unit, why) {#name, unit},
        LIMITS_LIST(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *tail = strrchr(rows[i][0], '_');
        bool named = tail != NULL && strcmp(tail, "_ms") == 0;
        assert_int_equal(named, strcmp(rows[i][1], "ms") == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_at_boot),
        cmocka_unit_test(names_and_texts_are_whole),
        cmocka_unit_test(unit_of_time_stands_in_the_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
