/* database: see database.h. */
#include "tests/model/database.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#include "tests/model/bugs.h"
#include "tests/model/ledger.h"
#include "tests/model/machine.h"
#include "tests/model/world.h"

#define TRIP_MOST_NS (1 * SIM_MS)
/* As long as a store waits for its database. */
#define TIMEOUT_NS (2 * SIM_SECOND)

enum { PATH_SIZE = 256 };

struct database_faults database_faults;
struct sim_clock database_clock;

static struct {
    char url[PATH_SIZE];
    char path[PATH_SIZE];
    char backup[PATH_SIZE];
    bool has_backup;
    unsigned generation;
    struct cp_store *store;
} database;

/* A replica's store. */
struct remote {
    struct cp_store store; /* first: a cp_store is cast to its remote. */
    struct cp_store *real;
};

struct err __real_cp_store_open(const char *url, struct cp_store **out, struct buf *message);
struct err __wrap_cp_store_open(const char *url, struct cp_store **out, struct buf *message);

/* ---- the network ---- */

static struct err reach(const char *label)
{
    sim_point(label);
    sim_sleep(sim_random(TRIP_MOST_NS));
    if (database_faults.down || machine_self()->database_is_cut) {
        sim_sleep(TIMEOUT_NS);
        return FAIL(E_UNAVAILABLE);
    }
    sim_clock_borrow(&database_clock);
    return OK;
}

static struct err answer(struct err e)
{
    sim_clock_borrow(NULL);
    sim_sleep(sim_random(TRIP_MOST_NS));
    sim_point("db.answered");
    return e;
}

/* A write was done: its answer may be lost. */
static struct err answer_write(struct err e)
{
    struct err answered = answer(e);
    bool lost = database_faults.down || machine_self()->database_is_cut ||
                sim_chance(database_faults.unknown_per_mille);
    return lost ? FAIL(E_RESULT_UNKNOWN) : answered;
}

/* A write that is lost on its way, where nobody knows that it was. */
static struct err is_lost(void)
{
    if (!sim_chance(database_faults.unknown_per_mille)) {
        return OK;
    }
    sim_clock_borrow(NULL);
    sim_sleep(TIMEOUT_NS);
    return FAIL(E_RESULT_UNKNOWN);
}

/* A write that presents a fence; 'call' presents 'shown'. */
#define WRITE_FENCED(label, call, note)                                                            \
    do {                                                                                           \
        TRY(reach(label));                                                                         \
        TRY(is_lost());                                                                            \
        struct cp_fence shown = fence_of(real, fence);                                             \
        struct err written_ = (call);                                                              \
        if (err_ok(written_)) {                                                                    \
            ledger_fenced(real, fence, (label));                                                   \
            note;                                                                                  \
        }                                                                                          \
        return answer_write(written_);                                                             \
    } while (0)

#define REAL(store) (((struct remote *)(store))->real)

#define READ(label, call)                                                                          \
    do {                                                                                           \
        TRY(reach(label));                                                                         \
        return answer(call);                                                                       \
    } while (0)

#define WRITE(label, call, note)                                                                   \
    do {                                                                                           \
        TRY(reach(label));                                                                         \
        TRY(is_lost());                                                                            \
        struct err written_ = (call);                                                              \
        if (err_ok(written_)) {                                                                    \
            note;                                                                                  \
        }                                                                                          \
        return answer_write(written_);                                                             \
    } while (0)

/* The row's own fence, for a database that does not ask whose a write is. */
static struct cp_fence fence_of(struct cp_store *real, const struct cp_fence *fence)
{
    struct cp_lease row;
    struct cp_fence out = *fence;
    if (bugs_is(BUG_fence_unasked) &&
        err_ok(real->ops->lease_read(real, fence->environment, &row)) &&
        ledger_holder(row.epoch, out.holder)) {
        out.epoch = row.epoch;
    }
    return out;
}

/* ---- the operations ---- */

static void op_close(struct cp_store *store)
{
    cp_store_close(REAL(store));
    free(store);
}

static struct err op_lease_take(struct cp_store *store, const struct cp_lease_wish *wish,
                                struct cp_lease *out)
{
    struct cp_store *real = REAL(store);
    struct cp_lease lease = {0};
    TRY(reach("db.lease_take"));
    TRY(is_lost());
    struct err e = real->ops->lease_take(real, wish, &lease);
    if (err_ok(e)) {
        ledger_lease(wish, &lease);
    }
    TRY(answer_write(e));
    *out = lease;
    return OK;
}

static struct err op_lease_drop(struct cp_store *store, const struct cp_fence *fence)
{
    struct cp_store *real = REAL(store);
    WRITE("db.lease_drop", real->ops->lease_drop(real, fence), (void)0);
}

static struct err op_lease_read(struct cp_store *store, const char *environment,
                                struct cp_lease *out)
{
    struct cp_store *real = REAL(store);
    READ("db.lease_read", real->ops->lease_read(real, environment, out));
}

static struct err op_version_hand(struct cp_store *store, const struct cp_fence *fence,
                                  uint64_t *out_version)
{
    struct cp_store *real = REAL(store);
    uint64_t version = 0;
    TRY(reach("db.version_hand"));
    TRY(is_lost());
    struct cp_fence shown = fence_of(real, fence);
    struct err e = real->ops->version_hand(real, &shown, &version);
    version -= bugs_is(BUG_number_twice) && version > ledger_newest() + 1 ? 1 : 0;
    if (err_ok(e)) {
        ledger_fenced(real, fence, "version_hand");
        ledger_handed(version);
    }
    TRY(answer_write(e));
    *out_version = version;
    return OK;
}

static struct err op_version_raise(struct cp_store *store, const struct cp_fence *fence,
                                   uint64_t version)
{
    struct cp_store *real = REAL(store);
    WRITE_FENCED("db.version_raise", real->ops->version_raise(real, &shown, version), (void)0);
}

static struct err op_sources_put(struct cp_store *store, const struct cp_fence *fence,
                                 uint64_t version, const struct cp_store_file *files, size_t count)
{
    struct cp_store *real = REAL(store);
    WRITE_FENCED("db.sources_put", real->ops->sources_put(real, &shown, version, files, count),
                 (void)0);
}

static struct err op_proposal_put(struct cp_store *store, const struct cp_fence *fence,
                                  const struct cp_proposal *proposal, struct slice body)
{
    struct cp_store *real = REAL(store);
    WRITE_FENCED("db.proposal_put", real->ops->proposal_put(real, &shown, proposal, body), (void)0);
}

static struct err op_proposal_close(struct cp_store *store, const struct cp_fence *fence,
                                    uint64_t version)
{
    struct cp_store *real = REAL(store);
    WRITE_FENCED("db.proposal_close", real->ops->proposal_close(real, &shown, version), (void)0);
}

static struct err op_proposal_open(struct cp_store *store, const char *environment,
                                   struct cp_proposal *out, struct buf *body)
{
    struct cp_store *real = REAL(store);
    READ("db.proposal_open", real->ops->proposal_open(real, environment, out, body));
}

static struct err op_cosign_put(struct cp_store *store, const char *environment, uint64_t version,
                                const uint8_t body_digest[DIGEST_SIZE],
                                const struct cp_cosignature *cosignature)
{
    struct cp_store *real = REAL(store);
    WRITE("db.cosign_put",
          real->ops->cosign_put(real, environment, version, body_digest, cosignature), (void)0);
}

static struct err op_cosign_list(struct cp_store *store, const char *environment, uint64_t version,
                                 struct cp_cosignature out[CP_COSIGNATURES_MAX], size_t *out_count)
{
    struct cp_store *real = REAL(store);
    READ("db.cosign_list", real->ops->cosign_list(real, environment, version, out, out_count));
}

static struct err op_publish(struct cp_store *store, const struct cp_fence *fence,
                             const struct cp_publication *publication)
{
    struct cp_store *real = REAL(store);
    struct cp_publication kept = *publication;
    if (bugs_is(BUG_request_forgotten)) {
        kept.record.request[0] = '\0';
    }
    WRITE_FENCED("db.publish", real->ops->publish(real, &shown, &kept),
                 ledger_published(real, &publication->record));
}

/* A fence is asked where something is written: not when there is nothing to drop. */
static struct err op_drop_old(struct cp_store *store, const struct cp_fence *fence, bool *out_any)
{
    struct cp_store *real = REAL(store);
    TRY(reach("db.drop_old"));
    TRY(is_lost());
    struct cp_fence shown = fence_of(real, fence);
    struct err e = real->ops->drop_old(real, &shown, out_any);
    if (err_ok(e) && *out_any) {
        ledger_fenced(real, fence, "db.drop_old");
    }
    return answer_write(e);
}

static struct err op_drop_above(struct cp_store *store, const struct cp_fence *fence,
                                uint64_t version, uint64_t newest)
{
    struct cp_store *real = REAL(store);
    WRITE_FENCED("db.drop_above", real->ops->drop_above(real, &shown, version, newest), (void)0);
}

static struct err op_find_request(struct cp_store *store, const char *environment,
                                  const char *request, struct cp_record *out)
{
    struct cp_store *real = REAL(store);
    if (bugs_is(BUG_request_forgotten)) {
        return FAIL(E_NOT_FOUND);
    }
    READ("db.find_request", real->ops->find_request(real, environment, request, out));
}

static struct err op_latest(struct cp_store *store, const char *environment, struct cp_record *out)
{
    struct cp_store *real = REAL(store);
    READ("db.latest", real->ops->latest(real, environment, out));
}

static struct err op_load(struct cp_store *store, const char *environment, uint64_t version,
                          struct cp_record *out, struct buf *manifest)
{
    struct cp_store *real = REAL(store);
    READ("db.load", real->ops->load(real, environment, version, out, manifest));
}

static struct err op_history(struct cp_store *store, const char *environment, uint64_t before,
                             struct cp_record *out, size_t max, size_t *out_count)
{
    struct cp_store *real = REAL(store);
    READ("db.history", real->ops->history(real, environment, before, out, max, out_count));
}

static struct err op_chunk_get(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                               struct buf *out)
{
    struct cp_store *real = REAL(store);
    READ("db.chunk_get", real->ops->chunk_get(real, raw_digest, out));
}

/*
 * What is visited came over the network before it is: a visitor may wait, an operation may not.
 */
struct visited {
    struct cp_store_file *files;
    struct cp_store_chunk *chunks;
    size_t count;
    size_t capacity;
};

static struct slice keep(struct slice from)
{
    uint8_t *bytes = malloc(from.size + 1);
    CHECK(bytes != NULL);
    memcpy(bytes, from.size == 0 ? (const void *)"" : from.ptr, from.size);
    return slice_of(bytes, from.size);
}

static struct err keep_file(void *ctx, const struct cp_store_file *file)
{
    struct visited *v = ctx;
    struct cp_store_file *grown = realloc(v->files, (v->count + 1) * sizeof(*grown));
    CHECK(grown != NULL);
    v->files = grown;
    v->files[v->count++] =
        (struct cp_store_file){.name = keep(file->name), .bytes = keep(file->bytes)};
    return OK;
}

static struct err op_sources_get(struct cp_store *store, const char *environment, uint64_t version,
                                 cp_store_file_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    struct visited v = {0};
    TRY(reach("db.sources_get"));
    struct err e = answer(real->ops->sources_get(real, environment, version, keep_file, &v));
    for (size_t i = 0; i < v.count && err_ok(e); i++) {
        e = visit(ctx, &v.files[i]);
    }
    return e; /* a schedule gives nothing back. */
}

static struct err keep_chunk(void *ctx, const struct cp_store_chunk *chunk)
{
    struct visited *v = ctx;
    struct cp_store_chunk *grown = realloc(v->chunks, (v->count + 1) * sizeof(*grown));
    CHECK(grown != NULL);
    v->chunks = grown;
    v->chunks[v->count] = *chunk;
    v->chunks[v->count++].stored = keep(chunk->stored);
    return OK;
}

static struct err op_chunks_find(struct cp_store *store, struct slice raw_digests,
                                 cp_store_chunk_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    struct visited v = {0};
    TRY(reach("db.chunks_find"));
    struct err e = answer(real->ops->chunks_find(real, raw_digests, keep_chunk, &v));
    for (size_t i = 0; i < v.count && err_ok(e); i++) {
        e = visit(ctx, &v.chunks[i]);
    }
    return e;
}

static struct err op_chunks_get(struct cp_store *store, const char *environment, uint64_t version,
                                cp_store_chunk_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    struct visited v = {0};
    TRY(reach("db.chunks_get"));
    struct err e = answer(real->ops->chunks_get(real, environment, version, keep_chunk, &v));
    for (size_t i = 0; i < v.count && err_ok(e); i++) {
        e = visit(ctx, &v.chunks[i]);
    }
    return e;
}

static struct err op_root_put(struct cp_store *store, const char *environment, uint64_t version,
                              struct slice container)
{
    struct cp_store *real = REAL(store);
    WRITE("db.root_put", real->ops->root_put(real, environment, version, container), (void)0);
}

static struct err op_replica_put(struct cp_store *store, const char *environment,
                                 const struct cp_replica *replica)
{
    struct cp_store *real = REAL(store);
    WRITE("db.replica_put", real->ops->replica_put(real, environment, replica), (void)0);
}

struct kept_root {
    uint64_t version;
    struct slice container;
};

struct kept_roots {
    struct kept_root roots[ROOTS_MAX];
    size_t count;
};

static struct err keep_root(void *ctx, uint64_t version, struct slice container)
{
    struct kept_roots *kept = ctx;
    CHECK(kept->count < ROOTS_MAX);
    kept->roots[kept->count++] = (struct kept_root){version, keep(container)};
    return OK;
}

static struct err op_roots_get(struct cp_store *store, const char *environment, uint64_t version,
                               cp_store_root_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    struct kept_roots kept = {0};
    TRY(reach("db.roots_get"));
    struct err e = answer(real->ops->roots_get(real, environment, version, keep_root, &kept));
    for (size_t i = 0; i < kept.count && err_ok(e); i++) {
        e = visit(ctx, kept.roots[i].version, kept.roots[i].container);
    }
    return e;
}

static struct err op_audit_add(struct cp_store *store, const char *environment,
                               const struct cp_audit *entry)
{
    struct cp_store *real = REAL(store);
    WRITE("db.audit_add", real->ops->audit_add(real, environment, entry), (void)0);
}

/* Nodes are enrolled by hand here. */
static struct err op_node_list(struct cp_store *store, const char *environment,
                               cp_store_node_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    READ("db.node_list", real->ops->node_list(real, environment, visit, ctx));
}

static void op_set_lock_wait(struct cp_store *store, uint64_t wait_ms)
{
    struct cp_store *real = REAL(store);
    real->ops->set_lock_wait(real, wait_ms);
}

static struct err op_certificates_removed(struct cp_store *store, const char *environment,
                                          cp_store_certificate_fn *visit, void *ctx)
{
    struct cp_store *real = REAL(store);
    READ("db.certificates_removed", real->ops->certificates_removed(real, environment, visit, ctx));
}

/* What the simulated replicas do not ask for is not here: a NULL that is called says so. */
static const struct cp_store_ops ops = {
    .name = "model",
    .close = op_close,
    .lease_take = op_lease_take,
    .lease_drop = op_lease_drop,
    .lease_read = op_lease_read,
    .version_hand = op_version_hand,
    .version_raise = op_version_raise,
    .sources_put = op_sources_put,
    .proposal_put = op_proposal_put,
    .proposal_close = op_proposal_close,
    .proposal_open = op_proposal_open,
    .cosign_put = op_cosign_put,
    .cosign_list = op_cosign_list,
    .publish = op_publish,
    .drop_old = op_drop_old,
    .drop_above = op_drop_above,
    .find_request = op_find_request,
    .latest = op_latest,
    .load = op_load,
    .history = op_history,
    .sources_get = op_sources_get,
    .chunk_get = op_chunk_get,
    .chunks_get = op_chunks_get,
    .chunks_find = op_chunks_find,
    .audit_add = op_audit_add,
    .node_list = op_node_list,
    .certificates_removed = op_certificates_removed,
    .set_lock_wait = op_set_lock_wait,
    .root_put = op_root_put,
    .replica_put = op_replica_put,
    .roots_get = op_roots_get,
};

struct err __wrap_cp_store_open(const char *url, struct cp_store **out, struct buf *message)
{
    struct remote *r = calloc(1, sizeof(*r));
    CHECK(r != NULL);
    r->store.ops = &ops;
    struct err e = __real_cp_store_open(url, &r->real, message);
    if (!err_ok(e)) {
        free(r);
        return e;
    }
    *out = &r->store;
    return OK;
}

/* ---- from outside ---- */

static void must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        sim_fail("%s: %s at %s", what, err_name(e.code), e.where);
    }
}

void database_begin(const char *directory)
{
    memset(&database, 0, sizeof(database));
    database_faults = (struct database_faults){0};
    database_clock = (struct sim_clock){0};
    (void)snprintf(database.path, sizeof(database.path), "%s/store.db", directory);
    (void)snprintf(database.backup, sizeof(database.backup), "%s/backup.db", directory);
    (void)snprintf(database.url, sizeof(database.url), "sqlite:%s/store.db", directory);
    auto_buf struct buf message = BUF_MAX(4096);
    must(__real_cp_store_open(database.url, &database.store, &message), "the database");
}

const char *database_url(void)
{
    return database.url;
}

struct cp_store *database_store(void)
{
    return database.store;
}

unsigned database_generation(void)
{
    return database.generation;
}

static void copy_database(const char *from_path, const char *to_path)
{
    sqlite3 *from = NULL;
    sqlite3 *to = NULL;
    CHECK(sqlite3_open(from_path, &from) == SQLITE_OK);
    CHECK(sqlite3_open(to_path, &to) == SQLITE_OK);
    sqlite3_backup *copy = sqlite3_backup_init(to, "main", from, "main");
    CHECK(copy != NULL);
    CHECK(sqlite3_backup_step(copy, -1) == SQLITE_DONE);
    CHECK(sqlite3_backup_finish(copy) == SQLITE_OK);
    CHECK(sqlite3_close(from) == SQLITE_OK);
    CHECK(sqlite3_close(to) == SQLITE_OK);
}

void database_backup(void)
{
    copy_database(database.path, database.backup);
    database.has_backup = true;
    ledger_backed_up();
}

void database_restore(void)
{
    if (database.has_backup) {
        copy_database(database.backup, database.path);
        database.generation++;
        ledger_restored();
    }
}
