/* Blocks, runs and streams: made once, then shared. */
#include "common/snapshot/runs.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/scope.h"

/* Chunks of a run, when there are enough; and how many at least are parted into two. */
enum { RUN_CHUNKS = 32, RUN_CHUNKS_MAX = RUN_CHUNKS * 3 / 2 };

/* ---- references ---- */

static struct block *block_ref(struct block *b)
{
    refs_take(&b->refs);
    return b;
}

void block_unref(struct block *b)
{
    if (b != NULL && refs_drop(&b->refs)) {
        free(b);
    }
}

struct run *run_ref(struct run *r)
{
    refs_take(&r->refs);
    return r;
}

void run_unref(struct run *r)
{
    if (r == NULL || !refs_drop(&r->refs)) {
        return;
    }
    for (size_t i = 0; i < r->block_count; i++) {
        block_unref(r->blocks[i]);
    }
    free(r);
}

struct stream *stream_ref(struct stream *s)
{
    refs_take(&s->refs);
    return s;
}

void stream_unref(struct stream *s)
{
    if (s == NULL || !refs_drop(&s->refs)) {
        return;
    }
    for (size_t i = 0; i < s->run_count; i++) {
        run_unref(s->runs[i]);
    }
    free(s);
}

/* ---- blocks ---- */

static struct err block_new(size_t size, size_t pieces, struct block **out)
{
    struct block *b = malloc(sizeof(*b) + size);
    if (b == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    *b = (struct block){.piece_count = pieces, .size = size};
    refs_init(&b->refs);
    *out = b;
    return OK;
}

struct err block_open(const struct chunk_name *name, struct slice stored, struct block **out)
{
    struct block *b = NULL;
    TRY(block_new(name->raw_size, 1, &b));
    struct err e = chunk_open(stored, name, b->raw, b->raw_digest);
    if (!err_ok(e)) {
        block_unref(b);
        return e;
    }
    *out = b;
    return OK;
}

/* Reads all parts: their bounds and order. */
static struct err block_judge(struct block *b)
{
    struct part_iter it = {.rest = slice_of(b->raw, b->size)};
    struct part p = {0};
    bool more = true;
    if (b->judged) {
        return OK;
    }
    TRY(part_next(&it, &p, &more));
    b->first = p.key;
    while (more) {
        TRY(part_next(&it, &p, &more));
    }
    b->last = it.last;
    b->judged = true;
    return OK;
}

/* ---- runs ---- */

bool run_is_at(const struct run *r, const struct manifest_stream *m, size_t at)
{
    size_t n = r->chunk_count;
    const uint8_t *named = m->chunk_digests + at * DIGEST_SHORT_SIZE;
    return memcmp(named, r->digests, DIGEST_SHORT_SIZE) == 0 && n <= m->chunk_count - at &&
           memcmp(named, r->digests, n * DIGEST_SHORT_SIZE) == 0 &&
           memcmp(m->stored_sizes + at, r->stored_sizes, n * sizeof(*r->stored_sizes)) == 0 &&
           memcmp(m->raw_sizes + at, r->raw_sizes, n * sizeof(*r->raw_sizes)) == 0;
}

struct chunk_name run_name(const struct run *r, size_t at)
{
    struct chunk_name name = {.stored_size = r->stored_sizes[at], .raw_size = r->raw_sizes[at]};
    memcpy(name.digest, r->digests + at * DIGEST_SHORT_SIZE, DIGEST_SHORT_SIZE);
    return name;
}

bool run_has(const struct run_place *place, const struct chunk_name *name)
{
    struct chunk_name there = run_name(place->run, place->at);
    return there.stored_size == name->stored_size && there.raw_size == name->raw_size &&
           memcmp(there.digest, name->digest, DIGEST_SHORT_SIZE) == 0;
}

/* The block that a chunk of a run lies in, and which piece of it it is. */
static struct block *place_block(const struct run_place *place, size_t *out_piece)
{
    size_t before = 0;
    for (size_t i = 0; i < place->run->block_count; i++) {
        struct block *b = place->run->blocks[i];
        if (place->at < before + b->piece_count) {
            *out_piece = place->at - before;
            return b;
        }
        before += b->piece_count;
    }
    CHECK(false);
    return NULL;
}

const uint8_t *run_slot_digest(const struct run_slot *slot)
{
    return slot->place.run == NULL ? slot->block->raw_digest
                                   : slot->place.run->raw_digests + slot->place.at * DIGEST_SIZE;
}

static struct slice slot_raw(const struct run_slot *slot)
{
    size_t piece = 0;
    if (slot->place.run == NULL) {
        return slice_of(slot->block->raw, slot->block->size);
    }
    const struct block *b = place_block(&slot->place, &piece);
    return slice_of(b->raw + piece * CHUNK_RAW_MAX, slot->name.raw_size);
}

static size_t round_up(size_t size)
{
    return (size + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
}

/* Room for lists of so many; counts are of what will be filled in. */
static struct err run_new(size_t chunks, size_t blocks, struct run **out)
{
    size_t sizes = round_up(chunks * sizeof(uint32_t));
    struct run *r = malloc(sizeof(*r) + blocks * sizeof(struct block *) + 2 * sizes +
                           chunks * ((size_t)DIGEST_SHORT_SIZE + DIGEST_SIZE));
    if (r == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    *r = (struct run){.chunk_count = chunks, .blocks = (struct block **)(void *)(r + 1)};
    refs_init(&r->refs);
    r->stored_sizes = (uint32_t *)(void *)(r->blocks + blocks);
    r->raw_sizes = r->stored_sizes + sizes / sizeof(uint32_t);
    r->digests = (uint8_t *)r->raw_sizes + sizes;
    r->raw_digests = r->digests + chunks * DIGEST_SHORT_SIZE;
    *out = r;
    return OK;
}

/* Blocks and their slots become a run. Takes the references. */
static struct err run_make(struct runs *r, const struct run_slot *slots, size_t chunks,
                           struct block **blocks, size_t block_count)
{
    struct run *run = NULL;
    TRY(array_room(&r->runs, r->count, &r->capacity, sizeof(struct run *)));
    TRY(run_new(chunks, block_count, &run));
    for (size_t i = 0; i < chunks; i++) {
        run->stored_sizes[i] = slots[i].name.stored_size;
        run->raw_sizes[i] = slots[i].name.raw_size;
        run->stored_bytes += slots[i].name.stored_size;
        memcpy(run->digests + i * DIGEST_SHORT_SIZE, slots[i].name.digest, DIGEST_SHORT_SIZE);
        memcpy(run->raw_digests + i * DIGEST_SIZE, run_slot_digest(&slots[i]), DIGEST_SIZE);
    }
    for (size_t i = 0; i < block_count; i++) {
        run->blocks[i] = TAKE_PTR(blocks[i]);
    }
    run->block_count = block_count;
    r->runs[r->count++] = run;
    return OK;
}

/* ---- making ---- */

void runs_free(struct runs *r)
{
    for (size_t i = 0; i < r->count; i++) {
        run_unref(r->runs[i]);
    }
    free(r->runs);
    free(r->waiting);
    *r = (struct runs){0};
}

/* The blocks of slots that are next to each other in their order. */
struct blocks {
    struct block **at; /* owned list of references. */
    size_t count;
    bool cut_short; /* the last part goes on behind the slots. */
};

static void blocks_free(struct blocks *b)
{
    for (size_t i = 0; b->at != NULL && i < b->count; i++) {
        block_unref(b->at[i]);
    }
    free(b->at);
}

/* A block of a run before that begins with this slot, if the slots behind it go on with it. */
static struct block *same_block(const struct run_slot *slots, size_t count)
{
    size_t piece = 0;
    if (slots->place.run == NULL) {
        return NULL;
    }
    struct block *b = place_block(&slots->place, &piece);
    if (piece != 0 || b->piece_count > count) {
        return NULL;
    }
    for (size_t i = 1; i < b->piece_count; i++) {
        if (slots[i].place.run != slots->place.run || slots[i].place.at != slots->place.at + i) {
            return NULL;
        }
    }
    return block_ref(b);
}

/* Pieces of a part that is larger than a chunk: all full, but the last, which ends with it. */
static struct err check_pieces(const struct run_slot *slots, size_t size, size_t pieces)
{
    for (size_t i = 0; i < pieces; i++) {
        size_t left = size - i * CHUNK_RAW_MAX;
        size_t want = left < CHUNK_RAW_MAX ? left : CHUNK_RAW_MAX;
        if (slots[i].name.raw_size != want) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

/* Copies the bytes of slots into a block of their own. */
static struct err join(const struct run_slot *slots, size_t size, size_t pieces, struct block **out)
{
    struct block *b = NULL;
    TRY(block_new(size, pieces, &b));
    size_t at = 0;
    for (size_t i = 0; i < pieces; i++) {
        struct slice raw = slot_raw(&slots[i]);
        memcpy(b->raw + at, raw.ptr, raw.size);
        at += raw.size;
    }
    memcpy(b->raw_digest, run_slot_digest(slots), DIGEST_SIZE);
    *out = b;
    return OK;
}

/* What begins at a slot: a large part over several, or whole parts to its end. NULL: it goes on
 * behind the last one. */
static struct err block_at(const struct run_slot *slots, size_t count, struct block **out)
{
    struct part sizes;
    *out = same_block(slots, count);
    if (*out != NULL) {
        return OK;
    }
    struct slice raw = slot_raw(slots);
    TRY(part_read_sizes(raw, &sizes));
    uint64_t size = part_size(&sizes);
    if (size <= CHUNK_RAW_MAX && slots->place.run == NULL) {
        *out = block_ref(slots->block);
        return OK;
    }
    size_t pieces =
        size <= CHUNK_RAW_MAX ? 1 : (size_t)((size + CHUNK_RAW_MAX - 1) / CHUNK_RAW_MAX);
    if (pieces > count) {
        return OK;
    }
    if (pieces == 1) {
        return join(slots, raw.size, 1, out);
    }
    TRY(check_pieces(slots, (size_t)size, pieces));
    return join(slots, (size_t)size, pieces, out);
}

static struct err blocks_make(const struct run_slot *slots, size_t count, struct blocks *out)
{
    out->at = calloc(count, sizeof(struct block *));
    if (out->at == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < count; i += out->at[out->count - 1]->piece_count) {
        struct block *b = NULL;
        TRY(block_at(slots + i, count - i, &b));
        if (b == NULL) {
            out->cut_short = true;
            return OK;
        }
        out->at[out->count++] = b;
        TRY(block_judge(b));
    }
    return OK;
}

static struct slice last_key(const struct runs *r)
{
    const struct run *last = r->count == 0 ? NULL : r->runs[r->count - 1];
    return last == NULL ? (struct slice){0} : last->blocks[last->block_count - 1]->last;
}

static struct err check_order(struct slice last, struct block *const *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_cmp(last, blocks[i]->first) >= 0) { /* an empty 'last' is below every key. */
            return FAIL(E_PART_MALFORMED);
        }
        last = blocks[i]->last;
    }
    return OK;
}

/* Parts them evenly into runs. */
static struct err runs_part(struct runs *r, struct blocks *b)
{
    const struct run_slot *slots = r->waiting;
    size_t left = r->waiting_count;
    size_t first = 0;
    while (first < b->count) {
        size_t want = left <= RUN_CHUNKS_MAX ? left : RUN_CHUNKS;
        size_t chunks = 0;
        size_t blocks = 0;
        while (chunks < want) {
            CHECK(first + blocks < b->count); /* they are as many chunks as wait. */
            chunks += b->at[first + blocks++]->piece_count;
        }
        TRY(run_make(r, slots, chunks, b->at + first, blocks));
        slots += chunks;
        left -= chunks;
        first += blocks;
    }
    return OK;
}

static struct err runs_flush(struct runs *r, bool *out_cut_short)
{
    struct blocks b = {0};
    *out_cut_short = false;
    if (r->waiting_count == 0) {
        return OK;
    }
    struct err e = blocks_make(r->waiting, r->waiting_count, &b);
    if (err_ok(e) && !b.cut_short) {
        e = check_order(last_key(r), b.at, b.count);
    }
    if (err_ok(e) && !b.cut_short) {
        e = runs_part(r, &b);
    }
    if (err_ok(e) && !b.cut_short) {
        r->waiting_count = 0;
    }
    *out_cut_short = b.cut_short;
    blocks_free(&b);
    return e;
}

struct err runs_add_slots(struct runs *r, const struct run_slot *slots, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(array_room(&r->waiting, r->waiting_count, &r->waiting_capacity, sizeof(*r->waiting)));
        r->waiting[r->waiting_count++] = slots[i];
    }
    return OK;
}

/* A large part may end in what was a run of its own in the stream before: then it is none here. */
static struct err runs_dissolve(struct runs *r, struct run *run)
{
    for (size_t i = 0; i < run->chunk_count; i++) {
        const struct run_slot slot = {.name = run_name(run, i), .place = {.run = run, .at = i}};
        TRY(runs_add_slots(r, &slot, 1));
    }
    return OK;
}

struct err runs_add_run(struct runs *r, struct run *run)
{
    bool cut_short = false;
    TRY(runs_flush(r, &cut_short));
    if (cut_short) {
        return runs_dissolve(r, run);
    }
    TRY(check_order(last_key(r), run->blocks, 1));
    TRY(array_room(&r->runs, r->count, &r->capacity, sizeof(struct run *)));
    r->runs[r->count++] = run_ref(run);
    return OK;
}

struct err runs_end(struct runs *r)
{
    bool cut_short = false;
    TRY(runs_flush(r, &cut_short));
    return cut_short ? FAIL(E_PART_MALFORMED) : OK;
}

struct err stream_new(uint32_t kind, uint32_t format, const uint8_t raw_digest[DIGEST_SIZE],
                      struct runs *runs, struct stream **out)
{
    struct stream *s = calloc(1, sizeof(*s) + runs->count * sizeof(struct run *));
    if (s == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    refs_init(&s->refs);
    s->kind = kind;
    s->format = format;
    memcpy(s->raw_digest, raw_digest, DIGEST_SIZE);
    s->run_count = runs->count;
    for (size_t i = 0; i < runs->count; i++) {
        s->runs[i] = TAKE_PTR(runs->runs[i]);
    }
    *out = s;
    return OK;
}

/* ---- reading ---- */

static const struct run *run_at(const struct stream *s, const struct snap_cursor *at)
{
    return s == NULL || at->run >= s->run_count ? NULL : s->runs[at->run];
}

/* To the next run when the last block of one is behind. */
static void settle(const struct run *run, struct snap_cursor *at)
{
    if (at->block == run->block_count) {
        *at = (struct snap_cursor){.run = at->run + 1};
    }
}

static bool peek(const struct stream *s, const struct snap_cursor *at, struct snap_part *out)
{
    const struct run *run = run_at(s, at);
    if (run == NULL) {
        return false;
    }
    const struct block *b = run->blocks[at->block];
    struct part p;
    struct err e = part_read(slice_from(slice_of(b->raw, b->size), at->at), &p);
    CHECK(err_ok(e)); /* all parts were read when the block was judged. */
    *out = (struct snap_part){.key = p.key, .bytes = p.bytes};
    return true;
}

/* Behind the part that peek() gave. */
static void advance(const struct stream *s, const struct snap_part *p, struct snap_cursor *at)
{
    const struct run *run = s->runs[at->run];
    at->at += PART_HEADER_SIZE + p->key.size + p->bytes.size;
    if (at->at == run->blocks[at->block]->size) {
        at->block++;
        at->at = 0;
        settle(run, at);
    }
}

bool stream_next(const struct stream *s, struct snap_cursor *at, struct snap_part *out)
{
    if (!peek(s, at, out)) {
        return false;
    }
    advance(s, out, at);
    return true;
}

bool stream_seek(const struct stream *s, struct slice key, struct snap_cursor *out)
{
    size_t low = 0;
    size_t high = s->run_count;
    while (low < high) { /* the first run whose first key is above. */
        size_t middle = low + (high - low) / 2;
        bool above = slice_cmp(s->runs[middle]->blocks[0]->first, key) > 0;
        low = above ? low : middle + 1;
        high = above ? middle : high;
    }
    if (low == 0) {
        return false;
    }
    const struct run *run = s->runs[low - 1];
    *out = (struct snap_cursor){.run = low - 1};
    while (out->block + 1 < run->block_count &&
           slice_cmp(run->blocks[out->block + 1]->first, key) <= 0) {
        out->block++;
    }
    return true;
}

/* Passes over a run, or else a block, that both have here. Keys ascend on both sides, so that the
 * one that is behind comes to where the other waits. */
static bool pass_shared(const struct stream *a, const struct stream *b, struct snap_diff *at)
{
    const struct run *before = run_at(a, &at->before);
    const struct run *now = run_at(b, &at->now);
    if (before == NULL || now == NULL || at->before.at != 0 || at->now.at != 0) {
        return false;
    }
    if (before == now && at->before.block == at->now.block) {
        at->before = (struct snap_cursor){.run = at->before.run + 1};
        at->now = (struct snap_cursor){.run = at->now.run + 1};
        return true;
    }
    if (before->blocks[at->before.block] != now->blocks[at->now.block]) {
        return false;
    }
    at->before.block++;
    at->now.block++;
    settle(before, &at->before);
    settle(now, &at->now);
    return true;
}

bool stream_diff(const struct stream *before, const struct stream *now, bool whole,
                 struct snap_diff *at, struct snap_change *out)
{
    struct snap_part a = {0};
    struct snap_part b = {0};
    for (;;) { /* ends: each turn goes on in one of the streams. */
        while (!whole && pass_shared(before, now, at)) {
        }
        bool had = peek(before, &at->before, &a);
        bool has = peek(now, &at->now, &b);
        if (!had && !has) {
            return false;
        }
        int order = !had ? 1 : !has ? -1 : slice_cmp(a.key, b.key);
        *out = (struct snap_change){.had = order <= 0, .has = order >= 0};
        if (out->had) {
            out->key = a.key;
            out->before = a.bytes;
            advance(before, &a, &at->before);
        }
        if (out->has) {
            out->key = b.key;
            out->now = b.bytes;
            advance(now, &b, &at->now);
        }
        if (whole || order != 0 || !slice_eq(out->before, out->now)) {
            return true;
        }
    }
}
