/* jwk: see jwk.h. */
#include "common/jose/jwk.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/scope.h"
#include "common/jose/json_doc.h"
#include "common/jose/jwt.h"

enum {
    VALUES_MAX = 8192,
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 8192, /* a longer one costs a worker milliseconds. */
    RSA_BYTES_MAX = RSA_BITS_MAX / 8 + 1,
    EXPONENT_BYTES_MAX = 8,
    EC_BYTES_MAX = 66, /* a coordinate of P-521. */
    ED25519_SIZE = 32,
};

const char *jose_alg_name(enum jose_alg alg)
{
    static const char *const names[JOSE_ALG_COUNT] = {[JOSE_NONE] = "none",
#define X(name, number) [number] = #name,
                                                      JOSE_ALG_LIST(X)
#undef X
    };
    return (unsigned)alg < JOSE_ALG_COUNT ? names[alg] : "none";
}

enum jose_alg jose_alg_find(struct slice name)
{
    for (enum jose_alg alg = JOSE_NONE + 1; alg < JOSE_ALG_COUNT; alg++) {
        if (slice_eq(name, slice_str(jose_alg_name(alg)))) {
            return alg;
        }
    }
    return JOSE_NONE;
}

/* ---- where keys are read from ---- */

static bool is_plain(struct slice uri)
{
    for (size_t i = 0; i < uri.size; i++) {
        uint8_t c = uri.ptr[i];
        if (c <= ' ' || c >= 0x7f || memchr("@#\\\"<>^`{|}", c, 11) != NULL) {
            return false;
        }
    }
    return true;
}

/* "host", "host:80", "[v6]:80": the host, with its brackets. */
static struct slice host_of(struct slice authority)
{
    if (authority.size > 0 && authority.ptr[0] == '[') {
        return slice_head(authority, slice_find(authority, ']') + 1);
    }
    return slice_head(authority, slice_find(authority, ':'));
}

bool jose_uri_is_safe(struct slice uri, bool *out_clear)
{
    static const struct slice own[] = {SLICE_INIT("127.0.0.1"), SLICE_INIT("[::1]"),
                                       SLICE_INIT("localhost")};
    struct slice https = SLICE_LIT("https://");
    struct slice http = SLICE_LIT("http://");
    bool clear = slice_starts(uri, http);
    if (!is_plain(uri) || (!clear && !slice_starts(uri, https))) {
        return false;
    }
    struct slice rest = slice_from(uri, clear ? http.size : https.size);
    size_t end = 0;
    while (end < rest.size && rest.ptr[end] != '/' && rest.ptr[end] != '?') {
        end++;
    }
    struct slice host = host_of(slice_head(rest, end));
    bool is_own = false;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        is_own = is_own || slice_eq(host, own[i]);
    }
    *out_clear = clear;
    return host.size > 0 && (!clear || is_own);
}

/* ---- one key ---- */

static void bn_free(BIGNUM **bn)
{
    BN_free(*bn);
}

static void build_free(OSSL_PARAM_BLD **build)
{
    OSSL_PARAM_BLD_free(*build);
}

static void params_free(OSSL_PARAM **params)
{
    OSSL_PARAM_free(*params);
}

static void context_free(EVP_PKEY_CTX **context)
{
    EVP_PKEY_CTX_free(*context);
}

#define auto_bn __attribute__((cleanup(bn_free)))
#define auto_build __attribute__((cleanup(build_free)))
#define auto_params __attribute__((cleanup(params_free)))
#define auto_context __attribute__((cleanup(context_free)))

/* A member's base64url; 0: it is absent, wrong, empty or longer than 'max'. */
static size_t bytes_of(const struct json_doc_value *jwk, const char *name, uint8_t *out, size_t max)
{
    struct slice text = {0};
    size_t size = 0;
    if (!json_doc_text(jwk, slice_str(name), &text) || jwt_unbase64url_size(text.size) > max ||
        !err_ok(jwt_unbase64url(text, out, &size))) {
        return 0;
    }
    return size;
}

/* NULL when OpenSSL takes no such key: a point that is not on its curve, for one. */
static EVP_PKEY *make(const char *type, OSSL_PARAM_BLD *build)
{
    auto_params OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    auto_context EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    if (params == NULL || context == NULL || EVP_PKEY_fromdata_init(context) <= 0 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) <= 0) {
        return NULL;
    }
    auto_context EVP_PKEY_CTX *check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (check == NULL || EVP_PKEY_public_check_quick(check) <= 0) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

static EVP_PKEY *make_rsa(const struct json_doc_value *jwk)
{
    uint8_t n[RSA_BYTES_MAX];
    uint8_t e[EXPONENT_BYTES_MAX];
    size_t n_size = bytes_of(jwk, "n", n, sizeof(n));
    size_t e_size = bytes_of(jwk, "e", e, sizeof(e));
    if (n_size == 0 || e_size == 0) {
        return NULL;
    }
    auto_bn BIGNUM *modulus = BN_bin2bn(n, (int)n_size, NULL);
    auto_bn BIGNUM *exponent = BN_bin2bn(e, (int)e_size, NULL);
    auto_build OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (modulus == NULL || exponent == NULL || build == NULL ||
        BN_num_bits(modulus) < RSA_BITS_MIN || BN_num_bits(modulus) > RSA_BITS_MAX ||
        !BN_is_odd(exponent) || BN_is_one(exponent) ||
        !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) ||
        !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent)) {
        return NULL;
    }
    return make("RSA", build);
}

/* A curve, and the one algorithm that goes with it (RFC 7518, 3.4). */
struct curve {
    const char *name;
    const char *group; /* as OpenSSL calls it. */
    size_t size;       /* bytes of a coordinate. */
    enum jose_alg alg;
};

static const struct curve curves[] = {{"P-256", "prime256v1", 32, JOSE_ES256},
                                      {"P-384", "secp384r1", 48, JOSE_ES384},
                                      {"P-521", "secp521r1", 66, JOSE_ES512}};

static EVP_PKEY *make_ec(const struct json_doc_value *jwk, const struct curve *curve)
{
    uint8_t point[1 + 2 * EC_BYTES_MAX] = {POINT_CONVERSION_UNCOMPRESSED};
    auto_build OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (build == NULL || bytes_of(jwk, "x", point + 1, curve->size) != curve->size ||
        bytes_of(jwk, "y", point + 1 + curve->size, curve->size) != curve->size ||
        !OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curve->group, 0) ||
        !OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point,
                                          1 + 2 * curve->size)) {
        return NULL;
    }
    return make("EC", build);
}

static EVP_PKEY *make_ed25519(const struct json_doc_value *jwk)
{
    uint8_t x[ED25519_SIZE];
    if (bytes_of(jwk, "x", x, sizeof(x)) != sizeof(x)) {
        return NULL;
    }
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, sizeof(x));
}

/* By its type and curve: the key, and what it may be used with. NULL: none that is used here. */
static EVP_PKEY *make_key(const struct json_doc_value *jwk, uint32_t *out_algs)
{
    enum { RSA_ALGS = (1 << (JOSE_PS512 + 1)) - (1 << JOSE_RS256) };
    struct slice type = {0};
    struct slice name = {0};
    (void)json_doc_text(jwk, SLICE_LIT("kty"), &type);
    (void)json_doc_text(jwk, SLICE_LIT("crv"), &name);
    if (slice_eq(type, SLICE_LIT("RSA"))) {
        *out_algs = RSA_ALGS;
        return make_rsa(jwk);
    }
    if (slice_eq(type, SLICE_LIT("OKP")) && slice_eq(name, SLICE_LIT("Ed25519"))) {
        *out_algs = 1U << JOSE_EdDSA;
        return make_ed25519(jwk);
    }
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        if (slice_eq(type, SLICE_LIT("EC")) && slice_eq(name, slice_str(curves[i].name))) {
            *out_algs = 1U << curves[i].alg;
            return make_ec(jwk, &curves[i]);
        }
    }
    return NULL;
}

/* Whether it is there to verify signatures (RFC 7517, 4.2 and 4.3). */
static bool is_for_signatures(const struct json_doc_value *jwk)
{
    struct slice use = {0};
    if (json_doc_text(jwk, SLICE_LIT("use"), &use) && !slice_eq(use, SLICE_LIT("sig"))) {
        return false;
    }
    const struct json_doc_value *operations = json_doc_get(jwk, SLICE_LIT("key_ops"));
    const struct json_doc_value *at = NULL;
    bool verifies = operations == NULL;
    while (json_doc_next(operations, &at)) {
        verifies =
            verifies || (at->kind == JSON_DOC_STRING && slice_eq(at->text, SLICE_LIT("verify")));
    }
    return verifies;
}

static bool take_print(struct jose_key *key)
{
    unsigned char *bytes = NULL;
    int size = i2d_PUBKEY(key->public, &bytes);
    if (size <= 0) {
        return false;
    }
    ids_digest(slice_of(bytes, (size_t)size), key->print);
    OPENSSL_free(bytes);
    return true;
}

/* False: it is passed over. */
static bool take_key(const struct json_doc_value *jwk, struct jose_key *out)
{
    struct slice kid = {0};
    struct slice alg = {0};
    struct jose_key key = {0};
    (void)json_doc_text(jwk, SLICE_LIT("kid"), &kid);
    if (kid.size > JOSE_KID_MAX || !is_for_signatures(jwk)) {
        return false;
    }
    key.public = make_key(jwk, &key.algs);
    if (json_doc_text(jwk, SLICE_LIT("alg"), &alg)) {
        key.algs &= 1U << jose_alg_find(alg);
    }
    ERR_clear_error();
    if (key.public == NULL || key.algs == 0 || !take_print(&key)) {
        EVP_PKEY_free(key.public);
        return false;
    }
    key.kid_size = (uint8_t)kid.size;
    (void)memcpy(key.kid, kid.size == 0 ? "" : (const char *)kid.ptr, kid.size);
    *out = key;
    return true;
}

/* ---- a set ---- */

/* Members that only the owner of a key has (RFC 7518, 6.2.2, 6.3.2 and 6.4.1). */
static bool has_secret(const struct json_doc_value *jwk)
{
    static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (json_doc_get(jwk, slice_str(members[i])) != NULL) {
            return true;
        }
    }
    return false;
}

static void keys_free(struct jose_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        EVP_PKEY_free(keys->at[i].public);
    }
    free(keys);
}

/* Without a name it could be any: only the one key of a set may have none. */
static void drop_nameless(struct jose_keys *keys)
{
    size_t kept = 0;
    size_t count = keys->count;
    for (size_t i = 0; i < count; i++) {
        if (count > 1 && keys->at[i].kid_size == 0) {
            EVP_PKEY_free(keys->at[i].public);
        } else {
            keys->at[kept++] = keys->at[i];
        }
    }
    keys->count = kept;
}

static MUST_CHECK struct err take_keys(const struct json_doc_value *set, struct jose_keys *keys,
                                       const char **out_why)
{
    const struct json_doc_value *at = NULL;
    const struct json_doc_value *list = json_doc_get(set, SLICE_LIT("keys"));
    if (list == NULL || list->kind != JSON_DOC_ARRAY) {
        *out_why = "there is no array \"keys\"";
        return FAIL(E_MALFORMED);
    }
    while (json_doc_next(list, &at)) {
        if (has_secret(at)) {
            *out_why = "a key has its private or secret half with it";
            return FAIL(E_MALFORMED);
        }
        if (keys->count < JOSE_KEYS_MAX && take_key(at, &keys->at[keys->count])) {
            keys->count++;
        }
    }
    drop_nameless(keys);
    *out_why = "not one of its keys can be used";
    return keys->count == 0 ? FAIL(E_MALFORMED) : OK;
}

static MUST_CHECK struct err parse(struct slice json, struct buf *text, struct json_doc_value **out,
                                   const char **out_why)
{
    *out_why = "it is too large";
    TRY(buf_add(text, json));
    struct json_doc_value *values = calloc(VALUES_MAX, sizeof(*values));
    if (values == NULL) {
        *out_why = "out of memory";
        return FAIL(E_NO_MEMORY);
    }
    struct err e = json_doc_parse(text->ptr, text->size, values, VALUES_MAX);
    if (!err_ok(e)) {
        *out_why = "it is no JSON, or has a name twice in one object";
        free(values);
        return e;
    }
    *out = values;
    return OK;
}

struct err jose_keys_read(struct slice json, struct jose_keys **out, const char **out_why)
{
    auto_buf struct buf text = BUF_MAX(JOSE_KEYS_BYTES_MAX);
    auto_free struct json_doc_value *values = NULL;
    TRY(parse(json, &text, &values, out_why));
    struct jose_keys *keys = calloc(1, sizeof(*keys) + JOSE_KEYS_MAX * sizeof(keys->at[0]));
    if (keys == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&keys->refs);
    struct err e = take_keys(values, keys, out_why);
    if (!err_ok(e)) {
        keys_free(keys);
        return e;
    }
    *out = keys;
    return OK;
}

struct jose_keys *jose_keys_ref(struct jose_keys *keys)
{
    refs_take(&keys->refs);
    return keys;
}

void jose_keys_unref(struct jose_keys *keys)
{
    if (keys != NULL && refs_drop(&keys->refs)) {
        keys_free(keys);
    }
}

const struct jose_key *jose_keys_find(const struct jose_keys *keys, struct slice kid,
                                      enum jose_alg alg)
{
    for (size_t i = 0; i < keys->count; i++) {
        const struct jose_key *key = &keys->at[i];
        bool named =
            kid.size == 0 ? keys->count == 1 : slice_eq(kid, slice_of(key->kid, key->kid_size));
        if (named && (key->algs >> (unsigned)alg & 1) != 0) {
            return key;
        }
    }
    return NULL;
}

bool jose_keys_has(const struct jose_keys *keys, const uint8_t print[DIGEST_SIZE])
{
    for (size_t i = 0; i < keys->count; i++) {
        if (memcmp(keys->at[i].print, print, DIGEST_SIZE) == 0) {
            return true;
        }
    }
    return false;
}
