/*
 * call_impl: what a call is made of; for call.c and attempt.c alone.
 *
 * Ownership  see call.h.
 * Threads    the request's worker.
 */
#pragma once

#include "common/net/grpc.h"
#include "dataplane/operator/attempt.h"
#include "dataplane/operator/kept.h"
#include "dataplane/operator/operator.h"
#include "dataplane/operator/retry.h"

struct dp_caller_stream;
struct dp_request;
struct op_mirror;

struct op_call {
    struct dp_request *rq;
    struct dp_caller_stream *caller;
    struct op_attempt *live;   /* attempts under way, older first. */
    struct op_attempt *spare;  /* those that ended. */
    struct op_attempt *chosen; /* whose answer is the caller's; NULL: that is open, and so long
                                  'kept' is all that the caller sent. */
    struct op_retry *retry;    /* NULL: the method has no policy. */
    struct op_mirror *mirror;  /* NULL: nothing is copied. */
    struct h2_field *head;     /* room for a request's fields, of any attempt; NULL: none yet. */
    struct op_tries tries;
    struct err refused;       /* why the endpoint that was tried last has no connection. */
    struct slice refused_why; /* the same as a sentence. */
    struct grpc_scan up;      /* messages to the upstream. */
    struct grpc_scan down;    /* messages to the caller. */
    struct net_timer idle_timer;
    uint32_t idle_ms;  /* the longest silence; zero: any. */
    uint64_t heard_ns; /* when either side sent something last. */
    uint64_t fed_ns;   /* when the caller did. */
    uint32_t replays;  /* transparent retries. */
    bool refused_once; /* what an upstream refused was sent again: once is enough. */
    bool may_repeat;   /* endpoints may be asked again, when no other is left. */
    bool caller_ended; /* the caller's side is whole. */
    struct op_attempt first;
    struct op_kept kept;
};

/* What the lane keeps on the call's worker. */
struct op_state *op_call_state(const struct op_call *call);

/* The upstream of log and explain; without room they say less. */
void op_call_note_upstream(struct dp_request *rq, const struct op_endpoint *endpoint);

/* ---- what attempts tell ---- */

/* Something came from the upstream. */
void op_call_heard(struct op_call *call);

/* The request was sent. */
void op_call_asked(struct op_attempt *attempt);

/* So many bytes left towards the upstream. */
void op_call_sent(struct op_attempt *attempt, size_t bytes);

/* The head of an answer in gRPC, with more behind it. */
void op_call_head(struct op_attempt *attempt, const struct h2_fields *fields);

/* Bytes of messages; with 'end' the answer ended without a status. */
void op_call_data(struct op_attempt *attempt, struct slice bytes, bool end);

/* It has its status, or has failed. */
void op_call_over(struct op_attempt *attempt, const struct op_over *how);
