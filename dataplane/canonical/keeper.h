/*
 * keeper: the thread that makes what blocks: streams if missing, and durable consumers.
 *
 * Shape      a list of jobs; what is done comes back by a list and the bell. Streams are made when
 *            the bus is connected, looked at again after a reconnect or when nobody took a
 *            message, and tried again every second until they are there. Nothing is ever removed.
 * Ownership  a job is the keeper's from canon_keeper_ask() until canon_keeper_done() gives it
 *            back.
 * Threads    the worker's but for the thread itself.
 * Errors     E_IO, E_NO_MEMORY at start; a job carries how it went.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/bus/jetstream.h"
#include "common/bus/subject.h"
#include "dataplane/canonical/state.h"

enum { CANON_WHY_MAX = 256 };

/* A durable consumer that is to be there. */
struct canon_job {
    struct canon_job *next;
    void *ctx; /* the asker's. */
    char stream[JETSTREAM_NAME_MAX];
    struct subject durable;
    struct subject filter;
    bool from_start;
    struct err err;
    char why[CANON_WHY_MAX]; /* of E_CONFLICT; NUL-terminated. */
};

MUST_CHECK struct err canon_keeper_start(const struct dp_lane_host *host, struct canon_bell *bell,
                                         struct canon_keeper **out);

/* Waits for the call that runs now; jobs that are left are freed. Accepts NULL. */
void canon_keeper_stop(struct canon_keeper *keeper);

/* Takes the job; the bell rings when it is done. */
void canon_keeper_ask(struct canon_keeper *keeper, struct canon_job *job);

/* A job that is done, the caller's from now on; NULL: none. */
struct canon_job *canon_keeper_done(struct canon_keeper *keeper);

/* Have the streams looked at again, soon. Accepts NULL. */
void canon_keeper_check(struct canon_keeper *keeper);
