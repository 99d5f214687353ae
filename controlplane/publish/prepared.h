/*
 * prepared: sources compiled and cut: all of a publication that its content decides.
 *
 * Shape      made by one thread, then immutable and shared: a plan leaves it on the shelf, where
 *            the publication of the same sources finds it.
 * Ownership  counted references; it owns everything in it. Chunks point into its streams.
 * Threads    whoever makes it; once it is on a shelf, any.
 * Errors     E_NO_MEMORY.
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/refs.h"
#include "controlplane/compile/compile.h"
#include "controlplane/publish/streams.h"
#include "controlplane/source/source.h"

enum { CP_PREPARED_ID_SIZE = 16 };

struct cp_prepared {
    struct refs refs;
    uint8_t id[CP_PREPARED_ID_SIZE]; /* random. */
    struct cp_source_set sources;    /* what it was made of; empty until it is put on a shelf. */
    uint8_t (*digests)[DIGEST_SIZE]; /* of the bytes of each of these files. */
    struct cp_compiled *compiled;
    struct cp_streams cut; /* in the format that the live nodes needed then. */
    struct arena kept;     /* stored bytes in it that were known. */
};

/* With one reference for the maker. */
MUST_CHECK struct err cp_prepared_new(struct cp_prepared **out);

/* Notes the digests of the files that it is made of. What 'before' (NULL: none), which is on a
 * shelf, has byte for byte is not hashed again. */
MUST_CHECK struct err cp_prepared_digest(struct cp_prepared *p, const struct cp_source_set *sources,
                                         const struct cp_prepared *before);
struct cp_prepared *cp_prepared_ref(struct cp_prepared *p);
void cp_prepared_unref(struct cp_prepared *p); /* NULL is fine. */

/* Bytes of memory, but for inventories that others may share. */
size_t cp_prepared_bytes(const struct cp_prepared *p);
