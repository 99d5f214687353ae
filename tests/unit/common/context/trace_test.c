/* trace: W3C Trace Context level 1; what is invalid starts a new trace and harms nothing. */
#include "common/context/trace.h"

#include "common/base/ids.h"

#include "tests/support/cmocka.h"

#define ID "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

/* Section 3.2, requirement by requirement. */
static void valid_ones(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint8_t flags;
    } good[] = {
        {"00-" ID "-" SPAN "-01", 1},
        {"00-" ID "-" SPAN "-00", 0},
        {"00-" ID "-" SPAN "-ff", 1}, /* flags that we do not know are left out. */
        {"00-" ID "-" SPAN "-02", 0},
        {"cc-" ID "-" SPAN "-01", 1}, /* a later version, as long as this one. */
        {"cc-" ID "-" SPAN "-01-more.of-it", 1},
        {"fe-" ID "-" SPAN "-01-", 1},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct trace t;
        char id[TRACE_ID_SIZE + 1];
        assert_true(trace_parse(slice_str(good[i].text), &t));
        trace_format_id(&t, id);
        assert_string_equal(id, ID);
        assert_int_equal(t.flags, good[i].flags);
    }
}

static void invalid_ones(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00-" ID "-" SPAN,
        "00-" ID "-" SPAN "-0",
        "00-" ID "-" SPAN "-01-",
        "00-" ID "-" SPAN "-01.",
        "cc-" ID "-" SPAN "-01x",
        "ff-" ID "-" SPAN "-01",
        "0x-" ID "-" SPAN "-01",
        "0A-" ID "-" SPAN "-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
        "00-" ID "-B7AD6B7169203331-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" ID "-0000000000000000-01",
        "00-" ID "-" SPAN "-0g",
        "00_" ID "-" SPAN "-01",
        "00-" ID "_" SPAN "-01",
        "00-" ID "-" SPAN "_01",
        " 00-" ID "-" SPAN "-01",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct trace t = {.flags = 77};
        bool known = true;
        assert_false(trace_parse(slice_str(bad[i]), &t));
        assert_int_equal(t.flags, 77);
        t = trace_accept(slice_str(bad[i]), (struct slice){0}, true, &known);
        assert_false(known);
        assert_int_equal(t.flags, TRACE_SAMPLED);
    }
}

static void what_is_sent_is_read(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        struct trace t = trace_new(i % 2 == 0);
        struct trace back;
        char text[TRACE_PARENT_SIZE + 1];
        trace_format(&t, text);
        assert_int_equal(strlen(text), TRACE_PARENT_SIZE);
        assert_true(trace_parse(slice_str(text), &back));
        assert_memory_equal(&t, &back, sizeof(t));
        struct trace child = trace_child(&t);
        assert_memory_equal(child.id, t.id, sizeof(t.id));
        assert_memory_not_equal(child.span, t.span, sizeof(t.span));
        assert_int_equal(child.flags, t.flags);
    }
}

static void derives_from_the_id(void **state)
{
    (void)state;
    struct trace t;
    bool known = false;
    char id[TRACE_ID_SIZE + 1];
    t = trace_accept(SLICE_LIT("no"), SLICE_LIT(ID), true, &known);
    assert_true(known);
    assert_int_equal(t.flags, 0);
    trace_format_id(&t, id);
    assert_string_equal(id, ID);
    t = trace_accept(SLICE_LIT("00-" ID "-" SPAN "-01"),
                     SLICE_LIT("11111111111111111111111111111111"), true, &known);
    trace_format_id(&t, id);
    assert_string_equal(id, ID); /* traceparent wins. */
    assert_false(trace_from_id(SLICE_LIT("0AF7651916CD43DD8448EB211C80319C"), &t));
    assert_false(trace_from_id(SLICE_LIT("0af7651916cd43dd8448eb211c80319"), &t));
    assert_false(trace_from_id(SLICE_LIT("00000000000000000000000000000000"), &t));
}

static void states(void **state)
{
    (void)state;
    static const char *const good[] = {"a=1",           "a=1,b=2",      "a=1 , ,b=2",
                                       "1t@vendor=x y", "a-b_c*d/e=!~", "a=1,"};
    static const char *const bad[] = {"",      ",",    "a",      "a=",    "=1",  "A=1",
                                      "a=b=c", "_a=1", "a=\x01", "a=1,b", "a =1"};
    char text[TRACE_STATE_MAX + 2];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(trace_state_valid(slice_str(good[i])));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(trace_state_valid(slice_str(bad[i])));
    }
    for (size_t i = 0; i < sizeof(text); i++) { /* "a=1,a=1,…": 32 members fit, 33 do not. */
        text[i] = "a=1,"[i % 4];
    }
    assert_true(trace_state_valid(slice_of(text, 4 * TRACE_STATE_MEMBERS)));
    assert_false(trace_state_valid(slice_of(text, 4 * TRACE_STATE_MEMBERS + 3)));
    memset(text, ' ', sizeof(text));
    text[0] = 'a';
    text[1] = '=';
    text[2] = '1';
    assert_true(trace_state_valid(slice_of(text, TRACE_STATE_MAX)));
    assert_false(trace_state_valid(slice_of(text, TRACE_STATE_MAX + 1)));
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_ones),
        cmocka_unit_test(invalid_ones),
        cmocka_unit_test(what_is_sent_is_read),
        cmocka_unit_test(derives_from_the_id),
        cmocka_unit_test(states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
