/* Proves which keys of a set are taken, for which algorithms, and which sets are refused as a
 * whole; and from which URLs keys are read. */
#include "common/jose/jwk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"
#include "tests/support/token_maker.h"

/* RFC 7515, A.2.1 and A.4.1; RFC 8037, A.2. */
#define RSA_N                                                                                                \
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-" \
    "SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-"        \
    "KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_"    \
    "h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA "\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\""
#define P521                                                                                              \
    "\"kty\":\"EC\",\"crv\":\"P-521\","                                                                   \
    "\"x\":\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\"," \
    "\"y\":\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\""
#define ED25519                                                                                    \
    "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define SET(keys) "{\"keys\":[" keys "]}"

enum { RSA_ALGS = 0x7e, ES512_ALG = 1 << JOSE_ES512, ED_ALG = 1 << JOSE_EdDSA };

static struct jose_keys *take(const char *json)
{
    struct jose_keys *keys = NULL;
    const char *why = "";
    struct err e = jose_keys_read(slice_str(json), &keys, &why);
    if (!err_ok(e)) {
        fail_msg("%s: %s", json, why);
    }
    return keys;
}

static void refuse(const char *json, const char *wanted)
{
    struct jose_keys *keys = NULL;
    const char *why = "";
    assert_int_equal(jose_keys_read(slice_str(json), &keys, &why).code, E_MALFORMED);
    assert_null(keys);
    if (strstr(why, wanted) == NULL) {
        fail_msg("%s: \"%s\", not \"%s\"", json, why, wanted);
    }
}

static void each_type(void **state)
{
    (void)state;
    struct jose_keys *keys =
        take(SET("{" RSA ",\"kid\":\"r\"},{" P521 ",\"kid\":\"e\"},{" ED25519 ",\"kid\":\"o\"}"));
    assert_int_equal(keys->count, 3);
    assert_int_equal(keys->at[0].algs, RSA_ALGS);
    assert_int_equal(keys->at[1].algs, ES512_ALG);
    assert_int_equal(keys->at[2].algs, ED_ALG);
    assert_ptr_equal(jose_keys_find(keys, SLICE_LIT("r"), JOSE_PS384), &keys->at[0]);
    assert_ptr_equal(jose_keys_find(keys, SLICE_LIT("e"), JOSE_ES512), &keys->at[1]);
    assert_null(jose_keys_find(keys, SLICE_LIT("e"), JOSE_ES256));
    assert_null(jose_keys_find(keys, SLICE_LIT("o"), JOSE_RS256));
    assert_null(jose_keys_find(keys, SLICE_LIT("x"), JOSE_RS256));
    assert_null(jose_keys_find(keys, SLICE_LIT(""), JOSE_RS256));
    jose_keys_unref(keys);
}

/* A key is known by its print, whatever it is called. */
static void prints(void **state)
{
    (void)state;
    struct jose_keys *a = take(SET("{" RSA ",\"kid\":\"a\"}"));
    struct jose_keys *b = take(SET("{" RSA ",\"alg\":\"RS256\"}"));
    struct jose_keys *c = take(SET("{" ED25519 "}"));
    assert_true(jose_keys_has(b, a->at[0].print));
    assert_false(jose_keys_has(c, a->at[0].print));
    jose_keys_unref(a);
    jose_keys_unref(b);
    jose_keys_unref(c);
}

/* What a key says of its use holds. */
static void what_a_key_is_for(void **state)
{
    (void)state;
    struct jose_keys *keys = take(SET("{" RSA ",\"alg\":\"RS256\",\"use\":\"sig\"}"));
    assert_int_equal(keys->at[0].algs, 1 << JOSE_RS256);
    assert_non_null(jose_keys_find(keys, SLICE_LIT(""), JOSE_RS256));
    assert_null(jose_keys_find(keys, SLICE_LIT(""), JOSE_RS512));
    jose_keys_unref(keys);
    keys = take(SET("{" RSA ",\"key_ops\":[\"verify\"],\"x5c\":[\"MII\"],\"other\":{}}"));
    jose_keys_unref(keys);
    refuse(SET("{" RSA ",\"use\":\"enc\"}"), "can be used");
    refuse(SET("{" RSA ",\"key_ops\":[\"encrypt\"]}"), "can be used");
    refuse(SET("{" RSA ",\"alg\":\"RSA-OAEP\"}"), "can be used");
    refuse(SET("{" RSA ",\"alg\":\"ES256\"}"), "can be used");
    refuse(SET("{" RSA ",\"alg\":\"none\"}"), "can be used");
    refuse(SET("{" RSA ",\"alg\":\"HS256\"}"), "can be used");
}

/* Among keys that can be used, those that cannot are passed over. */
static void what_is_passed_over(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}", "3", "{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AA\",\"y\":\"AA\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}",
        /* A point that is not on its curve. */
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
        "\"y\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"AA\"}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}",
        "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}", /* short. */
        "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}",
        "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Ag\"}",
        "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}",
        "{\"kty\":\"RSA\",\"n\":\"" RSA_N "=\",\"e\":\"AQAB\"}",
        "{" RSA "}", /* without a name it could be any. */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *json = NULL;
        assert_true(asprintf(&json, "{\"keys\":[%s,{" ED25519 ",\"kid\":\"k\"}]}", bad[i]) > 0);
        struct jose_keys *keys = take(json);
        if (keys->count != 1) {
            fail_msg("%s is taken", bad[i]);
        }
        jose_keys_unref(keys);
        free(json);
    }
}

static void sets_that_are_refused(void **state)
{
    (void)state;
    refuse("", "no JSON");
    refuse("{\"keys\":[]", "no JSON");
    refuse("{\"keys\":[],\"keys\":[]}", "no JSON");
    refuse("[]", "no array");
    refuse("{\"keys\":{}}", "no array");
    refuse("{\"keys\":[]}", "can be used");
    refuse(SET("{" ED25519 ",\"kid\":\"k\"},{" RSA ",\"d\":\"AQ\"}"), "private");
    refuse(SET("{" ED25519 ",\"kid\":\"k\"},{\"kty\":\"oct\",\"k\":\"AQ\"}"), "secret");
}

static void one_that_is_too_large(void **state)
{
    (void)state;
    struct jose_keys *keys = NULL;
    const char *why = "";
    size_t size = JOSE_KEYS_BYTES_MAX + 1;
    char *json = malloc(size);
    memset(json, ' ', size);
    assert_int_equal(jose_keys_read(slice_of(json, size), &keys, &why).code, E_TOO_LARGE);
    free(json);
}

/* Past the bound keys are left out, and the others stand. */
static void many_keys(void **state)
{
    (void)state;
    struct token_maker maker;
    token_maker_init(&maker, "k");
    const struct token_maker *makers[JOSE_KEYS_MAX + 4];
    for (size_t i = 0; i < JOSE_KEYS_MAX + 4; i++) {
        makers[i] = &maker;
    }
    char *json = token_jwks(makers, JOSE_KEYS_MAX + 4);
    struct jose_keys *keys = take(json);
    assert_int_equal(keys->count, JOSE_KEYS_MAX);
    jose_keys_unref(keys);
    free(json);
    token_maker_free(&maker);
}

static void uris(void **state)
{
    (void)state;
    static const struct {
        const char *uri;
        bool safe;
        bool clear;
    } rows[] = {{"https://id.example.com/keys", true, false},
                {"https://id.example.com:8443/a?b=c", true, false},
                {"https://[2001:db8::1]/a", true, false},
                {"http://127.0.0.1:8080/keys", true, true},
                {"http://[::1]:8080/keys", true, true},
                {"http://localhost/keys", true, true},
                {"http://127.0.0.1", true, true},
                {"http://127.0.0.2/keys", false, true},
                {"http://127.0.0.1.example.com/keys", false, true},
                {"http://localhost.example.com/", false, true},
                {"http://id.example.com/keys", false, true},
                {"http://127.0.0.1@id.example.com/", false, false},
                {"https://user:secret@id.example.com/", false, false},
                {"https://id.example.com/#a", false, false},
                {"https://id.example.com\\@x/", false, false},
                {"https://id.example.com/a b", false, false},
                {"https:///keys", false, false},
                {"https://", false, false},
                {"HTTPS://id.example.com/", false, false},
                {"file:///etc/passwd", false, false},
                {"", false, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool clear = false;
        bool safe = jose_uri_is_safe(slice_str(rows[i].uri), &clear);
        if (safe != rows[i].safe || (safe && clear != rows[i].clear)) {
            fail_msg("%s", rows[i].uri);
        }
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type),
        cmocka_unit_test(prints),
        cmocka_unit_test(what_a_key_is_for),
        cmocka_unit_test(what_is_passed_over),
        cmocka_unit_test(sets_that_are_refused),
        cmocka_unit_test(one_that_is_too_large),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(uris),
    };
    return cmocka_run_group_tests_name("jwk", tests, NULL, NULL);
}
