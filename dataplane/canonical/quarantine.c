/* quarantine: see quarantine.h. */
#include "dataplane/canonical/quarantine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/bus/jetstream.h"

enum { REASON_HEADERS = 4, RETRY_MS = 1000, NUMBER_MAX = 24 };

/* A delivery that waits for its copy to be safe. */
struct removal {
    struct canon_pending pending; /* first. */
    struct canon *lane;
    const struct canon_topic *topic;
    struct slice reply; /* kept behind the struct. */
};

static void completed(struct canon_pending *pending, const struct jetstream_completion *how)
{
    struct removal *removal = (struct removal *)pending;
    struct bus *bus = removal->lane->host.bus;
    struct err lost;
    if (err_ok(how->err)) {
        lost = jetstream_term(bus, removal->reply);
        canon_count(removal->lane, removal->topic, CANON_QUARANTINED);
    } else {
        lost = jetstream_nak(bus, removal->reply, RETRY_MS);
    }
    (void)lost; /* it comes again; the message id keeps a second copy out. */
    free(removal);
}

/* What NATS itself acts on must not act again: Nats-Rollup would empty the stream. */
static bool goes_along(struct slice name)
{
    return !(name.size >= 5 && slice_eq_nocase(slice_head(name, 5), SLICE_LIT("nats-")));
}

static size_t copy_headers(const struct bus_message *message, struct bus_header *out)
{
    size_t count = 0;
    for (size_t i = 0; i < message->header_count && count < BUS_HEADER_MAX - REASON_HEADERS; i++) {
        if (goes_along(message->headers[i].name)) {
            out[count++] = message->headers[i];
        }
    }
    return count;
}

static MUST_CHECK struct err send_copy(struct removal *removal, const struct subject *durable,
                                       const struct bus_message *message, struct err why)
{
    struct jetstream_delivery delivery;
    struct subject subject;
    struct bus_header headers[BUS_HEADER_MAX];
    char sequence[NUMBER_MAX];
    char attempt[NUMBER_MAX];
    char id[MESSAGE_ID_SIZE_MAX];
    TRY(jetstream_delivery_parse(message->reply, &delivery));
    TRY(subject_quarantine(removal->lane->host.environment, delivery.stream, subject_slice(durable),
                           &subject));
    (void)snprintf(sequence, sizeof(sequence), "%" PRIu64, delivery.stream_sequence);
    (void)snprintf(attempt, sizeof(attempt), "%" PRIu64, delivery.attempt);
    int id_size = snprintf(id, sizeof(id), "quarantine/%.*s/%s/%s", SLICE_ARG(delivery.stream),
                           durable->text, sequence);
    if (id_size < 0 || (size_t)id_size >= sizeof(id)) {
        return FAIL(E_MALFORMED);
    }
    size_t count = copy_headers(message, headers);
    headers[count++] =
        (struct bus_header){SLICE_LIT("x-trilane-reason"), slice_str(err_name(why.code))};
    headers[count++] = (struct bus_header){SLICE_LIT("x-trilane-subject"), message->subject};
    headers[count++] = (struct bus_header){SLICE_LIT("x-trilane-sequence"), slice_str(sequence)};
    headers[count++] = (struct bus_header){SLICE_LIT("x-trilane-attempt"), slice_str(attempt)};
    CHECK(count <= BUS_HEADER_MAX);
    const struct bus_outgoing copy = {.subject = subject_slice(&subject),
                                      .headers = headers,
                                      .header_count = count,
                                      .payload = message->payload};
    return canon_send(removal->lane, &copy, slice_of(id, (size_t)id_size), &removal->pending);
}

void canon_quarantine(struct canon *lane, const struct canon_topic *topic,
                      const struct subject *durable, const struct bus_message *message,
                      struct err why)
{
    CHECK(!err_ok(why));
    struct removal *removal = malloc(sizeof(*removal) + message->reply.size);
    struct err err = FAIL(E_NO_MEMORY);
    if (removal != NULL) {
        uint8_t *reply = (uint8_t *)(removal + 1);
        memcpy(reply, message->reply.ptr, message->reply.size);
        *removal = (struct removal){.pending = {.completed = completed},
                                    .lane = lane,
                                    .topic = topic,
                                    .reply = slice_of(reply, message->reply.size)};
        err = send_copy(removal, durable, message, why);
    }
    if (!err_ok(err)) {
        free(removal);
        err = jetstream_nak(lane->host.bus, message->reply, RETRY_MS);
        (void)err; /* it comes again in either case. */
    }
}
