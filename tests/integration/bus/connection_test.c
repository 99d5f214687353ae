/* bus: connects when it can, says how it is, and passes core messages, on a real nats-server. */
#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/bus/bus.h"

#include "tests/support/bus_wait.h"
#include "tests/support/cmocka.h"
#include "tests/support/nats_server.h"

enum { WAIT_MS = 15000 };

static struct bus *open_bus(const struct nats_server *server, struct queue *states);
static void wait_down(struct bus *bus);

static void starts_while_the_server_is_down(void **state)
{
    (void)state;
    struct nats_server server;
    nats_server_init(&server, NULL);
    struct bus *bus = open_bus(&server, NULL);
    struct bus_outgoing hint = {.subject = SLICE_LIT("hint")};
    assert_int_equal(bus_state(bus), BUS_CONNECTING);
    assert_int_equal(bus_publish(bus, &hint).code, E_BUS_UNAVAILABLE);
    assert_int_equal(bus_wait_connected(bus, 50).code, E_TIMEOUT);
    nats_server_start(&server);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(bus_down_ms(bus), 0);
    assert_int_equal(bus_publish(bus, &hint).code, E_OK);
    bus_close(bus);
    nats_server_free(&server);
}

static void a_bus_that_never_connects_closes(void **state)
{
    (void)state;
    struct nats_server server;
    nats_server_init(&server, NULL);
    bus_close(open_bus(&server, NULL));
    bus_close(NULL);
    nats_server_free(&server);
}

static void refuses_wrong_settings(void **state)
{
    (void)state;
    struct bus *bus = NULL;
    struct bus_config none = {.urls = ""};
    struct bus_config half = {.urls = "nats://127.0.0.1:1", .user = "a"};
    struct bus_config inbox = {.urls = "nats://127.0.0.1:1", .inbox_prefix = "a.*"};
    assert_int_equal(bus_open(&none, &bus).code, E_USAGE);
    assert_int_equal(bus_open(&half, &bus).code, E_USAGE);
    assert_int_equal(bus_open(&inbox, &bus).code, E_USAGE);
    assert_null(bus);
}

static void passes_messages_to_queues(void **state)
{
    (void)state;
    struct nats_server server;
    struct queue inbox;
    struct bus_subscription *all = NULL;
    struct bus_header headers[] = {{SLICE_LIT("a"), SLICE_LIT("1")},
                                   {SLICE_LIT("b"), SLICE_LIT(" ")},
                                   {SLICE_LIT("c"), SLICE_LIT("x: y")}};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    assert_int_equal(queue_init(&inbox, 2, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(&server, NULL);
    assert_int_equal(
        bus_subscribe(bus, SLICE_LIT("t.*"), (struct slice){0}, &inbox, &inbox, &all).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    struct bus_outgoing message = {.subject = SLICE_LIT("t.one"),
                                   .reply = SLICE_LIT("back"),
                                   .headers = headers,
                                   .header_count = 3,
                                   .payload = slice_of("\0x\r\n", 4)};
    assert_int_equal(bus_publish(bus, &message).code, E_OK);
    struct bus_message *m = bus_wait_item(&inbox, WAIT_MS);
    assert_non_null(m);
    assert_ptr_equal(m->ctx, &inbox);
    assert_true(slice_eq(m->subject, SLICE_LIT("t.one")));
    assert_true(slice_eq(m->reply, SLICE_LIT("back")));
    assert_true(slice_eq(m->payload, message.payload));
    assert_int_equal(m->header_count, 2); /* the blank one is not sent. */
    assert_true(slice_eq(bus_message_header(m, SLICE_LIT("c")), SLICE_LIT("x: y")));
    assert_true(slice_eq(bus_message_header(m, SLICE_LIT("a")), SLICE_LIT("1")));
    assert_int_equal(bus_message_header(m, SLICE_LIT("none")).size, 0);
    bus_message_free(m);
    for (int i = 0; i < 5; i++) { /* three more than the queue takes. */
        assert_int_equal(bus_publish(bus, &message).code, E_OK);
    }
    struct bus_stats stats = {0};
    /* Ends: all of them arrive. */
    while (stats.messages_in + stats.dropped_in < 6 || stats.messages_out < 6) {
        bus_stats(bus, &stats);
    }
    assert_int_equal(stats.dropped_in, 3);
    assert_int_equal(stats.messages_out, 6);
    bus_unsubscribe(bus, all);
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
    nats_server_free(&server);
}

/* By a client that says what ours never would. */
static void say(const struct nats_server *server, const char *text)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(server->port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    uint8_t bytes[512];
    while (read(fd, bytes, sizeof(bytes)) > 0) { /* ends: the server closes. */
    }
    (void)close(fd);
}

static void assert_next(struct queue *inbox, struct slice payload)
{
    struct bus_message *m = bus_wait_item(inbox, WAIT_MS);
    assert_non_null(m);
    assert_true(slice_eq(m->payload, payload));
    assert_int_equal(m->header_count, 0);
    bus_message_free(m);
}

/* As nats-server 2.9 breaks them when JetStream listens behind a service import. */
static void who_reads_payloads_alone_bears_broken_headers(void **state)
{
    (void)state;
    struct nats_server server;
    struct queue inbox;
    struct queue payloads;
    struct bus_subscription *whole = NULL;
    struct bus_subscription *sub = NULL;
    struct bus_outgoing message = {.subject = SLICE_LIT("s"), .payload = SLICE_LIT("first")};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    assert_int_equal(queue_init(&inbox, 4, NULL, NULL).code, E_OK);
    assert_int_equal(queue_init(&payloads, 4, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(&server, NULL);
    assert_int_equal(
        bus_subscribe(bus, SLICE_LIT("s"), (struct slice){0}, &inbox, NULL, &whole).code, E_OK);
    assert_int_equal(bus_subscribe_payloads(bus, SLICE_LIT("s"), 6, &payloads, NULL, &sub).code,
                     E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(bus_publish(bus, &message).code, E_OK);
    assert_next(&inbox, SLICE_LIT("first"));
    assert_next(&payloads, SLICE_LIT("first"));
    say(&server, "CONNECT {\"headers\":true,\"verbose\":false}\r\n"
                 "HPUB s 32 38\r\nNATS/1.0\r\n\r\nts-Request-Info: x\r\n"
                 "second\r\nPING\r\n");
    assert_next(&payloads, SLICE_LIT("second"));
    assert_int_equal(bus_publish(bus, &message).code, E_OK);
    assert_next(&inbox, SLICE_LIT("first"));
    bus_unsubscribe(bus, whole);
    bus_unsubscribe(bus, sub);
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
    queue_free(&payloads, bus_message_drop);
    nats_server_free(&server);
}

/* A queue of small things holds no more than they take, whoever sends larger ones. */
static void a_payload_that_is_too_large_is_not_kept(void **state)
{
    (void)state;
    struct nats_server server;
    struct queue inbox;
    struct bus_subscription *sub = NULL;
    struct bus_stats stats = {0};
    struct bus_outgoing large = {.subject = SLICE_LIT("s"), .payload = SLICE_LIT("1234567")};
    struct bus_outgoing fits = {.subject = SLICE_LIT("s"), .payload = SLICE_LIT("123456")};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    assert_int_equal(queue_init(&inbox, 4, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(&server, NULL);
    assert_int_equal(bus_subscribe_payloads(bus, SLICE_LIT("s"), 6, &inbox, NULL, &sub).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(bus_publish(bus, &large).code, E_OK);
    assert_int_equal(bus_publish(bus, &fits).code, E_OK);
    assert_next(&inbox, fits.payload);
    bus_stats(bus, &stats);
    assert_int_equal(stats.dropped_in, 1);
    bus_unsubscribe(bus, sub);
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
    nats_server_free(&server);
}

static struct bus_message *wait_taken(struct bus_subscription *sub)
{
    struct bus_message *m = NULL;
    for (int ms = 0; m == NULL && ms < WAIT_MS; ms++) {
        m = bus_take(sub);
        (void)poll(NULL, 0, m == NULL);
    }
    assert_non_null(m);
    return m;
}

static void messages_wait_until_they_are_taken(void **state)
{
    (void)state;
    enum { MESSAGES = 2, BYTES = 1000 };
    static const uint8_t large[BYTES + 1];
    struct nats_server server;
    struct bus_subscription *sub = NULL;
    struct bus_outgoing numbered[] = {
        {.subject = SLICE_LIT("w"), .payload = SLICE_LIT("1")},
        {.subject = SLICE_LIT("w"), .payload = SLICE_LIT("2")},
        {.subject = SLICE_LIT("w"), .payload = SLICE_LIT("3")},
    };
    struct bus_outgoing too_large = {.subject = SLICE_LIT("w"),
                                     .payload = slice_of(large, sizeof(large))};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    struct bus *bus = open_bus(&server, NULL);
    struct slice subject = SLICE_LIT("w");
    assert_int_equal(bus_subscribe_waiting(bus, SLICE_LIT("a b"), 1, 1, &sub).code, E_MALFORMED);
    assert_int_equal(bus_subscribe_waiting(bus, subject, 0, 1, &sub).code, E_MALFORMED);
    assert_int_equal(bus_subscribe_waiting(bus, subject, MESSAGES, BYTES, &sub).code, E_OK);
    assert_null(bus_take(sub));
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    for (size_t i = 0; i < sizeof(numbered) / sizeof(numbered[0]); i++) {
        assert_int_equal(bus_publish(bus, &numbered[i]).code, E_OK);
    }
    struct bus_stats stats = {0};
    while (stats.slow_consumer == 0) { /* ends: there is no room for the third. */
        bus_stats(bus, &stats);
    }
    for (size_t i = 0; i < MESSAGES; i++) {
        struct bus_message *m = wait_taken(sub);
        assert_true(slice_eq(m->payload, numbered[i].payload));
        bus_message_free(m);
    }
    assert_null(bus_take(sub));
    assert_int_equal(bus_publish(bus, &too_large).code, E_OK);
    assert_int_equal(bus_publish(bus, &numbered[2]).code, E_OK);
    struct bus_message *third = wait_taken(sub);
    assert_true(slice_eq(third->payload, numbered[2].payload));
    bus_message_free(third);
    nats_server_kill(&server); /* it goes on with the next connection. */
    wait_down(bus);
    nats_server_start(&server);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(bus_publish(bus, &numbered[0]).code, E_OK);
    bus_message_free(wait_taken(sub));
    bus_unsubscribe(bus, sub);
    bus_close(bus);
    nats_server_free(&server);
}

static void a_group_shares_and_an_ended_subscription_hears_nothing(void **state)
{
    (void)state;
    struct nats_server server;
    struct queue inbox;
    struct bus_subscription *one = NULL;
    struct bus_subscription *two = NULL;
    struct bus_outgoing message = {.subject = SLICE_LIT("g")};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    assert_int_equal(queue_init(&inbox, 64, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(&server, NULL);
    struct slice group = SLICE_LIT("team");
    assert_int_equal(bus_subscribe(bus, SLICE_LIT("g"), group, &inbox, NULL, &one).code, E_OK);
    assert_int_equal(bus_subscribe(bus, SLICE_LIT("g"), group, &inbox, NULL, &two).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(bus_publish(bus, &message).code, E_OK);
    }
    for (int i = 0; i < 10; i++) {
        struct bus_message *m = bus_wait_item(&inbox, WAIT_MS);
        assert_non_null(m);
        bus_message_free(m);
    }
    bus_unsubscribe(bus, one);
    bus_unsubscribe(bus, two);
    assert_int_equal(bus_publish(bus, &message).code, E_OK);
    assert_null(bus_wait_item(&inbox, 200));
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
    nats_server_free(&server);
}

static void told(enum bus_state state, void *ctx)
{
    static const enum bus_state known[] = {BUS_CONNECTING, BUS_CONNECTED, BUS_RECONNECTING,
                                           BUS_CLOSED};
    assert_int_equal(queue_push(ctx, (void *)(uintptr_t)&known[state]).code, E_OK);
}

static void tells_each_change_and_subscribes_anew(void **state)
{
    (void)state;
    struct nats_server server;
    struct queue states;
    struct queue inbox;
    struct bus_subscription *sub = NULL;
    struct bus_outgoing message = {.subject = SLICE_LIT("again")};
    static const enum bus_state expected[] = {BUS_CONNECTED, BUS_RECONNECTING, BUS_CONNECTED,
                                              BUS_CLOSED};
    nats_server_init(&server, NULL);
    nats_server_start(&server);
    assert_int_equal(queue_init(&states, 16, NULL, NULL).code, E_OK);
    assert_int_equal(queue_init(&inbox, 16, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(&server, &states);
    assert_int_equal(
        bus_subscribe(bus, SLICE_LIT("again"), (struct slice){0}, &inbox, NULL, &sub).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    nats_server_kill(&server);
    wait_down(bus);
    assert_int_equal(bus_publish(bus, &message).code, E_BUS_UNAVAILABLE);
    nats_server_start(&server);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(bus_publish(bus, &message).code, E_OK);
    struct bus_message *m = bus_wait_item(&inbox, WAIT_MS);
    assert_non_null(m);
    bus_message_free(m);
    bus_close(bus);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        enum bus_state *was = bus_wait_item(&states, 0);
        assert_non_null(was);
        assert_int_equal(*was, expected[i]);
    }
    queue_free(&states, NULL);
    queue_free(&inbox, NULL);
    nats_server_free(&server);
}

/* nats.c gives a connection up after two refused logins; the bus does not. */
static void a_refused_login_is_tried_again(void **state)
{
    (void)state;
    struct nats_server open;
    nats_server_init(&open, NULL);
    nats_server_start(&open);
    struct bus_config config = {.urls = open.url, .user = "a", .password = "b"};
    struct bus *bus = NULL;
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    nats_server_kill(&open);
    nats_server_configure(&open, "authorization { user: a, password: other }");
    nats_server_start(&open);
    wait_down(bus);
    assert_int_equal(bus_wait_connected(bus, 3000).code, E_TIMEOUT);
    nats_server_kill(&open);
    nats_server_configure(&open, "authorization { user: a, password: b }");
    nats_server_start(&open);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    bus_close(bus);
    nats_server_free(&open);
}

/* ---- pieces ---- */

static struct bus *open_bus(const struct nats_server *server, struct queue *states)
{
    struct bus *bus = NULL;
    struct bus_config config = {
        .urls = server->url, .on_state = states == NULL ? NULL : told, .on_state_ctx = states};
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    return bus;
}

static void wait_down(struct bus *bus)
{
    while (bus_down_ms(bus) == 0) { /* ends: the socket closes at once. */
        assert_in_range(bus_wait_connected(bus, 1).code, 0, E_COUNT);
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_while_the_server_is_down),
        cmocka_unit_test(a_bus_that_never_connects_closes),
        cmocka_unit_test(refuses_wrong_settings),
        cmocka_unit_test(passes_messages_to_queues),
        cmocka_unit_test(who_reads_payloads_alone_bears_broken_headers),
        cmocka_unit_test(a_payload_that_is_too_large_is_not_kept),
        cmocka_unit_test(messages_wait_until_they_are_taken),
        cmocka_unit_test(a_group_shares_and_an_ended_subscription_hears_nothing),
        cmocka_unit_test(tells_each_change_and_subscribes_anew),
        cmocka_unit_test(a_refused_login_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
