/* Proves that hashes are the ones of every other build and node: they are compared with fixed ones.
 */
#include "common/base/hash.h"

#include "tests/support/cmocka.h"

static void hashes_are_fixed(void **state)
{
    (void)state;
    assert_true(hash_bytes(SLICE_LIT(""), 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash_bytes((struct slice){0}, 0) == hash_bytes(SLICE_LIT(""), 0));
    assert_true(hash_bytes(SLICE_LIT("a"), 0) != hash_bytes(SLICE_LIT("a"), 1));
    /* The first outputs of splitmix64 from seed 0 (Vigna). */
    assert_true(hash_mix(0) == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(hash_mix(UINT64_C(0x9e3779b97f4a7c15)) == UINT64_C(0x6e789e6aa1b965f4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hashes_are_fixed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
