/* replicas: which keys each replica signs with, as it said last. */
#include "controlplane/store/store_in.h"

enum { KEPT_DAYS = 7, KEY_SIZE = 32 };
_Static_assert(sizeof(((struct cp_replica *)0)->manifest_key) == KEY_SIZE, "as the table has it");

struct put {
    const char *environment;
    const struct cp_replica *replica;
};

static struct err drop_old(struct sql *db, const char *environment)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "DELETE FROM replica WHERE environment = $1 AND seen_ms < trilane_now() - $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, (uint64_t)KEPT_DAYS * 86400000);
    return sql_run(&q);
}

static struct err put(struct sql *db, void *ctx)
{
    const struct put *p = ctx;
    TRY(drop_old(db, p->environment));
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO replica (environment, manifest_key, head_key, name, seen_ms)"
              " VALUES ($1, $2, $3, $4, trilane_now())"
              " ON CONFLICT (environment, manifest_key, head_key)"
              " DO UPDATE SET name = excluded.name, seen_ms = excluded.seen_ms");
    sql_bind_text(&q, 1, p->environment);
    sql_bind_bytes(&q, 2, slice_of(p->replica->manifest_key, KEY_SIZE));
    sql_bind_bytes(&q, 3, slice_of(p->replica->head_key, KEY_SIZE));
    sql_bind_text(&q, 4, p->replica->name);
    return sql_run(&q);
}

struct err cp_op_replica_put(struct cp_store *store, const char *environment,
                             const struct cp_replica *replica)
{
    struct put p = {.environment = environment, .replica = replica};
    return cp_write(store, &(struct cp_write){.bytes = 0}, put, &p);
}

struct err cp_op_replica_list(struct cp_store *store, const char *environment,
                              struct cp_replica out[CP_REPLICAS_MAX], size_t *out_count)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT manifest_key, head_key, name, seen_ms, trilane_now() - seen_ms FROM replica"
              " WHERE environment = $1 ORDER BY seen_ms DESC LIMIT $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, CP_REPLICAS_MAX);
    size_t count = 0;
    for (bool found = true; found && count < CP_REPLICAS_MAX;) {
        TRY(sql_row(&q, &found));
        if (found) {
            struct cp_replica *r = &out[count++];
            *r = (struct cp_replica){.seen_ms = (int64_t)sql_number(&q, 3),
                                     .age_ms = (int64_t)sql_number(&q, 4)};
            sql_copy(&q, 0, r->manifest_key, sizeof(r->manifest_key));
            sql_copy(&q, 1, r->head_key, sizeof(r->head_key));
            sql_text(&q, 2, r->name, sizeof(r->name));
        }
    }
    *out_count = count;
    return OK;
}
