/*
 * event: an envelope that was admitted, as the message that goes to the bus.
 *
 * Shape      the envelope's bytes, unchanged, and behind them what the node adds; the subject, the
 *            headers and the message id of NATS.
 * Ownership  an event borrows from the envelope, the context and the buf, which outlive it.
 * Threads    pure values; any thread.
 * Errors     E_ENVELOPE_MALFORMED for an event id that is none, E_MESSAGE_TOO_LARGE when what is
 *            added takes the envelope past limits.envelope_bytes.
 * Source     docs/canonical.md; NAMES: "Context, on every hop", "Subjects".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/bus/envelope.h"
#include "common/bus/subject.h"
#include "common/context/context.h"
#include "common/context/timeout.h"
#include "common/context/trace.h"

/* In which the event is published. */
struct canon_context {
    struct slice environment;
    struct slice tenant;
    struct slice caller;       /* SPIFFE id. */
    struct slice correlation;  /* of the call. */
    const struct trace *trace; /* of the call. */
    uint32_t partitions;
    uint64_t timeout_ms;
    int64_t now_ms;
};

enum { CANON_HEADERS = 10 };

struct canon_event {
    struct slice event_id; /* the envelope's, or made_id. */
    struct slice correlation;
    struct subject subject;
    struct subject message_id;
    struct bus_header headers[CANON_HEADERS];
    size_t header_count;
    char made_id[CONTEXT_ID_SIZE + 1];
    char traceparent[TRACE_PARENT_SIZE + 1];
    char trace_id[TRACE_ID_SIZE + 1];
    char timeout[TIMEOUT_TEXT_MAX];
};

/* 'type' is the topic's, "User.v2". 'payload' is emptied and then holds what goes out. */
MUST_CHECK struct err canon_event_make(const struct canon_context *context,
                                       const struct envelope *envelope, struct slice type,
                                       struct canon_event *out, struct buf *payload);
