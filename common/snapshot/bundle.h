/*
 * bundle: values of the snapshot bucket in one message, each under its key: what a version adds,
 * sent beside the hint.
 *
 * Shape      a table of at most BUNDLE_VALUES_MAX keys and values. It is signed by nobody and
 *            proves nothing: whoever takes a value out of it judges it as one that was read.
 * Units      bytes; little-endian sizes.
 * Ownership  what is read points into the message's bytes.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED. Writing: E_USAGE for what no bundle holds, E_TOO_LARGE past the buffer's
 *            bound.
 * Source     docs/formats.md, "Content beside the hint".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum {
    BUNDLE_HEADER_SIZE = 8,
    BUNDLE_FORMAT = 1,
    BUNDLE_VALUES_MAX = 64,
    BUNDLE_KEY_MAX = 128,
    BUNDLE_VALUE_HEADER_SIZE = 6, /* key size u16, value size u32. */
};

struct bundle_value {
    struct slice key;
    struct slice value;
};

struct bundle {
    size_t count;
    struct bundle_value values[BUNDLE_VALUES_MAX];
};

/* Appends a bundle of one value at least. */
MUST_CHECK struct err bundle_write(const struct bundle_value *values, size_t count,
                                   struct buf *out);

/* Reads a bundle that is nothing but one. */
MUST_CHECK struct err bundle_read(struct slice bytes, struct bundle *out);

/* The first value under a key; false when there is none. */
bool bundle_find(const struct bundle *b, struct slice key, struct slice *out);
