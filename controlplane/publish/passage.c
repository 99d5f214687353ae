/* passage: see passage.h. */
#include "controlplane/publish/passage.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_BLOCK = 256 << 10 };

struct err cp_passage_new(struct cp_publish_room *room, struct cp_work *work,
                          struct cp_passage **out)
{
    struct cp_passage *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    p->room = room;
    p->work = work;
    p->body = BUF_MAX(MANIFEST_BODY_MAX);
    p->container = BUF_MAX(CP_CONTAINER_MAX);
    arena_init(&p->kept, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    *out = p;
    return OK;
}

void cp_passage_free(struct cp_passage *p)
{
    cp_streams_free(&p->own);
    cp_removals_free(&p->removals);
    cp_prepared_unref(p->prepared);
    cp_prepared_unref(p->before);
    manifest_free(&p->newest);
    map_free(&p->before_chunks);
    map_free(&p->known);
    map_free(&p->newest_chunks);
    arena_free(&p->kept);
    buf_free(&p->body);
    buf_free(&p->container);
    free(p->rows);
    free(p);
}

/* Whether the work ended with a manifest that names this content, and the digest of it. */
static bool is_in_manifest(const struct cp_passage *p, uint8_t out[DIGEST_SIZE])
{
    const struct cp_work *work = p->work;
    if (work->kind == CP_WORK_COSIGN) {
        ids_digest(buf_slice(&p->body), out);
        return err_ok(work->result);
    }
    (void)memcpy(out, work->record.manifest_digest, DIGEST_SIZE);
    return p->committed ||
           (work->kind == CP_WORK_PUBLISH && p->over && err_ok(work->result)); /* unchanged. */
}

void cp_passage_leave(struct cp_passage *p)
{
    struct cp_work *work = p->work;
    uint8_t manifest_digest[DIGEST_SIZE];
    if (p->prepared == NULL || p->cut == NULL) {
        return;
    }
    if (!p->found) {
        p->prepared->sources = work->sources; /* the work is over: they are handed on. */
        cp_source_set_init(&work->sources);
    }
    const struct cp_shelf_note note = {
        .planned = work->kind == CP_WORK_PLAN && err_ok(work->result),
        .base = work->before.version,
        .manifest_digest = is_in_manifest(p, manifest_digest) ? manifest_digest : NULL};
    cp_shelf_put(p->room->shelf, p->prepared, &note);
}
