/* Proves that signatures of the RFCs verify and no other does, and that tokens are refused which
 * are made to be read in another way than they were signed. */
#include "common/jose/jwt.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"

#include "tests/support/cmocka.h"
#include "tests/support/token_maker.h"

#define CLAIMS "{\"iss\":\"joe\",\"exp\":1300819380}"

static struct jwt_room room;

/* ---- what the RFCs print ---- */

static const struct vector {
    const char *where;
    enum jose_alg alg;
    const char *jwk;
    const char *signed_part;
    const char *signature;
} vectors[] = {
    {"RFC 7515, A.2", JOSE_RS256,
     "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPdd"
     "xHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzj"
     "b_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo"
     "5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\"}",
     "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS"
     "9pc19yb290Ijp0cnVlfQ",
     "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujG"
     "bds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K"
     "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6"
     "LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
    {"RFC 7515, A.3", JOSE_ES256,
     "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
     "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
     "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS"
     "9pc19yb290Ijp0cnVlfQ",
     "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
    {"RFC 7515, A.4", JOSE_ES512,
     "{\"kty\":\"EC\",\"crv\":\"P-521\","
     "\"x\":\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\","
     "\"y\":\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\"}",
     "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA",
     "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwF"
     "KdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"},
    {"RFC 7520, 4.2", JOSE_PS384,
     "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-"
     "XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHi"
     "g3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0"
     "FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw\"}",
     "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3V"
     "zIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHl"
     "vdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9"
     "mZiB0by4",
     "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dD"
     "DItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ij"
     "Q7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAj"
     "VKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw"},
    {"RFC 8037, A.4", JOSE_EdDSA,
     "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
     "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
     "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
};
enum { VECTOR_COUNT = sizeof(vectors) / sizeof(vectors[0]) };

static struct jose_keys *keys_of(const char *jwk)
{
    char *set = NULL;
    const char *why = "";
    struct jose_keys *keys = NULL;
    assert_true(asprintf(&set, "{\"keys\":[%s]}", jwk) > 0);
    struct err e = jose_keys_read(slice_str(set), &keys, &why);
    if (!err_ok(e)) {
        fail_msg("%s: %s", jwk, why);
    }
    free(set);
    return keys;
}

static struct jwt token_of(const struct vector *v, uint8_t signature[JWT_SIGNATURE_MAX])
{
    size_t size = 0;
    assert_true(err_ok(jwt_unbase64url(slice_str(v->signature), signature, &size)));
    return (struct jwt){.alg = v->alg,
                        .signed_part = slice_str(v->signed_part),
                        .signature = slice_of(signature, size)};
}

static void signatures_of_the_rfcs(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        uint8_t signature[JWT_SIGNATURE_MAX];
        struct jose_keys *keys = keys_of(vectors[i].jwk);
        struct jwt token = token_of(&vectors[i], signature);
        if (!err_ok(jwt_verify(&token, &keys->at[0]))) {
            fail_msg("%s does not verify", vectors[i].where);
        }
        jose_keys_unref(keys);
    }
}

/* One bit of the signature, one byte of the text, or a byte more or less. */
static void changed_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        uint8_t signature[JWT_SIGNATURE_MAX];
        struct jose_keys *keys = keys_of(vectors[i].jwk);
        struct jwt token = token_of(&vectors[i], signature);
        for (size_t at = 0; at < token.signature.size; at += token.signature.size / 7) {
            signature[at] ^= 1;
            assert_int_equal(jwt_verify(&token, &keys->at[0]).code, E_UNAUTHENTICATED);
            signature[at] ^= 1;
        }
        struct jwt other = token;
        other.signed_part.size--;
        assert_int_equal(jwt_verify(&other, &keys->at[0]).code, E_UNAUTHENTICATED);
        other = token;
        other.signature.size--;
        assert_int_equal(jwt_verify(&other, &keys->at[0]).code, E_UNAUTHENTICATED);
        other.signature.size += 2;
        signature[token.signature.size] = 0;
        assert_int_equal(jwt_verify(&other, &keys->at[0]).code, E_UNAUTHENTICATED);
        other.signature.size = 0;
        assert_int_equal(jwt_verify(&other, &keys->at[0]).code, E_UNAUTHENTICATED);
        memset(signature, 0, sizeof(signature)); /* CVE-2022-21449: r and s are zero. */
        assert_int_equal(jwt_verify(&token, &keys->at[0]).code, E_UNAUTHENTICATED);
        jose_keys_unref(keys);
    }
}

/* No key verifies by an algorithm of another kind, whatever the token says. */
static void every_other_algorithm(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        uint8_t signature[JWT_SIGNATURE_MAX];
        struct jose_keys *keys = keys_of(vectors[i].jwk);
        struct jwt token = token_of(&vectors[i], signature);
        for (enum jose_alg alg = JOSE_NONE + 1; alg < JOSE_ALG_COUNT; alg++) {
            token.alg = alg;
            enum err_code wanted = alg == vectors[i].alg ? E_OK : E_UNAUTHENTICATED;
            assert_int_equal(jwt_verify(&token, &keys->at[0]).code, wanted);
        }
        jose_keys_unref(keys);
    }
}

/* ---- tokens ---- */

static enum err_code read_code(const char *token)
{
    struct jwt jwt;
    return jwt_read(slice_str(token), &room, &jwt).code;
}

static void a_good_one(void **state)
{
    (void)state;
    struct token_maker maker;
    token_maker_init(&maker, "k1");
    char *jwk = token_jwk(&maker);
    char *token = token_make(&maker, CLAIMS);
    struct jose_keys *keys = keys_of(jwk);
    struct jwt jwt;
    struct slice issuer = {0};
    assert_true(jwt_is_shaped(slice_str(token)));
    assert_true(err_ok(jwt_read(slice_str(token), &room, &jwt)));
    assert_int_equal(jwt.alg, JOSE_ES256);
    assert_true(slice_eq(jwt.kid, SLICE_LIT("k1")));
    assert_true(json_doc_text(jwt.claims, SLICE_LIT("iss"), &issuer));
    assert_true(slice_eq(issuer, SLICE_LIT("joe")));
    assert_true(err_ok(jwt_verify(&jwt, jose_keys_find(keys, jwt.kid, jwt.alg))));
    jose_keys_unref(keys);
    free(jwk);
    free(token);
    token_maker_free(&maker);
}

static void headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        enum err_code code;
    } rows[] = {
        {"{\"alg\":\"ES256\"}", E_OK},
        {"{\"alg\":\"ES256\",\"typ\":\"at+jwt\"}", E_OK},
        {"{\"alg\":\"ES256\",\"typ\":\"application/AT+JWT\"}", E_OK},
        {"{\"alg\":\"ES256\",\"jku\":\"https://evil.example\",\"jwk\":{\"kty\":\"oct\"},\"x5c\":[]}",
         E_OK}, /* they are not looked at. */
        {"{\"alg\":\"none\"}", E_UNSUPPORTED},
        {"{\"alg\":\"None\"}", E_UNSUPPORTED},
        {"{\"alg\":\"nOnE\"}", E_UNSUPPORTED},
        {"{\"alg\":\"\"}", E_UNSUPPORTED},
        {"{\"alg\":\"HS256\"}", E_UNSUPPORTED},
        {"{\"alg\":\"es256\"}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256K\"}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256 \"}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"crit\":[\"exp\"]}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"crit\":[]}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"b64\":false}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"typ\":\"dpop+jwt\"}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"typ\":\"secevent+jwt\"}", E_UNSUPPORTED},
        {"{\"alg\":\"ES256\",\"typ\":7}", E_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":7}", E_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":\"\"}", E_MALFORMED},
        {"{\"alg\":7}", E_MALFORMED},
        {"{\"alg\":[\"ES256\"]}", E_MALFORMED},
        {"{}", E_MALFORMED},
        {"[]", E_MALFORMED},
        {"", E_MALFORMED},
        {"{\"alg\":\"ES256\",\"alg\":\"none\"}", E_MALFORMED},
        {"{\"alg\":\"none\",\"\\u0061lg\":\"ES256\"}", E_MALFORMED},
    };
    struct token_maker maker;
    token_maker_init(&maker, NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *token = token_make_raw(&maker, rows[i].header, CLAIMS);
        if (read_code(token) != rows[i].code) {
            fail_msg("%s: %s", rows[i].header, err_name(read_code(token)));
        }
        free(token);
    }
    token_maker_free(&maker);
}

static void claims_that_are_none(void **state)
{
    (void)state;
    static const char *const claims[] = {"",
                                         "[]",
                                         "\"iss\"",
                                         "1",
                                         "{\"iss\":\"a\",\"iss\":\"b\"}",
                                         "{\"iss\":\"a\"} ",
                                         "{\"iss\":\"\xff\"}"};
    struct token_maker maker;
    token_maker_init(&maker, NULL);
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        char *token = token_make(&maker, claims[i]);
        bool blank = claims[i][0] == '{' && claims[i][strlen(claims[i]) - 1] == ' ';
        assert_int_equal(read_code(token), blank ? E_OK : E_MALFORMED);
        free(token);
    }
    token_maker_free(&maker);
}

/* The public key as the secret of an HMAC: the oldest attack of all. */
static void hmac_by_the_public_key(void **state)
{
    (void)state;
    struct token_maker maker;
    token_maker_init(&maker, NULL);
    char *jwk = token_jwk(&maker);
    char *header = token_base64url("{\"alg\":\"HS256\"}", 15);
    char *claims = token_base64url(CLAIMS, strlen(CLAIMS));
    char *text = NULL;
    char *token = NULL;
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    assert_true(asprintf(&text, "%s.%s", header, claims) > 0);
    assert_non_null(HMAC(EVP_sha256(), jwk, (int)strlen(jwk), (const unsigned char *)text,
                         strlen(text), mac, &size));
    char *signature = token_base64url(mac, size);
    assert_true(asprintf(&token, "%s.%s", text, signature) > 0);
    assert_int_equal(read_code(token), E_UNSUPPORTED);
    free(jwk);
    free(header);
    free(claims);
    free(text);
    free(signature);
    free(token);
    token_maker_free(&maker);
}

static void shapes(void **state)
{
    (void)state;
    static const char *const none[] = {"",     ".",    "..",   "a",       "a.b",
                                       "a.b.", "a..c", ".b.c", "a.b.c.d", "a.b.c.d.e"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_false(jwt_is_shaped(slice_str(none[i])));
        assert_int_equal(read_code(none[i]), E_MALFORMED);
    }
    assert_true(jwt_is_shaped(SLICE_LIT("a.b.c")));
    assert_int_equal(read_code("a.b.c"), E_MALFORMED);
}

/* Each value has one way to be written, so that a token has one digest. */
static void base64url(void **state)
{
    (void)state;
    uint8_t out[16];
    size_t size = 0;
    static const char *const bad[] = {
        "A", "AB", "AAB", "AA=", "AA==", "AAA=", "A A", "AA\n", "+A", "/A", "AAAAA", "AA.A"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(jwt_unbase64url(slice_str(bad[i]), out, &size).code, E_MALFORMED);
    }
    for (int byte = 0; byte < 256; byte++) {
        for (size_t length = 1; length <= 4; length++) {
            uint8_t bytes[4] = {(uint8_t)byte, (uint8_t)(byte * 7), 0xff, (uint8_t)~byte};
            char *text = token_base64url(bytes, length);
            assert_true(err_ok(jwt_unbase64url(slice_str(text), out, &size)));
            assert_int_equal(size, length);
            assert_memory_equal(out, bytes, length);
            free(text);
        }
    }
}

static void bounds(void **state)
{
    (void)state;
    struct token_maker maker;
    token_maker_init(&maker, NULL);
    char *long_claims = calloc(JWT_SIZE_MAX, 1);
    (void)snprintf(long_claims, JWT_SIZE_MAX, "{\"a\":\"%0*d\"}", JWT_SIZE_MAX * 3 / 4 - 200, 0);
    char *token = token_make(&maker, long_claims);
    assert_int_equal(read_code(token), E_OK);
    free(token);
    (void)snprintf(long_claims, JWT_SIZE_MAX, "{\"a\":\"%0*d\"}", JWT_SIZE_MAX * 3 / 4, 0);
    token = token_make(&maker, long_claims);
    assert_int_equal(read_code(token), E_TOO_LARGE);
    free(token);
    (void)snprintf(long_claims, JWT_SIZE_MAX, "{\"alg\":\"ES256\",\"a\":\"%0*d\"}", JWT_HEADER_MAX,
                   0);
    token = token_make_raw(&maker, long_claims, CLAIMS);
    assert_int_equal(read_code(token), E_TOO_LARGE);
    free(token);
    (void)snprintf(long_claims, JWT_SIZE_MAX, "{\"alg\":\"ES256\",\"kid\":\"%0*d\"}",
                   JOSE_KID_MAX + 1, 0);
    token = token_make_raw(&maker, long_claims, CLAIMS);
    assert_int_equal(read_code(token), E_MALFORMED);
    free(token);
    free(long_claims);
    token_maker_free(&maker);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_of_the_rfcs),
        cmocka_unit_test(changed_ones),
        cmocka_unit_test(every_other_algorithm),
        cmocka_unit_test(a_good_one),
        cmocka_unit_test(headers),
        cmocka_unit_test(claims_that_are_none),
        cmocka_unit_test(hmac_by_the_public_key),
        cmocka_unit_test(shapes),
        cmocka_unit_test(base64url),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests_name("jwt", tests, NULL, NULL);
}
