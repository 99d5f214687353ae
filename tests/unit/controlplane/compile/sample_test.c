/*
 * sample: policies/ compiles, uses every kind, and every part of it decodes as a node decodes it;
 * and compiling is a pure function of the resources.
 */

#include "common/proto/strict.h"
#include "common/snapshot/parts.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

static void load_sample(struct fixture *f)
{
    auto_buf struct buf message = BUF_MAX(4096);
    char path[1024];
    (void)snprintf(path, sizeof(path), "%s/policies", getenv("TRILANE_SOURCE_DIR"));
    fixture_init(f);
    struct err e = cp_source_set_load(&f->set, path, &message);
    if (!err_ok(e)) {
        fail_msg("%.*s", SLICE_ARG(buf_slice(&message)));
    }
}

static void the_sample_compiles_and_decodes(void **state)
{
    (void)state;
    struct fixture f;
    load_sample(&f);
    fixture_compile(&f);
    assert_true(slice_eq(cp_compiled_environment(f.compiled), SLICE_LIT("demo")));
    size_t count = 0;
    bool kinds[64] = {false};
    const struct cp_part *parts = cp_compiled_parts(f.compiled, &count);
    for (size_t i = 0; i < count; i++) {
        const ProtobufCMessageDescriptor *type = part_message(parts[i].kind, parts[i].key);
        assert_non_null(type);
        ProtobufCMessage *message = NULL;
        assert_true(err_ok(part_decode(type, parts[i].bytes, &message)));
        proto_free(message);
        kinds[parts[i].kind] = true;
    }
    static const enum cp_part_kind wanted[] = {
        CP_PART_ROUTING, CP_PART_TRUST,     CP_PART_REVOCATIONS, CP_PART_AUTHORISATION,
        CP_PART_LIMITS,  CP_PART_TRANSPORT, CP_PART_EGRESS,      CP_PART_SCHEMAS,
        CP_PART_BUS,     CP_PART_POSITIONS};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        assert_true(kinds[wanted[i]]);
    }
    fixture_free(&f);
}

/* Same resources: files in another order, and a comment before each. */
static void compiling_is_pure(void **state)
{
    (void)state;
    struct fixture a;
    struct fixture b;
    load_sample(&a);
    fixture_compile(&a);
    fixture_init(&b);
    for (size_t i = a.set.count; i > 0; i--) {
        const struct cp_source_file *file = &a.set.files[i - 1];
        auto_buf struct buf bytes = BUF_MAX(1 << 20);
        bool yaml = slice_ends(file->name, SLICE_LIT(".yaml"));
        assert_true(err_ok(buf_add_str(&bytes, yaml ? "# another comment\n\n" : "")));
        assert_true(err_ok(buf_add(&bytes, file->bytes)));
        assert_true(err_ok(cp_source_set_add(&b.set, file->name, buf_slice(&bytes))));
    }
    fixture_compile(&b);
    size_t a_count = 0;
    size_t b_count = 0;
    size_t moved = 0;
    const struct cp_part *x = cp_compiled_parts(a.compiled, &a_count);
    const struct cp_part *y = cp_compiled_parts(b.compiled, &b_count);
    assert_int_equal(a_count, b_count);
    for (size_t i = 0; i < a_count; i++) {
        assert_int_equal(x[i].kind, y[i].kind);
        assert_true(slice_eq(x[i].key, y[i].key));
        if (x[i].kind == CP_PART_POSITIONS) {
            moved += !slice_eq(x[i].bytes, y[i].bytes);
        } else {
            assert_true(slice_eq(x[i].bytes, y[i].bytes));
        }
    }
    assert_true(moved > 0); /* the comments did move the resources */
    struct cp_diff diff;
    assert_true(err_ok(cp_diff_make(a.compiled, b.compiled, &diff)));
    assert_int_equal(diff.count, 0);
    assert_int_equal(diff.parts_added + diff.parts_changed + diff.parts_removed, 0);
    cp_diff_free(&diff);
    fixture_free(&a);
    fixture_free(&b);
}

/* Parts come in the order of the streams: kinds ascending, keys ascending, nothing twice. */
static void parts_are_in_order(void **state)
{
    (void)state;
    struct fixture f;
    load_sample(&f);
    fixture_compile(&f);
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(f.compiled, &count);
    for (size_t i = 1; i < count; i++) {
        assert_true(
            parts[i - 1].kind < parts[i].kind ||
            (parts[i - 1].kind == parts[i].kind && slice_cmp(parts[i - 1].key, parts[i].key) < 0));
    }
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sample_compiles_and_decodes),
        cmocka_unit_test(compiling_is_pure),
        cmocka_unit_test(parts_are_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
