/*
 * attempt: one try of a call at an upstream: an endpoint, a connection, a stream.
 *
 * Shape      the first one lies in the call, further ones in its request's arena. What it hears of
 *            the upstream it tells the call: the functions of call_impl.h.
 * Units      bytes; milliseconds; *_ns of the loop's clock.
 * Ownership  of the call. An attempt holds its stream until op_attempt_drop(), and its endpoint
 *            from the moment that the request is sent.
 * Threads    the request's worker.
 * Errors     what an attempt failed of goes to the call, which may try again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/h2.h"
#include "common/net/timer.h"
#include "dataplane/operator/upstream.h"

struct op_call;

struct op_attempt {
    struct op_call *call;
    struct op_attempt *next;      /* of the call's, older first; or of those that may be used. */
    struct h2_stream *upstream;   /* NULL until the request is sent, and once it is closed. */
    struct op_endpoint *endpoint; /* that is tried; held while 'asked'. */
    struct op_wait wait;
    uint64_t until_ns; /* the end of its own time; valid while 'timed'. */
    uint64_t asked_ns;
    uint64_t first_ns;      /* from then, or from the last bytes of the caller's, to the head of its
                               answer; zero: there is none yet. */
    size_t sent;            /* bytes of what the call keeps that left towards the upstream. */
    uint32_t number;        /* attempts of the call before this one. */
    enum op_end end;        /* how it ended, as far as is known. */
    int status;             /* of its answer. */
    bool asked;             /* the request was sent, and the endpoint hears of the end. */
    bool answers;           /* the head of an answer has come. */
    bool timed;             /* it has a time of its own: 'timer' is initialised. */
    bool noted;             /* as a success. */
    bool hurried;           /* it has little time, through its caller or earlier ones. */
    bool starved;           /* when it ended, its upstream waited for more of the request. */
    struct net_timer timer; /* of perTryTimeout. */
};

/* How an attempt ended that may be followed by another one. */
struct op_over {
    struct err why;                 /* E_OK: by a status, in 'fields'. */
    const struct h2_fields *fields; /* the trailers, or a trailers-only answer; else NULL. */
    bool trailers_only;
    bool timed_out; /* by perTryTimeout. */
};

/* A fresh one. */
void op_attempt_init(struct op_attempt *attempt, struct op_call *call, uint32_t number);

/* Finds an endpoint and room on a connection, now or later, and sends the request. Whatever comes
 * of it the call is told, which may be over when this returns. */
void op_attempt_start(struct op_attempt *attempt);

/* Gives up what it still does or waits for, and tells the endpoint how it ended. */
void op_attempt_drop(struct op_attempt *attempt);
