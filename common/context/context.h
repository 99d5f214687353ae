/*
 * context: what travels with every call and event, and its names on every hop.
 *
 * Shape      one table: a thing, and what it is called in HTTP and gRPC, in a NATS header, and in
 *            Envelope.headers. All other code takes names from here.
 * Units      bytes.
 * Ownership  slices of the table are literals; others are borrowed for the call.
 * Threads    pure functions; any thread. No call allocates.
 * Errors     none: what is not valid is replaced at the edge, see docs/context.md.
 * Source     docs/names.md, "Context, on every hop".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/slice.h"

/* what, HTTP and gRPC, NATS, NATS again, Envelope.headers; "" where it has no name. */
#define CONTEXT_LIST(X)                                                                            \
    X(TENANT, "x-tenant-id", "tenant-id", "", "tenant-id")                                         \
    X(CORRELATION, "x-correlation-id", "x-correlation-id", "correlation-id", "correlation-id")     \
    X(TRACEPARENT, "traceparent", "traceparent", "", "traceparent")                                \
    X(TRACESTATE, "tracestate", "", "", "")                                                        \
    X(TRACE_ID, "", "trace-id", "", "")                                                            \
    X(REQUEST, "x-request-id", "", "", "")                                                         \
    X(IDEMPOTENCY, "idempotency-key", "", "", "idempotency-key")                                   \
    X(CALLER, "x-caller-id", "caller-id", "", "caller-id")                                         \
    X(GRPC_TIMEOUT, "grpc-timeout", "", "", "")                                                    \
    X(REQUEST_TIMEOUT, "x-request-timeout-ms", "x-request-timeout-ms", "", "")                     \
    X(CONTENT_TYPE, "content-type", "content-type", "", "")                                        \
    X(MESSAGE_ID, "", "Nats-Msg-Id", "", "")

#define CONTEXT_ENUM_(name, http, nats, nats_alias, envelope) CONTEXT_##name,
enum context_name { CONTEXT_LIST(CONTEXT_ENUM_) CONTEXT_COUNT };
#undef CONTEXT_ENUM_

/* Content types of the bus. */
#define CONTEXT_TYPE_ENVELOPE SLICE_LIT("application/vnd.trilane.envelope")
#define CONTEXT_TYPE_FRAME SLICE_LIT("application/vnd.trilane.frame")

/* The name of a thing; empty where it has none. context_nats_alias(): the second NATS header. */
struct slice context_http(enum context_name name);
struct slice context_nats(enum context_name name);
struct slice context_nats_alias(enum context_name name);
struct slice context_envelope(enum context_name name);

/* Which thing a header is, case folded (HTTP) or exact (NATS, envelope); CONTEXT_COUNT: none. */
enum context_name context_find_http(struct slice header);
enum context_name context_find_nats(struct slice header);
enum context_name context_find_envelope(struct slice header);

enum context_edge {
    CONTEXT_PASS,  /* no business of ours. */
    CONTEXT_STRIP, /* never believed from a client. */
    CONTEXT_JUDGE  /* the tenant: stripped when it disagrees with the identity. */
};

/*
 * What the edge does to a client's header. '_' counts as '-' and case is folded, since servers
 * behind us may do the same.
 */
enum context_edge context_judge_client(struct slice header);

enum { CONTEXT_ID_MAX = 128, CONTEXT_ID_SIZE = 32 };

/* Whether a client's correlation, request or idempotency id may go on: 1 to 128 visible ASCII. */
bool context_id_valid(struct slice id);

/* Makes one: 32 hex digits and a NUL. */
void context_id_make(char out[CONTEXT_ID_SIZE + 1]);
