/* What nats-server says: acks of publishes, reply subjects of deliveries, its INFO line. */
#include "common/bus/flat_json.h"
#include "common/bus/jetstream.h"
#include "common/bus/puback.h"

#include "tests/support/cmocka.h"

static struct puback ack_of(const char *text)
{
    struct puback ack;
    assert_int_equal(puback_decode(slice_str(text), &ack).code, E_OK);
    return ack;
}

static void acks(void **state)
{
    (void)state;
    struct puback ack = ack_of("{\"stream\":\"S\", \"seq\":18446744073709551615}");
    assert_true(err_ok(ack.err) && ack.sequence == UINT64_MAX && !ack.duplicate);
    assert_true(slice_eq(ack.stream, SLICE_LIT("S")));
    ack = ack_of(" { \"type\":{\"a\":[\"}\\\"\",1]}, \"stream\":\"S\",\"seq\":2,"
                 "\"duplicate\": true , \"x\":null}");
    assert_true(err_ok(ack.err) && ack.sequence == 2 && ack.duplicate);
}

static void errors(void **state)
{
    (void)state;
    const struct {
        const char *text;
        enum err_code code;
    } rows[] = {
        {"{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong\"}}", E_CONFLICT},
        {"{\"error\":{\"err_code\":10054}}", E_MESSAGE_TOO_LARGE},
        {"{\"error\":{\"code\":503,\"err_code\":10077},\"stream\":\"S\",\"seq\":0}", E_BUS_FULL},
        {"{\"error\":{\"err_code\":1}}", E_BUS_UNAVAILABLE},
        {"{\"error\":{}}", E_BUS_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(ack_of(rows[i].text).err.code, rows[i].code);
    }
    struct puback ack = ack_of("{\"error\":{\"err_code\":10002,\"description\":\"full\"}}");
    assert_true(slice_eq(ack.description, SLICE_LIT("full")));
    assert_true(puback_is_limit(ack.err_code)); /* of the account; of the stream: */
    assert_false(puback_is_limit(ack_of(rows[2].text).err_code));
}

/* Arrays within arrays, 33 of them. */
static const char deep[] = "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"
                           "]]]]]]]]]]]]]]],\"stream\":\"S\",\"seq\":1}";

static void bad_acks(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "null",
                                      "{",
                                      "{}",
                                      "{\"stream\":\"S\"}",
                                      "{\"stream\":\"S\",\"seq\":0}",
                                      "{\"stream\":\"S\",\"seq\":-1}",
                                      "{\"stream\":\"S\",\"seq\":1",
                                      "{\"stream\":\"S\" \"seq\":1}",
                                      "{\"stream\":\"S\",\"seq\":18446744073709551616}",
                                      "{\"stream\":\"S",
                                      "{\"error\":1}",
                                      deep};
    struct puback ack;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(puback_decode(slice_str(bad[i]), &ack).code, E_MALFORMED);
    }
}

static void deliveries(void **state)
{
    (void)state;
    static const char *const forms[] = {"$JS.ACK.S.C.2.30.4.1700000000123000000.5",
                                        "$JS.ACK._.acc.S.C.2.30.4.1700000000123000000.5",
                                        "$JS.ACK.hub.acc.S.C.2.30.4.1700000000123000000.5.rnd"};
    static const char *const bad[] = {"",
                                      "$JS.ACK.S.C.2.30.4.1700000000123000000",
                                      "$JS.ACK.S.C.2.30.4.17.5.6",
                                      "$JS.ACK.S.C.x.30.4.17.5",
                                      "$JS.ACK..C.2.30.4.17.5",
                                      "$XX.ACK.S.C.2.30.4.17.5",
                                      "$JS.ACK._.a.S.C.2.30.4.17.5.1.2.3.4.5.6"};
    struct jetstream_delivery d;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        assert_int_equal(jetstream_delivery_parse(slice_str(forms[i]), &d).code, E_OK);
        assert_true(slice_eq(d.stream, SLICE_LIT("S")) && slice_eq(d.consumer, SLICE_LIT("C")));
        assert_true(d.attempt == 2 && d.stream_sequence == 30 && d.consumer_sequence == 4);
        assert_true(d.time_ms == 1700000000123 && d.pending == 5);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(jetstream_delivery_parse(slice_str(bad[i]), &d).code, E_ACK_UNKNOWN);
    }
}

static void servers(void **state)
{
    (void)state;
    struct jetstream_server s;
    assert_int_equal(
        jetstream_server_parse(SLICE_LIT("INFO {\"version\":\"2.9.10\",\"headers\":true,"
                                         "\"max_payload\":1048576,\"jetstream\":true} \r"),
                               &s)
            .code,
        E_OK);
    assert_true(s.major == 2 && s.minor == 9 && s.patch == 10 && s.headers && s.jetstream);
    assert_true(s.max_payload == 1048576 && !s.sync_interval_known && !s.strict_api);
    assert_int_equal(
        jetstream_server_parse(SLICE_LIT("INFO {\"version\":\"2.14.0-RC.1\"}"), &s).code, E_OK);
    assert_true(s.minor == 14 && s.patch == 0 && !s.jetstream);
    assert_true(s.sync_interval_known && s.filter_subjects && s.strict_api);
    static const char *const bad[] = {"",
                                      "INFO",
                                      "INFO {}",
                                      "PING",
                                      "INFO {\"version\":\"2.9\"}",
                                      "INFO {\"version\":\"x.y.z\"}",
                                      "INFO {\"version\":\"2.9.10\",\"max_payload\":-1}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(jetstream_server_parse(slice_str(bad[i]), &s).code, E_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acks),       cmocka_unit_test(errors),  cmocka_unit_test(bad_acks),
        cmocka_unit_test(deliveries), cmocka_unit_test(servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
