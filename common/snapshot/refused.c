/* refused: see refused.h. */
#include "common/snapshot/refused.h"

#include <string.h>

bool refused_has(const struct refused *r, const uint8_t digest[DIGEST_SIZE])
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (memcmp(r->digests[i], digest, DIGEST_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

void refused_add(struct refused *r, const uint8_t digest[DIGEST_SIZE])
{
    if (refused_has(r, digest)) {
        return;
    }
    if (r->count == REFUSED_DIGESTS_MAX) {
        memmove(r->digests[0], r->digests[1], sizeof(r->digests) - DIGEST_SIZE);
        r->count--;
    }
    memcpy(r->digests[r->count++], digest, DIGEST_SIZE);
}

void refused_drop(struct refused *r, const uint8_t digest[DIGEST_SIZE])
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        if (memcmp(r->digests[i], digest, DIGEST_SIZE) != 0) {
            memmove(r->digests[kept++], r->digests[i], DIGEST_SIZE);
        }
    }
    r->count = kept;
}
