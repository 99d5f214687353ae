/* chunks: the stored bytes of publications, each once; and which versions name them. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/store/store_in.h"

enum {
    ROWS_MAX = SQL_VALUES_MAX / 4, /* of either table in one statement. */
    LIST_BYTES_MAX = 64 << 20,     /* two million chunks. */
};

const struct cp_uses cp_chunk_uses = {
    .find = "SELECT raw_digest FROM chunk_use WHERE environment = $1 AND last_number < $2 LIMIT $3",
    .forget = "DELETE FROM chunk_use WHERE environment = $1 AND last_number < $2"
              " AND raw_digest IN (@)",
    .remove = "DELETE FROM chunk WHERE raw_digest IN (@) AND NOT EXISTS"
              " (SELECT 1 FROM chunk_use u WHERE u.raw_digest = chunk.raw_digest)",
};

/* ---- what changes with a publication ---- */

/* Pointers into the publication and into the list before it; no digest comes twice. */
struct change {
    const struct cp_store_chunk **added;
    size_t added_count;
    const uint8_t **gone;
    size_t gone_count;
};

static int by_digest(const void *a, const void *b)
{
    return memcmp(*(const uint8_t *const *)a, *(const uint8_t *const *)b, DIGEST_SIZE);
}

/* Of two with one digest the first is whoever has bytes; of two with bytes, the earlier one. */
static int by_digest_then_bytes(const void *a, const void *b)
{
    const struct cp_store_chunk *x = *(const struct cp_store_chunk *const *)a;
    const struct cp_store_chunk *y = *(const struct cp_store_chunk *const *)b;
    int order = memcmp(x->raw_digest, y->raw_digest, DIGEST_SIZE);
    if (order == 0) {
        order = (x->stored.size == 0) - (y->stored.size == 0);
    }
    return order != 0 ? order : (x > y) - (x < y);
}

/* Both sorted and merged: what is in one alone stays, at the front of each. */
static void merge(struct change *c)
{
    size_t old_count = c->gone_count;
    size_t new_count = c->added_count;
    size_t i = 0;
    size_t k = 0;
    c->gone_count = 0;
    c->added_count = 0;
    while (i < old_count || k < new_count) {
        int order = i == old_count   ? 1
                    : k == new_count ? -1
                                     : memcmp(c->gone[i], c->added[k]->raw_digest, DIGEST_SIZE);
        const uint8_t *digest = order <= 0 ? c->gone[i] : c->added[k]->raw_digest;
        if (order < 0) {
            c->gone[c->gone_count++] = c->gone[i];
        } else if (order > 0) {
            c->added[c->added_count++] = c->added[k];
        }
        while (i < old_count && memcmp(c->gone[i], digest, DIGEST_SIZE) == 0) {
            i++;
        }
        while (k < new_count && memcmp(c->added[k]->raw_digest, digest, DIGEST_SIZE) == 0) {
            k++;
        }
    }
}

static struct err find_change(const struct cp_publication *publication, struct slice before,
                              struct change *out)
{
    out->gone_count = before.size / DIGEST_SIZE;
    out->added_count = publication->chunk_count;
    out->gone = calloc(out->gone_count + 1, sizeof(*out->gone));
    out->added = calloc(out->added_count + 1, sizeof(*out->added));
    if (out->gone == NULL || out->added == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < out->gone_count; i++) {
        out->gone[i] = before.ptr + i * DIGEST_SIZE;
    }
    for (size_t i = 0; i < out->added_count; i++) {
        out->added[i] = &publication->chunks[i];
    }
    qsort(out->gone, out->gone_count, sizeof(const uint8_t *), by_digest);
    qsort(out->added, out->added_count, sizeof(const struct cp_store_chunk *),
          by_digest_then_bytes);
    merge(out);
    return OK;
}

/* ---- writing it ---- */

static struct err put_rows(struct sql *db, const struct cp_store_chunk *const *chunks,
                           unsigned count)
{
    auto_sql struct sql_query q;
    sql_begin_rows(&q, db,
                   "INSERT INTO chunk (raw_digest, stored_digest, raw_size, stored) VALUES @"
                   " ON CONFLICT (raw_digest) DO NOTHING",
                   count, 4);
    for (unsigned i = 0; i < count; i++) {
        sql_bind_bytes(&q, i * 4 + 1, slice_of(chunks[i]->raw_digest, DIGEST_SIZE));
        sql_bind_bytes(&q, i * 4 + 2, slice_of(chunks[i]->stored_digest, DIGEST_SHORT_SIZE));
        sql_bind_number(&q, i * 4 + 3, chunks[i]->raw_size);
        sql_bind_bytes(&q, i * 4 + 4, chunks[i]->stored);
    }
    return sql_run(&q);
}

/* A chunk that is only named must be there: the reference to it fails, else. */
static struct err begin_uses(struct sql *db, const char *environment, uint64_t version,
                             const struct cp_store_chunk *const *chunks, unsigned count)
{
    auto_sql struct sql_query q;
    sql_begin_rows(&q, db,
                   "INSERT INTO chunk_use (raw_digest, environment, first_number, last_number)"
                   " VALUES @",
                   count, 4);
    for (unsigned i = 0; i < count; i++) {
        sql_bind_bytes(&q, i * 4 + 1, slice_of(chunks[i]->raw_digest, DIGEST_SIZE));
        sql_bind_text(&q, i * 4 + 2, environment);
        sql_bind_number(&q, i * 4 + 3, version);
        sql_bind_number(&q, i * 4 + 4, CP_STILL);
    }
    return sql_run(&q);
}

static struct err put_added(struct sql *db, const char *environment, uint64_t version,
                            const struct change *c)
{
    for (size_t from = 0; from < c->added_count; from += ROWS_MAX) {
        const struct cp_store_chunk *with_bytes[ROWS_MAX];
        unsigned bytes_count = 0;
        size_t left = c->added_count - from;
        unsigned count = left < ROWS_MAX ? (unsigned)left : ROWS_MAX;
        for (unsigned i = 0; i < count; i++) {
            if (c->added[from + i]->stored.size > 0) {
                with_bytes[bytes_count++] = c->added[from + i];
            }
        }
        if (bytes_count > 0) {
            TRY(put_rows(db, with_bytes, bytes_count));
        }
        TRY(begin_uses(db, environment, version, c->added + from, count));
    }
    return OK;
}

static struct err end_uses(struct sql *db, const char *environment, uint64_t version,
                           const struct change *c)
{
    for (size_t from = 0; from < c->gone_count; from += SQL_LIST_MAX) {
        size_t left = c->gone_count - from;
        unsigned count = left < SQL_LIST_MAX ? (unsigned)left : SQL_LIST_MAX;
        auto_sql struct sql_query q;
        sql_begin_list(&q, db,
                       "UPDATE chunk_use SET last_number = $2 WHERE environment = $1"
                       " AND last_number = $3 AND raw_digest IN (@)",
                       4, count);
        sql_bind_text(&q, 1, environment);
        sql_bind_number(&q, 2, version - 1);
        sql_bind_number(&q, 3, CP_STILL);
        for (unsigned i = 0; i < count; i++) {
            sql_bind_bytes(&q, 4 + i, slice_of(c->gone[from + i], DIGEST_SIZE));
        }
        TRY(sql_run(&q));
    }
    return OK;
}

struct err cp_chunks_put(struct sql *db, const char *environment,
                         const struct cp_publication *publication, struct slice before)
{
    struct change change = {0};
    uint64_t version = publication->record.version;
    struct err e = find_change(publication, before, &change);
    if (err_ok(e)) {
        e = end_uses(db, environment, version, &change);
    }
    if (err_ok(e)) {
        e = put_added(db, environment, version, &change);
    }
    free(change.gone);
    free(change.added);
    return e;
}

/* ---- reading ---- */

struct err cp_op_chunk_get(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                           struct buf *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store), "SELECT stored FROM chunk WHERE raw_digest = $1");
    sql_bind_bytes(&q, 1, slice_of(raw_digest, DIGEST_SIZE));
    bool found = false;
    TRY(sql_row(&q, &found));
    return found ? buf_add(out, sql_bytes(&q, 0)) : FAIL(E_NOT_FOUND);
}

struct walk {
    cp_store_chunk_fn *visit;
    void *ctx;
    bool passes_over; /* what is not there. */
};

struct batch {
    struct buf bytes; /* stored bytes of the chunks, one behind the other. */
    struct {
        struct cp_store_chunk chunk; /* without its bytes. */
        size_t start;
        size_t size;
    } rows[SQL_LIST_MAX];
    unsigned count;
};

static struct err read_batch(struct sql *db, struct slice list, struct batch *out)
{
    unsigned asked = (unsigned)(list.size / DIGEST_SIZE);
    auto_sql struct sql_query q;
    sql_begin_list(&q, db,
                   "SELECT raw_digest, stored_digest, raw_size, stored FROM chunk"
                   " WHERE raw_digest IN (@)",
                   1, asked);
    for (unsigned i = 0; i < asked; i++) {
        sql_bind_bytes(&q, 1 + i, slice_of(list.ptr + (size_t)i * DIGEST_SIZE, DIGEST_SIZE));
    }
    buf_clear(&out->bytes);
    out->count = 0;
    for (bool found = true; found && out->count < asked;) {
        TRY(sql_row(&q, &found));
        if (found) {
            struct cp_store_chunk *chunk = &out->rows[out->count].chunk;
            *chunk = (struct cp_store_chunk){.raw_size = sql_number(&q, 2)};
            sql_copy(&q, 0, chunk->raw_digest, sizeof(chunk->raw_digest));
            sql_copy(&q, 1, chunk->stored_digest, sizeof(chunk->stored_digest));
            out->rows[out->count].start = out->bytes.size;
            out->rows[out->count].size = sql_bytes(&q, 3).size;
            TRY(buf_add(&out->bytes, sql_bytes(&q, 3)));
            out->count++;
        }
    }
    return OK;
}

/* In the order of the list, which names a chunk as often as it comes. */
static struct err visit_batch(const struct batch *b, struct slice list, const struct walk *walk)
{
    for (size_t at = 0; at < list.size; at += DIGEST_SIZE) {
        unsigned i = 0;
        while (i < b->count &&
               memcmp(b->rows[i].chunk.raw_digest, list.ptr + at, DIGEST_SIZE) != 0) {
            i++;
        }
        if (i == b->count && walk->passes_over) {
            continue;
        }
        if (i == b->count) {
            return FAIL(E_NOT_FOUND); /* dropped since the list was read: it was too old. */
        }
        struct cp_store_chunk chunk = b->rows[i].chunk;
        chunk.stored = slice_of(b->bytes.ptr + b->rows[i].start, b->rows[i].size);
        TRY(walk->visit(walk->ctx, &chunk));
    }
    return OK;
}

static struct err read_list(struct sql *db, const char *environment, uint64_t version,
                            struct buf *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT chunks FROM journal WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, version);
    bool found = false;
    TRY(sql_row(&q, &found));
    return found ? buf_add(out, sql_bytes(&q, 0)) : OK;
}

static struct err walk_list(struct sql *db, struct slice list, const struct walk *walk)
{
    struct batch batch = {.bytes = BUF_MAX(SQL_BYTES_MAX)};
    struct err e = OK;
    for (struct slice rest = list; rest.size > 0 && err_ok(e);) {
        struct slice part = slice_head(rest, (size_t)SQL_LIST_MAX * DIGEST_SIZE);
        e = read_batch(db, part, &batch);
        if (err_ok(e)) {
            e = visit_batch(&batch, part, walk);
        }
        rest = slice_from(rest, part.size);
    }
    buf_free(&batch.bytes);
    return e;
}

struct err cp_op_chunks_get(struct cp_store *store, const char *environment, uint64_t version,
                            cp_store_chunk_fn *visit, void *ctx)
{
    auto_buf struct buf list = BUF_MAX(LIST_BYTES_MAX);
    struct walk walk = {.visit = visit, .ctx = ctx};
    TRY(read_list(cp_db(store), environment, version, &list));
    return walk_list(cp_db(store), buf_slice(&list), &walk);
}

struct err cp_op_chunks_find(struct cp_store *store, struct slice raw_digests,
                             cp_store_chunk_fn *visit, void *ctx)
{
    struct walk walk = {.visit = visit, .ctx = ctx, .passes_over = true};
    CHECK(raw_digests.size % DIGEST_SIZE == 0);
    return walk_list(cp_db(store), raw_digests, &walk);
}
