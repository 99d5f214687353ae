/* ids: see ids.h. */
#include "common/base/ids.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/check.h"

static _Thread_local uint64_t state[4];
static _Thread_local bool seeded;

void ids_init(void)
{
    CHECK(sodium_init() >= 0);
}

void ids_random(void *out, size_t size)
{
    randombytes_buf(out, size);
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

/* xoshiro256** 1.0, Blackman and Vigna. */
static uint64_t next(void)
{
    uint64_t result = rotate(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 45);
    return result;
}

void ids_quick(void *out, size_t size)
{
    if (!seeded) {
        randombytes_buf(state, sizeof(state));
        seeded = true;
    }
    uint8_t *at = out;
    while (size > 0) {
        uint64_t word = next();
        size_t part = size < sizeof(word) ? size : sizeof(word);
        (void)memcpy(at, &word, part);
        at += part;
        size -= part;
    }
}

void ids_digest(struct slice bytes, uint8_t out[DIGEST_SIZE])
{
    CHECK(crypto_generichash(out, DIGEST_SIZE, bytes.ptr, bytes.size, NULL, 0) == 0);
}

void ids_digest_short(struct slice bytes, uint8_t out[DIGEST_SHORT_SIZE])
{
    CHECK(crypto_generichash(out, DIGEST_SHORT_SIZE, bytes.ptr, bytes.size, NULL, 0) == 0);
}
