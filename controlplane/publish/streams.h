/*
 * streams: compiled parts as the streams and chunks of a manifest.
 *
 * Ownership  cp_streams_free() ends them; stored bytes that 'known' gave are borrowed from its
 *            owner.
 * Threads    one at a time.
 * Errors     E_TOO_LARGE past a bound of the format; E_NO_MEMORY.
 * Source     docs/formats.md, "Bodies": cutting is part of the format.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/format.h"
#include "controlplane/compile/compile.h"

struct cp_streams {
    struct buf raw[STREAMS_MAX]; /* bytes of the streams, which chunks point into. */
    struct cut_stream streams[STREAMS_MAX];
    size_t count;
    uint32_t format; /* of the snapshot that they make. */
};

/*
 * Cuts all parts as they stand in a snapshot of 'format', or of the lowest format above it that can
 * say them all; 'known' gives stored bytes that are known already, and may be NULL.
 */
MUST_CHECK struct err cp_streams_cut(struct cp_streams *s, const struct cp_compiled *compiled,
                                     uint32_t format, cut_known_fn known, void *ctx);
void cp_streams_free(struct cp_streams *s);
