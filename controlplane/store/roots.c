/* roots: the roots of trust, in order. Whoever puts one has judged it. */
#include "controlplane/store/store_in.h"

enum { PAGE_ROOTS = 32 };

struct root {
    const char *environment;
    uint64_t version;
    struct slice container;
};

static struct err find_newest(struct sql *db, const struct root *root, uint64_t *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT coalesce(max(number), 0) FROM root WHERE environment = $1");
    sql_bind_text(&q, 1, root->environment);
    bool found = false;
    TRY(sql_row(&q, &found));
    *out = found ? sql_number(&q, 0) : 0;
    return OK;
}

static struct err insert_root(struct sql *db, const struct root *root)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO root (environment, number, container) VALUES ($1, $2, $3)"
              " ON CONFLICT (environment, number) DO NOTHING");
    sql_bind_text(&q, 1, root->environment);
    sql_bind_number(&q, 2, root->version);
    sql_bind_bytes(&q, 3, root->container);
    return sql_run(&q);
}

static struct err put(struct sql *db, void *ctx)
{
    const struct root *root = ctx;
    uint64_t newest = 0;
    TRY(find_newest(db, root, &newest));
    if (newest == 0 || root->version == newest + 1) {
        TRY(insert_root(db, root));
    }
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT container FROM root WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, root->environment);
    sql_bind_number(&q, 2, root->version);
    bool found = false;
    TRY(sql_row(&q, &found));
    return found && slice_eq(sql_bytes(&q, 0), root->container) ? OK : FAIL(E_CONFLICT);
}

struct err cp_op_root_put(struct cp_store *store, const char *environment, uint64_t version,
                          struct slice container)
{
    struct root root = {.environment = environment, .version = version, .container = container};
    return cp_write(store, &(struct cp_write){.bytes = container.size}, put, &root);
}

/* Visits a page; *version becomes the one behind the last. */
static struct err visit_page(struct sql_query *q, cp_store_root_fn *visit, void *ctx,
                             uint64_t *version, size_t *out_count)
{
    for (*out_count = 0;; (*out_count)++) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(q, &found));
        if (!found) {
            return OK;
        }
        TRY(visit(ctx, sql_number(q, 0), sql_bytes(q, 1)));
        *version = sql_number(q, 0) + 1;
    }
}

struct err cp_op_roots_get(struct cp_store *store, const char *environment, uint64_t version,
                           cp_store_root_fn *visit, void *ctx)
{
    for (size_t count = PAGE_ROOTS; count == PAGE_ROOTS;) {
        auto_sql struct sql_query q;
        sql_begin(&q, cp_db(store),
                  "SELECT number, container FROM root WHERE environment = $1 AND number >= $2"
                  " ORDER BY number LIMIT $3");
        sql_bind_text(&q, 1, environment);
        sql_bind_number(&q, 2, version);
        sql_bind_number(&q, 3, PAGE_ROOTS);
        TRY(visit_page(&q, visit, ctx, &version, &count));
    }
    return OK;
}
