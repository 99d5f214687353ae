/* rollback: see rollback.h. */
#include "controlplane/publish/rollback.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/snapshot/parts.h"

enum { ARENA_BLOCK = 64 << 10 };

static struct err load_manifest(const struct cp_sealed_place *place, uint64_t version,
                                struct manifest *out)
{
    struct cp_record record;
    return cp_sealed_load(place, version, &record, /* container= */ NULL, out);
}

/* ---- chunks of the journal ---- */

/* Which streams of a version are taken. */
enum taken { TAKE_ALL, TAKE_REVOCATIONS, TAKE_OTHERS };

static bool is_taken(enum taken taken, uint32_t kind)
{
    return taken == TAKE_ALL || (taken == TAKE_REVOCATIONS) == (kind == STREAM_REVOCATIONS);
}

struct taker {
    struct cp_rollback *out;
    struct arena *arena;
    const struct manifest *manifest;
    enum taken taken;
    size_t stream; /* of the manifest: the next chunk's; */
    size_t chunk;
    size_t to;    /* of 'out': where the stream goes. */
    uint8_t *raw; /* room for one chunk's raw bytes. */
};

static struct err begin_stream(struct taker *t, const struct manifest_stream *from)
{
    if (t->out->stream_count == STREAMS_MAX) {
        return FAIL(E_IO);
    }
    struct cut_stream *to = &t->out->streams[t->out->stream_count];
    *to =
        (struct cut_stream){.kind = from->kind, .format = from->format, .raw_size = from->raw_size};
    (void)memcpy(to->raw_digest, from->raw_digest, sizeof(to->raw_digest));
    to->chunks = calloc(from->chunk_count + 1, sizeof(*to->chunks));
    if (to->chunks == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    to->chunk_count = from->chunk_count;
    t->out->stream_count++;
    return OK;
}

static struct err begin_streams(struct taker *t)
{
    for (size_t i = 0; i < t->manifest->stream_count; i++) {
        if (is_taken(t->taken, t->manifest->streams[i].kind)) {
            TRY(begin_stream(t, &t->manifest->streams[i]));
        }
    }
    return OK;
}

/* A chunk is what the manifest names, and the bytes of the row are just that. */
static struct err open_chunk(const struct taker *t, const struct cp_store_chunk *row,
                             const struct chunk_name *name, struct cut_chunk *out)
{
    TRY(chunk_open(row->stored, name, t->raw, out->raw_digest));
    if (memcmp(out->raw_digest, row->raw_digest, sizeof(out->raw_digest)) != 0) {
        return FAIL(E_CHUNK_TAMPERED);
    }
    out->raw.size = name->raw_size;
    (void)memcpy(out->digest, name->digest, sizeof(out->digest));
    return arena_dup(t->arena, row->stored, &out->stored);
}

static void skip_ended(struct taker *t)
{
    const struct manifest *m = t->manifest;
    while (t->stream < m->stream_count && t->chunk == m->streams[t->stream].chunk_count) {
        t->to += is_taken(t->taken, m->streams[t->stream].kind);
        t->stream++;
        t->chunk = 0;
    }
}

/* The journal has a version's chunks in the order of its manifest. */
static struct err take_chunk(void *ctx, const struct cp_store_chunk *row)
{
    struct taker *t = ctx;
    const struct manifest *m = t->manifest;
    skip_ended(t);
    if (t->stream == m->stream_count) {
        return FAIL(E_CHUNK_TAMPERED); /* more of them than were signed. */
    }
    size_t at = t->chunk++;
    if (!is_taken(t->taken, m->streams[t->stream].kind)) {
        return OK;
    }
    const struct chunk_name name = manifest_chunk(&m->streams[t->stream], at);
    return open_chunk(t, row, &name, &t->out->streams[t->to].chunks[at]);
}

/* All chunks of a stream, in this order, and no other. */
static struct err check_stream(const struct cut_stream *stream)
{
    uint8_t digest[DIGEST_SIZE];
    auto_free uint8_t *digests = malloc(stream->chunk_count * DIGEST_SIZE + 1);
    if (digests == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < stream->chunk_count; i++) {
        (void)memcpy(digests + i * DIGEST_SIZE, stream->chunks[i].raw_digest, DIGEST_SIZE);
    }
    cut_raw_digest(digests, stream->chunk_count, digest);
    return memcmp(digest, stream->raw_digest, DIGEST_SIZE) == 0 ? OK : FAIL(E_CHUNK_TAMPERED);
}

static struct err take_streams(const struct cp_sealed_place *place, const struct manifest *manifest,
                               enum taken taken, struct arena *arena, struct cp_rollback *out)
{
    const size_t first = out->stream_count;
    auto_free uint8_t *raw = malloc(CHUNK_RAW_MAX);
    if (raw == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct taker t = {
        .out = out, .arena = arena, .manifest = manifest, .taken = taken, .to = first, .raw = raw};
    TRY(begin_streams(&t));
    TRY(place->store->ops->chunks_get(place->store, place->environment, manifest->version,
                                      take_chunk, &t));
    skip_ended(&t);
    if (t.stream < manifest->stream_count) {
        return FAIL(E_CHUNK_MISSING);
    }
    for (size_t i = first; i < out->stream_count; i++) {
        TRY(check_stream(&out->streams[i]));
    }
    return OK;
}

/* ---- the content ---- */

static int kind_cmp(const void *x, const void *y)
{
    const struct cut_stream *a = x;
    const struct cut_stream *b = y;
    return (a->kind > b->kind) - (a->kind < b->kind);
}

static struct err keep_newest(const struct cp_sealed_place *place,
                              const struct cp_rollback_wish *wish, struct arena *arena,
                              struct cp_rollback *out)
{
    auto_manifest struct manifest newest = {0};
    const uint64_t theirs = CAPABILITIES_OF_REVOCATIONS;
    out->at = wish->newest;
    TRY(load_manifest(place, wish->newest, &newest));
    out->capabilities = (out->capabilities & ~theirs) | (newest.capabilities & theirs);
    return manifest_stream(&newest, STREAM_REVOCATIONS) == NULL
               ? OK
               : take_streams(place, &newest, TAKE_REVOCATIONS, arena, out);
}

struct err cp_rollback_load(const struct cp_sealed_place *place,
                            const struct cp_rollback_wish *wish, struct arena *arena,
                            struct cp_rollback *out)
{
    *out = (struct cp_rollback){.at = wish->target};
    auto_manifest struct manifest old = {0};
    TRY(load_manifest(place, wish->target, &old));
    out->capabilities = old.capabilities;
    TRY(take_streams(place, &old, wish->with_trust ? TAKE_ALL : TAKE_OTHERS, arena, out));
    if (!wish->with_trust) {
        TRY(keep_newest(place, wish, arena, out));
        qsort(out->streams, out->stream_count, sizeof(out->streams[0]), kind_cmp);
    }
    const struct manifest_plan plan = {.streams = out->streams, .stream_count = out->stream_count};
    out->format = manifest_plan_format(&plan);
    return out->format == 0 ? FAIL(E_CAPABILITY_MISSING) : OK;
}

void cp_rollback_free(struct cp_rollback *rollback)
{
    for (size_t i = 0; i < rollback->stream_count; i++) {
        cut_stream_free(&rollback->streams[i]);
    }
    rollback->stream_count = 0;
}

/* ---- the revocations of a version ---- */

/* Unpacks a stream's chunks one behind the other. */
static struct err join(const struct cut_stream *stream, struct buf *out)
{
    for (size_t i = 0; i < stream->chunk_count; i++) {
        const struct cut_chunk *chunk = &stream->chunks[i];
        struct chunk_name name = {.stored_size = (uint32_t)chunk->stored.size,
                                  .raw_size = (uint32_t)chunk->raw.size};
        (void)memcpy(name.digest, chunk->digest, sizeof(name.digest));
        uint8_t digest[DIGEST_SIZE];
        auto_free uint8_t *raw = malloc(chunk->raw.size + 1);
        if (raw == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        TRY(chunk_open(chunk->stored, &name, raw, digest));
        TRY(buf_add(out, slice_of(raw, chunk->raw.size)));
    }
    return OK;
}

static struct err split(struct slice raw, struct arena *arena, struct cp_part **out, size_t *count)
{
    struct part_iter it = {.rest = raw};
    struct part part;
    bool more = true;
    size_t room = raw.size / PART_HEADER_SIZE + 1; /* a part is no smaller than its header. */
    TRY(arena_calloc(arena, room, sizeof(**out), (void **)out));
    TRY(part_next(&it, &part, &more));
    while (more) {
        (*out)[(*count)++] =
            (struct cp_part){.kind = CP_PART_REVOCATIONS, .key = part.key, .bytes = part.bytes};
        TRY(part_next(&it, &part, &more));
    }
    return OK;
}

static struct err join_revocations(const struct cp_sealed_place *place,
                                   const struct manifest *manifest, struct buf *out)
{
    struct cp_rollback taken = {0};
    auto_arena struct arena arena;
    arena_init(&arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    struct err e = take_streams(place, manifest, TAKE_REVOCATIONS, &arena, &taken);
    for (size_t i = 0; i < taken.stream_count && err_ok(e); i++) {
        e = join(&taken.streams[i], out);
    }
    cp_rollback_free(&taken);
    return e;
}

struct err cp_rollback_revoked(const struct cp_sealed_place *place, uint64_t version,
                               struct buf *out)
{
    auto_manifest struct manifest manifest = {0};
    TRY(load_manifest(place, version, &manifest));
    return join_revocations(place, &manifest, out);
}

struct err cp_rollback_revocations(const struct cp_sealed_place *place, uint64_t version,
                                   struct cp_compiled *compiled)
{
    auto_buf struct buf raw = BUF_MAX(STREAM_RAW_MAX);
    auto_arena struct arena arena;
    struct cp_part *parts = NULL;
    size_t count = 0;
    arena_init(&arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 16);
    TRY(cp_rollback_revoked(place, version, &raw));
    TRY(split(buf_slice(&raw), &arena, &parts, &count));
    return cp_compiled_revoke(compiled, parts, count);
}
