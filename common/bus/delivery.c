/* delivery: answers to what JetStream delivered, and what a delivery's reply subject tells. */
#include <stdio.h>

#include "common/base/check.h"
#include "common/bus/jetstream.h"
#include "common/bus/subject.h"

/* "$JS.ACK." is two of them; the later form has domain and account before the stream. */
enum { TOKENS_V1 = 9, TOKENS_V2_MIN = 11, TOKENS_MAX = 16 };

static struct err answer(struct bus *bus, struct slice reply, struct slice what)
{
    if (!slice_starts(reply, SLICE_LIT("$JS.ACK.")) || !subject_is_valid(reply)) {
        return FAIL(E_ACK_UNKNOWN);
    }
    return bus_publish(bus, &(struct bus_outgoing){.subject = reply, .payload = what});
}

struct err jetstream_ack(struct bus *bus, struct slice reply)
{
    return answer(bus, reply, SLICE_LIT("+ACK"));
}

struct err jetstream_nak(struct bus *bus, struct slice reply, uint64_t delay_ms)
{
    if (delay_ms == 0) {
        return answer(bus, reply, SLICE_LIT("-NAK"));
    }
    uint64_t const ns_max = INT64_MAX;
    uint64_t ns = delay_ms > ns_max / 1000000 ? ns_max : delay_ms * 1000000;
    char text[64];
    int size = snprintf(text, sizeof(text), "-NAK {\"delay\": %llu}", (unsigned long long)ns);
    CHECK(size > 0 && (size_t)size < sizeof(text));
    return answer(bus, reply, slice_of(text, (size_t)size));
}

struct err jetstream_term(struct bus *bus, struct slice reply)
{
    return answer(bus, reply, SLICE_LIT("+TERM"));
}

struct err jetstream_in_progress(struct bus *bus, struct slice reply)
{
    return answer(bus, reply, SLICE_LIT("+WPI"));
}

struct err jetstream_pull(struct bus *bus, const struct jetstream_pull *pull)
{
    struct subject subject;
    TRY(subject_pull(pull->stream, pull->durable, &subject));
    CHECK(pull->expires_ms < INT64_MAX / 1000000);
    char text[96];
    int size =
        snprintf(text, sizeof(text), "{\"batch\": %llu, \"expires\": %llu}",
                 (unsigned long long)pull->batch, (unsigned long long)pull->expires_ms * 1000000);
    CHECK(size > 0 && (size_t)size < sizeof(text));
    return bus_publish(bus, &(struct bus_outgoing){.subject = subject_slice(&subject),
                                                   .reply = pull->inbox,
                                                   .payload = slice_of(text, (size_t)size)});
}

uint32_t jetstream_pull_status(const struct bus_message *message)
{
    uint64_t status = 0;
    struct slice text = bus_message_header(message, SLICE_LIT("Status"));
    if (message->reply.size > 0 || text.size == 0) {
        return 0; /* whoever wrote the header, what can be acknowledged is a delivery. */
    }
    return slice_to_u64(text, &status) && status < 1000 ? (uint32_t)status : 0;
}

/* Splits at dots; 0 when there are more than 'max' tokens. */
static size_t split(struct slice text, struct slice *tokens, size_t max)
{
    size_t count = 0;
    for (struct slice rest = text;;) { /* ends: at the last dot, or past 'max'. */
        size_t dot = slice_find(rest, '.');
        if (count == max) {
            return 0;
        }
        tokens[count++] = slice_head(rest, dot);
        if (dot == rest.size) {
            return count;
        }
        rest = slice_from(rest, dot + 1);
    }
}

struct err jetstream_delivery_parse(struct slice reply, struct jetstream_delivery *out)
{
    struct slice tokens[TOKENS_MAX];
    size_t count = split(reply, tokens, TOKENS_MAX);
    bool fits = (count == TOKENS_V1 || count >= TOKENS_V2_MIN) &&
                slice_eq(tokens[0], SLICE_LIT("$JS")) && slice_eq(tokens[1], SLICE_LIT("ACK"));
    if (!fits) {
        return FAIL(E_ACK_UNKNOWN);
    }
    const struct slice *t = tokens + (count == TOKENS_V1 ? 2 : 4);
    struct jetstream_delivery d = {.stream = t[0], .consumer = t[1]};
    uint64_t time_ns = 0;
    bool numbers = slice_to_u64(t[2], &d.attempt) && slice_to_u64(t[3], &d.stream_sequence) &&
                   slice_to_u64(t[4], &d.consumer_sequence) && slice_to_u64(t[5], &time_ns) &&
                   slice_to_u64(t[6], &d.pending);
    if (!numbers || d.stream.size == 0 || d.consumer.size == 0) {
        return FAIL(E_ACK_UNKNOWN);
    }
    d.time_ms = (int64_t)(time_ns / 1000000);
    *out = d;
    return OK;
}
