/*
 * alloc: with the n-th allocation failing, for all n, a compile gives the very parts that it gives
 * with memory, or E_NO_MEMORY: never other graphs, and never a word that the rules are too many.
 */
#include <stdlib.h>
#include <string.h>

#include "controlplane/compile/compile.h"

#include "tests/support/cmocka.h"
#include "tests/support/failing_alloc.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { YAML_BYTES = 1 << 16, RULES = 12 };

/* Rules that one graph is too small for: whichever fit, and each asks for a header of its own. */
static void add_sources(struct fixture *f)
{
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    const char *text = NULL;
    assert_true(err_ok(buf_add_str(
        &yaml, FIXTURE_ENVIRONMENT
        "---\napiVersion: trilane.dev/v1\nkind: Service\n"
        "metadata: {name: orders, tenant: acme}\nspec: {}\n"
        "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
        "spec:\n  target: {service: orders}\n  rules:\n")));
    for (int i = 0; i < RULES; i++) {
        assert_true(err_ok(buf_addf(&yaml,
                                    "    - {name: r%d, effect: allow, methods: [\"*%c*\"], "
                                    "headers: [{name: x-h%d, present: true}]}\n",
                                    i, 'a' + i, i)));
    }
    assert_true(err_ok(buf_cstr(&yaml, &text)));
    fixture_add(f, "a.yaml", text);
}

static void expect_several_graphs(const struct fixture *f)
{
    const struct cp_part *part = fixture_part(f, CP_PART_AUTHORISATION, "service/acme/orders");
    assert_non_null(part);
    Trilane__Parts__V1__PolicyTarget *target = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part->bytes.size, part->bytes.ptr);
    assert_non_null(target);
    assert_true(target->n_more_roots > 0);
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
}

static void expect_same(const struct cp_compiled *compiled, const struct cp_compiled *wanted)
{
    size_t count = 0;
    size_t wanted_count = 0;
    const struct cp_part *parts = cp_compiled_parts(compiled, &count);
    const struct cp_part *wanted_parts = cp_compiled_parts(wanted, &wanted_count);
    assert_int_equal(count, wanted_count);
    for (size_t i = 0; i < count; i++) {
        assert_true(slice_eq(parts[i].key, wanted_parts[i].key));
        assert_true(slice_eq(parts[i].bytes, wanted_parts[i].bytes));
    }
}

static void without_memory_there_is_no_other_content(void **state)
{
    (void)state;
    static const struct cp_compile_options options;
    struct fixture f;
    struct cp_model *model = NULL;
    fixture_init(&f);
    add_sources(&f);
    assert_true(err_ok(cp_source_load(&f.set, &f.diags, /* cache= */ NULL, &model)));
    allocations = 0;
    assert_true(err_ok(cp_compile(model, &f.diags, &options, &f.compiled)));
    unsigned long count = allocations;
    expect_several_graphs(&f);
    unsigned long refused = 0;
    for (unsigned long n = 1; n <= count; n++) {
        struct cp_compiled *compiled = NULL;
        allocations = 0;
        failing = n;
        struct err e = cp_compile(model, &f.diags, &options, &compiled);
        failing = 0;
        if (err_ok(e)) {
            expect_same(compiled, f.compiled);
            cp_compiled_free(compiled);
            continue;
        }
        if (e.code != E_NO_MEMORY || f.diags.count + f.diags.dropped > 0) {
            fail_msg("allocation %lu of %lu: %s at %s, %zu diagnostics", n, count, err_name(e.code),
                     e.where, f.diags.count);
        }
        refused++;
    }
    print_message("%lu allocations, %lu refusals\n", count, refused);
    assert_true(refused > count / 2);
    cp_model_free(model);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory_there_is_no_other_content),
    };
    return cmocka_run_group_tests_name("compile_alloc", tests, NULL, NULL);
}
