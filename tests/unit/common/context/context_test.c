/* context: the names of each hop, what a client may not bring, and ids. */
#include "common/context/context.h"

#include "common/base/ids.h"

#include "tests/support/cmocka.h"

static void names(void **state)
{
    (void)state;
    assert_true(slice_eq(context_http(CONTEXT_TENANT), SLICE_LIT("x-tenant-id")));
    assert_true(slice_eq(context_nats(CONTEXT_TENANT), SLICE_LIT("tenant-id")));
    assert_true(slice_eq(context_nats_alias(CONTEXT_CORRELATION), SLICE_LIT("correlation-id")));
    assert_true(slice_eq(context_envelope(CONTEXT_CALLER), SLICE_LIT("caller-id")));
    assert_int_equal(context_envelope(CONTEXT_TRACESTATE).size, 0);
    for (int i = 0; i < CONTEXT_COUNT; i++) {
        enum context_name name = (enum context_name)i;
        if (context_http(name).size > 0) {
            assert_int_equal(context_find_http(context_http(name)), name);
        }
        if (context_nats(name).size > 0) {
            assert_int_equal(context_find_nats(context_nats(name)), name);
        }
        if (context_envelope(name).size > 0) {
            assert_int_equal(context_find_envelope(context_envelope(name)), name);
        }
    }
}

static void finding(void **state)
{
    (void)state;
    assert_int_equal(context_find_http(SLICE_LIT("X-Tenant-ID")), CONTEXT_TENANT);
    assert_int_equal(context_find_nats(SLICE_LIT("correlation-id")), CONTEXT_CORRELATION);
    assert_int_equal(context_find_nats(SLICE_LIT("Tenant-Id")), CONTEXT_COUNT);
    assert_int_equal(context_find_http(SLICE_LIT("accept")), CONTEXT_COUNT);
    assert_int_equal(context_find_http(SLICE_LIT("")), CONTEXT_COUNT);
    assert_int_equal(context_find_nats(SLICE_LIT("")), CONTEXT_COUNT);
    assert_int_equal(context_find_envelope(SLICE_LIT("")), CONTEXT_COUNT);
}

static void the_edge(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        enum context_edge edge;
    } rows[] = {
        {"x-caller-id", CONTEXT_STRIP},
        {"X-Caller-Id", CONTEXT_STRIP},
        {"x_caller_id", CONTEXT_STRIP},
        {"x-caller-id2", CONTEXT_PASS},
        {"x-trilane-", CONTEXT_STRIP},
        {"X_TRILANE_anything", CONTEXT_STRIP},
        {"x-trilane", CONTEXT_PASS},
        {"x-forwarded-client-cert", CONTEXT_STRIP},
        {"x-tenant-id", CONTEXT_JUDGE},
        {"X_Tenant_Id", CONTEXT_JUDGE},
        {"x-tenant-idx", CONTEXT_PASS},
        {"x-correlation-id", CONTEXT_PASS},
        {"x-forwarded-for", CONTEXT_PASS},
        {"authorization", CONTEXT_PASS},
        {"", CONTEXT_PASS},
        {"x", CONTEXT_PASS},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(context_judge_client(slice_str(rows[i].header)), rows[i].edge);
    }
}

static void ids(void **state)
{
    (void)state;
    char text[CONTEXT_ID_MAX + 1];
    char one[CONTEXT_ID_SIZE + 1];
    char two[CONTEXT_ID_SIZE + 1];
    memset(text, '~', sizeof(text));
    assert_true(context_id_valid(slice_of(text, CONTEXT_ID_MAX)));
    assert_false(context_id_valid(slice_of(text, CONTEXT_ID_MAX + 1)));
    assert_false(context_id_valid(SLICE_LIT("")));
    assert_false(context_id_valid(SLICE_LIT("a b")));
    assert_false(context_id_valid(SLICE_LIT("a\x7f")));
    assert_false(context_id_valid(SLICE_LIT("\xc3\xa9")));
    context_id_make(one);
    context_id_make(two);
    assert_true(context_id_valid(slice_str(one)));
    assert_int_equal(strlen(one), CONTEXT_ID_SIZE);
    assert_string_not_equal(one, two);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(finding),
        cmocka_unit_test(the_edge),
        cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
