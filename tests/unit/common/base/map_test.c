/* map: behaves as a plain array would over 100,000 random operations, with removals that close
 * gaps across the end of the table. */
#include "common/base/map.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/cmocka.h"

enum { KEYS = 300, OPERATIONS = 100000 };

static void put_get_replace_remove(void **state)
{
    (void)state;
    struct map m = {0};
    int one = 1;
    int two = 2;
    void *old = &m;
    assert_null(map_get(&m, SLICE_LIT("a")));
    assert_null(map_remove(&m, SLICE_LIT("a")));
    assert_true(err_ok(map_put(&m, SLICE_LIT("a"), &one, &old)));
    assert_null(old);
    assert_true(err_ok(map_put(&m, SLICE_LIT("a"), &two, &old)));
    assert_ptr_equal(old, &one);
    assert_int_equal(m.count, 1);
    assert_ptr_equal(map_get(&m, SLICE_LIT("a")), &two);
    assert_null(map_get(&m, SLICE_LIT("b")));
    assert_ptr_equal(map_remove(&m, SLICE_LIT("a")), &two);
    assert_null(map_get(&m, SLICE_LIT("a")));
    assert_int_equal(m.count, 0);
    map_free(&m);
}

static void an_empty_key_is_a_key(void **state)
{
    (void)state;
    struct map m = {0};
    int one = 1;
    assert_true(err_ok(map_put(&m, slice_of(NULL, 0), &one, NULL)));
    assert_ptr_equal(map_get(&m, SLICE_LIT("")), &one);
    assert_ptr_equal(map_remove(&m, slice_of(NULL, 0)), &one);
    assert_int_equal(m.count, 0);
    map_free(&m);
}

/* xorshift64: the run is the same each time. */
static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static char names[KEYS][16];
static int values[OPERATIONS];

static void compare(const struct map *m, int *const model[KEYS])
{
    size_t expected = 0;
    for (size_t i = 0; i < KEYS; i++) {
        assert_ptr_equal(map_get(m, slice_str(names[i])), model[i]);
        expected += model[i] != NULL;
    }
    assert_int_equal(m->count, expected);
    size_t walked = 0;
    size_t at = 0;
    const struct map_entry *entry = NULL;
    while ((entry = map_next(m, &at)) != NULL) {
        assert_ptr_equal(map_get(m, entry->key), entry->value);
        walked++;
    }
    assert_int_equal(walked, expected);
}

static void agrees_with_a_model(void **state)
{
    (void)state;
    struct map m = {0};
    int *model[KEYS] = {NULL};
    uint64_t seed = 88172645463325252ULL;
    for (size_t i = 0; i < KEYS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "key-%zu", i);
    }
    for (size_t i = 0; i < OPERATIONS; i++) {
        uint64_t random = next_random(&seed);
        size_t key = (size_t)(random >> 8) % KEYS;
        /* Phases of growth and of emptying, so that the table is seen at every load. */
        bool put = random % 100 < (i / 5000 % 2 == 0 ? 70U : 30U);
        if (put) {
            void *old = NULL;
            assert_true(err_ok(map_put(&m, slice_str(names[key]), &values[i], &old)));
            assert_ptr_equal(old, model[key]);
            model[key] = &values[i];
        } else {
            assert_ptr_equal(map_remove(&m, slice_str(names[key])), model[key]);
            model[key] = NULL;
        }
        if (i % 500 == 0) {
            compare(&m, model);
        }
    }
    compare(&m, model);
    map_free(&m);
}

/* At every load, and each time with others that stay. */
static void a_walk_removes_and_leaves_out_none(void **state)
{
    (void)state;
    uint64_t seed = 1442695040888963407ULL;
    for (size_t count = 1; count <= KEYS; count++) {
        struct map m = {0};
        int *model[KEYS] = {NULL};
        bool stays[KEYS];
        for (size_t i = 0; i < count; i++) {
            (void)snprintf(names[i], sizeof(names[i]), "key-%zu", i);
            assert_true(err_ok(map_put(&m, slice_str(names[i]), &values[i], NULL)));
            stays[i] = next_random(&seed) >> 8 & 1;
            model[i] = stays[i] ? &values[i] : NULL;
        }
        size_t at = 0;
        const struct map_entry *entry = NULL;
        while ((entry = map_next(&m, &at)) != NULL) {
            int *value = entry->value;
            if (!stays[value - values]) {
                assert_ptr_equal(map_remove_here(&m, &at), value);
            }
        }
        compare(&m, model);
        map_free(&m);
    }
}

static void the_seed_is_one_a_process(void **state)
{
    (void)state;
    assert_true(map_hash(SLICE_LIT("x")) == map_hash(SLICE_LIT("x")));
    assert_true(map_hash(slice_of(NULL, 0)) == map_hash(SLICE_LIT("")));
    assert_false(map_hash(SLICE_LIT("x")) == map_hash(SLICE_LIT("y")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_get_replace_remove),
        cmocka_unit_test(an_empty_key_is_a_key),
        cmocka_unit_test(agrees_with_a_model),
        cmocka_unit_test(a_walk_removes_and_leaves_out_none),
        cmocka_unit_test(the_seed_is_one_a_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
