/* prepared: see prepared.h. */
#include "controlplane/publish/prepared.h"

#include <stdlib.h>

#include "common/base/ids.h"

enum { ARENA_BLOCK = 256 << 10 };

struct err cp_prepared_new(struct cp_prepared **out)
{
    struct cp_prepared *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&p->refs);
    ids_random(p->id, sizeof(p->id));
    cp_source_set_init(&p->sources);
    arena_init(&p->kept, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    *out = p;
    return OK;
}

struct cp_prepared *cp_prepared_ref(struct cp_prepared *p)
{
    refs_take(&p->refs);
    return p;
}

void cp_prepared_unref(struct cp_prepared *p)
{
    if (p == NULL || !refs_drop(&p->refs)) {
        return;
    }
    cp_streams_free(&p->cut);
    cp_compiled_free(p->compiled);
    cp_source_set_free(&p->sources);
    arena_free(&p->kept);
    free(p);
}

size_t cp_prepared_bytes(const struct cp_prepared *p)
{
    size_t bytes = sizeof(*p) + p->sources.arena.total + p->kept.total;
    bytes += p->sources.capacity * sizeof(*p->sources.files);
    bytes += p->compiled == NULL ? 0 : cp_compiled_bytes(p->compiled);
    return bytes + cp_streams_bytes(&p->cut) - sizeof(p->cut);
}
