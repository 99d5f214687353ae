/* event: an envelope's bytes go out unchanged, with what is missing or ours behind them. */
#include "dataplane/canonical/event.h"

#include "common/base/ids.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

static const struct trace call_trace = {.id = {1, 2, 3}, .span = {4}, .flags = 0};

static struct canon_context usual(void)
{
    return (struct canon_context){.environment = SLICE_LIT("demo"),
                                  .tenant = SLICE_LIT("acme"),
                                  .caller = SLICE_LIT("spiffe://t/tenant/acme/service/web"),
                                  .correlation = SLICE_LIT("corr"),
                                  .trace = &call_trace,
                                  .partitions = 16,
                                  .timeout_ms = 5000,
                                  .now_ms = 1234};
}

static struct envelope decoded(struct slice bytes)
{
    struct envelope e;
    assert_int_equal(envelope_decode(bytes, &e).code, E_OK);
    return e;
}

static struct slice header(const struct canon_event *event, const char *name)
{
    for (size_t i = 0; i < event->header_count; i++) {
        if (slice_eq(event->headers[i].name, slice_str(name))) {
            return event->headers[i].value;
        }
    }
    return (struct slice){0};
}

static struct slice said(const struct envelope *e, const char *key)
{
    struct slice value = {0};
    (void)envelope_find(e, ENVELOPE_HEADERS, slice_str(key), &value);
    return value;
}

static void assert_text(struct slice is, const char *want)
{
    assert_true(slice_eq(is, slice_str(want)));
}

static void test_bare(void **state)
{
    (void)state;
    auto_buf struct buf in = BUF_MAX(256);
    auto_buf struct buf out = BUF_MAX(0);
    assert_int_equal(wire_add_bytes(&in, 3, SLICE_LIT("User.v2")).code, E_OK);
    assert_int_equal(wire_add_bytes(&in, 99, SLICE_LIT("unknown")).code, E_OK);
    struct envelope e = decoded(buf_slice(&in));
    struct canon_context context = usual();
    struct canon_event event;
    assert_int_equal(canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out).code, E_OK);
    assert_true(slice_starts(buf_slice(&out), buf_slice(&in)));
    struct envelope sent = decoded(buf_slice(&out));
    assert_int_equal(sent.event_id.size, CONTEXT_ID_SIZE);
    assert_true(slice_eq(sent.event_id, event.event_id));
    assert_text(sent.tenant, "acme");
    assert_text(sent.source, "spiffe://t/tenant/acme/service/web");
    assert_int_equal(sent.time_ms, 1234);
    assert_int_equal(sent.envelope_version, 1);
    assert_text(said(&sent, "tenant-id"), "acme");
    assert_text(said(&sent, "correlation-id"), "corr");
    assert_text(said(&sent, "caller-id"), "spiffe://t/tenant/acme/service/web");
    assert_true(slice_eq(said(&sent, "idempotency-key"), event.event_id));
    assert_true(slice_starts(said(&sent, "traceparent"),
                             SLICE_LIT("00-01020300000000000000000000000000-")));
    assert_text(sent.trace_id, "01020300000000000000000000000000");
    assert_text(header(&event, "trace-id"), "01020300000000000000000000000000");
    assert_text(header(&event, "content-type"), "application/vnd.trilane.envelope");
    assert_text(header(&event, "x-request-timeout-ms"), "5000");
    assert_text(header(&event, "correlation-id"), "corr");
    assert_text(header(&event, "x-correlation-id"), "corr");
    assert_true(slice_starts(subject_slice(&event.subject), SLICE_LIT("trilane.demo.event.")));
    assert_true(slice_ends(subject_slice(&event.subject), SLICE_LIT(".acme.User.v2")));
}

static void add_header(struct buf *in, const char *key, const char *value)
{
    assert_int_equal(wire_add_entry(in, 6, slice_str(key), slice_str(value)).code, E_OK);
}

static void test_what_a_client_says_of_itself_is_overwritten(void **state)
{
    (void)state;
    auto_buf struct buf in = BUF_MAX(1024);
    auto_buf struct buf out = BUF_MAX(0);
    assert_int_equal(wire_add_bytes(&in, 2, SLICE_LIT("ev-1")).code, E_OK);
    assert_int_equal(wire_add_varint(&in, 15, 7).code, E_OK);
    assert_int_equal(wire_add_bytes(&in, 16, SLICE_LIT("shop")).code, E_OK);
    add_header(&in, "caller-id", "spiffe://evil/x");
    add_header(&in, "correlation-id", "mine");
    add_header(&in, "idempotency-key", "idem");
    add_header(&in, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    struct envelope e = decoded(buf_slice(&in));
    struct canon_context context = usual();
    struct canon_event event;
    assert_int_equal(canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out).code, E_OK);
    struct envelope sent = decoded(buf_slice(&out));
    assert_text(said(&sent, "caller-id"), "spiffe://t/tenant/acme/service/web");
    assert_text(said(&sent, "correlation-id"), "mine");
    assert_text(said(&sent, "idempotency-key"), "idem");
    assert_text(sent.source, "shop");
    assert_int_equal(sent.time_ms, 7);
    assert_text(sent.trace_id, "0af7651916cd43dd8448eb211c80319c");
    assert_text(subject_slice(&event.message_id), "acme/User.v2/ev-1");
}

static void test_ids_that_are_none(void **state)
{
    (void)state;
    char longest[EVENT_ID_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    const struct slice bad[] = {SLICE_LIT("a b"), SLICE_LIT("a\nb"), SLICE_LIT("\xc3\xa4"),
                                slice_of(longest, EVENT_ID_MAX + 1)};
    struct canon_context context = usual();
    struct canon_event event;
    auto_buf struct buf out = BUF_MAX(0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct envelope e = {.event_id = bad[i]};
        assert_int_equal(canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out).code,
                         E_ENVELOPE_MALFORMED);
    }
    struct envelope e = {.event_id = slice_of(longest, EVENT_ID_MAX)};
    assert_int_equal(canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out).code, E_OK);
}

/* The bound is that of readers: what is added counts. */
static void test_bound(void **state)
{
    (void)state;
    static uint8_t filler[4096];
    uint64_t before = limits.envelope_bytes;
    limits.envelope_bytes = 2048;
    struct canon_context context = usual();
    struct canon_event event;
    auto_buf struct buf out = BUF_MAX(0);
    bool fitted = false;
    bool refused = false;
    for (size_t size = 0; size < 2000; size++) {
        auto_buf struct buf in = BUF_MAX(4096);
        assert_int_equal(wire_add_bytes(&in, 4, slice_of(filler, size)).code, E_OK);
        struct envelope e = decoded(buf_slice(&in));
        struct err err = canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out);
        if (err_ok(err)) {
            (void)decoded(buf_slice(&out));
            assert_false(refused);
            fitted = true;
        } else {
            assert_int_equal(err.code, E_MESSAGE_TOO_LARGE);
            refused = true;
        }
    }
    assert_true(fitted && refused);
    limits.envelope_bytes = before;
}

static void test_headers_have_a_bound(void **state)
{
    (void)state;
    struct canon_context context = usual();
    struct canon_event event;
    auto_buf struct buf out = BUF_MAX(0);
    for (uint64_t count = 0; count <= limits.envelope_headers; count++) {
        auto_buf struct buf in = BUF_MAX(4096);
        for (uint64_t i = 0; i < count; i++) {
            add_header(&in, "x", "y");
        }
        struct envelope e = decoded(buf_slice(&in));
        struct err err = canon_event_make(&context, &e, SLICE_LIT("User.v2"), &event, &out);
        assert_int_equal(err.code,
                         count + 5 <= limits.envelope_headers ? E_OK : E_MESSAGE_TOO_LARGE);
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_what_a_client_says_of_itself_is_overwritten),
        cmocka_unit_test(test_ids_that_are_none),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_headers_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
