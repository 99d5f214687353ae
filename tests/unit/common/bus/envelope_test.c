/* envelope: the last field holds, what is unknown stays, what is added goes behind. */
#include "common/bus/envelope.h"

#include "common/base/limits.h"

#include "tests/support/cmocka.h"
#include "trilane/bus/v1/bus.pb-c.h"

#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct envelope decode(struct slice bytes)
{
    struct envelope e;
    assert_int_equal(envelope_decode(bytes, &e).code, E_OK);
    return e;
}

/* Every field, by the contract's own encoder. */
static void reads_what_protobuf_wrote(void **state)
{
    (void)state;
    Trilane__Bus__V1__SecurityContext security;
    trilane__bus__v1__security_context__init(&security);
    Trilane__Bus__V1__SchemaContext schema;
    trilane__bus__v1__schema_context__init(&schema);
    Trilane__Bus__V1__Envelope__HeadersEntry header;
    trilane__bus__v1__envelope__headers_entry__init(&header);
    Trilane__Bus__V1__Envelope__HeadersEntry *headers[] = {&header};
    Trilane__Bus__V1__Envelope m;
    trilane__bus__v1__envelope__init(&m);
    char texts[9][4] = {"tr", "ev", "ty", "key", "ten", "src", "kid", "h", "v"};
    uint8_t payload[] = {1, 2, 0};
    uint8_t packed[256];
    security.key_id = texts[6];
    schema.fingerprint.data = payload;
    schema.fingerprint.len = 2;
    header.key = texts[7];
    header.value = texts[8];
    m.trace_id = texts[0];
    m.event_id = texts[1];
    m.canonical_type = texts[2];
    m.payload.data = payload;
    m.payload.len = 3;
    m.n_headers = 1;
    m.headers = headers;
    m.envelope_version = 1;
    m.expires_at_ms = -5;
    m.priority = UINT32_MAX;
    m.security = &security;
    m.schema = &schema;
    m.key = texts[3];
    m.tenant = texts[4];
    m.time_ms = INT64_MAX;
    m.source = texts[5];
    size_t size = trilane__bus__v1__envelope__pack(&m, packed);
    struct envelope e = decode(slice_of(packed, size));
    struct slice value;
    assert_true(slice_eq(e.trace_id, SLICE_LIT("tr")) && slice_eq(e.event_id, SLICE_LIT("ev")));
    assert_true(slice_eq(e.canonical_type, SLICE_LIT("ty")) && slice_eq(e.key, SLICE_LIT("key")));
    assert_true(slice_eq(e.tenant, SLICE_LIT("ten")) && slice_eq(e.source, SLICE_LIT("src")));
    assert_true(slice_eq(e.payload, slice_of(payload, 3)));
    assert_true(slice_eq(e.key_id, SLICE_LIT("kid")) && e.scheme.size == 0);
    assert_true(slice_eq(e.schema_fingerprint, slice_of(payload, 2)));
    assert_true(e.expires_at_ms == -5 && e.time_ms == INT64_MAX && e.priority == UINT32_MAX);
    assert_int_equal(e.envelope_version, 1);
    assert_int_equal(e.header_count, 1);
    assert_true(envelope_find(&e, ENVELOPE_HEADERS, SLICE_LIT("h"), &value));
    assert_true(slice_eq(value, SLICE_LIT("v")));
    assert_false(envelope_find(&e, ENVELOPE_TRAITS, SLICE_LIT("h"), &value));
}

static void what_is_added_holds(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(1024);
    struct envelope_entry headers[] = {{SLICE_LIT("caller-id"), SLICE_LIT("real")}};
    struct envelope_addition add = {.tenant = SLICE_LIT("acme"),
                                    .event_id = SLICE_LIT("id"),
                                    .trace_id = SLICE_LIT("t"),
                                    .source = SLICE_LIT("s"),
                                    .time_ms = 9,
                                    .envelope_version = 1,
                                    .headers = headers,
                                    .header_count = 1};
    assert_int_equal(wire_add_bytes(&b, 14, SLICE_LIT("forged")).code, E_OK);
    assert_int_equal(wire_add_entry(&b, 6, SLICE_LIT("caller-id"), SLICE_LIT("forged")).code, E_OK);
    assert_int_equal(wire_add_bytes(&b, 900, SLICE_LIT("unknown")).code, E_OK);
    auto_buf struct buf before = BUF_MAX(1024);
    assert_int_equal(buf_add(&before, buf_slice(&b)).code, E_OK);
    assert_int_equal(envelope_append(&add, &b).code, E_OK);
    struct envelope e = decode(buf_slice(&b));
    struct slice value;
    assert_true(slice_eq(e.tenant, SLICE_LIT("acme")));
    assert_true(slice_eq(e.event_id, SLICE_LIT("id")) && slice_eq(e.trace_id, SLICE_LIT("t")));
    assert_true(e.time_ms == 9 && e.envelope_version == 1 && slice_eq(e.source, SLICE_LIT("s")));
    assert_int_equal(e.header_count, 2);
    assert_true(envelope_find(&e, ENVELOPE_HEADERS, SLICE_LIT("caller-id"), &value));
    assert_true(slice_eq(value, SLICE_LIT("real")));
    assert_true(slice_starts(buf_slice(&b), buf_slice(&before))); /* unknown fields, too. */
    b.max = b.size + 3;
    size_t full = b.size;
    assert_int_equal(envelope_append(&add, &b).code, E_TOO_LARGE);
    assert_int_equal(b.size, full);
    struct envelope_addition nothing = {0};
    assert_int_equal(envelope_append(&nothing, &b).code, E_OK);
    assert_int_equal(b.size, full);
}

static void messages_inside_merge(void **state)
{
    (void)state;
    struct envelope e = decode(BYTES(0x52, 3, 0x0a, 1, 'a', 0x52, 3, 0x12, 1, 'b'));
    assert_true(slice_eq(e.key_id, SLICE_LIT("a")) && slice_eq(e.scheme, SLICE_LIT("b")));
}

static void refuses(void **state)
{
    (void)state;
    const struct slice bad[] = {
        BYTES(0x0a),             /* cut. */
        BYTES(0x0a, 1, 0xff),    /* not UTF-8. */
        BYTES(0x08, 1),          /* trace_id as a number. */
        BYTES(0x3a, 0),          /* envelope_version as bytes. */
        BYTES(0x50, 1),          /* security as a number. */
        BYTES(0x52, 1, 0x0a),    /* cut inside. */
        BYTES(0x30, 1),          /* headers as a number. */
        BYTES(0x32, 2, 0x08, 1), /* a key as a number. */
        BYTES(0x32, 3, 0x0a, 1, 0xff),
        BYTES(0x2a, 3, 0x12, 1, 0xff),
    };
    struct envelope e;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(envelope_decode(bad[i], &e).code, E_ENVELOPE_MALFORMED);
    }
    assert_int_equal(envelope_decode(BYTES(0x62, 3, 0x12, 1, 0xff), &e).code, E_OK); /* bytes. */
}

static void bounds(void **state)
{
    (void)state;
    auto_buf struct buf b = BUF_MAX(1 << 20);
    struct envelope e;
    char text[ENVELOPE_TEXT_MAX + 1];
    memset(text, 'x', sizeof(text));
    for (uint64_t i = 0; i < limits.envelope_headers; i++) {
        assert_int_equal(wire_add_entry(&b, 6, SLICE_LIT("k"), SLICE_LIT("v")).code, E_OK);
    }
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_OK);
    assert_int_equal(wire_add_entry(&b, 6, SLICE_LIT("k"), SLICE_LIT("v")).code, E_OK);
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_MESSAGE_TOO_LARGE);
    buf_clear(&b);
    assert_int_equal(wire_add_bytes(&b, 2, slice_of(text, ENVELOPE_TEXT_MAX)).code, E_OK);
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_OK);
    assert_int_equal(wire_add_bytes(&b, 2, slice_of(text, ENVELOPE_TEXT_MAX + 1)).code, E_OK);
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_MESSAGE_TOO_LARGE);
    uint64_t before = limits.envelope_bytes;
    buf_clear(&b);
    assert_int_equal(wire_add_bytes(&b, 4, slice_of(text, 100)).code, E_OK);
    limits.envelope_bytes = b.size;
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_OK);
    limits.envelope_bytes = b.size - 1;
    assert_int_equal(envelope_decode(buf_slice(&b), &e).code, E_MESSAGE_TOO_LARGE);
    limits.envelope_bytes = before;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_protobuf_wrote),
        cmocka_unit_test(what_is_added_holds),
        cmocka_unit_test(messages_inside_merge),
        cmocka_unit_test(refuses),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
