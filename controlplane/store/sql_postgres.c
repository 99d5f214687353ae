/*
 * sql_postgres: the driver of the database that replicas share.
 *
 * Isolation is READ COMMITTED, and what must not change meanwhile is locked by the statement that
 * needs it: a number, a turn, a token or the leader's row is taken by an INSERT or UPDATE, so a
 * second transaction waits for the first and then sees what it did. REPEATABLE READ would answer
 * the second one with a failure instead (the row changed since its snapshot), and SERIALIZABLE
 * would add failures that depend on the plans of unrelated reads; both would have to run whole
 * publications again to learn what a wait of a millisecond tells. A deadlock, and a failure to
 * serialise that a server's own settings bring about, are run again a few times by sql_transact().
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "controlplane/store/migrations.h"
#include "controlplane/store/postgres_link.h"
#include "controlplane/store/sql_driver.h"

enum {
    OID_BYTES = 17,
    OID_NUMBER = 20,
    OID_TEXT = 25,
    MIGRATE_MS = 60000, /* for one migration, and for who waits for another replica's. */
    SETUP_MAX = 1024,
};
#define MIGRATE_LOCK "4968313046518273" /* whoever migrates holds it; any number of our own. */

struct postgres {
    struct sql sql; /* first: a struct sql is cast to its driver's. */
    struct pg_link link;
    bool is_fresh; /* the connection was made for the statement that runs. */
    uint64_t lock_wait_ms;
};

static struct postgres *of(struct sql *db)
{
    return (struct postgres *)db;
}

/* ---- failures ---- */

struct verdict {
    const char *state; /* SQLSTATE, or how it begins. */
    enum err_code code;
    enum sql_accident accident;
};

static const struct verdict verdicts[] = {
    {"TL001", E_NOT_LEADER, SQL_NO_ACCIDENT},   /* trilane_fence() */
    {"40001", E_UNAVAILABLE, SQL_COLLISION},    /* serialization_failure */
    {"40P01", E_UNAVAILABLE, SQL_COLLISION},    /* deadlock_detected */
    {"23", E_CONFLICT, SQL_NO_ACCIDENT},        /* integrity constraint violation */
    {"22003", E_TOO_LARGE, SQL_NO_ACCIDENT},    /* numeric_value_out_of_range */
    {"22", E_MALFORMED, SQL_NO_ACCIDENT},       /* data exception */
    {"54", E_TOO_LARGE, SQL_NO_ACCIDENT},       /* program limit exceeded */
    {"53100", E_STORE_FULL, SQL_NO_ACCIDENT},   /* disk_full */
    {"53", E_UNAVAILABLE, SQL_NO_ACCIDENT},     /* insufficient resources */
    {"57014", E_UNAVAILABLE, SQL_NO_ACCIDENT},  /* query_canceled */
    {"55P03", E_STORE_LOCKED, SQL_NO_ACCIDENT}, /* lock_timeout */
    {"25006", E_UNAVAILABLE, SQL_LOST},         /* read only: it became a standby */
    {"25P03", E_UNAVAILABLE, SQL_LOST},         /* idle_in_transaction_session_timeout */
    {"57P", E_UNAVAILABLE, SQL_LOST},           /* shut down, crashed, starting, dropped */
    {"08", E_UNAVAILABLE, SQL_LOST},            /* connection exception */
};

static struct err judge_state(struct postgres *p, const PGresult *result, const char *state)
{
    for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        const struct verdict *v = &verdicts[i];
        if (strncmp(state, v->state, strlen(v->state)) == 0) {
            p->sql.accident = v->accident;
            if (v->accident == SQL_LOST) {
                pg_link_drop(&p->link, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
            }
            return FAIL(v->code);
        }
    }
    LOG(LOG_ERROR, "store", "postgres_failed", LOG_STR("state", state),
        LOG_STR("message", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)));
    return FAIL(E_IO);
}

/* A result as an error; one without a SQLSTATE is libpq's own: the connection broke. */
static struct err judge(struct postgres *p, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_PIPELINE_SYNC) {
        return OK;
    }
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (state == NULL) {
        p->sql.accident = SQL_LOST;
        pg_link_drop(&p->link, "it broke");
        return FAIL(E_UNAVAILABLE);
    }
    return judge_state(p, result, state);
}

/* The link failed: whether the connection broke decides what may run again. */
static struct err note_link(struct postgres *p, struct err e)
{
    if (!err_ok(e)) {
        p->sql.accident = p->link.is_lost ? SQL_LOST : SQL_NO_ACCIDENT;
    }
    return e;
}

/* ---- asking ---- */

/* Takes every result of what was sent; *out gets the last one with rows, or the last. The first
 * failure is the answer. */
static struct err take_results(struct postgres *p, struct pg_timer *timer, PGresult **out)
{
    struct err e = OK;
    PGresult *kept = NULL;
    for (;;) { /* ends behind the last result, or with the connection. */
        PGresult *result = NULL;
        struct err got = note_link(p, pg_link_result(&p->link, timer, &result));
        if (!err_ok(got) || result == NULL) {
            e = err_ok(e) ? got : e;
            break;
        }
        e = err_ok(e) ? judge(p, result) : e;
        PQclear(kept);
        kept = result;
        if (p->link.conn == NULL) {
            break;
        }
    }
    if (!err_ok(e)) {
        PQclear(kept);
        return e;
    }
    *out = kept;
    return OK;
}

static struct err sent(struct postgres *p, int done)
{
    if (done == 0) {
        p->sql.accident = SQL_LOST;
        pg_link_drop(&p->link, "it broke");
        return FAIL(E_UNAVAILABLE);
    }
    return OK;
}

/* Text without values; several statements may follow each other. 'out' may be NULL. */
static struct err ask_text(struct postgres *p, const char *text, uint64_t timeout_ms,
                           PGresult **out)
{
    struct pg_timer timer = pg_timer_start(timeout_ms);
    PGresult *result = NULL;
    TRY(sent(p, PQsendQuery(p->link.conn, text)));
    TRY(note_link(p, pg_link_flush(&p->link, &timer)));
    TRY(take_results(p, &timer, &result));
    if (out != NULL) {
        *out = result;
    } else {
        PQclear(result);
    }
    return OK;
}

/* Values as libpq wants them: in binary, numbers in the order of the network. */
struct values {
    Oid types[SQL_VALUES_MAX];
    const char *starts[SQL_VALUES_MAX];
    int sizes[SQL_VALUES_MAX];
    int formats[SQL_VALUES_MAX];
    uint8_t numbers[SQL_VALUES_MAX][8];
};

static void fill_value(struct values *v, unsigned i, const struct sql_value *value)
{
    v->formats[i] = 1;
    if (value->kind == SQL_NUMBER) {
        for (unsigned k = 0; k < 8; k++) {
            v->numbers[i][k] = (uint8_t)(value->number >> (56 - 8 * k));
        }
        v->types[i] = OID_NUMBER;
        v->starts[i] = (const char *)v->numbers[i];
        v->sizes[i] = 8;
        return;
    }
    v->types[i] = value->kind == SQL_TEXT ? OID_TEXT : OID_BYTES;
    v->starts[i] = value->bytes.size == 0 ? "" : (const char *)value->bytes.ptr; /* NULL is NULL. */
    v->sizes[i] = (int)value->bytes.size;
}

static int send_query(struct postgres *p, const struct sql_query *q, struct values *v)
{
    for (unsigned i = 0; i < q->value_count; i++) {
        CHECK(q->values[i].kind != SQL_NOTHING); /* the text has every place up to the last. */
        fill_value(v, i, &q->values[i]);
    }
    return PQsendQueryParams(p->link.conn, q->text, (int)q->value_count, v->types, v->starts,
                             v->sizes, v->formats, /* resultFormat= */ 1);
}

static struct err ask(struct postgres *p, struct sql_query *q)
{
    struct values v;
    PGresult *result = NULL;
    struct pg_timer timer = pg_timer_start(limits.store_timeout_ms);
    TRY(sent(p, send_query(p, q, &v)));
    TRY(note_link(p, pg_link_flush(&p->link, &timer)));
    TRY(take_results(p, &timer, &result));
    q->answer = result;
    q->row = -1;
    return OK;
}

/* ---- the schema ---- */

static struct err read_schema(struct postgres *p, uint64_t *out)
{
    PGresult *result = NULL;
    TRY(ask_text(p, "SELECT number FROM trilane_schema", limits.store_timeout_ms, &result));
    bool read = PQntuples(result) == 1 && slice_to_u64(slice_str(PQgetvalue(result, 0, 0)), out);
    PQclear(result);
    return read ? OK : FAIL(E_IO);
}

static struct err apply(struct postgres *p, struct buf *message)
{
    uint64_t schema = 0;
    TRY(read_schema(p, &schema));
    if (schema > cp_migrations_postgresql_count) {
        if (message != NULL) {
            TRY(buf_addf(message,
                         "store: the database has schema %" PRIu64 ", this release knows up to "
                         "%zu; run the release that made it",
                         schema, cp_migrations_postgresql_count));
        }
        return FAIL(E_STORE_NEWER);
    }
    for (; schema < cp_migrations_postgresql_count; schema++) {
        char text[64];
        TRY(ask_text(p, cp_migrations_postgresql[schema], MIGRATE_MS, /* out= */ NULL));
        (void)snprintf(text, sizeof(text), "UPDATE trilane_schema SET number = %" PRIu64,
                       schema + 1);
        TRY(ask_text(p, text, limits.store_timeout_ms, /* out= */ NULL));
    }
    return OK;
}

/*
 * One replica migrates, under a lock that ends with the transaction. The table of the schema's
 * number is locked, too: every writing transaction reads it first, so those of an older release end
 * before, and those that come behind see that they are older.
 */
static struct err migrate(struct postgres *p, struct buf *message)
{
    static const char begin[] =
        "BEGIN;"
        "SET LOCAL statement_timeout = 0;"
        "SET LOCAL idle_in_transaction_session_timeout = 0;"
        "SELECT pg_advisory_xact_lock(" MIGRATE_LOCK ");"
        "CREATE TABLE IF NOT EXISTS trilane_schema (number bigint NOT NULL);"
        "LOCK TABLE trilane_schema IN ACCESS EXCLUSIVE MODE;"
        "INSERT INTO trilane_schema SELECT 0"
        " WHERE NOT EXISTS (SELECT 1 FROM trilane_schema)";
    TRY(ask_text(p, begin, MIGRATE_MS, /* out= */ NULL));
    struct err e = apply(p, message);
    if (err_ok(e)) {
        return ask_text(p, "COMMIT", MIGRATE_MS, /* out= */ NULL);
    }
    pg_link_drop(&p->link, "the migration failed"); /* which undoes it. */
    return e;
}

/* Whether there is a schema at all, without a failure when there is none. */
static struct err find_schema(struct postgres *p, uint64_t *out)
{
    PGresult *result = NULL;
    TRY(ask_text(p, "SELECT to_regclass('trilane_schema') IS NOT NULL", limits.store_timeout_ms,
                 &result));
    bool there = PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
    PQclear(result);
    *out = 0;
    return there ? read_schema(p, out) : OK;
}

/* ---- a session ---- */

/*
 * A wait for a lock ends with the server's error before it ends with our connection; what goes on
 * for us alone ends, too, when we are gone. A transaction of ours that stands still, since this
 * process was stopped, is ended by the server, and with it what it holds. What is committed is on
 * disk, also when the database is set up to be faster than that.
 */
static struct err set_up(struct postgres *p)
{
    char text[SETUP_MAX];
    (void)snprintf(text, sizeof(text),
                   "SET lock_timeout = %" PRIu64 ";"
                   "SET statement_timeout = %" PRIu64 ";"
                   "SET idle_in_transaction_session_timeout = %" PRIu64 ";"
                   "SET client_min_messages = warning;"
                   "SELECT set_config('synchronous_commit', 'on', false) WHERE"
                   " current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
                   p->lock_wait_ms, limits.store_timeout_ms * PG_TIMER_STEPS,
                   limits.store_timeout_ms / 2);
    return ask_text(p, text, limits.store_timeout_ms, /* out= */ NULL);
}

static struct err check_encoding(struct postgres *p, struct buf *message)
{
    const char *encoding = PQparameterStatus(p->link.conn, "server_encoding");
    if (encoding != NULL && strcmp(encoding, "UTF8") == 0) {
        return OK;
    }
    if (message != NULL) {
        TRY(buf_addf(message, "store: the database's encoding is %s; expected UTF8",
                     encoding == NULL ? "unknown" : encoding));
    }
    return FAIL(E_USAGE);
}

static struct err begin_session(struct postgres *p, struct buf *message)
{
    uint64_t schema = 0;
    TRY(check_encoding(p, message));
    TRY(set_up(p));
    TRY(find_schema(p, &schema));
    /* Also a newer one goes there: for its sentence. */
    return schema == cp_migrations_postgresql_count ? OK : migrate(p, message);
}

/* Connects unless it is connected. */
static struct err ensure(struct postgres *p, struct buf *message)
{
    if (p->link.conn != NULL && pg_link_is_deposed(&p->link)) {
        pg_link_drop(&p->link, "a standby of it was promoted");
    }
    p->is_fresh = p->link.conn == NULL;
    if (!p->is_fresh) {
        return OK;
    }
    TRY(note_link(p, pg_link_connect(&p->link, message)));
    struct err e = begin_session(p, message);
    if (!err_ok(e)) {
        p->sql.accident = SQL_NO_ACCIDENT; /* a server that is coming up: not again at once. */
        pg_link_drop(&p->link, err_name(e.code));
    }
    return e;
}

/* ---- the driver ---- */

/* A read outside of a transaction may be asked again, of a connection that is newer. */
static struct err first_step(struct sql_query *q)
{
    struct postgres *p = of(q->db);
    if (q->db->open) {
        return p->link.conn == NULL ? FAIL(E_UNAVAILABLE) : ask(p, q);
    }
    q->db->accident = SQL_NO_ACCIDENT;
    TRY(ensure(p, /* message= */ NULL));
    struct err e = ask(p, q);
    if (!err_ok(e) && q->db->accident == SQL_LOST && !p->is_fresh) {
        TRY(ensure(p, /* message= */ NULL));
        e = ask(p, q);
    }
    return e;
}

static struct err step(struct sql_query *q, bool *out_found)
{
    if (q->answer == NULL) {
        TRY(first_step(q));
    }
    q->row++;
    *out_found = q->row < PQntuples(q->answer);
    return OK;
}

static void end(struct sql_query *q)
{
    PQclear(q->answer);
}

static uint64_t number(const struct sql_query *q, int column)
{
    const uint8_t *at = (const uint8_t *)PQgetvalue(q->answer, q->row, column);
    int size = PQgetlength(q->answer, q->row, column);
    CHECK(size <= 8);
    uint64_t value = 0;
    for (int i = 0; i < size; i++) {
        value = value << 8 | at[i];
    }
    bool is_negative = size > 0 && (at[0] & 0x80) != 0;
    return is_negative ? 0 : value;
}

static struct slice bytes(const struct sql_query *q, int column)
{
    return slice_of(PQgetvalue(q->answer, q->row, column),
                    (size_t)PQgetlength(q->answer, q->row, column));
}

static void rollback(struct sql *db)
{
    struct postgres *p = of(db);
    if (p->link.conn == NULL || PQtransactionStatus(p->link.conn) == PQTRANS_IDLE) {
        return;
    }
    struct err e = ask_text(p, "ROLLBACK", limits.store_timeout_ms, /* out= */ NULL);
    if (!err_ok(e)) {
        pg_link_drop(&p->link, "it could not be rolled back");
    }
}

static struct err begin_on(struct postgres *p, const char *text)
{
    PGresult *result = NULL;
    uint64_t schema = 0;
    TRY(ask_text(p, text, limits.store_timeout_ms, &result));
    bool read =
        PQntuples(result) == 1 && slice_to_u64(slice_str(PQgetvalue(result, 0, 0)), &schema);
    PQclear(result);
    if (read && schema == cp_migrations_postgresql_count) {
        return OK;
    }
    if (schema > cp_migrations_postgresql_count) {
        return FAIL(E_STORE_NEWER);
    }
    pg_link_drop(&p->link, "the schema became older"); /* the next connection migrates it. */
    return FAIL(E_UNAVAILABLE);
}

static struct err begin(struct sql *db, enum sql_mode mode)
{
    static const char *const texts[] = {
        [SQL_WRITE] = "BEGIN ISOLATION LEVEL READ COMMITTED;"
                      "SELECT number FROM trilane_schema",
        [SQL_WRITE_SLOWLY] = "BEGIN ISOLATION LEVEL READ COMMITTED;"
                             "SET LOCAL idle_in_transaction_session_timeout = 0;"
                             "SELECT number FROM trilane_schema",
        [SQL_SNAPSHOT] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                         "SET LOCAL idle_in_transaction_session_timeout = 0;"
                         "SELECT number FROM trilane_schema",
    };
    TRY(ensure(of(db), /* message= */ NULL));
    struct err e = begin_on(of(db), texts[mode]);
    if (!err_ok(e)) {
        enum sql_accident accident = db->accident;
        rollback(db);
        db->accident = accident;
    }
    return e;
}

/* The guard, the commit and the mark of their end, in one write; the server passes over a commit
 * behind a guard that failed. */
static struct err send_commit(struct postgres *p, const struct sql_query *guard)
{
    struct values v;
    bool sent_all = PQenterPipelineMode(p->link.conn) == 1 && send_query(p, guard, &v) == 1 &&
                    PQsendQueryParams(p->link.conn, "COMMIT", 0, NULL, NULL, NULL, NULL, 0) == 1 &&
                    PQpipelineSync(p->link.conn) == 1;
    return sent(p, sent_all);
}

static struct err take_commit(struct postgres *p, struct pg_timer *timer)
{
    struct err e = OK;
    for (;;) { /* ends with the mark, or with the connection. */
        PGresult *result = NULL;
        TRY(note_link(p, pg_link_result(&p->link, timer, &result)));
        if (result == NULL) {
            continue; /* between the statements of a pipeline. */
        }
        ExecStatusType status = PQresultStatus(result);
        if (err_ok(e) && status != PGRES_PIPELINE_ABORTED) {
            e = judge(p, result);
        }
        PQclear(result);
        if (p->link.conn == NULL) {
            return e;
        }
        if (status == PGRES_PIPELINE_SYNC) {
            CHECK(PQexitPipelineMode(p->link.conn) == 1); /* nothing is under way. */
            return e;
        }
    }
}

static struct err commit_now(struct postgres *p, const struct sql_query *guard)
{
    struct pg_timer timer = pg_timer_start(limits.store_timeout_ms);
    if (guard == NULL) {
        return ask_text(p, "COMMIT", limits.store_timeout_ms, /* out= */ NULL);
    }
    TRY(guard->failure);
    TRY(send_commit(p, guard));
    TRY(note_link(p, pg_link_flush(&p->link, &timer)));
    return take_commit(p, &timer);
}

/* An error of the server's tells that nothing was committed; silence, and a connection that broke,
 * tell nothing. */
static struct err commit(struct sql *db, struct sql_query *guard)
{
    struct postgres *p = of(db);
    CHECK(p->link.conn != NULL);
    struct err e = commit_now(p, guard);
    if (!err_ok(e) && p->link.conn == NULL) {
        db->accident = SQL_UNKNOWN;
        return FAIL(E_RESULT_UNKNOWN);
    }
    return e;
}

/* Its disk is its operator's: a full one answers for itself. */
static struct err room(struct sql *db, uint64_t size)
{
    (void)db;
    (void)size;
    return OK;
}

static void close_postgres(struct sql *db)
{
    struct postgres *p = of(db);
    pg_link_free(&p->link);
    free(p);
}

static void set_lock_wait(struct sql *db, uint64_t wait_ms)
{
    struct postgres *p = of(db);
    char text[64];
    p->lock_wait_ms = wait_ms;
    (void)snprintf(text, sizeof(text), "SET lock_timeout = %" PRIu64, wait_ms);
    if (p->link.conn != NULL &&
        !err_ok(ask_text(p, text, limits.store_timeout_ms, /* out= */ NULL))) {
        pg_link_drop(&p->link, "its session could not be set up"); /* the next one is. */
    }
}

static const struct sql_driver postgres_driver = {
    .name = "postgresql",
    .set_lock_wait = set_lock_wait,
    .close = close_postgres,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .room = room,
    .step = step,
    .end = end,
    .number = number,
    .bytes = bytes,
};

struct err sql_postgres_open(const char *url, struct sql **out, struct buf *message)
{
    struct postgres *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    p->sql.driver = &postgres_driver;
    p->lock_wait_ms = limits.store_timeout_ms * 3 / 4;
    struct err e = pg_link_init(&p->link, url, message);
    if (!err_ok(e)) {
        free(p);
        return e;
    }
    e = ensure(p, message);
    if (!err_ok(e)) {
        close_postgres(&p->sql);
        if (message->size == 0) {
            TRY(buf_addf(message, "store: the PostgreSQL database is not usable (%s): see the log",
                         err_name(e.code)));
        }
        return e;
    }
    *out = &p->sql;
    return OK;
}
