/* Chunks and parts that a node must not take, below a valid head and a manifest that is signed by
 * who may. */
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "common/base/ids.h"
#include "common/snapshot/parts.h"

#include "tests/mutation/bytes.h"
#include "tests/mutation/node.h"

#define BYTES_MAX ((size_t)4 * CHUNK_RAW_MAX)

static struct buf *input(struct trial *t)
{
    struct buf *b = trial_input(t, "chunk");
    *b = BUF_MAX(BYTES_MAX);
    return b;
}

/* A head to a version of the world, or of the trial's own making. */
static void ask(struct trial *t, const struct version *v)
{
    struct buf *head = trial_input(t, "head");
    *head = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
    world_head(t->world, &(struct world_head){.version = v->number, .digest = v->digest}, head);
    node_refuses_target(t, buf_slice(head));
}

/* The next version, with these bytes in place of a chunk's. */
static void offer(struct trial *t, const struct cut_chunk *chunk, struct slice bytes)
{
    char key[SNAP_KEY_SIZE];
    snap_key_chunk(chunk->digest, key);
    node_lie(t->node, key, bytes);
    ask(t, t->world->versions[VERSION_NEXT]);
}

/* ---- bytes ---- */

static void changed(struct trial *t)
{
    const struct cut_chunk *chunk = world_new_chunk(t->world, &t->dice);
    struct buf *b = input(t);
    MUST(buf_add(b, chunk->stored));
    bytes_change(&t->dice, b);
    t->idle = slice_eq(buf_slice(b), chunk->stored);
    if (!t->idle) {
        offer(t, chunk, buf_slice(b));
    }
}

static void resized(struct trial *t)
{
    const struct cut_chunk *chunk = world_new_chunk(t->world, &t->dice);
    struct buf *b = input(t);
    MUST(buf_add(b, chunk->stored));
    bytes_resize(&t->dice, b);
    offer(t, chunk, buf_slice(b));
}

/* What it unpacks to, or the same packed by another level: not the bytes that were named. */
static void packed_otherwise(struct trial *t)
{
    uint8_t packed[2 * CHUNK_RAW_MAX];
    const struct cut_chunk *chunk = world_new_chunk(t->world, &t->dice);
    size_t size = ZSTD_compress(packed, sizeof(packed), chunk->raw.ptr, chunk->raw.size,
                                (int)dice_between(&t->dice, 10, 12));
    bool raw = dice_even(&t->dice);
    struct buf *b = input(t);
    MUST(buf_add(b, raw ? chunk->raw : slice_of(packed, size)));
    t->idle = slice_eq(buf_slice(b), chunk->stored);
    if (!t->idle) {
        offer(t, chunk, buf_slice(b));
    }
}

static void too_large(struct trial *t)
{
    const struct cut_chunk *chunk = world_new_chunk(t->world, &t->dice);
    struct buf *b = input(t);
    uint8_t *room = NULL;
    size_t size = CHUNK_RAW_MAX + 1 + (size_t)dice_below(&t->dice, CHUNK_RAW_MAX);
    MUST(buf_reserve(b, size, &room));
    memset(room, 0, size);
    buf_commit(b, size);
    offer(t, chunk, buf_slice(b));
}

/* ---- splices ---- */

static void withheld(struct trial *t)
{
    char key[SNAP_KEY_SIZE];
    snap_key_chunk(world_new_chunk(t->world, &t->dice)->digest, key);
    node_hide(t->node, key);
    ask(t, t->world->versions[VERSION_NEXT]);
}

/* Another chunk of this version, of another one, or of another world. */
static void swapped(struct trial *t)
{
    struct world *from = dice_even(&t->dice) ? t->world : trial_other(t);
    const struct version *v = from->versions[dice_below(&t->dice, WORLD_VERSIONS)];
    const struct cut_stream *s = &v->streams[dice_below(&t->dice, v->stream_count)];
    const struct cut_chunk *other = &s->chunks[dice_below(&t->dice, s->chunk_count)];
    const struct cut_chunk *chunk = world_new_chunk(t->world, &t->dice);
    t->idle = memcmp(other->digest, chunk->digest, DIGEST_SHORT_SIZE) == 0;
    if (!t->idle) {
        offer(t, chunk, other->stored);
    }
}

/* ---- contents that are signed by who may, and wrong ---- */

/* A version of these streams, whose objects lie in the bucket. */
static void offer_made(struct trial *t, struct version *v, uint64_t capabilities)
{
    char key[SNAP_KEY_SIZE];
    world_sign(t->world, v, capabilities);
    snap_key_manifest(v->number, v->digest, key);
    node_lie(t->node, key, buf_slice(&v->manifest));
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            snap_key_chunk(v->streams[i].chunks[k].digest, key);
            node_lie(t->node, key, v->streams[i].chunks[k].stored);
        }
    }
    ask(t, v);
}

/* A chunk that is what was signed, by name and size, but unpacks to more, or to less. */
static void bomb(struct trial *t)
{
    enum { BOMB_BYTES = 1 << 20 };
    static uint8_t zeros[BOMB_BYTES];
    uint8_t packed[8192];
    struct world *w = t->world;
    struct content *c = world_content(dice_next(&t->dice));
    struct version *v = version_cut(c, w->versions[VERSION_NEXT]->number);
    struct cut_chunk *chunk = &v->streams[0].chunks[0];
    CHECK(v->streams[0].kind == STREAM_ROUTING && v->streams[0].chunk_count == 1);
    bool more = dice_even(&t->dice);
    size_t raw = more ? (size_t)dice_between(&t->dice, chunk->raw.size + 1, BOMB_BYTES)
                      : (size_t)dice_below(&t->dice, chunk->raw.size);
    size_t size = ZSTD_compress(packed, sizeof(packed), zeros, raw, 3);
    CHECK(!ZSTD_isError(size) && size < chunk->raw.size);
    struct slice stored = chunk->stored;
    chunk->stored = slice_of(packed, size);
    ids_digest_short(chunk->stored, chunk->digest);
    trial_says(t, "unpacks to %zu of %zu bytes", raw, chunk->raw.size);
    t->wanted = more ? E_CHUNK_BOMB : E_CHUNK_TAMPERED;
    offer_made(t, v, c->capabilities);
    chunk->stored = stored;
    version_free(v);
    content_free(c);
}

/* A part that says nothing, too much, or what does not fit the others. */
static void break_content(struct trial *t, struct content *c)
{
    const struct slice noise[] = {SLICE_LIT("?"), SLICE_LIT("\xff\xff"), SLICE_LIT("\x0a\x7f"),
                                  SLICE_LIT("\x08\x80\x00")};
    static const uint32_t streams[] = {STREAM_ROUTING, STREAM_TRUST,  STREAM_AUTHORISATION,
                                       STREAM_LIMITS,  STREAM_EGRESS, STREAM_TRANSPORT};
    static const char *const keys[] = {"service/acme/orders", "service/acme/web",
                                       "service/acme/orders", "service/acme/orders",
                                       "acme/partners",       "default"};
    size_t which = (size_t)dice_below(&t->dice, 6);
    t->wanted = E_PART_MALFORMED;
    switch (dice_below(&t->dice, 5)) {
    case 0: /* what a route and an egress refer to. */
        content_remove(c, STREAM_TRANSPORT, "default");
        break;
    case 1:
        content_remove(c, STREAM_TRUST, "environment");
        break;
    case 2: /* a newer release revokes something by it. */
        content_put_bytes(c, STREAM_REVOCATIONS, "country/xx", SLICE_LIT(""));
        t->wanted = E_CAPABILITY_MISSING;
        break;
    case 3: /* field 50. */
        content_put_bytes(c, streams[which], keys[which], SLICE_LIT("\x90\x03\x01"));
        t->wanted = E_CAPABILITY_MISSING;
        break;
    default: /* what stands in its front may look like a newer field. */
        content_put_bytes(c, streams[which], keys[which], noise[dice_below(&t->dice, 4)]);
        t->wanted = E_OK;
    }
    trial_says(t, "part %zu", which);
}

static void signed_parts(struct trial *t)
{
    struct content *c = world_content(dice_next(&t->dice));
    break_content(t, c);
    struct version *v = version_cut(c, t->world->versions[VERSION_NEXT]->number);
    offer_made(t, v, c->capabilities);
    version_free(v);
    content_free(c);
}

/* Keys twice, or not in order; a part that its chunk ends within. */
static void signed_order(struct trial *t)
{
    struct content *c = world_content(dice_next(&t->dice));
    struct version *v = version_cut(c, t->world->versions[VERSION_NEXT]->number);
    struct cut_stream *s = &v->streams[0];
    struct cut_chunk whole = s->chunks[0];
    uint8_t bytes[CHUNK_RAW_MAX];
    CHECK(s->kind == STREAM_ROUTING && s->chunk_count == 1 && whole.raw.size > 64);
    memcpy(bytes, whole.raw.ptr, whole.raw.size);
    /* The first part's header: its key's size, or its own. */
    bytes[dice_even(&t->dice) ? 0 : 2] ^= (uint8_t)dice_between(&t->dice, 1, 255);
    struct cut_chunk *chunk = &s->chunks[0];
    chunk->raw = slice_of(bytes, whole.raw.size);
    chunk->stored = chunk->raw;
    ids_digest(chunk->raw, chunk->raw_digest);
    ids_digest_short(chunk->stored, chunk->digest);
    cut_raw_digest(chunk->raw_digest, 1, s->raw_digest);
    offer_made(t, v, c->capabilities);
    s->chunks[0] = whole;
    version_free(v);
    content_free(c);
}

const struct trial_kind chunk_kinds[] = {
    {"chunk.changed", changed, 60, {E_CHUNK_TAMPERED}},
    {"chunk.resized", resized, 20, {E_CHUNK_TAMPERED}},
    {"chunk.packed_otherwise", packed_otherwise, 5, {E_CHUNK_TAMPERED}},
    {"chunk.too_large", too_large, 1, {E_CHUNK_TAMPERED}},
    {"chunk.withheld", withheld, 5, {E_CHUNK_MISSING}},
    {"chunk.swapped", swapped, 30, {E_CHUNK_TAMPERED}},
    {"chunk.bomb", bomb, 2, {E_CHUNK_BOMB, E_CHUNK_TAMPERED}},
    {"part.signed_nonsense", signed_parts, 2, {E_PART_MALFORMED, E_CAPABILITY_MISSING}},
    {"part.signed_order", signed_order, 2, {E_PART_MALFORMED, TRIAL_RARE, E_CAPABILITY_MISSING}},
    {.name = NULL},
};
