/*
 * streams: compiled parts as the streams and chunks of a manifest.
 *
 * Ownership  cp_streams_free() ends them; stored bytes that 'known' gave are borrowed from its
 *            owner.
 * Threads    one at a time; once cut they are read-only.
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

struct cp_streams_options {
    uint32_t format;    /* that is wished for: see cp_streams_format(). */
    cut_known_fn known; /* stored bytes that are known already; may be NULL. */
    cut_look_fn look;   /* where they are looked for; may be NULL. */
    void *context;
    const struct cp_streams *before; /* of another version, or NULL: see struct cut_options. */
};

/* The format in which parts go out when 'format' is wished for: that one, or the lowest above it
 * that can say them all. */
uint32_t cp_streams_format(const struct cp_compiled *compiled, uint32_t format);

/* Cuts all parts. After a failure 'out', which was zeroed, is empty again. */
MUST_CHECK struct err cp_streams_cut(const struct cp_compiled *compiled,
                                     const struct cp_streams_options *options,
                                     struct cp_streams *out);
void cp_streams_free(struct cp_streams *s); /* safe on a zeroed one. */

/* Bytes of memory, but for what 'known' gave. */
size_t cp_streams_bytes(const struct cp_streams *s);
