/*
 * operator: whoever publishes, and does what only people do: new roots, recovery.
 *
 * Shape      a process of its own that asks replicas until one says that it was done.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Starts to publish now and then. */
void operator_begin(void);

/* Nothing but what operator_publish_last() asks for from now on; operator_rests() when what it was
 * at is over. */
void operator_rest(void);
bool operator_rests(void);

/* Publishes once more; operator_is_done() when it is answered. */
void operator_publish_last(void);
bool operator_is_done(void);

/* Says what the last request was answered. */
const char *operator_last_answer(void);
