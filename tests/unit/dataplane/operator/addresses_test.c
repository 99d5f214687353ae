/* Proves that an endpoint's addresses are given in turn, that one which refuses connections is
 * passed over for longer each time while there is another, and that addresses which stay keep their
 * pool and what is known of them, also while nobody can be asked for others. */
#include "dataplane/operator/addresses.h"

#include <unistd.h>

#include "common/base/limits.h"
#include "common/net/dns.h"
#include "common/net/listener.h"

#include "tests/unit/dataplane/operator/upstream_world.h"

static struct net_addr addr_of(const char *text)
{
    struct net_addr addr;
    assert_int_equal(net_addr_parse(slice_str(text), &addr).code, E_OK);
    return addr;
}

static struct op_endpoint *endpoint_with(struct world *w, const char *const *texts, size_t count)
{
    struct net_addr addrs[8];
    world_publish(w, &(struct plan){.count = 1});
    struct op_endpoint *e = world_pick_endpoint(w, 0);
    for (size_t i = 0; i < count; i++) {
        addrs[i] = addr_of(texts[i]);
    }
    assert_int_equal(op_addresses_set(e, addrs, count).code, E_OK);
    return e;
}

static void expect_next(struct op_endpoint *e, const char *wanted)
{
    char text[NET_ADDR_TEXT_MAX];
    assert_string_equal(net_addr_text(&op_addresses_next(e)->addr, text), wanted);
}

static uint64_t now_ns(struct world *w)
{
    return net_loop_now_ns(w->loop);
}

static const char *const three[] = {"10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"};

static void they_are_given_in_turn(void **state)
{
    struct op_endpoint *e = endpoint_with(*state, three, 3);
    for (size_t i = 0; i < 7; i++) {
        expect_next(e, three[i % 3]);
    }
}

/* The best to reach comes first, and says which: the other family may have no way there at all. */
static void they_are_of_one_family(void **state)
{
    static const char *const mixed[] = {"10.1.0.1:80", "[2001:db8::1]:80", "10.1.0.2:80"};
    struct op_endpoint *e = endpoint_with(*state, mixed, 3);
    assert_int_equal(e->addresses.count, 2);
    expect_next(e, "10.1.0.1:80");
    expect_next(e, "10.1.0.2:80");
    expect_next(e, "10.1.0.1:80");
}

static void one_that_fails_is_passed_over(void **state)
{
    struct world *w = *state;
    struct op_endpoint *e = endpoint_with(w, three, 3);
    struct op_address *second = &e->addresses.at[1];
    for (uint64_t ms = 1000; ms <= 60000; ms *= 2) {
        op_address_report(second, /* reached: */ false, now_ns(w));
        op_address_report(second, /* reached: */ false, now_ns(w)); /* one failure. */
        uint64_t least_ms = ms > 30000 ? 30000 : ms;
        size_t given[3] = {0};
        for (size_t i = 0; i < 12; i++) {
            given[op_addresses_next(e) - e->addresses.at]++;
        }
        assert_int_equal(given[1], 0);
        assert_int_equal(given[0], 6); /* nobody else has two turns for it. */
        assert_int_equal(given[2], 6);
        world_pass(w, least_ms / 2); /* time goes on by itself, too. */
        assert_true(second->failed_until_ns > now_ns(w));
        world_pass(w, least_ms / 2);
        assert_true(second->failed_until_ns <= now_ns(w));
    }
    op_address_report(second, /* reached: */ true, now_ns(w));
    op_address_report(second, /* reached: */ false, now_ns(w));
    assert_int_equal(second->failed_ms, 1000);
    /* When all fail they are given all the same. */
    op_address_report(&e->addresses.at[0], /* reached: */ false, now_ns(w));
    op_address_report(&e->addresses.at[2], /* reached: */ false, now_ns(w));
    size_t given[3] = {0};
    for (size_t i = 0; i < 6; i++) {
        given[op_addresses_next(e) - e->addresses.at]++;
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(given[i], 2);
    }
}

static void those_that_stay_are_the_same(void **state)
{
    struct world *w = *state;
    struct op_endpoint *e = endpoint_with(w, three, 3);
    const struct h2_pool *first = e->addresses.at[0].pool;
    const struct h2_pool *third = e->addresses.at[2].pool;
    op_address_report(&e->addresses.at[2], /* reached: */ false, now_ns(w));
    const struct net_addr after[] = {addr_of(three[2]), addr_of("10.1.0.4:80")};
    assert_int_equal(op_addresses_set(e, after, 2).code, E_OK);
    assert_int_equal(e->addresses.count, 2);
    assert_ptr_equal(e->addresses.at[0].pool, third);
    assert_int_equal(e->addresses.at[0].failed_ms, 1000);
    assert_int_equal(e->addresses.at[1].failed_ms, 0);
    assert_null(op_addresses_of(e, first));
    assert_int_equal(op_addresses_renew(e).code, E_OK);
    assert_ptr_equal(e->addresses.at[0].pool, third);
    assert_int_equal(e->addresses.at[0].failed_ms, 1000);
}

static void never_resolved(void *ctx, struct err how, const struct net_addr *addrs, size_t count)
{
    (void)ctx;
    (void)addrs;
    assert_int_equal(how.code, E_CLOSED);
    assert_int_equal(count, 0);
}

static void never_ready(struct op_wait *wait, struct h2_conn *conn, struct err why)
{
    (void)wait;
    (void)conn;
    fail_msg("%s", err_name(why.code));
}

/* Names of others take all the room that there is for look-ups. */
static void what_is_known_serves_while_nobody_can_be_asked(void **state)
{
    struct world *w = *state;
    uint64_t before = limits.dns_queries;
    struct net_addr addr;
    int fd = -1;
    limits.dns_queries = 1;
    assert_int_equal(net_listen(SLICE_LIT("127.0.0.1:0"), &fd, &addr).code, E_OK);
    struct net_dns *dns = NULL;
    assert_int_equal(net_dns_new(w->loop, "127.0.0.1:9", &dns).code, E_OK);
    assert_int_equal(
        net_dns_resolve(dns, SLICE_LIT("other.test"), 80, never_resolved, NULL, NULL).code, E_OK);
    w->host.dns = dns;
    struct op_endpoint *e = endpoint_with(w, three, 1);
    free(e->host);
    e->host = slice_dup(SLICE_LIT("orders.test"));
    struct op_wait wait = {.ready = never_ready};
    struct h2_conn *conn = NULL;
    op_addresses_free(&e->addresses);
    assert_int_equal(op_wait_start(&wait, e, 1000, &conn).code, E_QUEUE_FULL);
    assert_int_equal(op_addresses_set(e, &addr, 1).code, E_OK);
    assert_int_equal(op_wait_start(&wait, e, 1000, &conn).code, E_OK);
    assert_null(conn); /* it is being opened. */
    op_wait_cancel(&wait);
    net_dns_free(dns);
    (void)close(fd);
    limits.dns_queries = before;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(they_are_given_in_turn),
        WORLD_TEST(they_are_of_one_family),
        WORLD_TEST(one_that_fails_is_passed_over),
        WORLD_TEST(those_that_stay_are_the_same),
        WORLD_TEST(what_is_known_serves_while_nobody_can_be_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
