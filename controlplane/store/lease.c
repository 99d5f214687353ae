/*
 * lease: the leader's row. One conditional statement takes or renews it, so two replicas that race
 * are told apart by the database and by nothing else. Doing it again does no harm.
 */
#include "controlplane/store/store_in.h"

enum { LEASE_MAX_MS = 60000 }; /* of limits.lease_ms. */

struct lease {
    const struct cp_lease_wish *wish;
    struct cp_lease out;
};

static struct err read_row(struct sql *db, const char *environment, struct cp_lease *out,
                           uint8_t holder[CP_HOLDER_SIZE])
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT epoch, expires_ms, trilane_now(), name, address, holder, warrant FROM leader"
              " WHERE environment = $1");
    sql_bind_text(&q, 1, environment);
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    *out = (struct cp_lease){.epoch = sql_number(&q, 0),
                             .expires_ms = (int64_t)sql_number(&q, 1),
                             .now_ms = (int64_t)sql_number(&q, 2)};
    sql_text(&q, 3, out->name, sizeof(out->name));
    sql_text(&q, 4, out->address, sizeof(out->address));
    sql_copy(&q, 5, holder, CP_HOLDER_SIZE);
    sql_copy(&q, 6, out->warrant, sizeof(out->warrant));
    return OK;
}

static struct err take(struct sql *db, void *ctx)
{
    struct lease *lease = ctx;
    const struct cp_lease_wish *wish = lease->wish;
    {
        auto_sql struct sql_query q;
        /* Renewed by its holder even when it ran out: nobody took it in between. An end further
         * off than any lease is long was written by a clock that was put right since. */
        sql_begin(&q, db,
                  "INSERT INTO leader (environment, epoch, holder, name, address, expires_ms,"
                  " warrant) VALUES ($1, $5 + 1, $2, $3, $6, trilane_now() + $4, $8)"
                  " ON CONFLICT (environment) DO UPDATE SET"
                  " epoch = CASE WHEN leader.holder = $2 AND leader.epoch > $5 THEN leader.epoch"
                  "              WHEN leader.epoch > $5 THEN leader.epoch + 1 ELSE $5 + 1 END,"
                  " holder = $2, name = $3, address = $6, expires_ms = trilane_now() + $4,"
                  " warrant = $8"
                  " WHERE leader.holder = $2 OR leader.expires_ms <= trilane_now()"
                  " OR leader.expires_ms > trilane_now() + $7");
        sql_bind_text(&q, 1, wish->environment);
        sql_bind_bytes(&q, 2, slice_of(wish->holder, sizeof(wish->holder)));
        sql_bind_text(&q, 3, wish->name);
        sql_bind_number(&q, 4, wish->lease_ms);
        sql_bind_number(&q, 5, wish->epoch_above);
        sql_bind_text(&q, 6, wish->address);
        sql_bind_number(&q, 7, LEASE_MAX_MS);
        sql_bind_bytes(&q, 8, slice_of(wish->warrant, sizeof(wish->warrant)));
        TRY(sql_run(&q));
    }
    uint8_t holder[CP_HOLDER_SIZE];
    TRY(read_row(db, wish->environment, &lease->out, holder));
    lease->out.held = memcmp(holder, wish->holder, sizeof(holder)) == 0;
    return OK;
}

struct err cp_op_lease_take(struct cp_store *store, const struct cp_lease_wish *wish,
                            struct cp_lease *out)
{
    struct lease lease = {.wish = wish};
    TRY(cp_write(store, &(struct cp_write){0}, take, &lease));
    *out = lease.out;
    return OK;
}

static struct err drop(struct sql *db, void *ctx)
{
    const struct cp_fence *fence = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db, "UPDATE leader SET expires_ms = 0 WHERE environment = $1 AND holder = $2");
    sql_bind_text(&q, 1, fence->environment);
    sql_bind_bytes(&q, 2, slice_of(fence->holder, sizeof(fence->holder)));
    return sql_run(&q);
}

struct err cp_op_lease_drop(struct cp_store *store, const struct cp_fence *fence)
{
    struct cp_fence row = *fence;
    return cp_write(store, &(struct cp_write){0}, drop, &row);
}

struct err cp_op_lease_read(struct cp_store *store, const char *environment, struct cp_lease *out)
{
    uint8_t holder[CP_HOLDER_SIZE];
    return read_row(cp_db(store), environment, out, holder);
}
