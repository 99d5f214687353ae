/* nodes: rights to join, and who joined. */
#include <string.h>

#include "controlplane/store/store_in.h"

enum { PAGE_NODES = 64 };
#define KEPT_MS                                                                                    \
    (7ULL * 24 * 3600 * 1000) /* a used or expired token, to be told from an unknown.              \
                               */

static const char enrolled[] = "enrolled";
static const char removed[] = "removed";

/* ---- tokens ---- */

struct token {
    const char *environment;
    const struct cp_join_token *token;
};

static struct err drop_old_tokens(struct sql *db, const char *environment)
{
    return cp_run_numbered(db,
                           "DELETE FROM join_token WHERE environment = $1 AND"
                           " (expires_ms < trilane_now() - $2"
                           "  OR (used_ms > 0 AND used_ms < trilane_now() - $2))",
                           environment, KEPT_MS);
}

static struct err put_token(struct sql *db, void *ctx)
{
    const struct token *t = ctx;
    TRY(drop_old_tokens(db, t->environment));
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO join_token (environment, digest, node, labels, author, expires_ms,"
              " used_ms, warrant) VALUES ($1, $2, $3, $4, $5, $6, 0, $7)"
              " ON CONFLICT (environment, digest) DO NOTHING RETURNING node");
    sql_bind_text(&q, 1, t->environment);
    sql_bind_bytes(&q, 2, slice_of(t->token->digest, DIGEST_SIZE));
    sql_bind_text(&q, 3, t->token->node);
    sql_bind_text(&q, 4, t->token->labels);
    sql_bind_text(&q, 5, t->token->author);
    sql_bind_number(&q, 6, (uint64_t)t->token->expires_ms);
    sql_bind_bytes(&q, 7, slice_of(t->token->warrant, sizeof(t->token->warrant)));
    bool written = false;
    TRY(sql_row(&q, &written));
    TRY(sql_run(&q));
    if (!written) { /* nobody else makes a token of this digest: it is random. */
        return FAIL(db->unknown ? E_EXISTS : E_CONFLICT);
    }
    return OK;
}

struct err cp_op_token_put(struct cp_store *store, const char *environment,
                           const struct cp_join_token *token)
{
    struct token t = {.environment = environment, .token = token};
    return cp_write(store, &(struct cp_write){.bytes = 1}, put_token, &t);
}

static struct err get_token(struct sql *db, const char *environment,
                            const uint8_t digest[DIGEST_SIZE], struct cp_join_token *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "SELECT node, labels, author, expires_ms, used_ms, trilane_now(), warrant"
              " FROM join_token WHERE environment = $1 AND digest = $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_bytes(&q, 2, slice_of(digest, DIGEST_SIZE));
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found) {
        return FAIL(E_TOKEN_UNKNOWN);
    }
    if (sql_number(&q, 4) != 0) {
        return FAIL(E_TOKEN_USED);
    }
    if (sql_number(&q, 3) <= sql_number(&q, 5)) {
        return FAIL(E_TOKEN_EXPIRED);
    }
    *out = (struct cp_join_token){.expires_ms = (int64_t)sql_number(&q, 3)};
    (void)memcpy(out->digest, digest, DIGEST_SIZE);
    sql_text(&q, 0, out->node, sizeof(out->node));
    sql_text(&q, 1, out->labels, sizeof(out->labels));
    sql_text(&q, 2, out->author, sizeof(out->author));
    sql_copy(&q, 6, out->warrant, sizeof(out->warrant));
    return OK;
}

struct err cp_op_token_get(struct cp_store *store, const char *environment,
                           const uint8_t digest[DIGEST_SIZE], struct cp_join_token *out)
{
    return get_token(cp_db(store), environment, digest, out);
}

/* ---- reading nodes ---- */

#define NODE_COLUMNS "id, state, status_key, certificate, serial, not_after_ms, enrolled_ms"

/* One that is too long is none of ours. */
static void read_certificate(const struct sql_query *q, int column, struct cp_node *out)
{
    struct slice bytes = sql_bytes(q, column);
    if (bytes.size > 0 && bytes.size <= sizeof(out->certificate)) {
        out->certificate_size = bytes.size;
        (void)memcpy(out->certificate, bytes.ptr, bytes.size);
    }
}

static void read_node(const struct sql_query *q, struct cp_node *out)
{
    bool stays = slice_eq(sql_bytes(q, 1), slice_str(enrolled));
    *out = (struct cp_node){.state = stays ? CP_NODE_ENROLLED : CP_NODE_REMOVED,
                            .not_after_ms = (int64_t)sql_number(q, 5),
                            .enrolled_ms = (int64_t)sql_number(q, 6)};
    sql_text(q, 0, out->id, sizeof(out->id));
    sql_copy(q, 2, out->status_key, sizeof(out->status_key));
    read_certificate(q, 3, out);
    sql_text(q, 4, out->serial, sizeof(out->serial));
}

static struct err get_node(struct sql *db, const char *environment, const char *id,
                           struct cp_node *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT " NODE_COLUMNS " FROM node WHERE environment = $1 AND id = $2");
    sql_bind_text(&q, 1, environment);
    sql_bind_text(&q, 2, id);
    bool found = false;
    TRY(sql_row(&q, &found));
    if (!found) {
        return FAIL(E_NOT_FOUND);
    }
    read_node(&q, out);
    return OK;
}

struct err cp_op_node_get(struct cp_store *store, const char *environment, const char *id,
                          struct cp_node *out)
{
    return get_node(cp_db(store), environment, id, out);
}

/* Visits a page; 'node' keeps the last one. */
static struct err visit_page(struct sql_query *q, cp_store_node_fn *visit, void *ctx,
                             struct cp_node *node, size_t *out_count)
{
    for (*out_count = 0;; (*out_count)++) { /* ends after the last row. */
        bool found = false;
        TRY(sql_row(q, &found));
        if (!found) {
            return OK;
        }
        read_node(q, node);
        TRY(visit(ctx, node));
    }
}

struct err cp_op_node_list(struct cp_store *store, const char *environment, cp_store_node_fn *visit,
                           void *ctx)
{
    struct cp_node node = {0};
    for (size_t count = PAGE_NODES; count == PAGE_NODES;) {
        char last[sizeof(node.id)];
        (void)memcpy(last, node.id, sizeof(last));
        auto_sql struct sql_query q;
        sql_begin(&q, cp_db(store),
                  "SELECT " NODE_COLUMNS " FROM node WHERE environment = $1 AND id > $2"
                  " ORDER BY id LIMIT $3");
        sql_bind_text(&q, 1, environment);
        sql_bind_text(&q, 2, last);
        sql_bind_number(&q, 3, PAGE_NODES);
        TRY(visit_page(&q, visit, ctx, &node, &count));
    }
    return OK;
}

/* ---- changing nodes ---- */

/* In the place of a key that a release before wrote. */
static const uint8_t no_key[32];

static struct slice certificate_of(const struct cp_node *node)
{
    return slice_of(node->certificate, node->certificate_size);
}

struct enrol {
    const char *environment;
    const uint8_t *digest; /* of the token. */
    const struct cp_node *node;
};

/* Of two that use one token at the same moment the second waits, and finds it used. */
static struct err use_token(struct sql *db, const struct enrol *e, bool *out)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE join_token SET used_ms = trilane_now() WHERE environment = $1"
              " AND digest = $2 AND node = $3 AND used_ms = 0 AND expires_ms > trilane_now()"
              " RETURNING node");
    sql_bind_text(&q, 1, e->environment);
    sql_bind_bytes(&q, 2, slice_of(e->digest, DIGEST_SIZE));
    sql_bind_text(&q, 3, e->node->id);
    TRY(sql_row(&q, out));
    return sql_run(&q);
}

/* Why a token could not be used. */
static struct err judge_token(struct sql *db, const struct enrol *e)
{
    struct cp_join_token token;
    struct err found = get_token(db, e->environment, e->digest, &token);
    if (found.code == E_TOKEN_USED && db->unknown) {
        struct cp_node node;
        TRY(get_node(db, e->environment, e->node->id, &node));
        bool ours = node.state == CP_NODE_ENROLLED &&
                    slice_eq(certificate_of(&node), certificate_of(e->node));
        return FAIL(ours ? E_EXISTS : E_TOKEN_USED);
    }
    TRY(found);
    return FAIL(E_USAGE); /* it may be used, but for another node. */
}

static struct err enrol(struct sql *db, void *ctx)
{
    const struct enrol *e = ctx;
    const struct cp_node *node = e->node;
    bool used = false;
    TRY(use_token(db, e, &used));
    if (!used) {
        return judge_token(db, e);
    }
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO node (environment, id, state, status_key, certificate, serial,"
              " not_after_ms, enrolled_ms, labels) VALUES ($1, $2, $3, $4, $5, $6, $7,"
              " trilane_now(), '') ON CONFLICT (environment, id) DO UPDATE SET state = $3,"
              " status_key = $4, certificate = $5, serial = $6, not_after_ms = $7,"
              " enrolled_ms = trilane_now(), labels = ''");
    sql_bind_text(&q, 1, e->environment);
    sql_bind_text(&q, 2, node->id);
    sql_bind_text(&q, 3, enrolled);
    sql_bind_bytes(&q, 4, slice_of(no_key, sizeof(no_key)));
    sql_bind_bytes(&q, 5, certificate_of(node));
    sql_bind_text(&q, 6, node->serial);
    sql_bind_number(&q, 7, (uint64_t)node->not_after_ms);
    TRY(sql_run(&q));
    return cp_certificate_put(db, e->environment, node);
}

struct err cp_op_node_enrol(struct cp_store *store, const char *environment,
                            const uint8_t digest[DIGEST_SIZE], const struct cp_node *node)
{
    struct enrol e = {.environment = environment, .digest = digest, .node = node};
    return cp_write(store, &(struct cp_write){.bytes = 1}, enrol, &e);
}

struct change {
    const char *environment;
    const struct cp_node *node;
};

static struct err renew(struct sql *db, void *ctx)
{
    const struct change *c = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE node SET serial = $4, not_after_ms = $5, certificate = $6, status_key = $7,"
              " labels = '' WHERE environment = $1 AND id = $2 AND state = $3 RETURNING id");
    sql_bind_text(&q, 1, c->environment);
    sql_bind_text(&q, 2, c->node->id);
    sql_bind_text(&q, 3, enrolled);
    sql_bind_text(&q, 4, c->node->serial);
    sql_bind_number(&q, 5, (uint64_t)c->node->not_after_ms);
    sql_bind_bytes(&q, 6, certificate_of(c->node));
    sql_bind_bytes(&q, 7, slice_of(no_key, sizeof(no_key)));
    bool found = false;
    TRY(sql_row(&q, &found));
    TRY(sql_run(&q));
    return found ? cp_certificate_put(db, c->environment, c->node) : FAIL(E_NOT_FOUND);
}

struct err cp_op_node_renew(struct cp_store *store, const char *environment,
                            const struct cp_node *node)
{
    struct change c = {.environment = environment, .node = node};
    return cp_write(store, &(struct cp_write){.bytes = 1}, renew, &c);
}

struct removal {
    const char *environment;
    const char *id;
};

static struct err end_tokens(struct sql *db, const struct removal *r)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "UPDATE join_token SET used_ms = trilane_now() WHERE environment = $1"
              " AND node = $2 AND used_ms = 0");
    sql_bind_text(&q, 1, r->environment);
    sql_bind_text(&q, 2, r->id);
    return sql_run(&q);
}

/* Tokens before the node, as enrol() takes them: of two at the same moment one waits. */
static struct err remove_node(struct sql *db, void *ctx)
{
    const struct removal *r = ctx;
    TRY(end_tokens(db, r));
    auto_sql struct sql_query q;
    sql_begin(&q, db, "UPDATE node SET state = $3 WHERE environment = $1 AND id = $2 RETURNING id");
    sql_bind_text(&q, 1, r->environment);
    sql_bind_text(&q, 2, r->id);
    sql_bind_text(&q, 3, removed);
    bool found = false;
    TRY(sql_row(&q, &found));
    TRY(sql_run(&q));
    return found ? OK : FAIL(E_NOT_FOUND);
}

struct err cp_op_node_remove(struct cp_store *store, const char *environment, const char *id)
{
    struct removal r = {.environment = environment, .id = id};
    return cp_write(store, &(struct cp_write){0}, remove_node, &r);
}
