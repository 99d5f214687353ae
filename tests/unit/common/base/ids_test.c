/* ids: digests are BLAKE2b of their own size; random bytes differ between calls and threads. */
#include "common/base/ids.h"

#include <pthread.h>
#include <string.h>

#include "common/base/text.h"

#include "tests/support/cmocka.h"

static void digests_are_blake2b(void **state)
{
    (void)state;
    uint8_t digest[DIGEST_SIZE];
    char hex[2 * DIGEST_SIZE + 1];
    ids_digest(SLICE_LIT("abc"), digest);
    text_hex(slice_of(digest, DIGEST_SIZE), hex);
    assert_string_equal(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    ids_digest(slice_of(NULL, 0), digest);
    text_hex(slice_of(digest, DIGEST_SIZE), hex);
    assert_string_equal(hex, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    ids_digest_short(SLICE_LIT("abc"), digest);
    text_hex(slice_of(digest, DIGEST_SHORT_SIZE), hex);
    assert_string_equal(hex, "cf4ab791c62b8d2b2109c90275287816");
}

static void every_byte_is_filled(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 40; size++) {
        uint8_t ever[41] = {0};
        for (size_t round = 0; round < 40; round++) { /* a byte stays 0 with 2^-320. */
            uint8_t bytes[41] = {0};
            if (round % 2 == 0) {
                ids_quick(bytes, size);
            } else {
                ids_random(bytes, size);
            }
            for (size_t i = 0; i <= 40; i++) {
                ever[i] |= bytes[i];
            }
        }
        for (size_t i = 0; i <= 40; i++) {
            assert_int_equal(ever[i] != 0, i < size);
        }
    }
}

static void *make_id(void *out)
{
    ids_quick(out, 16);
    return NULL;
}

static void threads_do_not_share_a_sequence(void **state)
{
    (void)state;
    uint8_t ids[4][16];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, make_id, ids[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (size_t k = 0; k < i; k++) {
            assert_memory_not_equal(ids[i], ids[k], 16);
        }
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_blake2b),
        cmocka_unit_test(every_byte_is_filled),
        cmocka_unit_test(threads_do_not_share_a_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
