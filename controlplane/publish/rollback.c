/* rollback: see rollback.h. */
#include "controlplane/publish/rollback.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/snapshot/container.h"
#include "common/snapshot/parts.h"

enum { CONTAINER_MAX = 1 << 20, ARENA_BLOCK = 64 << 10 };

static struct err load_manifest(struct cp_store *store, const char *environment, uint64_t version,
                                struct manifest *out)
{
    auto_buf struct buf bytes = BUF_MAX(CONTAINER_MAX);
    struct cp_record record;
    struct container c;
    TRY(store->ops->load(store, environment, version, &record, &bytes));
    TRY(container_read(buf_slice(&bytes), CONTAINER_MANIFEST, /* environment= */ NULL, &c));
    return manifest_decode(c.body, out);
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
    size_t to; /* of 'out': where the stream goes. */
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

/* The journal has a version's chunks in the order of its manifest. */
static struct err take_chunk(void *ctx, const struct cp_store_chunk *row)
{
    struct taker *t = ctx;
    const struct manifest *m = t->manifest;
    while (t->stream < m->stream_count && t->chunk == m->streams[t->stream].chunk_count) {
        t->to += is_taken(t->taken, m->streams[t->stream].kind);
        t->stream++;
        t->chunk = 0;
    }
    if (t->stream == m->stream_count) {
        return FAIL(E_IO);
    }
    size_t at = t->chunk++;
    if (!is_taken(t->taken, m->streams[t->stream].kind)) {
        return OK;
    }
    struct cut_chunk *chunk = &t->out->streams[t->to].chunks[at];
    chunk->raw.size = row->raw_size;
    (void)memcpy(chunk->raw_digest, row->raw_digest, sizeof(chunk->raw_digest));
    (void)memcpy(chunk->digest, row->stored_digest, sizeof(chunk->digest));
    return arena_dup(t->arena, row->stored, &chunk->stored);
}

static struct err take_streams(struct cp_store *store, const char *environment,
                               const struct manifest *manifest, enum taken taken,
                               struct arena *arena, struct cp_rollback *out)
{
    struct taker t = {
        .out = out, .arena = arena, .manifest = manifest, .taken = taken, .to = out->stream_count};
    TRY(begin_streams(&t));
    return store->ops->chunks_get(store, environment, manifest->version, take_chunk, &t);
}

/* ---- the content ---- */

static int kind_cmp(const void *x, const void *y)
{
    const struct cut_stream *a = x;
    const struct cut_stream *b = y;
    return (a->kind > b->kind) - (a->kind < b->kind);
}

static struct err keep_newest(struct cp_store *store, const struct cp_rollback_wish *wish,
                              struct arena *arena, struct cp_rollback *out)
{
    auto_manifest struct manifest newest = {0};
    const uint64_t bit = (uint64_t)CAPABILITY_REVOCATIONS;
    TRY(load_manifest(store, wish->environment, wish->newest, &newest));
    out->capabilities = (out->capabilities & ~bit) | (newest.capabilities & bit);
    return manifest_stream(&newest, STREAM_REVOCATIONS) == NULL
               ? OK
               : take_streams(store, wish->environment, &newest, TAKE_REVOCATIONS, arena, out);
}

struct err cp_rollback_load(struct cp_store *store, const struct cp_rollback_wish *wish,
                            struct arena *arena, struct cp_rollback *out)
{
    *out = (struct cp_rollback){0};
    auto_manifest struct manifest old = {0};
    TRY(load_manifest(store, wish->environment, wish->target, &old));
    out->capabilities = old.capabilities;
    TRY(take_streams(store, wish->environment, &old, wish->with_trust ? TAKE_ALL : TAKE_OTHERS,
                     arena, out));
    if (!wish->with_trust) {
        TRY(keep_newest(store, wish, arena, out));
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

static struct err join_revocations(struct cp_store *store, const char *environment,
                                   const struct manifest *manifest, struct buf *out)
{
    struct cp_rollback taken = {0};
    auto_arena struct arena arena;
    arena_init(&arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    struct err e = take_streams(store, environment, manifest, TAKE_REVOCATIONS, &arena, &taken);
    for (size_t i = 0; i < taken.stream_count && err_ok(e); i++) {
        e = join(&taken.streams[i], out);
    }
    cp_rollback_free(&taken);
    return e;
}

struct err cp_rollback_revoked(struct cp_store *store, const char *environment, uint64_t version,
                               struct buf *out)
{
    auto_manifest struct manifest manifest = {0};
    TRY(load_manifest(store, environment, version, &manifest));
    return join_revocations(store, environment, &manifest, out);
}

struct err cp_rollback_revocations(struct cp_store *store, const char *environment,
                                   uint64_t version, struct cp_compiled *compiled)
{
    auto_buf struct buf raw = BUF_MAX(STREAM_RAW_MAX);
    auto_arena struct arena arena;
    struct cp_part *parts = NULL;
    size_t count = 0;
    arena_init(&arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 16);
    TRY(cp_rollback_revoked(store, environment, version, &raw));
    TRY(split(buf_slice(&raw), &arena, &parts, &count));
    return cp_compiled_revoke(compiled, parts, count);
}
