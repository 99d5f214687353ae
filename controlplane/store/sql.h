/*
 * sql: SQLite's statements with bound values, and its result codes as ours.
 *
 * Shape      sql_begin(&s, db, "… ?1 …"), sql_bind_*(&s, 1, …), sql_row(&s, &found), sql_*(&s, 0).
 * Ownership  a statement is finalised when it leaves scope (auto_sql).
 * Threads    that of its connection.
 * Errors     the first failure of a statement sticks: binding after it does nothing, and sql_row()
 *            returns it. E_STORE_FULL, E_UNAVAILABLE (locked past the busy timeout), E_CONFLICT (a
 *            constraint), E_NO_MEMORY, E_IO (logged with SQLite's own words).
 */
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct sql {
    sqlite3 *db;
    sqlite3_stmt *statement;
    int first_failure; /* SQLITE_OK while all went well. */
};

/* Prepares one statement. */
void sql_begin(struct sql *s, sqlite3 *db, const char *text);
void sql_end(struct sql *s);

/* Binds parameter ?index. Bytes and text are borrowed until the statement ends. */
void sql_bind_text(struct sql *s, int index, const char *text);
void sql_bind_slice_text(struct sql *s, int index, struct slice text);
void sql_bind_bytes(struct sql *s, int index, struct slice bytes);
void sql_bind_number(struct sql *s, int index, uint64_t number);

/* Steps: *out_found says whether there is a row. */
MUST_CHECK struct err sql_row(struct sql *s, bool *out_found);
/* Steps a statement that gives no rows. */
MUST_CHECK struct err sql_run(struct sql *s);

/* Values of the present row; bytes are borrowed until the next step. */
uint64_t sql_number(const struct sql *s, int column);
struct slice sql_bytes(const struct sql *s, int column);
/* Copies text of at most size - 1 bytes and ends it with NUL. */
void sql_text(const struct sql *s, int column, char *out, size_t size);
/* Copies a blob; zeroes when it has another size. */
void sql_copy(const struct sql *s, int column, uint8_t *out, size_t size);

/* Runs text without parameters; several statements may follow each other. */
MUST_CHECK struct err sql_exec(sqlite3 *db, const char *text);
/* SQLite's result code as an error; logs what only SQLite's words explain. */
MUST_CHECK struct err sql_error(sqlite3 *db, int code);

#define auto_sql __attribute__((cleanup(sql_end)))
