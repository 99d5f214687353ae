/*
 * jwt: one token, taken apart, and its signature.
 *
 * Shape      a token's header and claims lie in a room that is reused from token to token; reading
 *            one says nothing about whether it is true: that is jwt_verify().
 * Units      bytes.
 * Ownership  the caller owns the room; what jwt_read() gives borrows from it and from the token.
 *            Reading allocates nothing; verifying does, inside of OpenSSL.
 * Threads    a room has one owner at a time.
 * Errors     E_MALFORMED: no token of three parts, or one that two readers could read in two ways.
 *            E_TOO_LARGE. E_UNSUPPORTED: an algorithm that is not taken ("none" and HS* never are),
 *            a critical extension, another type than JWT or at+jwt. E_UNAUTHENTICATED: the
 *            signature is not that key's.
 * Source     RFC 7519, 7515 (compact form), 7518, 8037, 9068 (at+jwt), 8725 (best practices).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/jose/json_doc.h"
#include "common/jose/jwk.h"

enum {
    JWT_SIZE_MAX = 16 << 10, /* of a token. */
    JWT_HEADER_MAX = 2 << 10,
    JWT_SIGNATURE_MAX = 1024, /* of RSA with 8192 bits. */
    JWT_HEADER_VALUES = 64,
    JWT_CLAIM_VALUES = 512,
};

struct jwt_room {
    uint8_t header[JWT_HEADER_MAX];
    uint8_t claims[JWT_SIZE_MAX];
    uint8_t signature[JWT_SIGNATURE_MAX];
    struct json_doc_value header_values[JWT_HEADER_VALUES];
    struct json_doc_value claim_values[JWT_CLAIM_VALUES];
};

struct jwt {
    enum jose_alg alg;        /* as the token says. */
    struct slice kid;         /* empty: it names no key. */
    struct slice signed_part; /* of the token. */
    struct slice signature;
    const struct json_doc_value *claims; /* an object. */
};

/* Whether something is written as a token is: three parts, two dots. A static token is not. */
bool jwt_is_shaped(struct slice token);

/* Takes a token apart. */
MUST_CHECK struct err jwt_read(struct slice token, struct jwt_room *room, struct jwt *out);

/* Whether the key made the signature by the token's algorithm, which the key must be for. */
MUST_CHECK struct err jwt_verify(const struct jwt *token, const struct jose_key *key);

/*
 * base64url without padding (RFC 7515, 2): one way to write each value, so bits behind the last
 * byte are zero. 'out' has room for jwt_unbase64url_size(); E_MALFORMED.
 */
MUST_CHECK struct err jwt_unbase64url(struct slice text, uint8_t *out, size_t *out_size);
static inline size_t jwt_unbase64url_size(size_t text_size)
{
    return text_size / 4 * 3 + (text_size % 4 == 0 ? 0 : text_size % 4 - 1);
}
