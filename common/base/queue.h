/*
 * queue: a bounded queue of pointers between threads.
 *
 * Shape      a ring under a lock, with a wake-up call when it turns from empty to not empty.
 * Units      items.
 * Ownership  a pushed item is the queue's until popped; queue_free() gives what is left to 'drop'.
 * Threads    any number of both sides. The wake-up runs on the pushing thread, without the lock.
 * Errors     E_QUEUE_FULL at once, never a wait; E_CLOSED after queue_close().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/base/lock.h"

typedef void queue_wake_fn(void *ctx);
typedef void queue_drop_fn(void *item);

struct queue {
    size_t capacity; /* set by queue_init(). */
    queue_wake_fn *wake;
    void *wake_ctx;
    struct {
        struct lock lock;
        void **ring GUARDED;
        size_t head GUARDED; /* index of the oldest item. */
        size_t count GUARDED;
        bool closed GUARDED;
    } shared;
};

/* 'wake' may be NULL. E_NO_MEMORY when the ring cannot be had. */
MUST_CHECK struct err queue_init(struct queue *q, size_t capacity, queue_wake_fn *wake,
                                 void *wake_ctx);
void queue_free(struct queue *q, queue_drop_fn *drop);

/* Adds an item at the end. */
MUST_CHECK struct err queue_push(struct queue *q, void *item);

/* Takes up to 'max' oldest items; returns how many. */
size_t queue_pop(struct queue *q, void **items, size_t max);

/* From now on pushes fail; what is in stays. */
void queue_close(struct queue *q);

/* Items in the queue now. */
size_t queue_count(struct queue *q);
