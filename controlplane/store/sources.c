/* sources: the files of a version; bytes are kept once, names as what changed between versions. */
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/scope.h"
#include "controlplane/store/store_in.h"

enum {
    PAGE_FILES = 64,               /* read at once. */
    LIST_BYTES_MAX = 1 << 30,      /* all names of a version, many times what the API takes. */
    ROWS_MAX = SQL_VALUES_MAX / 5, /* of source_use in one statement. */
    NAMES_BLOCK = 64 << 10,
};

const struct cp_uses cp_source_uses = {
    .find = "SELECT digest FROM source_use WHERE environment = $1 AND last_number < $2 LIMIT $3",
    .forget = "DELETE FROM source_use WHERE environment = $1 AND last_number < $2"
              " AND digest IN (@)",
    .remove = "DELETE FROM source WHERE digest IN (@) AND NOT EXISTS"
              " (SELECT 1 FROM source_use u WHERE u.digest = source.digest)",
};

struct row {
    struct slice name;
    struct slice bytes;
    uint8_t digest[DIGEST_SIZE];
    bool is_new; /* no version before has it, or it had other bytes. */
};

struct sources {
    const struct cp_fence *fence;
    uint64_t version;
    struct row *rows; /* names ascending. */
    size_t count;
    uint8_t digest[DIGEST_SIZE]; /* of names and bytes. */
};

/* ---- before the transaction ---- */

static int by_name(const void *a, const void *b)
{
    return slice_cmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static struct err fill_rows(struct sources *s, const struct cp_store_file *files)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->count; i++) {
        s->rows[i] = (struct row){.name = files[i].name, .bytes = files[i].bytes};
        if (files[i].digest == NULL) {
            ids_digest(files[i].bytes, s->rows[i].digest);
        } else {
            (void)memcpy(s->rows[i].digest, files[i].digest, DIGEST_SIZE);
        }
        bytes += files[i].name.size + DIGEST_SIZE + sizeof(uint64_t);
    }
    qsort(s->rows, s->count, sizeof(*s->rows), by_name);
    for (size_t i = 0; i + 1 < s->count; i++) {
        if (slice_eq(s->rows[i].name, s->rows[i + 1].name)) {
            return FAIL(E_CONFLICT);
        }
    }
    if (s->count > 0 && s->rows[0].name.size == 0) {
        return FAIL(E_MALFORMED);
    }
    return bytes > LIST_BYTES_MAX ? FAIL(E_TOO_LARGE) : OK;
}

static struct err digest_rows(struct sources *s)
{
    auto_buf struct buf list = BUF_MAX(LIST_BYTES_MAX);
    for (size_t i = 0; i < s->count; i++) {
        uint64_t size = s->rows[i].name.size;
        TRY(buf_add(&list, slice_of(&size, sizeof(size))));
        TRY(buf_add(&list, s->rows[i].name));
        TRY(buf_add(&list, slice_of(s->rows[i].digest, DIGEST_SIZE)));
    }
    ids_digest(buf_slice(&list), s->digest);
    return OK;
}

struct err cp_store_sources_digest(const struct cp_store_file *files, size_t count,
                                   uint8_t out[DIGEST_SIZE])
{
    auto_free struct row *rows = calloc(count + 1, sizeof(*rows));
    if (rows == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct sources s = {.rows = rows, .count = count};
    TRY(fill_rows(&s, files));
    TRY(digest_rows(&s));
    (void)memcpy(out, s.digest, DIGEST_SIZE);
    return OK;
}

/* ---- in the transaction ---- */

/* The version must have been handed out and have no sources yet, and no later one may have. */
static struct err check_turn(struct sql *db, const struct sources *s)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO newest (environment, published, sources, oldest) VALUES ($1, 0, $2, 0)"
              " ON CONFLICT (environment) DO UPDATE SET sources = $2 WHERE newest.sources < $2"
              " RETURNING sources");
    sql_bind_text(&q, 1, s->fence->environment);
    sql_bind_number(&q, 2, s->version);
    bool turn = false;
    TRY(sql_row(&q, &turn));
    TRY(sql_run(&q));
    auto_sql struct sql_query v;
    sql_begin(&v, db, "SELECT sources_digest FROM version WHERE environment = $1 AND number = $2");
    sql_bind_text(&v, 1, s->fence->environment);
    sql_bind_number(&v, 2, s->version);
    bool found = false;
    TRY(sql_row(&v, &found));
    if (found && !turn && db->unknown &&
        slice_eq(sql_bytes(&v, 0), slice_of(s->digest, DIGEST_SIZE))) {
        return FAIL(E_EXISTS);
    }
    return found && turn ? OK : FAIL(E_CONFLICT);
}

/* Marks what is new; appends the names of what is there no more, or has other bytes, to 'gone'. */
static struct err compare(struct sql *db, struct sources *s, struct arena *names, struct buf *gone)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT name, digest FROM source_use WHERE environment = $1 AND last_number = $2"
              " ORDER BY name");
    sql_bind_text(&q, 1, s->fence->environment);
    sql_bind_number(&q, 2, CP_STILL);
    size_t at = 0;
    for (;;) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(&q, &found));
        struct slice name = found ? sql_bytes(&q, 0) : (struct slice){0};
        while (at < s->count && (!found || slice_cmp(s->rows[at].name, name) < 0)) {
            s->rows[at++].is_new = true;
        }
        if (!found) {
            return OK;
        }
        bool named = at < s->count && slice_eq(s->rows[at].name, name);
        bool same = named && slice_eq(slice_of(s->rows[at].digest, DIGEST_SIZE), sql_bytes(&q, 1));
        if (named) {
            s->rows[at++].is_new = !same;
        }
        if (!same) {
            struct slice kept;
            TRY(arena_dup(names, name, &kept));
            TRY(buf_add(gone, slice_of(&kept, sizeof(kept))));
        }
    }
}

static struct err end_uses(struct sql *db, const struct sources *s, const struct slice *names,
                           size_t count)
{
    for (size_t from = 0; from < count; from += SQL_LIST_MAX) {
        size_t size = count - from < SQL_LIST_MAX ? count - from : SQL_LIST_MAX;
        auto_sql struct sql_query q;
        sql_begin_list(&q, db,
                       "UPDATE source_use SET last_number = $2 WHERE environment = $1"
                       " AND last_number = $3 AND name IN (@)",
                       4, (unsigned)size);
        sql_bind_text(&q, 1, s->fence->environment);
        sql_bind_number(&q, 2, s->version - 1);
        sql_bind_number(&q, 3, CP_STILL);
        for (size_t i = 0; i < size; i++) {
            sql_bind_slice_text(&q, 4 + (unsigned)i, names[from + i]);
        }
        TRY(sql_run(&q));
    }
    return OK;
}

static struct err put_bytes(struct sql *db, const struct row *row)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO source (digest, bytes) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING");
    sql_bind_bytes(&q, 1, slice_of(row->digest, DIGEST_SIZE));
    sql_bind_bytes(&q, 2, row->bytes);
    return sql_run(&q);
}

static struct err put_uses(struct sql *db, const struct sources *s, const struct row *const *rows,
                           unsigned count)
{
    auto_sql struct sql_query q;
    sql_begin_rows(&q, db,
                   "INSERT INTO source_use (environment, name, first_number, last_number, digest)"
                   " VALUES @",
                   count, 5);
    for (unsigned i = 0; i < count; i++) {
        sql_bind_text(&q, i * 5 + 1, s->fence->environment);
        sql_bind_slice_text(&q, i * 5 + 2, rows[i]->name);
        sql_bind_number(&q, i * 5 + 3, s->version);
        sql_bind_number(&q, i * 5 + 4, CP_STILL);
        sql_bind_bytes(&q, i * 5 + 5, slice_of(rows[i]->digest, DIGEST_SIZE));
    }
    return sql_run(&q);
}

static struct err begin_uses(struct sql *db, const struct sources *s)
{
    const struct row *batch[ROWS_MAX];
    unsigned count = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->rows[i].is_new) {
            TRY(put_bytes(db, &s->rows[i]));
            batch[count++] = &s->rows[i];
        }
        if (count == ROWS_MAX || (count > 0 && i + 1 == s->count)) {
            TRY(put_uses(db, s, batch, count));
            count = 0;
        }
    }
    return OK;
}

static struct err note_sources(struct sql *db, const struct sources *s)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE version SET sources_digest = $3 WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, s->fence->environment);
    sql_bind_number(&q, 2, s->version);
    sql_bind_bytes(&q, 3, slice_of(s->digest, DIGEST_SIZE));
    return sql_run(&q);
}

static struct err put(struct sql *db, void *ctx)
{
    struct sources *s = ctx;
    auto_arena struct arena names = {0};
    auto_buf struct buf gone = BUF_MAX(LIST_BYTES_MAX);
    arena_init(&names, NAMES_BLOCK, LIST_BYTES_MAX);
    TRY(check_turn(db, s));
    TRY(compare(db, s, &names, &gone));
    TRY(end_uses(db, s, (const struct slice *)(const void *)gone.ptr,
                 gone.size / sizeof(struct slice)));
    TRY(begin_uses(db, s));
    return note_sources(db, s);
}

struct err cp_op_sources_put(struct cp_store *store, const struct cp_fence *fence, uint64_t version,
                             const struct cp_store_file *files, size_t count)
{
    uint64_t bytes = 1;
    for (size_t i = 0; i < count; i++) {
        bytes += files[i].bytes.size;
    }
    auto_free struct row *rows = calloc(count + 1, sizeof(*rows));
    if (rows == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct sources s = {.fence = fence, .version = version, .rows = rows, .count = count};
    TRY(fill_rows(&s, files));
    TRY(digest_rows(&s));
    return cp_write(store, &(struct cp_write){.fence = fence, .bytes = bytes}, put, &s);
}

/* ---- reading ---- */

static struct err has_sources(struct sql *db, const char *environment, uint64_t version, bool *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT v.sources_digest FROM version v"
              " JOIN newest n ON n.environment = v.environment AND n.oldest <= v.number"
              " WHERE v.environment = $1 AND v.number = $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, version);
    TRY(sql_row(&q, out));
    *out = *out && sql_bytes(&q, 0).size > 0;
    return OK;
}

/* Visits the files of a page; 'last' gets the name of the last one. */
static struct err visit_page(struct sql_query *q, cp_store_file_fn *visit, void *ctx,
                             struct buf *last, size_t *out_count)
{
    for (*out_count = 0;; (*out_count)++) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(q, &found));
        if (!found) {
            return OK;
        }
        struct cp_store_file file = {.name = sql_bytes(q, 0), .bytes = sql_bytes(q, 1)};
        TRY(visit(ctx, &file));
        buf_clear(last);
        TRY(buf_add(last, file.name));
    }
}

struct err cp_op_sources_get(struct cp_store *store, const char *environment, uint64_t version,
                             cp_store_file_fn *visit, void *ctx)
{
    bool has = false;
    TRY(has_sources(cp_db(store), environment, version, &has));
    auto_buf struct buf after = BUF_MAX(LIST_BYTES_MAX);
    auto_buf struct buf last = BUF_MAX(LIST_BYTES_MAX);
    for (size_t count = has ? PAGE_FILES : 0; count == PAGE_FILES;) {
        buf_clear(&after);
        TRY(buf_add(&after, buf_slice(&last)));
        auto_sql struct sql_query q;
        sql_begin(&q, cp_db(store),
                  "SELECT u.name, s.bytes FROM source_use u JOIN source s ON s.digest = u.digest"
                  " WHERE u.environment = $1 AND u.first_number <= $2 AND u.last_number >= $2"
                  " AND u.name > $3 ORDER BY u.name LIMIT $4");
        sql_bind_text(&q, 1, environment);
        sql_bind_number(&q, 2, version);
        sql_bind_slice_text(&q, 3, buf_slice(&after));
        sql_bind_number(&q, 4, PAGE_FILES);
        TRY(visit_page(&q, visit, ctx, &last, &count));
    }
    return OK;
}
