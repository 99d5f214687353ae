/*
 * input: from header fields to struct dp_input, the same for both protocols.
 *
 * Ownership  slices borrow from the stream's or exchange's fields, or lie in the request's arena.
 * Threads    the worker's.
 * Errors     CONTEXT_INVALID for a field of the context that is there twice; E_NO_MEMORY.
 * Source     NAMES: "Context, on every hop".
 */
#pragma once

#include "common/base/err.h"
#include "common/net/h2_field.h"
#include "common/net/http1.h"
#include "dataplane/request/request.h"

struct dp_caller_conn;
struct net_conn;

/* Fills rq->in from the fields of its stream. */
MUST_CHECK struct err dp_input_h2(struct dp_request *rq, const struct h2_fields *fields,
                                  const struct dp_caller_conn *c);

/* Who is asked. PROTOCOL_ERROR when host and :authority do not name the same, or somebody's
 * password (RFC 9113, 8.3.1): the one who routes and the one who serves could take two. */
MUST_CHECK struct err dp_input_authority(const struct h2_fields *fields, struct slice *out);

/* The input of a request whose exchange ends before it, copied into the arena. */
struct dp_input_copy {
    struct dp_input in;
    struct slice correlation;
    struct slice request_id;
};

/* Copies what rq->in borrows from the exchange. E_NO_MEMORY. */
MUST_CHECK struct err dp_input_copy(struct dp_request *rq, struct dp_input_copy *out);

/* Fills rq->in from the head of an exchange. */
MUST_CHECK struct err dp_input_http1(struct dp_request *rq, const struct http1_head *head,
                                     const struct dp_caller_conn *c);
