/* jetstream: acks, duplicates, deliveries and reconnects, on a real nats-server. */
#include "common/bus/jetstream.h"

#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/bus/subject.h"

#include "tests/support/bus_wait.h"
#include "tests/support/cmocka.h"
#include "tests/support/nats_server.h"

enum { WAIT_MS = 30000, SHORT_MS = 300 };

struct fixture {
    struct nats_server server;
    struct bus *bus;
    struct queue done;
    struct queue inbox;
};

static const char *const all_events[] = {"trilane.test.event.>"};
static const struct jetstream_stream events = {
    .name = "TRILANE_EVENTS", .subjects = all_events, .subject_count = 1, .max_bytes = 64 << 20};

static int set_up(void **state)
{
    static struct fixture f;
    ids_init();
    limits.publish_inflight = 64;
    limits.publish_timeout_ms = WAIT_MS; /* restarts take as long as they take. */
    nats_server_init(&f.server, NULL);
    nats_server_start(&f.server);
    struct bus_config config = {.urls = f.server.url, .name = "jetstream_test"};
    assert_int_equal(bus_open(&config, &f.bus).code, E_OK);
    assert_int_equal(queue_init(&f.done, 64, NULL, NULL).code, E_OK);
    assert_int_equal(queue_init(&f.inbox, 64, NULL, NULL).code, E_OK);
    assert_int_equal(bus_wait_connected(f.bus, WAIT_MS).code, E_OK);
    assert_int_equal(jetstream_stream_ensure(f.bus, &events, WAIT_MS, NULL, /* out= */ NULL).code,
                     E_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    bus_close(f->bus);
    queue_free(&f->done, jetstream_completion_drop);
    queue_free(&f->inbox, bus_message_drop);
    nats_server_free(&f->server);
    return 0;
}

static struct subject event_subject(const char *type)
{
    struct subject s;
    struct subject_event event = {.environment = SLICE_LIT("test"),
                                  .tenant = SLICE_LIT("acme"),
                                  .type = slice_str(type),
                                  .major = 1,
                                  .partition = 3};
    assert_int_equal(subject_event(&event, &s).code, E_OK);
    return s;
}

static struct err publish(struct fixture *f, const char *type, const char *id, void *ctx)
{
    struct subject subject = event_subject(type);
    struct bus_header header = {SLICE_LIT("tenant-id"), SLICE_LIT("acme")};
    struct bus_outgoing message = {.subject = subject_slice(&subject),
                                   .headers = &header,
                                   .header_count = 1,
                                   .payload = slice_str(id)};
    return jetstream_publish(f->bus, &message, slice_str(id), &f->done, ctx);
}

/* What came of a publish that is waited for. */
static struct jetstream_completion outcome(struct fixture *f)
{
    struct jetstream_completion *c = bus_wait_item(&f->done, WAIT_MS);
    assert_non_null(c);
    struct jetstream_completion copy = *c;
    jetstream_completion_free(c);
    return copy;
}

static void acknowledges_and_knows_duplicates(void **state)
{
    struct fixture *f = *state;
    int mark = 0;
    assert_int_equal(publish(f, "Ack", "a1", &mark).code, E_OK);
    struct jetstream_completion first = outcome(f);
    assert_int_equal(first.err.code, E_OK);
    assert_ptr_equal(first.ctx, &mark);
    assert_true(first.sequence > 0);
    assert_false(first.duplicate);
    assert_int_equal(publish(f, "Ack", "a1", NULL).code, E_OK);
    struct jetstream_completion again = outcome(f);
    assert_int_equal(again.err.code, E_OK);
    assert_true(again.duplicate);
    assert_int_equal(again.sequence, first.sequence);
    assert_int_equal(jetstream_inflight(f->bus), 0);
}

static void a_subject_without_a_stream_is_refused(void **state)
{
    struct fixture *f = *state;
    struct bus_outgoing message = {.subject = SLICE_LIT("nobody.home")};
    assert_int_equal(jetstream_publish(f->bus, &message, SLICE_LIT("x"), &f->done, NULL).code,
                     E_OK);
    assert_int_equal(outcome(f).err.code, E_BUS_UNAVAILABLE);
}

static void hostile_text_does_not_reach_the_wire(void **state)
{
    struct fixture *f = *state;
    struct bus_header header = {SLICE_LIT("x"), SLICE_LIT("a\r\nNats-Rollup: all")};
    struct bus_outgoing split = {
        .subject = SLICE_LIT("trilane.test.event.x"), .headers = &header, .header_count = 1};
    struct bus_outgoing spaced = {.subject = SLICE_LIT("trilane.test.event.x y")};
    assert_int_equal(jetstream_publish(f->bus, &split, SLICE_LIT("i"), &f->done, NULL).code,
                     E_MALFORMED);
    assert_int_equal(jetstream_publish(f->bus, &spaced, SLICE_LIT("i"), &f->done, NULL).code,
                     E_MALFORMED);
    assert_int_equal(jetstream_inflight(f->bus), 0);
}

static void publishes_in_flight_are_bounded(void **state)
{
    struct fixture *f = *state;
    char id[16];
    nats_server_pause(&f->server);
    for (int i = 0; i < 64; i++) {
        (void)snprintf(id, sizeof(id), "b%d", i);
        assert_int_equal(publish(f, "Bound", id, NULL).code, E_OK);
    }
    struct err over = publish(f, "Bound", "over", NULL);
    nats_server_resume(&f->server);
    assert_int_equal(over.code, E_BUS_FULL);
    uint64_t last = 0;
    for (int i = 0; i < 64; i++) {
        struct jetstream_completion c = outcome(f);
        assert_int_equal(c.err.code, E_OK);
        assert_true(c.sequence > last); /* in the order of the publishes. */
        last = c.sequence;
    }
    assert_int_equal(publish(f, "Bound", "again", NULL).code, E_OK);
    assert_int_equal(outcome(f).err.code, E_OK);
}

static void silence_ends_with_the_timeout(void **state)
{
    struct fixture *f = *state;
    limits.publish_timeout_ms = 200;
    nats_server_pause(&f->server);
    struct err sent = publish(f, "Silent", "s1", NULL);
    struct jetstream_completion c = outcome(f);
    nats_server_resume(&f->server);
    limits.publish_timeout_ms = WAIT_MS;
    assert_int_equal(sent.code, E_OK);
    assert_int_equal(c.err.code, E_BUS_UNAVAILABLE);
    assert_int_equal(publish(f, "Silent", "s1", NULL).code, E_OK); /* the late ack finds nothing. */
    c = outcome(f);
    assert_int_equal(c.err.code, E_OK);
    assert_true(c.duplicate);
}

static struct bus_subscription *consume(struct fixture *f, const char *durable, const char *type,
                                        uint64_t ack_wait_ms)
{
    struct subject filter = event_subject(type);
    struct subject deliver;
    struct jetstream_consumer want = {.stream = "TRILANE_EVENTS",
                                      .durable = durable,
                                      .filter = filter.text,
                                      .from_start = true,
                                      .ack_wait_ms = ack_wait_ms,
                                      .max_deliver = 3};
    assert_int_equal(subject_deliver(SLICE_LIT("test"), slice_str(durable), &deliver).code, E_OK);
    want.deliver = deliver.text;
    struct bus_subscription *sub = NULL;
    assert_int_equal(
        bus_subscribe(f->bus, subject_slice(&deliver), slice_str(durable), &f->inbox, f, &sub).code,
        E_OK);
    assert_int_equal(jetstream_consumer_ensure(f->bus, &want, WAIT_MS, NULL).code, E_OK);
    return sub;
}

static struct bus_message *next_message(struct fixture *f)
{
    struct bus_message *m = bus_wait_item(&f->inbox, WAIT_MS);
    assert_non_null(m);
    return m;
}

static struct jetstream_delivery delivery_of(const struct bus_message *m)
{
    struct jetstream_delivery d;
    assert_int_equal(jetstream_delivery_parse(m->reply, &d).code, E_OK);
    return d;
}

static void delivers_until_it_is_acknowledged(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(publish(f, "Push", "p1", NULL).code, E_OK);
    uint64_t sequence = outcome(f).sequence;
    struct bus_subscription *sub = consume(f, "test_push", "Push", 1000);
    struct bus_message *m = next_message(f);
    struct jetstream_delivery d = delivery_of(m);
    assert_true(slice_eq(m->payload, SLICE_LIT("p1")));
    assert_true(slice_eq(bus_message_header(m, SLICE_LIT("tenant-id")), SLICE_LIT("acme")));
    assert_true(slice_eq(bus_message_header(m, SLICE_LIT("Nats-Msg-Id")), SLICE_LIT("p1")));
    assert_true(slice_eq(d.stream, SLICE_LIT("TRILANE_EVENTS")));
    assert_true(slice_eq(d.consumer, SLICE_LIT("test_push")));
    assert_int_equal(d.attempt, 1);
    assert_int_equal(d.stream_sequence, sequence);
    assert_ptr_equal(m->ctx, f);
    assert_int_equal(jetstream_nak(f->bus, m->reply, 0).code, E_OK);
    bus_message_free(m);
    m = next_message(f); /* at once, since it was refused. */
    assert_int_equal(delivery_of(m).attempt, 2);
    bus_message_free(m);
    m = next_message(f); /* after ack_wait, since nobody said anything. */
    assert_int_equal(delivery_of(m).attempt, 3);
    assert_int_equal(jetstream_ack(f->bus, m->reply).code, E_OK);
    bus_message_free(m);
    assert_null(bus_wait_item(&f->inbox, SHORT_MS));
    bus_unsubscribe(f->bus, sub);
}

static void waits_with_a_delayed_nak_and_stops_with_term(void **state)
{
    enum { ACK_WAIT_MS = 4000 }; /* it is no wait for an ack that brings it again. */
    struct fixture *f = *state;
    struct bus_subscription *sub = consume(f, "test_term", "Term", ACK_WAIT_MS);
    assert_int_equal(publish(f, "Term", "t1", NULL).code, E_OK);
    assert_int_equal(outcome(f).err.code, E_OK);
    struct bus_message *m = next_message(f);
    uint64_t from_ns = clock_mono_ns();
    assert_int_equal(jetstream_nak(f->bus, m->reply, 400).code, E_OK);
    bus_message_free(m);
    m = next_message(f);
    assert_true(clock_mono_ns() - from_ns > UINT64_C(300000000));
    assert_int_equal(delivery_of(m).attempt, 2);
    assert_int_equal(jetstream_term(f->bus, m->reply).code, E_OK);
    bus_message_free(m);
    assert_null(bus_wait_item(&f->inbox, ACK_WAIT_MS + 500));
    assert_int_equal(jetstream_ack(f->bus, SLICE_LIT("foo.bar")).code, E_ACK_UNKNOWN);
    bus_unsubscribe(f->bus, sub);
}

static void an_existing_stream_and_consumer_are_judged(void **state)
{
    struct fixture *f = *state;
    static const char *const other[] = {"other.>"};
    auto_buf struct buf why = BUF_MAX(256);
    struct jetstream_stream stream = events;
    stream.subjects = other;
    assert_int_equal(jetstream_stream_ensure(f->bus, &events, WAIT_MS, NULL, /* out= */ NULL).code,
                     E_OK);
    assert_int_equal(jetstream_stream_ensure(f->bus, &stream, WAIT_MS, &why, /* out= */ NULL).code,
                     E_CONFLICT);
    assert_true(slice_eq(buf_slice(&why),
                         SLICE_LIT("\"TRILANE_EVENTS\" exists and lacks a subject of ours")));
    struct jetstream_consumer want = {.stream = "TRILANE_EVENTS",
                                      .durable = "test_judge",
                                      .filter = "trilane.test.event.*.acme.*.*",
                                      .deliver = "trilane.test.deliver.test_judge"};
    assert_int_equal(jetstream_consumer_ensure(f->bus, &want, WAIT_MS, NULL).code, E_OK);
    want.ack_wait_ms = 7000; /* may be changed. */
    assert_int_equal(jetstream_consumer_ensure(f->bus, &want, WAIT_MS, NULL).code, E_OK);
    want.filter = "trilane.test.event.*.beta.*.*"; /* may not. */
    assert_int_equal(jetstream_consumer_ensure(f->bus, &want, WAIT_MS, NULL).code, E_CONFLICT);
    want.stream = "NONE";
    assert_int_equal(jetstream_consumer_ensure(f->bus, &want, WAIT_MS, NULL).code, E_NOT_FOUND);
}

static void knows_the_server(void **state)
{
    struct fixture *f = *state;
    struct jetstream_server server;
    assert_int_equal(jetstream_server_ask(f->bus, WAIT_MS, &server).code, E_OK);
    assert_int_equal(server.major, 2);
    assert_true(server.minor >= 9);
    assert_true(server.jetstream);
    assert_true(server.headers);
    assert_int_equal(server.max_payload, 1 << 20);
}

/* What waits for an ack when the server dies is in the stream once after it came back. */
static void a_restart_loses_and_doubles_nothing(void **state)
{
    struct fixture *f = *state;
    char id[16];
    uint64_t sequences[40];
    limits.publish_timeout_ms = WAIT_MS; /* the server may take its time to start. */
    nats_server_pause(&f->server);
    for (int i = 0; i < 40; i++) {
        (void)snprintf(id, sizeof(id), "r%d", i);
        assert_int_equal(publish(f, "Restart", id, NULL).code, E_OK);
    }
    nats_server_kill(&f->server);
    nats_server_start(&f->server);
    for (int i = 0; i < 40; i++) {
        struct jetstream_completion c = outcome(f);
        assert_int_equal(c.err.code, E_OK);
        sequences[i] = c.sequence;
        assert_true(i == 0 || sequences[i] == sequences[i - 1] + 1);
    }
    limits.publish_timeout_ms = 5000;
    struct bus_stats stats;
    bus_stats(f->bus, &stats);
    assert_int_equal(stats.connects, 2);
    assert_int_equal(stats.disconnects, 1);
    struct bus_subscription *sub = consume(f, "test_restart", "Restart", WAIT_MS);
    for (int i = 0; i < 40; i++) {
        struct bus_message *m = next_message(f);
        assert_int_equal(delivery_of(m).stream_sequence, sequences[i]);
        assert_int_equal(jetstream_ack(f->bus, m->reply).code, E_OK);
        bus_message_free(m);
    }
    bus_unsubscribe(f->bus, sub);
}

/* A durable consumer goes on after the reconnect, by the same subscription. */
static void deliveries_go_on_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct bus_subscription *sub = consume(f, "test_on", "On", WAIT_MS);
    nats_server_kill(&f->server);
    nats_server_start(&f->server);
    enum err_code code = E_BUS_UNAVAILABLE;
    while (code == E_BUS_UNAVAILABLE) { /* ends: it reconnects, and the server has the stream. */
        assert_int_equal(bus_wait_connected(f->bus, WAIT_MS).code, E_OK);
        struct err sent = publish(f, "On", "o1", NULL);
        code = err_ok(sent) ? outcome(f).err.code : sent.code;
    }
    assert_int_equal(code, E_OK);
    struct bus_message *m = next_message(f);
    assert_true(slice_eq(m->payload, SLICE_LIT("o1")));
    assert_int_equal(jetstream_ack(f->bus, m->reply).code, E_OK);
    bus_message_free(m);
    bus_unsubscribe(f->bus, sub);
}

static void closing_completes_what_waits(void **state)
{
    struct fixture *f = *state;
    struct bus *bus = NULL;
    struct queue done;
    struct bus_config config = {.urls = f->server.url};
    struct bus_outgoing message = {.subject = SLICE_LIT("trilane.test.event.x")};
    assert_int_equal(queue_init(&done, 64, NULL, NULL).code, E_OK);
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    nats_server_pause(&f->server);
    assert_int_equal(jetstream_publish(bus, &message, SLICE_LIT("c"), &done, NULL).code, E_OK);
    bus_close(bus);
    nats_server_resume(&f->server);
    struct jetstream_completion *c = bus_wait_item(&done, 0);
    assert_non_null(c);
    assert_int_equal(c->err.code, E_BUS_UNAVAILABLE);
    jetstream_completion_free(c); /* frees the table, too: ASan would say. */
    queue_free(&done, NULL);
}

/* A server whose account has one stream and one consumer. */
static void what_a_limit_refuses_is_said(void **state)
{
    (void)state;
    static const char limited[] =
        "accounts: { A: { jetstream: { max_streams: 1, max_consumers: 1 },"
        " users: [ { user: \"a\", password: \"b\" } ] } }\n";
    static const char *const others[] = {"others"};
    const struct jetstream_stream second = {
        .name = "OTHERS", .subjects = others, .subject_count = 1, .max_bytes = 1 << 20};
    const struct jetstream_consumer wanted[] = {{.stream = events.name, .durable = "one"},
                                                {.stream = events.name, .durable = "two"}};
    struct nats_server server;
    struct bus *bus = NULL;
    char text[512];
    auto_buf struct buf why = BUF_MAX(sizeof(text));
    nats_server_init(&server, limited);
    nats_server_start(&server);
    struct bus_config config = {.urls = server.url, .user = "a", .password = "b"};
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(jetstream_stream_ensure(bus, &events, WAIT_MS, &why, /* out= */ NULL).code,
                     E_OK);
    assert_int_equal(jetstream_stream_ensure(bus, &second, WAIT_MS, &why, /* out= */ NULL).code,
                     E_BUS_LIMIT);
    (void)snprintf(text, sizeof(text), "%.*s", SLICE_ARG(buf_slice(&why)));
    assert_string_equal(text,
                        "\"OTHERS\" cannot be had: $JS.API: maximum number of streams reached");
    buf_clear(&why);
    assert_int_equal(jetstream_consumer_ensure(bus, &wanted[0], WAIT_MS, &why).code, E_OK);
    assert_int_equal(jetstream_consumer_ensure(bus, &wanted[1], WAIT_MS, &why).code, E_BUS_LIMIT);
    (void)snprintf(text, sizeof(text), "%.*s", SLICE_ARG(buf_slice(&why)));
    assert_string_equal(text, "\"two\" cannot be had: $JS.API: maximum consumers limit reached");
    bus_close(bus);
    nats_server_free(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledges_and_knows_duplicates),
        cmocka_unit_test(a_subject_without_a_stream_is_refused),
        cmocka_unit_test(hostile_text_does_not_reach_the_wire),
        cmocka_unit_test(publishes_in_flight_are_bounded),
        cmocka_unit_test(silence_ends_with_the_timeout),
        cmocka_unit_test(delivers_until_it_is_acknowledged),
        cmocka_unit_test(waits_with_a_delayed_nak_and_stops_with_term),
        cmocka_unit_test(an_existing_stream_and_consumer_are_judged),
        cmocka_unit_test(knows_the_server),
        cmocka_unit_test(a_restart_loses_and_doubles_nothing),
        cmocka_unit_test(deliveries_go_on_after_a_restart),
        cmocka_unit_test(what_a_limit_refuses_is_said),
        cmocka_unit_test(closing_completes_what_waits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
