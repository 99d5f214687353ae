/*
 * answers: what nats-server sends (acks of publishes, reply subjects of deliveries, its INFO line)
 * is taken or refused whatever it is; what is taken lies inside of the bytes.
 */
#include "common/base/check.h"
#include "common/bus/jetstream.h"
#include "common/bus/puback.h"
#include "common/bus/subject.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lies_inside(struct slice part, struct slice whole)
{
    CHECK(part.size == 0 ||
          (part.ptr >= whole.ptr && part.ptr + part.size <= whole.ptr + whole.size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size);
    struct puback ack;
    struct jetstream_delivery delivery;
    struct jetstream_server server;
    struct slice type;
    uint32_t major = 0;
    if (err_ok(puback_decode(text, &ack))) {
        lies_inside(ack.stream, text);
        CHECK(!err_ok(ack.err) || ack.sequence > 0);
    }
    if (err_ok(jetstream_delivery_parse(text, &delivery))) {
        lies_inside(delivery.stream, text);
        lies_inside(delivery.consumer, text);
    }
    if (err_ok(jetstream_server_parse(text, &server))) {
        CHECK(strlen(server.version) < JETSTREAM_VERSION_MAX);
    }
    if (err_ok(subject_type_split(text, &type, &major))) {
        lies_inside(type, text);
        CHECK(major > 0 && type.size > 0);
    }
    return 0;
}
