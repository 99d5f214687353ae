/* jwt: see jwt.h. */
#include "common/jose/jwt.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "common/base/check.h"

/* ---- base64url ---- */

enum { NO_DIGIT = 0xff };

static uint8_t digit_of(uint8_t c)
{
    return c >= 'A' && c <= 'Z'   ? (uint8_t)(c - 'A')
           : c >= 'a' && c <= 'z' ? (uint8_t)(c - 'a' + 26)
           : c >= '0' && c <= '9' ? (uint8_t)(c - '0' + 52)
           : c == '-'             ? 62
           : c == '_'             ? 63
                                  : NO_DIGIT;
}

struct err jwt_unbase64url(struct slice text, uint8_t *out, size_t *out_size)
{
    uint32_t bits = 0;
    unsigned held = 0; /* bits of 'bits' that were not written yet. */
    size_t size = 0;
    if (text.size % 4 == 1) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t digit = digit_of(text.ptr[i]);
        if (digit == NO_DIGIT) {
            return FAIL(E_MALFORMED);
        }
        bits = bits << 6 | digit;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[size++] = (uint8_t)(bits >> held);
            bits &= (1U << held) - 1;
        }
    }
    CHECK(size == jwt_unbase64url_size(text.size));
    *out_size = size;
    return bits == 0 ? OK : FAIL(E_MALFORMED);
}

/* ---- reading ---- */

bool jwt_is_shaped(struct slice token)
{
    size_t first = slice_find(token, '.');
    struct slice rest = slice_from(token, first + 1);
    size_t second = slice_find(rest, '.');
    struct slice last = slice_from(rest, second + 1);
    return first > 0 && second > 0 && last.size > 0 && slice_find(last, '.') == last.size;
}

/* An object that was written in base64url. */
static MUST_CHECK struct err read_object(struct slice text, uint8_t *room, size_t room_size,
                                         struct json_doc_value *values, size_t capacity)
{
    size_t size = 0;
    if (jwt_unbase64url_size(text.size) > room_size) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(jwt_unbase64url(text, room, &size));
    TRY(json_doc_parse(room, size, values, capacity));
    return values[0].kind == JSON_DOC_OBJECT ? OK : FAIL(E_MALFORMED);
}

/* "JWT" or "at+jwt", with or without "application/", in any case: RFC 7519, 5.1 and 9068, 2.1. */
static bool is_type(struct slice type)
{
    struct slice front = SLICE_LIT("application/");
    if (slice_eq_nocase(slice_head(type, front.size), front)) {
        type = slice_from(type, front.size);
    }
    return slice_eq_nocase(type, SLICE_LIT("jwt")) || slice_eq_nocase(type, SLICE_LIT("at+jwt"));
}

/* What the header says of keys (jku, jwk, x5u, x5c) is not looked at: keys are the issuer's. */
static MUST_CHECK struct err judge_header(const struct json_doc_value *header, struct jwt *out)
{
    struct slice alg = {0};
    struct slice type = SLICE_LIT("JWT");
    if (!json_doc_text(header, SLICE_LIT("alg"), &alg)) {
        return FAIL(E_MALFORMED);
    }
    out->alg = jose_alg_find(alg);
    const struct json_doc_value *typ = json_doc_get(header, SLICE_LIT("typ"));
    if (typ != NULL && !json_doc_text(header, SLICE_LIT("typ"), &type)) {
        return FAIL(E_MALFORMED);
    }
    if (out->alg == JOSE_NONE || !is_type(type) ||
        json_doc_get(header, SLICE_LIT("crit")) != NULL ||
        json_doc_get(header, SLICE_LIT("b64")) != NULL) {
        return FAIL(E_UNSUPPORTED);
    }
    const struct json_doc_value *kid = json_doc_get(header, SLICE_LIT("kid"));
    if (kid != NULL && (!json_doc_text(header, SLICE_LIT("kid"), &out->kid) || out->kid.size == 0 ||
                        out->kid.size > JOSE_KID_MAX)) {
        return FAIL(E_MALFORMED);
    }
    return OK;
}

struct err jwt_read(struct slice token, struct jwt_room *room, struct jwt *out)
{
    if (token.size > JWT_SIZE_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    if (!jwt_is_shaped(token)) {
        return FAIL(E_MALFORMED);
    }
    struct slice header = slice_head(token, slice_find(token, '.'));
    struct slice rest = slice_from(token, header.size + 1);
    struct slice claims = slice_head(rest, slice_find(rest, '.'));
    struct slice signature = slice_from(rest, claims.size + 1);
    struct jwt read = {.signed_part = slice_head(token, header.size + 1 + claims.size)};
    size_t size = 0;
    TRY(read_object(header, room->header, sizeof(room->header), room->header_values,
                    JWT_HEADER_VALUES));
    TRY(judge_header(room->header_values, &read));
    TRY(read_object(claims, room->claims, sizeof(room->claims), room->claim_values,
                    JWT_CLAIM_VALUES));
    if (jwt_unbase64url_size(signature.size) > sizeof(room->signature)) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(jwt_unbase64url(signature, room->signature, &size));
    read.signature = slice_of(room->signature, size);
    read.claims = room->claim_values;
    *out = read;
    return OK;
}

/* ---- verifying ---- */

enum scheme { SCHEME_PKCS1, SCHEME_PSS, SCHEME_ECDSA, SCHEME_EDDSA };

static enum scheme scheme_of(enum jose_alg alg)
{
    return alg >= JOSE_EdDSA   ? SCHEME_EDDSA
           : alg >= JOSE_ES256 ? SCHEME_ECDSA
           : alg >= JOSE_PS256 ? SCHEME_PSS
                               : SCHEME_PKCS1;
}

/* NULL: the algorithm hashes by itself. */
static const EVP_MD *hash_of(enum jose_alg alg)
{
    if (alg == JOSE_EdDSA) {
        return NULL;
    }
    unsigned row = ((unsigned)alg - JOSE_RS256) % 3; /* each scheme has the three of them. */
    return row == 0 ? EVP_sha256() : row == 1 ? EVP_sha384() : EVP_sha512();
}

enum {
    COORDINATE_MAX = 66,
    DER_MAX = 2 * COORDINATE_MAX + 16,
};

/* r and s side by side (RFC 7518, 3.4) as the DER that OpenSSL takes; 0: they are not that. */
static size_t ecdsa_der(enum jose_alg alg, struct slice raw, uint8_t out[DER_MAX])
{
    size_t size = alg == JOSE_ES256 ? 32 : alg == JOSE_ES384 ? 48 : COORDINATE_MAX;
    if (raw.size != 2 * size) {
        return 0;
    }
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.ptr, (int)size, NULL);
    BIGNUM *s = BN_bin2bn(raw.ptr + size, (int)size, NULL);
    if (pair == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(pair, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(pair);
        return 0;
    }
    int length = i2d_ECDSA_SIG(pair, NULL);
    if (length > 0 && length <= DER_MAX) {
        length = i2d_ECDSA_SIG(pair, &out);
    }
    ECDSA_SIG_free(pair);
    return length > 0 && length <= DER_MAX ? (size_t)length : 0;
}

static bool use_pss(EVP_PKEY_CTX *context)
{
    return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) > 0 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) > 0;
}

static bool is_signed(EVP_MD_CTX *context, const struct jwt *token, const struct jose_key *key)
{
    uint8_t der[DER_MAX];
    struct slice signature = token->signature;
    enum scheme scheme = scheme_of(token->alg);
    EVP_PKEY_CTX *of_key = NULL; /* the context's own. */
    if (scheme == SCHEME_ECDSA) {
        signature = slice_of(der, ecdsa_der(token->alg, signature, der));
    }
    if (signature.size == 0 ||
        EVP_DigestVerifyInit(context, &of_key, hash_of(token->alg), NULL, key->public) != 1 ||
        (scheme == SCHEME_PSS && !use_pss(of_key))) {
        return false;
    }
    return EVP_DigestVerify(context, signature.ptr, signature.size, token->signed_part.ptr,
                            token->signed_part.size) == 1;
}

struct err jwt_verify(const struct jwt *token, const struct jose_key *key)
{
    CHECK(token->alg > JOSE_NONE && token->alg < JOSE_ALG_COUNT);
    if ((key->algs >> (unsigned)token->alg & 1) == 0) {
        return FAIL(E_UNAUTHENTICATED);
    }
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    bool good = is_signed(context, token, key);
    EVP_MD_CTX_free(context);
    ERR_clear_error();
    return good ? OK : FAIL(E_UNAUTHENTICATED);
}
