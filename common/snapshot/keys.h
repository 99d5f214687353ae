/*
 * keys: Ed25519 key pairs, their ids, and the files they live in.
 *
 * Shape      plain values; the secret half is the 32-byte seed of RFC 8032.
 * Ownership  key_pair_wipe() when done with a pair: it holds a secret.
 * Threads    any, after ids_init().
 * Errors     E_MALFORMED for text that is no key, E_USAGE for a file that others may read, E_IO,
 *            E_NOT_FOUND, E_EXISTS.
 * Source     docs/formats.md; RFC 8032 by libsodium. A key file is text:
 *
 *                trilane private key 1
 *                role: manifest
 *                name: cp-1
 *                public: <64 hex digits>
 *                private: <64 hex digits>
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"

/* The half that everybody may see. */
struct key_public {
    enum key_role role;
    char name[KEY_NAME_MAX + 1]; /* text_is_name(); with a NUL. */
    uint8_t bytes[KEY_PUBLIC_SIZE];
};

struct key_pair {
    struct key_public public;
    uint8_t seed[KEY_SEED_SIZE]; /* secret. */
};

/* First 8 bytes of the BLAKE2b-256 of a public key. */
void key_id(const uint8_t public[KEY_PUBLIC_SIZE], uint8_t out[KEY_ID_SIZE]);

/* Makes a new pair. E_USAGE when the name is no name. */
MUST_CHECK struct err key_pair_new(enum key_role role, struct slice name, struct key_pair *out);

/* Overwrites a pair, so that no secret stays behind. */
void key_pair_wipe(struct key_pair *pair);

/* Signs 'bytes': what container_signed_bytes() gives. */
void key_sign(const struct key_pair *pair, struct slice bytes, uint8_t out[KEY_SIGNATURE_SIZE]);

/* Whether 'signature' is that of 'bytes' by the key. */
bool key_verify(const uint8_t public[KEY_PUBLIC_SIZE], struct slice bytes,
                const uint8_t signature[KEY_SIGNATURE_SIZE]);

/* Writes a new key file, mode 0600. E_EXISTS when there is one: a key is never written over. */
MUST_CHECK struct err key_file_write(const char *path, const struct key_pair *pair);

/* Reads a key file. E_USAGE unless it is a plain file of ours with no right for anybody else. */
MUST_CHECK struct err key_file_read(const char *path, struct key_pair *out);

/* Reads the text of a key file from a plain file or memory file that is open, from its beginning;
 * who may read it is not asked. */
MUST_CHECK struct err key_file_read_open(int fd, struct key_pair *out);

/* "manifest cp-1 <64 hex digits>": how a public key is shown, given and kept. */
MUST_CHECK struct err key_public_print(const struct key_public *key, struct buf *out);
MUST_CHECK struct err key_public_parse(struct slice text, struct key_public *out);

#define auto_key_pair __attribute__((cleanup(key_pair_wipe)))
