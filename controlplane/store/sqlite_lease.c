/*
 * sqlite_lease: the leader's row. One conditional statement takes or renews it, so two replicas
 * that race are told apart by the database and by nothing else.
 */
#include "controlplane/store/sqlite_in.h"

struct err cp_sqlite_fence(sqlite3 *db, const struct cp_fence *fence)
{
    auto_sql struct sql s;
    sql_begin(&s, db,
              "SELECT 1 FROM leader WHERE environment = ?1 AND holder = ?2 AND epoch = ?3"
              " AND expires_ms > " SQL_NOW);
    sql_bind_text(&s, 1, fence->environment);
    sql_bind_bytes(&s, 2, slice_of(fence->holder, sizeof(fence->holder)));
    sql_bind_number(&s, 3, fence->epoch);
    bool found = false;
    TRY(sql_row(&s, &found));
    return found ? OK : FAIL(E_NOT_LEADER);
}

static struct err read_row(sqlite3 *db, const char *environment, struct cp_lease *out,
                           uint8_t holder[CP_HOLDER_SIZE])
{
    auto_sql struct sql s;
    sql_begin(&s, db,
              "SELECT epoch, expires_ms, " SQL_NOW ", name, holder FROM leader"
              " WHERE environment = ?1");
    sql_bind_text(&s, 1, environment);
    bool found = false;
    TRY(sql_row(&s, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    *out = (struct cp_lease){.epoch = sql_number(&s, 0),
                             .expires_ms = (int64_t)sql_number(&s, 1),
                             .now_ms = (int64_t)sql_number(&s, 2)};
    sql_text(&s, 3, out->name, sizeof(out->name));
    sql_copy(&s, 4, holder, CP_HOLDER_SIZE);
    return OK;
}

static struct err take(sqlite3 *db, const struct cp_lease_wish *wish, struct cp_lease *out)
{
    auto_sql struct sql s;
    /* Renewed by its holder even when it ran out: nobody took it in between. */
    sql_begin(&s, db,
              "INSERT INTO leader (environment, epoch, holder, name, expires_ms)"
              " VALUES (?1, ?5 + 1, ?2, ?3, " SQL_NOW " + ?4)"
              " ON CONFLICT (environment) DO UPDATE SET"
              " epoch = CASE WHEN holder = ?2 AND epoch > ?5 THEN epoch"
              "              ELSE max(epoch, ?5) + 1 END,"
              " holder = ?2, name = ?3, expires_ms = " SQL_NOW " + ?4"
              " WHERE holder = ?2 OR expires_ms <= " SQL_NOW);
    sql_bind_text(&s, 1, wish->environment);
    sql_bind_bytes(&s, 2, slice_of(wish->holder, sizeof(wish->holder)));
    sql_bind_text(&s, 3, wish->name);
    sql_bind_number(&s, 4, wish->lease_ms);
    sql_bind_number(&s, 5, wish->epoch_above);
    TRY(sql_run(&s));
    uint8_t holder[CP_HOLDER_SIZE];
    TRY(read_row(db, wish->environment, out, holder));
    out->held = memcmp(holder, wish->holder, sizeof(holder)) == 0;
    return OK;
}

struct err cp_sqlite_lease_take(struct cp_store *store, const struct cp_lease_wish *wish,
                                struct cp_lease *out)
{
    sqlite3 *db = cp_sqlite_db(store);
    struct cp_lease lease = {0};
    TRY(cp_sqlite_write(db));
    TRY(cp_sqlite_done(db, take(db, wish, &lease)));
    *out = lease;
    return OK;
}

struct err cp_sqlite_lease_drop(struct cp_store *store, const struct cp_fence *fence)
{
    auto_sql struct sql s;
    sql_begin(&s, cp_sqlite_db(store),
              "UPDATE leader SET expires_ms = 0 WHERE environment = ?1 AND holder = ?2");
    sql_bind_text(&s, 1, fence->environment);
    sql_bind_bytes(&s, 2, slice_of(fence->holder, sizeof(fence->holder)));
    return sql_run(&s);
}

struct err cp_sqlite_lease_read(struct cp_store *store, const char *environment,
                                struct cp_lease *out)
{
    uint8_t holder[CP_HOLDER_SIZE];
    return read_row(cp_sqlite_db(store), environment, out, holder);
}
