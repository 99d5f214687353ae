/* Proves which URLs of a database count as in clear, and that a URL that does not parse is refused
 * without its password. */
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"
#include "controlplane/store/store.h"

#include "tests/support/cmocka.h"

static void over_tcp_only_verified_tls_is_not_clear(void **state)
{
    (void)state;
    static const char *const clear[] = {
        "postgresql://u@db/x",
        "postgresql://u@db/x?sslmode=disable",
        "postgresql://u@db/x?sslmode=prefer",
        "postgresql://u@db/x?sslmode=require", /* anybody may answer. */
        "postgresql://u@127.0.0.1/x",
        "postgres://u@a,b/x",
        "postgresql://u@%2Frun%2Fpg,b/x", /* one host of several. */
        "postgresql:///x?host=/run/pg&hostaddr=10.0.0.1",
    };
    static const char *const covered[] = {
        "postgresql://u@db/x?sslmode=verify-full",
        "postgresql://u@db/x?sslmode=verify-ca",
        "postgresql://u@a:1,b:2/x?sslmode=verify-full",
        "postgresql://u@%2Frun%2Fpg/x",
        "postgresql:///x",
        "postgresql:///x?host=/run/pg",
        "postgresql:///x?host=@abstract",
        "sqlite:/var/lib/x.db",
    };
    for (size_t i = 0; i < sizeof(clear) / sizeof(clear[0]); i++) {
        assert_true(cp_store_url_is_clear(clear[i]));
    }
    for (size_t i = 0; i < sizeof(covered) / sizeof(covered[0]); i++) {
        assert_false(cp_store_url_is_clear(covered[i]));
    }
}

/* NOLINTBEGIN(concurrency-mt-unsafe): one thread. */
static void the_environment_counts(void **state)
{
    (void)state;
    assert_int_equal(setenv("PGSSLMODE", "verify-full", 1), 0);
    assert_false(cp_store_url_is_clear("postgresql://u@db/x"));
    assert_true(cp_store_url_is_clear("postgresql://u@db/x?sslmode=prefer"));
    assert_int_equal(unsetenv("PGSSLMODE"), 0);
    assert_int_equal(setenv("PGHOST", "db", 1), 0);
    assert_true(cp_store_url_is_clear("postgresql:///x"));
    assert_int_equal(unsetenv("PGHOST"), 0);
}
/* NOLINTEND(concurrency-mt-unsafe) */

static void what_does_not_parse_is_refused_without_its_password(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "postgresql://u:swordfish@h:port/x?nosuch=1",
        "postgresql://u:swordfish%zz@h/x",
        "postgresql://u:sword\nfish@[::1/x",
        "Postgresql://u:swordfish@h/x",
        "u:swordfish@h/x",
    };
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct cp_store *store = NULL;
        struct buf message = BUF_MAX(1024);
        const char *text = NULL;
        assert_int_equal(cp_store_open(urls[i], &store, &message).code, E_USAGE);
        assert_int_equal(buf_cstr(&message, &text).code, E_OK);
        assert_non_null(strstr(text, "expected"));
        assert_null(strstr(text, "sword"));
        buf_free(&message);
    }
}

int main(void)
{
    static const char *const names[] = {"PGSSLMODE", "PGHOST", "PGHOSTADDR", "PGSERVICE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)unsetenv(names[i]); /* NOLINT(concurrency-mt-unsafe): one thread. */
    }
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_tcp_only_verified_tls_is_not_clear),
        cmocka_unit_test(the_environment_counts),
        cmocka_unit_test(what_does_not_parse_is_refused_without_its_password),
    };
    return cmocka_run_group_tests_name("store.postgres_url", tests, NULL, NULL);
}
