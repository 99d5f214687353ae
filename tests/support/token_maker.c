/* token_maker: see token_maker.h. */
#include "tests/support/token_maker.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { COORDINATE = 32, DER_ROOM = 80 };

void token_maker_init(struct token_maker *m, const char *kid)
{
    m->key = EVP_EC_gen("P-256");
    m->kid = kid;
    CHECK(m->key != NULL);
}

void token_maker_free(struct token_maker *m)
{
    EVP_PKEY_free(m->key);
    m->key = NULL;
}

static char *format(const char *pattern, const char *a, const char *b, const char *c)
{
    char *out = NULL;
    CHECK(asprintf(&out, pattern, a, b, c) >= 0);
    return out;
}

char *token_base64url(const void *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *from = bytes;
    char *out = calloc(size / 3 * 4 + 5, 1);
    CHECK(out != NULL);
    uint32_t bits = 0;
    unsigned held = 0;
    size_t at = 0;
    for (size_t i = 0; i < size; i++) {
        bits = bits << 8 | from[i];
        for (held += 8; held >= 6; held -= 6) {
            out[at++] = digits[bits >> (held - 6) & 63];
        }
    }
    if (held > 0) {
        out[at++] = digits[bits << (6 - held) & 63];
    }
    return out;
}

char *token_jwk(const struct token_maker *m)
{
    unsigned char point[1 + 2 * COORDINATE];
    size_t size = 0;
    CHECK(EVP_PKEY_get_octet_string_param(m->key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point),
                                          &size) == 1);
    CHECK(size == sizeof(point));
    char *x = token_base64url(point + 1, COORDINATE);
    char *y = token_base64url(point + 1 + COORDINATE, COORDINATE);
    char *named = m->kid == NULL ? format("%s%s%s", "", "", "")
                                 : format(",\"kid\":\"%s\"%s%s", m->kid, "", "");
    char *jwk =
        format("{\"kty\":\"EC\",\"crv\":\"P-256\",\"use\":\"sig\",\"x\":\"%s\",\"y\":\"%s\"%s}", x,
               y, named);
    free(x);
    free(y);
    free(named);
    return jwk;
}

char *token_jwks(const struct token_maker *const *makers, size_t count)
{
    char *all = format("%s%s%s", "", "", "");
    for (size_t i = 0; i < count; i++) {
        char *jwk = token_jwk(makers[i]);
        char *longer = format("%s%s%s", all, i == 0 ? "" : ",", jwk);
        free(all);
        free(jwk);
        all = longer;
    }
    char *set = format("{\"keys\":[%s]}%s%s", all, "", "");
    free(all);
    return set;
}

/* r and s side by side. */
static char *sign(const struct token_maker *m, const char *text)
{
    unsigned char der[DER_ROOM];
    unsigned char raw[2 * COORDINATE];
    size_t size = sizeof(der);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, m->key) == 1);
    CHECK(EVP_DigestSign(context, der, &size, (const unsigned char *)text, strlen(text)) == 1);
    EVP_MD_CTX_free(context);
    const unsigned char *at = der;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)size);
    CHECK(pair != NULL);
    CHECK(BN_bn2binpad(ECDSA_SIG_get0_r(pair), raw, COORDINATE) == COORDINATE);
    CHECK(BN_bn2binpad(ECDSA_SIG_get0_s(pair), raw + COORDINATE, COORDINATE) == COORDINATE);
    ECDSA_SIG_free(pair);
    return token_base64url(raw, sizeof(raw));
}

char *token_make_raw(const struct token_maker *m, const char *header, const char *claims)
{
    char *first = token_base64url(header, strlen(header));
    char *second = token_base64url(claims, strlen(claims));
    char *text = format("%s.%s%s", first, second, "");
    char *signature = sign(m, text);
    char *token = format("%s.%s%s", text, signature, "");
    free(first);
    free(second);
    free(text);
    free(signature);
    return token;
}

char *token_make(const struct token_maker *m, const char *claims)
{
    char *header = m->kid == NULL ? format("{\"alg\":\"ES256\",\"typ\":\"JWT\"}%s%s%s", "", "", "")
                                  : format("{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"%s\"}%s%s",
                                           m->kid, "", "");
    char *token = token_make_raw(m, header, claims);
    free(header);
    return token;
}
