/*
 * fiber: a piece of code with a stack of its own, run in turns by one thread.
 *
 * Shape      fiber_resume() runs a fiber until it calls fiber_yield(), or ends.
 * Ownership  fiber_new() gives what fiber_free() takes; what a fiber that never ended had on its
 *            stack and heap is lost.
 * Threads    one.
 */
#pragma once

#include <stdbool.h>

struct fiber;

struct fiber *fiber_new(void (*body)(void *ctx), void *ctx);

/* Not the one that runs. */
void fiber_free(struct fiber *fiber);

/* Runs it, from outside of any fiber. True: it ended. */
bool fiber_resume(struct fiber *fiber);

/* Gives the turn back to fiber_resume(). */
void fiber_yield(struct fiber *self);
