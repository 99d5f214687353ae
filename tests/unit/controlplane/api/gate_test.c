/* Proves how many joins are looked at in a second, of all and of one address. */
#include "controlplane/api/gate.h"

#include <stdio.h>

#include "common/base/ids.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

#define SECOND UINT64_C(1000000000)

static struct net_addr address(const char *text)
{
    struct net_addr addr;
    assert_int_equal(net_addr_parse(slice_str(text), &addr).code, E_OK);
    return addr;
}

static uint64_t passed(struct cp_gate *gate, const char *from, uint64_t tries, uint64_t now_ns)
{
    uint64_t count = 0;
    struct net_addr addr = address(from);
    for (uint64_t i = 0; i < tries; i++) {
        struct err e = cp_gate_pass(gate, &addr, now_ns);
        assert_true(err_ok(e) || e.code == E_RATE_LIMITED);
        count += err_ok(e);
    }
    return count;
}

static void one_address_has_its_share(void **state)
{
    (void)state;
    struct cp_gate gate = {.second = 0};
    limits.joins_per_second = 80;
    assert_int_equal(passed(&gate, "192.0.2.1:1000", 1000, 5 * SECOND), 10);
    assert_int_equal(gate.refused, 990);
    assert_int_equal(passed(&gate, "192.0.2.1:2000", 5, 5 * SECOND), 0); /* whatever its port. */
    assert_int_equal(passed(&gate, "[2001:db8::1]:1", 1000, 5 * SECOND), 10);
    assert_int_equal(passed(&gate, "[2001:db8::2]:1", 5, 5 * SECOND), 0); /* of the same /64. */
    assert_int_equal(passed(&gate, "192.0.2.1:1000", 1000, 6 * SECOND), 10);
}

static void all_have_theirs(void **state)
{
    (void)state;
    struct cp_gate gate = {.second = 0};
    uint64_t all = 0;
    limits.joins_per_second = 80;
    for (int i = 0; i < 200; i++) {
        char from[64];
        (void)snprintf(from, sizeof(from), "198.51.100.%d:1", i);
        all += passed(&gate, from, 10, SECOND);
    }
    assert_int_equal(all, 80);
    limits.joins_per_second = 1;
    assert_int_equal(passed(&gate, "192.0.2.1:1", 10, 2 * SECOND), 1);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_address_has_its_share),
        cmocka_unit_test(all_have_theirs),
    };
    return cmocka_run_group_tests_name("api.gate", tests, NULL, NULL);
}
