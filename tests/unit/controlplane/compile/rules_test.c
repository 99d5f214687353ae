/*
 * rules: one rule at the bounds of what it may say compiles, and past them is refused where it says
 * too much: windows, and headers that are there twice. What fits nothing is refused but where it
 * was published before.
 */
#include <stdio.h>
#include <string.h>

#include "controlplane/compile/reuse.h"
#include "controlplane/source/cel.h"
#include "controlplane/source/schedule.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { YAML_BYTES = 1 << 16 };

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

static const char platform[] = FIXTURE_ENVIRONMENT
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: orders, tenant: acme}\n"
    "spec: {}\n"
    "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
    "spec:\n  target: {service: orders}\n  rules:\n    - name: r\n      effect: allow\n";

/* Sources with one rule, which says this besides its name and effect. */
static void add_rule(struct fixture *f, struct slice says)
{
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    const char *text = NULL;
    fixture_init(f);
    ADD(&yaml, "%s%.*s", platform, SLICE_ARG(says));
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_add(f, "a.yaml", text);
}

/* ---- windows ---- */

/* On each day 'count' windows that begin before midnight and end after it, none within another. */
static void add_nights(struct buf *out, int count)
{
    ADD(out, "      windows:\n");
    for (int i = 0; i < count; i++) {
        ADD(out, "        - {from: \"23:%02d\", to: \"00:%02d\"}\n", i, i + 1);
    }
}

static void all_windows_of_a_rule_may_pass_midnight(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf says = BUF_MAX(YAML_BYTES);
    add_nights(&says, CP_WINDOWS_MAX);
    add_rule(&f, buf_slice(&says));
    fixture_compile(&f);
    const struct cp_part *part = fixture_part(&f, CP_PART_AUTHORISATION, "service/acme/orders");
    assert_non_null(part);
    Trilane__Parts__V1__PolicyTarget *target = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part->bytes.size, part->bytes.ptr);
    assert_non_null(target);
    assert_int_equal(target->n_schedules, 1);
    const Trilane__Parts__V1__Schedule *schedule = target->schedules[0];
    assert_int_equal(schedule->n_from, 8); /* the night from Sunday to Monday is two. */
    assert_int_equal(schedule->from[0], 0);
    assert_int_equal(schedule->to[0], CP_WINDOWS_MAX);
    assert_int_equal(schedule->from[7], CP_WEEK_MINUTES - 60);
    assert_int_equal(schedule->to[7], CP_WEEK_MINUTES);
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

static void more_windows_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf says = BUF_MAX(YAML_BYTES);
    add_nights(&says, CP_WINDOWS_MAX + 1);
    add_rule(&f, buf_slice(&says));
    fixture_refuse(&f, CP_DIAG_OUT_OF_BOUND);
    assert_int_equal(f.diags.count, 1);
    assert_true(slice_eq(f.diags.items[0]->expected, SLICE_LIT("1 to 16")));
    fixture_free(&f);
}

/* Expects that a rule with this window is refused in this column and for nothing else; code 0: that
 * it is not. */
static void expect_window(const char *window, enum cp_diag_code code, uint32_t column)
{
    struct fixture f;
    auto_buf struct buf says = BUF_MAX(YAML_BYTES);
    ADD(&says, "      windows: [%s]\n", window);
    add_rule(&f, buf_slice(&says));
    if (code == 0) {
        fixture_compile(&f);
    } else {
        fixture_refuse(&f, code);
        assert_int_equal(f.diags.count, 1);
        assert_int_equal(f.diags.items[0]->at.column, column);
    }
    fixture_free(&f);
}

static void a_window_without_a_minute_is_refused(void **state)
{
    (void)state;
    expect_window("{from: \"24:00\", to: \"00:00\"}", CP_DIAG_WINDOW_EMPTY, 37);
    expect_window("{from: \"24:00\", to: \"24:00\"}", CP_DIAG_WINDOW_EMPTY, 37);
    expect_window("{from: \"00:00\", to: \"00:00\"}", CP_DIAG_WINDOW_EMPTY, 37);
    expect_window("{from: \"24:00\", to: \"00:01\"}", 0, 0);
    expect_window("{from: \"00:00\", to: \"24:00\"}", 0, 0);
    expect_window("{from: \"23:59\", to: \"00:00\"}", 0, 0);
}

/* ---- headers ---- */

/* As many tests of one header as a condition has, beside the header itself, again and again. */
static void a_header_that_is_there_twice_is_refused(void **state)
{
    enum { HEADERS = 16 };
    (void)state;
    struct fixture f;
    auto_buf struct buf says = BUF_MAX(YAML_BYTES);
    ADD(&says, "      headers:\n");
    for (int i = 0; i < HEADERS; i++) {
        ADD(&says, "        - {name: x-a, value: v%d}\n", i);
    }
    ADD(&says, "      condition: \"");
    for (int i = 0; i < CP_CEL_ALL_MAX; i++) {
        ADD(&says, "%srequest.headers['x-a'].contains('%c')", i == 0 ? "" : " && ", 'a' + i);
    }
    ADD(&says, "\"\n");
    add_rule(&f, buf_slice(&says));
    fixture_refuse(&f, CP_DIAG_DUPLICATE_VALUE);
    assert_int_equal(f.diags.count, HEADERS - 1);
    for (size_t i = 0; i < f.diags.count; i++) {
        const struct cp_diag *diag = f.diags.items[i];
        assert_int_equal(diag->code, CP_DIAG_DUPLICATE_VALUE);
        assert_int_equal(diag->at.line, diag->other.line + 1 + i);
        assert_int_equal(diag->at.column, 18);
    }
    fixture_free(&f);
}

/* ---- main ---- */

/* ---- what would fit nothing ---- */

/*
 * Sources that were published compile with what a later release refuses, so that they can be
 * compared with; and having done so does not prove them: published anew they are refused.
 */
static void what_was_published_compiles_with_what_fits_nothing(void **state)
{
    (void)state;
    struct cp_reuse *reuse = NULL;
    assert_true(err_ok(cp_reuse_new(&reuse)));
    for (int round = 0; round < 4; round++) {
        struct fixture f;
        bool published = round % 2 == 0;
        const struct cp_compile_options options = {.reuse = reuse, .inventory = true};
        add_rule(&f, SLICE_LIT("      verbs: [publish]\n      methods: [Get]\n"
                               "      condition: \"'x-trilane-code' in request.headers\"\n"));
        f.diags.published = published;
        struct err e = cp_compile_set(&f.set, &f.diags, &options, &f.compiled);
        assert_int_equal(e.code, published ? E_OK : E_SOURCE_INVALID);
        assert_int_equal(f.diags.count, published ? 0 : 3);
        assert_int_equal(f.diags.passed_over, published ? 3 : 0);
        for (size_t i = 0; i < f.diags.count; i++) {
            assert_int_equal(f.diags.items[i]->code, CP_DIAG_FITS_NOTHING);
        }
        fixture_free(&f);
    }
    cp_reuse_free(reuse);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_published_compiles_with_what_fits_nothing),
        cmocka_unit_test(all_windows_of_a_rule_may_pass_midnight),
        cmocka_unit_test(more_windows_are_refused),
        cmocka_unit_test(a_window_without_a_minute_is_refused),
        cmocka_unit_test(a_header_that_is_there_twice_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
