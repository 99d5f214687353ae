/* event: see event.h. */
#include "dataplane/canonical/event.h"

#include "common/base/check.h"
#include "common/base/limits.h"

/* Headers that a node adds to an envelope at most. */
enum { ADDED_MAX = 5 };

static void choose_id(const struct envelope *envelope, struct canon_event *event)
{
    event->event_id = envelope->event_id;
    if (envelope->event_id.size == 0) {
        context_id_make(event->made_id);
        event->event_id = slice_of(event->made_id, CONTEXT_ID_SIZE);
    }
}

/* An envelope's own trace goes before the call's: a stream carries the events of many traces. */
static void choose_trace(const struct canon_context *context, const struct envelope *envelope,
                         struct canon_event *event)
{
    struct slice parent = {0};
    bool known = false;
    (void)envelope_find(envelope, ENVELOPE_HEADERS, context_envelope(CONTEXT_TRACEPARENT), &parent);
    struct trace theirs = trace_accept(parent, envelope->trace_id, /* sampled= */ false, &known);
    struct trace ours = trace_child(known ? &theirs : context->trace);
    trace_format(&ours, event->traceparent);
    trace_format_id(&ours, event->trace_id);
}

static void choose_correlation(const struct canon_context *context, const struct envelope *envelope,
                               struct canon_event *event)
{
    struct slice theirs = {0};
    bool has =
        envelope_find(envelope, ENVELOPE_HEADERS, context_envelope(CONTEXT_CORRELATION), &theirs);
    event->correlation = has && context_id_valid(theirs) ? theirs : context->correlation;
}

/* ---- what is appended to the envelope ---- */

/* Adds an entry, unless the envelope says the same already. */
static void add_entry(const struct envelope *envelope, enum context_name name, struct slice value,
                      struct envelope_addition *addition, struct envelope_entry *entries)
{
    struct slice there = {0};
    bool has = envelope_find(envelope, ENVELOPE_HEADERS, context_envelope(name), &there);
    if (!has || !slice_eq(there, value)) {
        CHECK(addition->header_count < ADDED_MAX);
        entries[addition->header_count++] =
            (struct envelope_entry){.key = context_envelope(name), .value = value};
    }
}

static void add_idempotency(const struct envelope *envelope, const struct canon_event *event,
                            struct envelope_addition *addition, struct envelope_entry *entries)
{
    struct slice there = {0};
    bool has =
        envelope_find(envelope, ENVELOPE_HEADERS, context_envelope(CONTEXT_IDEMPOTENCY), &there);
    if (!has || !context_id_valid(there)) {
        add_entry(envelope, CONTEXT_IDEMPOTENCY, event->event_id, addition, entries);
    }
}

static MUST_CHECK struct err append(const struct canon_context *context,
                                    const struct envelope *envelope,
                                    const struct canon_event *event, struct buf *payload)
{
    struct envelope_entry entries[ADDED_MAX];
    struct slice trace_id = slice_of(event->trace_id, TRACE_ID_SIZE);
    struct slice none = {0};
    struct envelope_addition addition = {
        .trace_id = slice_eq(envelope->trace_id, trace_id) ? none : trace_id,
        .event_id = envelope->event_id.size > 0 ? none : event->event_id,
        .tenant = envelope->tenant.size > 0 ? none : context->tenant,
        .source = envelope->source.size > 0 ? none : context->caller,
        .time_ms = envelope->time_ms != 0 ? 0 : context->now_ms,
        .envelope_version = envelope->envelope_version != 0 ? 0 : 1,
        .headers = entries};
    add_entry(envelope, CONTEXT_TENANT, context->tenant, &addition, entries);
    add_entry(envelope, CONTEXT_CORRELATION, event->correlation, &addition, entries);
    add_entry(envelope, CONTEXT_TRACEPARENT, slice_of(event->traceparent, TRACE_PARENT_SIZE),
              &addition, entries);
    add_entry(envelope, CONTEXT_CALLER, context->caller, &addition, entries);
    add_idempotency(envelope, event, &addition, entries);
    if (envelope->header_count + addition.header_count > limits.envelope_headers) {
        return FAIL(E_MESSAGE_TOO_LARGE); /* no reader would take it. */
    }
    buf_clear(payload);
    payload->max = (size_t)limits.envelope_bytes;
    TRY(buf_add(payload, envelope->bytes));
    return envelope_append(&addition, payload);
}

/* ---- NATS ---- */

static void add_header(struct canon_event *event, struct slice name, struct slice value)
{
    CHECK(event->header_count < CANON_HEADERS);
    event->headers[event->header_count++] = (struct bus_header){.name = name, .value = value};
}

static void make_headers(const struct canon_context *context, struct canon_event *event)
{
    size_t timeout_size = timeout_format_ms(context->timeout_ms * 1000000, event->timeout);
    event->header_count = 0;
    add_header(event, context_nats(CONTEXT_CONTENT_TYPE), CONTEXT_TYPE_ENVELOPE);
    add_header(event, context_nats(CONTEXT_TENANT), context->tenant);
    add_header(event, context_nats(CONTEXT_CORRELATION), event->correlation);
    add_header(event, context_nats_alias(CONTEXT_CORRELATION), event->correlation);
    add_header(event, context_nats(CONTEXT_TRACEPARENT),
               slice_of(event->traceparent, TRACE_PARENT_SIZE));
    add_header(event, context_nats(CONTEXT_TRACE_ID), slice_of(event->trace_id, TRACE_ID_SIZE));
    add_header(event, context_nats(CONTEXT_CALLER), context->caller);
    add_header(event, context_nats(CONTEXT_REQUEST_TIMEOUT),
               slice_of(event->timeout, timeout_size));
}

static MUST_CHECK struct err make_subject(const struct canon_context *context,
                                          const struct envelope *envelope, struct slice type,
                                          struct canon_event *event)
{
    struct subject_event place = {.environment = context->environment,
                                  .tenant = context->tenant,
                                  .partition =
                                      subject_partition(context->tenant, envelope->key,
                                                        event->event_id, context->partitions)};
    TRY(subject_type_split(type, &place.type, &place.major));
    if (!err_ok(subject_message_id(context->tenant, place.type, place.major, event->event_id,
                                   &event->message_id))) {
        return FAIL(E_ENVELOPE_MALFORMED);
    }
    return subject_event(&place, &event->subject);
}

struct err canon_event_make(const struct canon_context *context, const struct envelope *envelope,
                            struct slice type, struct canon_event *out, struct buf *payload)
{
    CHECK(context->partitions > 0);
    choose_id(envelope, out);
    choose_trace(context, envelope, out);
    choose_correlation(context, envelope, out);
    TRY(make_subject(context, envelope, type, out));
    struct err err = append(context, envelope, out, payload);
    if (!err_ok(err)) {
        return err.code == E_TOO_LARGE ? FAIL(E_MESSAGE_TOO_LARGE) : err;
    }
    make_headers(context, out);
    return OK;
}
