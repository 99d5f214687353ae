/* sql_sqlite: the driver of the embedded database; the only file that knows SQLite's API. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/store/migrations.h"
#include "controlplane/store/sql_driver.h"

enum {
    BUSY_TIMEOUT_MS = 5000,
    RESERVE_BYTES = 16 << 20, /* the log grows to 4 MiB between checkpoints; the rest is slack. */
    IDLE_MAX = 64,            /* a publication runs some fifty texts. */
};

struct sqlite {
    struct sql sql; /* first: a struct sql is cast to its driver's. */
    sqlite3 *db;
    int64_t now_ms;               /* trilane_now() of the statement that runs. */
    sqlite3_stmt *idle[IDLE_MAX]; /* made before, and run by nobody; the latest one first. */
    size_t idle_count;
};

static struct sqlite *of(struct sql *db)
{
    return (struct sqlite *)db;
}

/* ---- failures ---- */

static struct err failure(sqlite3 *db, int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
        return FAIL(E_STORE_FULL);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return FAIL(E_UNAVAILABLE);
    case SQLITE_CONSTRAINT:
        return FAIL(E_CONFLICT);
    case SQLITE_NOMEM:
        return FAIL(E_NO_MEMORY);
    case SQLITE_TOOBIG:
        return FAIL(E_TOO_LARGE);
    case SQLITE_AUTH: /* of trilane_fence(): nothing else of ours asks for authority. */
        return FAIL(E_NOT_LEADER);
    default:
        LOG(LOG_ERROR, "store", "sqlite_failed", LOG_I64("result", code),
            LOG_STR("message", sqlite3_errmsg(db)));
        return FAIL(E_IO);
    }
}

/* Runs text without values; several statements may follow each other. */
static struct err run_text(sqlite3 *db, const char *text)
{
    int code = sqlite3_exec(db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? OK : failure(db, code);
}

/* ---- statements ---- */

/* A text becomes a statement once: to read it anew costs more than to run it. NULL: not yet, or
 * another query runs it. */
static sqlite3_stmt *take_idle(struct sqlite *s, const char *text)
{
    size_t i = 0;
    while (i < s->idle_count && strcmp(sqlite3_sql(s->idle[i]), text) != 0) {
        i++;
    }
    if (i == s->idle_count) {
        return NULL;
    }
    sqlite3_stmt *statement = s->idle[i];
    s->idle_count--;
    memmove((void *)(s->idle + i), (void *)(s->idle + i + 1),
            (s->idle_count - i) * sizeof(sqlite3_stmt *));
    return statement;
}

static void keep_idle(struct sqlite *s, sqlite3_stmt *statement)
{
    if (s->idle_count == IDLE_MAX) {
        (void)sqlite3_finalize(s->idle[--s->idle_count]);
    }
    memmove((void *)(s->idle + 1), (void *)s->idle, s->idle_count * sizeof(sqlite3_stmt *));
    s->idle[0] = statement;
    s->idle_count++;
}

static void drop_idle(struct sqlite *s)
{
    while (s->idle_count > 0) {
        (void)sqlite3_finalize(s->idle[--s->idle_count]);
    }
}

static int make_statement(struct sqlite *s, const char *text, sqlite3_stmt **out)
{
    *out = take_idle(s, text);
    return *out != NULL ? SQLITE_OK
                        : sqlite3_prepare_v3(s->db, text, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

/* What was bound to it is the query's; whatever failed was returned by its step. */
static void end_statement(struct sqlite *s, sqlite3_stmt *statement)
{
    if (statement == NULL) {
        return;
    }
    if (sqlite3_reset(statement) == SQLITE_OK && sqlite3_clear_bindings(statement) == SQLITE_OK) {
        keep_idle(s, statement);
    } else {
        (void)sqlite3_finalize(statement);
    }
}

static int bind(sqlite3_stmt *statement, unsigned place, const struct sql_value *value)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "$%u", place);
    int index = sqlite3_bind_parameter_index(statement, name);
    CHECK(index > 0 || value->kind == SQL_NOTHING); /* the text has every place that is bound. */
    /* NULL would bind NULL: an empty value needs a place to point at. */
    const void *start = value->bytes.size == 0 ? "" : (const void *)value->bytes.ptr;
    switch (value->kind) {
    case SQL_NOTHING:
        return SQLITE_OK;
    case SQL_NUMBER:
        return sqlite3_bind_int64(statement, index, (sqlite3_int64)value->number);
    case SQL_TEXT:
        return sqlite3_bind_text64(statement, index, start, value->bytes.size, SQLITE_STATIC,
                                   SQLITE_UTF8);
    case SQL_BYTES:
        return sqlite3_bind_blob64(statement, index, start, value->bytes.size, SQLITE_STATIC);
    }
    return SQLITE_MISUSE;
}

static struct err prepare(struct sql_query *q)
{
    struct sqlite *s = of(q->db);
    sqlite3_stmt *statement = NULL;
    int code = make_statement(s, q->text, &statement);
    q->answer = statement;
    for (unsigned i = 0; i < q->value_count && code == SQLITE_OK; i++) {
        code = bind(statement, i + 1, &q->values[i]);
    }
    return code == SQLITE_OK ? OK : failure(s->db, code);
}

static struct err step(struct sql_query *q, bool *out_found)
{
    struct sqlite *s = of(q->db);
    if (q->answer == NULL) {
        TRY(prepare(q));
        s->now_ms = clock_wall_ms();
    }
    int code = sqlite3_step(q->answer);
    *out_found = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? OK : failure(s->db, code);
}

static void end(struct sql_query *q)
{
    end_statement(of(q->db), q->answer);
}

static uint64_t number(const struct sql_query *q, int column)
{
    sqlite3_int64 value = sqlite3_column_int64(q->answer, column);
    return value < 0 ? 0 : (uint64_t)value;
}

static struct slice bytes(const struct sql_query *q, int column)
{
    const void *start = sqlite3_column_blob(q->answer, column);
    return slice_of(start, (size_t)sqlite3_column_bytes(q->answer, column));
}

/* ---- functions that PostgreSQL's migrations make ---- */

static void function_now(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    (void)values;
    sqlite3_result_int64(context, ((struct sqlite *)sqlite3_user_data(context))->now_ms);
}

static bool holds_fence(struct sqlite *s, sqlite3_value **values)
{
    sqlite3_stmt *statement = NULL;
    int code = make_statement(s,
                              "SELECT 1 FROM leader WHERE environment = ?1 AND holder = ?2"
                              " AND epoch = ?3 AND expires_ms > ?4",
                              &statement);
    for (int i = 0; i < 3 && code == SQLITE_OK; i++) {
        code = sqlite3_bind_value(statement, i + 1, values[i]);
    }
    bool holds = code == SQLITE_OK && sqlite3_bind_int64(statement, 4, s->now_ms) == SQLITE_OK &&
                 sqlite3_step(statement) == SQLITE_ROW;
    end_statement(s, statement);
    return holds;
}

/* BEGIN IMMEDIATE holds everybody else off: the row stays as it is until the commit. */
static void function_fence(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    if (holds_fence(sqlite3_user_data(context), values)) {
        sqlite3_result_int64(context, 1);
    } else {
        sqlite3_result_error_code(context, SQLITE_AUTH);
    }
}

static struct err make_functions(struct sqlite *s)
{
    int code = sqlite3_create_function(s->db, "trilane_now", 0, SQLITE_UTF8 | SQLITE_DIRECTONLY, s,
                                       function_now, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_create_function(s->db, "trilane_fence", 3, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                       s, function_fence, NULL, NULL);
    }
    return code == SQLITE_OK ? OK : failure(s->db, code);
}

/* ---- transactions ---- */

static void rollback(struct sql *db)
{
    sqlite3 *sqlite = of(db)->db;
    if (sqlite3_get_autocommit(sqlite) == 0) {
        (void)sqlite3_exec(sqlite, "ROLLBACK", NULL, NULL, NULL);
    }
    CHECK(sqlite3_get_autocommit(sqlite) != 0); /* no statement of ours is left running. */
}

static struct err read_schema(struct sql *db, uint64_t *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "PRAGMA user_version");
    bool found = false;
    TRY(sql_row(&q, &found));
    *out = found ? sql_number(&q, 0) : 0;
    return OK;
}

static struct err check_schema(struct sql *db)
{
    uint64_t schema = 0;
    TRY(read_schema(db, &schema));
    return schema <= cp_migrations_sqlite_count ? OK : FAIL(E_STORE_NEWER);
}

static struct err begin(struct sql *db, enum sql_mode mode)
{
    TRY(run_text(of(db)->db, mode == SQL_SNAPSHOT ? "BEGIN" : "BEGIN IMMEDIATE"));
    struct err e = check_schema(db);
    if (!err_ok(e)) {
        rollback(db);
    }
    return e;
}

static struct err commit(struct sql *db, struct sql_query *guard)
{
    if (guard != NULL) {
        TRY(sql_run(guard));
    }
    return run_text(of(db)->db, "COMMIT");
}

/* A full disk stops publications, not heads: what renewals of the leader's row need stays free. */
static struct err room(struct sql *db, uint64_t bytes)
{
    struct statvfs disk;
    const char *path = sqlite3_db_filename(of(db)->db, "main");
    if (bytes == 0 || path == NULL || statvfs(path, &disk) != 0) {
        return OK; /* SQLite itself says so, should it be full. */
    }
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    return available >= RESERVE_BYTES + bytes ? OK : FAIL(E_STORE_FULL);
}

/* ---- opening ---- */

static struct err apply(struct sqlite *s, struct buf *message)
{
    uint64_t schema = 0;
    TRY(read_schema(&s->sql, &schema));
    if (schema > cp_migrations_sqlite_count) {
        TRY(buf_addf(message,
                     "store: the database has schema %" PRIu64 ", this release knows up to %zu; "
                     "run the release that made it",
                     schema, cp_migrations_sqlite_count));
        return FAIL(E_STORE_NEWER);
    }
    for (; schema < cp_migrations_sqlite_count; schema++) {
        TRY(run_text(s->db, cp_migrations_sqlite[schema]));
        char text[64];
        (void)snprintf(text, sizeof(text), "PRAGMA user_version = %" PRIu64, schema + 1);
        TRY(run_text(s->db, text));
    }
    return OK;
}

static struct err migrate(struct sqlite *s, struct buf *message)
{
    TRY(run_text(s->db, "BEGIN IMMEDIATE"));
    struct err e = apply(s, message);
    e = err_ok(e) ? run_text(s->db, "COMMIT") : e;
    rollback(&s->sql);
    return e;
}

/* The file holds sources and messages: made for its owner alone, whatever the umask. One that is
 * there is not opened here: closing it would take the locks of this process' other connections
 * away (POSIX), and another process would believe that it is alone, and drop the log under them. */
static struct err make_private(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 && errno != EEXIST ? FAIL(E_IO) : OK;
}

static struct err set_up(struct sqlite *s, struct buf *message)
{
    (void)sqlite3_extended_result_codes(s->db, 1);
    (void)sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
    TRY(run_text(s->db, "PRAGMA journal_mode = WAL"));
    TRY(run_text(s->db, "PRAGMA synchronous = FULL"));
    TRY(run_text(s->db, "PRAGMA foreign_keys = ON"));
    TRY(run_text(s->db, "PRAGMA trusted_schema = OFF"));
    TRY(make_functions(s));
    return migrate(s, message);
}

static void close_sqlite(struct sql *db)
{
    drop_idle(of(db));
    CHECK(sqlite3_close(of(db)->db) == SQLITE_OK); /* no statement is left running. */
    free(db);
}

/* Whoever else has the file open is a replica, or a test: transactions are short. */
static void set_lock_wait(struct sql *db, uint64_t wait_ms)
{
    (void)db;
    (void)wait_ms;
}

static const struct sql_driver sqlite_driver = {
    .set_lock_wait = set_lock_wait,
    .name = "sqlite",
    .close = close_sqlite,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .room = room,
    .step = step,
    .end = end,
    .number = number,
    .bytes = bytes,
};

struct err sql_sqlite_open(const char *path, struct sql **out, struct buf *message)
{
    struct err result = make_private(path);
    if (!err_ok(result)) {
        TRY(buf_addf(message, "store: %s cannot be opened or made", path));
        return result;
    }
    struct sqlite *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->sql.driver = &sqlite_driver;
    int code = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    result = code == SQLITE_OK ? set_up(s, message) : failure(s->db, code);
    if (!err_ok(result)) {
        drop_idle(s);
        (void)sqlite3_close(s->db);
        free(s);
        if (message->size == 0) {
            TRY(buf_addf(message, "store: %s is not usable as a database (%s)", path,
                         err_name(result.code)));
        }
        return result;
    }
    *out = &s->sql;
    return OK;
}
