/*
 * keep: a private key that came by a descriptor, kept for the signer's next start.
 *
 * Shape      A descriptor can be read once, and a signer that died must have its key again. The
 *            bytes are copied into a memory file that is sealed, locked into memory and mapped
 *            nowhere that can be read; this process looks at them during that copy alone. Each
 *            start of a signer inherits the memory file, reads it, and closes it.
 * Ownership  the descriptor is the caller's; closing it drops the bytes.
 * Threads    before any other thread exists.
 * Errors     E_USAGE when nothing is open there, it is empty, or longer than the key may be;
 *            E_NO_MEMORY when nothing may be locked; E_IO.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"

enum { SIGNER_KEPT_MAX = 4096 }; /* longest key. */

struct signer_kept {
    int fd;        /* -1: none. */
    void *mapping; /* holds the lock on the pages. */
};

/* Takes what 'fd' has to say, up to its end, at most 'max' bytes, and closes it. */
MUST_CHECK struct err signer_keep(int fd, size_t max, struct signer_kept *out);

/* Drops the bytes. Safe on one that holds none. */
void signer_kept_free(struct signer_kept *kept);
