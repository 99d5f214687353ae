/* Chunks by reference, streams as lists of them, parts as walks over those. */
#include "common/snapshot/set.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/refs.h"
#include "common/base/scope.h"

/* One verified chunk; shared by all sets that hold it. */
struct chunk {
    struct refs refs;
    uint8_t raw_digest[DIGEST_SIZE];
    uint32_t raw_size;
    uint8_t raw[];
};

/* A chunk by its name: each distinct one of a manifest has one slot. */
struct slot {
    struct chunk_name name;
    uint32_t kind;       /* of the stream that it was first met in. */
    struct chunk *chunk; /* a reference; NULL while it is missing. */
    bool kept;           /* taken over from the set before. */
    uint8_t *stored;     /* owned; NULL when dropped, or taken over. */
};

struct place {
    struct slot *slot;
    bool kept;      /* the same stream of the set before holds these bytes. */
    uint8_t *whole; /* owned: a part larger than a chunk, that begins here, in one piece. */
};

struct stream {
    uint32_t kind;
    uint32_t format;
    uint8_t raw_digest[DIGEST_SIZE];
    size_t place_count;
    struct place *places; /* owned. */
    size_t head_count;
    size_t *heads; /* owned: places that begin with a part, ascending. */
};

struct snap_set {
    struct refs refs;
    uint64_t version;
    uint8_t content_digest[DIGEST_SIZE];
    uint8_t manifest_digest[DIGEST_SIZE];
    struct snap_set *previous; /* a reference, until the set is closed. */
    size_t stream_count;
    struct stream streams[STREAMS_MAX];
    size_t slot_count;
    struct slot *slots; /* owned; as many as chunks are named, at most. */
    struct map by_name; /* chunk digest to slot. */
    struct map by_raw;  /* raw digest to slot; filled as chunks come. */
    bool closed;
    struct snap_set_counts counts;
};

/* ---- references ---- */

static void chunk_unref(struct chunk *c)
{
    if (c != NULL && refs_drop(&c->refs)) {
        free(c);
    }
}

static struct chunk *chunk_ref(struct chunk *c)
{
    refs_take(&c->refs);
    return c;
}

struct snap_set *snap_set_ref(struct snap_set *s)
{
    refs_take(&s->refs);
    return s;
}

static void stream_free(struct stream *st)
{
    for (size_t i = 0; st->places != NULL && i < st->place_count; i++) {
        free(st->places[i].whole);
    }
    free(st->places);
    free(st->heads);
}

void snap_set_unref(struct snap_set *s)
{
    if (s == NULL || !refs_drop(&s->refs)) {
        return;
    }
    for (size_t i = 0; i < s->stream_count; i++) {
        stream_free(&s->streams[i]);
    }
    for (size_t i = 0; i < s->slot_count; i++) {
        chunk_unref(s->slots[i].chunk);
        free(s->slots[i].stored);
    }
    free(s->slots);
    map_free(&s->by_name);
    map_free(&s->by_raw);
    snap_set_unref(s->previous);
    free(s);
}

/* ---- filling ---- */

/* The heap's answer in the words of the table of a node's checks. */
static struct err memory(struct err e)
{
    return e.code == E_NO_MEMORY ? (struct err){E_OUT_OF_MEMORY, e.where} : e;
}

static struct err slot_set(struct snap_set *s, struct slot *slot, struct chunk *c)
{
    struct slice raw = slice_of(c->raw_digest, DIGEST_SIZE);
    if (map_get(&s->by_raw, raw) == NULL) {
        TRY(memory(map_put(&s->by_raw, raw, slot, /* out_old= */ NULL)));
    }
    slot->chunk = chunk_ref(c);
    return OK;
}

static struct err slot_take_over(struct snap_set *s, struct slot *slot)
{
    if (s->previous == NULL) {
        return OK;
    }
    const struct slot *old =
        map_get(&s->previous->by_name, slice_of(slot->name.digest, DIGEST_SHORT_SIZE));
    if (old == NULL || old->chunk == NULL || old->name.raw_size != slot->name.raw_size ||
        old->name.stored_size != slot->name.stored_size) {
        return OK;
    }
    slot->kept = true;
    s->counts.chunks_kept++;
    return slot_set(s, slot, old->chunk);
}

/* One digest with two sizes cannot be true. */
static struct err slot_find(struct snap_set *s, uint32_t kind, const struct chunk_name *name,
                            struct slot **out)
{
    struct slot *slot = map_get(&s->by_name, slice_of(name->digest, DIGEST_SHORT_SIZE));
    if (slot != NULL) {
        bool same =
            slot->name.raw_size == name->raw_size && slot->name.stored_size == name->stored_size;
        *out = slot;
        return same ? OK : FAIL(E_MANIFEST_MALFORMED);
    }
    slot = &s->slots[s->slot_count];
    *slot = (struct slot){.name = *name, .kind = kind};
    TRY(memory(map_put(&s->by_name, slice_of(slot->name.digest, DIGEST_SHORT_SIZE), slot,
                       /* out_old= */ NULL)));
    s->slot_count++;
    TRY(slot_take_over(s, slot));
    *out = slot;
    return OK;
}

static struct err stream_start(struct snap_set *s, const struct manifest_stream *from)
{
    struct stream *st = &s->streams[s->stream_count];
    *st = (struct stream){
        .kind = from->kind, .format = from->format, .place_count = from->chunk_count};
    memcpy(st->raw_digest, from->raw_digest, DIGEST_SIZE);
    s->stream_count++;
    st->places = calloc(from->chunk_count + 1, sizeof(*st->places));
    st->heads = calloc(from->chunk_count + 1, sizeof(*st->heads));
    if (st->places == NULL || st->heads == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < from->chunk_count; i++) {
        struct chunk_name name = manifest_chunk(from, i);
        TRY(slot_find(s, from->kind, &name, &st->places[i].slot));
    }
    s->counts.chunks += from->chunk_count;
    s->counts.raw_bytes += from->raw_size;
    return OK;
}

static bool is_wanted(const struct manifest_stream *st, bool positions)
{
    return (st->kind == STREAM_POSITIONS) == positions;
}

static struct err set_fill(struct snap_set *s, const struct manifest *m, bool positions)
{
    size_t chunks = 0;
    for (size_t i = 0; i < m->stream_count; i++) {
        chunks += is_wanted(&m->streams[i], positions) ? m->streams[i].chunk_count : 0;
    }
    s->slots = calloc(chunks + 1, sizeof(*s->slots));
    if (s->slots == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < m->stream_count; i++) {
        if (is_wanted(&m->streams[i], positions)) {
            TRY(stream_start(s, &m->streams[i]));
        }
    }
    return OK;
}

static struct err set_new(const struct manifest *m, struct snap_set *previous, bool positions,
                          struct snap_set **out)
{
    CHECK(previous == NULL || previous->closed);
    struct snap_set *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    refs_init(&s->refs);
    s->version = m->version;
    memcpy(s->content_digest, m->content_digest, DIGEST_SIZE);
    memcpy(s->manifest_digest, m->digest, DIGEST_SIZE);
    s->previous = previous == NULL ? NULL : snap_set_ref(previous);
    struct err e = set_fill(s, m, positions);
    if (!err_ok(e)) {
        snap_set_unref(s);
        return e;
    }
    *out = s;
    return OK;
}

struct err snap_set_new(const struct manifest *m, struct snap_set *previous, struct snap_set **out)
{
    return set_new(m, previous, /* positions= */ false, out);
}

struct err snap_set_new_positions(const struct manifest *m, struct snap_set *previous,
                                  struct snap_set **out)
{
    return set_new(m, previous, /* positions= */ true, out);
}

bool snap_set_missing(const struct snap_set *s, size_t *at, struct snap_missing *out)
{
    for (; *at < s->slot_count; (*at)++) {
        const struct slot *slot = &s->slots[*at];
        if (slot->chunk == NULL) {
            *out = (struct snap_missing){.kind = slot->kind, .name = slot->name};
            (*at)++;
            return true;
        }
    }
    return false;
}

/* Stored anew by another zstd, it may still be a chunk that we hold: share its bytes. */
static struct chunk *same_raw(const struct snap_set *s, const struct chunk *c)
{
    struct slice raw = slice_of(c->raw_digest, DIGEST_SIZE);
    const struct slot *slot = map_get(&s->by_raw, raw);
    if (slot == NULL && s->previous != NULL) {
        slot = map_get(&s->previous->by_raw, raw);
    }
    return slot == NULL ? NULL : slot->chunk;
}

static struct err chunk_new(const struct chunk_name *name, struct slice stored, struct chunk **out)
{
    struct chunk *c = malloc(sizeof(*c) + name->raw_size);
    if (c == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    refs_init(&c->refs);
    c->raw_size = name->raw_size;
    struct err e = chunk_open(stored, name, c->raw, c->raw_digest);
    if (!err_ok(e)) {
        free(c);
        return e;
    }
    *out = c;
    return OK;
}

struct err snap_set_add(struct snap_set *s, const struct chunk_name *name, struct slice stored)
{
    CHECK(!s->closed);
    struct slot *slot = map_get(&s->by_name, slice_of(name->digest, DIGEST_SHORT_SIZE));
    if (slot == NULL) {
        return FAIL(E_CHUNK_TAMPERED); /* nobody asked for it. */
    }
    if (slot->chunk != NULL) {
        return OK;
    }
    struct chunk *c = NULL;
    TRY(chunk_new(&slot->name, stored, &c));
    auto_free uint8_t *copy = malloc(stored.size);
    struct chunk *shared = same_raw(s, c);
    struct err e = copy == NULL ? FAIL(E_OUT_OF_MEMORY) : slot_set(s, slot, shared ? shared : c);
    chunk_unref(c);
    TRY(e);
    memcpy(copy, stored.ptr, stored.size);
    slot->stored = TAKE_PTR(copy);
    s->counts.added_bytes += stored.size;
    return OK;
}

/* ---- closing ---- */

static struct slice chunk_raw(const struct stream *st, size_t at)
{
    const struct chunk *c = st->places[at].slot->chunk;
    return slice_of(c->raw, c->raw_size);
}

static struct err stream_check_digest(const struct stream *st)
{
    auto_free uint8_t *digests = malloc(st->place_count * DIGEST_SIZE + 1);
    if (digests == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < st->place_count; i++) {
        const struct chunk *c = st->places[i].slot->chunk;
        if (c == NULL) {
            return FAIL(E_CHUNK_MISSING);
        }
        memcpy(digests + i * DIGEST_SIZE, c->raw_digest, DIGEST_SIZE);
    }
    uint8_t digest[DIGEST_SIZE];
    cut_raw_digest(digests, st->place_count, digest);
    bool same = memcmp(digest, st->raw_digest, DIGEST_SIZE) == 0;
    return same ? OK : FAIL(E_CHUNK_TAMPERED);
}

/* Pieces of a part that is larger than a chunk: all full, but the last, which ends with it. */
static struct err span_check(const struct stream *st, size_t at, size_t size, size_t *out_pieces)
{
    size_t pieces = (size + CHUNK_RAW_MAX - 1) / CHUNK_RAW_MAX;
    if (pieces > st->place_count - at) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < pieces; i++) {
        size_t left = size - i * CHUNK_RAW_MAX;
        size_t want = left < CHUNK_RAW_MAX ? left : CHUNK_RAW_MAX;
        if (chunk_raw(st, at + i).size != want) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    *out_pieces = pieces;
    return OK;
}

static struct err span_join(struct stream *st, size_t at, size_t size, size_t pieces)
{
    uint8_t *whole = malloc(size);
    if (whole == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    st->places[at].whole = whole;
    for (size_t i = 0; i < pieces; i++) {
        struct slice piece = chunk_raw(st, at + i);
        memcpy(whole + i * CHUNK_RAW_MAX, piece.ptr, piece.size);
    }
    return OK;
}

/* What begins at a chunk: a large part over several, or whole parts to its end. */
static struct err place_check(struct stream *st, size_t at, struct slice *last, size_t *out_pieces)
{
    struct part p;
    bool more = true;
    struct part_iter it = {.rest = chunk_raw(st, at), .last = *last};
    TRY(part_read_sizes(it.rest, &p));
    size_t size = (size_t)part_size(&p);
    *out_pieces = 1;
    if (size > CHUNK_RAW_MAX) {
        TRY(span_check(st, at, size, out_pieces));
        TRY(span_join(st, at, size, *out_pieces));
        it.rest = slice_of(st->places[at].whole, size);
    }
    while (more) {
        TRY(part_next(&it, &p, &more));
    }
    *last = it.last;
    return OK;
}

static struct err stream_check_parts(struct stream *st)
{
    struct slice last = {0};
    size_t pieces = 0;
    for (size_t at = 0; at < st->place_count; at += pieces) {
        TRY(place_check(st, at, &last, &pieces));
        st->heads[st->head_count++] = at;
    }
    return OK;
}

static const struct stream *stream_find(const struct snap_set *s, uint32_t kind)
{
    for (size_t i = 0; i < s->stream_count; i++) {
        if (s->streams[i].kind == kind) {
            return &s->streams[i];
        }
    }
    return NULL;
}

/* Which chunks the same stream of the set before holds: there, parts were built already. */
static struct err stream_mark_kept(struct stream *st, const struct stream *old, struct map *seen)
{
    for (size_t i = 0; i < old->place_count; i++) {
        struct chunk *c = old->places[i].slot->chunk;
        TRY(memory(map_put(seen, slice_of(c->raw_digest, DIGEST_SIZE), c, NULL)));
    }
    for (size_t i = 0; i < st->place_count; i++) {
        const struct chunk *c = st->places[i].slot->chunk;
        st->places[i].kept = map_get(seen, slice_of(c->raw_digest, DIGEST_SIZE)) != NULL;
    }
    return OK;
}

static struct err stream_close(struct snap_set *s, struct stream *st)
{
    TRY(stream_check_digest(st));
    TRY(stream_check_parts(st));
    const struct stream *old = s->previous == NULL ? NULL : stream_find(s->previous, st->kind);
    if (old == NULL || old->format != st->format) {
        return OK; /* the same bytes may mean something else. */
    }
    struct map seen = {0};
    struct err e = stream_mark_kept(st, old, &seen);
    map_free(&seen);
    return e;
}

struct err snap_set_close(struct snap_set *s)
{
    CHECK(!s->closed);
    for (size_t i = 0; i < s->stream_count; i++) {
        TRY(stream_close(s, &s->streams[i]));
    }
    s->closed = true;
    snap_set_unref(s->previous);
    s->previous = NULL;
    return OK;
}

/* ---- reading ---- */

uint32_t snap_set_format(const struct snap_set *s, uint32_t kind)
{
    const struct stream *st = stream_find(s, kind);
    return st == NULL ? 0 : st->format;
}

/* The bytes that begin at a head, and how many chunks they take. */
static struct slice head_bytes(const struct stream *st, size_t at, size_t *out_pieces)
{
    struct slice raw = chunk_raw(st, at);
    *out_pieces = 1;
    if (st->places[at].whole == NULL) {
        return raw;
    }
    struct part p;
    struct err e = part_read_sizes(raw, &p);
    CHECK(err_ok(e)); /* it was read when the set was closed. */
    size_t size = (size_t)part_size(&p);
    *out_pieces = (size + CHUNK_RAW_MAX - 1) / CHUNK_RAW_MAX;
    return slice_of(st->places[at].whole, size);
}

static bool stream_next(const struct stream *st, struct snap_cursor *at, struct snap_part *out)
{
    if (at->chunk >= st->place_count) {
        return false;
    }
    size_t pieces = 0;
    struct part p;
    struct slice bytes = head_bytes(st, at->chunk, &pieces);
    struct err e = part_read(slice_from(bytes, at->offset), &p);
    CHECK(err_ok(e)); /* all parts were read when the set was closed. */
    *out = (struct snap_part){.key = p.key,
                              .bytes = p.bytes,
                              .chunk = at->chunk,
                              .kept = pieces == 1 && st->places[at->chunk].kept};
    at->offset += (size_t)part_size(&p);
    if (at->offset == bytes.size) {
        *at = (struct snap_cursor){.chunk = at->chunk + pieces};
    }
    return true;
}

bool snap_set_next(const struct snap_set *s, uint32_t kind, struct snap_cursor *at,
                   struct snap_part *out)
{
    CHECK(s->closed);
    const struct stream *st = stream_find(s, kind);
    return st != NULL && stream_next(st, at, out);
}

/* The last head whose first key is not above 'key'; head_count when all are above. */
static size_t head_find(const struct stream *st, struct slice key)
{
    size_t low = 0;
    size_t high = st->head_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct snap_cursor at = {.chunk = st->heads[middle]};
        struct snap_part p;
        bool found = stream_next(st, &at, &p);
        CHECK(found);
        if (slice_cmp(p.key, key) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? st->head_count : low - 1;
}

bool snap_set_find(const struct snap_set *s, uint32_t kind, struct slice key, struct snap_part *out)
{
    CHECK(s->closed);
    const struct stream *st = stream_find(s, kind);
    size_t head = st == NULL ? 0 : head_find(st, key);
    if (st == NULL || head == st->head_count) {
        return false;
    }
    struct snap_cursor at = {.chunk = st->heads[head]};
    struct snap_part p;
    while (stream_next(st, &at, &p)) {
        int order = slice_cmp(p.key, key);
        if (order == 0) {
            *out = p;
            return true;
        }
        if (order > 0) {
            return false;
        }
    }
    return false;
}

uint64_t snap_set_version(const struct snap_set *s)
{
    return s->version;
}

const uint8_t *snap_set_content_digest(const struct snap_set *s)
{
    return s->content_digest;
}

const uint8_t *snap_set_manifest_digest(const struct snap_set *s)
{
    return s->manifest_digest;
}

bool snap_set_stored(const struct snap_set *s, size_t *at, struct snap_stored *out)
{
    if (*at >= s->slot_count) {
        return false;
    }
    const struct slot *slot = &s->slots[(*at)++];
    out->name = slot->name;
    out->stored = slice_of(slot->stored, slot->stored == NULL ? 0 : slot->name.stored_size);
    return true;
}

void snap_set_drop_stored(struct snap_set *s)
{
    for (size_t i = 0; i < s->slot_count; i++) {
        free(s->slots[i].stored);
        s->slots[i].stored = NULL;
    }
}

struct snap_set_counts snap_set_counts(const struct snap_set *s)
{
    return s->counts;
}
