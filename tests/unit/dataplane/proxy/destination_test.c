/* destination: each form has one reading; what has two, or is not of the form, is refused. */
#include "dataplane/proxy/destination.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/cmocka.h"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 4096, 16 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void assert_text(struct slice found, const char *expected)
{
    if (!slice_eq(found, slice_str(expected))) {
        fail_msg("found \"%.*s\", expected \"%s\"", SLICE_ARG(found), expected);
    }
}

struct accepted {
    const char *url;
    const char *host;
    unsigned port;
    const char *authority;
    const char *target;
    const char *path;
};

static const struct accepted urls[] = {
    {"http://example.com", "example.com", 80, "example.com", "/", "/"},
    {"HTTP://EXAMPLE.com:80/", "example.com", 80, "example.com", "/", "/"},
    {"https://example.com", "example.com", 443, "example.com", "/", "/"},
    {"https://example.com:80/", "example.com", 80, "example.com:80", "/", "/"},
    {"http://example.com./a", "example.com", 80, "example.com", "/a", "/a"},
    {"http://example.com?x=1", "example.com", 80, "example.com", "/?x=1", "/"},
    {"http://h:65535/a/b/?q=[1]|{2}", "h", 65535, "h:65535", "/a/b/?q=[1]|{2}", "/a/b/"},
    {"http://127.0.0.1:1/", "127.0.0.1", 1, "127.0.0.1:1", "/", "/"},
    {"http://[::1]:8080/x", "::1", 8080, "[::1]:8080", "/x", "/x"},
    {"http://[2001:DB8:0:0::1]/", "2001:db8::1", 80, "[2001:db8::1]", "/", "/"},
    {"http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1", 80, "[::ffff:127.0.0.1]", "/", "/"},
    {"http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/",
     "/"},
    {"http://a_b.example/", "a_b.example", 80, "a_b.example", "/", "/"},
    {"http://1e100.net/", "1e100.net", 80, "1e100.net", "/", "/"},
    {"http://4.example/", "4.example", 80, "4.example", "/", "/"},
    /* one form of a path */
    {"http://h/%7Euser/%41%c3%a9", "h", 80, "h", "/~user/A%C3%A9", "/~user/A%C3%A9"},
    {"http://h/a%20b;c=d,e:@!$&'()*+", "h", 80, "h", "/a%20b;c=d,e:@!$&'()*+",
     "/a%20b;c=d,e:@!$&'()*+"},
    {"http://h/100%25", "h", 80, "h", "/100%25", "/100%25"},
    {"http://h/a/./b/../c", "h", 80, "h", "/a/c", "/a/c"},
    {"http://h/a/b/..", "h", 80, "h", "/a/", "/a/"},
    {"http://h/a/.", "h", 80, "h", "/a/", "/a/"},
    {"http://h/../../a", "h", 80, "h", "/a", "/a"},
    {"http://h/..", "h", 80, "h", "/", "/"},
    {"http://h/.../..a", "h", 80, "h", "/.../..a", "/.../..a"},
    {"http://h/a?b/../c%2F//", "h", 80, "h", "/a?b/../c%2F//", "/a"},
};

static void test_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct px_destination d = {0};
        if (!err_ok(px_destination_url(slice_str(urls[i].url), &arena, &d))) {
            fail_msg("refused: %s", urls[i].url);
        }
        assert_text(d.host, urls[i].host);
        assert_int_equal(d.port, urls[i].port);
        assert_text(d.authority, urls[i].authority);
        assert_text(d.target, urls[i].target);
        assert_text(d.path, urls[i].path);
        assert_false(d.tunnel);
        /* What comes out goes in again, unchanged. */
        struct slice again = {0};
        struct px_destination second = {0};
        assert_true(err_ok(arena_printf(&arena, &again, "%s://%.*s%.*s", d.tls ? "https" : "http",
                                        SLICE_ARG(d.authority), SLICE_ARG(d.target))));
        assert_true(err_ok(px_destination_url(again, &arena, &second)));
        assert_true(slice_eq(second.target, d.target) && slice_eq(second.host, d.host));
    }
}

static const char *const refused_urls[] = {
    "",
    "http:",
    "http://",
    "http:///",
    "http:/h/",
    "//h/",
    "h/",
    "ftp://h/",
    "file:///etc/passwd",
    "gopher://h/",
    "httpx://h/",
    /* a user, a fragment, another parser's end of the host */
    "http://user@h/",
    "http://user:pass@h/",
    "http://allowed.example@evil.example/",
    "http://allowed.example%40evil.example/",
    "http://h#@evil.example/",
    "http://h/#fragment",
    "http://h/a?b#c",
    "http://h\\@evil.example/",
    "http://h\\evil/",
    "http://h/a\\b",
    "http://h /",
    " http://h/",
    "http://h/ a",
    "http://h/a\tb",
    "http://h\r\nx: y/",
    "http://h/\x01",
    "http://h/\x7f",
    "http://h\xc3\xa9/",
    "http://h/\xc3\xa9",
    "http://\xc3\xbcxample/",
    /* hosts */
    "http://%68/",
    "http://h%2e/",
    "http://./",
    "http://h../",
    "http://.h/",
    "http://a..b/",
    "http://-a/",
    "http://a-/",
    "http://a!b/",
    "http://a,b/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[127.0.0.1]/",
    "http://[]/",
    "http://[v1.x]/",
    /* IPv4 in other clothes */
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.1.2/",
    "http://127.0.0.256/",
    "http://127.0.0.01/",
    "http://a.0x1/",
    "http://a.1/",
    "http://0x/",
    "http://a.0x/",
    "http://127.0.0.1../",
    /* ports */
    "http://h:/",
    "http://h:0/",
    "http://h:65536/",
    "http://h:080/",
    "http://h:8a/",
    "http://h:+80/",
    "http://h:-1/",
    "http://h:80:80/",
    "http://h:100000/",
    /* paths of two readings */
    "http://h//",
    "http://h//a",
    "http://h/a//b",
    "http://h/%2f",
    "http://h/a%2Fb",
    "http://h/%5c",
    "http://h/%2e%2e/a",
    "http://h/%2E/a",
    "http://h/.%2e/a",
    "http://h/%00",
    "http://h/%0d%0a",
    "http://h/%7f",
    "http://h/%",
    "http://h/%4",
    "http://h/%zz",
    "http://h/%252e%252e/a",
    "http://h/%252f",
    "http://h/%25%32%65",
    "http://h/%252%45",
    "http://h/a/..;/b",
    "http://h/a/..;x=1/b",
    "http://h/.;/b",
    "http://h/a^b",
    "http://h/a\"b",
    "http://h/<a>",
    "http://h/a|b",
    "http://h/?%",
    "http://h/?%0",
    "http://h/?%00",
    "http://h/?a b",
    "http://h/?<",
    "http://h/?\\",
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused_urls) / sizeof(refused_urls[0]); i++) {
        struct px_destination d = {0};
        struct err e = px_destination_url(slice_str(refused_urls[i]), &arena, &d);
        if (e.code != E_EGRESS_DESTINATION) {
            fail_msg("\"%s\": %s", refused_urls[i], err_name(e.code));
        }
        assert_null(d.host.ptr);
    }
    struct px_destination d = {0};
    assert_int_equal(px_destination_url(slice_of("http://h/\0a", 11), &arena, &d).code,
                     E_EGRESS_DESTINATION);
    assert_int_equal(px_destination_url(slice_of("http://h\0a/", 11), &arena, &d).code,
                     E_EGRESS_DESTINATION);
}

static struct err read_long(const char *format, int size)
{
    static char filler[PX_URL_MAX + 1];
    static char url[2 * PX_URL_MAX];
    for (int i = 0; i < size; i++) {
        filler[i] = 'a';
    }
    filler[size] = '\0';
    int written = snprintf(url, sizeof(url), format, filler);
    assert_true(written > 0 && (size_t)written < sizeof(url));
    struct px_destination d = {0};
    return px_destination_url(slice_str(url), &arena, &d);
}

static void test_lengths(void **state)
{
    (void)state;
    assert_int_equal(read_long("http://%s/", 63).code, E_OK);
    assert_int_equal(read_long("http://%s/", 64).code, E_EGRESS_DESTINATION);
    const char *many =
        "http://a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.%s/"; /* 95 labels: 190 and the last. */
    assert_int_equal(read_long(many, PX_HOST_MAX - 190).code, E_OK);
    assert_int_equal(read_long(many, PX_HOST_MAX - 190 + 1).code, E_EGRESS_DESTINATION);
    assert_int_equal(read_long("http://h/%s", PX_URL_MAX - 9).code, E_OK);
    assert_int_equal(read_long("http://h/%s", PX_URL_MAX - 8).code, E_EGRESS_DESTINATION);
}

/* Every prefix and every changed byte of a URL is read or refused, never read beyond: each text
 * has a block of its own, which the sanitizer watches. */
static void test_every_byte(void **state)
{
    (void)state;
    const char text[] = "https://[::1]:8443/a/./b/../%7Ec?d=%20";
    for (size_t size = 0; size < sizeof(text); size++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            uint8_t *copy = malloc(size + 1);
            assert_non_null(copy);
            memcpy(copy, text, size);
            copy[size] = (uint8_t)byte;
            struct px_destination d = {0};
            struct err e = px_destination_url(slice_of(copy, size + 1), &arena, &d);
            assert_true(err_ok(e) || e.code == E_EGRESS_DESTINATION);
            assert_true(!err_ok(e) || (d.path.size > 0 && d.path.ptr[0] == '/' && d.port > 0));
            free(copy);
        }
        arena_reset(&arena);
    }
}

static void test_authority(void **state)
{
    (void)state;
    struct px_destination d = {0};
    assert_true(err_ok(px_destination_authority(SLICE_LIT("Example.com.:443"), &arena, &d)));
    assert_true(d.tunnel);
    assert_text(d.host, "example.com");
    assert_int_equal(d.port, 443);
    assert_text(d.authority, "example.com:443");
    assert_true(err_ok(px_destination_authority(SLICE_LIT("[::1]:22"), &arena, &d)));
    assert_text(d.authority, "[::1]:22");
    static const char *const refused[] = {
        "",           "h",        "h:",      "h:0",          ":443",
        "user@h:443", "h:443/",   "h:443/a", "http://h:443", "127.1:443",
        "0x7f.1:443", "::1:443",  "[::1]",   "h:443?",       "h:443#",
        "h:443 ",     "h%2e:443", "h:44 3",  "[::1]443",     "h:1:2",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_int_equal(px_destination_authority(slice_str(refused[i]), &arena, &d).code,
                         E_EGRESS_DESTINATION);
    }
}

static void test_fetch(void **state)
{
    (void)state;
    struct px_destination d = {0};
    struct slice encoded = SLICE_LIT("url=https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26d%2520");
    assert_true(err_ok(px_destination_fetch(encoded, &arena, &d)));
    assert_true(d.tls);
    assert_text(d.target, "/a?b=c&d%20");
    assert_true(err_ok(px_destination_fetch(SLICE_LIT("url=http://h/a+b?c=d"), &arena, &d)));
    assert_text(d.target, "/a+b?c=d");
    static const char *const refused[] = {
        "",
        "url",
        "url=",
        "u=http://h/",
        "x=1&url=http://h/",
        "url=http://h/&x=1",
        "url=http://h/&url=http://i/",
        "url=http://h/%",
        "url=http://h/%4",
        "url=http://h/%00",
        "url=http%3A%2F%2Fh%2F%23f",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_int_equal(px_destination_fetch(slice_str(refused[i]), &arena, &d).code,
                         E_EGRESS_DESTINATION);
    }
    /* Decoded once these are plain dots; encoded twice they are encoded dots in the URL itself. */
    assert_true(err_ok(px_destination_fetch(SLICE_LIT("url=http://h/%2e%2e"), &arena, &d)));
    assert_text(d.target, "/");
    assert_int_equal(px_destination_fetch(SLICE_LIT("url=http://h/%252e%252e"), &arena, &d).code,
                     E_EGRESS_DESTINATION);
}

static void test_path_below(void **state)
{
    (void)state;
    assert_true(px_path_below(SLICE_LIT("/"), SLICE_LIT("/")));
    assert_true(px_path_below(SLICE_LIT("/a"), SLICE_LIT("/")));
    assert_true(px_path_below(SLICE_LIT("/public"), SLICE_LIT("/public")));
    assert_true(px_path_below(SLICE_LIT("/public/"), SLICE_LIT("/public")));
    assert_true(px_path_below(SLICE_LIT("/public/a"), SLICE_LIT("/public/")));
    assert_false(px_path_below(SLICE_LIT("/publicity"), SLICE_LIT("/public")));
    assert_false(px_path_below(SLICE_LIT("/"), SLICE_LIT("/public")));
    assert_false(px_path_below(SLICE_LIT("/x/public"), SLICE_LIT("/public")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_authority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch, setup, teardown),
        cmocka_unit_test(test_path_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
