/*
 * jwk: an issuer's public keys, as its JSON Web Key Set says them.
 *
 * Shape      a key is an EVP_PKEY, and a bit for each algorithm that it may be used with: a
 *            signature is never judged by an algorithm of another kind of key.
 * Ownership  counted references; immutable once made.
 * Threads    any: verifying only reads, and OpenSSL's keys are made for that.
 * Errors     E_MALFORMED: no key set; it has a private or a secret half; not one key that can be
 *            used. E_TOO_LARGE: past JOSE_KEYS_BYTES_MAX. E_NO_MEMORY.
 * Source     RFC 7517 (sets), 7518, 6 (RSA, EC), 8037, 2 (OKP); RFC 8725, 3.1 and 3.2.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/refs.h"
#include "common/base/slice.h"

enum {
    JOSE_KEYS_BYTES_MAX = 256 << 10, /* of the JSON. */
    JOSE_KEYS_MAX = 64,              /* keys of a set that are kept. */
    JOSE_KID_MAX = 255,
};

/*
 * Algorithms that are taken: name, number. Numbers are those of the parts; "none" and HS* are in
 * no list that could be extended by configuration.
 */
#define JOSE_ALG_LIST(X)                                                                           \
    X(RS256, 1)                                                                                    \
    X(RS384, 2)                                                                                    \
    X(RS512, 3)                                                                                    \
    X(PS256, 4)                                                                                    \
    X(PS384, 5)                                                                                    \
    X(PS512, 6)                                                                                    \
    X(ES256, 7)                                                                                    \
    X(ES384, 8)                                                                                    \
    X(ES512, 9)                                                                                    \
    X(EdDSA, 10)

enum jose_alg {
    JOSE_NONE, /* no algorithm at all. */
#define X(name, number) JOSE_##name = (number),
    JOSE_ALG_LIST(X)
#undef X
        JOSE_ALG_COUNT,
};

/* All of them, as bits 1 << jose_alg. */
enum { JOSE_ALGS_ALL = (1 << JOSE_ALG_COUNT) - 2 };

/* "RS256"; and back, JOSE_NONE for a name that is not taken. */
const char *jose_alg_name(enum jose_alg alg);
enum jose_alg jose_alg_find(struct slice name);

/*
 * Whether keys may be read from a URL: https, or in clear from this machine itself (a literal of
 * loopback, or localhost). No user, fragment or blank is in it, so that all readers find one host.
 */
bool jose_uri_is_safe(struct slice uri, bool *out_clear);

struct jose_key {
    EVP_PKEY *public; /* owned. */
    uint32_t algs;    /* bits 1 << jose_alg. */
    uint8_t kid_size; /* zero: it has no name. */
    char kid[JOSE_KID_MAX];
    uint8_t print[DIGEST_SIZE]; /* the same for the same public key, whatever its name. */
};

struct jose_keys {
    struct refs refs;
    size_t count; /* at least one. */
    struct jose_key at[];
};

/*
 * Reads a set; the first reference is the caller's. Keys that cannot be used (another type or
 * curve, for encryption, RSA below 2048 bits, unnamed among others that are) are passed over.
 * On failure *out_why is a sentence.
 */
MUST_CHECK struct err jose_keys_read(struct slice json, struct jose_keys **out,
                                     const char **out_why);
struct jose_keys *jose_keys_ref(struct jose_keys *keys);
void jose_keys_unref(struct jose_keys *keys); /* NULL is fine. */

/* The key of that name for that algorithm; without a name the only key of the set. NULL: none. */
const struct jose_key *jose_keys_find(const struct jose_keys *keys, struct slice kid,
                                      enum jose_alg alg);

/* Whether a key of that print is among them. */
bool jose_keys_has(const struct jose_keys *keys, const uint8_t print[DIGEST_SIZE]);
