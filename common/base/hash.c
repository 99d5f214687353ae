/* hash: see hash.h. */
#include "common/base/hash.h"

#include <xxhash.h>

uint64_t hash_bytes(struct slice bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes.size == 0 ? (const void *)"" : bytes.ptr, bytes.size, seed);
}
