/*
 * container: bytes with signatures around them: root, manifest, head and status.
 *
 * Shape      a header of 32 bytes, up to 16 signatures, a body. Nothing behind the header is
 *            parsed before it is verified, and what is verified is what is parsed.
 * Ownership  a struct container borrows from the bytes that it was read from.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     by kind, see container_codes().
 * Source     docs/formats.md, "Container".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"
#include "common/snapshot/keys.h"

/* A signature made elsewhere: by the signer process, or by another replica. */
struct container_signature {
    uint8_t key_id[KEY_ID_SIZE];
    uint8_t signature[KEY_SIGNATURE_SIZE];
};

struct container {
    enum container_kind kind;
    uint8_t environment[ENVIRONMENT_SIZE];
    uint8_t signature_count;
    struct slice signatures; /* signature_count times key id and signature. */
    struct slice body;       /* not to be parsed before container_verify(). */
};

/* What is refused of a kind, and as what. */
struct container_codes {
    enum err_code malformed;
    enum err_code wrong_environment;
    enum err_code unsigned_; /* too few signatures of the role's keys. */
    enum err_code wrong_key; /* the same, and a key of another role signed. */
};
const struct container_codes *container_codes(enum container_kind kind);

/* Bound of a body of this kind. */
size_t container_body_max(enum container_kind kind);

/* Appends the bytes that a key signs for a body. */
MUST_CHECK struct err container_signed_bytes(enum container_kind kind,
                                             const uint8_t environment[ENVIRONMENT_SIZE],
                                             struct slice body, struct buf *out);

/* Signs a body; for who holds the key. E_TOO_LARGE past the body's bound. */
MUST_CHECK struct err container_sign(enum container_kind kind,
                                     const uint8_t environment[ENVIRONMENT_SIZE], struct slice body,
                                     const struct key_pair *pair, struct container_signature *out);

/*
 * Appends a container of body and signatures. E_TOO_LARGE past the body's bound or with more than
 * 16 signatures, E_USAGE when a key id is there twice, or not one for head and status.
 */
MUST_CHECK struct err container_seal(enum container_kind kind,
                                     const uint8_t environment[ENVIRONMENT_SIZE], struct slice body,
                                     const struct container_signature *signatures, size_t count,
                                     struct buf *out);

/*
 * Judges the header and the sizes, all before anything is hashed; 'environment' NULL takes any.
 * Fails with the kind's 'malformed' or 'wrong_environment'.
 */
MUST_CHECK struct err container_read(struct slice bytes, enum container_kind kind,
                                     const uint8_t *environment, struct container *out);

/* Signs and appends a container of a kind that has one signature; and reads one, whose signature
 * must be of this key: else, beside the failures above, the kind's 'unsigned_'. */
MUST_CHECK struct err container_seal_one(enum container_kind kind,
                                         const uint8_t environment[ENVIRONMENT_SIZE],
                                         struct slice body, const struct key_pair *pair,
                                         struct buf *out);
MUST_CHECK struct err container_open_one(struct slice bytes, enum container_kind kind,
                                         const uint8_t environment[ENVIRONMENT_SIZE],
                                         const struct key_public *key, struct container *out);

/* A key that signatures are looked up in. */
struct ring_key {
    enum key_role role;
    uint8_t id[KEY_ID_SIZE];
    uint8_t public[KEY_PUBLIC_SIZE];
    int64_t not_after_ms; /* head keys; zero: no end. */
    char name[KEY_NAME_MAX + 1];
};

/* The keys of a root. A key and a key id are in one role only. */
struct keyring {
    uint32_t count;
    uint32_t thresholds[ROOT_ROLE_COUNT]; /* by role; zero for a role that nothing is asked of. */
    struct ring_key keys[ROOT_ROLE_COUNT * ROLE_KEYS_MAX];
};

/* What verifying saw. */
struct container_signers {
    const struct ring_key *last; /* the key that reached the threshold; borrowed of the ring. */
    bool unknown;                /* a key id that the ring does not have. */
};

/*
 * Verifies in the order of the signatures, until the role's threshold is reached. One by an
 * unknown key, of another role, or that does not verify counts for nothing and harms nothing.
 * Fails with the kind's 'unsigned_' or 'wrong_key'; *out is set either way.
 */
MUST_CHECK struct err container_verify(const struct container *c, const struct keyring *ring,
                                       enum key_role role, struct container_signers *out);

/* BLAKE2b-256 of the body: how a manifest is named, and a head remembered. */
void container_body_digest(const struct container *c, uint8_t out[DIGEST_SIZE]);
