/*
 * sql: statements with bound values, over either database.
 *
 * Shape      sql_begin(&q, db, "… $1 …"), sql_bind_*(&q, 1, …), sql_row(&q, &found), sql_*(&q,
 *            0). Reads may stand alone; whatever writes goes through sql_transact(). What the
 *            dialects say differently stands behind functions of one name in both: trilane_now()
 *            is the database's clock in ms, one value a statement; trilane_fence() is what ends a
 *            fenced transaction. The drivers are behind sql_driver.h.
 * Ownership  whoever opens a connection closes it; a query is ended when it leaves scope
 *            (auto_sql).
 * Threads    one thread a connection.
 * Errors     the first failure of a query sticks: binding after it does nothing, and sql_row()
 *            returns it. E_CONFLICT (a constraint), E_MALFORMED (text that is not UTF-8, or has a
 *            NUL), E_TOO_LARGE, E_STORE_FULL, E_STORE_NEWER, E_UNAVAILABLE (locked or silent past
 *            the time allowed, or the connection broke), E_NO_MEMORY, E_IO (logged in the
 *            database's own words).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum {
    SQL_VALUES_MAX = 64,     /* bound values of one query. */
    SQL_TEXT_MAX = 1024,     /* of a text that sql_begin_list() or sql_begin_rows() writes. */
    SQL_LIST_MAX = 32,       /* what one query asks for at once: bounds the bytes of its answer. */
    SQL_BYTES_MAX = 1 << 30, /* one value. */
};

struct sql;
struct sql_driver;

enum sql_kind { SQL_NOTHING, SQL_NUMBER, SQL_TEXT, SQL_BYTES };

struct sql_value {
    enum sql_kind kind;
    uint64_t number;    /* at most INT64_MAX. */
    struct slice bytes; /* text and bytes; borrowed until the query ends. */
};

struct sql_query {
    struct sql *db;
    const char *text;
    struct sql_value values[SQL_VALUES_MAX]; /* $1 is the first. */
    unsigned value_count;
    struct err failure; /* the first one. */
    void *answer;       /* the driver's; NULL before the first sql_row(). */
    int row;            /* the driver's. */
    char built[SQL_TEXT_MAX];
};

/* Why a transaction failed, where that decides whether to run it again. */
enum sql_accident {
    SQL_NO_ACCIDENT,
    SQL_COLLISION, /* the database chose another transaction; this one is gone. */
    SQL_LOST,      /* the connection broke before the commit was sent; this one is gone. */
    SQL_UNKNOWN,   /* it broke, or fell silent, behind the commit. */
};

struct sql {
    const struct sql_driver *driver;
    bool open;                  /* in a transaction. */
    bool unknown;               /* this transaction runs again, since nobody knows what became of
                                   the one before: it may find its own work done. */
    enum sql_accident accident; /* of the last failure; the driver's to set. */
};

/* Opens "sqlite:FILE" or "postgresql://…" and migrates it. See cp_store_open(). */
MUST_CHECK struct err sql_open(const char *url, struct sql **out, struct buf *message);
void sql_close(struct sql *db);

/* ---- queries ---- */

/* Begins one statement; 'text' is borrowed until it ends. */
void sql_begin(struct sql_query *q, struct sql *db, const char *text);
/* The same, with '@' in the text replaced by 'count' places from $first on: "$3, $4, $5". */
void sql_begin_list(struct sql_query *q, struct sql *db, const char *text, unsigned first,
                    unsigned count);
/* The same, with '@' replaced by rows of places from $1 on: "($1, $2), ($3, $4)". */
void sql_begin_rows(struct sql_query *q, struct sql *db, const char *text, unsigned rows,
                    unsigned columns);
void sql_end(struct sql_query *q);

/* Binds place $index. */
void sql_bind_text(struct sql_query *q, unsigned index, const char *text);
void sql_bind_slice_text(struct sql_query *q, unsigned index, struct slice text);
void sql_bind_bytes(struct sql_query *q, unsigned index, struct slice bytes);
void sql_bind_number(struct sql_query *q, unsigned index, uint64_t number);

/* Steps: *out_found says whether there is a row. */
MUST_CHECK struct err sql_row(struct sql_query *q, bool *out_found);
/* Steps a statement whose rows, if any, do not matter. */
MUST_CHECK struct err sql_run(struct sql_query *q);

/* Values of the present row; bytes are borrowed until the next step. */
uint64_t sql_number(const struct sql_query *q, int column);
struct slice sql_bytes(const struct sql_query *q, int column);
/* Copies text of at most size - 1 bytes and ends it with NUL. */
void sql_text(const struct sql_query *q, int column, char *out, size_t size);
/* Copies bytes; zeroes when they have another size. */
void sql_copy(const struct sql_query *q, int column, uint8_t *out, size_t size);

#define auto_sql __attribute__((cleanup(sql_end)))

/* ---- transactions ---- */

/* Whose row the leader's must be, and still run, at the moment of the commit. */
struct sql_fence {
    const char *environment;
    struct slice holder;
    uint64_t epoch;
};

/* What a transaction does; it may run more than once. It may return E_EXISTS when db->unknown and
 * it finds its own work done: then all is well. */
typedef struct err sql_body_fn(struct sql *db, void *ctx);

struct sql_work {
    sql_body_fn *body;
    void *ctx;
    const struct sql_fence *fence; /* NULL: none. */
    uint64_t bytes;                /* about what it writes: a full disk refuses it early. */
    bool once;                     /* never again, whatever happens, and as slow as who feeds it. */
};

/*
 * Runs a transaction that writes. Nothing of a failed one stays. It runs again after a collision
 * (a few times), after a connection that broke before the commit (once), and when nobody knows what
 * became of the commit; when that cannot be found out: E_RESULT_UNKNOWN. E_NOT_LEADER when the
 * fence does not hold.
 */
MUST_CHECK struct err sql_transact(struct sql *db, const struct sql_work *work);

/* Runs reads that see the database as of one moment, however long they take. */
MUST_CHECK struct err sql_snapshot(struct sql *db, sql_body_fn *body, void *ctx);
