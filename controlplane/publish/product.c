/* product: what becomes of a publication's sources, parts and chunks: the steps compile and cut. */
#include <string.h>

#include "common/base/clock.h"
#include "common/snapshot/cut.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/rollback.h"

enum { DIGESTS_MAX = 64 << 20 }; /* of two million chunks. */

/* ---- compile, cut ---- */

bool cp_passage_is_taken_over(const struct cp_passage *p)
{
    return p->work->kind == CP_WORK_ROLLBACK || p->proposal.origin != 0;
}

/* What is strict about its nodes' connections does not go out over one that is exposed. */
static struct err judge_bus(struct cp_passage *p)
{
    const char *exposure = bus_exposure(p->room->bus);
    if (!cp_compiled_is_strict(p->prepared->compiled) || exposure == NULL) {
        return OK;
    }
    TRY(buf_add_str(&p->work->sentence, exposure));
    return FAIL(E_BUS_EXPOSED);
}

bool cp_passage_is_newest(const struct cp_passage *p, const struct cut_chunk *chunk)
{
    return map_get(&p->newest_chunks, slice_of(chunk->digest, sizeof(chunk->digest))) != NULL;
}

static struct err note_known(struct cp_passage *p, const uint8_t raw_digest[DIGEST_SIZE])
{
    struct slice key;
    TRY(arena_dup(&p->kept, slice_of(raw_digest, DIGEST_SIZE), &key));
    return map_put(&p->known, key, p, /* out_old= */ NULL);
}

/*
 * What the newest publication was made from, when it is at hand: what it holds is known. Only what
 * the manifest names counts: a replica that cosigned may have stored a chunk in another way.
 */
static struct err find_before(struct cp_passage *p)
{
    if (p->work->before.version == 0) {
        return OK;
    }
    p->before = cp_shelf_published(p->room->shelf, p->work->before.manifest_digest);
    for (size_t i = 0; p->before != NULL && i < p->before->cut.count; i++) {
        const struct cut_stream *stream = &p->before->cut.streams[i];
        for (size_t k = 0; k < stream->chunk_count; k++) {
            struct cut_chunk *chunk = &stream->chunks[k];
            struct slice raw_digest = slice_of(chunk->raw_digest, DIGEST_SIZE);
            TRY(cp_passage_is_newest(p, chunk)
                    ? map_put(&p->before_chunks, raw_digest, chunk, /* out_old= */ NULL)
                    : OK);
        }
    }
    return OK;
}

/* Takes what was compiled of the same sources, or of a plan. */
static void find_prepared(struct cp_passage *p)
{
    if (p->prepared != NULL) {
        return;
    }
    struct cp_prepared *found = cp_shelf_find(p->room->shelf, &p->work->sources);
    bool lacks = found != NULL && p->work->kind == CP_WORK_PLAN &&
                 !cp_compiled_has_inventory(found->compiled);
    if (lacks) {
        cp_prepared_unref(found);
        return;
    }
    p->prepared = found;
    p->found = found != NULL;
}

static struct err compile(struct cp_passage *p)
{
    struct cp_diags diags;
    const struct cp_compile_options options = {.reuse = p->room->reuse,
                                               .inventory = p->work->kind == CP_WORK_PLAN};
    TRY(cp_prepared_new(&p->prepared));
    cp_diags_init(&diags, &p->work->sources);
    diags.published = p->work->kind == CP_WORK_COSIGN; /* the leader judged them. */
    struct err e = cp_compile_set(&p->work->sources, &diags, &options, &p->prepared->compiled);
    if (!err_ok(e) && diags.count > 0) {
        struct err json = cp_diags_json(&diags, &p->work->diagnostics);
        struct err text = cp_diags_text(&diags, &p->work->diagnostics_text);
        e = err_ok(json) && err_ok(text) ? e : FAIL(E_TOO_LARGE);
    }
    cp_diags_free(&diags);
    TRY(e);
    return p->work->kind == CP_WORK_VALIDATE
               ? OK
               : cp_prepared_digest(p->prepared, &p->work->sources, p->before);
}

struct err cp_step_compile(struct cp_passage *p)
{
    if (cp_passage_is_taken_over(p)) {
        return OK;
    }
    if (p->work->kind != CP_WORK_VALIDATE) {
        TRY(find_before(p));
        find_prepared(p);
    }
    TRY(p->found ? OK : compile(p));
    const struct cp_compiled *compiled = p->prepared->compiled;
    struct slice environment = cp_compiled_environment(compiled);
    if (!slice_eq(environment, slice_str(p->room->environment))) {
        TRY(buf_addf(&p->work->sentence,
                     "the sources are of environment \"%.*s\", this is the server of \"%s\"",
                     SLICE_ARG(environment), p->room->environment));
        return FAIL(E_SOURCE_INVALID);
    }
    p->work->capabilities = cp_compiled_capabilities(compiled);
    (void)memcpy(p->work->plan, p->prepared->id, sizeof(p->work->plan));
    return p->work->kind == CP_WORK_VALIDATE ? OK : judge_bus(p);
}

/* ---- cut ---- */

/* Chunks of a plan that the newest publication does not have. */
struct others {
    struct cp_passage *p;
    struct map chunks;      /* raw digests to them. */
    struct buf raw_digests; /* the same, one behind the other. */
    bool fit;               /* none is stored in another way in the journal. */
};

static struct err add_other(struct others *o, const struct cut_chunk *chunk)
{
    struct slice raw_digest = slice_of(chunk->raw_digest, DIGEST_SIZE);
    if (cp_passage_is_newest(o->p, chunk)) {
        return note_known(o->p, chunk->raw_digest);
    }
    TRY(buf_add(&o->raw_digests, raw_digest));
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): a map's values are not const, and it is read. */
    return map_put(&o->chunks, raw_digest, (void *)(uintptr_t)chunk, /* out_old= */ NULL);
}

/* The journal's bytes stay, if it has some. */
static struct err judge_other(void *ctx, const struct cp_store_chunk *found)
{
    struct others *o = ctx;
    const struct cut_chunk *chunk = map_get(&o->chunks, slice_of(found->raw_digest, DIGEST_SIZE));
    o->fit = o->fit && chunk != NULL &&
             memcmp(found->stored_digest, chunk->digest, DIGEST_SHORT_SIZE) == 0;
    return note_known(o->p, found->raw_digest);
}

static struct err judge_others(struct others *o, const struct cp_streams *cut)
{
    struct cp_store *store = o->p->room->store;
    for (size_t i = 0; i < cut->count; i++) {
        for (size_t k = 0; k < cut->streams[i].chunk_count; k++) {
            TRY(add_other(o, &cut->streams[i].chunks[k]));
        }
    }
    return store->ops->chunks_find(store, buf_slice(&o->raw_digests), judge_other, o);
}

/* What was cut before holds for its format, as long as the journal has no chunk of it stored in
 * another way. */
static struct err fits_still(struct cp_passage *p, const struct cp_prepared *found, bool *out)
{
    *out = false;
    if (found->cut.format != cp_streams_format(found->compiled, p->work->format)) {
        return OK;
    }
    struct others others = {.p = p, .raw_digests = BUF_MAX(DIGESTS_MAX), .fit = true};
    struct err e = judge_others(&others, &found->cut);
    map_free(&others.chunks);
    buf_free(&others.raw_digests);
    *out = err_ok(e) && others.fit;
    return e;
}

/* Whose chunks are stored where. */
struct cutting {
    struct cp_passage *p;
    struct arena *kept;
    struct map stored; /* raw digests to a struct slice each: what is known, in 'kept'. */
};

static struct err keep_stored(struct cutting *c, const uint8_t raw_digest[DIGEST_SIZE],
                              struct slice stored)
{
    struct slice key;
    void *bytes = NULL;
    TRY(arena_dup(c->kept, slice_of(raw_digest, DIGEST_SIZE), &key));
    TRY(arena_alloc(c->kept, sizeof(struct slice), &bytes));
    TRY(arena_dup(c->kept, stored, bytes));
    TRY(map_put(&c->stored, key, bytes, /* out_old= */ NULL));
    return note_known(c->p, raw_digest);
}

static struct err keep_found(void *ctx, const struct cp_store_chunk *found)
{
    return keep_stored(ctx, found->raw_digest, found->stored);
}

/* Stored bytes that were published before stay as they are, whatever today's zstd would make: those
 * of the newest publication when it is at hand, else the journal's. */
static struct err look_for_known(void *ctx, struct slice raw_digests)
{
    struct cutting *c = ctx;
    struct cp_store *store = c->p->room->store;
    auto_buf struct buf others = BUF_MAX(DIGESTS_MAX);
    for (size_t at = 0; at < raw_digests.size; at += DIGEST_SIZE) {
        struct slice raw_digest = slice_of(raw_digests.ptr + at, DIGEST_SIZE);
        const struct cut_chunk *before = map_get(&c->p->before_chunks, raw_digest);
        TRY(before == NULL ? buf_add(&others, raw_digest)
                           : keep_stored(c, raw_digest.ptr, before->stored));
    }
    return store->ops->chunks_find(store, buf_slice(&others), keep_found, c);
}

static bool find_known(void *ctx, const uint8_t raw_digest[DIGEST_SIZE], struct slice *stored)
{
    const struct cutting *c = ctx;
    const struct slice *found = map_get(&c->stored, slice_of(raw_digest, DIGEST_SIZE));
    if (found != NULL) {
        *stored = *found;
    }
    return found != NULL;
}

static struct err cut_to(struct cp_passage *p, struct cp_streams *out, struct arena *kept)
{
    struct cutting cutting = {.p = p, .kept = kept};
    const struct cp_streams_options options = {.format = p->work->format,
                                               .known = find_known,
                                               .look = look_for_known,
                                               .context = &cutting,
                                               .before =
                                                   p->before == NULL ? NULL : &p->before->cut};
    struct err e = cp_streams_cut(p->prepared->compiled, &options, out);
    map_free(&cutting.stored);
    p->cut = err_ok(e) ? out : NULL;
    return e;
}

/* What was on the shelf is others', too: it stays as it is. */
static struct err cut_found(struct cp_passage *p)
{
    bool fits = false;
    TRY(fits_still(p, p->prepared, &fits));
    if (fits) {
        p->cut = &p->prepared->cut;
        return OK;
    }
    map_free(&p->known);
    return cut_to(p, &p->own, &p->kept);
}

/* The stream of revocations that a rollback takes over. */
static struct err taken_revocations(struct cp_passage *p, struct buf *out)
{
    const struct cp_work *work = p->work;
    const struct cp_sealed_place place = {p->room->roots, p->room->store, p->room->environment};
    bool any = (work->capabilities & CAPABILITY_REVOCATIONS) != 0;
    return any ? cp_rollback_revoked(&place, work->with_trust ? work->target : work->before.version,
                                     out)
               : OK;
}

/* Makes a place for a stream of this kind, or the one that it has; kinds ascend. */
static struct err make_place(struct cp_streams *own, uint32_t kind, size_t *out)
{
    size_t at = 0;
    while (at < own->count && own->streams[at].kind < kind) {
        at++;
    }
    *out = at;
    if (at < own->count && own->streams[at].kind == kind) {
        cut_stream_free(&own->streams[at]);
        return OK;
    }
    if (own->count == STREAMS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    (void)memmove(&own->streams[at + 1], &own->streams[at],
                  (own->count - at) * sizeof(own->streams[0]));
    own->streams[at] = (struct cut_stream){.kind = kind};
    own->count++;
    return OK;
}

/* What is taken over byte for byte has no raw bytes here, so their places are free. */
static struct err cut_revocations(struct cp_passage *p, struct buf *raw)
{
    size_t at = 0;
    struct cutting cutting = {.p = p, .kept = &p->kept};
    const struct cut_options options = {
        .known = find_known, .look = look_for_known, .context = &cutting};
    struct cut_stream *stream = NULL;
    TRY(make_place(&p->own, CP_PART_REVOCATIONS, &at));
    stream = &p->own.streams[at];
    p->own.raw[0] = *raw;
    *raw = (struct buf){0};
    struct err e = cut_stream(CP_PART_REVOCATIONS, buf_slice(&p->own.raw[0]), &options, stream);
    map_free(&cutting.stored);
    stream->format = stream_format(CP_PART_REVOCATIONS, p->own.format);
    return e;
}

/* What is carried is added to the revocations that are taken over. */
static struct err add_carried(struct cp_passage *p)
{
    auto_buf struct buf taken = BUF_MAX(STREAM_RAW_MAX);
    auto_buf struct buf merged = BUF_MAX(STREAM_RAW_MAX);
    bool changed = false;
    if (p->removals.count == 0) {
        return OK;
    }
    TRY(taken_revocations(p, &taken));
    TRY(cp_removals_merge(&p->removals, buf_slice(&taken), &merged, &changed));
    p->work->capabilities |= (uint64_t)CAPABILITY_REVOCATIONS;
    return changed ? cut_revocations(p, &merged) : OK;
}

/* What the content cannot be said in is not chosen; cp_step_reach() names who cannot read it. */
struct err cp_step_cut(struct cp_passage *p)
{
    if (cp_passage_is_taken_over(p)) {
        return add_carried(p);
    }
    TRY(p->found ? cut_found(p) : cut_to(p, &p->prepared->cut, &p->prepared->kept));
    p->work->format = p->cut->format;
    return OK;
}

struct manifest_plan cp_passage_manifest(const struct cp_passage *p, uint64_t version)
{
    return (struct manifest_plan){.version = version,
                                  .made_at_ms = clock_wall_ms(),
                                  .capabilities = p->work->capabilities,
                                  .streams = p->cut->streams,
                                  .stream_count = p->cut->count};
}
