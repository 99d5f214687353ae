/*
 * One publish, top to bottom:
 *
 *     start -> caller_data -> read_messages -> take_envelope -> admit -> send_event -> completed
 *                                   ^                                                |
 *                                   +--- a slot is free <--- answer_in_order <-------+
 *
 * admit() is the one way to the bus: it ends with the decision of dp_request_decide(), and
 * send_event() takes only what it filled.
 */
#include "dataplane/canonical/publish.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/bus/envelope.h"
#include "common/net/grpc.h"
#include "common/proto/schema.h"
#include "dataplane/canonical/event.h"
#include "dataplane/canonical/message.h"
#include "dataplane/canonical/output.h"
#include "dataplane/canonical/state.h"
#include "dataplane/request/request.h"

enum {
    REQUEST_BESIDES = 64, /* bytes of a PublishRequest beside its envelope. */
    SENTENCE_MAX = 256,
    FREE_SLOTS_MAX = 1024
};

/* One envelope, from its request to its answer. */
struct canon_slot {
    struct canon_pending pending; /* first. */
    struct canon *lane;
    struct canon_publish *call; /* NULL: it is gone, nobody is answered. */
    struct canon_slot *next;    /* towards younger ones; in the free list: the next free one. */
    struct canon_topic *topic;
    uint64_t started_ns;
    uint64_t sequence;
    enum err_code code;
    bool waiting; /* for JetStream. */
    bool duplicate;
    uint8_t event_id_size;
    char event_id[EVENT_ID_MAX];
    char sentence[SENTENCE_MAX]; /* of a refusal; NUL-terminated. */
    uint64_t explain;            /* of a refusal: its id; zero: it has none. */
};

struct canon_publish {
    struct dp_request *rq;
    struct canon *lane;
    struct canon_publish *next; /* in the lane's list. */
    struct canon_publish *prev;
    struct grpc_reader reader;
    struct canon_output out;
    struct buf held; /* received, and not read yet. */
    struct canon_slot *oldest;
    struct canon_slot *youngest;
    size_t slots;
    bool one;          /* PublishOne: */
    bool taken;        /* its envelope came. */
    bool caller_ended; /* the caller's side is whole. */
    bool closing;      /* the node shuts down: no more envelopes. */
};

static const struct h2_stream_events caller_events;
static void work(struct canon_publish *call);
static void fail(struct canon_publish *call, struct err why, struct slice sentence);

/* ---- start ---- */

struct err canon_publish_start(struct dp_request *rq, bool one)
{
    CHECK(rq->stream != NULL);
    struct canon *lane = rq->pool->lanes[DP_LANE_CANONICAL];
    void *memory = NULL;
    if (h2_stream_received_end(rq->stream) && one) {
        return FAIL(E_PROTOCOL_ERROR); /* a unary call has one message. */
    }
    TRY(arena_calloc(&rq->arena, 1, sizeof(struct canon_publish), &memory));
    struct canon_publish *call = memory;
    *call = (struct canon_publish){.rq = rq,
                                   .lane = lane,
                                   .next = lane->publishes,
                                   .out = canon_output_of(rq),
                                   .held = BUF_MAX(limits.stream_buffer_bytes),
                                   .one = one,
                                   .caller_ended = h2_stream_received_end(rq->stream),
                                   .closing = lane->draining && !one};
    grpc_reader_init(&call->reader, limits.envelope_bytes + REQUEST_BESIDES);
    if (call->next != NULL) {
        call->next->prev = call;
    }
    lane->publishes = call;
    rq->lane_state = call;
    h2_stream_attach(rq->stream, &caller_events, call);
    work(call);
    return OK;
}

/* ---- slots ---- */

static struct canon_slot *slot_new(struct canon_publish *call)
{
    struct canon *lane = call->lane;
    struct canon_slot *slot = lane->free_slots;
    if (slot != NULL) {
        lane->free_slots = slot->next;
        lane->free_slot_count--;
    } else {
        slot = malloc(sizeof(*slot));
    }
    if (slot == NULL) {
        return NULL;
    }
    slot->lane = lane;
    slot->call = call;
    slot->next = NULL;
    slot->topic = NULL;
    slot->started_ns = clock_mono_ns();
    slot->sequence = 0;
    slot->code = E_OK;
    slot->waiting = false;
    slot->duplicate = false;
    slot->event_id_size = 0;
    slot->sentence[0] = '\0';
    slot->explain = 0;
    if (call->youngest != NULL) {
        call->youngest->next = slot;
    } else {
        call->oldest = slot;
    }
    call->youngest = slot;
    call->slots++;
    return slot;
}

static void slot_free(struct canon *lane, struct canon_slot *slot)
{
    if (lane->free_slot_count >= FREE_SLOTS_MAX) {
        free(slot);
        return;
    }
    slot->next = lane->free_slots;
    lane->free_slots = slot;
    lane->free_slot_count++;
}

void canon_slots_free(struct canon *lane)
{
    while (lane->free_slots != NULL) {
        struct canon_slot *slot = lane->free_slots;
        lane->free_slots = slot->next;
        free(slot);
    }
}

static void note_event_id(struct canon_slot *slot, struct slice id)
{
    slot->event_id_size = (uint8_t)(id.size > EVENT_ID_MAX ? 0 : id.size);
    if (slot->event_id_size > 0) {
        memcpy(slot->event_id, id.ptr, slot->event_id_size);
    }
}

/* ---- admit: may this envelope pass? ---- */

/* An envelope that may go to the bus; only admit() makes one. */
struct admitted {
    struct envelope envelope;
    const struct dp_topic *topic;
};

static MUST_CHECK struct err check_tenant(const struct envelope *envelope, struct slice tenant)
{
    struct slice said = {0};
    bool has = envelope_find(envelope, ENVELOPE_HEADERS, context_envelope(CONTEXT_TENANT), &said);
    bool agrees = (envelope->tenant.size == 0 || slice_eq(envelope->tenant, tenant)) &&
                  (!has || slice_eq(said, tenant));
    return agrees ? OK : FAIL(E_TENANT_MISMATCH);
}

static MUST_CHECK struct err check_payload(const struct dp_model *model,
                                           const struct dp_topic *topic, struct slice payload,
                                           char sentence[SENTENCE_MAX])
{
    struct schema_fault fault = {0};
    if (payload.size > topic->payload_bytes) {
        (void)snprintf(sentence, SENTENCE_MAX, "the payload has %zu bytes; %.*s allows %u",
                       payload.size, SLICE_ARG(topic->type), topic->payload_bytes);
        return FAIL(E_MESSAGE_TOO_LARGE);
    }
    struct err err = schema_check(dp_model_schema(model, topic), payload, &fault);
    if (err.code == E_PAYLOAD_MALFORMED) {
        (void)snprintf(sentence, SENTENCE_MAX, "payload of %.*s: field %u of %.*s at byte %zu: %s",
                       SLICE_ARG(topic->type), fault.field, SLICE_ARG(fault.message), fault.offset,
                       schema_fault_text(fault.kind));
    }
    return err;
}

static MUST_CHECK struct err decide(struct dp_request *rq, const struct dp_topic *topic,
                                    char sentence[SENTENCE_MAX])
{
    struct err err = dp_request_decide(rq, &topic->target, DP_VERB_PUBLISH, topic->type);
    if (err.code == E_RATE_LIMITED) {
        (void)snprintf(sentence, SENTENCE_MAX, "limit %.*s: retry in %" PRIu64 " ms",
                       SLICE_ARG(rq->limit), rq->retry_ns / 1000000 + 1);
    } else if (err.code == E_POLICY_DENIED && rq->verdict.rule.size > 0) {
        (void)snprintf(sentence, SENTENCE_MAX, "%s: rule %.*s", err_text(err.code),
                       SLICE_ARG(rq->verdict.rule));
    }
    return err;
}

/* '*asked' is filled as far as it gets, for a refusal. */
static MUST_CHECK struct err admit(struct dp_request *rq, struct slice bytes, struct admitted *out,
                                   struct canon_slot *slot, struct dp_refused_message *asked)
{
    struct admitted a = {0};
    TRY(envelope_decode(bytes, &a.envelope));
    note_event_id(slot, a.envelope.event_id);
    asked->type = a.envelope.canonical_type;
    a.topic = dp_model_topic(rq->model, a.envelope.canonical_type);
    if (a.topic == NULL) {
        return FAIL(E_TYPE_UNKNOWN);
    }
    if (dp_model_topic_blocked(rq->model, a.topic)) {
        return FAIL(E_SCHEMA_BLOCKED);
    }
    TRY(check_tenant(&a.envelope, rq->caller->tenant));
    asked->decided = true;
    TRY(decide(rq, a.topic, slot->sentence));
    TRY(check_payload(rq->model, a.topic, a.envelope.payload, slot->sentence));
    if (a.envelope.expires_at_ms != 0 && a.envelope.expires_at_ms <= clock_wall_ms()) {
        return FAIL(E_ENVELOPE_EXPIRED);
    }
    *out = a;
    return OK;
}

/* ---- send ---- */

static void completed(struct canon_pending *pending, const struct jetstream_completion *how);

static MUST_CHECK struct err send_event(struct canon_publish *call, const struct admitted *a,
                                        struct canon_slot *slot)
{
    struct dp_request *rq = call->rq;
    struct canon *lane = call->lane;
    CHECK(rq->verdict.allow);
    CHECK(rq->target == &a->topic->target); /* what was decided is what is sent. */
    uint64_t left_ms = dp_request_left_ms(rq);
    const struct canon_context context = {
        .environment = lane->host.environment,
        .tenant = rq->caller->tenant,
        .caller = rq->caller->spiffe,
        .correlation = rq->correlation,
        .trace = &rq->trace,
        .partitions = dp_model_environment(rq->model)->partitions,
        .timeout_ms = left_ms < limits.publish_timeout_ms ? left_ms : limits.publish_timeout_ms,
        .now_ms = clock_wall_ms()};
    struct canon_event event;
    TRY(canon_event_make(&context, &a->envelope, a->topic->type, &event, &lane->payload));
    note_event_id(slot, event.event_id);
    slot->topic = canon_topic(lane, a->topic);
    if (slot->topic == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    slot->pending.completed = completed;
    TRY(canon_send(lane,
                   &(struct bus_outgoing){.subject = subject_slice(&event.subject),
                                          .headers = event.headers,
                                          .header_count = event.header_count,
                                          .payload = buf_slice(&lane->payload)},
                   subject_slice(&event.message_id), &slot->pending));
    slot->waiting = true;
    return OK;
}

/* A refusal of one envelope, which its answer says; PublishOne's is its call's. */
static void note_refusal(struct canon_publish *call, struct canon_slot *slot,
                         struct dp_refused_message *message)
{
    if (!call->one && !err_ok(message->why)) {
        message->sentence = slice_str(slot->sentence);
        slot->explain = dp_refusals_note_message(call->rq->pool->refusals, call->rq, message);
    }
}

/* An envelope's request: afterwards its slot waits for JetStream, or says why it was refused. */
static MUST_CHECK struct err take_envelope(struct canon_publish *call, struct slice request)
{
    if (call->one && call->taken) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    call->taken = true;
    struct canon_slot *slot = slot_new(call);
    if (slot == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct slice bytes = {0};
    struct admitted admitted;
    struct dp_refused_message refused = {0};
    struct err err = canon_publish_decode(request, &bytes);
    if (err_ok(err)) {
        err = admit(call->rq, bytes, &admitted, slot, &refused);
    }
    if (err_ok(err)) {
        err = send_event(call, &admitted, slot);
    }
    slot->code = err.code;
    refused.why = err;
    note_refusal(call, slot, &refused);
    return OK;
}

static void completed(struct canon_pending *pending, const struct jetstream_completion *how)
{
    struct canon_slot *slot = (struct canon_slot *)pending;
    struct canon *lane = slot->lane;
    CHECK(slot->waiting);
    slot->waiting = false;
    slot->code = how->err.code;
    slot->sequence = how->sequence;
    slot->duplicate = how->duplicate;
    canon_record(lane, slot->topic->publish_latency, (clock_mono_ns() - slot->started_ns) / 1000);
    if (slot->call == NULL) {
        slot_free(lane, slot);
        return;
    }
    struct dp_refused_message refused = {.why = how->err, .type = slot->topic->type};
    note_refusal(slot->call, slot, &refused);
    work(slot->call);
}

/* ---- answer_in_order ---- */

static MUST_CHECK struct err answer(struct canon_publish *call, const struct canon_slot *slot)
{
    bool refused = slot->code != E_OK;
    char explain[DP_REFUSAL_ID_SIZE + 1];
    dp_refusal_id_format(slot->explain, explain);
    const char *sentence = slot->sentence[0] != '\0' ? slot->sentence : err_text(slot->code);
    const struct canon_publish_answer a = {
        .event_id = slice_of(slot->event_id, slot->event_id_size),
        .sequence = slot->sequence,
        .stream = refused ? (struct slice){0} : slot->topic->stream,
        .duplicate = slot->duplicate,
        .code = refused ? slice_str(err_name(slot->code)) : (struct slice){0},
        .sentence = refused ? slice_str(sentence) : (struct slice){0},
        .explain = slot->explain == 0 ? (struct slice){0} : slice_of(explain, DP_REFUSAL_ID_SIZE)};
    struct buf *frame = &call->lane->frame;
    buf_clear(frame);
    TRY(canon_publish_answer(&a, frame));
    return canon_output_send(&call->out, buf_slice(frame));
}

static MUST_CHECK struct err answer_in_order(struct canon_publish *call)
{
    while (call->oldest != NULL && !call->oldest->waiting && !canon_output_waits(&call->out)) {
        struct canon_slot *slot = call->oldest;
        TRY(answer(call, slot));
        call->oldest = slot->next;
        call->youngest = slot->next == NULL ? NULL : call->youngest;
        call->slots--;
        slot_free(call->lane, slot);
    }
    return OK;
}

/* ---- reading ---- */

static bool has_room(const struct canon_publish *call)
{
    return call->slots < limits.publish_window && !canon_output_waits(&call->out) && !call->closing;
}

/* Reads what is held, as far as there is room for its answers. */
static MUST_CHECK struct err read_messages(struct canon_publish *call)
{
    struct slice in = buf_slice(&call->held);
    bool found = true;
    while (found && has_room(call)) {
        struct slice message = {0};
        TRY(grpc_reader_next(&call->reader, &in, &message, &found));
        if (found && call->reader.compressed) {
            return FAIL(E_UNSUPPORTED);
        }
        if (found) {
            TRY(take_envelope(call, message));
        }
    }
    size_t read = call->held.size - in.size;
    buf_drop(&call->held, read);
    h2_stream_consume(call->rq->stream, read);
    return OK;
}

/* Refused envelopes are answered at once, which may make room again. */
static MUST_CHECK struct err read_and_answer(struct canon_publish *call)
{
    size_t before = 0;
    do {
        before = call->held.size;
        TRY(answer_in_order(call));
        TRY(read_messages(call));
        TRY(answer_in_order(call));
    } while (call->held.size > 0 && call->held.size < before);
    return OK;
}

static bool refused_alone(const struct canon_publish *call)
{
    return call->one && call->oldest != NULL && !call->oldest->waiting &&
           call->oldest->code != E_OK;
}

static void let_go(struct canon_publish *call);

/* All is answered; the end. */
static void finish(struct canon_publish *call)
{
    struct dp_request *rq = call->rq;
    struct err err = OK;
    if (call->closing && !call->caller_ended) {
        fail(call, FAIL(E_DRAINING), (struct slice){0});
        return;
    }
    if (call->one && !call->taken) {
        err = FAIL(E_PROTOCOL_ERROR);
    } else if (call->caller_ended) {
        err = grpc_scan_end(&call->reader.scan);
    }
    if (err_ok(err)) {
        err = canon_output_finish(&call->out);
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err, (struct slice){0});
        return;
    }
    let_go(call);
    dp_request_done(rq, OK);
}

/* Does what can be done now; the call may be over when this returns. */
static void work(struct canon_publish *call)
{
    struct err err = OK;
    if (call->one) {
        err = read_messages(call);
        if (err_ok(err) && refused_alone(call)) {
            struct canon_slot *slot = call->oldest;
            struct slice sentence = {0};
            struct err kept = arena_dup(&call->rq->arena, slice_str(slot->sentence), &sentence);
            (void)kept; /* without memory the code speaks for itself. */
            fail(call, (struct err){slot->code, "canonical: envelope"}, sentence);
            return;
        }
    }
    if (err_ok(err)) {
        err = read_and_answer(call);
    }
    if (!err_ok(err)) {
        fail(call, err.code == E_MALFORMED ? FAIL(E_PROTOCOL_ERROR) : err, (struct slice){0});
        return;
    }
    bool no_more = call->closing || (call->caller_ended && call->held.size == 0);
    if (no_more && call->oldest == NULL && !canon_output_waits(&call->out)) {
        finish(call);
    }
}

/* ---- the caller's side ---- */

static void caller_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct canon_publish *call = h2_stream_user(s);
    call->rq->request_bytes += bytes.size;
    call->caller_ended = call->caller_ended || end;
    struct err err = buf_add(&call->held, bytes);
    if (!err_ok(err)) {
        fail(call, err, (struct slice){0});
        return;
    }
    work(call);
}

static void caller_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields; /* a gRPC request has none; what comes as such only ends it. */
    caller_data(s, (struct slice){0}, /* end= */ true);
}

static void caller_writable(struct h2_stream *s)
{
    struct canon_publish *call = h2_stream_user(s);
    struct err err = canon_output_flush(&call->out);
    if (!err_ok(err)) {
        fail(call, err, (struct slice){0});
        return;
    }
    work(call);
}

static void caller_reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct canon_publish *call = h2_stream_user(s);
    dp_request_cancel(call->rq);
}

static const struct h2_stream_events caller_events = {.data = caller_data,
                                                      .trailers = caller_trailers,
                                                      .writable = caller_writable,
                                                      .reset = caller_reset};

/* ---- the end ---- */

static void let_go(struct canon_publish *call)
{
    struct canon *lane = call->lane;
    while (call->oldest != NULL) {
        struct canon_slot *slot = call->oldest;
        call->oldest = slot->next;
        slot->call = NULL;
        if (!slot->waiting) {
            slot_free(lane, slot);
        }
    }
    if (call->prev != NULL) {
        call->prev->next = call->next;
    } else {
        lane->publishes = call->next;
    }
    if (call->next != NULL) {
        call->next->prev = call->prev;
    }
    grpc_reader_free(&call->reader);
    buf_free(&call->held);
    canon_output_free(&call->out);
    call->rq->lane_state = NULL;
}

static void fail(struct canon_publish *call, struct err why, struct slice sentence)
{
    struct canon_output out = {.rq = call->rq};
    let_go(call);
    canon_output_fail(&out, why, sentence);
}

void canon_publish_abort(struct dp_request *rq, struct err why)
{
    CHECK(rq->lane_state != NULL);
    fail(rq->lane_state, why, (struct slice){0});
}

void canon_publishes_drain(struct canon *lane)
{
    struct canon_publish *call = lane->publishes;
    while (call != NULL) {
        struct canon_publish *next = call->next;
        if (!call->one) {
            call->closing = true;
            work(call);
        }
        call = next;
    }
}
