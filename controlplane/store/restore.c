/* restore: a backup into an empty database of either kind. See backup_in.h. */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/store/backup_in.h"
#include "controlplane/store/migrations.h"
#include "controlplane/store/store_in.h"

enum { READ_BYTES = 64 << 10, COLUMN_NAME_MAX = 63 };

/* ---- the stream ---- */

struct reader {
    int fd;
    uint8_t block[READ_BYTES];
    size_t size; /* of the block. */
    size_t at;
    crypto_generichash_state digest;
    uint64_t rows;
    uint32_t schema;                                               /* of the backup. */
    const struct cp_backup_table *table;                           /* of the rows that come. */
    const struct cp_backup_column *columns[CP_BACKUP_COLUMNS_MAX]; /* that they have. */
    unsigned column_count;
    struct buf insert; /* text for such a row. */
    struct buf values[CP_BACKUP_COLUMNS_MAX];
};

static struct err fill(struct reader *r)
{
    for (;;) { /* ends with bytes, the end of the stream, or a failure. */
        ssize_t size = read(r->fd, r->block, sizeof(r->block));
        if (size >= 0) {
            r->at = 0;
            r->size = (size_t)size;
            return OK;
        }
        if (errno != EINTR) {
            return FAIL(E_IO);
        }
    }
}

static struct err take(struct reader *r, void *out, size_t size)
{
    uint8_t *to = out;
    while (size > 0) {
        if (r->at == r->size) {
            TRY(fill(r));
        }
        size_t part = r->size - r->at < size ? r->size - r->at : size;
        if (part == 0) {
            return FAIL(E_MALFORMED); /* it ends too early. */
        }
        (void)memcpy(to, r->block + r->at, part);
        (void)crypto_generichash_update(&r->digest, to, part);
        r->at += part;
        to += part;
        size -= part;
    }
    return OK;
}

static struct err take_number(struct reader *r, size_t size, uint64_t *out)
{
    uint8_t bytes[8];
    TRY(take(r, bytes, size));
    uint64_t number = 0;
    for (size_t i = 0; i < size; i++) {
        number |= (uint64_t)bytes[i] << (8 * i);
    }
    *out = number;
    return OK;
}

/* Takes memory as bytes come: a size that lies costs nothing. */
static struct err take_bytes(struct reader *r, struct buf *out)
{
    uint64_t size = 0;
    TRY(take_number(r, 4, &size));
    buf_clear(out);
    while (size > 0) {
        size_t part = size < READ_BYTES ? (size_t)size : READ_BYTES;
        uint8_t *to = NULL;
        TRY(buf_reserve(out, part, &to));
        TRY(take(r, to, part));
        buf_commit(out, part);
        size -= part;
    }
    return OK;
}

static struct err take_name(struct reader *r, char out[COLUMN_NAME_MAX + 1])
{
    uint64_t size = 0;
    TRY(take_number(r, 1, &size));
    if (size > COLUMN_NAME_MAX) {
        return FAIL(E_MALFORMED);
    }
    TRY(take(r, out, (size_t)size));
    out[size] = '\0';
    return OK;
}

/* What this release does not know is a newer one's, or nobody's. */
static struct err unknown(const struct reader *r)
{
    return FAIL(r->schema > cp_migrations_sqlite_count ? E_STORE_NEWER : E_MALFORMED);
}

/* ---- tables and rows ---- */

static const struct cp_backup_table *find_table(const char *name)
{
    for (unsigned i = 0; i < CP_BACKUP_TABLES; i++) {
        if (strcmp(cp_backup_tables[i].name, name) == 0) {
            return &cp_backup_tables[i];
        }
    }
    return NULL;
}

static const struct cp_backup_column *find_column(const struct cp_backup_table *table,
                                                  const char *name, uint64_t kind)
{
    for (unsigned i = 0; i < table->column_count; i++) {
        if (strcmp(table->columns[i].name, name) == 0 && (uint64_t)table->columns[i].kind == kind) {
            return &table->columns[i];
        }
    }
    return NULL;
}

static struct err write_insert(struct reader *r)
{
    buf_clear(&r->insert);
    TRY(buf_addf(&r->insert, "INSERT INTO %s (", r->table->name));
    for (unsigned i = 0; i < r->column_count; i++) {
        TRY(buf_addf(&r->insert, "%s%s", i == 0 ? "" : ", ", r->columns[i]->name));
    }
    return buf_add_str(&r->insert, ") VALUES (@)");
}

static struct err take_table(struct reader *r)
{
    char name[COLUMN_NAME_MAX + 1];
    uint64_t count = 0;
    TRY(take_name(r, name));
    TRY(take_number(r, 1, &count));
    r->table = find_table(name);
    if (r->table == NULL || count > r->table->column_count) {
        return unknown(r);
    }
    if (count == 0) {
        return FAIL(E_MALFORMED);
    }
    r->column_count = (unsigned)count;
    for (unsigned i = 0; i < count; i++) {
        uint64_t kind = 0;
        TRY(take_number(r, 1, &kind));
        TRY(take_name(r, name));
        r->columns[i] = find_column(r->table, name, kind);
        if (r->columns[i] == NULL) {
            return unknown(r);
        }
    }
    return write_insert(r);
}

static struct err take_value(struct reader *r, struct sql_query *q, unsigned i)
{
    const struct cp_backup_column *column = r->columns[i];
    if (column->kind == SQL_NUMBER) {
        uint64_t number = 0;
        TRY(take_number(r, 8, &number));
        sql_bind_number(q, i + 1, column->is_blank ? 0 : number);
        return OK;
    }
    struct buf *value = &r->values[i];
    TRY(take_bytes(r, value));
    if (column->is_blank && value->size > 0) {
        (void)memset(value->ptr, 0, value->size);
    }
    if (column->kind == SQL_TEXT) {
        sql_bind_slice_text(q, i + 1, buf_slice(value));
    } else {
        sql_bind_bytes(q, i + 1, buf_slice(value));
    }
    return OK;
}

static struct err take_row(struct reader *r, struct sql *db)
{
    if (r->table == NULL) {
        return FAIL(E_MALFORMED);
    }
    const char *text = NULL;
    TRY(buf_cstr(&r->insert, &text));
    auto_sql struct sql_query q;
    sql_begin_list(&q, db, text, 1, r->column_count);
    for (unsigned i = 0; i < r->column_count; i++) {
        TRY(take_value(r, &q, i));
    }
    r->rows++;
    struct err e = sql_run(&q);
    /* The database was empty: rows that do not fit together are of no database. */
    return e.code == E_CONFLICT || e.code == E_TOO_LARGE ? FAIL(E_MALFORMED) : e;
}

/* ---- the whole ---- */

static struct err take_opening(struct reader *r)
{
    char magic[sizeof(CP_BACKUP_MAGIC) - 1];
    uint64_t format = 0;
    uint64_t schema = 0;
    TRY(take(r, magic, sizeof(magic)));
    TRY(take_number(r, 4, &format));
    TRY(take_number(r, 4, &schema));
    if (memcmp(magic, CP_BACKUP_MAGIC, sizeof(magic)) != 0) {
        return FAIL(E_MALFORMED);
    }
    r->schema = (uint32_t)schema;
    return format == CP_BACKUP_FORMAT ? OK : FAIL(E_STORE_NEWER);
}

static struct err take_end(struct reader *r)
{
    uint64_t rows = 0;
    uint8_t reckoned[CP_BACKUP_DIGEST];
    uint8_t found[CP_BACKUP_DIGEST];
    TRY(take_number(r, 8, &rows));
    CHECK(crypto_generichash_final(&r->digest, reckoned, sizeof(reckoned)) == 0);
    CHECK(crypto_generichash_init(&r->digest, NULL, 0, CP_BACKUP_DIGEST) == 0);
    TRY(take(r, found, sizeof(found)));
    bool same = rows == r->rows && memcmp(reckoned, found, sizeof(found)) == 0;
    if (same && r->at == r->size) {
        TRY(fill(r));
    }
    return same && r->at == r->size ? OK : FAIL(E_MALFORMED); /* nothing may stand behind it. */
}

static struct err check_empty(struct sql *db)
{
    for (unsigned i = 0; i < CP_BACKUP_TABLES; i++) {
        auto_buf struct buf text = BUF_MAX(SQL_TEXT_MAX);
        const char *sql = NULL;
        TRY(buf_addf(&text, "SELECT 1 FROM %s LIMIT 1", cp_backup_tables[i].name));
        TRY(buf_cstr(&text, &sql));
        auto_sql struct sql_query q;
        sql_begin(&q, db, sql);
        bool found = false;
        TRY(sql_row(&q, &found));
        if (found) {
            return FAIL(E_CONFLICT);
        }
    }
    return OK;
}

static struct err take_all(struct sql *db, void *ctx)
{
    struct reader *r = ctx;
    TRY(check_empty(db));
    TRY(take_opening(r));
    for (;;) { /* ends with the end's item; a stream that has none ends in a failure. */
        uint64_t item = 0;
        TRY(take_number(r, 1, &item));
        switch (item) {
        case CP_BACKUP_TABLE:
            TRY(take_table(r));
            break;
        case CP_BACKUP_ROW:
            TRY(take_row(r, db));
            break;
        case CP_BACKUP_END:
            return take_end(r);
        default:
            return unknown(r);
        }
    }
}

struct err cp_op_restore(struct cp_store *store, int fd)
{
    struct reader *r = calloc(1, sizeof(*r)); /* too large for a stack. */
    if (r == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->fd = fd;
    r->insert = BUF_MAX(SQL_TEXT_MAX);
    for (unsigned i = 0; i < CP_BACKUP_COLUMNS_MAX; i++) {
        r->values[i] = BUF_MAX(SQL_BYTES_MAX);
    }
    CHECK(crypto_generichash_init(&r->digest, NULL, 0, CP_BACKUP_DIGEST) == 0);
    struct sql_work work = {.body = take_all, .ctx = r, .bytes = 1, .once = true};
    struct err e = sql_transact(cp_db(store), &work);
    for (unsigned i = 0; i < CP_BACKUP_COLUMNS_MAX; i++) {
        buf_free(&r->values[i]);
    }
    buf_free(&r->insert);
    free(r);
    return e;
}
