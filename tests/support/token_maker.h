/*
 * token_maker: plays an issuer for tests: a P-256 key, its key set, and tokens of any kind, also
 * such as no honest issuer makes.
 *
 * Ownership  what token_*() returns is the caller's to free().
 * Threads    one.
 * Errors     a test that cannot make its token is over: everything aborts.
 */
#pragma once

#include <openssl/types.h>
#include <stddef.h>

struct token_maker {
    EVP_PKEY *key;
    const char *kid; /* borrowed; NULL: the key has no name. */
};

void token_maker_init(struct token_maker *m, const char *kid);
void token_maker_free(struct token_maker *m);

/* The key as an object of a key set; and the set of several makers' keys. */
char *token_jwk(const struct token_maker *m);
char *token_jwks(const struct token_maker *const *makers, size_t count);

/* A token of these claims: {"alg":"ES256","kid":…}. */
char *token_make(const struct token_maker *m, const char *claims);

/* A token of this header and claims, in base64url as they are, signed as ES256. */
char *token_make_raw(const struct token_maker *m, const char *header, const char *claims);

/* base64url of bytes. */
char *token_base64url(const void *bytes, size_t size);
