/*
 * revocations: they are a stream of their own, entry by entry, and nothing else changes by them;
 * what lifts one is shown as loosening; another version's take their place.
 */
#include "common/snapshot/format.h"
#include "controlplane/compile/compile.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"

#define REVOCATION(name, spec)                                                                     \
    "---\napiVersion: trilane.dev/v1\nkind: Revocation\nmetadata: {name: " name "}\nspec: {" spec  \
    "}\n"
#define TOKEN "0100000000000000000000000000000000000000000000000000000000000002"

static void make(struct fixture *f, const char *more)
{
    fixture_init(f);
    fixture_add(f, "platform.yaml", FIXTURE_ENVIRONMENT);
    fixture_add(f, "revoked.yaml", more);
    fixture_compile(f);
}

/* Keys of the stream, in order, with spaces between. */
static void expect_keys(const struct fixture *f, const char *wanted)
{
    auto_buf struct buf keys = BUF_MAX(4096);
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(f->compiled, &count);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind == CP_PART_REVOCATIONS) {
            assert_int_equal(parts[i].bytes.size, 0);
            assert_true(err_ok(
                buf_addf(&keys, "%s%.*s", keys.size > 0 ? " " : "", SLICE_ARG(parts[i].key))));
        }
    }
    if (!slice_eq(buf_slice(&keys), slice_str(wanted))) {
        fail_msg("%.*s, not %s", SLICE_ARG(buf_slice(&keys)), wanted);
    }
}

static bool has_capability(const struct fixture *f)
{
    return (cp_compiled_capabilities(f->compiled) & (uint64_t)CAPABILITY_REVOCATIONS) != 0;
}

static bool revokes_subjects(const struct fixture *f)
{
    return (cp_compiled_capabilities(f->compiled) & (uint64_t)CAPABILITY_REVOKED_SUBJECTS) != 0;
}

/* Bytes of the part of a certificate: empty unless it says until when. */
static size_t bytes_of(const struct fixture *f, const char *key)
{
    const struct cp_part *part = fixture_part(f, CP_PART_REVOCATIONS, key);
    assert_non_null(part);
    return part->bytes.size;
}

static void a_removed_nodes_certificate_says_until_when(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, REVOCATION("a", "certificates: ['40aa', '40bb']")
                 REVOCATION("b", "removedUntilMs: 3600000, certificates: ['40BB', '40cc'],"
                                 " types: [Order.v2]")
                     REVOCATION("c", "removedUntilMs: 1, certificates: ['40bb']"));
    assert_int_equal(bytes_of(&f, "certificate/40aa"), 0);
    assert_int_equal(bytes_of(&f, "type/Order.v2"), 0); /* certificates alone have an end. */
    assert_int_equal(bytes_of(&f, "certificate/40bb"), bytes_of(&f, "certificate/40cc"));
    assert_true(bytes_of(&f, "certificate/40cc") > 0);
    fixture_free(&f);
}

static void each_entry_is_a_part(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, REVOCATION("stolen", "reason: laptop stolen,"
                                  " identities: ['spiffe://test.example/tenant/acme/service/web'],"
                                  " certificates: ['0A1B', '00ff', '00'], tokens: ['blake2b:" TOKEN
                                  "'], types: [Order.v2, Nothing.v9]"));
    expect_keys(&f, "certificate/00 certificate/0a1b certificate/ff "
                    "identity/spiffe://test.example/tenant/acme/service/web token/" TOKEN
                    " type/Nothing.v9 type/Order.v2");
    assert_true(has_capability(&f));
    assert_false(revokes_subjects(&f));
    assert_non_null(fixture_part(&f, CP_PART_POSITIONS, "Revocation/-/stolen"));
    fixture_free(&f);
}

static void subjects_need_a_node_that_knows_them(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, REVOCATION("gone", "subjects: ['https://id.example.com#alice'], types: [Order.v2]"));
    expect_keys(&f, "subject/https://id.example.com#alice type/Order.v2");
    assert_true(has_capability(&f));
    assert_true(revokes_subjects(&f));
    fixture_free(&f);
}

static void without_any_there_is_no_stream(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, "");
    expect_keys(&f, "");
    assert_false(has_capability(&f));
    fixture_free(&f);
}

static void several_may_list_the_same(void **state)
{
    (void)state;
    struct fixture f;
    struct fixture other_order;
    make(&f, REVOCATION("a", "types: [Order.v2], certificates: ['0A']")
                 REVOCATION("b", "types: [Order.v2], certificates: ['0a'], reason: again"));
    make(&other_order, REVOCATION("b", "reason: again, certificates: ['0a'], types: [Order.v2]")
                           REVOCATION("a", "certificates: ['0A'], types: [Order.v2]"));
    expect_keys(&f, "certificate/0a type/Order.v2");
    expect_keys(&other_order, "certificate/0a type/Order.v2");
    fixture_free(&f);
    fixture_free(&other_order);
}

static void what_is_no_entry_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        enum cp_diag_code code;
    } rows[] = {
        {"reason: nothing in it", CP_DIAG_CHOICE},
        {"certificates: ['0']", CP_DIAG_FORMAT_INVALID},
        {"certificates: ['0a:1b']", CP_DIAG_FORMAT_INVALID},
        {"certificates: ['000102030405060708090a0b0c0d0e0f1011121314']", CP_DIAG_FORMAT_INVALID},
        {"identities: ['http://x/y']", CP_DIAG_FORMAT_INVALID},
        {"tokens: ['a-token-in-clear']", CP_DIAG_SECRET_IN_CLEAR},
        {"types: [Order]", CP_DIAG_FORMAT_INVALID},
        {"types: [Order.v2, Order.v2]", CP_DIAG_DUPLICATE_VALUE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture f;
        char text[512];
        (void)snprintf(text, sizeof(text), REVOCATION("r", "%s"), rows[i].spec);
        fixture_init(&f);
        fixture_add(&f, "platform.yaml", FIXTURE_ENVIRONMENT);
        fixture_add(&f, "revoked.yaml", text);
        fixture_refuse(&f, rows[i].code);
        fixture_free(&f);
    }
}

static void expect_diff(const struct fixture *before, const struct fixture *after,
                        const char *wanted)
{
    struct cp_diff diff;
    auto_buf struct buf text = BUF_MAX(1 << 16);
    assert_true(err_ok(cp_diff_make(before->compiled, after->compiled, &diff)));
    assert_true(err_ok(cp_diff_text(&diff, &text)));
    if (!slice_eq(buf_slice(&text), slice_str(wanted))) {
        fail_msg("%.*s\nnot\n%s", SLICE_ARG(buf_slice(&text)), wanted);
    }
    cp_diff_free(&diff);
}

static void what_is_lifted_loosens(void **state)
{
    (void)state;
    struct fixture one;
    struct fixture two;
    make(&one, REVOCATION("a", "certificates: ['0A'], reason: lost key"));
    make(&two, REVOCATION("b", "types: [Order.v2]"));
    expect_diff(&one, &two,
                "! revocation certificate/0a lifted: what it refused is taken again\n"
                "+ revocation type/Order.v2 added\n"
                "1 to add, 0 to change, 1 to remove; targets reached: 0\n"
                "this LOOSENS: 1 revocation is lifted\n");
    struct cp_diff diff;
    auto_buf struct buf json = BUF_MAX(1 << 16);
    assert_true(err_ok(cp_diff_make(one.compiled, two.compiled, &diff)));
    assert_true(err_ok(cp_diff_json(&diff, &json)));
    const char *text = "";
    assert_true(err_ok(buf_cstr(&json, &text)));
    assert_non_null(strstr(text, "\"loosens\":true"));
    assert_true(diff.changes[0].loosens);
    assert_false(diff.changes[1].loosens);
    cp_diff_free(&diff);
    struct fixture none;
    make(&none, "");
    expect_diff(&none, &one,
                "+ revocation certificate/0a added: lost key\n"
                "1 to add, 0 to change, 0 to remove; targets reached: 0\n");
    fixture_free(&one);
    fixture_free(&two);
    fixture_free(&none);
}

/* What is lifted comes behind more additions than a plan lists. */
static void what_is_lifted_is_seen_among_many(void **state)
{
    (void)state;
    enum { MANY = 10001 };
    struct fixture one;
    struct fixture many;
    auto_buf struct buf list = BUF_MAX(1 << 20);
    assert_true(err_ok(buf_add_str(&list, "reason: many, certificates: [")));
    for (int i = 0; i < MANY; i++) {
        assert_true(err_ok(buf_addf(&list, "%s'%04x'", i > 0 ? "," : "", i)));
    }
    assert_true(err_ok(buf_add_str(&list, "]")));
    auto_buf struct buf source = BUF_MAX(1 << 20);
    assert_true(err_ok(buf_addf(&source, REVOCATION("r", "%.*s"), SLICE_ARG(buf_slice(&list)))));
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&source, &text)));
    make(&one, REVOCATION("a", "types: [Order.v2]"));
    make(&many, text);
    struct cp_diff diff;
    assert_true(err_ok(cp_diff_make(one.compiled, many.compiled, &diff)));
    assert_int_equal(diff.counts[CP_CHANGE_ADDED], MANY);
    assert_int_equal(diff.loosened, 1);
    assert_int_equal(diff.count, MANY); /* one addition is left out. */
    assert_true(diff.changes[diff.count - 1].loosens);
    cp_diff_free(&diff);
    fixture_free(&one);
    fixture_free(&many);
}

static void those_of_another_version_take_their_place(void **state)
{
    (void)state;
    struct fixture f;
    struct fixture newest;
    make(&f, REVOCATION("a", "types: [Order.v1]"));
    make(&newest, REVOCATION("b", "subjects: ['https://id.example.com#alice'], types: [Order.v2]"));
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(newest.compiled, &count);
    struct cp_part kept[2];
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind == CP_PART_REVOCATIONS) {
            kept[found++] = parts[i];
        }
    }
    assert_true(err_ok(cp_compiled_revoke(f.compiled, kept, found)));
    expect_keys(&f, "subject/https://id.example.com#alice type/Order.v2");
    assert_true(has_capability(&f));
    assert_true(revokes_subjects(&f));
    expect_diff(&f, &newest, "no differences\n");
    assert_true(err_ok(cp_compiled_revoke(f.compiled, NULL, 0)));
    expect_keys(&f, "");
    assert_false(has_capability(&f));
    assert_false(revokes_subjects(&f));
    fixture_free(&f);
    fixture_free(&newest);
}

static void a_trust_domain_is_named_once(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "platform.yaml",
                "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
                "spec: {trustDomain: a.example, trustDomains: [b.example, a.example]}\n");
    fixture_refuse(&f, CP_DIAG_DUPLICATE_VALUE);
    fixture_free(&f);
    fixture_init(&f);
    fixture_add(&f, "platform.yaml",
                "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
                "spec: {trustDomain: a.example, trustDomains: [c.example, b.example]}\n");
    fixture_compile(&f);
    assert_int_equal(cp_compiled_format_least(f.compiled), SNAPSHOT_FORMAT);
    assert_true((cp_compiled_capabilities(f.compiled) & (uint64_t)CAPABILITY_TRUST_DOMAINS) != 0);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_entry_is_a_part),
        cmocka_unit_test(a_removed_nodes_certificate_says_until_when),
        cmocka_unit_test(subjects_need_a_node_that_knows_them),
        cmocka_unit_test(without_any_there_is_no_stream),
        cmocka_unit_test(several_may_list_the_same),
        cmocka_unit_test(what_is_no_entry_is_refused),
        cmocka_unit_test(what_is_lifted_loosens),
        cmocka_unit_test(what_is_lifted_is_seen_among_many),
        cmocka_unit_test(those_of_another_version_take_their_place),
        cmocka_unit_test(a_trust_domain_is_named_once),
    };
    return cmocka_run_group_tests_name("revocations", tests, NULL, NULL);
}
