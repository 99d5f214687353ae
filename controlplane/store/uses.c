/* uses: what versions name, as what changed between them; see migrations/. */
#include "controlplane/store/store_in.h"

/* Digests that only versions below 'oldest' name, a batch of them; some may come twice. */
static struct err find(struct sql *db, const struct cp_uses *uses, const char *environment,
                       uint64_t oldest, struct cp_digests *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, uses->find);
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, oldest);
    sql_bind_number(&q, 3, SQL_LIST_MAX);
    out->count = 0;
    for (bool found = true; found && out->count < SQL_LIST_MAX;) {
        TRY(sql_row(&q, &found));
        if (found) {
            sql_copy(&q, 0, out->digests[out->count++], DIGEST_SIZE);
        }
    }
    return OK;
}

static struct err forget(struct sql *db, const struct cp_uses *uses, const char *environment,
                         uint64_t oldest, const struct cp_digests *which)
{
    auto_sql struct sql_query q;
    sql_begin_list(&q, db, uses->forget, 3, which->count);
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, oldest);
    for (unsigned i = 0; i < which->count; i++) {
        sql_bind_bytes(&q, 3 + i, slice_of(which->digests[i], DIGEST_SIZE));
    }
    return sql_run(&q);
}

static struct err remove_unused(struct sql *db, const struct cp_uses *uses,
                                const struct cp_digests *which)
{
    auto_sql struct sql_query q;
    sql_begin_list(&q, db, uses->remove, 1, which->count);
    for (unsigned i = 0; i < which->count; i++) {
        sql_bind_bytes(&q, 1 + i, slice_of(which->digests[i], DIGEST_SIZE));
    }
    return sql_run(&q);
}

struct err cp_uses_drop(struct sql *db, const struct cp_uses *uses, const char *environment,
                        uint64_t oldest)
{
    for (;;) { /* ends: each turn forgets what it found. */
        struct cp_digests which;
        TRY(find(db, uses, environment, oldest, &which));
        if (which.count == 0) {
            return OK;
        }
        TRY(forget(db, uses, environment, oldest, &which));
        TRY(remove_unused(db, uses, &which));
    }
}
