/* Proves: literals, the hosts file and a real answer over UDP become addresses; refusals, silence,
 * bounds and cancelling end each query once. The server is a socket of the test's own. */
#include "common/net/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "common/base/limits.h"

#include "tests/support/cmocka.h"

enum { WAIT_MS = 10000, ADDRS_KEPT = 64, QUESTION_MAX = 512, TYPE_A = 1, TYPE_AAAA = 28 };

/* A name server: answers each question for A with 'records' addresses 10.0.0.N. */
struct name_server {
    uv_poll_t poll;
    int fd;
    char text[32];
    unsigned records;
    unsigned rcode;
    bool silent;
    unsigned questions;
    unsigned of_two; /* questions for two.example.test: asked again when an answer is late. */
    unsigned types;  /* of those; 1: A; 2: AAAA. */
};

struct result {
    bool told;
    unsigned times;
    struct err how;
    struct net_addr addrs[ADDRS_KEPT];
    size_t count;
    const struct net_dns *dns; /* NULL: how long it holds is not asked. */
    int64_t ttl_s;
};

static void on_result(void *ctx, struct err how, const struct net_addr *addrs, size_t count)
{
    struct result *r = ctx;
    assert_true(count <= ADDRS_KEPT);
    r->told = true;
    r->times++;
    r->how = how;
    r->count = count;
    memcpy(r->addrs, addrs, count * sizeof(*addrs));
    r->ttl_s = r->dns == NULL ? 0 : net_dns_ttl_s(r->dns);
}

/* "two.example.test", as a question has it. */
static const uint8_t two[] = "\3two\7example\4test";

static void note_question(struct name_server *s, const uint8_t *m, size_t size)
{
    s->questions++;
    if (size >= 12 + sizeof(two) + 2 && memcmp(m + 12, two, sizeof(two)) == 0) {
        s->of_two++;
        s->types |= m[12 + sizeof(two) + 1] == TYPE_AAAA ? 2U : 1U;
    }
}

/* Turns a question (RFC 1035, 4.1) into its answer; returns its size. */
static size_t answer(struct name_server *s, uint8_t *m, size_t size)
{
    size_t at = 12;
    while (at < size && m[at] != 0) {
        at += m[at] + 1U;
    }
    unsigned type = m[at + 2];
    size_t end = at + 5; /* behind root label, type and class. */
    unsigned records = s->rcode == 0 && type == TYPE_A ? s->records : 0;
    m[2] = 0x84; /* an answer, with authority. */
    m[3] = (uint8_t)s->rcode;
    memset(m + 6, 0, 6);
    m[7] = (uint8_t)records;
    for (unsigned i = 0; i < records; i++) {
        const uint8_t record[] = {0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 0};
        memcpy(m + end, record, sizeof(record));
        m[end + 15] = (uint8_t)(i + 1);
        m[end + 9] = (uint8_t)(9 - i % 8); /* each holds for a second less than the one before. */
        end += sizeof(record);
    }
    return end;
}

static void on_question(uv_poll_t *poll, int status, int events)
{
    struct name_server *s = poll->data;
    uint8_t m[QUESTION_MAX * 4];
    struct net_addr from = {0};
    socklen_t from_size = sizeof(from.sa);
    (void)status;
    (void)events;
    ssize_t got = recvfrom(s->fd, m, QUESTION_MAX, 0, &from.sa.any, &from_size);
    note_question(s, m, got < 0 ? 0 : (size_t)got);
    if (got < 17 || s->silent) {
        return;
    }
    size_t size = answer(s, m, (size_t)got);
    assert_int_equal(sendto(s->fd, m, size, 0, &from.sa.any, from_size), size);
}

struct rig {
    struct net_loop *loop;
    struct net_dns *dns;
    struct name_server server;
};

static void rig_init(struct rig *r)
{
    struct net_addr addr = {0};
    socklen_t size = sizeof(addr.sa);
    *r = (struct rig){.server = {.records = 2}};
    assert_int_equal(net_loop_new(&r->loop).code, E_OK);
    r->server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(net_addr_parse(SLICE_LIT("127.0.0.1:0"), &addr).code, E_OK);
    assert_int_equal(bind(r->server.fd, &addr.sa.any, net_addr_size(&addr)), 0);
    assert_int_equal(getsockname(r->server.fd, &addr.sa.any, &size), 0);
    (void)snprintf(r->server.text, sizeof(r->server.text), "127.0.0.1:%u", net_addr_port(&addr));
    assert_int_equal(uv_poll_init(net_loop_uv(r->loop), &r->server.poll, r->server.fd), 0);
    r->server.poll.data = &r->server;
    assert_int_equal(uv_poll_start(&r->server.poll, UV_READABLE, on_question), 0);
    assert_int_equal(net_dns_new(r->loop, r->server.text, &r->dns).code, E_OK);
}

static void rig_free(struct rig *r)
{
    net_dns_free(r->dns);
    net_loop_free(r->loop);
    assert_int_equal(close(r->server.fd), 0);
}

static struct result resolve(struct rig *r, const char *host)
{
    struct result result = {.dns = r->dns};
    assert_int_equal(net_dns_resolve(r->dns, slice_str(host), 80, on_result, &result, NULL).code,
                     E_OK);
    assert_false(result.told);
    assert_true(net_loop_run_until(r->loop, &result.told, WAIT_MS));
    assert_int_equal(result.times, 1);
    return result;
}

static void expect_addr(const struct result *r, size_t index, const char *wanted)
{
    char text[NET_ADDR_TEXT_MAX];
    assert_true(index < r->count);
    assert_string_equal(net_addr_text(&r->addrs[index], text), wanted);
}

static void literals_ask_nobody(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct result four = resolve(&r, "192.0.2.7");
    expect_addr(&four, 0, "192.0.2.7:80");
    struct result six = resolve(&r, "2001:db8::1");
    expect_addr(&six, 0, "[2001:db8::1]:80");
    assert_int_equal(six.ttl_s, NET_DNS_TTL_UNSAID);
    assert_int_equal(r.server.questions, 0);
    rig_free(&r);
}

static void names_are_asked_for(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct result found = resolve(&r, "two.example.test");
    assert_int_equal(found.how.code, E_OK);
    assert_int_equal(found.count, 2);
    assert_int_equal(net_addr_port(&found.addrs[0]), 80);
    assert_int_equal(r.server.types, 1 | 2);
    assert_int_equal(found.ttl_s, 8); /* of 9 and 8. */
    struct result local = resolve(&r, "localhost");
    assert_int_equal(local.how.code, E_OK);
    assert_int_equal(local.ttl_s, 0); /* the hosts file is read with every question. */
    /* Nothing was asked for it: the hosts file, or its meaning by RFC 6761. */
    assert_int_equal(r.server.questions, r.server.of_two);
    rig_free(&r);
}

static void addresses_are_bounded(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    r.server.records = (unsigned)limits.dns_addresses + 1;
    struct result found = resolve(&r, "many.example.test");
    assert_int_equal(found.how.code, E_OK);
    assert_int_equal(found.count, limits.dns_addresses);
    rig_free(&r);
}

static void no_such_name_and_no_address_are_not_found(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    r.server.records = 0;
    assert_int_equal(resolve(&r, "none.example.test").how.code, E_NOT_FOUND);
    r.server.rcode = 3;
    assert_int_equal(resolve(&r, "gone.example.test").how.code, E_NOT_FOUND);
    rig_free(&r);
}

static void what_is_no_name_is_refused(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    char longest[260];
    memset(longest, 'a', sizeof(longest));
    for (size_t i = 60; i < sizeof(longest); i += 61) {
        longest[i] = '.';
    }
    longest[254] = '\0';
    static const char *const bad[] = {"", ".", "a..b", ".a", "a b", "a/b", "a\xc3\xa4.b", "[::1]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(resolve(&r, bad[i]).how.code, E_MALFORMED);
    }
    assert_int_equal(resolve(&r, longest).how.code, E_MALFORMED);
    assert_int_equal(r.server.questions, 0);
    longest[253] = '\0';
    assert_int_equal(resolve(&r, longest).how.code, E_OK);
    rig_free(&r);
}

static void silence_ends_in_time(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.dns_timeout_ms;
    limits.dns_timeout_ms = 100;
    rig_init(&r);
    r.server.silent = true;
    assert_int_equal(resolve(&r, "silent.example.test").how.code, E_TIMEOUT);
    limits.dns_timeout_ms = before;
    rig_free(&r);
}

static void queries_are_bounded_cancelled_and_closed(void **state)
{
    (void)state;
    struct rig r;
    uint64_t before = limits.dns_queries;
    limits.dns_queries = 2;
    rig_init(&r);
    r.server.silent = true;
    struct result results[3] = {{0}};
    struct net_dns_query *first = NULL;
    struct slice host = SLICE_LIT("a.example.test");
    assert_int_equal(net_dns_resolve(r.dns, host, 1, on_result, &results[0], &first).code, E_OK);
    assert_int_equal(net_dns_resolve(r.dns, host, 1, on_result, &results[1], NULL).code, E_OK);
    assert_int_equal(net_dns_resolve(r.dns, host, 1, on_result, &results[2], NULL).code,
                     E_QUEUE_FULL);
    net_dns_cancel(first);
    rig_free(&r);
    assert_false(results[0].told);
    assert_int_equal(results[1].times, 1);
    assert_int_equal(results[1].how.code, E_CLOSED);
    limits.dns_queries = before;
}

int main(void)
{
    limits.dns_timeout_ms = 60000; /* for a machine that is slow. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals_ask_nobody),
        cmocka_unit_test(names_are_asked_for),
        cmocka_unit_test(addresses_are_bounded),
        cmocka_unit_test(no_such_name_and_no_address_are_not_found),
        cmocka_unit_test(what_is_no_name_is_refused),
        cmocka_unit_test(silence_ends_in_time),
        cmocka_unit_test(queries_are_bounded_cancelled_and_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
