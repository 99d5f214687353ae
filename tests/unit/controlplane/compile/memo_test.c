/* memo: finds by key, drops what was asked for longest ago, and weighs what it holds. */
#include "controlplane/compile/memo.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/cmocka.h"

static size_t dropped;

static void drop(void *value)
{
    (void)value;
    dropped++;
}

static int values[8];

static struct slice key_of(unsigned i, char room[8])
{
    return slice_of(room, (size_t)snprintf(room, 8, "key-%u", i));
}

static void put(struct cp_memo *memo, unsigned i, size_t bytes)
{
    char room[8];
    assert_true(err_ok(cp_memo_put(memo, key_of(i, room), &values[i], bytes)));
}

static bool has(struct cp_memo *memo, unsigned i)
{
    char room[8];
    void *value = cp_memo_get(memo, key_of(i, room));
    assert_true(value == NULL || value == &values[i]);
    return value != NULL;
}

static void drops_what_was_asked_for_longest_ago(void **state)
{
    (void)state;
    struct cp_memo memo;
    cp_memo_init(&memo, 4000, drop);
    dropped = 0;
    put(&memo, 0, 1000);
    put(&memo, 1, 1000);
    put(&memo, 2, 1000);
    assert_true(has(&memo, 0));
    put(&memo, 3, 1000); /* with what holds them it is too much for one. */
    assert_int_equal(dropped, 1);
    assert_true(has(&memo, 0));
    assert_false(has(&memo, 1));
    assert_true(has(&memo, 2));
    assert_true(has(&memo, 3));
    assert_true(memo.bytes <= 4000);
    cp_memo_free(&memo);
    assert_int_equal(dropped, 4);
}

static void what_is_too_heavy_goes_at_once(void **state)
{
    (void)state;
    struct cp_memo memo;
    cp_memo_init(&memo, 100, drop);
    dropped = 0;
    put(&memo, 0, 1000);
    assert_int_equal(dropped, 1);
    assert_false(has(&memo, 0));
    assert_int_equal(memo.bytes, 0);
    put(&memo, 1, 1);
    assert_true(has(&memo, 1));
    cp_memo_free(&memo);
    assert_int_equal(dropped, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drops_what_was_asked_for_longest_ago),
        cmocka_unit_test(what_is_too_heavy_goes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
