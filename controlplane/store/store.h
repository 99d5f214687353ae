/*
 * store: the database of the control plane, as operations; each is one transaction.
 *
 * Shape      a struct of function pointers over one of two databases: SQLite, the embedded
 *            default of one machine, and PostgreSQL, which a trio shares. conformance/store runs
 *            over both.
 * Units      milliseconds since the epoch, by the database's clock.
 * Ownership  whoever opens a store closes it. Records are plain values; bytes go to a buf of the
 *            caller's or to a visitor, which borrows them for the call.
 * Threads    one store is used by one thread; each thread opens its own.
 * Errors     E_NOT_FOUND when there is no such row; E_NOT_LEADER when the fence does not hold
 *            (any write of a leader); E_CONFLICT when a row is there already; E_MALFORMED for
 *            text that is not UTF-8 or has a NUL; E_TOO_LARGE; E_STORE_FULL when the disk is
 *            full; E_STORE_NEWER when a newer release has migrated the database meanwhile;
 *            E_STORE_LOCKED when another session of PostgreSQL holds what is needed for longer
 *            than we wait; E_STORE_DEPOSED when of several hosts none answers but an old
 *            primary, whose standby was promoted; E_UNAVAILABLE when SQLite stays locked, or the
 *            database is silent or cannot be reached; E_IO. After a failure nothing of the
 *            operation is in the database, but for E_RESULT_UNKNOWN: the connection broke while
 *            the commit was on its way. Reading tells; where doing it again does no harm, the
 *            store does so itself.
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
    CP_ADDRESS_MAX = 255,
    CP_REQUEST_MAX = 64,
    CP_LABELS_MAX = 1023,
    CP_SERIAL_MAX = 40,
    CP_CERTIFICATE_MAX = 4096,
    CP_COSIGNATURES_MAX = 16,
    CP_SIGNERS_MAX = 1023,
    CP_REPLICAS_MAX = 64, /* with keys of the last week. */
    CP_WARRANT_SIZE = 32,
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
    const char *name;                 /* for people: which replica. */
    const char *address;              /* of its API, for followers: "https://…"; "": none. */
    uint8_t warrant[CP_WARRANT_SIZE]; /* of the address: controlplane/publish/warrant.h. */
    uint64_t lease_ms;                /* the row runs out after this. */
    uint64_t epoch_above;             /* take an epoch above this one; 0: keep the present one. */
};

struct cp_lease {
    bool held;                         /* the row is the asker's now. */
    uint64_t epoch;                    /* of the row. */
    int64_t expires_ms;                /* of the row. */
    int64_t now_ms;                    /* the database's clock at that moment. */
    char name[CP_ENVIRONMENT_MAX + 1]; /* of the holder. */
    char address[CP_ADDRESS_MAX + 1];  /* of the holder's API; "": none. */
    uint8_t warrant[CP_WARRANT_SIZE];  /* of the address. */
};

/* A publication, without its bytes. */
struct cp_record {
    uint64_t version;
    uint64_t epoch;
    uint64_t origin; /* a rollback's content is this version's; 0: its own. */
    bool with_trust; /* so is what it revokes: what was revoked since then is taken again. */
    uint8_t manifest_digest[DIGEST_SIZE];
    uint8_t content_digest[DIGEST_SIZE];
    uint64_t raw_size;
    int64_t created_ms;
    char author[CP_AUTHOR_MAX + 1];
    char message[CP_MESSAGE_MAX + 1];
    char request[CP_REQUEST_MAX + 1]; /* the sender's own id of it, never used twice; "": none. */
    uint8_t request_digest[DIGEST_SIZE]; /* of what was asked under it; zeroes: it is not known. */
    char signers[CP_SIGNERS_MAX + 1];    /* names of the keys under its manifest, "cp-0,cp-2". */
};

/* A manifest body that waits for signatures. The newest one above the newest publication is open,
 * as long as its epoch is the present one. */
struct cp_proposal {
    uint64_t version;
    uint64_t epoch;
    uint64_t origin;     /* content of this version; 0: compiled from the version's own sources. */
    bool with_trust;     /* of a rollback: what only ever tightens goes back, too. */
    int64_t proposed_ms; /* the store's to set. */
    uint8_t sources_digest[DIGEST_SIZE]; /* as cp_store_sources_digest(). */
    uint8_t warrant[CP_WARRANT_SIZE];    /* controlplane/publish/warrant.h. */
};

/* What a replica, or who has the break-glass key, made of a proposal. */
struct cp_cosignature {
    uint8_t key_id[8];
    uint8_t signature[64];
    enum err_code code; /* why it was not signed; E_OK: it was. */
    char sentence[CP_MESSAGE_MAX + 1];
};

enum cp_node_state { CP_NODE_ENROLLED, CP_NODE_REMOVED };

/*
 * A node that joined. Who it is, what it is granted and by which key it speaks is what its
 * certificate says, once that is seen to be our CA's (controlplane/identity/passport.h); what else
 * the row says of that is for people, and believed in nothing.
 */
struct cp_node {
    char id[CP_ENVIRONMENT_MAX + 1];
    enum cp_node_state state;
    uint8_t certificate[CP_CERTIFICATE_MAX]; /* DER of its present one; */
    size_t certificate_size;                 /* 0: a release before wrote the row, */
    uint8_t status_key[32];                  /* with this key: Ed25519, public; zeroes: without. */
    char serial[CP_SERIAL_MAX + 1];          /* of its present certificate, hex; "": none. */
    int64_t not_after_ms;                    /* of that certificate; 0: none. */
    int64_t enrolled_ms;                     /* the store's to set, once. */
    uint8_t warrant[CP_WARRANT_SIZE]; /* of that certificate; written, not read: cp_certificate. */
};

/* What our CA gave a node. */
struct cp_certificate {
    char node[CP_ENVIRONMENT_MAX + 1];
    char serial[CP_SERIAL_MAX + 1]; /* hex. */
    int64_t not_after_ms;
    uint8_t warrant[CP_WARRANT_SIZE]; /* that it was given: controlplane/identity/vouch.h. */
    int64_t removed_ms;               /* when its node was removed; 0: it was not. */
    uint8_t removal[CP_WARRANT_SIZE]; /* that a replica was told so. */
};

/* A right to join once. */
struct cp_join_token {
    uint8_t digest[DIGEST_SIZE]; /* of the token: the token itself is kept nowhere. */
    char node[CP_ENVIRONMENT_MAX + 1];
    char labels[CP_LABELS_MAX + 1];
    char author[CP_AUTHOR_MAX + 1];
    int64_t expires_ms;
    uint8_t warrant[CP_WARRANT_SIZE]; /* of all that: controlplane/identity/vouch.h. */
};

/* Which keys a replica signs with, as it said last. */
struct cp_replica {
    uint8_t manifest_key[32]; /* Ed25519, public. */
    uint8_t head_key[32];
    char name[CP_ENVIRONMENT_MAX + 1]; /* for people. */
    int64_t seen_ms;                   /* the store's to set; */
    int64_t age_ms;                    /* since then, by the store's clock. */
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
    const uint8_t *digest; /* BLAKE2b-256 of the bytes; borrowed. NULL: not known yet. */
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
typedef struct err cp_store_root_fn(void *ctx, uint64_t version, struct slice container);
typedef struct err cp_store_node_fn(void *ctx, const struct cp_node *node);
typedef struct err cp_store_certificate_fn(void *ctx, const struct cp_certificate *certificate);

struct cp_store;

struct cp_store_ops {
    const char *name; /* "sqlite", "postgresql". */
    void (*close)(struct cp_store *store);
    /* From now on waits so long, and no longer, for what another session has locked. SQLite, which
     * has nobody's sessions but ours, waits as before. */
    void (*set_lock_wait)(struct cp_store *store, uint64_t wait_ms);

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
    /* From now on only numbers above 'version' are handed out; a lower one changes nothing. */
    struct err (*version_raise)(struct cp_store *store, const struct cp_fence *fence,
                                uint64_t version);
    /* Keeps the sources of a version that was handed out. E_CONFLICT when it was not, when it has
     * sources, or when a higher one has. */
    struct err (*sources_put)(struct cp_store *store, const struct cp_fence *fence,
                              uint64_t version, const struct cp_store_file *files, size_t count);
    /* Writes the finished manifest body, with the fence's epoch; E_CONFLICT when the version has
     * another one. The same again is fine. */
    struct err (*proposal_put)(struct cp_store *store, const struct cp_fence *fence,
                               const struct cp_proposal *proposal, struct slice body);
    /* Nobody waits for signatures of it any more, so that it is open no longer. */
    struct err (*proposal_close)(struct cp_store *store, const struct cp_fence *fence,
                                 uint64_t version);
    /* The newest proposal, where it is open: of the present epoch, neither published nor closed;
     * E_NOT_FOUND when it is not. 'body' may be NULL. */
    struct err (*proposal_open)(struct cp_store *store, const char *environment,
                                struct cp_proposal *out, struct buf *body);
    /*
     * Keeps what came of a proposal, by its body's digest: E_NOT_FOUND when there is no such
     * proposal. A signature stays; a refusal is replaced by what comes behind it.
     */
    struct err (*cosign_put)(struct cp_store *store, const char *environment, uint64_t version,
                             const uint8_t body_digest[DIGEST_SIZE],
                             const struct cp_cosignature *cosignature);
    /* All of a version's, by key id. */
    struct err (*cosign_list)(struct cp_store *store, const char *environment, uint64_t version,
                              struct cp_cosignature out[CP_COSIGNATURES_MAX], size_t *out_count);
    /*
     * Commits the journal row with its chunks: the publication. E_CONFLICT when the version has
     * one, when a higher version was published, or when the request's id is taken.
     */
    struct err (*publish)(struct cp_store *store, const struct cp_fence *fence,
                          const struct cp_publication *publication);
    /* Drops what is beyond limits.history_versions, some versions at a time: for each publication
     * once, when nobody waits for it any more. Where there is nothing (*out_any is false) nothing
     * is written, and no fence asked. */
    struct err (*drop_old)(struct cp_store *store, const struct cp_fence *fence, bool *out_any);

    /*
     * Drops the rows above a publication, up to the newest of them, as if they had never been:
     * nobody signed them. What was lost above it can be published then. E_CONFLICT: another is the
     * newest.
     */
    struct err (*drop_above)(struct cp_store *store, const struct cp_fence *fence, uint64_t version,
                             uint64_t newest);

    /* The publication that a request's id made; E_NOT_FOUND when none did. */
    struct err (*find_request)(struct cp_store *store, const char *environment, const char *request,
                               struct cp_record *out);
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
    /* Calls 'visit' for each of the digests, 32 bytes each, whose chunk is there, in their order:
     * many at a round trip, where chunk_get() is one each. */
    struct err (*chunks_find)(struct cp_store *store, struct slice raw_digests,
                              cp_store_chunk_fn *visit, void *ctx);

    /* Appends a line to the audit; reads the newest ones, newest first. */
    struct err (*audit_add)(struct cp_store *store, const char *environment,
                            const struct cp_audit *entry);
    struct err (*audit_list)(struct cp_store *store, const char *environment, struct cp_audit *out,
                             size_t max, size_t *out_count);

    /* Keeps a root, judged by the caller; E_CONFLICT unless it is the first, or one above the
     * newest. The same bytes again are fine. */
    struct err (*root_put)(struct cp_store *store, const char *environment, uint64_t version,
                           struct slice container);
    /* Calls 'visit' for each root from 'version' on, ascending. */
    struct err (*roots_get)(struct cp_store *store, const char *environment, uint64_t version,
                            cp_store_root_fn *visit, void *ctx);

    /* Notes that a replica signs with these keys now; pairs that nobody noted for a week are
     * dropped. Reads them, those of the last moment first. */
    struct err (*replica_put)(struct cp_store *store, const char *environment,
                              const struct cp_replica *replica);
    struct err (*replica_list)(struct cp_store *store, const char *environment,
                               struct cp_replica out[CP_REPLICAS_MAX], size_t *out_count);

    /* Keeps a token; E_CONFLICT when its digest is there. Used and expired ones are dropped a week
     * later. */
    struct err (*token_put)(struct cp_store *store, const char *environment,
                            const struct cp_join_token *token);
    /* Reads a token that may still be used: E_TOKEN_UNKNOWN, E_TOKEN_USED, E_TOKEN_EXPIRED. */
    struct err (*token_get)(struct cp_store *store, const char *environment,
                            const uint8_t digest[DIGEST_SIZE], struct cp_join_token *out);
    /* Uses a token up and enrols its node, with its certificate, all or nothing; a node of that
     * name is replaced, its old key with it. The same errors, and E_USAGE when the token is another
     * node's. */
    struct err (*node_enrol)(struct cp_store *store, const char *environment,
                             const uint8_t digest[DIGEST_SIZE], const struct cp_node *node);
    /* E_NOT_FOUND. */
    struct err (*node_get)(struct cp_store *store, const char *environment, const char *id,
                           struct cp_node *out);
    struct err (*node_list)(struct cp_store *store, const char *environment,
                            cp_store_node_fn *visit, void *ctx);
    /* Notes a new certificate of an enrolled node; E_NOT_FOUND when it is none, or removed. */
    struct err (*node_renew)(struct cp_store *store, const char *environment,
                             const struct cp_node *node);
    /* Removes a node: it is listed as removed, nothing of it is taken any more, and tokens of its
     * name that nobody used are used up. E_NOT_FOUND. */
    struct err (*node_remove)(struct cp_store *store, const char *environment, const char *id);
    /* Calls 'visit' for each certificate that is not over: of a node, or all that were removed.
     * Those that are over for a day are dropped with the next new one. */
    struct err (*certificates_of)(struct cp_store *store, const char *environment, const char *node,
                                  cp_store_certificate_fn *visit, void *ctx);
    struct err (*certificates_removed)(struct cp_store *store, const char *environment,
                                       cp_store_certificate_fn *visit, void *ctx);
    /* Keeps one as removed, with both warrants, whether or not it is there. */
    struct err (*certificate_remove)(struct cp_store *store, const char *environment,
                                     const struct cp_certificate *certificate);

    /* Writes everything that a control plane needs as a stream of bytes, as of one moment; and
     * reads it into an empty store of either kind: E_CONFLICT when it is not empty, E_MALFORMED
     * for bytes that are no whole backup, E_STORE_NEWER for a newer release's. The restored
     * leader's row has run out, and no process holds it. */
    struct err (*backup)(struct cp_store *store, int fd);
    struct err (*restore)(struct cp_store *store, int fd);
};

struct cp_store {
    const struct cp_store_ops *ops;
};

/* Digest of names and bytes of files, in whatever order they come; E_CONFLICT when two have one
 * name.
 */
MUST_CHECK struct err cp_store_sources_digest(const struct cp_store_file *files, size_t count,
                                              uint8_t out[DIGEST_SIZE]);

/*
 * Opens "sqlite:FILE" (made when missing) or "postgresql://…" and brings its schema up to this
 * release's; of several replicas that start at once one does, under a lock. E_STORE_NEWER when a
 * newer release made it; E_USAGE for another kind of URL; 'message' gets one sentence. A PostgreSQL
 * that is lost later is connected to again by the next operation.
 */
MUST_CHECK struct err cp_store_open(const char *url, struct cp_store **out, struct buf *message);

/* The same for a server that begins: a database that is busy, or just comes up, is asked again for
 * ten seconds. */
MUST_CHECK struct err cp_store_await(const char *url, struct cp_store **out, struct buf *message);
/* Whether others on the way could read what travels to a database, or answer in its place: over TCP
 * without sslmode verify-ca or verify-full, by the URL or by libpq's environment. */
bool cp_store_url_is_clear(const char *url);
/* Whether a URL holds a password, or might: one that does not parse. */
bool cp_store_url_has_secret(const char *url);
/* Closes; NULL is fine. */
void cp_store_close(struct cp_store *store);
