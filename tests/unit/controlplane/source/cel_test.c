/* cel: what is a condition and what it means once in normal form; what is none, and where; and its
 * bounds. */
#include "controlplane/source/cel.h"

#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/ids.h"

#include "tests/support/cmocka.h"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

static void add_texts(struct buf *out, const struct slice *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ADD(out, "%s%.*s", i == 0 ? "" : ",", SLICE_ARG(texts[i]));
    }
}

static void add_schedule(struct buf *out, const struct cp_schedule *schedule)
{
    for (size_t i = 0; i < schedule->count && i < 2; i++) {
        ADD(out, "%s%u-%u", i == 0 ? "@" : ",", schedule->spans[i].from, schedule->spans[i].to);
    }
    ADD(out, "%s", schedule->count > 2 ? ",…" : "");
    if (schedule->not_after_ms != 0) {
        ADD(out, "<%llu", (unsigned long long)schedule->not_after_ms);
    }
}

/* "caller=a,b&!header.x~v*|…": = exact, ~ globs, ? presence, ! negated. */
static void add_test(struct buf *out, const struct cp_cel_test *test)
{
    static const char *const names[] = {"caller", "tenant", "domain", "trait", "method",
                                        "header", "lane",   "verb",   "time"};
    ADD(out, "%s%s", test->negate ? "!" : "", names[test->attribute]);
    if (test->name.size > 0) {
        ADD(out, ".%.*s", SLICE_ARG(test->name));
    }
    if (test->presence) {
        ADD(out, "?");
        return;
    }
    if (test->measure != CP_CEL_ITSELF) {
        ADD(out, "%s[%lld..%lld]", test->measure == CP_CEL_INT ? "#" : ".size",
            (long long)test->least, (long long)test->most);
        return;
    }
    if (test->attribute == CP_CEL_TIME) {
        add_schedule(out, test->schedule);
        return;
    }
    ADD(out, "%s", test->glob_count > 0 ? "~" : "=");
    add_texts(out, test->exact, test->exact_count);
    add_texts(out, test->globs, test->glob_count);
}

static void normal(const char *text, struct buf *out, struct cp_cel_fault *out_fault)
{
    auto_arena struct arena arena;
    struct cp_cel cel = {0};
    arena_init(&arena, 4096, 16 << 20);
    assert_true(err_ok(cp_cel_parse(slice_str(text), &arena, &cel, out_fault)));
    for (size_t i = 0; i < cel.count; i++) {
        ADD(out, "%s", i == 0 ? "" : " | ");
        for (size_t k = 0; k < cel.any[i].count; k++) {
            ADD(out, "%s", k == 0 ? "" : " & ");
            add_test(out, cel.any[i].tests[k]);
        }
        if (cel.any[i].count == 0) {
            ADD(out, "true");
        }
    }
    if (cel.count == 0) {
        ADD(out, "false");
    }
}

struct form {
    const char *text;
    const char *normal;
};

static void have_normal_forms(const struct form *forms, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        auto_buf struct buf got = BUF_MAX(4096);
        struct cp_cel_fault fault = {0};
        const char *text = NULL;
        normal(forms[i].text, &got, &fault);
        assert_true(err_ok(buf_cstr(&got, &text)));
        if (fault.message != NULL) {
            fail_msg("%s: %s at %zu", forms[i].text, fault.message, fault.at);
        }
        assert_string_equal(text, forms[i].normal);
    }
}

static void texts_have_a_normal_form(void **state)
{
    (void)state;
    static const struct form forms[] = {
        {"caller.id == 'acme/web'", "caller=acme/web"},
        {"'acme/web' != caller.id", "!caller=acme/web"},
        {"caller.tenant in ['b', \"a\"]", "tenant=b,a"},
        {"caller.tenant in []", "tenant="},
        {"!(lane == 'operator' && verb == 'call')", "!lane=operator | !verb=call"},
        {"!!(lane == 'proxy')", "lane=proxy"},
        {"lane == 'proxy' || verb == 'call' && caller.id == 'a'",
         "lane=proxy | verb=call & caller=a"},
        {"(lane == 'proxy' || verb == 'call') && caller.id == 'a'",
         "lane=proxy & caller=a | verb=call & caller=a"},
        {"request.headers['x-a'].startsWith('v')", "header.x-a~v*"},
        {"request.headers.team.endsWith('v')", "header.team~*v"},
        {"!request.method.contains('Get')", "!method~*Get*"},
        {"'x-a' in request.headers", "header.x-a?"},
        {"!('team' in caller.traits)", "!trait.team?"},
        {"caller.traits['a b'] == 'c\\'d\\\\'", "trait.a b=c'd\\"},
        {"caller.service == 'web'", "!caller~*#* & caller~*/web"},
        {"caller.service.startsWith('we')", "!caller~*#* & caller~*/we*"},
        {"caller.service != 'web'", "caller~*#* | !caller~*/web"},
        {"request.service == 'a.S'", "lane=operator & method~/a.S/*"},
        {"request.service != 'a.S'", "!lane=operator | !method~/a.S/*"},
        {"type == 'User.v1'", "lane=canonical & method=User.v1"},
        {"caller.trustDomain == 'x'", "domain=x"},
        {"true", "true"},
        {"false", "false"},
        {"!true || lane == 'proxy'", "lane=proxy"},
        {"true || lane == 'proxy'", "true | lane=proxy"},
        {"false && lane == 'proxy'", "false"},
        {" \n\tlane\n==\t'proxy' ", "lane=proxy"},
    };
    have_normal_forms(forms, sizeof(forms) / sizeof(forms[0]));
}

#define LEAST "-9223372036854775808"
#define MOST "9223372036854775807"

static void numbers_and_times_have_a_normal_form(void **state)
{
    (void)state;
    static const struct form forms[] = {
        {"int(request.headers['x-n']) <= 3", "header.x-n#[" LEAST "..3]"},
        {"int(request.headers['x-n']) < 3", "header.x-n#[" LEAST "..2]"},
        {"int(caller.traits.level) >= 3", "!trait.level#[" LEAST "..2]"},
        {"int(caller.traits.level) > -3", "!trait.level#[" LEAST "..-3]"},
        {"3 < int(caller.traits.level)", "!trait.level#[" LEAST "..3]"},
        {"-3 >= int(caller.traits.level)", "trait.level#[" LEAST "..-3]"},
        {"int(caller.traits.level) == 7", "trait.level#[7..7]"},
        {"7 != int(caller.traits.level)", "!trait.level#[7..7]"},
        {"!(int(caller.traits.level) != 7)", "trait.level#[7..7]"},
        {"int(caller.traits.a) < " LEAST, "!trait.a#[" LEAST ".." MOST "]"},
        {"int(caller.traits.a) >= " LEAST, "trait.a#[" LEAST ".." MOST "]"},
        {"int(caller.traits.a) <= " MOST, "trait.a#[" LEAST ".." MOST "]"},
        {"size(request.method) < 65", "method.size[" LEAST "..64]"},
        {"request.method.size() < 65", "method.size[" LEAST "..64]"},
        {"64 >= caller.id.size()", "caller.size[" LEAST "..64]"},
        {"request.time < timestamp('2026-01-01T00:00:00Z')", "time<1767225600000"},
        {"request.time <= timestamp('2026-01-01T00:00:00Z')", "time<1767225600001"},
        {"timestamp('2026-01-01T00:00:00Z') <= request.time", "!time<1767225600000"},
        {"request.time > timestamp('2026-01-01T00:00:00Z')", "!time<1767225600001"},
        {"request.time.getHours() < 1", "time@0-60,1440-1500,…"},
        {"request.time.getHours('+01:00') == 1", "time@0-60,1440-1500,…"},
        {"23 == request.time.getHours('+01:00')", "time@1320-1380,2760-2820,…"},
        {"request.time.getDayOfWeek() == 1", "time@0-1440"},
        {"request.time.getDayOfWeek() < 1", "time@8640-10080"},
        {"request.time.getDayOfWeek() != 0", "!time@8640-10080"},
        {"request.time.getDayOfWeek() <= 6", "true"},
        {"request.time.getHours() > 23", "false"},
        {"request.time.getHours() != 24", "true"},
    };
    have_normal_forms(forms, sizeof(forms) / sizeof(forms[0]));
}

struct mistake {
    const char *text;
    size_t at;
};

static void are_found(const struct mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        auto_buf struct buf got = BUF_MAX(4096);
        struct cp_cel_fault fault = {0};
        normal(mistakes[i].text, &got, &fault);
        if (fault.message == NULL || fault.at != mistakes[i].at) {
            fail_msg("%s: \"%s\" at %zu, not at %zu", mistakes[i].text,
                     fault.message == NULL ? "" : fault.message, fault.at, mistakes[i].at);
        }
        assert_int_equal(fault.secret, strstr(mistakes[i].text, "cookie") != NULL);
        assert_false(fault.too_large);
    }
}

static void says_what_is_wrong_and_where(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"", 0},
        {"   ", 3},
        {"lane", 4},
        {"lane = 'proxy'", 5},
        {"lane == proxy", 8},
        {"lane == 'operater'", 8},
        {"lane == 'proxy", 8},
        {"lane == 'pr\\oxy'", 11},
        {"lane == 'proxy' &", 16},
        {"lane == 'proxy' && ", 19},
        {"lane == 'proxy' lane", 16},
        {"lane == 'proxy')", 15},
        {"(lane == 'proxy'", 16},
        {"caller == 'a'", 7},
        {"caller.nobody == 'a'", 0},
        {"caller.id < 'a'", 10},
        {"caller.id.size() === 3", 19},
        {"caller.id.startsWith 'a'", 21},
        {"caller.id.startsWith('a'", 24},
        {"caller.id.startsWith('')", 21},
        {"caller.id.contains('a?')", 19},
        {"caller.traits == 'a'", 0},
        {"request.headers['X-A'] == 'a'", 16},
        {"request.headers['x-a' == 'a'", 22},
        {"request.headers['cookie'] == 'a'", 29},
        {"'a' in caller.id", 7},
        {"'a' in ['a']", 7},
        {"'a' == 'b'", 7},
        {"caller.id in ['a' 'b']", 18},
        {"caller.id in caller.traits", 13},
        {"caller.service == 'a/b'", 18},
        {"caller.id == 'a\001'", 15},
        {"1 == 2", 5},
        {"caller.id == 'a' ? true : false", 17},
    };
    are_found(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

static void says_what_is_wrong_with_numbers_and_times(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"1 < caller.id", 4},
        {"int(caller.id) < 'a'", 17},
        {"int(caller.id) < 9223372036854775808", 17},
        {"int(caller.id) < --1", 18},
        {"int(caller.id)", 14},
        {"int(lane) < 1", 4},
        {"int(caller.service) < 1", 4},
        {"size(caller.traits) < 1", 5},
        {"size() < 1", 5},
        {"size(request.headers['cookie']) < 1", 5},
        {"request.time < 1", 15},
        {"request.time == timestamp('2026-01-01T00:00:00Z')", 16},
        {"request.time < timestamp('2026-02-30T00:00:00Z')", 25},
        {"request.time < timestamp('2026-01-01T00:00:00+01:00')", 25},
        {"request.time.getMinutes() < 1", 13},
        {"request.time.getHours('Europe/Vienna') < 1", 22},
        {"request.time.getHours() in ['1']", 24},
        {"request.time.getHours() < timestamp('2026-01-01T00:00:00Z')", 26},
        {"'a' == request.time", 7},
        {"timestamp('2026-01-01T00:00:00Z') < int(caller.id)", 0},
    };
    are_found(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* 'count' times 'piece' between a front and an end. */
static void repeat(struct buf *out, const char *front, const char *piece, int count,
                   const char *end)
{
    buf_clear(out);
    ADD(out, "%s", front);
    for (int i = 0; i < count; i++) {
        ADD(out, "%s", piece);
    }
    ADD(out, "%s", end);
}

static void fits(struct buf *text, bool wanted)
{
    auto_buf struct buf got = BUF_MAX(1 << 20);
    struct cp_cel_fault fault = {0};
    const char *cstr = NULL;
    assert_true(err_ok(buf_cstr(text, &cstr)));
    normal(cstr, &got, &fault);
    assert_int_equal(fault.message == NULL, wanted);
    assert_int_equal(fault.too_large, !wanted);
}

static void is_bounded(void **state)
{
    (void)state;
    auto_buf struct buf text = BUF_MAX(1 << 20);
    repeat(&text, "true", " ", CP_CEL_BYTES_MAX - 4, "");
    fits(&text, true);
    repeat(&text, "true", " ", CP_CEL_BYTES_MAX - 3, "");
    fits(&text, false);
    repeat(&text, "", "(", CP_CEL_DEPTH_MAX, "true");
    for (int i = 0; i < CP_CEL_DEPTH_MAX; i++) {
        ADD(&text, ")");
    }
    fits(&text, true);
    repeat(&text, "", "(", CP_CEL_DEPTH_MAX + 1, "true");
    fits(&text, false);
    repeat(&text, "caller.id == '", "a", CP_CEL_TEXT_MAX, "'");
    fits(&text, true);
    repeat(&text, "caller.id == '", "a", CP_CEL_TEXT_MAX + 1, "'");
    fits(&text, false);
    repeat(&text, "caller.id in ['a'", ",'a'", CP_CEL_LIST_MAX - 1, "]");
    fits(&text, true);
    repeat(&text, "caller.id in ['a'", ",'a'", CP_CEL_LIST_MAX, "]");
    fits(&text, false);
    repeat(&text, "lane=='proxy'", "||lane=='proxy'", CP_CEL_ANY_MAX - 1, "");
    fits(&text, true);
    repeat(&text, "lane=='proxy'", "||lane=='proxy'", CP_CEL_ANY_MAX, "");
    fits(&text, false);
    repeat(&text, "lane=='proxy'", "&&lane=='proxy'", CP_CEL_ALL_MAX - 1, "");
    fits(&text, true);
    repeat(&text, "lane=='proxy'", "&&lane=='proxy'", CP_CEL_ALL_MAX, "");
    fits(&text, false);
    repeat(&text, "true", "&&(true||false)", 100, ""); /* nodes, before the normal form. */
    fits(&text, false);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_have_a_normal_form),
        cmocka_unit_test(numbers_and_times_have_a_normal_form),
        cmocka_unit_test(says_what_is_wrong_and_where),
        cmocka_unit_test(says_what_is_wrong_with_numbers_and_times),
        cmocka_unit_test(is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
