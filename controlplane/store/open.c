/* store: from a URL to a store, and what its operations share. See store.h. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/store/postgres_link.h"
#include "controlplane/store/sql_driver.h"
#include "controlplane/store/store_in.h"

static void close_store(struct cp_store *store)
{
    struct cp_store_db *s = (struct cp_store_db *)store;
    sql_close(s->db);
    free(s);
}

static void set_lock_wait(struct cp_store *store, uint64_t wait_ms)
{
    struct sql *db = cp_db(store);
    db->driver->set_lock_wait(db, wait_ms);
}

static const struct cp_store_ops operations = {
    .close = close_store,
    .set_lock_wait = set_lock_wait,
    .lease_take = cp_op_lease_take,
    .lease_drop = cp_op_lease_drop,
    .lease_read = cp_op_lease_read,
    .version_hand = cp_op_version_hand,
    .version_raise = cp_op_version_raise,
    .sources_put = cp_op_sources_put,
    .proposal_put = cp_op_proposal_put,
    .proposal_close = cp_op_proposal_close,
    .proposal_open = cp_op_proposal_open,
    .cosign_put = cp_op_cosign_put,
    .cosign_list = cp_op_cosign_list,
    .publish = cp_op_publish,
    .drop_old = cp_op_drop_old,
    .drop_above = cp_op_drop_above,
    .find_request = cp_op_find_request,
    .latest = cp_op_latest,
    .load = cp_op_load,
    .history = cp_op_history,
    .sources_get = cp_op_sources_get,
    .chunk_get = cp_op_chunk_get,
    .chunks_get = cp_op_chunks_get,
    .chunks_find = cp_op_chunks_find,
    .audit_add = cp_op_audit_add,
    .audit_list = cp_op_audit_list,
    .root_put = cp_op_root_put,
    .replica_put = cp_op_replica_put,
    .replica_list = cp_op_replica_list,
    .roots_get = cp_op_roots_get,
    .token_put = cp_op_token_put,
    .token_get = cp_op_token_get,
    .node_enrol = cp_op_node_enrol,
    .node_get = cp_op_node_get,
    .node_list = cp_op_node_list,
    .node_renew = cp_op_node_renew,
    .node_remove = cp_op_node_remove,
    .certificates_of = cp_op_certificates_of,
    .certificates_removed = cp_op_certificates_removed,
    .certificate_remove = cp_op_certificate_remove,
    .backup = cp_op_backup,
    .restore = cp_op_restore,
};

static bool is_postgres(const char *url)
{
    return slice_starts(slice_str(url), SLICE_LIT("postgresql://")) ||
           slice_starts(slice_str(url), SLICE_LIT("postgres://"));
}

struct err sql_open(const char *url, struct sql **out, struct buf *message)
{
    static const char sqlite[] = "sqlite:";
    if (strncmp(url, sqlite, sizeof(sqlite) - 1) == 0 && url[sizeof(sqlite) - 1] != '\0') {
        return sql_sqlite_open(url + sizeof(sqlite) - 1, out, message);
    }
    if (is_postgres(url)) {
        return sql_postgres_open(url, out, message);
    }
    /* The kind alone: what comes behind it may hold a password. */
    size_t kind = strcspn(url, ":/@");
    TRY(buf_addf(message, "store: found \"%.*s…\"; expected sqlite:FILE or postgresql://…",
                 (int)(kind < 32 ? kind : 32), url));
    return FAIL(E_USAGE);
}

bool cp_store_url_is_clear(const char *url)
{
    return is_postgres(url) && pg_url_is_clear(url);
}

bool cp_store_url_has_secret(const char *url)
{
    return is_postgres(url) && pg_url_has_secret(url);
}

struct err cp_store_open(const char *url, struct cp_store **out, struct buf *message)
{
    struct cp_store_db *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = sql_open(url, &s->db, message);
    if (!err_ok(e)) {
        free(s);
        return e;
    }
    s->ops = operations;
    s->ops.name = s->db->driver->name;
    s->store.ops = &s->ops;
    *out = &s->store;
    return OK;
}

void cp_store_close(struct cp_store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}

struct err cp_write(struct cp_store *store, const struct cp_write *write, sql_body_fn *body,
                    void *ctx)
{
    struct sql_work work = {.body = body, .ctx = ctx, .bytes = write->bytes};
    struct sql_fence fence = {0};
    if (write->fence != NULL) {
        fence = (struct sql_fence){.environment = write->fence->environment,
                                   .holder = slice_of(write->fence->holder, CP_HOLDER_SIZE),
                                   .epoch = write->fence->epoch};
        work.fence = &fence;
    }
    return sql_transact(cp_db(store), &work);
}

struct err cp_run_numbered(struct sql *db, const char *text, const char *environment,
                           uint64_t number)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, text);
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, number);
    return sql_run(&q);
}
