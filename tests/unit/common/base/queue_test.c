/* queue: order holds, a full queue refuses at once, a wake-up comes for each turn from empty, and
 * nothing is lost or doubled between four pushing threads and two popping ones. */
#include "common/base/queue.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#include "tests/support/cmocka.h"

enum { PUSHERS = 4, POPPERS = 2, ITEMS = 20000 };

static void count_wake(void *ctx)
{
    (*(int *)ctx)++;
}

static void order_and_bound(void **state)
{
    (void)state;
    int wakes = 0;
    int items[4];
    void *popped[8];
    struct queue q;
    assert_true(err_ok(queue_init(&q, 3, count_wake, &wakes)));
    for (size_t round = 0; round < 5; round++) { /* the ring wraps at each offset. */
        for (size_t i = 0; i < 3; i++) {
            assert_true(err_ok(queue_push(&q, &items[i])));
        }
        assert_int_equal(queue_push(&q, &items[3]).code, E_QUEUE_FULL);
        assert_int_equal(queue_count(&q), 3);
        assert_int_equal(wakes, round + 1);
        assert_int_equal(queue_pop(&q, popped, 2), 2);
        assert_int_equal(queue_pop(&q, popped + 2, 8), 1);
        for (size_t i = 0; i < 3; i++) {
            assert_ptr_equal(popped[i], &items[i]);
        }
        assert_int_equal(queue_pop(&q, popped, 8), 0);
    }
    queue_free(&q, NULL);
}

static int dropped;

static void drop(void *item)
{
    dropped += *(int *)item;
}

static void closed_keeps_what_is_in(void **state)
{
    (void)state;
    int items[] = {1, 2, 4};
    void *popped = NULL;
    struct queue q;
    assert_true(err_ok(queue_init(&q, 4, NULL, NULL)));
    for (size_t i = 0; i < 3; i++) {
        assert_true(err_ok(queue_push(&q, &items[i])));
    }
    queue_close(&q);
    assert_int_equal(queue_push(&q, &items[0]).code, E_CLOSED);
    assert_int_equal(queue_pop(&q, &popped, 1), 1);
    assert_ptr_equal(popped, &items[0]);
    queue_free(&q, drop);
    assert_int_equal(dropped, 2 + 4);
    queue_free(&q, drop); /* a freed queue is left alone. */
    assert_int_equal(dropped, 2 + 4);
}

static struct queue shared;
static int numbers[PUSHERS * ITEMS];
static _Atomic int seen[PUSHERS * ITEMS];
static _Atomic size_t popped_count;

static void *push_all(void *arg)
{
    int *first = arg;
    for (size_t i = 0; i < ITEMS;) {
        if (err_ok(queue_push(&shared, &first[i]))) {
            i++;
        } else {
            (void)sched_yield(); /* to who makes room. */
        }
    }
    return NULL;
}

static void *pop_all(void *arg)
{
    (void)arg;
    void *items[16];
    while (atomic_load(&popped_count) < (size_t)PUSHERS * ITEMS) {
        size_t count = queue_pop(&shared, items, 16);
        for (size_t i = 0; i < count; i++) {
            atomic_fetch_add(&seen[(int *)items[i] - numbers], 1);
        }
        atomic_fetch_add(&popped_count, count);
        if (count == 0) {
            (void)sched_yield();
        }
    }
    return NULL;
}

static void each_item_arrives_once(void **state)
{
    (void)state;
    pthread_t threads[PUSHERS + POPPERS];
    assert_true(err_ok(queue_init(&shared, 64, NULL, NULL)));
    for (size_t i = 0; i < PUSHERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, push_all, &numbers[i * ITEMS]), 0);
    }
    for (size_t i = PUSHERS; i < PUSHERS + POPPERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pop_all, NULL), 0);
    }
    for (size_t i = 0; i < PUSHERS + POPPERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (size_t i = 0; i < (size_t)PUSHERS * ITEMS; i++) {
        assert_int_equal(atomic_load(&seen[i]), 1);
    }
    queue_free(&shared, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_bound),
        cmocka_unit_test(closed_keeps_what_is_in),
        cmocka_unit_test(each_item_arrives_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
