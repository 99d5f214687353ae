/*
 * pool: what request.c needs of the pool's inside: pins, release, deciding anew.
 *
 * Shape      a generation is one model of one worker and a plain count of the requests that stand
 *            on it; the last one gives the model back.
 * Threads    the worker whose pool it is.
 */
#pragma once

#include <stdbool.h>

#include "dataplane/request/request.h"

/* Pins the model in force; false when there is none. */
bool dp_request_pin(struct dp_request *rq);

/* Takes the request out of the open ones, lets go of its model, keeps it for another time. */
void dp_request_release(struct dp_request *rq);

/* The token that a request stands on has ended: it ends, too. */
void dp_request_token_over(struct dp_token_hold *hold, enum dp_token_outcome why);

/* Decides an open request anew, on the model that it points to now. False: it was aborted. */
bool dp_request_redecide(struct dp_request *rq);
