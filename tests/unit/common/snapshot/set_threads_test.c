/* set: many threads read one set, take over from it and drop it; the last drop frees it once. */
#include <pthread.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/snapshot/set.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

enum { THREADS = 4, ROUNDS = 20, PARTS = 200 };

static struct fx fx;
static struct fx_version first;
static struct fx_version second;

struct reader {
    pthread_t thread;
    struct snap_set *set; /* a reference of its own. */
};

/* cmocka's failures jump, which a thread must not: CHECK ends the program. */
static struct snap_set *take_over(struct snap_set *previous)
{
    struct snap_set *next = NULL;
    struct snap_missing missing;
    size_t at = 0;
    struct err e = snap_set_new(&second.manifest, previous, &next);
    CHECK(err_ok(e));
    while (snap_set_missing(next, &at, &missing)) {
        e = snap_set_add(next, &missing.name, fx_stored(&second, missing.name.digest));
        CHECK(err_ok(e));
    }
    e = snap_set_close(next);
    CHECK(err_ok(e));
    return next;
}

static void *read_and_replace(void *context)
{
    struct reader *r = context;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct snap_cursor at = {0};
        struct snap_part p;
        size_t count = 0;
        struct snap_set *next = take_over(r->set);
        while (snap_set_next(next, STREAM_TRUST, &at, &p)) {
            count++;
        }
        CHECK(count == PARTS);
        snap_set_unref(next);
    }
    snap_set_unref(r->set);
    return NULL;
}

static void shared_by_threads(void **state)
{
    (void)state;
    struct reader readers[THREADS];
    fx_init(&fx);
    fx_version_make(&fx, 1, PARTS, PARTS, &first);
    fx_version_make(&fx, 2, PARTS, 100, &second);
    struct snap_set *set = fx_set(&first, NULL);
    for (size_t i = 0; i < THREADS; i++) {
        readers[i].set = snap_set_ref(set);
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_and_replace, &readers[i]),
                         0);
    }
    snap_set_unref(set);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
    }
    fx_version_free(&first);
    fx_version_free(&second);
    fx_free(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_by_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
