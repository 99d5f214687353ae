/* prepared: see prepared.h. */
#include "controlplane/publish/prepared.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

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

static const uint8_t *find_digest(const struct cp_prepared *before,
                                  const struct cp_source_file *file)
{
    const struct cp_source_file *same =
        before == NULL ? NULL : cp_source_set_find(&before->sources, file->name);
    return same != NULL && slice_eq(same->bytes, file->bytes)
               ? before->digests[same - before->sources.files]
               : NULL;
}

struct err cp_prepared_digest(struct cp_prepared *p, const struct cp_source_set *sources,
                              const struct cp_prepared *before)
{
    CHECK(p->digests == NULL);
    p->digests = calloc(sources->count + 1, DIGEST_SIZE);
    if (p->digests == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < sources->count; i++) {
        const uint8_t *known = find_digest(before, &sources->files[i]);
        if (known == NULL) {
            ids_digest(sources->files[i].bytes, p->digests[i]);
        } else {
            (void)memcpy(p->digests[i], known, DIGEST_SIZE);
        }
    }
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
    free(p->digests);
    free(p);
}

size_t cp_prepared_bytes(const struct cp_prepared *p)
{
    size_t bytes = sizeof(*p) + p->sources.arena.total + p->kept.total;
    bytes += p->sources.capacity * sizeof(*p->sources.files) + p->sources.count * DIGEST_SIZE;
    bytes += p->compiled == NULL ? 0 : cp_compiled_bytes(p->compiled);
    return bytes + cp_streams_bytes(&p->cut) - sizeof(p->cut);
}
