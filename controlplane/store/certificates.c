/* certificates: what our CA gave out and is not over, and what of it was removed. */
#include "controlplane/store/store_in.h"

/* Past its end: clocks differ, and nothing is lost by looking at it a day longer. */
#define KEPT_MS (24ULL * 3600 * 1000)

#define COLUMNS "node, serial, not_after_ms, warrant, removed_ms, removal"

/* ---- giving out ---- */

struct err cp_certificate_put(struct sql *db, const char *environment, const struct cp_node *node)
{
    if (node->serial[0] == '\0') {
        return OK;
    }
    TRY(cp_run_numbered(db,
                        "DELETE FROM certificate WHERE environment = $1"
                        " AND not_after_ms < trilane_now() - $2",
                        environment, KEPT_MS));
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO certificate (environment, serial, node, not_after_ms, warrant,"
              " removed_ms, removal) VALUES ($1, $2, $3, $4, $5, 0, $6)"
              " ON CONFLICT (environment, serial) DO NOTHING"); /* this transaction runs again. */
    sql_bind_text(&q, 1, environment);
    sql_bind_text(&q, 2, node->serial);
    sql_bind_text(&q, 3, node->id);
    sql_bind_number(&q, 4, (uint64_t)node->not_after_ms);
    sql_bind_bytes(&q, 5, slice_of(node->warrant, sizeof(node->warrant)));
    sql_bind_bytes(&q, 6, (struct slice){0});
    return sql_run(&q);
}

/* ---- reading ---- */

static void read_row(const struct sql_query *q, struct cp_certificate *out)
{
    *out = (struct cp_certificate){.not_after_ms = (int64_t)sql_number(q, 2),
                                   .removed_ms = (int64_t)sql_number(q, 4)};
    sql_text(q, 0, out->node, sizeof(out->node));
    sql_text(q, 1, out->serial, sizeof(out->serial));
    sql_copy(q, 3, out->warrant, sizeof(out->warrant));
    sql_copy(q, 5, out->removal, sizeof(out->removal));
}

static struct err visit_rows(struct sql_query *q, cp_store_certificate_fn *visit, void *ctx)
{
    for (;;) { /* ends after the last row. */
        struct cp_certificate certificate;
        bool found = false;
        TRY(sql_row(q, &found));
        if (!found) {
            return OK;
        }
        read_row(q, &certificate);
        TRY(visit(ctx, &certificate));
    }
}

struct err cp_op_certificates_of(struct cp_store *store, const char *environment, const char *node,
                                 cp_store_certificate_fn *visit, void *ctx)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT " COLUMNS " FROM certificate WHERE environment = $1 AND node = $2"
              " AND not_after_ms > trilane_now() ORDER BY serial");
    sql_bind_text(&q, 1, environment);
    sql_bind_text(&q, 2, node);
    return visit_rows(&q, visit, ctx);
}

struct err cp_op_certificates_removed(struct cp_store *store, const char *environment,
                                      cp_store_certificate_fn *visit, void *ctx)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT " COLUMNS " FROM certificate WHERE environment = $1 AND removed_ms > 0"
              " AND not_after_ms > trilane_now() ORDER BY serial");
    sql_bind_text(&q, 1, environment);
    return visit_rows(&q, visit, ctx);
}

/* ---- removing ---- */

struct removal {
    const char *environment;
    const struct cp_certificate *certificate;
};

static struct err remove_one(struct sql *db, void *ctx)
{
    const struct removal *r = ctx;
    const struct cp_certificate *c = r->certificate;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO certificate (environment, serial, node, not_after_ms, warrant,"
              " removed_ms, removal) VALUES ($1, $2, $3, $4, $5, trilane_now(), $6)"
              " ON CONFLICT (environment, serial) DO UPDATE SET node = $3, not_after_ms = $4,"
              " warrant = $5, removed_ms = trilane_now(), removal = $6");
    sql_bind_text(&q, 1, r->environment);
    sql_bind_text(&q, 2, c->serial);
    sql_bind_text(&q, 3, c->node);
    sql_bind_number(&q, 4, (uint64_t)c->not_after_ms);
    sql_bind_bytes(&q, 5, slice_of(c->warrant, CP_WARRANT_SIZE));
    sql_bind_bytes(&q, 6, slice_of(c->removal, CP_WARRANT_SIZE));
    return sql_run(&q);
}

struct err cp_op_certificate_remove(struct cp_store *store, const char *environment,
                                    const struct cp_certificate *certificate)
{
    struct removal r = {.environment = environment, .certificate = certificate};
    return cp_write(store, &(struct cp_write){0}, remove_one, &r);
}
