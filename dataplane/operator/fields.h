/*
 * fields: which header fields go on to the next hop, and which we say ourselves.
 *
 * Shape      lists of h2_field whose received ones keep their references: nothing is copied here.
 * Ownership  what is written into a list borrows from the request and from 'room' until submission.
 * Threads    one worker.
 * Source     NAMES: "Context, on every hop"; gRPC over HTTP/2: "Requests", "Responses".
 */
#pragma once

#include <stddef.h>

#include "common/context/timeout.h"
#include "common/context/trace.h"
#include "common/net/h2_field.h"

struct dp_request;

/* Fields that a request gets from us, pseudo header fields counted. */
enum { OP_FIELDS_OURS = 13 };

enum { OP_ATTEMPTS_TEXT_MAX = 24 };

/* Text of our own fields; must live until they are submitted. */
struct op_fields_room {
    char traceparent[TRACE_PARENT_SIZE + 1];
    char timeout[TIMEOUT_TEXT_MAX];
    char previous[OP_ATTEMPTS_TEXT_MAX];
};

/* Which try of a call the section is for. */
struct op_fields_try {
    uint64_t until_ns; /* its deadline. */
    uint32_t previous; /* attempts of ours before it: grpc-previous-rpc-attempts (gRPC A6). */
};

/* Writes the upstream's request section into 'out' (room for received + OP_FIELDS_OURS). */
size_t op_request_fields(const struct dp_request *rq, const struct h2_fields *received,
                         const struct op_fields_try *how, struct op_fields_room *room,
                         struct h2_field *out);

/* Writes an answer's section, head or trailers, into 'out' (room for all received). */
size_t op_response_fields(const struct h2_fields *received, struct h2_field *out);
