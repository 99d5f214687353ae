/* queue: see queue.h. */
#include "common/base/queue.h"

#include <stdlib.h>

#include "common/base/check.h"

struct err queue_init(struct queue *q, size_t capacity, queue_wake_fn *wake, void *wake_ctx)
{
    CHECK(capacity > 0);
    void **ring = calloc(capacity, sizeof(*ring));
    if (ring == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *q = (struct queue){.capacity = capacity, .wake = wake, .wake_ctx = wake_ctx};
    lock_init(&q->shared.lock);
    lock_take(&q->shared.lock);
    q->shared.ring = ring;
    lock_drop(&q->shared.lock);
    return OK;
}

void queue_free(struct queue *q, queue_drop_fn *drop)
{
    if (q->capacity == 0) {
        return;
    }
    void *item = NULL;
    while (queue_pop(q, &item, 1) == 1) {
        if (drop != NULL) {
            drop(item);
        }
    }
    lock_take(&q->shared.lock);
    free(q->shared.ring);
    q->shared.ring = NULL;
    lock_drop(&q->shared.lock);
    lock_free(&q->shared.lock);
    q->capacity = 0;
}

struct err queue_push(struct queue *q, void *item)
{
    CHECK(item != NULL);
    lock_take(&q->shared.lock);
    struct err err = q->shared.closed                 ? FAIL(E_CLOSED)
                     : q->shared.count == q->capacity ? FAIL(E_QUEUE_FULL)
                                                      : OK;
    bool was_empty = q->shared.count == 0;
    if (err_ok(err)) {
        q->shared.ring[(q->shared.head + q->shared.count) % q->capacity] = item;
        q->shared.count++;
    }
    lock_drop(&q->shared.lock);
    if (err_ok(err) && was_empty && q->wake != NULL) {
        q->wake(q->wake_ctx);
    }
    return err;
}

size_t queue_pop(struct queue *q, void **items, size_t max)
{
    lock_take(&q->shared.lock);
    size_t count = q->shared.count < max ? q->shared.count : max;
    for (size_t i = 0; i < count; i++) {
        items[i] = q->shared.ring[q->shared.head];
        q->shared.head = (q->shared.head + 1) % q->capacity;
    }
    q->shared.count -= count;
    lock_drop(&q->shared.lock);
    return count;
}

void queue_close(struct queue *q)
{
    lock_take(&q->shared.lock);
    q->shared.closed = true;
    lock_drop(&q->shared.lock);
}

size_t queue_count(struct queue *q)
{
    lock_take(&q->shared.lock);
    size_t count = q->shared.count;
    lock_drop(&q->shared.lock);
    return count;
}
