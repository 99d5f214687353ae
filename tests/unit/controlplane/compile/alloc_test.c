/*
 * alloc: with the n-th allocation failing, for all n, a compile gives the very parts that it gives
 * with memory, or E_NO_MEMORY: never other graphs or a rule less, and never a word that the rules
 * are wrong or too many.
 */
#include <stdlib.h>
#include <string.h>

#include "controlplane/compile/compile.h"

#include "tests/support/cmocka.h"
#include "tests/support/failing_alloc.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { YAML_BYTES = 1 << 17 };

#define PLATFORM                                                                                   \
    FIXTURE_ENVIRONMENT                                                                            \
    "---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: orders, tenant: acme}\n"     \
    "spec: {}\n"                                                                                   \
    "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"           \
    "spec:\n  target: {service: orders}\n  rules:\n"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

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

/* Compiles with the n-th allocation failing. */
static void compile_without(struct fixture *f, const struct cp_model *model, unsigned long n)
{
    static const struct cp_compile_options options;
    struct cp_compiled *compiled = NULL;
    allocations = 0;
    failing = n;
    struct err e = cp_compile(model, &f->diags, &options, &compiled);
    failing = 0;
    if (err_ok(e)) {
        expect_same(compiled, f->compiled);
        cp_compiled_free(compiled);
    } else if (e.code != E_NO_MEMORY || f->diags.count + f->diags.dropped > 0) {
        fail_msg("allocation %lu: %s at %s, %zu diagnostics", n, err_name(e.code), e.where,
                 f->diags.count);
    }
}

/* Adds the sources, compiles them with memory, and with each allocation failing. */
static void compile_each(struct fixture *f, struct buf *yaml)
{
    static const struct cp_compile_options options;
    const char *text = NULL;
    struct cp_model *model = NULL;
    fixture_init(f);
    assert_true(err_ok(buf_cstr(yaml, &text)));
    fixture_add(f, "a.yaml", text);
    assert_true(err_ok(cp_source_load(&f->set, &f->diags, /* cache= */ NULL, &model)));
    allocations = 0;
    assert_true(err_ok(cp_compile(model, &f->diags, &options, &f->compiled)));
    unsigned long count = allocations;
    for (unsigned long n = 1; n <= count; n++) {
        compile_without(f, model, n);
    }
    print_message("%lu allocations\n", count);
    assert_true(count > 20);
    cp_model_free(model);
}

/* Rules that one graph is too small for: any may fit, and each asks for a header of its own. */
static void graphs_that_lack_memory_are_not_parted(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    ADD(&yaml, "%s", PLATFORM);
    for (int i = 0; i < 12; i++) {
        ADD(&yaml,
            "    - {name: r%d, effect: allow, methods: [\"*%c*\"], "
            "headers: [{name: x-h%d, present: true}]}\n",
            i, 'a' + i, i);
    }
    compile_each(&f, &yaml);
    const struct cp_part *part = fixture_part(&f, CP_PART_AUTHORISATION, "service/acme/orders");
    assert_non_null(part);
    Trilane__Parts__V1__PolicyTarget *target = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part->bytes.size, part->bytes.ptr);
    assert_non_null(target);
    assert_true(target->n_more_roots > 0);
    trilane__parts__v1__policy_target__free_unpacked(target, /* allocator= */ NULL);
    fixture_free(&f);
}

/* Conditions that fill blocks of the arena, of rules that deny. */
static void a_condition_that_lacks_memory_drops_no_rule(void **state)
{
    (void)state;
    struct fixture f;
    auto_buf struct buf yaml = BUF_MAX(YAML_BYTES);
    ADD(&yaml, "%s    - {name: all, effect: allow}\n", PLATFORM);
    for (int i = 0; i < 20; i++) {
        ADD(&yaml, "    - {name: r%d, effect: deny, condition: \"caller.tenant in [", i);
        for (int k = 0; k < 200; k++) {
            ADD(&yaml, "%s't%d-%d'", k == 0 ? "" : ",", i, k);
        }
        ADD(&yaml, "]\"}\n");
    }
    compile_each(&f, &yaml);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_that_lack_memory_are_not_parted),
        cmocka_unit_test(a_condition_that_lacks_memory_drops_no_rule),
    };
    return cmocka_run_group_tests_name("compile_alloc", tests, NULL, NULL);
}
