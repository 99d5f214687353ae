/* Proves that a service is degraded while somebody says so, that who reads sees each change, and
 * that the number of services is bounded. */
#include "dataplane/request/degraded.h"

#include <pthread.h>
#include <stdio.h>

#include "common/base/ids.h"

#include "tests/support/cmocka.h"

static struct dp_degraded *d;

static int set_up(void **state)
{
    (void)state;
    return err_ok(dp_degraded_new(&d)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    dp_degraded_free(d);
    return 0;
}

static void add(const char *name)
{
    assert_int_equal(dp_degraded_add(d, slice_str(name)).code, E_OK);
}

/* Two ways to call it, or two workers: it is degraded until both have taken it back. */
static void a_service_is_there_while_somebody_says_so(void **state)
{
    (void)state;
    uint32_t before = dp_degraded_edition(d);
    add("service/acme/b");
    uint32_t one = dp_degraded_edition(d);
    assert_int_not_equal(one, before);
    add("service/acme/b");
    assert_int_equal(dp_degraded_edition(d), one); /* nothing new. */
    add("service/acme/a");
    assert_int_equal(dp_degraded_count(d), 2);
    auto_arena struct arena arena;
    arena_init(&arena, 1024, 1 << 16);
    const struct slice *names = NULL;
    size_t count = 0;
    assert_int_equal(dp_degraded_list(d, &arena, &names, &count).code, E_OK);
    assert_int_equal(count, 2);
    assert_true(slice_eq(names[0], SLICE_LIT("service/acme/a")));
    assert_true(slice_eq(names[1], SLICE_LIT("service/acme/b")));
    dp_degraded_remove(d, SLICE_LIT("service/acme/b"));
    assert_int_equal(dp_degraded_count(d), 2);
    dp_degraded_remove(d, SLICE_LIT("service/acme/b"));
    dp_degraded_remove(d, SLICE_LIT("service/acme/a"));
    assert_int_equal(dp_degraded_count(d), 0);
    assert_int_equal(dp_degraded_list(d, &arena, &names, &count).code, E_OK);
    assert_int_equal(count, 0);
}

static void services_are_bounded(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < DP_DEGRADED_MAX; i++) {
        (void)snprintf(name, sizeof(name), "service/acme/%d", i);
        add(name);
    }
    assert_int_equal(dp_degraded_add(d, SLICE_LIT("service/acme/more")).code, E_TOO_LARGE);
    add("service/acme/0");
    dp_degraded_remove(d, SLICE_LIT("service/acme/1"));
    add("service/acme/more");
    assert_int_equal(dp_degraded_count(d), DP_DEGRADED_MAX);
}

static void *say_and_take_back(void *ctx)
{
    struct slice own = slice_str(ctx);
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(dp_degraded_add(d, SLICE_LIT("service/acme/shared")).code, E_OK);
        assert_int_equal(dp_degraded_add(d, own).code, E_OK);
        dp_degraded_remove(d, SLICE_LIT("service/acme/shared"));
        dp_degraded_remove(d, own);
    }
    return NULL;
}

static void threads_do_not_meet(void **state)
{
    (void)state;
    char names[2][8] = {"s/a/x", "s/a/y"};
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, say_and_take_back, names[i]), 0);
    }
    for (size_t i = 0; i < 100; i++) {
        auto_arena struct arena arena;
        arena_init(&arena, 1024, 1 << 16);
        const struct slice *list = NULL;
        size_t count = 0;
        assert_int_equal(dp_degraded_list(d, &arena, &list, &count).code, E_OK);
        assert_true(count <= 3);
    }
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(dp_degraded_count(d), 0);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_service_is_there_while_somebody_says_so, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(services_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_do_not_meet, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("degraded", tests, NULL, NULL);
}
