/* reuse: see reuse.h. */
#include "controlplane/compile/reuse.h"

#include <stdlib.h>

#include "common/base/limits.h"
#include "controlplane/compile/compiler.h"

static void drop_inventory(void *value)
{
    cp_inventory_unref(value);
}

struct err cp_reuse_new(struct cp_reuse **out)
{
    struct cp_reuse *reuse = calloc(1, sizeof(*reuse));
    if (reuse == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = cp_source_cache_new(&reuse->sources);
    if (!err_ok(e)) {
        free(reuse);
        return e;
    }
    cp_memo_init(&reuse->parts, (size_t)limits.source_cache_bytes, free);
    cp_memo_init(&reuse->inventories, (size_t)limits.source_cache_bytes, drop_inventory);
    *out = reuse;
    return OK;
}

void cp_reuse_free(struct cp_reuse *reuse)
{
    if (reuse == NULL) {
        return;
    }
    cp_memo_free(&reuse->parts);
    cp_memo_free(&reuse->inventories);
    cp_source_cache_free(reuse->sources);
    free(reuse);
}
