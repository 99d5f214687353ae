/* sqlite_in: what the files of the SQLite store share among themselves. */
#pragma once

#include "controlplane/store/sql.h"
#include "controlplane/store/store.h"

struct cp_sqlite {
    struct cp_store store; /* first: a cp_store is cast to its implementation. */
    sqlite3 *db;
};

/* The database's clock in milliseconds; one value within a statement. */
#define SQL_NOW "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"

static inline sqlite3 *cp_sqlite_db(struct cp_store *store)
{
    return ((struct cp_sqlite *)store)->db;
}

/* Begins a transaction that may write; ends it: commit when 'result' is fine, else roll back. */
MUST_CHECK struct err cp_sqlite_write(sqlite3 *db);
MUST_CHECK struct err cp_sqlite_done(sqlite3 *db, struct err result);

/* E_STORE_FULL when a publication of so many bytes would not leave the disk what renewals of the
 * leader's row need: a full disk stops publications, not heads. */
MUST_CHECK struct err cp_sqlite_room(sqlite3 *db, uint64_t bytes);

/* E_NOT_LEADER unless the row is the fence's own and has not run out. In a transaction. */
MUST_CHECK struct err cp_sqlite_fence(sqlite3 *db, const struct cp_fence *fence);

struct err cp_sqlite_lease_take(struct cp_store *store, const struct cp_lease_wish *wish,
                                struct cp_lease *out);
struct err cp_sqlite_lease_drop(struct cp_store *store, const struct cp_fence *fence);
struct err cp_sqlite_lease_read(struct cp_store *store, const char *environment,
                                struct cp_lease *out);

struct err cp_sqlite_publish(struct cp_store *store, const struct cp_fence *fence,
                             const struct cp_publication *publication);
struct err cp_sqlite_latest(struct cp_store *store, const char *environment, struct cp_record *out);
struct err cp_sqlite_load(struct cp_store *store, const char *environment, uint64_t version,
                          struct cp_record *out, struct buf *manifest);
struct err cp_sqlite_history(struct cp_store *store, const char *environment, uint64_t before,
                             struct cp_record *out, size_t max, size_t *out_count);
struct err cp_sqlite_chunk_get(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                               struct buf *out);
struct err cp_sqlite_chunks_get(struct cp_store *store, const char *environment, uint64_t version,
                                cp_store_chunk_fn *visit, void *ctx);
