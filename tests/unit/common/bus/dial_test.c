/* dial: URLs of servers, taken apart. */
#include "common/bus/dial.h"

#include <string.h>

#include "tests/support/cmocka.h"

static void expect(const char *text, const char *user, const char *host, const char *port, bool tls)
{
    struct dial_url url;
    assert_int_equal(dial_parse(text, &url).code, E_OK);
    assert_string_equal(url.user, user);
    assert_string_equal(url.host, host);
    assert_string_equal(url.port, port);
    assert_int_equal(url.tls, tls);
}

static void urls_are_taken_apart(void **state)
{
    (void)state;
    expect("nats://127.0.0.1:4333", "", "127.0.0.1", "4333", false);
    expect("nats.example.org", "", "nats.example.org", "4222", false);
    expect("tls://cp:se@cret:x@nats:1", "cp:se@cret:x", "nats", "1", true);
    expect("nats://[::1]:4223", "", "::1", "4223", false);
    expect("tls://token@[fe80::1]", "token", "fe80::1", "4222", true);
}

static void others_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "nats://",
                                      "nats://:4222",
                                      "nats://a:",
                                      "nats://[::1",
                                      "nats://[::1]4222",
                                      "nats://[]:1",
                                      "nats://a:123456789"};
    struct dial_url url;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(dial_parse(bad[i], &url).code, E_MALFORMED);
    }
    char large[2 * DIAL_URL_MAX];
    memset(large, 'a', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    assert_int_equal(dial_parse(large, &url).code, E_MALFORMED);
    large[DIAL_URL_MAX + 10] = '@';
    assert_int_equal(dial_parse(large, &url).code, E_MALFORMED);
}

static void loopback_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool local;
    } cases[] = {
        {"nats://localhost", true},      {"nats://127.1.2.3:1", true},
        {"nats://[::1]:1", true},        {"nats://128.0.0.1", false},
        {"nats://[::2]", false},         {"nats://nats.example.org", false},
        {"nats://127.0.0.1.org", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dial_url url;
        assert_int_equal(dial_parse(cases[i].url, &url).code, E_OK);
        assert_int_equal(dial_is_loopback(&url), cases[i].local);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(loopback_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
