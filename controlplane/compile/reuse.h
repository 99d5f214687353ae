/*
 * reuse: what one compile leaves for the next one of the same thread.
 *
 * Shape      leaves of unchanged files; the authorisation parts of targets whose rules, and whom
 *            they name, did not change; inventories of unchanged files. What is taken over is what
 *            would be made: a compile with it gives the same bytes as one without.
 * Units      each of the three holds at most limits.source_cache_bytes.
 * Ownership  owns all of it. An inventory is shared with the compiled platforms that hold it.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY.
 */
#pragma once

#include "common/base/err.h"
#include "controlplane/compile/memo.h"
#include "controlplane/source/cache.h"

struct cp_reuse {
    struct cp_source_cache *sources;
    struct cp_memo parts;       /* of struct cp_kept_part. */
    struct cp_memo inventories; /* of struct cp_inventory, a reference. */
};

MUST_CHECK struct err cp_reuse_new(struct cp_reuse **out);
void cp_reuse_free(struct cp_reuse *reuse); /* NULL is fine. */
