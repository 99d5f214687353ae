/*
 * store_in: what the operations of a store share among themselves.
 *
 * Shape      each file is a noun, each function cp_op_X the operation X of store.h, written once
 *            over sql.h. What an operation needs within its transaction stands in a struct of its
 *            own, since a transaction may run more than once.
 */
#pragma once

#include "controlplane/store/sql.h"
#include "controlplane/store/store.h"

/* In last_number: "still". Above every version. */
#define CP_STILL INT64_MAX

struct cp_store_db {
    struct cp_store store; /* first: a cp_store is cast to this. */
    struct cp_store_ops ops;
    struct sql *db;
};

static inline struct sql *cp_db(struct cp_store *store)
{
    return ((struct cp_store_db *)store)->db;
}

/* What a write is, beside its body. */
struct cp_write {
    const struct cp_fence *fence; /* NULL: none. */
    uint64_t bytes; /* about what it writes; 0: nothing that a full disk must refuse. */
};

/* Runs a transaction that writes; see sql_transact(). */
MUST_CHECK struct err cp_write(struct cp_store *store, const struct cp_write *write,
                               sql_body_fn *body, void *ctx);

/* Runs a statement of environment and number, $1 and $2, whose rows do not matter. */
MUST_CHECK struct err cp_run_numbered(struct sql *db, const char *text, const char *environment,
                                      uint64_t number);

/* Digests for one query. */
struct cp_digests {
    uint8_t digests[SQL_LIST_MAX][DIGEST_SIZE];
    unsigned count;
};

/* How what only old versions name is found and dropped, for one kind of thing. */
struct cp_uses {
    const char *find;   /* digests named by no version from $2 of environment $1 on; at most $3. */
    const char *forget; /* what says so, for the digests of a list from $3 on. */
    const char *remove; /* the things themselves that nobody names, of a list from $1 on. */
};

/* Drops what only versions below 'oldest' name, in time that grows with just that. */
MUST_CHECK struct err cp_uses_drop(struct sql *db, const struct cp_uses *uses,
                                   const char *environment, uint64_t oldest);
extern const struct cp_uses cp_chunk_uses;
extern const struct cp_uses cp_source_uses;

/* Keeps a publication's chunks, and from which version to which they are named. 'before' is the
 * list of raw digests of the newest publication until now. */
MUST_CHECK struct err cp_chunks_put(struct sql *db, const char *environment,
                                    const struct cp_publication *publication, struct slice before);

/* ---- the operations ---- */

struct err cp_op_lease_take(struct cp_store *store, const struct cp_lease_wish *wish,
                            struct cp_lease *out);
struct err cp_op_lease_drop(struct cp_store *store, const struct cp_fence *fence);
struct err cp_op_lease_read(struct cp_store *store, const char *environment, struct cp_lease *out);

struct err cp_op_version_hand(struct cp_store *store, const struct cp_fence *fence,
                              uint64_t *out_version);
struct err cp_op_version_raise(struct cp_store *store, const struct cp_fence *fence,
                               uint64_t version);

struct err cp_op_sources_put(struct cp_store *store, const struct cp_fence *fence, uint64_t version,
                             const struct cp_store_file *files, size_t count);
struct err cp_op_sources_get(struct cp_store *store, const char *environment, uint64_t version,
                             cp_store_file_fn *visit, void *ctx);

struct err cp_op_proposal_put(struct cp_store *store, const struct cp_fence *fence,
                              const struct cp_proposal *proposal, struct slice body);
struct err cp_op_proposal_close(struct cp_store *store, const struct cp_fence *fence,
                                uint64_t version);
struct err cp_op_proposal_open(struct cp_store *store, const char *environment,
                               struct cp_proposal *out, struct buf *body);
struct err cp_op_cosign_put(struct cp_store *store, const char *environment, uint64_t version,
                            const uint8_t body_digest[DIGEST_SIZE],
                            const struct cp_cosignature *cosignature);
struct err cp_op_cosign_list(struct cp_store *store, const char *environment, uint64_t version,
                             struct cp_cosignature out[CP_COSIGNATURES_MAX], size_t *out_count);

struct err cp_op_publish(struct cp_store *store, const struct cp_fence *fence,
                         const struct cp_publication *publication);
struct err cp_op_drop_old(struct cp_store *store, const struct cp_fence *fence, bool *out_any);
struct err cp_op_drop_above(struct cp_store *store, const struct cp_fence *fence, uint64_t version,
                            uint64_t newest);
struct err cp_op_find_request(struct cp_store *store, const char *environment, const char *request,
                              struct cp_record *out);
struct err cp_op_latest(struct cp_store *store, const char *environment, struct cp_record *out);
struct err cp_op_load(struct cp_store *store, const char *environment, uint64_t version,
                      struct cp_record *out, struct buf *manifest);
struct err cp_op_history(struct cp_store *store, const char *environment, uint64_t before,
                         struct cp_record *out, size_t max, size_t *out_count);
struct err cp_op_chunk_get(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                           struct buf *out);
struct err cp_op_chunks_get(struct cp_store *store, const char *environment, uint64_t version,
                            cp_store_chunk_fn *visit, void *ctx);
struct err cp_op_chunks_find(struct cp_store *store, struct slice raw_digests,
                             cp_store_chunk_fn *visit, void *ctx);

struct err cp_op_audit_add(struct cp_store *store, const char *environment,
                           const struct cp_audit *entry);
struct err cp_op_audit_list(struct cp_store *store, const char *environment, struct cp_audit *out,
                            size_t max, size_t *out_count);

struct err cp_op_replica_put(struct cp_store *store, const char *environment,
                             const struct cp_replica *replica);
struct err cp_op_replica_list(struct cp_store *store, const char *environment,
                              struct cp_replica out[CP_REPLICAS_MAX], size_t *out_count);
struct err cp_op_root_put(struct cp_store *store, const char *environment, uint64_t version,
                          struct slice container);
struct err cp_op_roots_get(struct cp_store *store, const char *environment, uint64_t version,
                           cp_store_root_fn *visit, void *ctx);

struct err cp_op_token_put(struct cp_store *store, const char *environment,
                           const struct cp_join_token *token);
struct err cp_op_token_get(struct cp_store *store, const char *environment,
                           const uint8_t digest[DIGEST_SIZE], struct cp_join_token *out);
struct err cp_op_node_enrol(struct cp_store *store, const char *environment,
                            const uint8_t digest[DIGEST_SIZE], const struct cp_node *node);
struct err cp_op_node_get(struct cp_store *store, const char *environment, const char *id,
                          struct cp_node *out);
struct err cp_op_node_list(struct cp_store *store, const char *environment, cp_store_node_fn *visit,
                           void *ctx);
struct err cp_op_node_renew(struct cp_store *store, const char *environment,
                            const struct cp_node *node);
struct err cp_op_node_remove(struct cp_store *store, const char *environment, const char *id);

struct err cp_op_certificates_of(struct cp_store *store, const char *environment, const char *node,
                                 cp_store_certificate_fn *visit, void *ctx);
struct err cp_op_certificates_removed(struct cp_store *store, const char *environment,
                                      cp_store_certificate_fn *visit, void *ctx);
struct err cp_op_certificate_remove(struct cp_store *store, const char *environment,
                                    const struct cp_certificate *certificate);
/* Keeps a node's certificate, within the transaction that gives it out; "": it has none. */
MUST_CHECK struct err cp_certificate_put(struct sql *db, const char *environment,
                                         const struct cp_node *node);

struct err cp_op_backup(struct cp_store *store, int fd);
struct err cp_op_restore(struct cp_store *store, int fd);
