/*
 * cache: what an issuer's URL gave last, on disk: a node that starts while the issuer is away has
 * its keys.
 *
 * Shape      a file a source below data-dir/issuers, named by it: a line of its own, a line that
 *            names the source again, so that a file under another one's name is none, a line with
 *            the time, and the key set as it came. Replaced as a whole.
 * Units      Unix time in milliseconds.
 * Ownership  the caller's buffers.
 * Threads    any, one of a process at a time; several processes may write at once, and the last
 *            one's is there.
 * Errors     E_IO. Reading: E_NOT_FOUND when there is none that can be read.
 */
#pragma once

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/slice.h"

/* Appends the key set to 'out'. A time that is yet to come is not believed: it is 'now_ms'. */
MUST_CHECK struct err dp_issuer_cache_get(const char *data_dir, const uint8_t source[DIGEST_SIZE],
                                          int64_t now_ms, struct buf *out, int64_t *out_read_ms);

MUST_CHECK struct err dp_issuer_cache_put(const char *data_dir, const uint8_t source[DIGEST_SIZE],
                                          struct slice keys, int64_t read_ms);
