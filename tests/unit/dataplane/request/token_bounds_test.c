/* Proves how many wrong tokens a connection and an address may bring, that each pays for itself
 * alone, and that checks take a part of a worker's time. */
#include "dataplane/request/token_bounds.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

#define S UINT64_C(1000000000)

enum { CONNECTION = 4, ADDRESS = 20, PEER_MAX = 64 };

static struct dp_token_bounds b;

static int set_up(void **state)
{
    (void)state;
    memset(&b, 0, sizeof(b));
    limits.token_check_percent = 25;
    limits.token_failures_per_second = CONNECTION;
    limits.token_address_failures_per_second = ADDRESS;
    return 0;
}

/* Asks, and when it is let pass, comes to an outcome at no cost. */
static enum dp_token_outcome bring(const char *peer, uint64_t now_ns, enum dp_token_outcome outcome,
                                   uint64_t *out_retry_ns)
{
    enum dp_token_outcome may = dp_token_bounds_ask(&b, slice_str(peer), now_ns, out_retry_ns);
    if (may == DP_TOKEN_GOOD) {
        dp_token_bounds_charge(&b, slice_str(peer), now_ns, /* spent_ns= */ 0, outcome);
    }
    return may;
}

/* How many of 'count' tokens, each over a connection of its own, are looked at; "%zu" is its port.
 */
static size_t bring_many(const char *format, size_t count, uint64_t now_ns,
                         enum dp_token_outcome outcome)
{
    size_t passed = 0;
    uint64_t retry_ns = 0;
    for (size_t i = 0; i < count; i++) {
        char peer[PEER_MAX];
        (void)snprintf(peer, sizeof(peer), "%s:%zu", format, 1024 + i);
        enum dp_token_outcome may = bring(peer, now_ns, outcome, &retry_ns);
        assert_true(may == DP_TOKEN_GOOD || may == DP_TOKEN_LIMITED_ADDRESS);
        passed += may == DP_TOKEN_GOOD;
    }
    return passed;
}

static void of_a_connection(void **state)
{
    (void)state;
    uint64_t retry_ns = 0;
    const char *peer = "192.0.2.1:5";
    for (int i = 0; i <= CONNECTION; i++) {
        assert_int_equal(bring(peer, 10 * S, DP_TOKEN_SIGNATURE, &retry_ns), DP_TOKEN_GOOD);
    }
    assert_int_equal(bring(peer, 10 * S, DP_TOKEN_SIGNATURE, &retry_ns), DP_TOKEN_LIMITED);
    assert_int_equal(retry_ns, S / CONNECTION);
    assert_int_equal(bring(peer, 10 * S + retry_ns, DP_TOKEN_GOOD, &retry_ns), DP_TOKEN_GOOD);
}

static void of_an_address(void **state)
{
    (void)state;
    uint64_t retry_ns = 0;
    assert_int_equal(bring_many("192.0.2.1", 900, 10 * S, DP_TOKEN_SIGNATURE), ADDRESS + 1);
    assert_int_equal(bring("192.0.2.1:1", 10 * S, DP_TOKEN_GOOD, &retry_ns),
                     DP_TOKEN_LIMITED_ADDRESS);
    assert_int_equal(retry_ns, S / ADDRESS);
    assert_int_equal(bring("[::ffff:192.0.2.1]:1", 10 * S, DP_TOKEN_GOOD, &retry_ns),
                     DP_TOKEN_LIMITED_ADDRESS);
    assert_int_equal(bring("192.0.2.2:60000", 10 * S, DP_TOKEN_GOOD, &retry_ns), DP_TOKEN_GOOD);
    assert_int_equal(bring("192.0.2.1:60000", 10 * S + S / ADDRESS, DP_TOKEN_GOOD, &retry_ns),
                     DP_TOKEN_GOOD);
    assert_int_equal(bring_many("192.0.2.1", 900, 20 * S, DP_TOKEN_SIGNATURE), ADDRESS + 1);
}

/* Whoever has one address of IPv6 has all of its /64. */
static void of_a_prefix(void **state)
{
    (void)state;
    uint64_t retry_ns = 0;
    size_t passed = 0;
    for (unsigned i = 0; i < 900; i++) {
        char peer[PEER_MAX];
        (void)snprintf(peer, sizeof(peer), "[2001:db8:1:2::%x]:443", i + 1);
        passed += bring(peer, 10 * S, DP_TOKEN_KID, &retry_ns) == DP_TOKEN_GOOD;
    }
    assert_int_equal(passed, ADDRESS + 1);
    assert_int_equal(bring("[2001:db8:1:3::1]:443", 10 * S, DP_TOKEN_GOOD, &retry_ns),
                     DP_TOKEN_GOOD);
}

static void what_counts(void **state)
{
    (void)state;
    static const enum dp_token_outcome honest[] = {DP_TOKEN_EXPIRED, DP_TOKEN_EARLY, DP_TOKEN_KEYS};
    static const enum dp_token_outcome nothing[] = {DP_TOKEN_GOOD, DP_TOKEN_MEMORY};
    uint64_t retry_ns = 0;
    for (size_t i = 0; i < sizeof(honest) / sizeof(honest[0]); i++) {
        memset(&b, 0, sizeof(b));
        assert_int_equal(bring_many("192.0.2.1", 3000, 10 * S, honest[i]), 20 * ADDRESS + 1);
        memset(&b, 0, sizeof(b));
        for (int k = 0; k < 20 * ADDRESS; k++) { /* nothing of a connection. */
            assert_int_equal(bring("192.0.2.1:5", 10 * S, honest[i], &retry_ns), DP_TOKEN_GOOD);
        }
    }
    for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
        memset(&b, 0, sizeof(b));
        assert_int_equal(bring_many("192.0.2.1", 3000, 10 * S, nothing[i]), 3000);
    }
}

/* However many addresses are past their bound, others find a cell that says that they are not. */
static void beside_many(void **state)
{
    (void)state;
    uint64_t retry_ns = 0;
    size_t held_up = 0;
    limits.token_failures_per_second = 1000000; /* cells of connections are shared by luck. */
    for (unsigned i = 0; i < 200; i++) {
        char peer[PEER_MAX];
        (void)snprintf(peer, sizeof(peer), "10.0.0.%u", i);
        (void)bring_many(peer, ADDRESS + 1, 10 * S, DP_TOKEN_SIGNATURE);
    }
    for (unsigned i = 0; i < 1000; i++) {
        char peer[PEER_MAX];
        (void)snprintf(peer, sizeof(peer), "172.16.%u.%u:%u", i / 250, i % 250, 1024 + i);
        held_up +=
            dp_token_bounds_ask(&b, slice_str(peer), 10 * S, &retry_ns) == DP_TOKEN_LIMITED_ADDRESS;
    }
    assert_true(held_up < 30); /* one row of cells would hold up some 180. */
}

static void of_a_worker(void **state)
{
    (void)state;
    uint64_t retry_ns = 0;
    dp_token_bounds_charge(&b, SLICE_LIT("192.0.2.1:5"), 10 * S, S, DP_TOKEN_GOOD);
    assert_int_equal(bring("192.0.2.9:9", 11 * S, DP_TOKEN_GOOD, &retry_ns), DP_TOKEN_LIMITED);
    assert_int_equal(retry_ns, 3 * S - S / 10);
    assert_int_equal(bring("192.0.2.9:9", 11 * S + retry_ns, DP_TOKEN_GOOD, &retry_ns),
                     DP_TOKEN_GOOD);
}

int main(void)
{
    ids_init();
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(of_a_connection), TEST(of_an_address), TEST(of_a_prefix),
        TEST(what_counts),     TEST(beside_many),   TEST(of_a_worker),
    };
    return cmocka_run_group_tests_name("token_bounds", tests, NULL, NULL);
}
