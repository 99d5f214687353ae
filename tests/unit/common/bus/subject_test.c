/* subject: names as NAMES has them; no token of a caller can add a dot or a wildcard. */
#include "common/bus/subject.h"

#include "tests/support/cmocka.h"

static void expect(struct err err, const struct subject *s, const char *text)
{
    assert_int_equal(err.code, E_OK);
    assert_string_equal(s->text, text);
    assert_int_equal(s->size, strlen(text));
}

static struct subject_event user(void)
{
    return (struct subject_event){.environment = SLICE_LIT("prod"),
                                  .tenant = SLICE_LIT("acme"),
                                  .type = SLICE_LIT("User"),
                                  .major = 2,
                                  .partition = 7};
}

static void events(void **state)
{
    (void)state;
    struct subject s;
    struct subject_event e = user();
    expect(subject_event(&e, &s), &s, "trilane.prod.event.7.acme.User.v2");
    expect(subject_frame(&e, &s), &s, "trilane.prod.event.7.acme._.frame");
    expect(subject_events(e.environment, &s), &s, "trilane.prod.event.>");
    e.partition = SUBJECT_ANY;
    e.tenant = (struct slice){0};
    expect(subject_event_filter(&e, &s), &s, "trilane.prod.event.*.*.User.v2");
    e.type = (struct slice){0};
    e.major = 0;
    expect(subject_event_filter(&e, &s), &s, "trilane.prod.event.*.*.*.*");
    assert_int_equal(subject_event(&e, &s).code, E_MALFORMED);
    assert_int_equal(subject_frame(&e, &s).code, E_MALFORMED);
    e = user();
    e.type = SLICE_LIT("_");
    assert_int_equal(subject_event(&e, &s).code, E_MALFORMED);
    e.environment = (struct slice){0};
    assert_int_equal(subject_event_filter(&e, &s).code, E_MALFORMED);
}

static void tokens_are_escaped(void **state)
{
    (void)state;
    struct subject s;
    struct subject_event e = user();
    e.tenant = SLICE_LIT("a.*> \r\n%\xc3");
    expect(subject_event(&e, &s), &s, "trilane.prod.event.7.a%2E%2A%3E%20%0D%0A%25%C3.User.v2");
    assert_true(subject_is_valid(subject_slice(&s)));
    char text[SUBJECT_TOKEN_MAX + 1];
    memset(text, 'x', sizeof(text));
    e.tenant = slice_of(text, SUBJECT_TOKEN_MAX);
    assert_int_equal(subject_event(&e, &s).code, E_OK);
    e.tenant = slice_of(text, SUBJECT_TOKEN_MAX + 1);
    assert_int_equal(subject_event(&e, &s).code, E_MALFORMED);
    memset(text, '.', sizeof(text)); /* fits as a token, but not what becomes of two of them. */
    e.tenant = slice_of(text, SUBJECT_TOKEN_MAX);
    e.type = e.tenant;
    assert_int_equal(subject_event(&e, &s).code, E_MALFORMED);
}

static void others(void **state)
{
    (void)state;
    struct subject s;
    struct slice env = SLICE_LIT("prod");
    struct slice none = {0};
    uint8_t digest[] = {0xab, 0x01};
    expect(subject_head(env, &s), &s, "trilane.prod.head");
    expect(subject_content(env, &s), &s, "trilane.prod.content");
    expect(subject_demand(env, SLICE_LIT("node-1"), &s), &s, "trilane.prod.demand.node-1");
    expect(subject_demand(env, none, &s), &s, "trilane.prod.demand.*");
    expect(subject_shares(env, SLICE_LIT("node-1"), &s), &s, "trilane.prod.shares.node-1");
    expect(subject_proposal(env, &s), &s, "trilane.prod.proposal");
    expect(subject_quarantine(env, SLICE_LIT("TRILANE_EVENTS"), SLICE_LIT("prod_mail"), &s), &s,
           "trilane.prod.quarantine.TRILANE_EVENTS.prod_mail");
    expect(subject_quarantine(env, none, none, &s), &s, "trilane.prod.quarantine.>");
    assert_int_equal(subject_quarantine(env, env, none, &s).code, E_MALFORMED);
    expect(subject_plugin(env, SLICE_LIT("waf"), SLICE_LIT("logging"), &s), &s,
           "trilane.prod.plugin.waf.logging");
    expect(subject_deliver(env, SLICE_LIT("prod_mail"), &s), &s, "trilane.prod.deliver.prod_mail");
    expect(subject_durable(env, SLICE_LIT("mail"), none, &s), &s, "prod_mail");
    expect(subject_durable(env, SLICE_LIT("mail"), SLICE_LIT("v1"), &s), &s, "prod_mail_v1");
    assert_int_equal(subject_durable(env, SLICE_LIT("a_b"), none, &s).code, E_MALFORMED);
    expect(subject_bucket_snapshots(env, &s), &s, "trilane_prod_snapshots");
    expect(subject_bucket_nodes(env, &s), &s, "trilane_prod_nodes");
    assert_int_equal(subject_bucket_nodes(SLICE_LIT("a.b"), &s).code, E_MALFORMED);
    expect(subject_key_manifest(12, slice_of(digest, 2), &s), &s, "manifest.12.ab01");
    expect(subject_key_chunk(slice_of(digest, 2), &s), &s, "chunk.ab01");
    expect(subject_key_root(3, &s), &s, "root.3");
}

static void types(void **state)
{
    (void)state;
    struct slice type;
    uint32_t major = 0;
    static const char *const bad[] = {"",    "User",   "User.v",           "User.v0", "User.v01",
                                      ".v1", "User.2", "User.v1234567890", "v1"};
    assert_int_equal(subject_type_split(SLICE_LIT("User.v2"), &type, &major).code, E_OK);
    assert_true(slice_eq(type, SLICE_LIT("User")) && major == 2);
    assert_int_equal(subject_type_split(SLICE_LIT("a.v1.B.v999999999"), &type, &major).code, E_OK);
    assert_true(slice_eq(type, SLICE_LIT("a.v1.B")) && major == 999999999);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(subject_type_split(slice_str(bad[i]), &type, &major).code, E_TYPE_UNKNOWN);
    }
}

static void partitions(void **state)
{
    (void)state;
    struct slice tenant = SLICE_LIT("acme");
    struct slice none = {0};
    uint32_t by_key = subject_partition(tenant, SLICE_LIT("k"), SLICE_LIT("e1"), 16);
    assert_int_equal(by_key, subject_partition(tenant, SLICE_LIT("k"), SLICE_LIT("e2"), 16));
    assert_int_equal(subject_partition(tenant, none, SLICE_LIT("k"), 16), by_key);
    assert_int_equal(subject_partition(tenant, none, SLICE_LIT("k"), 1), 0);
    /* The format's own numbers: another implementation must come to the same. */
    assert_int_equal(subject_partition(tenant, SLICE_LIT("order-1"), none, 1 << 30), 970711456);
    assert_int_equal(subject_partition(SLICE_LIT("beta"), SLICE_LIT("order-1"), none, 1 << 30),
                     460375659);
}

static void message_ids(void **state)
{
    (void)state;
    struct subject s;
    struct slice type = SLICE_LIT("User");
    char id[EVENT_ID_MAX + 1];
    memset(id, 'i', sizeof(id));
    expect(subject_message_id(SLICE_LIT("acme"), type, 2, SLICE_LIT("e/1"), &s), &s,
           "acme/User.v2/e/1");
    expect(subject_message_id(SLICE_LIT("a/b"), type, 2, SLICE_LIT("e"), &s), &s,
           "a%2Fb/User.v2/e");
    assert_int_equal(subject_message_id(type, type, 1, slice_of(id, EVENT_ID_MAX), &s).code, E_OK);
    assert_int_equal(subject_message_id(type, type, 1, slice_of(id, EVENT_ID_MAX + 1), &s).code,
                     E_MALFORMED);
    assert_int_equal(subject_message_id(type, type, 1, SLICE_LIT(""), &s).code, E_MALFORMED);
    assert_int_equal(subject_message_id(type, type, 1, SLICE_LIT("a\r\nb"), &s).code, E_MALFORMED);
    assert_int_equal(subject_message_id(type, type, 1, SLICE_LIT("a b"), &s).code, E_MALFORMED);
}

static void validity(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a b", "a\r\n", "a\t"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(subject_is_valid(slice_str(bad[i])));
    }
    assert_true(subject_is_valid(SLICE_LIT("$JS.ACK.*.>")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events),     cmocka_unit_test(tokens_are_escaped),
        cmocka_unit_test(others),     cmocka_unit_test(types),
        cmocka_unit_test(partitions), cmocka_unit_test(message_ids),
        cmocka_unit_test(validity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
