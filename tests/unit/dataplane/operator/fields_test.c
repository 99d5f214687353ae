/* Proves which fields of a caller go on to an upstream, which are said by the node alone, and what
 * of an answer goes back. */
#include "dataplane/operator/fields.h"

#include <string.h>

#include "common/net/loop.h"
#include "dataplane/request/request.h"

#include "tests/support/cmocka.h"

enum { FIELDS_MAX = 40 };

static struct {
    struct h2_field at[FIELDS_MAX];
    struct h2_fields received;
    struct h2_field out[FIELDS_MAX + OP_FIELDS_OURS];
    size_t count;
    struct op_fields_room room;
    struct dp_request_pool pool;
    struct dp_caller caller;
    struct dp_transport transport;
    struct dp_request rq;
} w;

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    assert_true(err_ok(net_loop_new(&w.pool.loop)));
    w.received = (struct h2_fields){.at = w.at, .capacity = FIELDS_MAX};
    w.caller = (struct dp_caller){.tenant = SLICE_LIT("acme"),
                                  .spiffe = SLICE_LIT("spiffe://t/tenant/acme/service/web")};
    w.rq = (struct dp_request){.pool = &w.pool,
                               .caller = &w.caller,
                               .transport = &w.transport,
                               .correlation = SLICE_LIT("corr"),
                               .request_id = SLICE_LIT("rq"),
                               .deadline_ns = net_loop_now_ns(w.pool.loop) + 2000000000};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    net_loop_free(w.pool.loop);
    return 0;
}

static void receive(const char *name, const char *value)
{
    struct h2_fields *f = &w.received;
    enum h2_token token = h2_token_find(slice_str(name));
    assert_true(f->count < FIELDS_MAX);
    w.at[f->count] = (struct h2_field){
        .name = slice_str(name), .value = slice_str(value), .token = (uint8_t)token};
    if (token != H2_TOKEN_OTHER && (f->seen >> token & 1) == 0) {
        f->seen |= UINT64_C(1) << token;
        f->first[token] = f->count;
    }
    f->count++;
}

static void receive_request(void)
{
    receive(":method", "POST");
    receive(":scheme", "https");
    receive(":path", "/a.B/C");
    receive(":authority", "b.example");
    receive("te", "trailers");
    receive("content-type", "application/grpc+proto");
}

static void send_attempt(struct op_fields_try how)
{
    w.count = op_request_fields(&w.rq, &w.received, &how, &w.room, w.out);
}

static void send_request(void)
{
    send_attempt((struct op_fields_try){.until_ns = w.rq.deadline_ns});
}

/* How often the field goes out, and its first value. */
static size_t sent(const char *name, struct slice *out_value)
{
    size_t found = 0;
    for (size_t i = 0; i < w.count; i++) {
        if (slice_eq(w.out[i].name, slice_str(name))) {
            *out_value = found == 0 ? w.out[i].value : *out_value;
            found++;
        }
    }
    return found;
}

static void expect_once(const char *name, const char *value)
{
    struct slice got = {0};
    assert_int_equal(sent(name, &got), 1);
    assert_true(slice_eq(got, slice_str(value)));
}

static void expect_none(const char *name)
{
    struct slice got = {0};
    assert_int_equal(sent(name, &got), 0);
}

static void the_node_says_the_context_itself(void **state)
{
    (void)state;
    receive_request();
    const char *const lies[] = {"x-caller-id", "x-tenant-id", "x-correlation-id", "x-request-id"};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        receive(lies[i], "lie");
    }
    receive("grpc-timeout", "9H");
    receive("x-request-timeout-ms", "9");
    receive("traceparent", "lie");
    send_request();
    assert_true(slice_eq(w.out[0].name, SLICE_LIT(":method")));
    expect_once(":scheme", "http");
    expect_once(":path", "/a.B/C");
    expect_once(":authority", "b.example");
    expect_once("te", "trailers");
    expect_once("content-type", "application/grpc+proto");
    expect_once("x-caller-id", "spiffe://t/tenant/acme/service/web");
    expect_once("x-tenant-id", "acme");
    expect_once("x-correlation-id", "corr");
    expect_once("x-request-id", "rq");
    expect_once("grpc-timeout", "2000000u");
    expect_none("x-request-timeout-ms");
    struct slice parent = {0};
    assert_int_equal(sent("traceparent", &parent), 1);
    assert_int_equal(parent.size, TRACE_PARENT_SIZE);
}

static void what_speaks_for_the_node_is_taken_out(void **state)
{
    (void)state;
    receive_request();
    receive("x-trilane-code", "1");
    receive("x-trilane-anything", "1");
    receive("x_trilane_other", "1");
    receive("x_caller_id", "1");
    receive("x-forwarded-client-cert", "1");
    receive("authorization", "Bearer of-ours");
    receive("x-app", "1");
    receive("x-app", "2");
    receive("grpc-encoding", "gzip");
    receive("data-bin", "AA");
    send_request();
    expect_none("x-trilane-code");
    expect_none("x-trilane-anything");
    expect_none("x_trilane_other");
    expect_none("x_caller_id");
    expect_none("x-forwarded-client-cert");
    expect_none("authorization");
    expect_once("grpc-encoding", "gzip");
    expect_once("data-bin", "AA");
    struct slice value = {0};
    assert_int_equal(sent("x-app", &value), 2);
}

static void a_token_beside_a_certificate_is_not_ours(void **state)
{
    (void)state;
    receive_request();
    receive("authorization", "Bearer for-the-upstream");
    w.rq.in.spiffe = w.caller.spiffe;
    w.transport.upstream_tls = 1;
    send_request();
    expect_once("authorization", "Bearer for-the-upstream");
    expect_once(":scheme", "https");
}

static void host_stands_in_for_authority(void **state)
{
    (void)state;
    receive(":path", "/a.B/C");
    receive("host", "c.example");
    w.rq.in.host = SLICE_LIT("c.example");
    w.rq.deadline_ns = 0; /* passed: a hop is told the least, never none. */
    send_request();
    expect_once(":authority", "c.example");
    expect_none("host");
    expect_once("grpc-timeout", "1n");
}

static void answers_do_not_speak_for_the_node(void **state)
{
    (void)state;
    receive(":status", "200");
    receive("grpc-status", "0");
    receive("content-length", "7");
    receive("x-trilane-code", "OK");
    receive("x-trilane-other", "1");
    receive("x-server", "a");
    w.count = op_response_fields(&w.received, w.out);
    assert_int_equal(w.count, 3);
    expect_once(":status", "200");
    expect_once("grpc-status", "0");
    expect_once("x-server", "a");
}

/* gRPC A6: the upstream hears of attempts before it, the caller's own ones too, and what is left of
 * this one's time. */
static void a_further_attempt_says_so(void **state)
{
    (void)state;
    receive_request();
    send_request();
    expect_none("grpc-previous-rpc-attempts");
    send_attempt(
        (struct op_fields_try){.until_ns = net_loop_now_ns(w.pool.loop) + 5000000, .previous = 2});
    expect_once("grpc-previous-rpc-attempts", "2");
    expect_once("grpc-timeout", "5000000n");
    receive("grpc-previous-rpc-attempts", "3");
    send_request();
    expect_once("grpc-previous-rpc-attempts", "3");
    send_attempt((struct op_fields_try){.until_ns = w.rq.deadline_ns, .previous = 1});
    expect_once("grpc-previous-rpc-attempts", "4");
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(the_node_says_the_context_itself),         EACH(what_speaks_for_the_node_is_taken_out),
        EACH(a_token_beside_a_certificate_is_not_ours), EACH(host_stands_in_for_authority),
        EACH(answers_do_not_speak_for_the_node),        EACH(a_further_attempt_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
