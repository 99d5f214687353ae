/*
 * bus_wait: takes the next item of a queue of the bus, or nothing when none comes in time.
 *
 * Ownership  what is returned is the caller's.
 * Threads    one consumer.
 */
#pragma once

#include <time.h>

#include "common/base/clock.h"
#include "common/base/queue.h"

static inline void *bus_wait_item(struct queue *queue, uint64_t timeout_ms)
{
    uint64_t until_ns = clock_mono_ns() + timeout_ms * 1000000;
    void *item = NULL;
    while (queue_pop(queue, &item, 1) == 0 && clock_mono_ns() < until_ns) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return item;
}
