/*
 * store: the database of the control plane, as operations; each is one transaction.
 *
 * Shape      a struct of function pointers and what its implementation needs. SQLite today; an
 *            implementation is right when conformance/store passes over it.
 * Units      milliseconds since the epoch, by the database's clock.
 * Ownership  whoever opens a store closes it. Records are plain values; bytes go to a buf of the
 *            caller's or to a visitor, which borrows them for the call.
 * Threads    one store is used by one thread; each thread opens its own.
 * Errors     E_NOT_FOUND when there is no such row; E_NOT_LEADER when the fence does not hold (any
 *            write of a leader); E_CONFLICT when a row is there already; E_STORE_FULL when the disk
 *            is full; E_UNAVAILABLE when the database stays locked or cannot be reached; E_IO.
 *            After a failure nothing of the operation is in the database.
 * Source     docs/formats.md, "Publishing"; migrations/.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/slice.h"

enum {
    CP_HOLDER_SIZE = 16,
    CP_ENVIRONMENT_MAX = 63,
    CP_AUTHOR_MAX = 128,
    CP_MESSAGE_MAX = 1024,
    CP_ACTION_MAX = 64,
    CP_OBJECT_MAX = 128,
};

/* What a leader presents with each write: the row must still be its own. */
struct cp_fence {
    const char *environment;
    uint8_t holder[CP_HOLDER_SIZE]; /* random, made at each start. */
    uint64_t epoch;
};

struct cp_lease_wish {
    const char *environment;
    uint8_t holder[CP_HOLDER_SIZE];
    const char *name;     /* for people: which replica. */
    uint64_t lease_ms;    /* the row runs out after this. */
    uint64_t epoch_above; /* take an epoch above this one; 0: keep the present one. */
};

struct cp_lease {
    bool held;                         /* the row is the asker's now. */
    uint64_t epoch;                    /* of the row. */
    int64_t expires_ms;                /* of the row. */
    int64_t now_ms;                    /* the database's clock at that moment. */
    char name[CP_ENVIRONMENT_MAX + 1]; /* of the holder. */
};

/* A publication, without its bytes. */
struct cp_record {
    uint64_t version;
    uint64_t epoch;
    uint64_t origin; /* a rollback's content is this version's; 0: its own. */
    uint8_t manifest_digest[DIGEST_SIZE];
    uint8_t content_digest[DIGEST_SIZE];
    uint64_t raw_size;
    int64_t created_ms;
    char author[CP_AUTHOR_MAX + 1];
    char message[CP_MESSAGE_MAX + 1];
};

struct cp_store_chunk {
    uint8_t raw_digest[DIGEST_SIZE];
    uint8_t stored_digest[DIGEST_SHORT_SIZE];
    uint64_t raw_size;
    struct slice stored; /* borrowed. Empty in a publication: the store has it already. */
};

/* What the commit of a journal row takes. */
struct cp_publication {
    struct cp_record record;             /* created_ms is the store's to set. */
    struct slice manifest;               /* the signed container. */
    const struct cp_store_chunk *chunks; /* in the order of the manifest's streams. */
    size_t chunk_count;
};

struct cp_store_file {
    struct slice name;
    struct slice bytes;
};

struct cp_audit {
    uint64_t seq;  /* the store's to set. */
    int64_t at_ms; /* the store's to set. */
    char actor[CP_AUTHOR_MAX + 1];
    char action[CP_ACTION_MAX + 1];
    char object[CP_OBJECT_MAX + 1];
    char outcome[CP_ACTION_MAX + 1]; /* "OK", or the code of a refusal. */
};

typedef struct err cp_store_file_fn(void *ctx, const struct cp_store_file *file);
typedef struct err cp_store_chunk_fn(void *ctx, const struct cp_store_chunk *chunk);

struct cp_store;

struct cp_store_ops {
    const char *name; /* "sqlite". */
    void (*close)(struct cp_store *store);

    /*
     * Takes the leader's row if it is free, run out or the wisher's own; renews it. A row that
     * changes hands gets the next epoch. Not getting it is no failure: out->held is false.
     */
    struct err (*lease_take)(struct cp_store *store, const struct cp_lease_wish *wish,
                             struct cp_lease *out);
    /* Lets the row run out now, so that another replica need not wait. */
    struct err (*lease_drop)(struct cp_store *store, const struct cp_fence *fence);
    /* Who leads; E_NOT_FOUND when nobody ever did. */
    struct err (*lease_read)(struct cp_store *store, const char *environment, struct cp_lease *out);

    /* Hands out the next number. It never comes again, whatever becomes of it. */
    struct err (*version_hand)(struct cp_store *store, const struct cp_fence *fence,
                               uint64_t *out_version);
    /* Keeps the sources of a version that was handed out. */
    struct err (*sources_put)(struct cp_store *store, const struct cp_fence *fence,
                              uint64_t version, const struct cp_store_file *files, size_t count);
    /* Writes the finished manifest body; E_CONFLICT when the version has another one. */
    struct err (*proposal_put)(struct cp_store *store, const struct cp_fence *fence,
                               uint64_t version, struct slice body);
    /*
     * Commits the journal row with its chunks: the publication. E_CONFLICT when the version has
     * one, or when a higher version was published. Drops what is beyond limits.history_versions.
     */
    struct err (*publish)(struct cp_store *store, const struct cp_fence *fence,
                          const struct cp_publication *publication);

    /* The highest publication; E_NOT_FOUND before the first. */
    struct err (*latest)(struct cp_store *store, const char *environment, struct cp_record *out);
    /* One publication; 'manifest' (may be NULL) gets the signed container. */
    struct err (*load)(struct cp_store *store, const char *environment, uint64_t version,
                       struct cp_record *out, struct buf *manifest);
    /* Publications below 'before' (0: all), newest first. */
    struct err (*history)(struct cp_store *store, const char *environment, uint64_t before,
                          struct cp_record *out, size_t max, size_t *out_count);
    /* Calls 'visit' for each source file of a version, by name. */
    struct err (*sources_get)(struct cp_store *store, const char *environment, uint64_t version,
                              cp_store_file_fn *visit, void *ctx);
    /* Appends the stored bytes of a chunk. */
    struct err (*chunk_get)(struct cp_store *store, const uint8_t raw_digest[DIGEST_SIZE],
                            struct buf *out);
    /* Calls 'visit' for each chunk of a publication, in the order of its streams. */
    struct err (*chunks_get)(struct cp_store *store, const char *environment, uint64_t version,
                             cp_store_chunk_fn *visit, void *ctx);

    /* Appends a line to the audit; reads the newest ones, newest first. */
    struct err (*audit_add)(struct cp_store *store, const char *environment,
                            const struct cp_audit *entry);
    struct err (*audit_list)(struct cp_store *store, const char *environment, struct cp_audit *out,
                             size_t max, size_t *out_count);
};

struct cp_store {
    const struct cp_store_ops *ops;
};

/*
 * Opens "sqlite:FILE" (made when missing) and brings its schema up to this release's. E_STORE_NEWER
 * when a newer release made it; E_USAGE for another kind of URL; 'message' gets one sentence.
 */
MUST_CHECK struct err cp_store_open(const char *url, struct cp_store **out, struct buf *message);
/* Closes; NULL is fine. */
void cp_store_close(struct cp_store *store);
