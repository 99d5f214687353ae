/* The open set: what a manifest names is found in the set before, or wanted; then closed into runs.
 * What is shared by closed sets is in runs.c. */
#include "common/snapshot/set.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/snapshot/runs.h"

/* A chunk that the set before does not hold; each distinct one has one of these. */
struct wanted {
    struct chunk_name name;
    uint32_t kind;       /* of the stream that it was first met in. */
    struct block *block; /* a reference; NULL while it is missing. */
    uint8_t *stored;     /* owned; NULL when dropped. */
};

/* A stretch of a stream while the set is open: a run of the set before, or chunks one by one. */
struct stretch {
    struct run *run;        /* a reference; NULL: slots. */
    struct run_slot *slots; /* owned. */
    size_t count;
};

struct draft {
    uint32_t kind;
    uint32_t format;
    uint8_t raw_digest[DIGEST_SIZE];
    struct stretch *stretches; /* owned. */
    size_t count;
    size_t capacity;
};

struct snap_set {
    struct refs refs;
    uint64_t version;
    uint8_t content_digest[DIGEST_SIZE];
    uint8_t manifest_digest[DIGEST_SIZE];
    uint8_t base_digest[DIGEST_SIZE];
    bool has_base;
    bool closed;
    struct snap_set_counts counts;
    size_t stream_count;
    struct stream *streams[STREAMS_MAX]; /* references; NULL while their draft is open. */
    struct wanted *wanted;               /* owned. */
    size_t wanted_count;
    size_t wanted_capacity;
    /* Until the set is closed. */
    struct snap_set *previous; /* a reference. */
    struct draft *drafts;      /* owned; one a stream. */
    struct map by_name;        /* chunk digest to the first slot that wants it. */
};

/* ---- references ---- */

struct snap_set *snap_set_ref(struct snap_set *s)
{
    refs_take(&s->refs);
    return s;
}

static void draft_free(struct draft *d)
{
    for (size_t i = 0; i < d->count; i++) {
        run_unref(d->stretches[i].run);
        free(d->stretches[i].slots);
    }
    free(d->stretches);
}

/* What only an open set has. */
static void drafts_free(struct snap_set *s)
{
    for (size_t i = 0; s->drafts != NULL && i < s->stream_count; i++) {
        draft_free(&s->drafts[i]);
    }
    free(s->drafts);
    s->drafts = NULL;
    map_free(&s->by_name);
    snap_set_unref(TAKE_PTR(s->previous));
}

void snap_set_unref(struct snap_set *s)
{
    if (s == NULL || !refs_drop(&s->refs)) {
        return;
    }
    drafts_free(s);
    for (size_t i = 0; i < s->stream_count; i++) {
        stream_unref(s->streams[i]);
    }
    for (size_t i = 0; i < s->wanted_count; i++) {
        block_unref(s->wanted[i].block);
        free(s->wanted[i].stored);
    }
    free(s->wanted);
    free(s);
}

/* The heap's answer in the words of the table of a node's checks. */
static struct err memory(struct err e)
{
    return e.code == E_NO_MEMORY ? (struct err){E_OUT_OF_MEMORY, e.where} : e;
}

/* ---- what is wanted ---- */

static struct wanted *wanted_find(const struct snap_set *s, const struct chunk_name *name)
{
    const struct run_slot *slot = map_get(&s->by_name, slice_of(name->digest, DIGEST_SHORT_SIZE));
    return slot == NULL ? NULL : &s->wanted[slot->wanted];
}

/* One digest with two sizes cannot be true. */
static struct err want(struct snap_set *s, uint32_t kind, struct run_slot *slot)
{
    const struct wanted *known = wanted_find(s, &slot->name);
    if (known != NULL) {
        bool same = known->name.raw_size == slot->name.raw_size &&
                    known->name.stored_size == slot->name.stored_size;
        slot->wanted = (size_t)(known - s->wanted);
        return same ? OK : FAIL(E_MANIFEST_MALFORMED);
    }
    TRY(memory(array_room(&s->wanted, s->wanted_count, &s->wanted_capacity, sizeof(*s->wanted))));
    slot->wanted = s->wanted_count;
    /* The slot lies in the draft, which lives as long as the map. */
    TRY(memory(map_put(&s->by_name, slice_of(slot->name.digest, DIGEST_SHORT_SIZE), slot,
                       /* out_old= */ NULL)));
    s->wanted[s->wanted_count++] = (struct wanted){.name = slot->name, .kind = kind};
    return OK;
}

bool snap_set_missing(const struct snap_set *s, size_t *at, struct snap_missing *out)
{
    for (; *at < s->wanted_count; (*at)++) {
        const struct wanted *w = &s->wanted[*at];
        if (w->block == NULL) {
            *out = (struct snap_missing){.kind = w->kind, .name = w->name};
            (*at)++;
            return true;
        }
    }
    return false;
}

struct err snap_set_add(struct snap_set *s, const struct chunk_name *name, struct slice stored)
{
    CHECK(!s->closed);
    struct wanted *w = wanted_find(s, name);
    if (w == NULL) {
        return FAIL(E_CHUNK_TAMPERED); /* nobody asked for it. */
    }
    if (w->block != NULL) {
        return OK;
    }
    auto_free uint8_t *copy = malloc(stored.size + 1);
    if (copy == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    TRY(block_open(&w->name, stored, &w->block));
    if (stored.size > 0) {
        memcpy(copy, stored.ptr, stored.size);
    }
    w->stored = TAKE_PTR(copy);
    return OK;
}

/* ---- opening ---- */

static struct err draft_stretch(struct draft *d, struct stretch **out)
{
    TRY(memory(array_room(&d->stretches, d->count, &d->capacity, sizeof(*d->stretches))));
    *out = &d->stretches[d->count++];
    **out = (struct stretch){0};
    return OK;
}

static struct err draft_run(struct draft *d, struct run *run)
{
    struct stretch *stretch = NULL;
    TRY(draft_stretch(d, &stretch));
    stretch->run = run_ref(run);
    return OK;
}

static struct err draft_slots(struct draft *d, const struct manifest_stream *m, size_t first,
                              size_t count)
{
    struct stretch *stretch = NULL;
    if (count == 0) {
        return OK;
    }
    TRY(draft_stretch(d, &stretch));
    stretch->slots = calloc(count, sizeof(*stretch->slots));
    if (stretch->slots == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    stretch->count = count;
    for (size_t i = 0; i < count; i++) {
        stretch->slots[i].name = manifest_chunk(m, first + i);
    }
    return OK;
}

/* Runs of the stream before where the manifest names the same chunks, slots in between. */
static struct err draft_align(struct draft *d, const struct manifest_stream *m,
                              const struct stream *old)
{
    size_t run_count = old == NULL ? 0 : old->run_count;
    size_t next = 0;  /* runs before it were taken, or passed over. */
    size_t slots = 0; /* chunks before 'at' that are in no run. */
    size_t at = 0;
    while (at < m->chunk_count) {
        size_t found = next;
        while (found < run_count && !run_is_at(old->runs[found], m, at)) {
            found++;
        }
        if (found == run_count) {
            slots++;
            at++;
            continue;
        }
        TRY(draft_slots(d, m, at - slots, slots));
        TRY(draft_run(d, old->runs[found]));
        at += old->runs[found]->chunk_count;
        next = found + 1;
        slots = 0;
    }
    return draft_slots(d, m, at - slots, slots);
}

/* Chunks of the runs that were not taken whole, by name. */
struct held {
    struct run_place *places; /* owned. */
    struct map by_name;       /* to a place. */
};

static void held_free(struct held *h)
{
    free(h->places);
    map_free(&h->by_name);
}

static bool draft_has_run(const struct draft *d, const struct run *run)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->stretches[i].run == run) {
            return true;
        }
    }
    return false;
}

static struct err held_add(struct held *h, size_t *count, struct run *run)
{
    for (size_t i = 0; i < run->chunk_count; i++) {
        struct run_place *place = &h->places[(*count)++];
        *place = (struct run_place){.run = run, .at = i};
        struct slice name = slice_of(run->digests + i * DIGEST_SHORT_SIZE, DIGEST_SHORT_SIZE);
        TRY(memory(map_put(&h->by_name, name, place, /* out_old= */ NULL)));
    }
    return OK;
}

static struct err held_fill(struct held *h, const struct draft *d, const struct stream *old)
{
    size_t room = 0;
    size_t count = 0;
    for (size_t i = 0; i < old->run_count; i++) {
        room += old->runs[i]->chunk_count;
    }
    h->places = malloc((room + 1) * sizeof(*h->places));
    if (h->places == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < old->run_count; i++) {
        if (!draft_has_run(d, old->runs[i])) {
            TRY(held_add(h, &count, old->runs[i]));
        }
    }
    return OK;
}

static struct err slot_find(struct snap_set *s, uint32_t kind, struct run_slot *slot,
                            const struct held *held)
{
    const struct run_place *place =
        map_get(&held->by_name, slice_of(slot->name.digest, DIGEST_SHORT_SIZE));
    s->counts.stored_bytes += slot->name.stored_size;
    if (place == NULL || !run_has(place, &slot->name)) {
        return want(s, kind, slot);
    }
    slot->place = *place;
    s->counts.chunks_kept++;
    s->counts.stored_kept_bytes += slot->name.stored_size;
    return OK;
}

/* Says of each slot where its bytes are, or that they are wanted. */
static struct err draft_find(struct snap_set *s, struct draft *d, const struct held *held)
{
    for (size_t i = 0; i < d->count; i++) {
        struct stretch *stretch = &d->stretches[i];
        for (size_t k = 0; k < stretch->count; k++) {
            TRY(slot_find(s, d->kind, &stretch->slots[k], held));
        }
        if (stretch->run != NULL) {
            s->counts.chunks_kept += stretch->run->chunk_count;
            s->counts.stored_kept_bytes += stretch->run->stored_bytes;
            s->counts.stored_bytes += stretch->run->stored_bytes;
        }
    }
    return OK;
}

static bool has_slots(const struct draft *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->stretches[i].run == NULL) {
            return true;
        }
    }
    return false;
}

static const struct stream *stream_find(const struct snap_set *s, uint32_t kind)
{
    for (size_t i = 0; i < s->stream_count; i++) {
        if (s->streams[i]->kind == kind) {
            return s->streams[i];
        }
    }
    return NULL;
}

static struct err draft_open(struct snap_set *s, const struct manifest_stream *m)
{
    struct draft *d = &s->drafts[s->stream_count++];
    d->kind = m->kind;
    d->format = m->format;
    memcpy(d->raw_digest, m->raw_digest, DIGEST_SIZE);
    s->counts.chunks += m->chunk_count;
    s->counts.raw_bytes += m->raw_size;
    const struct stream *old = s->previous == NULL ? NULL : stream_find(s->previous, m->kind);
    TRY(draft_align(d, m, old));
    struct held held = {0};
    struct err e = old != NULL && has_slots(d) ? held_fill(&held, d, old) : OK;
    if (err_ok(e)) {
        e = draft_find(s, d, &held);
    }
    held_free(&held);
    return e;
}

static struct err set_open(struct snap_set *s, const struct manifest *m, bool positions)
{
    s->drafts = calloc(m->stream_count + 1, sizeof(*s->drafts));
    if (s->drafts == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    for (size_t i = 0; i < m->stream_count; i++) {
        if ((m->streams[i].kind == STREAM_POSITIONS) == positions) {
            TRY(draft_open(s, &m->streams[i]));
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
    if (previous != NULL) {
        s->previous = snap_set_ref(previous);
        s->has_base = true;
        memcpy(s->base_digest, previous->manifest_digest, DIGEST_SIZE);
    }
    struct err e = set_open(s, m, positions);
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

/* ---- closing ---- */

/* The chunks that were wanted are there: a slot points at its own. */
static struct err slots_settle(struct snap_set *s, struct draft *d)
{
    for (size_t i = 0; i < d->count; i++) {
        struct stretch *stretch = &d->stretches[i];
        for (size_t k = 0; k < stretch->count; k++) {
            struct run_slot *slot = &stretch->slots[k];
            if (slot->place.run == NULL) {
                slot->block = s->wanted[slot->wanted].block;
            }
            if (slot->place.run == NULL && slot->block == NULL) {
                return FAIL(E_CHUNK_MISSING);
            }
        }
    }
    return OK;
}

static struct err check_digest(const struct draft *d)
{
    size_t count = 0;
    for (size_t i = 0; i < d->count; i++) {
        const struct stretch *stretch = &d->stretches[i];
        count += stretch->run == NULL ? stretch->count : stretch->run->chunk_count;
    }
    auto_free uint8_t *digests = malloc(count * DIGEST_SIZE + 1);
    if (digests == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    uint8_t *to = digests;
    for (size_t i = 0; i < d->count; i++) {
        const struct stretch *stretch = &d->stretches[i];
        if (stretch->run != NULL) {
            memcpy(to, stretch->run->raw_digests, stretch->run->chunk_count * DIGEST_SIZE);
            to += stretch->run->chunk_count * DIGEST_SIZE;
        }
        for (size_t k = 0; k < stretch->count; k++) {
            memcpy(to, run_slot_digest(&stretch->slots[k]), DIGEST_SIZE);
            to += DIGEST_SIZE;
        }
    }
    uint8_t digest[DIGEST_SIZE];
    cut_raw_digest(digests, count, digest);
    return memcmp(digest, d->raw_digest, DIGEST_SIZE) == 0 ? OK : FAIL(E_CHUNK_TAMPERED);
}

static struct err draft_build(const struct draft *d, struct runs *runs)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct stretch *stretch = &d->stretches[i];
        if (stretch->run != NULL) {
            TRY(runs_add_run(runs, stretch->run));
        } else {
            TRY(runs_add_slots(runs, stretch->slots, stretch->count));
        }
    }
    return runs_end(runs);
}

/* Nothing of it changed: the stream before is this one, too. */
static bool is_same(const struct draft *d, const struct stream *old)
{
    bool same = old != NULL && old->format == d->format && old->run_count == d->count &&
                memcmp(old->raw_digest, d->raw_digest, DIGEST_SIZE) == 0;
    for (size_t i = 0; same && i < d->count; i++) {
        same = d->stretches[i].run == old->runs[i];
    }
    return same;
}

static struct err stream_close(struct snap_set *s, size_t index)
{
    struct draft *d = &s->drafts[index];
    struct stream *old = NULL;
    for (size_t i = 0; s->previous != NULL && i < s->previous->stream_count; i++) {
        old = s->previous->streams[i]->kind == d->kind ? s->previous->streams[i] : old;
    }
    if (is_same(d, old)) {
        s->streams[index] = stream_ref(old);
        return OK;
    }
    TRY(slots_settle(s, d));
    TRY(check_digest(d));
    struct runs runs = {0};
    struct err e = draft_build(d, &runs);
    if (err_ok(e)) {
        e = stream_new(d->kind, d->format, d->raw_digest, &runs, &s->streams[index]);
    }
    runs_free(&runs);
    return memory(e);
}

struct err snap_set_close(struct snap_set *s)
{
    CHECK(!s->closed);
    for (size_t i = 0; i < s->stream_count; i++) {
        TRY(stream_close(s, i));
    }
    for (size_t i = 0; i < s->wanted_count; i++) {
        block_unref(TAKE_PTR(s->wanted[i].block)); /* runs have their own references. */
    }
    drafts_free(s);
    s->closed = true;
    return OK;
}

/* ---- reading ---- */

uint32_t snap_set_format(const struct snap_set *s, uint32_t kind)
{
    const struct stream *st = stream_find(s, kind);
    return st == NULL ? 0 : st->format;
}

bool snap_set_next(const struct snap_set *s, uint32_t kind, struct snap_cursor *at,
                   struct snap_part *out)
{
    CHECK(s->closed);
    const struct stream *st = stream_find(s, kind);
    return st != NULL && stream_next(st, at, out);
}

bool snap_set_find(const struct snap_set *s, uint32_t kind, struct slice key, struct snap_part *out)
{
    CHECK(s->closed);
    const struct stream *st = stream_find(s, kind);
    struct snap_cursor at = {0};
    struct snap_part p;
    if (st == NULL || !stream_seek(st, key, &at)) {
        return false;
    }
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

bool snap_set_diff(const struct snap_set *before, const struct snap_set *now, uint32_t kind,
                   struct snap_diff *at, struct snap_change *out)
{
    CHECK((before == NULL || before->closed) && now->closed);
    const struct stream *a = before == NULL ? NULL : stream_find(before, kind);
    const struct stream *b = stream_find(now, kind);
    bool whole = at->whole || (a != NULL && b != NULL && a->format != b->format);
    if (!whole && a == b) {
        return false;
    }
    return stream_diff(a, b, whole, at, out);
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

const uint8_t *snap_set_base(const struct snap_set *s)
{
    return s->has_base ? s->base_digest : NULL;
}

bool snap_set_stored(const struct snap_set *s, size_t *at, struct snap_stored *out)
{
    if (*at >= s->wanted_count) {
        return false;
    }
    const struct wanted *w = &s->wanted[(*at)++];
    out->name = w->name;
    out->stored = slice_of(w->stored, w->stored == NULL ? 0 : w->name.stored_size);
    return true;
}

void snap_set_drop_stored(struct snap_set *s)
{
    for (size_t i = 0; i < s->wanted_count; i++) {
        free(TAKE_PTR(s->wanted[i].stored));
    }
}

bool snap_set_name(const struct snap_set *s, size_t *stream, struct snap_cursor *at,
                   struct chunk_name *out)
{
    CHECK(s->closed);
    for (; *stream < s->stream_count; (*stream)++, *at = (struct snap_cursor){0}) {
        const struct stream *st = s->streams[*stream];
        for (; at->run < st->run_count; at->run++, at->at = 0) {
            if (at->at < st->runs[at->run]->chunk_count) {
                *out = run_name(st->runs[at->run], at->at++);
                return true;
            }
        }
    }
    return false;
}

struct snap_set_counts snap_set_counts(const struct snap_set *s)
{
    return s->counts;
}
