/* The cut, and the way of a chunk to its stored bytes and back. */
#include "common/snapshot/cut.h"

#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* a hash state on the stack */
#include <xxhash.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "common/base/array.h"
#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/snapshot/parts.h"
#include "common/snapshot/wire.h"

enum { ZSTD_LEVEL = 6 };

static uint64_t cut_hash(uint32_t kind, struct slice key)
{
    XXH3_state_t state;
    uint8_t prefix[4];
    wire_put32(prefix, kind);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, prefix, sizeof(prefix));
    XXH3_64bits_update(&state, key.ptr, key.size);
    return XXH3_64bits_digest(&state);
}

/* The larger a part, the likelier the cut behind it: chunks are near 24 KiB whatever the parts. */
struct err cut_first(uint32_t kind, struct slice raw, size_t *out_size, size_t *out_pieces)
{
    size_t size = 0;
    while (size < raw.size) {
        struct part p;
        TRY(part_read(slice_from(raw, size), &p));
        size_t whole = (size_t)part_size(&p);
        if (size == 0 && whole > CHUNK_RAW_MAX) {
            *out_size = whole;
            *out_pieces = (whole + CHUNK_RAW_MAX - 1) / CHUNK_RAW_MAX;
            return OK;
        }
        if (size + whole > CHUNK_RAW_MAX) {
            break;
        }
        size += whole;
        if (size >= CHUNK_CUT_MIN && cut_hash(kind, p.key) % CHUNK_CUT_MOD < whole) {
            break;
        }
    }
    *out_size = size;
    *out_pieces = 1;
    return OK;
}

/* zstd when it is smaller; what a chunk holds decides, never what came before it. */
static struct err chunk_store(struct cut_chunk *c)
{
    size_t room = ZSTD_compressBound(c->raw.size);
    auto_free uint8_t *packed = malloc(room);
    if (packed == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    size_t size = ZSTD_compress(packed, room, c->raw.ptr, c->raw.size, ZSTD_LEVEL);
    if (ZSTD_isError(size)) {
        return FAIL(E_NO_MEMORY); /* the only way in which it fails with enough room. */
    }
    c->stored = c->raw;
    if (size < c->raw.size) {
        uint8_t *fitted = realloc(packed, size);
        c->owned = fitted != NULL ? fitted : packed;
        packed = NULL;
        c->stored = slice_of(c->owned, size);
    }
    return OK;
}

/* What a stream is cut with. */
struct cutting {
    struct cut_stream *out;
    size_t capacity;
    const struct cut_options *options;
    struct map before;             /* raw bytes to the chunk of options->before that holds them. */
    const struct cut_chunk **same; /* for each chunk: that one, or NULL. */
    size_t same_capacity;
};

/* Stored as the other version stores it. */
static struct err chunk_copy(struct cut_chunk *c, const struct cut_chunk *from)
{
    c->stored = c->raw;
    if (from->stored.size < from->raw.size) {
        c->owned = malloc(from->stored.size);
        if (c->owned == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        memcpy(c->owned, from->stored.ptr, from->stored.size);
        c->stored = slice_of(c->owned, from->stored.size);
    }
    return OK;
}

/* Names a chunk by its raw bytes; what it is stored as comes later. */
static struct err chunk_add(struct cutting *cutting, struct slice raw)
{
    struct cut_stream *s = cutting->out;
    if (s->chunk_count == CHUNKS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(array_room(&s->chunks, s->chunk_count, &cutting->capacity, sizeof(*s->chunks)));
    TRY(array_room(&cutting->same, s->chunk_count, &cutting->same_capacity,
                   sizeof(*cutting->same)));
    struct cut_chunk c = {.raw = raw};
    const struct cut_chunk *same = map_get(&cutting->before, raw);
    if (same != NULL) {
        memcpy(c.raw_digest, same->raw_digest, DIGEST_SIZE);
    } else {
        ids_digest(raw, c.raw_digest);
    }
    cutting->same[s->chunk_count] = same;
    s->chunks[s->chunk_count++] = c;
    return OK;
}

static struct err chunk_keep(const struct cut_options *options, const struct cut_chunk *same,
                             struct cut_chunk *c)
{
    bool known =
        options->known != NULL && options->known(options->context, c->raw_digest, &c->stored);
    if (!known) {
        TRY(same != NULL ? chunk_copy(c, same) : chunk_store(c));
    }
    if (!known && same != NULL) {
        memcpy(c->digest, same->digest, DIGEST_SHORT_SIZE);
    } else {
        ids_digest_short(c->stored, c->digest);
    }
    return OK;
}

/* What the chunks are stored as, and the digest of the stream. */
static struct err stream_keep(struct cutting *cutting)
{
    struct cut_stream *s = cutting->out;
    const struct cut_options *options = cutting->options;
    auto_free uint8_t *digests = malloc(s->chunk_count * DIGEST_SIZE + 1);
    if (digests == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < s->chunk_count; i++) {
        memcpy(digests + i * DIGEST_SIZE, s->chunks[i].raw_digest, DIGEST_SIZE);
    }
    if (options->look != NULL) {
        TRY(options->look(options->context, slice_of(digests, s->chunk_count * DIGEST_SIZE)));
    }
    for (size_t i = 0; i < s->chunk_count; i++) {
        TRY(chunk_keep(options, cutting->same[i], &s->chunks[i]));
    }
    cut_raw_digest(digests, s->chunk_count, s->raw_digest);
    return OK;
}

/* A stream that is out of order is refused here, so that it is never published. */
static struct err stream_order(struct slice raw)
{
    struct part_iter it = {.rest = raw};
    struct part p;
    bool more = true;
    while (more) {
        TRY(part_next(&it, &p, &more));
    }
    return OK;
}

static struct err index_before(struct cutting *c)
{
    const struct cut_stream *before = c->options->before;
    for (size_t i = 0; before != NULL && i < before->chunk_count; i++) {
        TRY(map_put(&c->before, before->chunks[i].raw, &before->chunks[i], /* out_old= */ NULL));
    }
    return OK;
}

static struct err stream_fill(struct cutting *c, struct slice raw)
{
    TRY(index_before(c));
    while (raw.size > 0) {
        size_t size = 0;
        size_t pieces = 0;
        TRY(cut_first(c->out->kind, raw, &size, &pieces));
        CHECK(size > 0 && pieces > 0);
        for (size_t i = 0; i < pieces; i++) {
            struct slice piece = slice_from(slice_head(raw, size), i * CHUNK_RAW_MAX);
            TRY(chunk_add(c, slice_head(piece, CHUNK_RAW_MAX)));
        }
        raw = slice_from(raw, size);
    }
    return stream_keep(c);
}

struct err cut_stream(uint32_t kind, struct slice raw, const struct cut_options *options,
                      struct cut_stream *out)
{
    static const struct cut_options none;
    if (raw.size > STREAM_RAW_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(stream_order(raw));
    uint32_t format = stream_format(kind, SNAPSHOT_FORMAT);
    struct cut_stream s = {.kind = kind, .format = format == 0 ? 1 : format, .raw_size = raw.size};
    struct cutting c = {.out = &s, .options = options == NULL ? &none : options};
    struct err e = stream_fill(&c, raw);
    map_free(&c.before);
    free(c.same);
    if (!err_ok(e)) {
        cut_stream_free(&s);
        return e;
    }
    *out = s;
    return OK;
}

void cut_stream_free(struct cut_stream *s)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        free(s->chunks[i].owned);
    }
    free(s->chunks);
    *s = (struct cut_stream){0};
}

void cut_raw_digest(const uint8_t *digests, size_t count, uint8_t out[DIGEST_SIZE])
{
    ids_digest(slice_of(digests, count * DIGEST_SIZE), out);
}

/* Unpacks into exactly raw_size bytes; zstd never writes past them. */
static struct err chunk_unpack(struct slice stored, uint8_t *out, size_t raw_size)
{
    size_t size = ZSTD_decompress(out, raw_size, stored.ptr, stored.size);
    if (ZSTD_isError(size)) {
        bool more = ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall;
        return FAIL(more ? E_CHUNK_BOMB : E_CHUNK_TAMPERED);
    }
    return size == raw_size ? OK : FAIL(E_CHUNK_TAMPERED);
}

struct err chunk_open(struct slice stored, const struct chunk_name *name, uint8_t *out,
                      uint8_t out_raw_digest[DIGEST_SIZE])
{
    uint8_t digest[DIGEST_SHORT_SIZE];
    if (stored.size != name->stored_size) {
        return FAIL(E_CHUNK_TAMPERED);
    }
    ids_digest_short(stored, digest);
    if (memcmp(digest, name->digest, sizeof(digest)) != 0) {
        return FAIL(E_CHUNK_TAMPERED);
    }
    if (name->stored_size == name->raw_size) {
        memcpy(out, stored.ptr, stored.size);
    } else {
        TRY(chunk_unpack(stored, out, name->raw_size));
    }
    ids_digest(slice_of(out, name->raw_size), out_raw_digest);
    return OK;
}
