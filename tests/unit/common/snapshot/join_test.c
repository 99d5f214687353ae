/* Proves that a token's text comes back the same and nothing else is one, that statements of
 * different content differ, and how labels are read. */
#include "common/snapshot/join.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/snapshot/labels.h"

#include "tests/support/cmocka.h"

#define SECRET "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define PIN "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static void a_token_comes_back_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {"tlj1.prod.node-1." SECRET "." PIN,
                                        "tlj1.p.n." SECRET ".-"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        auto_join_token struct join_token token;
        auto_buf struct buf text = BUF_MAX(JOIN_TOKEN_MAX);
        assert_int_equal(join_token_parse(slice_str(texts[i]), &token).code, E_OK);
        assert_int_equal(token.secret[31], 0x1f);
        assert_int_equal(token.has_pin, i == 0);
        assert_int_equal(join_token_print(&token, &text).code, E_OK);
        assert_true(slice_eq(buf_slice(&text), slice_str(texts[i])));
    }
}

static void what_is_no_token_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "tlj1",
        "tlj2.prod.node-1." SECRET "." PIN,
        "tlj1.Prod.node-1." SECRET "." PIN,
        "tlj1.prod.." SECRET "." PIN,
        "tlj1.prod.node-1." SECRET,
        "tlj1.prod.node-1." SECRET ".",
        "tlj1.prod.node-1." SECRET ".-x",
        "tlj1.prod.node-1." SECRET "." PIN ".",
        "tlj1.prod.node-1." SECRET "0." PIN,
        "tlj1.prod.node-1.." PIN,
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct join_token token;
        assert_int_equal(join_token_parse(slice_str(texts[i]), &token).code, E_MALFORMED);
    }
}

static struct buf joined(uint8_t environment, uint8_t token, const char *node, const char *csr)
{
    uint8_t e[ENVIRONMENT_SIZE];
    uint8_t t[DIGEST_SIZE];
    memset(e, environment, sizeof(e));
    memset(t, token, sizeof(t));
    struct join_statement s = {
        .environment = e, .token = t, .node = slice_str(node), .csr = slice_str(csr)};
    struct buf out = BUF_MAX(JOIN_STATEMENT_MAX);
    assert_int_equal(join_statement(&s, &out).code, E_OK);
    return out;
}

static struct buf renewed(uint8_t environment, const char *node, const char *csr, int64_t at_ms,
                          uint64_t count)
{
    uint8_t e[ENVIRONMENT_SIZE];
    memset(e, environment, sizeof(e));
    struct renew_statement s = {.environment = e,
                                .node = slice_str(node),
                                .csr = slice_str(csr),
                                .at_ms = at_ms,
                                .count = count};
    struct buf out = BUF_MAX(JOIN_STATEMENT_MAX);
    assert_int_equal(renew_statement(&s, &out).code, E_OK);
    return out;
}

static void statements_differ_in_each_field(void **state)
{
    (void)state;
    struct buf all[] = {
        joined(1, 2, "node-1", "csr"),      joined(3, 2, "node-1", "csr"),
        joined(1, 3, "node-1", "csr"),      joined(1, 2, "node-2", "csr"),
        joined(1, 2, "node-1", "csr2"),     renewed(1, "node-1", "csr", 2, 2),
        renewed(3, "node-1", "csr", 2, 2),  renewed(1, "node-2", "csr", 2, 2),
        renewed(1, "node-1", "csr2", 2, 2), renewed(1, "node-1", "csr", 3, 2),
        renewed(1, "node-1", "csr", 2, 3),
    };
    enum { COUNT = sizeof(all) / sizeof(all[0]) };
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_false(slice_eq(buf_slice(&all[i]), buf_slice(&all[k])));
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        buf_free(&all[i]);
    }
}

static void labels_are_sorted(void **state)
{
    (void)state;
    struct labels labels;
    struct labels same;
    auto_buf struct buf text = BUF_MAX(LABELS_TEXT_MAX);
    assert_int_equal(labels_parse(SLICE_LIT("zone=eu/1,a=b,rack=x_1.2"), &labels).code, E_OK);
    assert_int_equal(labels_print(&labels, &text).code, E_OK);
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("a=b,rack=x_1.2,zone=eu/1")));
    assert_int_equal(labels_parse(buf_slice(&text), &same).code, E_OK);
    assert_true(labels_eq(&labels, &same));
    assert_int_equal(labels_parse(SLICE_LIT("a=b,rack=x_1.2,zone=eu/2"), &same).code, E_OK);
    assert_false(labels_eq(&labels, &same));
    assert_int_equal(labels_parse(SLICE_LIT("a=b"), &same).code, E_OK);
    assert_false(labels_eq(&labels, &same));
    assert_int_equal(labels_parse((struct slice){0}, &labels).code, E_OK);
    assert_int_equal(labels.count, 0);
}

static void what_is_no_list_of_labels_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "a",
        "=b",
        "a=",
        "a=b,",
        ",",
        "a=b,,c=d",
        "a=b,a=c",
        "a b=c",
        "a=b c",
        "a=b\nc",
        "dns:x=y",
        "a=b=c",
        "a=ä",
        "a=*",
        "1=,2=",
        "a=b,=",
        "1=1,2=2,3=3,4=4,5=5,6=6,7=7,8=8,9=9",
    };
    struct labels labels;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(labels_parse(slice_str(texts[i]), &labels).code, E_USAGE);
    }
    char text[LABEL_MAX + 2] = "n=";
    memset(text + 2, 'v', LABEL_MAX - 2);
    assert_int_equal(labels_parse(slice_str(text), &labels).code, E_OK);
    text[LABEL_MAX] = 'v';
    assert_int_equal(labels_parse(slice_str(text), &labels).code, E_USAGE);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_comes_back_the_same),
        cmocka_unit_test(what_is_no_token_is_refused),
        cmocka_unit_test(statements_differ_in_each_field),
        cmocka_unit_test(labels_are_sorted),
        cmocka_unit_test(what_is_no_list_of_labels_is_refused),
    };
    return cmocka_run_group_tests_name("snapshot.join", tests, NULL, NULL);
}
