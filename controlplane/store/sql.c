/* sql: what both drivers share: places and values, and when a transaction runs again. See sql.h. */
#include "controlplane/store/sql.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "controlplane/store/sql_driver.h"

enum { ATTEMPTS_MAX = 4 };

void sql_close(struct sql *db)
{
    if (db != NULL) {
        db->driver->close(db);
    }
}

/* ---- queries ---- */

void sql_begin(struct sql_query *q, struct sql *db, const char *text)
{
    CHECK(db != NULL && text != NULL);
    *q = (struct sql_query){.db = db, .text = text};
}

struct writer {
    char *out;
    size_t size;
};

static void write_text(struct writer *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void write_text(struct writer *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(w->out + w->size, SQL_TEXT_MAX - w->size, format, arguments);
    va_end(arguments);
    CHECK(written >= 0 &&
          (size_t)written < SQL_TEXT_MAX - w->size); /* texts and counts are ours. */
    w->size += (size_t)written;
}

static void write_places(struct writer *w, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        write_text(w, "%s$%u", i == 0 ? "" : ", ", first + i);
    }
}

void sql_begin_list(struct sql_query *q, struct sql *db, const char *text, unsigned first,
                    unsigned count)
{
    const char *at = strchr(text, '@');
    CHECK(at != NULL && count > 0 && first + count - 1 <= SQL_VALUES_MAX);
    sql_begin(q, db, q->built);
    struct writer w = {.out = q->built};
    write_text(&w, "%.*s", (int)(at - text), text);
    write_places(&w, first, count);
    write_text(&w, "%s", at + 1);
}

void sql_begin_rows(struct sql_query *q, struct sql *db, const char *text, unsigned rows,
                    unsigned columns)
{
    const char *at = strchr(text, '@');
    CHECK(at != NULL && rows > 0 && rows * columns <= SQL_VALUES_MAX);
    sql_begin(q, db, q->built);
    struct writer w = {.out = q->built};
    write_text(&w, "%.*s", (int)(at - text), text);
    for (unsigned i = 0; i < rows; i++) {
        write_text(&w, "%s(", i == 0 ? "" : ", ");
        write_places(&w, i * columns + 1, columns);
        write_text(&w, ")");
    }
    write_text(&w, "%s", at + 1);
}

void sql_end(struct sql_query *q)
{
    if (q->db != NULL && q->answer != NULL) {
        q->db->driver->end(q);
    }
    q->answer = NULL;
}

static void keep_failure(struct sql_query *q, struct err e)
{
    if (err_ok(q->failure)) {
        q->failure = e;
    }
}

static struct sql_value *value_of(struct sql_query *q, unsigned index)
{
    CHECK(index >= 1 && index <= SQL_VALUES_MAX);
    q->value_count = index > q->value_count ? index : q->value_count;
    return &q->values[index - 1];
}

/* One database takes any bytes as text, the other does not: so none does. */
void sql_bind_slice_text(struct sql_query *q, unsigned index, struct slice text)
{
    if (text.size > SQL_BYTES_MAX) {
        keep_failure(q, FAIL(E_TOO_LARGE));
    } else if (!text_is_utf8(text) || slice_find(text, '\0') < text.size) {
        keep_failure(q, FAIL(E_MALFORMED));
    }
    *value_of(q, index) = (struct sql_value){.kind = SQL_TEXT, .bytes = text};
}

void sql_bind_text(struct sql_query *q, unsigned index, const char *text)
{
    sql_bind_slice_text(q, index, slice_str(text));
}

void sql_bind_bytes(struct sql_query *q, unsigned index, struct slice bytes)
{
    if (bytes.size > SQL_BYTES_MAX) {
        keep_failure(q, FAIL(E_TOO_LARGE));
    }
    *value_of(q, index) = (struct sql_value){.kind = SQL_BYTES, .bytes = bytes};
}

void sql_bind_number(struct sql_query *q, unsigned index, uint64_t number)
{
    if (number > INT64_MAX) {
        keep_failure(q, FAIL(E_TOO_LARGE));
    }
    *value_of(q, index) = (struct sql_value){.kind = SQL_NUMBER, .number = number};
}

struct err sql_row(struct sql_query *q, bool *out_found)
{
    TRY(q->failure);
    bool found = false;
    q->failure = q->db->driver->step(q, &found);
    TRY(q->failure);
    *out_found = found;
    return OK;
}

struct err sql_run(struct sql_query *q)
{
    for (bool found = true; found;) {
        TRY(sql_row(q, &found));
    }
    return OK;
}

uint64_t sql_number(const struct sql_query *q, int column)
{
    return q->db->driver->number(q, column);
}

struct slice sql_bytes(const struct sql_query *q, int column)
{
    return q->db->driver->bytes(q, column);
}

void sql_text(const struct sql_query *q, int column, char *out, size_t size)
{
    CHECK(size > 0);
    struct slice text = slice_head(sql_bytes(q, column), size - 1);
    if (text.size > 0) {
        (void)memcpy(out, text.ptr, text.size);
    }
    out[text.size] = '\0';
}

void sql_copy(const struct sql_query *q, int column, uint8_t *out, size_t size)
{
    struct slice bytes = sql_bytes(q, column);
    (void)memset(out, 0, size);
    if (bytes.size == size && size > 0) {
        (void)memcpy(out, bytes.ptr, size);
    }
}

/* ---- transactions ---- */

static void bind_fence(struct sql_query *q, const struct sql_fence *fence)
{
    sql_bind_text(q, 1, fence->environment);
    sql_bind_bytes(q, 2, fence->holder);
    sql_bind_number(q, 3, fence->epoch);
}

/* Early and without a lock, for a clear answer: who lost the row long ago is told before it sends
 * anything. What decides is the fence that goes with the commit. */
static struct err look_at_fence(struct sql *db, const struct sql_fence *fence)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT 1 FROM leader WHERE environment = $1 AND holder = $2 AND epoch = $3"
              " AND expires_ms > trilane_now()");
    bind_fence(&q, fence);
    bool found = false;
    TRY(sql_row(&q, &found));
    return found ? OK : FAIL(E_NOT_LEADER);
}

/*
 * trilane_fence() fails unless the row is the fence's own and has not run out, and holds it fast:
 * whoever takes the row waits until this transaction is over. So none commits after a take-over. It
 * is asked last and in one go with the commit: a process that is stopped in the middle of its
 * transaction holds everything else up, but never the row itself.
 */
static struct err commit(struct sql *db, const struct sql_fence *fence)
{
    if (fence == NULL) {
        return db->driver->commit(db, /* guard= */ NULL);
    }
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT trilane_fence($1, $2, $3)");
    bind_fence(&q, fence);
    return db->driver->commit(db, &q);
}

static struct err run_body(struct sql *db, const struct sql_work *work)
{
    /* One that runs again must meet the one before it, which may still be at work, in the body. */
    if (work->fence != NULL && !db->unknown) {
        TRY(look_at_fence(db, work->fence));
    }
    TRY(work->body(db, work->ctx));
    return commit(db, work->fence);
}

static struct err attempt(struct sql *db, const struct sql_work *work)
{
    CHECK(!db->open); /* no transaction in another. */
    db->accident = SQL_NO_ACCIDENT;
    TRY(db->driver->room(db, work->bytes));
    TRY(db->driver->begin(db, work->once ? SQL_WRITE_SLOWLY : SQL_WRITE));
    db->open = true;
    struct err e = run_body(db, work);
    if (!err_ok(e)) {
        enum sql_accident accident = db->accident; /* the cause; undoing may meet others. */
        db->driver->rollback(db);
        db->accident = accident;
    }
    db->open = false;
    return db->unknown && e.code == E_EXISTS ? OK : e;
}

/* Whether a failure leaves open what became of the attempt before it. */
static bool is_silent(struct err e)
{
    static const enum err_code silent[] = {
        E_UNAVAILABLE, E_STORE_LOCKED, E_STORE_DEPOSED, E_RESULT_UNKNOWN,
        E_STORE_NEWER, E_STORE_FULL,   E_NO_MEMORY,     E_IO};
    for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++) {
        if (e.code == silent[i]) {
            return true;
        }
    }
    return false;
}

struct err sql_transact(struct sql *db, const struct sql_work *work)
{
    struct err e = OK;
    bool lost = false;
    db->unknown = false;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        e = attempt(db, work);
        bool again = !err_ok(e) && !work->once &&
                     (db->accident == SQL_COLLISION || db->accident == SQL_UNKNOWN ||
                      (db->accident == SQL_LOST && !lost));
        if (!again) {
            break;
        }
        lost = lost || db->accident == SQL_LOST;
        db->unknown = db->unknown || db->accident == SQL_UNKNOWN;
    }
    e = db->unknown && is_silent(e) ? FAIL(E_RESULT_UNKNOWN) : e;
    db->unknown = false;
    return e;
}

struct err sql_snapshot(struct sql *db, sql_body_fn *body, void *ctx)
{
    CHECK(!db->open);
    TRY(db->driver->begin(db, SQL_SNAPSHOT));
    db->open = true;
    struct err e = body(db, ctx);
    db->driver->rollback(db); /* it only read. */
    db->open = false;
    return e;
}
