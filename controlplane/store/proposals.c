/* proposals: manifest bodies that wait for signatures, and what came of them. */
#include <string.h>

#include "controlplane/store/store_in.h"

struct proposal {
    const struct cp_fence *fence;
    const struct cp_proposal *proposal;
    struct slice body;
    uint8_t digest[DIGEST_SIZE]; /* of the body. */
};

static struct err insert_body(struct sql *db, const struct proposal *p)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO proposal (environment, number, epoch, origin, with_trust, body,"
              " body_digest, at_ms, sources_digest, warrant)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7, trilane_now(), $8, $9)"
              " ON CONFLICT (environment, number) DO NOTHING");
    sql_bind_text(&q, 1, p->fence->environment);
    sql_bind_number(&q, 2, p->proposal->version);
    sql_bind_number(&q, 3, p->fence->epoch);
    sql_bind_number(&q, 4, p->proposal->origin);
    sql_bind_number(&q, 5, p->proposal->with_trust ? 1 : 0);
    sql_bind_bytes(&q, 6, p->body);
    sql_bind_bytes(&q, 7, slice_of(p->digest, DIGEST_SIZE));
    sql_bind_bytes(&q, 8, slice_of(p->proposal->sources_digest, DIGEST_SIZE));
    sql_bind_bytes(&q, 9, slice_of(p->proposal->warrant, CP_WARRANT_SIZE));
    return sql_run(&q);
}

/* The same body again, in the same epoch, is no conflict. */
static struct err put(struct sql *db, void *ctx)
{
    const struct proposal *p = ctx;
    TRY(insert_body(db, p));
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT 1 FROM proposal WHERE environment = $1 AND number = $2 AND epoch = $3"
              " AND origin = $4 AND with_trust = $5 AND body_digest = $6");
    sql_bind_text(&q, 1, p->fence->environment);
    sql_bind_number(&q, 2, p->proposal->version);
    sql_bind_number(&q, 3, p->fence->epoch);
    sql_bind_number(&q, 4, p->proposal->origin);
    sql_bind_number(&q, 5, p->proposal->with_trust ? 1 : 0);
    sql_bind_bytes(&q, 6, slice_of(p->digest, DIGEST_SIZE));
    bool found = false;
    TRY(sql_row(&q, &found));
    return found ? OK : FAIL(E_CONFLICT);
}

struct err cp_op_proposal_put(struct cp_store *store, const struct cp_fence *fence,
                              const struct cp_proposal *proposal, struct slice body)
{
    struct proposal p = {.fence = fence, .proposal = proposal, .body = body};
    ids_digest(body, p.digest);
    return cp_write(store, &(struct cp_write){.fence = fence, .bytes = body.size}, put, &p);
}

struct closing {
    const struct cp_fence *fence;
    uint64_t version;
};

static struct err close_it(struct sql *db, void *ctx)
{
    const struct closing *c = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE proposal SET closed = 1 WHERE environment = $1 AND number = $2"
              " AND epoch = $3");
    sql_bind_text(&q, 1, c->fence->environment);
    sql_bind_number(&q, 2, c->version);
    sql_bind_number(&q, 3, c->fence->epoch);
    return sql_run(&q);
}

struct err cp_op_proposal_close(struct cp_store *store, const struct cp_fence *fence,
                                uint64_t version)
{
    struct closing c = {.fence = fence, .version = version};
    return cp_write(store, &(struct cp_write){.fence = fence, .bytes = 1}, close_it, &c);
}

struct err cp_op_proposal_open(struct cp_store *store, const char *environment,
                               struct cp_proposal *out, struct buf *body)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT p.number, p.epoch, p.origin, p.with_trust, p.at_ms, p.body,"
              " p.sources_digest, p.warrant, p.closed FROM proposal p"
              " JOIN leader l ON l.environment = p.environment AND l.epoch = p.epoch"
              " WHERE p.environment = $1 AND p.number > coalesce("
              "(SELECT max(j.number) FROM journal j WHERE j.environment = $1), 0)"
              " ORDER BY p.number DESC LIMIT 1");
    sql_bind_text(&q, 1, environment);
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found || sql_number(&q, 8) != 0) {
        return FAIL(E_NOT_FOUND);
    }
    if (body != NULL) {
        TRY(buf_add(body, sql_bytes(&q, 5)));
    }
    *out = (struct cp_proposal){.version = sql_number(&q, 0),
                                .epoch = sql_number(&q, 1),
                                .origin = sql_number(&q, 2),
                                .with_trust = sql_number(&q, 3) != 0,
                                .proposed_ms = (int64_t)sql_number(&q, 4)};
    sql_copy(&q, 6, out->sources_digest, sizeof(out->sources_digest));
    sql_copy(&q, 7, out->warrant, sizeof(out->warrant));
    return OK;
}

/* ---- what came of it ---- */

struct cosign {
    const char *environment;
    uint64_t version;
    const uint8_t *body_digest;
    const struct cp_cosignature *cosignature;
};

static struct err find_body(struct sql *db, const struct cosign *c)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT 1 FROM proposal WHERE environment = $1 AND number = $2 AND body_digest = $3"
              " AND closed = 0");
    sql_bind_text(&q, 1, c->environment);
    sql_bind_number(&q, 2, c->version);
    sql_bind_bytes(&q, 3, slice_of(c->body_digest, DIGEST_SIZE));
    bool found = false;
    TRY(sql_row(&q, &found));
    return found ? OK : FAIL(E_NOT_FOUND);
}

static struct err upsert(struct sql *db, const struct cosign *c)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO cosignature (environment, number, key_id, code, signature, sentence)"
              " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (environment, number, key_id)"
              " DO UPDATE SET code = $4, signature = $5, sentence = $6"
              " WHERE cosignature.code <> 'OK'");
    sql_bind_text(&q, 1, c->environment);
    sql_bind_number(&q, 2, c->version);
    sql_bind_bytes(&q, 3, slice_of(c->cosignature->key_id, sizeof(c->cosignature->key_id)));
    sql_bind_text(&q, 4, err_name(c->cosignature->code));
    sql_bind_bytes(&q, 5, slice_of(c->cosignature->signature, sizeof(c->cosignature->signature)));
    sql_bind_text(&q, 6, c->cosignature->sentence);
    return sql_run(&q);
}

/* A root has at most so many keys: more key ids than that are somebody's mistake. */
static struct err check_count(struct sql *db, const struct cosign *c)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT count(*) FROM cosignature WHERE environment = $1 AND number = $2");
    sql_bind_text(&q, 1, c->environment);
    sql_bind_number(&q, 2, c->version);
    bool found = false;
    TRY(sql_row(&q, &found));
    return sql_number(&q, 0) <= CP_COSIGNATURES_MAX ? OK : FAIL(E_TOO_LARGE);
}

static struct err cosign(struct sql *db, void *ctx)
{
    TRY(find_body(db, ctx));
    TRY(upsert(db, ctx));
    return check_count(db, ctx);
}

struct err cp_op_cosign_put(struct cp_store *store, const char *environment, uint64_t version,
                            const uint8_t body_digest[DIGEST_SIZE],
                            const struct cp_cosignature *cosignature)
{
    struct cosign c = {.environment = environment,
                       .version = version,
                       .body_digest = body_digest,
                       .cosignature = cosignature};
    return cp_write(store, &(struct cp_write){.bytes = 1}, cosign, &c);
}

static void read_cosignature(const struct sql_query *q, struct cp_cosignature *out)
{
    char code[CP_ACTION_MAX + 1];
    *out =
        (struct cp_cosignature){.code = E_COSIGN_REFUSED}; /* of a code that is not known here. */
    sql_copy(q, 0, out->key_id, sizeof(out->key_id));
    sql_text(q, 1, code, sizeof(code));
    (void)err_find(code, &out->code);
    sql_copy(q, 2, out->signature, sizeof(out->signature));
    sql_text(q, 3, out->sentence, sizeof(out->sentence));
}

struct err cp_op_cosign_list(struct cp_store *store, const char *environment, uint64_t version,
                             struct cp_cosignature out[CP_COSIGNATURES_MAX], size_t *out_count)
{
    auto_sql struct sql_query q;
    sql_begin(&q, cp_db(store),
              "SELECT key_id, code, signature, sentence FROM cosignature"
              " WHERE environment = $1 AND number = $2 ORDER BY key_id LIMIT $3");
    sql_bind_text(&q, 1, environment);
    sql_bind_number(&q, 2, version);
    sql_bind_number(&q, 3, CP_COSIGNATURES_MAX);
    size_t count = 0;
    for (bool found = true; found && count < CP_COSIGNATURES_MAX;) {
        TRY(sql_row(&q, &found));
        if (found) {
            read_cosignature(&q, &out[count++]);
        }
    }
    *out_count = count;
    return OK;
}
