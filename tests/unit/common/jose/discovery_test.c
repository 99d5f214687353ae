/* Proves where an issuer's document is, that it is believed of that issuer alone, byte for byte,
 * and which key sets it may point to. */
#include "common/jose/discovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"

#define ISS "https://id.example.com/realms/a"

static void where_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *issuer;
        const char *uri; /* NULL: there is none. */
        bool clear;
    } rows[] = {
        {"https://id.example.com", "https://id.example.com/.well-known/openid-configuration",
         false},
        {"https://id.example.com/", "https://id.example.com/.well-known/openid-configuration",
         false},
        {ISS, ISS "/.well-known/openid-configuration", false},
        {"http://127.0.0.1:81/a", "http://127.0.0.1:81/a/.well-known/openid-configuration", true},
        {"https://id.example.com/?a", NULL, false},
        {"https://id.example.com/#a", NULL, false},
        {"https://u:p@id.example.com/", NULL, false},
        {"http://id.example.com/", NULL, true},
        {"id.example.com", NULL, false},
        {"", NULL, false},
    };
    struct arena arena;
    arena_init(&arena, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool clear = false;
        struct slice issuer = slice_str(rows[i].issuer);
        struct slice uri = {0};
        assert_int_equal(jose_discovery_may(issuer, &clear), rows[i].uri != NULL);
        if (rows[i].uri != NULL) {
            assert_int_equal(clear, rows[i].clear);
            assert_true(err_ok(jose_discovery_uri(&arena, issuer, &uri)));
            assert_string_equal((const char *)uri.ptr, rows[i].uri);
            assert_int_equal(uri.size, strlen(rows[i].uri));
        }
    }
    arena_free(&arena);
}

/* What comes of a document; "" and a code when it is refused. */
static enum err_code read_doc(const char *issuer, const char *json, char out[128])
{
    struct slice uri = {0};
    const char *why = NULL;
    size_t size = strlen(json);
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    memcpy(copy, json, size);
    struct err e = jose_discovery_read(copy, size, slice_str(issuer), &uri, &why);
    assert_true(err_ok(e) || (why != NULL && uri.size == 0));
    (void)snprintf(out, 128, "%.*s", SLICE_ARG(uri));
    free(copy);
    return e.code;
}

static void what_is_believed(void **state)
{
    (void)state;
    static const struct {
        const char *issuer;
        const char *json;
        const char *uri; /* NULL: it is refused. */
    } rows[] = {
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://keys.example.net/k?a=b\"}",
         "https://keys.example.net/k?a=b"},
        {ISS, "{\"a\":[1,{}],\"jwks_uri\":\"https:\\/\\/k.example\\/k\",\"issuer\":\"" ISS "\"}",
         "https://k.example/k"},
        {"http://localhost:1",
         "{\"issuer\":\"http://localhost:1\",\"jwks_uri\":\"http://[::1]/k\"}", "http://[::1]/k"},
        {ISS, "{\"issuer\":\"" ISS "/\",\"jwks_uri\":\"https://k.example/k\"}", NULL},
        {ISS,
         "{\"issuer\":\"HTTPS://id.example.com/realms/a\",\"jwks_uri\":\"https://k.example/\"}",
         NULL},
        {ISS "/", "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://k.example/k\"}", NULL},
        {ISS, "{\"issuer\":[\"" ISS "\"],\"jwks_uri\":\"https://k.example/k\"}", NULL},
        {ISS, "{\"jwks_uri\":\"https://k.example/k\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":7}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"http://k.example/k\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"http://127.0.0.1/k\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"file:///etc/passwd\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://k.example/\\u0000\"}", NULL},
        {ISS, "{\"issuer\":\"" ISS "\",\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://k.example/\"}",
         NULL},
        {ISS, "[\"" ISS "\"]", NULL},
        {ISS, "<html>", NULL},
        {ISS, "", NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char uri[128];
        enum err_code code = read_doc(rows[i].issuer, rows[i].json, uri);
        if ((code == E_OK) != (rows[i].uri != NULL) ||
            (code == E_OK ? strcmp(uri, rows[i].uri) != 0 : code != E_MALFORMED)) {
            fail_msg("%s: %s, \"%s\"", rows[i].json, err_name(code), uri);
        }
    }
}

static void its_bounds(void **state)
{
    (void)state;
    char out[128];
    size_t size = JOSE_DISCOVERY_BYTES_MAX + 1;
    char *text = malloc(size + 1);
    assert_non_null(text);
    memset(text, ' ', size);
    text[size] = '\0';
    static const char doc[] = "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://k.example/k\"}";
    memcpy(text, doc, sizeof(doc) - 1);
    assert_int_equal(read_doc(ISS, text, out), E_TOO_LARGE);
    text[size - 1] = '\0';
    assert_int_equal(read_doc(ISS, text, out), E_OK);
    memset(text, '[', size);
    text[JOSE_DISCOVERY_VALUES_MAX] = '\0';
    assert_int_not_equal(read_doc(ISS, text, out), E_OK);
    static const char front[] = "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://k.example/";
    memcpy(text, front, sizeof(front) - 1);
    memcpy(text + sizeof(front) - 1 + JOSE_DISCOVERY_URI_MAX, "\"}", 3);
    memset(text + sizeof(front) - 1, 'a', JOSE_DISCOVERY_URI_MAX);
    assert_int_equal(read_doc(ISS, text, out), E_MALFORMED);
    char *at = text + 1;
    text[0] = '[';
    for (int i = 0; i < JOSE_DISCOVERY_VALUES_MAX; i++) {
        *at++ = '1';
        *at++ = ',';
    }
    memcpy(at, "1]", 3);
    assert_int_equal(read_doc(ISS, text, out), E_TOO_LARGE);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_it_is),
        cmocka_unit_test(what_is_believed),
        cmocka_unit_test(its_bounds),
    };
    return cmocka_run_group_tests_name("discovery", tests, NULL, NULL);
}
