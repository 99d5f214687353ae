/*
 * sqlite_journal: publications and their chunks. The commit of cp_sqlite_publish() is the moment
 * at which a version is published.
 */
#include "common/base/limits.h"
#include "controlplane/store/sqlite_in.h"

#define RECORD_COLUMNS                                                                             \
    "number, epoch, origin, manifest_digest, content_digest, raw_size, created_ms, author, message"

static void read_record(const struct sql *s, struct cp_record *out)
{
    *out = (struct cp_record){.version = sql_number(s, 0),
                              .epoch = sql_number(s, 1),
                              .origin = sql_number(s, 2),
                              .raw_size = sql_number(s, 5),
                              .created_ms = (int64_t)sql_number(s, 6)};
    sql_copy(s, 3, out->manifest_digest, sizeof(out->manifest_digest));
    sql_copy(s, 4, out->content_digest, sizeof(out->content_digest));
    sql_text(s, 7, out->author, sizeof(out->author));
    sql_text(s, 8, out->message, sizeof(out->message));
}

static struct err insert_row(sqlite3 *db, const char *environment,
                             const struct cp_publication *publication)
{
    const struct cp_record *record = &publication->record;
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO journal (environment, number, epoch, origin, manifest, manifest_digest,"
              " content_digest, raw_size, author, message, created_ms)"
              " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, " SQL_NOW
              " WHERE NOT EXISTS (SELECT 1 FROM journal WHERE environment = ?1 AND number >= ?2)");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, record->version);
    sql_bind_number(&s, 3, record->epoch);
    sql_bind_number(&s, 4, record->origin);
    sql_bind_bytes(&s, 5, publication->manifest);
    sql_bind_bytes(&s, 6, slice_of(record->manifest_digest, DIGEST_SIZE));
    sql_bind_bytes(&s, 7, slice_of(record->content_digest, DIGEST_SIZE));
    sql_bind_number(&s, 8, record->raw_size);
    sql_bind_text(&s, 9, record->author);
    sql_bind_text(&s, 10, record->message);
    TRY(sql_run(&s));
    return sqlite3_changes(db) == 1 ? OK : FAIL(E_CONFLICT);
}

static struct err insert_chunk(sqlite3 *db, const struct cp_store_chunk *chunk)
{
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO chunk (raw_digest, stored_digest, raw_size, stored)"
              " VALUES (?1, ?2, ?3, ?4) ON CONFLICT (raw_digest) DO NOTHING");
    sql_bind_bytes(&s, 1, slice_of(chunk->raw_digest, DIGEST_SIZE));
    sql_bind_bytes(&s, 2, slice_of(chunk->stored_digest, DIGEST_SHORT_SIZE));
    sql_bind_number(&s, 3, chunk->raw_size);
    sql_bind_bytes(&s, 4, chunk->stored);
    return sql_run(&s);
}

static struct err insert_reference(sqlite3 *db, const char *environment, uint64_t version,
                                   size_t position, const struct cp_store_chunk *chunk)
{
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO journal_chunk (environment, number, position, raw_digest)"
              " VALUES (?1, ?2, ?3, ?4)");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, version);
    sql_bind_number(&s, 3, position);
    sql_bind_bytes(&s, 4, slice_of(chunk->raw_digest, DIGEST_SIZE));
    return sql_run(&s);
}

static struct err run_with_number(sqlite3 *db, const char *text, const char *environment,
                                  uint64_t number)
{
    auto_sql struct sql s;
    sql_begin(&s, db, text);
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, number);
    return sql_run(&s);
}

/* The lowest publication that stays; 0 when all do. */
static struct err find_oldest_kept(sqlite3 *db, const char *environment, uint64_t *out)
{
    auto_sql struct sql s;
    sql_begin(&s, db,
              "SELECT number FROM journal WHERE environment = ?1"
              " ORDER BY number DESC LIMIT 1 OFFSET ?2");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, limits.history_versions - 1);
    bool found = false;
    TRY(sql_row(&s, &found));
    *out = found ? sql_number(&s, 0) : 0;
    return OK;
}

/* Drops what is beyond limits.history_versions; the numbers themselves stay handed out. */
static struct err drop_old(sqlite3 *db, const char *environment)
{
    uint64_t oldest = 0;
    TRY(find_oldest_kept(db, environment, &oldest));
    if (oldest == 0) {
        return OK;
    }
    static const char *const by_version[] = {
        "DELETE FROM journal_chunk WHERE environment = ?1 AND number < ?2",
        "DELETE FROM journal WHERE environment = ?1 AND number < ?2",
        "DELETE FROM proposal WHERE environment = ?1 AND number < ?2",
        "DELETE FROM version_source WHERE environment = ?1 AND number < ?2",
    };
    for (size_t i = 0; i < sizeof(by_version) / sizeof(by_version[0]); i++) {
        TRY(run_with_number(db, by_version[i], environment, oldest));
    }
    TRY(sql_exec(db, "DELETE FROM chunk WHERE NOT EXISTS"
                     " (SELECT 1 FROM journal_chunk j WHERE j.raw_digest = chunk.raw_digest)"));
    return sql_exec(db, "DELETE FROM source WHERE NOT EXISTS"
                        " (SELECT 1 FROM version_source v WHERE v.digest = source.digest)");
}

static struct err publish(sqlite3 *db, const struct cp_fence *fence,
                          const struct cp_publication *publication)
{
    TRY(cp_sqlite_fence(db, fence));
    TRY(insert_row(db, fence->environment, publication));
    for (size_t i = 0; i < publication->chunk_count; i++) {
        const struct cp_store_chunk *chunk = &publication->chunks[i];
        if (chunk->stored.size > 0) {
            TRY(insert_chunk(db, chunk));
        }
        TRY(insert_reference(db, fence->environment, publication->record.version, i, chunk));
    }
    return drop_old(db, fence->environment);
}

struct err cp_sqlite_publish(struct cp_store *store, const struct cp_fence *fence,
                             const struct cp_publication *publication)
{
    sqlite3 *db = cp_sqlite_db(store);
    uint64_t bytes = publication->manifest.size;
    for (size_t i = 0; i < publication->chunk_count; i++) {
        bytes += publication->chunks[i].stored.size;
    }
    TRY(cp_sqlite_room(db, bytes));
    TRY(cp_sqlite_write(db));
    return cp_sqlite_done(db, publish(db, fence, publication));
}

struct err cp_sqlite_latest(struct cp_store *store, const char *environment, struct cp_record *out)
{
    size_t count = 0;
    TRY(cp_sqlite_history(store, environment, /* before= */ 0, out, 1, &count));
    return count == 1 ? OK : FAIL(E_NOT_FOUND);
}

struct err cp_sqlite_load(struct cp_store *store, const char *environment, uint64_t version,
                          struct cp_record *out, struct buf *manifest)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "SELECT " RECORD_COLUMNS ", manifest FROM journal"
              " WHERE environment = ?1 AND number = ?2");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, version);
    bool found = false;
    TRY(sql_row(&s, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    if (manifest != NULL) {
        TRY(buf_add(manifest, sql_bytes(&s, 9)));
    }
    read_record(&s, out);
    return OK;
}

struct err cp_sqlite_history(struct cp_store *store, const char *environment, uint64_t before,
                             struct cp_record *out, size_t max, size_t *out_count)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "SELECT " RECORD_COLUMNS " FROM journal"
              " WHERE environment = ?1 AND (?2 = 0 OR number < ?2) ORDER BY number DESC LIMIT ?3");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, before);
    sql_bind_number(&s, 3, max);
    size_t count = 0;
    for (bool found = true; found && count < max;) {
        TRY(sql_row(&s, &found));
        if (found) {
            read_record(&s, &out[count++]);
        }
    }
    *out_count = count;
    return OK;
}

struct err cp_sqlite_chunk_get(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                               struct buf *out)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store), "SELECT stored FROM chunk WHERE raw_digest = ?1");
    sql_bind_bytes(&s, 1, slice_of(raw_digest, DIGEST_SIZE));
    bool found = false;
    TRY(sql_row(&s, &found));
    return found ? buf_add(out, sql_bytes(&s, 0)) : FAIL(E_NOT_FOUND);
}

struct err cp_sqlite_chunks_get(struct cp_store *store, const char *environment, uint64_t version,
                                cp_store_chunk_fn *visit, void *ctx)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "SELECT c.raw_digest, c.stored_digest, c.raw_size, c.stored FROM journal_chunk j"
              " JOIN chunk c ON c.raw_digest = j.raw_digest"
              " WHERE j.environment = ?1 AND j.number = ?2 ORDER BY j.position");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, version);
    for (;;) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(&s, &found));
        if (!found) {
            return OK;
        }
        struct cp_store_chunk chunk = {.raw_size = sql_number(&s, 2), .stored = sql_bytes(&s, 3)};
        sql_copy(&s, 0, chunk.raw_digest, sizeof(chunk.raw_digest));
        sql_copy(&s, 1, chunk.stored_digest, sizeof(chunk.stored_digest));
        TRY(visit(ctx, &chunk));
    }
}
