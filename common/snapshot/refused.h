/*
 * refused: digests of manifests that killed the node three times. They are never tried again.
 *
 * Shape      a list in order of arrival, at most eight; the oldest goes.
 * Threads    one owner at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/ids.h"
#include "common/snapshot/format.h"

struct refused {
    uint32_t count;
    uint8_t digests[REFUSED_DIGESTS_MAX][DIGEST_SIZE];
};

bool refused_has(const struct refused *r, const uint8_t digest[DIGEST_SIZE]);
/* One that is there already stays where it is. */
void refused_add(struct refused *r, const uint8_t digest[DIGEST_SIZE]);
/* Of one that is not there nothing is taken out. */
void refused_drop(struct refused *r, const uint8_t digest[DIGEST_SIZE]);
