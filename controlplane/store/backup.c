/* backup: what a control plane needs, from either database, as a stream. See backup_in.h. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/store/backup_in.h"
#include "controlplane/store/migrations.h"
#include "controlplane/store/store_in.h"

enum { FLUSH_BYTES = 64 << 10 };

#define T(name)                                                                                    \
    {                                                                                              \
        name, SQL_TEXT, false                                                                      \
    }
#define N(name)                                                                                    \
    {                                                                                              \
        name, SQL_NUMBER, false                                                                    \
    }
#define B(name)                                                                                    \
    {                                                                                              \
        name, SQL_BYTES, false                                                                     \
    }

/* clang-format off */
const struct cp_backup_table cp_backup_tables[CP_BACKUP_TABLES] = {
    /* Who holds the row is a process that is not the restored one's: it comes back run out. */
    {"leader", 64, 1, 7, {T("environment"), N("epoch"), {"holder", SQL_BYTES, true}, T("name"),
                          T("address"), {"expires_ms", SQL_NUMBER, true}, B("warrant")}},
    {"version", 256, 2, 5, {T("environment"), N("number"), N("epoch"), N("handed_ms"),
                            B("sources_digest")}},
    {"newest", 64, 1, 4, {T("environment"), N("published"), N("sources"), N("oldest")}},
    {"source", 4, 1, 2, {B("digest"), B("bytes")}},
    {"source_use", 256, 3, 5, {T("environment"), T("name"), N("first_number"), N("last_number"),
                               B("digest")}},
    {"journal", 8, 2, 16, {T("environment"), N("number"), N("epoch"), N("origin"), B("manifest"),
                           B("manifest_digest"), B("content_digest"), N("raw_size"), T("author"),
                           T("message"), N("created_ms"), B("chunks"), T("request"),
                           T("signers"), N("with_trust"), B("request_digest")}},
    {"chunk", 32, 1, 4, {B("raw_digest"), B("stored_digest"), N("raw_size"), B("stored")}},
    {"chunk_use", 256, 3, 4, {B("raw_digest"), T("environment"), N("first_number"),
                              N("last_number")}},
    {"proposal", 8, 2, 11, {T("environment"), N("number"), N("epoch"), N("origin"), N("with_trust"),
                            B("body"), B("body_digest"), N("at_ms"), B("sources_digest"),
                            B("warrant"), N("closed")}},
    {"cosignature", 256, 3, 6, {T("environment"), N("number"), B("key_id"), T("code"),
                                B("signature"), T("sentence")}},
    {"root", 32, 2, 3, {T("environment"), N("number"), B("container")}},
    {"replica", 64, 3, 5, {T("environment"), B("manifest_key"), B("head_key"), T("name"),
                           N("seen_ms")}},
    {"node", 256, 2, 9, {T("environment"), T("id"), T("state"), B("status_key"), T("labels"),
                         T("serial"), N("not_after_ms"), N("enrolled_ms"), B("certificate")}},
    {"certificate", 256, 2, 7, {T("environment"), T("serial"), T("node"), N("not_after_ms"),
                                B("warrant"), N("removed_ms"), B("removal")}},
    {"join_token", 256, 2, 8, {T("environment"), B("digest"), T("node"), T("labels"), T("author"),
                               N("expires_ms"), N("used_ms"), B("warrant")}},
    {"audit", 256, 1, 8, {N("seq"), T("environment"), N("at_ms"), T("actor"), T("action"),
                          T("object"), T("outcome"), B("mark")}},
};
/* clang-format on */

/* ---- the stream ---- */

struct writer {
    int fd;
    struct buf pending;
    crypto_generichash_state digest;
    uint64_t rows;
};

static struct err flush(struct writer *w)
{
    size_t done = 0;
    while (done < w->pending.size) {
        ssize_t size = write(w->fd, w->pending.ptr + done, w->pending.size - done);
        if (size < 0 && errno != EINTR) {
            return FAIL(errno == ENOSPC ? E_STORE_FULL : E_IO);
        }
        done += size < 0 ? 0 : (size_t)size;
    }
    buf_clear(&w->pending);
    return OK;
}

static struct err put(struct writer *w, struct slice bytes)
{
    (void)crypto_generichash_update(&w->digest, bytes.ptr, bytes.size);
    for (struct slice rest = bytes; rest.size > 0;) {
        struct slice part = slice_head(rest, FLUSH_BYTES - w->pending.size);
        TRY(buf_add(&w->pending, part));
        rest = slice_from(rest, part.size);
        if (w->pending.size == FLUSH_BYTES) {
            TRY(flush(w));
        }
    }
    return OK;
}

static struct err put_number(struct writer *w, uint64_t number, size_t size)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(number >> (8 * i));
    }
    return put(w, slice_of(bytes, size));
}

static struct err put_name(struct writer *w, const char *name)
{
    TRY(put_number(w, strlen(name), 1));
    return put(w, slice_str(name));
}

/* ---- tables ---- */

static struct err put_table(struct writer *w, const struct cp_backup_table *table)
{
    TRY(put_number(w, CP_BACKUP_TABLE, 1));
    TRY(put_name(w, table->name));
    TRY(put_number(w, table->column_count, 1));
    for (unsigned i = 0; i < table->column_count; i++) {
        TRY(put_number(w, (uint64_t)table->columns[i].kind, 1));
        TRY(put_name(w, table->columns[i].name));
    }
    return OK;
}

static struct err put_blank(struct writer *w, struct slice bytes)
{
    static const uint8_t zeroes[CP_HOLDER_SIZE];
    CHECK(bytes.size <= sizeof(zeroes));
    TRY(put_number(w, bytes.size, 4));
    return put(w, slice_of(zeroes, bytes.size));
}

static struct err put_row(struct writer *w, const struct cp_backup_table *table,
                          const struct sql_query *q)
{
    TRY(put_number(w, CP_BACKUP_ROW, 1));
    for (unsigned i = 0; i < table->column_count; i++) {
        const struct cp_backup_column *column = &table->columns[i];
        if (column->kind == SQL_NUMBER) {
            TRY(put_number(w, column->is_blank ? 0 : sql_number(q, (int)i), 8));
            continue;
        }
        struct slice bytes = sql_bytes(q, (int)i);
        if (column->is_blank) {
            TRY(put_blank(w, bytes));
            continue;
        }
        TRY(put_number(w, bytes.size, 4));
        TRY(put(w, bytes));
    }
    w->rows++;
    return OK;
}

/* Behind which row the next page begins. */
struct key {
    uint64_t numbers[CP_BACKUP_COLUMNS_MAX];
    struct buf bytes[CP_BACKUP_COLUMNS_MAX];
    bool is_set; /* not before the first page. */
};

static struct err set_key(struct key *key, const struct cp_backup_table *table,
                          const struct sql_query *q)
{
    for (unsigned i = 0; i < table->key_count; i++) {
        if (table->columns[i].kind == SQL_NUMBER) {
            key->numbers[i] = sql_number(q, (int)i);
        } else {
            key->bytes[i].max = SQL_BYTES_MAX;
            buf_clear(&key->bytes[i]);
            TRY(buf_add(&key->bytes[i], sql_bytes(q, (int)i)));
        }
    }
    key->is_set = true;
    return OK;
}

static void bind_key(struct sql_query *q, const struct key *key,
                     const struct cp_backup_table *table)
{
    for (unsigned i = 0; i < table->key_count; i++) {
        if (table->columns[i].kind == SQL_NUMBER) {
            sql_bind_number(q, i + 1, key->numbers[i]);
        } else if (table->columns[i].kind == SQL_TEXT) {
            sql_bind_slice_text(q, i + 1, buf_slice(&key->bytes[i]));
        } else {
            sql_bind_bytes(q, i + 1, buf_slice(&key->bytes[i]));
        }
    }
}

static struct err add_names(struct buf *text, const struct cp_backup_table *table, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        TRY(buf_addf(text, "%s%s", i == 0 ? "" : ", ", table->columns[i].name));
    }
    return OK;
}

/* "SELECT … FROM t WHERE (a, b) > ($1, $2) ORDER BY a, b LIMIT n" */
static struct err page_text(const struct cp_backup_table *table, bool is_first, struct buf *out)
{
    TRY(buf_add_str(out, "SELECT "));
    TRY(add_names(out, table, table->column_count));
    TRY(buf_addf(out, " FROM %s", table->name));
    if (!is_first) {
        TRY(buf_add_str(out, " WHERE ("));
        TRY(add_names(out, table, table->key_count));
        TRY(buf_add_str(out, ") > (@)"));
    }
    TRY(buf_add_str(out, " ORDER BY "));
    TRY(add_names(out, table, table->key_count));
    return buf_addf(out, " LIMIT %u", table->page);
}

static struct err put_page(struct writer *w, struct sql *db, const struct cp_backup_table *table,
                           struct key *last, unsigned *out_count)
{
    auto_buf struct buf text = BUF_MAX(SQL_TEXT_MAX);
    const char *sql = NULL;
    TRY(page_text(table, !last->is_set, &text));
    TRY(buf_cstr(&text, &sql));
    auto_sql struct sql_query q;
    if (last->is_set) {
        sql_begin_list(&q, db, sql, 1, table->key_count);
        bind_key(&q, last, table);
    } else {
        sql_begin(&q, db, sql);
    }
    *out_count = 0;
    for (bool found = true; found;) {
        TRY(sql_row(&q, &found));
        if (found) {
            TRY(put_row(w, table, &q));
            (*out_count)++;
            if (*out_count == table->page) { /* the last row: 'last' was bound until here. */
                return set_key(last, table, &q);
            }
        }
    }
    return OK;
}

static struct err put_rows(struct writer *w, struct sql *db, const struct cp_backup_table *table)
{
    struct key last = {0};
    struct err e = OK;
    for (unsigned count = table->page; count == table->page && err_ok(e);) {
        e = put_page(w, db, table, &last, &count);
    }
    for (unsigned i = 0; i < CP_BACKUP_COLUMNS_MAX; i++) {
        buf_free(&last.bytes[i]);
    }
    return e;
}

static struct err put_end(struct writer *w)
{
    uint8_t digest[CP_BACKUP_DIGEST];
    TRY(put_number(w, CP_BACKUP_END, 1));
    TRY(put_number(w, w->rows, 8));
    CHECK(crypto_generichash_final(&w->digest, digest, sizeof(digest)) == 0);
    TRY(buf_add(&w->pending, slice_of(digest, sizeof(digest))));
    return flush(w);
}

static struct err put_all(struct sql *db, void *ctx)
{
    struct writer *w = ctx;
    TRY(put(w, SLICE_LIT(CP_BACKUP_MAGIC)));
    TRY(put_number(w, CP_BACKUP_FORMAT, 4));
    TRY(put_number(w, cp_migrations_sqlite_count, 4)); /* both databases are in step. */
    for (unsigned i = 0; i < CP_BACKUP_TABLES; i++) {
        TRY(put_table(w, &cp_backup_tables[i]));
        TRY(put_rows(w, db, &cp_backup_tables[i]));
    }
    return put_end(w);
}

struct err cp_op_backup(struct cp_store *store, int fd)
{
    struct writer w = {.fd = fd, .pending = BUF_MAX(FLUSH_BYTES + CP_BACKUP_DIGEST)};
    CHECK(crypto_generichash_init(&w.digest, NULL, 0, CP_BACKUP_DIGEST) == 0);
    struct err e = sql_snapshot(cp_db(store), put_all, &w);
    buf_free(&w.pending);
    return e;
}
