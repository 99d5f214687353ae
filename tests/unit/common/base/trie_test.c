/* trie: each copy goes on saying what a plain array of its own would, whatever the others become;
 * also where all hashes are the same; and every value is let go as often as it was taken. */
#include "common/base/trie.h"

#include <stdio.h>
#include <string.h>

#include "common/base/map.h"

#include "tests/support/cmocka.h"

enum { KEYS = 400, COPIES = 6, OPERATIONS = 20000 };

static char names[KEYS][16];
static struct value {
    int refs;
} values[KEYS * 2];

static void take(void *value)
{
    ((struct value *)value)->refs++;
}

static void drop(void *value)
{
    struct value *v = value;
    assert_true(v->refs > 0);
    v->refs--;
}

static const struct trie_owner owner = {take, drop};

/* xorshift64: the run is the same each time. */
static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

struct twin {
    struct trie trie;
    struct value *model[KEYS];
};

static uint64_t hash_of(struct slice key, uint64_t mask)
{
    return map_hash(key) & mask;
}

static struct err count_one(void *ctx, struct slice key, void *value)
{
    (void)key;
    assert_non_null(value);
    (*(size_t *)ctx)++;
    return OK;
}

static void compare(const struct twin *w, uint64_t mask)
{
    size_t expected = 0;
    size_t walked = 0;
    for (size_t i = 0; i < KEYS; i++) {
        struct slice key = slice_str(names[i]);
        assert_ptr_equal(trie_get_hashed(&w->trie, key, hash_of(key, mask)), w->model[i]);
        expected += w->model[i] != NULL;
    }
    assert_int_equal(w->trie.count, expected);
    assert_true(err_ok(trie_walk(&w->trie, count_one, &walked)));
    assert_int_equal(walked, expected);
}

static void change(struct twin *w, uint64_t mask, uint64_t *seed)
{
    size_t k = next_random(seed) % KEYS;
    struct slice key = slice_str(names[k]);
    struct value *value = &values[k + (next_random(seed) % 2) * KEYS];
    if (next_random(seed) % 5 < 2) {
        assert_true(err_ok(trie_remove_hashed(&w->trie, key, hash_of(key, mask))));
        w->model[k] = NULL;
    } else {
        assert_true(err_ok(trie_put_hashed(&w->trie, key, hash_of(key, mask), value)));
        w->model[k] = value;
    }
}

static void run(uint64_t mask)
{
    static struct twin twins[COPIES];
    uint64_t seed = 88172645463325252U;
    for (size_t i = 0; i < COPIES; i++) {
        twins[i] = (struct twin){.trie.owner = &owner};
    }
    for (int n = 0; n < OPERATIONS; n++) {
        struct twin *w = &twins[next_random(&seed) % COPIES];
        if (next_random(&seed) % 50 == 0) {
            const struct twin *from = &twins[next_random(&seed) % COPIES];
            struct trie copy = trie_copy(&from->trie);
            trie_free(&w->trie);
            memmove(w->model, from->model, sizeof(w->model));
            w->trie = copy;
        }
        change(w, mask, &seed);
        if (n % 1000 == 0) {
            for (size_t i = 0; i < COPIES; i++) {
                compare(&twins[i], mask);
            }
        }
    }
    for (size_t i = 0; i < COPIES; i++) {
        compare(&twins[i], mask);
        trie_free(&twins[i].trie);
        assert_null(twins[i].trie.root);
    }
    for (size_t i = 0; i < KEYS * 2; i++) {
        assert_int_equal(values[i].refs, 0);
    }
}

static void copies_part_ways(void **state)
{
    (void)state;
    run(UINT64_MAX);
}

static void hashes_may_be_the_same(void **state)
{
    (void)state;
    run(0x8000000000000007U); /* sixteen hashes, of which pairs differ behind the last level. */
}

static void plain_calls_hash_by_themselves(void **state)
{
    (void)state;
    struct trie t = {0};
    int one = 1;
    assert_null(trie_get(&t, SLICE_LIT("a")));
    assert_true(err_ok(trie_remove(&t, SLICE_LIT("a"))));
    assert_true(err_ok(trie_put(&t, SLICE_LIT("a"), &one)));
    assert_true(err_ok(trie_put(&t, SLICE_LIT(""), &one)));
    assert_ptr_equal(trie_get(&t, SLICE_LIT("a")), &one);
    assert_ptr_equal(trie_get(&t, slice_of(NULL, 0)), &one);
    assert_true(err_ok(trie_remove(&t, SLICE_LIT("a"))));
    assert_null(trie_get(&t, SLICE_LIT("a")));
    assert_int_equal(t.count, 1);
    trie_free(&t);
}

int main(void)
{
    for (size_t i = 0; i < KEYS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "key-%zu", i);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_part_ways),
        cmocka_unit_test(hashes_may_be_the_same),
        cmocka_unit_test(plain_calls_hash_by_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
