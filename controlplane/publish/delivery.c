/*
 * delivery: what goes out, and in which order: the steps chunks, manifest, journal and head.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/snapshot/bundle.h"
#include "controlplane/publish/passage.h"

enum {
    HEAD_WAIT_MS = 5000,
    BUCKET_STEP_MS = 100,
    MESSAGE_OVERHEAD = 256,   /* what a stream takes for a message beside its payload. */
    BUCKET_RESERVE = 1 << 20, /* of the bucket, which publications leave free. */
};

/* ---- chunks, manifest ---- */

/* Bytes that the bucket takes for what is not there yet: chunks of the newest version are put over
 * themselves. */
static uint64_t bytes_to_put(const struct cp_passage *p)
{
    uint64_t bytes = p->container.size + MESSAGE_OVERHEAD;
    for (size_t i = 0; i < p->cut->count; i++) {
        for (size_t k = 0; k < p->cut->streams[i].chunk_count; k++) {
            const struct cut_chunk *chunk = &p->cut->streams[i].chunks[k];
            bool there = cp_bucket_has_chunk(&p->room->bucket, chunk->digest) ||
                         cp_passage_is_newest(p, chunk);
            bytes += there ? 0 : chunk->stored.size + MESSAGE_OVERHEAD;
        }
    }
    return bytes;
}

static bool has_room(const struct stream_info *bucket, uint64_t wanted)
{
    return bucket->max_bytes == 0 || bucket->bytes + wanted + BUCKET_RESERVE <= bucket->max_bytes;
}

/* A full bucket would take no heads either: some room is left for them, always. */
static struct err make_room(struct cp_passage *p, const struct stream_info *found)
{
    struct stream_info bucket = *found;
    uint64_t removed = 0;
    uint64_t wanted = bytes_to_put(p);
    if (has_room(&bucket, wanted)) {
        return OK;
    }
    TRY(cp_collector_run(p->room->collector, p->room, &removed));
    TRY(kv_look(&p->room->bucket.kv, limits.fetch_timeout_ms, &bucket));
    if (has_room(&bucket, wanted)) {
        return OK;
    }
    TRY(buf_addf(&p->work->sentence,
                 "the bucket holds %" PRIu64 " of %" PRIu64 " bytes and %" PRIu64
                 " more are needed; %" PRIu64 " objects were collected just now",
                 bucket.bytes, bucket.max_bytes, wanted, removed));
    return FAIL(E_BUCKET_FULL);
}

static struct err put_streams(struct cp_passage *p)
{
    auto_free struct cp_bucket_chunk *missing = calloc(p->work->chunks + 1, sizeof(*missing));
    size_t count = 0;
    if (missing == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < p->cut->count; i++) {
        for (size_t k = 0; k < p->cut->streams[i].chunk_count; k++) {
            const struct cut_chunk *chunk = &p->cut->streams[i].chunks[k];
            if (!cp_bucket_has_chunk(&p->room->bucket, chunk->digest)) {
                missing[count++] = (struct cp_bucket_chunk){chunk->digest, chunk->stored};
            }
        }
    }
    return cp_bucket_put_chunks(&p->room->bucket, missing, count);
}

static struct err fill_bucket(struct cp_passage *p)
{
    buf_clear(&p->work->sentence);
    struct stream_info bucket;
    TRY(cp_bucket_prepare(&p->room->bucket, &p->work->sentence, &bucket));
    cp_bucket_learn(&p->room->bucket);
    TRY(make_room(p, &bucket));
    struct err e = put_streams(p);
    return e.code == E_BUS_FULL ? FAIL(E_BUCKET_FULL) : e; /* others fill it, too. */
}

static struct err put_manifest(struct cp_passage *p)
{
    struct err e =
        cp_bucket_put_manifest(&p->room->bucket, &p->work->record, buf_slice(&p->container));
    /* The chunks just went in: a stream that somebody takes away says that it cannot store. */
    return e.code == E_BUS_FULL ? FAIL(E_UNAVAILABLE) : e;
}

/*
 * When a NATS server dies, the bucket answers nobody until the others have elected. What is put
 * here may be put twice, so it is tried again, while this replica leads; a control plane that is
 * cut off from NATS leaves the row, and gives up.
 */
static struct err patiently(struct cp_passage *p, struct err (*put)(struct cp_passage *))
{
    uint64_t end_ns = clock_mono_ns() + limits.bucket_wait_ms * 1000000;
    for (;;) { /* ends with the bucket, the row, or the time. */
        struct err e = put(p);
        bool silent = e.code == E_UNAVAILABLE || e.code == E_RESULT_UNKNOWN;
        if (!silent || clock_mono_ns() >= end_ns || p->room->stopping(p->room->stopping_ctx)) {
            return e;
        }
        struct cp_fence now;
        TRY(cp_leader_fence(p->room->leader, &now));
        if (now.epoch != p->fence.epoch) { /* another led meanwhile: its word may be newer. */
            return FAIL(E_NOT_LEADER);
        }
        (void)poll(NULL, 0, BUCKET_STEP_MS);
    }
}

struct err cp_step_chunks(struct cp_passage *p)
{
    return patiently(p, fill_bucket);
}

/* ---- what it adds, beside the hint ---- */

/* The manifest and those chunks that the newest publication lacks; positions are asked for by hand.
 * E_USAGE: more than goes into one. */
static struct err bundle_added(const struct cp_passage *p, struct buf *out)
{
    struct bundle_value values[BUNDLE_VALUES_MAX];
    char keys[BUNDLE_VALUES_MAX][SNAP_KEY_SIZE];
    size_t count = 1;
    snap_key_manifest(p->work->record.version, p->work->record.manifest_digest, keys[0]);
    values[0] = (struct bundle_value){slice_str(keys[0]), buf_slice(&p->container)};
    for (size_t i = 0; i < p->cut->count; i++) {
        const struct cut_stream *stream = &p->cut->streams[i];
        for (size_t k = 0; stream->kind != STREAM_POSITIONS && k < stream->chunk_count; k++) {
            const struct cut_chunk *chunk = &stream->chunks[k];
            if (cp_passage_is_newest(p, chunk)) {
                continue;
            }
            if (count == BUNDLE_VALUES_MAX) {
                return FAIL(E_USAGE);
            }
            snap_key_chunk(chunk->digest, keys[count]);
            values[count] = (struct bundle_value){slice_str(keys[count]), chunk->stored};
            count++;
        }
    }
    return bundle_write(values, count, out);
}

/* A help and no more: nodes that hear it need not read the bucket for what the hint names. */
static void give_beside(const struct cp_passage *p)
{
    auto_buf struct buf bundle = BUF_MAX((size_t)limits.content_push_bytes);
    struct err e = bundle_added(p, &bundle);
    if (err_ok(e)) {
        cp_leader_beside(p->room->leader, p->work->record.version, &bundle);
    } else {
        LOG(LOG_DEBUG, "publish", "too_much_to_push", LOG_ERR(e));
    }
}

struct err cp_step_manifest(struct cp_passage *p)
{
    TRY(patiently(p, put_manifest));
    give_beside(p);
    return OK;
}

/* ---- journal, head ---- */

static void fill_row(struct cp_passage *p, const struct cut_chunk *chunk)
{
    struct cp_store_chunk *row = &p->rows[p->row_count++];
    row->raw_size = chunk->raw.size;
    row->stored = chunk->stored;
    (void)memcpy(row->raw_digest, chunk->raw_digest, sizeof(row->raw_digest));
    (void)memcpy(row->stored_digest, chunk->digest, sizeof(row->stored_digest));
    struct slice key = slice_of(row->raw_digest, sizeof(row->raw_digest));
    bool taken_over =
        chunk->raw.ptr == NULL; /* from another version: its raw bytes are not here. */
    if (taken_over || map_get(&p->known, key) != NULL) {
        row->stored = (struct slice){0}; /* the journal has it. */
        return;
    }
    p->work->chunks_new++;
    p->work->bytes_new += chunk->stored.size;
}

struct err cp_step_journal(struct cp_passage *p)
{
    p->rows = calloc(p->work->chunks + 1, sizeof(*p->rows));
    if (p->rows == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < p->cut->count; i++) {
        for (size_t k = 0; k < p->cut->streams[i].chunk_count; k++) {
            fill_row(p, &p->cut->streams[i].chunks[k]);
        }
    }
    struct cp_record *record = &p->work->record;
    record->epoch = p->fence.epoch;
    record->origin = p->work->kind == CP_WORK_ROLLBACK ? p->work->target : 0;
    record->with_trust = p->work->with_trust;
    (void)memcpy(record->request, p->work->request, sizeof(record->request));
    if (record->request[0] != '\0' && !p->work->recovers) {
        TRY(cp_passage_request_digest(p, record->request_digest));
    }
    (void)memcpy(record->author, p->work->author, sizeof(record->author));
    (void)memcpy(record->message, p->work->message, sizeof(record->message));
    struct cp_publication publication = {.record = *record,
                                         .manifest = buf_slice(&p->container),
                                         .chunks = p->rows,
                                         .chunk_count = p->row_count};
    struct err e = p->room->store->ops->publish(p->room->store, &p->fence, &publication);
    p->committed = err_ok(e);
    bool found = false;
    if (e.code == E_CONFLICT) { /* the same request, by another way, was faster. */
        TRY(cp_passage_find_request(p, &found));
    }
    return found ? OK : e;
}

/* What could not be dropped goes with the next publication. */
static void drop_old(struct cp_passage *p)
{
    struct cp_store *store = p->room->store;
    bool any = false;
    struct err e = p->committed ? store->ops->drop_old(store, &p->fence, &any) : OK;
    if (!err_ok(e)) {
        LOG(LOG_WARN, "publish", "drop_failed", LOG_ERR(e));
    }
}

/* It is published already: a head that takes longer is told, not refused. */
struct err cp_step_head(struct cp_passage *p)
{
    cp_leader_wake(p->room->leader);
    p->work->in_head = cp_leader_wait_head(p->room->leader, p->work->record.version, HEAD_WAIT_MS);
    drop_old(p);
    return OK;
}
