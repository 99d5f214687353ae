/*
 * statements: SQLite's compiled statements, kept by connection and text. The store compiles each
 * one when it asks; a schedule asks thousands of times for the same few. Kept ones are reset, so
 * they hold no lock and no bytes of anybody's.
 */
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/base/check.h"

enum { SLOTS = 1 << 14, KEPT_MAX = SLOTS / 2 };

struct slot {
    sqlite3_stmt *statement; /* NULL: free, or was closed. */
    bool was_used;           /* look on behind it. */
    bool is_lent;
};

static struct slot slots[SLOTS];
static size_t kept;

int __real_sqlite3_prepare_v2(sqlite3 *db, const char *text, int size, sqlite3_stmt **out,
                              const char **tail);
int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *text, int size, sqlite3_stmt **out,
                              const char **tail);
int __real_sqlite3_finalize(sqlite3_stmt *statement);
int __wrap_sqlite3_finalize(sqlite3_stmt *statement);
int __real_sqlite3_close(sqlite3 *db);
int __wrap_sqlite3_close(sqlite3 *db);

/* FNV-1a. */
static size_t place_of(const sqlite3 *db, const char *text)
{
    uint64_t hash = (uintptr_t)db ^ UINT64_C(14695981039346656037);
    for (const char *c = text; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
    }
    return (size_t)(hash ^ hash >> 32) % SLOTS;
}

static struct slot *find(const sqlite3 *db, const char *text)
{
    size_t i = place_of(db, text);
    for (; slots[i].was_used; i = (i + 1) % SLOTS) { /* ends: half of them never were. */
        sqlite3_stmt *statement = slots[i].statement;
        if (statement != NULL && sqlite3_db_handle(statement) == db &&
            strcmp(sqlite3_sql(statement), text) == 0) {
            return &slots[i];
        }
    }
    return NULL;
}

static void keep(const sqlite3 *db, sqlite3_stmt *statement)
{
    size_t i = place_of(db, sqlite3_sql(statement));
    while (slots[i].was_used) {
        i = (i + 1) % SLOTS;
    }
    slots[i] = (struct slot){.statement = statement, .was_used = true, .is_lent = true};
    kept++;
}

int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *text, int size, sqlite3_stmt **out,
                              const char **tail)
{
    CHECK(size == -1 && tail == NULL);
    struct slot *slot = find(db, text);
    if (slot != NULL && !slot->is_lent) {
        slot->is_lent = true;
        *out = slot->statement;
        return SQLITE_OK;
    }
    int code = __real_sqlite3_prepare_v2(db, text, size, out, tail);
    if (code == SQLITE_OK && slot == NULL && kept < KEPT_MAX) {
        keep(db, *out);
    }
    return code;
}

int __wrap_sqlite3_finalize(sqlite3_stmt *statement)
{
    struct slot *slot =
        statement == NULL ? NULL : find(sqlite3_db_handle(statement), sqlite3_sql(statement));
    if (slot == NULL || slot->statement != statement) {
        return __real_sqlite3_finalize(statement);
    }
    slot->is_lent = false;
    int code = sqlite3_reset(statement);
    CHECK(sqlite3_clear_bindings(statement) == SQLITE_OK);
    return code;
}

int __wrap_sqlite3_close(sqlite3 *db)
{
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &slots[i];
        if (slot->statement != NULL && sqlite3_db_handle(slot->statement) == db) {
            CHECK(!slot->is_lent);
            (void)__real_sqlite3_finalize(slot->statement);
            slot->statement = NULL;
        }
    }
    return __real_sqlite3_close(db);
}
