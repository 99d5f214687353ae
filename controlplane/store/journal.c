/* journal: publications. The commit of publish() is the moment at which a version is published. */
#include <string.h>

#include "common/base/limits.h"
#include "controlplane/store/store_in.h"

enum {
    DROPPED_MAX = 16,          /* versions at once: a lowered bound is reached in steps. */
    LIST_BYTES_MAX = 64 << 20, /* two million chunks. */
};

#define RECORD_COLUMNS                                                                             \
    "number, epoch, origin, manifest_digest, content_digest, raw_size, created_ms, author,"        \
    " message, request, signers, with_trust, request_digest"

static void read_record(const struct sql_query *q, struct cp_record *out)
{
    *out = (struct cp_record){.version = sql_number(q, 0),
                              .epoch = sql_number(q, 1),
                              .origin = sql_number(q, 2),
                              .raw_size = sql_number(q, 5),
                              .created_ms = (int64_t)sql_number(q, 6)};
    sql_copy(q, 3, out->manifest_digest, sizeof(out->manifest_digest));
    sql_copy(q, 4, out->content_digest, sizeof(out->content_digest));
    sql_text(q, 7, out->author, sizeof(out->author));
    sql_text(q, 8, out->message, sizeof(out->message));
    sql_text(q, 9, out->request, sizeof(out->request));
    sql_text(q, 10, out->signers, sizeof(out->signers));
    out->with_trust = sql_number(q, 11) != 0;
    sql_copy(q, 12, out->request_digest, sizeof(out->request_digest));
}

/* ---- publishing ---- */

struct publish {
    const struct cp_fence *fence;
    const struct cp_publication *publication;
    struct buf list;   /* raw digests of the chunks, in order. */
    struct buf before; /* of the newest publication until now. */
};

/* Locks the row, so that no other publication, not even one of ours that nobody has heard of, comes
 * between what is read here and the commit. */
static struct err take_turn(struct sql *db, const struct publish *p, bool *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO newest (environment, published, sources, oldest) VALUES ($1, $2, 0, 0)"
              " ON CONFLICT (environment) DO UPDATE SET published = $2 WHERE newest.published < $2"
              " RETURNING published");
    sql_bind_text(&q, 1, p->fence->environment);
    sql_bind_number(&q, 2, p->publication->record.version);
    TRY(sql_row(&q, out));
    return sql_run(&q);
}

static struct err read_before(struct sql *db, struct publish *p)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT chunks FROM journal WHERE environment = $1 ORDER BY number DESC LIMIT 1");
    sql_bind_text(&q, 1, p->fence->environment);
    bool found = false;
    TRY(sql_row(&q, &found));
    buf_clear(&p->before);
    return found ? buf_add(&p->before, sql_bytes(&q, 0)) : OK;
}

static struct err insert_row(struct sql *db, const struct publish *p, bool *out)
{
    const struct cp_record *record = &p->publication->record;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO journal (environment, number, epoch, origin, manifest, manifest_digest,"
              " content_digest, raw_size, author, message, created_ms, chunks, request,"
              " signers, with_trust, request_digest) VALUES"
              " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, trilane_now(), $11, $12, $13, $14, $15)"
              " ON CONFLICT DO NOTHING RETURNING number");
    sql_bind_text(&q, 1, p->fence->environment);
    sql_bind_number(&q, 2, record->version);
    sql_bind_number(&q, 3, record->epoch);
    sql_bind_number(&q, 4, record->origin);
    sql_bind_bytes(&q, 5, p->publication->manifest);
    sql_bind_bytes(&q, 6, slice_of(record->manifest_digest, DIGEST_SIZE));
    sql_bind_bytes(&q, 7, slice_of(record->content_digest, DIGEST_SIZE));
    sql_bind_number(&q, 8, record->raw_size);
    sql_bind_text(&q, 9, record->author);
    sql_bind_text(&q, 10, record->message);
    sql_bind_bytes(&q, 11, buf_slice(&p->list));
    sql_bind_text(&q, 12, record->request);
    sql_bind_text(&q, 13, record->signers);
    sql_bind_number(&q, 14, record->with_trust ? 1 : 0);
    sql_bind_bytes(&q, 15, slice_of(record->request_digest, DIGEST_SIZE));
    TRY(sql_row(&q, out));
    return sql_run(&q);
}

/* It is not our turn: because we had it before the connection broke, or because it is too late. */
static struct err judge_late(struct sql *db, const struct publish *p)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT manifest_digest FROM journal WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, p->fence->environment);
    sql_bind_number(&q, 2, p->publication->record.version);
    bool found = false;
    TRY(sql_row(&q, &found));
    struct slice digest = slice_of(p->publication->record.manifest_digest, DIGEST_SIZE);
    bool ours = found && db->unknown && slice_eq(sql_bytes(&q, 0), digest);
    return FAIL(ours ? E_EXISTS : E_CONFLICT);
}

static struct err publish(struct sql *db, void *ctx)
{
    struct publish *p = ctx;
    bool done = false;
    TRY(take_turn(db, p, &done));
    if (!done) {
        return judge_late(db, p);
    }
    TRY(read_before(db, p));
    TRY(insert_row(db, p, &done));
    if (!done) {
        return FAIL(E_CONFLICT); /* the request's id. */
    }
    return cp_chunks_put(db, p->fence->environment, p->publication, buf_slice(&p->before));
}

static struct err publish_now(struct cp_store *store, struct publish *p)
{
    const struct cp_publication *publication = p->publication;
    uint64_t bytes = publication->manifest.size;
    for (size_t i = 0; i < publication->chunk_count; i++) {
        bytes += publication->chunks[i].stored.size;
        TRY(buf_add(&p->list, slice_of(publication->chunks[i].raw_digest, DIGEST_SIZE)));
    }
    return cp_write(store, &(struct cp_write){.fence = p->fence, .bytes = bytes}, publish, p);
}

struct err cp_op_publish(struct cp_store *store, const struct cp_fence *fence,
                         const struct cp_publication *publication)
{
    struct publish p = {.fence = fence,
                        .publication = publication,
                        .list = BUF_MAX(LIST_BYTES_MAX),
                        .before = BUF_MAX(LIST_BYTES_MAX)};
    struct err e = publish_now(store, &p);
    buf_free(&p.list);
    buf_free(&p.before);
    return e;
}

/* ---- dropping what is beyond limits.history_versions; the numbers stay handed out ---- */

struct drop {
    const char *environment;
    uint64_t oldest; /* the lowest version that stays. */
};

static struct err find_number(struct sql *db, const char *text, const char *environment,
                              uint64_t offset, uint64_t *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, text);
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, offset);
    bool found = false;
    TRY(sql_row(&q, &found));
    *out = found ? sql_number(&q, 0) : 0;
    return OK;
}

static struct err drop(struct sql *db, void *ctx)
{
    const struct drop *d = ctx;
    static const char *const by_version[] = {
        "UPDATE newest SET oldest = $2 WHERE environment = $1 AND oldest < $2",
        "DELETE FROM journal WHERE environment = $1 AND number < $2",
        "DELETE FROM cosignature WHERE environment = $1 AND number < $2",
        "DELETE FROM proposal WHERE environment = $1 AND number < $2",
    };
    for (size_t i = 0; i < sizeof(by_version) / sizeof(by_version[0]); i++) {
        TRY(cp_run_numbered(db, by_version[i], d->environment, d->oldest));
    }
    TRY(cp_uses_drop(db, &cp_chunk_uses, d->environment, d->oldest));
    return cp_uses_drop(db, &cp_source_uses, d->environment, d->oldest);
}

struct err cp_op_drop_old(struct cp_store *store, const struct cp_fence *fence, bool *out_any)
{
    *out_any = false;
    struct drop d = {.environment = fence->environment};
    uint64_t last_of_step = 0;
    uint64_t first_beyond = 0;
    TRY(find_number(cp_db(store),
                    "SELECT number FROM journal WHERE environment = $1"
                    " ORDER BY number DESC LIMIT 1 OFFSET $2",
                    fence->environment, limits.history_versions, &first_beyond));
    if (first_beyond == 0) {
        return OK;
    }
    TRY(find_number(cp_db(store),
                    "SELECT number FROM journal WHERE environment = $1"
                    " ORDER BY number DESC LIMIT 1 OFFSET $2",
                    fence->environment, limits.history_versions - 1, &d.oldest));
    TRY(find_number(cp_db(store),
                    "SELECT number FROM journal WHERE environment = $1"
                    " ORDER BY number LIMIT 1 OFFSET $2",
                    fence->environment, DROPPED_MAX, &last_of_step));
    d.oldest = last_of_step != 0 && last_of_step < d.oldest ? last_of_step : d.oldest;
    TRY(cp_write(store, &(struct cp_write){.fence = fence}, drop, &d));
    *out_any = true;
    return OK;
}

struct above {
    const char *environment;
    uint64_t version; /* that stays. */
    uint64_t newest;
};

static struct err go_on_with_uses(struct sql *db, const struct above *a)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE chunk_use SET last_number = $3 WHERE environment = $1 AND last_number >= $2");
    sql_bind_text(&q, 1, a->environment);
    sql_bind_number(&q, 2, a->version);
    sql_bind_number(&q, 3, CP_STILL);
    return sql_run(&q);
}

/* The first statement has whoever publishes wait: what is newest is so until the commit. */
static struct err drop_rows_above(struct sql *db, void *ctx)
{
    const struct above *a = ctx;
    uint64_t newest = 0;
    TRY(cp_run_numbered(db, "UPDATE newest SET published = $2 WHERE environment = $1",
                        a->environment, a->version));
    TRY(find_number(db,
                    "SELECT number FROM journal WHERE environment = $1"
                    " ORDER BY number DESC LIMIT 1 OFFSET $2",
                    a->environment, 0, &newest));
    if (newest != a->newest && newest != a->version) { /* this transaction runs again. */
        return FAIL(E_CONFLICT);
    }
    TRY(cp_run_numbered(db, "DELETE FROM journal WHERE environment = $1 AND number > $2",
                        a->environment, a->version));
    TRY(cp_run_numbered(db, "DELETE FROM chunk_use WHERE environment = $1 AND first_number > $2",
                        a->environment, a->version));
    return go_on_with_uses(db, a);
}

struct err cp_op_drop_above(struct cp_store *store, const struct cp_fence *fence, uint64_t version,
                            uint64_t newest)
{
    struct above a = {.environment = fence->environment, .version = version, .newest = newest};
    return cp_write(store, &(struct cp_write){.fence = fence}, drop_rows_above, &a);
}

/* ---- reading ---- */

struct err cp_op_latest(struct cp_store *store, const char *environment, struct cp_record *out)
{
    size_t count = 0;
    TRY(cp_op_history(store, environment, /* before= */ 0, out, 1, &count));
    return count == 1 ? OK : FAIL(E_NOT_FOUND);
}

struct err cp_op_find_request(struct cp_store *store, const char *environment, const char *request,
                              struct cp_record *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT " RECORD_COLUMNS " FROM journal"
              " WHERE environment = $1 AND request = $2 AND request <> ''");
    sql_bind_text(&q, 1, environment);
    sql_bind_text(&q, 2, request);
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    read_record(&q, out);
    return OK;
}

struct err cp_op_load(struct cp_store *store, const char *environment, uint64_t version,
                      struct cp_record *out, struct buf *manifest)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT " RECORD_COLUMNS ", manifest FROM journal"
              " WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, version);
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    if (manifest != NULL) {
        TRY(buf_add(manifest, sql_bytes(&q, 13)));
    }
    read_record(&q, out);
    return OK;
}

struct err cp_op_history(struct cp_store *store, const char *environment, uint64_t before,
                         struct cp_record *out, size_t max, size_t *out_count)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT " RECORD_COLUMNS " FROM journal"
              " WHERE environment = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, before == 0 ? CP_STILL : before);
    sql_bind_number(&q, 3, max);
    size_t count = 0;
    for (bool found = true; found && count < max;) {
        TRY(sql_row(&q, &found));
        if (found) {
            read_record(&q, &out[count++]);
        }
    }
    *out_count = count;
    return OK;
}
