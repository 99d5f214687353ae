/* address: every special range is refused from its first to its last address, and not one
 * further; embedded IPv4 addresses are judged; ranges of an Egress open what they name. */
#include "dataplane/proxy/address.h"

#include <sys/socket.h>
#include <unistd.h>

#include "common/base/scope.h"

#include "tests/support/cmocka.h"

static struct net_addr addr_of(const char *text)
{
    struct net_addr a = {0};
    assert_true(err_ok(net_addr_from_ip(slice_str(text), 80, &a)));
    return a;
}

static bool special(const char *text)
{
    struct net_addr a = addr_of(text);
    return px_address_special(&a) != NULL;
}

/* First and last address of a range, and their neighbours outside; NULL: none that is global. */
struct border {
    const char *before;
    const char *first;
    const char *last;
    const char *behind;
};

static const struct border borders[] = {
    {NULL, "0.0.0.0", "0.255.255.255", "1.0.0.0"},
    {"9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"},
    {"100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"},
    {"126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"},
    {"169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"},
    {"172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"},
    {"191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"},
    {"192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"},
    {"192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"},
    {"192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"},
    {"198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"},
    {"198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"},
    {"203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"},
    {"223.255.255.255", "224.0.0.0", "239.255.255.255", NULL},
    {NULL, "240.0.0.0", "255.255.255.255", NULL},
    {NULL, "::", "::ffff:ffff", NULL},
    {"64:ff9b::808:808", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "100::", "100::ffff:ffff:ffff:ffff", NULL},
    {NULL, "1000::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"},
    {"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:200::"},
    {"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
    {"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
     "3fff:1000::"},
    {"3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "fbff::", NULL},
    {NULL, "5f00::", "5f00:ffff::", NULL},
    {NULL, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
};

static void test_borders(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(borders) / sizeof(borders[0]); i++) {
        const struct border *b = &borders[i];
        assert_true(special(b->first));
        assert_true(special(b->last));
        assert_true(b->before == NULL || !special(b->before));
        assert_true(b->behind == NULL || !special(b->behind));
    }
}

static void test_embedded(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:c0a8:101::1",
        "2400::5efe:127.0.0.1",
        "2400::200:5efe:a00:1",
        "2400::5efe:169.254.169.254",
    };
    static const char *const global[] = {
        "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",      "2400::5efe:8.8.8.8",
        "2400::1",        "2606:4700::1111",  "2400::5eff:127.0.0.1",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_true(special(refused[i]));
    }
    for (size_t i = 0; i < sizeof(global) / sizeof(global[0]); i++) {
        assert_false(special(global[i]));
    }
    struct net_addr none = {0};
    assert_non_null(px_address_special(&none));
}

static bool in(const char *address, const char *range)
{
    struct net_addr a = addr_of(address);
    return px_address_in(&a, slice_str(range));
}

static void test_ranges(void **state)
{
    (void)state;
    assert_true(in("127.0.0.1", "127.0.0.1/32"));
    assert_false(in("127.0.0.2", "127.0.0.1/32"));
    assert_true(in("10.255.255.255", "10.0.0.0/8"));
    assert_false(in("11.0.0.0", "10.0.0.0/8"));
    assert_true(in("100.127.255.255", "100.64.0.0/10"));
    assert_false(in("100.128.0.0", "100.64.0.0/10"));
    assert_true(in("8.8.8.8", "0.0.0.0/0"));
    assert_true(in("fd00::1", "fd00::/8"));
    assert_false(in("fc00::1", "fd00::/8"));
    assert_true(in("::1", "::1/128"));
    assert_false(in("::2", "::1/128"));
    assert_true(in("fe80::1", "::/0"));
    assert_true(in("64:ff9b::a00:1", "10.0.0.0/8")); /* by what is inside. */
    assert_true(in("2002:a00:1::", "10.0.0.0/8"));
    assert_false(in("2400::1", "0.0.0.0/0"));
    assert_false(in("10.0.0.1", "::/0"));
    static const char *const none[] = {"",           "10.0.0.0",    "10.0.0.0/", "10.0.0.0/33",
                                       "fd00::/129", "10.0.0/8",    "x/8",       "/8",
                                       "10.0.0.0/x", "10.0.0.0/8/9"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_false(in("10.0.0.0", none[i]));
        assert_false(in("fd00::1", none[i]));
    }
}

static void test_allowed(void **state)
{
    (void)state;
    const struct slice ranges[] = {SLICE_LIT("10.1.0.0/16"), SLICE_LIT("::1/128")};
    struct net_addr outside = addr_of("8.8.8.8");
    struct net_addr inside = addr_of("10.1.2.3");
    struct net_addr other = addr_of("10.2.0.1");
    struct net_addr loop = addr_of("::1");
    assert_true(px_address_allowed(&outside, NULL, 0));
    assert_false(px_address_allowed(&inside, NULL, 0));
    assert_true(px_address_allowed(&inside, ranges, 2));
    assert_false(px_address_allowed(&other, ranges, 2));
    assert_true(px_address_allowed(&loop, ranges, 2));
    assert_false(px_address_allowed(&loop, ranges, 1));
}

static void test_normal(void **state)
{
    (void)state;
    struct net_addr mapped = addr_of("::ffff:127.0.0.1");
    struct net_addr plain = addr_of("127.0.0.1");
    struct net_addr normal = px_address_normal(&mapped);
    assert_true(net_addr_eq(&normal, &plain));
    struct net_addr v6 = addr_of("2400::1");
    normal = px_address_normal(&v6);
    assert_true(net_addr_eq(&normal, &v6));
}

static void test_own(void **state)
{
    (void)state;
    struct net_addr loopback = addr_of("127.0.0.1");
    struct net_addr mapped = addr_of("::ffff:127.0.0.1");
    struct net_addr other = addr_of("127.0.0.2");
    struct net_addr any = addr_of("0.0.0.0");
    struct net_addr outside = addr_of("8.8.8.8");
    assert_true(px_address_is_own(&loopback, &loopback, 1));
    assert_true(px_address_is_own(&mapped, &loopback, 1));
    assert_false(px_address_is_own(&other, &loopback, 1));
    assert_true(px_address_is_own(&any, &loopback, 1)); /* the kernel takes it for loopback. */
    assert_true(px_address_is_own(&other, &any, 1));
    assert_false(px_address_is_own(&outside, &any, 1));
    net_addr_set_port(&any, 81);
    assert_false(px_address_is_own(&loopback, &any, 1));
    assert_false(px_address_is_own(&loopback, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_borders), cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_ranges),  cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_normal),  cmocka_unit_test(test_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
