/* content: what a publication is made of, and what is known of the newest one: the step load. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/reach.h"
#include "controlplane/publish/rollback.h"

struct err cp_passage_take_file(void *ctx, const struct cp_store_file *file)
{
    return cp_source_set_add(ctx, file->name, file->bytes);
}

static struct cp_sealed_place place_of(const struct cp_passage *p)
{
    return (struct cp_sealed_place){p->room->roots, p->room->store, p->room->environment};
}

static void take_rollback(struct cp_passage *p, struct cp_rollback *from)
{
    p->work->capabilities = from->capabilities;
    p->work->format = from->format;
    p->own.count = from->stream_count;
    p->own.format = from->format;
    (void)memcpy(p->own.streams, from->streams, from->stream_count * sizeof(from->streams[0]));
    from->stream_count = 0;
    p->cut = &p->own;
}

static bool is_of_chunks(struct err e)
{
    return e.code == E_CHUNK_TAMPERED || e.code == E_CHUNK_MISSING || e.code == E_CHUNK_BOMB;
}

/* A rollback takes the old content byte for byte: it does not compile it again. */
static struct err load_version(struct cp_passage *p, uint64_t version)
{
    struct cp_store *store = p->room->store;
    const struct cp_sealed_place place = place_of(p);
    const struct cp_rollback_wish wish = {
        .target = version, .newest = p->work->before.version, .with_trust = p->work->with_trust};
    struct cp_rollback rollback;
    struct err e = cp_rollback_load(&place, &wish, &p->kept, &rollback);
    if (err_ok(e)) {
        take_rollback(p, &rollback);
    }
    const uint64_t at = rollback.at;
    cp_rollback_free(&rollback);
    if (e.code == E_NOT_FOUND) {
        TRY(buf_addf(&p->work->sentence, "version %" PRIu64 " was never published, or is too old",
                     version));
        return FAIL(E_NEVER_PUBLISHED);
    }
    if (e.code == E_CAPABILITY_MISSING) {
        TRY(buf_addf(&p->work->sentence,
                     "version %" PRIu64 " was written in a format that no node reads any more: "
                     "publish its sources instead",
                     version));
    }
    if (cp_sealed_is_none(e) || is_of_chunks(e)) {
        TRY(buf_addf(&p->work->sentence,
                     "version %" PRIu64 " of the journal is not what a threshold of keys signed%s",
                     at, at == version ? "" : ": publish sources, then go back"));
    }
    TRY(e);
    return store->ops->sources_get(store, p->room->environment, version, cp_passage_take_others,
                                   &p->work->sources);
}

/* What content and positions are held against, and what a publication puts over itself. A row that
 * nobody signed is nothing of that: what comes is new. */
static struct err load_newest(struct cp_passage *p)
{
    if (p->work->before.version == 0) {
        return OK;
    }
    const struct cp_sealed_place place = place_of(p);
    struct cp_record record;
    struct err e =
        cp_sealed_load(&place, p->work->before.version, &record, /* container= */ NULL, &p->newest);
    TRY(cp_sealed_is_none(e) ? OK : e);
    for (size_t i = 0; i < p->newest.stream_count; i++) {
        const struct manifest_stream *stream = &p->newest.streams[i];
        for (size_t k = 0; k < stream->chunk_count; k++) {
            struct slice name =
                slice_of(stream->chunk_digests + k * DIGEST_SHORT_SIZE, DIGEST_SHORT_SIZE);
            TRY(map_put(&p->newest_chunks, name, p, /* out_old= */ NULL));
        }
    }
    return OK;
}

struct err cp_passage_list_nodes(struct cp_passage *p, struct cp_fleet_node **out, size_t *count)
{
    if (bus_state(p->room->bus) == BUS_CONNECTED) {
        (void)cp_fleet_wait_read(p->room->fleet, limits.fetch_timeout_ms);
    }
    return cp_fleet_list(p->room->fleet, out, count);
}

/* As long as a live node speaks no more than the format before, that is what is written. */
static struct err choose_format(struct cp_passage *p)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    TRY(cp_passage_list_nodes(p, &nodes, &count));
    p->work->format = cp_reach_format(nodes, count);
    free(nodes);
    return OK;
}

/* What this replica judges it makes in the proposal's own format: which one suits the fleet is the
 * leader's to see. */
static struct err load_proposed(struct cp_passage *p)
{
    struct cp_store *store = p->room->store;
    auto_manifest struct manifest proposed = {0};
    TRY(manifest_decode(buf_slice(&p->body), &proposed));
    p->work->format = manifest_format(&proposed);
    if (p->proposal.origin != 0) {
        TRY(load_version(p, p->proposal.origin));
        return cp_passage_take_carried(p);
    }
    TRY(load_newest(p));
    TRY(store->ops->sources_get(store, p->room->environment, p->proposal.version,
                                cp_passage_take_file, &p->work->sources));
    return cp_passage_take_carried(p);
}

struct err cp_step_load(struct cp_passage *p)
{
    if (p->work->kind == CP_WORK_VALIDATE) {
        return OK; /* the request brought them. */
    }
    if (p->work->kind == CP_WORK_COSIGN) {
        return load_proposed(p);
    }
    TRY(load_newest(p));
    TRY(p->work->kind != CP_WORK_ROLLBACK ? choose_format(p) : load_version(p, p->work->target));
    return cp_passage_carry(p);
}
