/* timeout: every unit and bound of grpc-timeout; what is sent never gives more than is left. */
#include "common/context/timeout.h"

#include "tests/support/cmocka.h"

static void grpc_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ns;
    } rows[] = {
        {"1n", 1},
        {"0n", 0},
        {"99999999n", 99999999},
        {"5u", 5000},
        {"100m", 100000000},
        {"2S", UINT64_C(2000000000)},
        {"3M", UINT64_C(180000000000)},
        {"1H", UINT64_C(3600000000000)},
        {"8760H", TIMEOUT_MAX_NS},
        {"8761H", TIMEOUT_MAX_NS},
        {"99999999H", TIMEOUT_MAX_NS},
        {"00000001S", UINT64_C(1000000000)},
    };
    static const char *const bad[] = {"",     "S",          "1",  "1s",  "1 S", "-1S",
                                      "1.5S", "123456789S", "S1", "1SS", "+1S"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t ns = 77;
        assert_int_equal(timeout_parse_grpc(slice_str(rows[i].text), &ns).code, E_OK);
        assert_true(ns == rows[i].ns);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t ns = 77;
        assert_int_equal(timeout_parse_grpc(slice_str(bad[i]), &ns).code, E_CONTEXT_INVALID);
        assert_true(ns == 77);
    }
}

static void milliseconds(void **state)
{
    (void)state;
    uint64_t ns = 0;
    char text[TIMEOUT_TEXT_MAX];
    assert_int_equal(timeout_parse_ms(SLICE_LIT("250"), &ns).code, E_OK);
    assert_true(ns == 250000000);
    assert_int_equal(timeout_parse_ms(SLICE_LIT("999999999999"), &ns).code, E_OK);
    assert_true(ns == TIMEOUT_MAX_NS);
    assert_int_equal(timeout_parse_ms(SLICE_LIT("1000000000000"), &ns).code, E_CONTEXT_INVALID);
    assert_int_equal(timeout_parse_ms(SLICE_LIT(""), &ns).code, E_CONTEXT_INVALID);
    assert_int_equal(timeout_parse_ms(SLICE_LIT("1ms"), &ns).code, E_CONTEXT_INVALID);
    assert_int_equal(timeout_format_ms(2999999, text), 1);
    assert_string_equal(text, "2");
    assert_int_equal(timeout_format_ms(0, text), 1);
    assert_string_equal(text, "1");
}

static void formats(void **state)
{
    (void)state;
    static const struct {
        uint64_t ns;
        const char *text;
    } rows[] = {
        {0, "1n"},
        {1, "1n"},
        {99999999, "99999999n"},
        {100000000, "100000u"},
        {UINT64_C(99999999999), "99999999u"},
        {UINT64_C(100000000000), "100000m"},
        {UINT64_C(100000000000000), "100000S"},
        {TIMEOUT_MAX_NS, "31536000S"},
        {UINT64_MAX, "31536000S"},
    };
    char text[TIMEOUT_TEXT_MAX];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(timeout_format_grpc(rows[i].ns, text), strlen(rows[i].text));
        assert_string_equal(text, rows[i].text);
    }
    for (uint64_t ns = 1; ns < TIMEOUT_MAX_NS; ns = ns * 7 / 2 + 1) {
        uint64_t back = 0;
        size_t size = timeout_format_grpc(ns, text);
        assert_int_equal(timeout_parse_grpc(slice_of(text, size), &back).code, E_OK);
        assert_true(back <= ns && ns - back <= ns / 10000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grpc_values),
        cmocka_unit_test(milliseconds),
        cmocka_unit_test(formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
