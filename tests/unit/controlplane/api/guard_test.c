/* Proves who may ask: Host, Origin, token and content type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/ids.h"
#include "controlplane/api/guard.h"

static const struct cp_guard guard = {
    .server_names = {(const uint8_t *)"cp.example.org,other.example.org", 32},
    .token = {(const uint8_t *)"0123456789abcdef", 16},
};

static enum err_code told(const char *address, const char *authority)
{
    struct cp_guard g = {.address = slice_str(address)};
    struct http1_head head = {.authority = slice_str(authority)};
    return cp_guard_site(&g, &head).code;
}

static void an_address_that_others_are_told_is_a_host(void **state)
{
    (void)state;
    assert_int_equal(told("https://192.0.2.1:9443", "192.0.2.1:9443"), E_OK);
    assert_int_equal(told("https://CP.example.org", "cp.example.org:9443"), E_OK);
    assert_int_equal(told("http://[2001:db8::1]:9080", "[2001:db8::1]:9080"), E_OK);
    assert_int_equal(told("https://192.0.2.1:9443", "192.0.2.2:9443"), E_HOST_REFUSED);
    assert_int_equal(told("https://", ""), E_HOST_REFUSED);
    assert_int_equal(told("", ""), E_HOST_REFUSED);
    assert_int_equal(told("", "192.0.2.1"), E_HOST_REFUSED);
}

static enum err_code site(const char *authority, const char *origin)
{
    struct http1_field field = {SLICE_LIT("origin"), slice_str(origin)};
    struct http1_head head = {
        .authority = slice_str(authority), .fields = &field, .field_count = origin == NULL ? 0 : 1};
    return cp_guard_site(&guard, &head).code;
}

static void only_our_names_are_hosts(void **state)
{
    (void)state;
    assert_int_equal(site("localhost:9080", NULL), E_OK);
    assert_int_equal(site("127.0.0.1", NULL), E_OK);
    assert_int_equal(site("[::1]:9080", NULL), E_OK);
    assert_int_equal(site("CP.example.org:9443", NULL), E_OK);
    assert_int_equal(site("other.example.org", NULL), E_OK);
    assert_int_equal(site("evil.example.org", NULL), E_HOST_REFUSED);
    assert_int_equal(site("localhost.evil.example.org", NULL), E_HOST_REFUSED);
    assert_int_equal(site("", NULL), E_HOST_REFUSED);
    assert_int_equal(site("[]", NULL), E_HOST_REFUSED);
    assert_int_equal(site("[", NULL), E_HOST_REFUSED);
}

static void an_origin_is_the_host_itself(void **state)
{
    (void)state;
    assert_int_equal(site("localhost:9080", "http://localhost:9080"), E_OK);
    assert_int_equal(site("cp.example.org", "https://cp.example.org"), E_OK);
    assert_int_equal(site("localhost:9080", "http://localhost:9081"), E_ORIGIN_REFUSED);
    assert_int_equal(site("localhost:9080", "http://evil.example.org"), E_ORIGIN_REFUSED);
    assert_int_equal(site("localhost:9080", "null"), E_ORIGIN_REFUSED);
    assert_int_equal(site("localhost:9080", ""), E_ORIGIN_REFUSED);
}

static enum err_code write(const char *authorization, const char *type)
{
    struct http1_field fields[2];
    size_t count = 0;
    if (authorization != NULL) {
        fields[count++] =
            (struct http1_field){SLICE_LIT("authorization"), slice_str(authorization)};
    }
    if (type != NULL) {
        fields[count++] = (struct http1_field){SLICE_LIT("content-type"), slice_str(type)};
    }
    struct http1_head head = {.fields = fields, .field_count = count};
    return cp_guard_write(&guard, &head).code;
}

static void a_write_bears_the_token(void **state)
{
    (void)state;
    static const char json[] = "application/json";
    assert_int_equal(write("Bearer 0123456789abcdef", json), E_OK);
    assert_int_equal(write("bearer 0123456789abcdef", json), E_OK);
    assert_int_equal(write(NULL, json), E_UNAUTHENTICATED);
    assert_int_equal(write("", json), E_UNAUTHENTICATED);
    assert_int_equal(write("Bearer ", json), E_UNAUTHENTICATED);
    assert_int_equal(write("Bearer 0123456789abcdeF", json), E_UNAUTHENTICATED);
    assert_int_equal(write("Bearer 0123456789abcdef0", json), E_UNAUTHENTICATED);
    assert_int_equal(write("Basic 0123456789abcdef", json), E_UNAUTHENTICATED);
}

static void a_write_is_json(void **state)
{
    (void)state;
    static const char token[] = "Bearer 0123456789abcdef";
    assert_int_equal(write(token, "application/json; charset=utf-8"), E_OK);
    assert_int_equal(write(token, "text/plain"), E_CONTENT_TYPE); /* what a form may send. */
    assert_int_equal(write(token, NULL), E_CONTENT_TYPE);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_our_names_are_hosts),
        cmocka_unit_test(an_address_that_others_are_told_is_a_host),
        cmocka_unit_test(an_origin_is_the_host_itself),
        cmocka_unit_test(a_write_bears_the_token),
        cmocka_unit_test(a_write_is_json),
    };
    return cmocka_run_group_tests_name("api.guard", tests, NULL, NULL);
}
