/*
 * sql_driver: what a database must be able to do, for sql.c.
 *
 * Shape      a struct of function pointers; a driver's connection begins with a struct sql.
 * Errors     as in sql.h; a driver sets db->accident when it fails.
 */
#pragma once

#include "common/base/buf.h"
#include "controlplane/store/sql.h"

enum sql_mode {
    SQL_WRITE,        /* sees what others commit meanwhile, but no two write one row. */
    SQL_WRITE_SLOWLY, /* the same, and may stand still in between. */
    SQL_SNAPSHOT,     /* reads alone, as of its first statement; may stand still, too. */
};

struct sql_driver {
    const char *name; /* "sqlite". */
    void (*close)(struct sql *db);
    void (*set_lock_wait)(struct sql *db, uint64_t wait_ms); /* as in store.h. */

    /*
     * Begins a transaction. A writing one first holds the schema's number fast and returns
     * E_STORE_NEWER when a newer release has changed it.
     */
    struct err (*begin)(struct sql *db, enum sql_mode mode);
    /*
     * Commits; when there is a 'guard', in one go with it: unless it fails, and with nothing of
     * this program's between the two. SQL_UNKNOWN when no answer came.
     */
    struct err (*commit)(struct sql *db, struct sql_query *guard);
    /* Undoes what is open; what cannot be undone closes the connection, which does the same. */
    void (*rollback)(struct sql *db);
    /* E_STORE_FULL when the disk has no room for so many bytes; E_OK when that is unknown. */
    struct err (*room)(struct sql *db, uint64_t bytes);

    /* Runs the query the first time, then takes the next row. */
    struct err (*step)(struct sql_query *q, bool *out_found);
    void (*end)(struct sql_query *q);
    uint64_t (*number)(const struct sql_query *q, int column);
    struct slice (*bytes)(const struct sql_query *q, int column);
};

/* Opens FILE, makes it when missing (mode 0600), and migrates it. WAL mode with full
 * synchronisation: a commit that returned survives a power cut. */
MUST_CHECK struct err sql_sqlite_open(const char *path, struct sql **out, struct buf *message);

/*
 * Opens "postgresql://…" and migrates it. No call takes much longer than limits.store_timeout_ms,
 * whatever the server does; each begins with connecting anew when the connection is gone.
 */
MUST_CHECK struct err sql_postgres_open(const char *url, struct sql **out, struct buf *message);
