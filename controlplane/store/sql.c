/* sql: see sql.h. */
#include "controlplane/store/sql.h"

#include <limits.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/log.h"

void sql_begin(struct sql *s, sqlite3 *db, const char *text)
{
    CHECK(db != NULL && text != NULL);
    *s = (struct sql){.db = db};
    s->first_failure = sqlite3_prepare_v2(db, text, -1, &s->statement, NULL);
}

void sql_end(struct sql *s)
{
    (void)sqlite3_finalize(s->statement); /* repeats the failure that sql_row() returned. */
    s->statement = NULL;
}

static void keep_failure(struct sql *s, int code)
{
    if (s->first_failure == SQLITE_OK) {
        s->first_failure = code;
    }
}

void sql_bind_slice_text(struct sql *s, int index, struct slice text)
{
    if (s->first_failure == SQLITE_OK) {
        const char *start = text.size == 0 ? "" : (const char *)text.ptr;
        keep_failure(s, sqlite3_bind_text64(s->statement, index, start, text.size, SQLITE_STATIC,
                                            SQLITE_UTF8));
    }
}

void sql_bind_text(struct sql *s, int index, const char *text)
{
    sql_bind_slice_text(s, index, slice_str(text));
}

void sql_bind_bytes(struct sql *s, int index, struct slice bytes)
{
    if (s->first_failure == SQLITE_OK) {
        const void *start = bytes.size == 0 ? "" : (const void *)bytes.ptr; /* NULL binds NULL. */
        keep_failure(s, sqlite3_bind_blob64(s->statement, index, start, bytes.size, SQLITE_STATIC));
    }
}

void sql_bind_number(struct sql *s, int index, uint64_t number)
{
    if (s->first_failure == SQLITE_OK) {
        keep_failure(s, number > INT64_MAX
                            ? SQLITE_TOOBIG
                            : sqlite3_bind_int64(s->statement, index, (sqlite3_int64)number));
    }
}

struct err sql_row(struct sql *s, bool *out_found)
{
    if (s->first_failure == SQLITE_OK) {
        int code = sqlite3_step(s->statement);
        if (code == SQLITE_ROW || code == SQLITE_DONE) {
            *out_found = code == SQLITE_ROW;
            return OK;
        }
        s->first_failure = code;
    }
    return sql_error(s->db, s->first_failure);
}

struct err sql_run(struct sql *s)
{
    bool found = false;
    return sql_row(s, &found);
}

uint64_t sql_number(const struct sql *s, int column)
{
    sqlite3_int64 number = sqlite3_column_int64(s->statement, column);
    return number < 0 ? 0 : (uint64_t)number;
}

struct slice sql_bytes(const struct sql *s, int column)
{
    const void *start = sqlite3_column_blob(s->statement, column);
    return slice_of(start, (size_t)sqlite3_column_bytes(s->statement, column));
}

void sql_text(const struct sql *s, int column, char *out, size_t size)
{
    CHECK(size > 0);
    struct slice text = slice_head(sql_bytes(s, column), size - 1);
    if (text.size > 0) {
        (void)memcpy(out, text.ptr, text.size);
    }
    out[text.size] = '\0';
}

void sql_copy(const struct sql *s, int column, uint8_t *out, size_t size)
{
    struct slice bytes = sql_bytes(s, column);
    (void)memset(out, 0, size);
    if (bytes.size == size && size > 0) {
        (void)memcpy(out, bytes.ptr, size);
    }
}

struct err sql_exec(sqlite3 *db, const char *text)
{
    int code = sqlite3_exec(db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? OK : sql_error(db, code);
}

struct err sql_error(sqlite3 *db, int code)
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
    default:
        LOG(LOG_ERROR, "store", "sqlite_failed", LOG_I64("result", code),
            LOG_STR("message", sqlite3_errmsg(db)));
        return FAIL(E_IO);
    }
}
