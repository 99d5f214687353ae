/* sqlite: opening, migrating, versions, sources, proposals, audit. See sqlite.h. */
#include "controlplane/store/sqlite.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/store/migrations.h"
#include "controlplane/store/sqlite_in.h"

enum {
    BUSY_TIMEOUT_MS = 5000,
    RESERVE_BYTES = 16 << 20, /* the log grows to 4 MiB between checkpoints; the rest is slack. */
};

struct err cp_sqlite_write(sqlite3 *db)
{
    return sql_exec(db, "BEGIN IMMEDIATE");
}

struct err cp_sqlite_done(sqlite3 *db, struct err result)
{
    if (err_ok(result)) {
        result = sql_exec(db, "COMMIT");
    }
    if (!err_ok(result) && sqlite3_get_autocommit(db) == 0) {
        TRY(sql_exec(db, "ROLLBACK"));
    }
    return result;
}

struct err cp_sqlite_room(sqlite3 *db, uint64_t bytes)
{
    struct statvfs disk;
    const char *path = sqlite3_db_filename(db, "main");
    if (path == NULL || statvfs(path, &disk) != 0) {
        return OK; /* SQLite itself says so, should it be full. */
    }
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    return available >= RESERVE_BYTES + bytes ? OK : FAIL(E_STORE_FULL);
}

/* ---- opening ---- */

static struct err schema_number(sqlite3 *db, uint64_t *out)
{
    auto_sql struct sql s;
    sql_begin(&s, db, "PRAGMA user_version");
    bool found = false;
    TRY(sql_row(&s, &found));
    *out = found ? sql_number(&s, 0) : 0;
    return OK;
}

static struct err migrate_in(sqlite3 *db, struct buf *message)
{
    uint64_t number = 0;
    TRY(schema_number(db, &number));
    if (number > cp_migrations_sqlite_count) {
        TRY(buf_addf(message,
                     "store: the database has schema %" PRIu64 ", this release knows up to %zu; "
                     "run the release that made it",
                     number, cp_migrations_sqlite_count));
        return FAIL(E_STORE_NEWER);
    }
    for (; number < cp_migrations_sqlite_count; number++) {
        TRY(sql_exec(db, cp_migrations_sqlite[number]));
        char text[64];
        (void)snprintf(text, sizeof(text), "PRAGMA user_version = %" PRIu64, number + 1);
        TRY(sql_exec(db, text));
    }
    return OK;
}

static struct err migrate(sqlite3 *db, struct buf *message)
{
    TRY(cp_sqlite_write(db));
    return cp_sqlite_done(db, migrate_in(db, message));
}

/* The file holds sources and messages: made for its owner alone, whatever the umask. */
static struct err make_private(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? FAIL(E_IO) : OK;
}

static struct err prepare(sqlite3 *db, struct buf *message)
{
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
    TRY(sql_exec(db, "PRAGMA journal_mode = WAL"));
    TRY(sql_exec(db, "PRAGMA synchronous = FULL"));
    TRY(sql_exec(db, "PRAGMA foreign_keys = ON"));
    TRY(sql_exec(db, "PRAGMA trusted_schema = OFF"));
    return migrate(db, message);
}

static void sqlite_close(struct cp_store *store)
{
    struct cp_sqlite *s = (struct cp_sqlite *)store;
    CHECK(sqlite3_close(s->db) == SQLITE_OK); /* every statement was finalised. */
    free(s);
}

/* ---- versions, sources, proposals ---- */

static struct err hand(sqlite3 *db, const struct cp_fence *fence, uint64_t *out)
{
    TRY(cp_sqlite_fence(db, fence));
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO version (environment, number, epoch, handed_ms)"
              " SELECT ?1, coalesce(max(number), 0) + 1, ?2, " SQL_NOW
              " FROM version WHERE environment = ?1 RETURNING number");
    sql_bind_text(&s, 1, fence->environment);
    sql_bind_number(&s, 2, fence->epoch);
    bool found = false;
    TRY(sql_row(&s, &found));
    CHECK(found);
    *out = sql_number(&s, 0);
    return sql_run(&s);
}

static struct err sqlite_version_hand(struct cp_store *store, const struct cp_fence *fence,
                                      uint64_t *out_version)
{
    sqlite3 *db = cp_sqlite_db(store);
    uint64_t version = 0;
    TRY(cp_sqlite_room(db, 0));
    TRY(cp_sqlite_write(db));
    TRY(cp_sqlite_done(db, hand(db, fence, &version)));
    *out_version = version;
    return OK;
}

static struct err put_bytes(sqlite3 *db, struct slice bytes, uint8_t digest[DIGEST_SIZE])
{
    ids_digest(bytes, digest);
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO source (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING");
    sql_bind_bytes(&s, 1, slice_of(digest, DIGEST_SIZE));
    sql_bind_bytes(&s, 2, bytes);
    return sql_run(&s);
}

static struct err put_file(sqlite3 *db, const char *environment, uint64_t version,
                           const struct cp_store_file *file)
{
    uint8_t digest[DIGEST_SIZE];
    TRY(put_bytes(db, file->bytes, digest));
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO version_source (environment, number, name, digest)"
              " VALUES (?1, ?2, ?3, ?4)");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, version);
    sql_bind_slice_text(&s, 3, file->name);
    sql_bind_bytes(&s, 4, slice_of(digest, sizeof(digest)));
    return sql_run(&s);
}

static struct err put_files(sqlite3 *db, const struct cp_fence *fence, uint64_t version,
                            const struct cp_store_file *files, size_t count)
{
    TRY(cp_sqlite_fence(db, fence));
    for (size_t i = 0; i < count; i++) {
        TRY(put_file(db, fence->environment, version, &files[i]));
    }
    return OK;
}

static struct err sqlite_sources_put(struct cp_store *store, const struct cp_fence *fence,
                                     uint64_t version, const struct cp_store_file *files,
                                     size_t count)
{
    sqlite3 *db = cp_sqlite_db(store);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += files[i].bytes.size;
    }
    TRY(cp_sqlite_room(db, bytes));
    TRY(cp_sqlite_write(db));
    return cp_sqlite_done(db, put_files(db, fence, version, files, count));
}

static struct err put_proposal(sqlite3 *db, const struct cp_fence *fence,
                               const struct cp_proposal *proposal, struct slice body)
{
    TRY(cp_sqlite_fence(db, fence));
    auto_sql struct sql s;
    sql_begin(&s, db,
              "INSERT INTO proposal (environment, number, epoch, body, at_ms)"
              " VALUES (?1, ?2, ?3, ?4, " SQL_NOW ")");
    sql_bind_text(&s, 1, fence->environment);
    sql_bind_number(&s, 2, proposal->version);
    sql_bind_number(&s, 3, fence->epoch);
    sql_bind_bytes(&s, 4, body);
    return sql_run(&s);
}

static struct err sqlite_proposal_put(struct cp_store *store, const struct cp_fence *fence,
                                      const struct cp_proposal *proposal, struct slice body)
{
    sqlite3 *db = cp_sqlite_db(store);
    TRY(cp_sqlite_write(db));
    return cp_sqlite_done(db, put_proposal(db, fence, proposal, body));
}

static struct err sqlite_sources_get(struct cp_store *store, const char *environment,
                                     uint64_t version, cp_store_file_fn *visit, void *ctx)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "SELECT v.name, s.bytes FROM version_source v JOIN source s ON s.digest = v.digest"
              " WHERE v.environment = ?1 AND v.number = ?2 ORDER BY v.name");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, version);
    for (;;) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(&s, &found));
        if (!found) {
            return OK;
        }
        struct cp_store_file file = {.name = sql_bytes(&s, 0), .bytes = sql_bytes(&s, 1)};
        TRY(visit(ctx, &file));
    }
}

/* ---- audit ---- */

static struct err sqlite_audit_add(struct cp_store *store, const char *environment,
                                   const struct cp_audit *entry)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "INSERT INTO audit (environment, at_ms, actor, action, object, outcome)"
              " VALUES (?1, " SQL_NOW ", ?2, ?3, ?4, ?5)");
    sql_bind_text(&s, 1, environment);
    sql_bind_text(&s, 2, entry->actor);
    sql_bind_text(&s, 3, entry->action);
    sql_bind_text(&s, 4, entry->object);
    sql_bind_text(&s, 5, entry->outcome);
    return sql_run(&s);
}

static struct err sqlite_audit_list(struct cp_store *store, const char *environment,
                                    struct cp_audit *out, size_t max, size_t *out_count)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "SELECT seq, at_ms, actor, action, object, outcome FROM audit"
              " WHERE environment = ?1 ORDER BY seq DESC LIMIT ?2");
    sql_bind_text(&s, 1, environment);
    sql_bind_number(&s, 2, max);
    size_t count = 0;
    for (bool found = true; found && count < max;) {
        TRY(sql_row(&s, &found));
        if (found) {
            struct cp_audit *entry = &out[count++];
            entry->seq = sql_number(&s, 0);
            entry->at_ms = (int64_t)sql_number(&s, 1);
            sql_text(&s, 2, entry->actor, sizeof(entry->actor));
            sql_text(&s, 3, entry->action, sizeof(entry->action));
            sql_text(&s, 4, entry->object, sizeof(entry->object));
            sql_text(&s, 5, entry->outcome, sizeof(entry->outcome));
        }
    }
    *out_count = count;
    return OK;
}

static const struct cp_store_ops sqlite_ops = {
    .name = "sqlite",
    .close = sqlite_close,
    .lease_take = cp_sqlite_lease_take,
    .lease_drop = cp_sqlite_lease_drop,
    .lease_read = cp_sqlite_lease_read,
    .version_hand = sqlite_version_hand,
    .sources_put = sqlite_sources_put,
    .proposal_put = sqlite_proposal_put,
    .publish = cp_sqlite_publish,
    .latest = cp_sqlite_latest,
    .load = cp_sqlite_load,
    .history = cp_sqlite_history,
    .sources_get = sqlite_sources_get,
    .chunk_get = cp_sqlite_chunk_get,
    .chunks_get = cp_sqlite_chunks_get,
    .audit_add = sqlite_audit_add,
    .audit_list = sqlite_audit_list,
};

struct err cp_sqlite_open(const char *path, struct cp_store **out, struct buf *message)
{
    struct err result = make_private(path);
    if (!err_ok(result)) {
        TRY(buf_addf(message, "store: %s cannot be opened or made", path));
        return result;
    }
    struct cp_sqlite *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->store.ops = &sqlite_ops;
    int code = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    result = code == SQLITE_OK ? prepare(s->db, message) : sql_error(s->db, code);
    if (!err_ok(result)) {
        (void)sqlite3_close(s->db);
        free(s);
        if (message->size == 0) {
            TRY(buf_addf(message, "store: %s is not usable as a database (%s)", path,
                         err_name(result.code)));
        }
        return result;
    }
    *out = &s->store;
    return OK;
}
