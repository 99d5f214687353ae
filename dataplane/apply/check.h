/*
 * check: loads a snapshot as a node would, and says whether it could serve it.
 *
 * Shape      a file of records as in a node's `pack`, named `pack`: the chunks of one version, and
 *            its manifest, which need not be signed yet. The leader runs this in a child of its
 *            own before it signs.
 * Threads    one.
 * Errors     what a node would refuse it for; 'message' holds one sentence.
 * Source     docs/formats.md, "On a node's disk"; ARCHITECTURE, "Crash marks".
 */
#pragma once

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_check_result {
    uint64_t version;
    size_t parts;
    uint64_t us; /* decoding and linking took so long. */
};

MUST_CHECK struct err dp_check(struct slice environment, const char *path,
                               struct dp_check_result *out, struct buf *message);
