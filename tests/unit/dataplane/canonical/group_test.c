/* group: a durable's name is a name, and no two of (consumer, tenant, type) share one. */
#include "dataplane/canonical/group.h"

#include "common/base/ids.h"
#include "common/base/text.h"

#include "tests/support/cmocka.h"

static struct subject name(const char *consumer, const char *tenant, const char *type)
{
    struct subject s = {0};
    assert_int_equal(canon_group_durable(SLICE_LIT("demo"), slice_str(consumer), slice_str(tenant),
                                         slice_str(type), &s)
                         .code,
                     E_OK);
    return s;
}

static void test_shape(void **state)
{
    (void)state;
    struct subject s = name("billing", "acme", "Order.v2");
    assert_true(slice_starts(subject_slice(&s), SLICE_LIT("demo_billing_order-v2-")));
    assert_int_equal(s.size, strlen("demo_billing_order-v2-") + 32);
    assert_string_equal(s.text, name("billing", "acme", "Order.v2").text);
}

static void test_no_two_share(void **state)
{
    (void)state;
    const struct subject names[] = {
        name("billing", "acme", "Order.v2"),  name("billing", "acme", "order.v2"),
        name("billing", "acme", "Order.v3"),  name("billing", "globex", "Order.v2"),
        name("billing", "acme-o", "rder.v2"), name("audit", "acme", "Order.v2")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(names[i].text, names[j].text);
        }
    }
}

static void test_any_type_gives_a_name(void **state)
{
    (void)state;
    char type[120];
    memset(type, 'X', sizeof(type));
    memcpy(type + sizeof(type) - 4, ".v1", 4);
    (void)name("c", "acme", type);
    (void)name("c", "acme", "_Odd.Name.v1");
    (void)name("c", "acme", "a.v1");
}

static void test_consumer_must_be_a_name(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "Billing", "a b", "a.b", "a*", "-a", "a_b", ">"};
    struct subject s = {0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(canon_group_durable(SLICE_LIT("demo"), slice_str(bad[i]),
                                             SLICE_LIT("acme"), SLICE_LIT("Order.v2"), &s)
                             .code,
                         E_SUBSCRIPTION_INVALID);
    }
    assert_int_equal(s.size, 0);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_no_two_share),
        cmocka_unit_test(test_any_type_gives_a_name),
        cmocka_unit_test(test_consumer_must_be_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
