/*
 * Fuzzes: jose_keys_read.
 * Property: a set that is taken has keys, each for some algorithm, and each found by its name.
 */
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/jose/jwk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jose_keys *keys = NULL;
    const char *why = NULL;
    bool clear = false;
    ids_init();
    (void)jose_uri_is_safe(slice_of(data, size), &clear);
    if (!err_ok(jose_keys_read(slice_of(data, size), &keys, &why))) {
        CHECK(why != NULL && keys == NULL);
        return 0;
    }
    CHECK(keys->count > 0 && keys->count <= JOSE_KEYS_MAX);
    for (size_t i = 0; i < keys->count; i++) {
        const struct jose_key *key = &keys->at[i];
        CHECK(key->algs != 0 && (key->algs & ~(uint32_t)JOSE_ALGS_ALL) == 0);
        CHECK(key->kid_size > 0 || keys->count == 1);
        CHECK(jose_keys_has(keys, key->print));
        for (enum jose_alg alg = JOSE_NONE + 1; alg < JOSE_ALG_COUNT; alg++) {
            bool can = (key->algs >> (unsigned)alg & 1) != 0;
            CHECK(!can || jose_keys_find(keys, slice_of(key->kid, key->kid_size), alg) != NULL);
        }
    }
    jose_keys_unref(keys);
    return 0;
}
