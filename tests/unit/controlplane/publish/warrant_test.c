/* Proves that a warrant is of one key and of every word that a proposal says. */
#include "controlplane/publish/warrant.h"

#include <string.h>

#include "tests/support/cmocka.h"

static struct cp_warrant_key make(const char *token, const char *environment)
{
    struct cp_warrant_key key;
    struct err e = cp_warrant_key_make(slice_str(token), environment, &key);
    assert_int_equal(e.code, E_OK);
    return key;
}

static void a_key_is_of_token_and_environment(void **state)
{
    (void)state;
    const struct cp_warrant_key key = make("sixteen letters!", "demo");
    const struct cp_warrant_key again = make("sixteen letters!", "demo");
    const struct cp_warrant_key other = make("sixteen letters?", "demo");
    const struct cp_warrant_key elsewhere = make("sixteen letters!", "prod");
    assert_memory_equal(key.bytes, again.bytes, sizeof(key.bytes));
    assert_memory_not_equal(key.bytes, other.bytes, sizeof(key.bytes));
    assert_memory_not_equal(key.bytes, elsewhere.bytes, sizeof(key.bytes));
}

static void every_word_counts(void **state)
{
    (void)state;
    const struct cp_warrant_key key = make("sixteen letters!", "demo");
    const struct slice body = SLICE_LIT("body");
    struct cp_proposal good = {.version = 7, .epoch = 3, .origin = 5, .sources_digest = {1}};
    cp_warrant_proposal(&key, "demo", &good, body, good.warrant);
    assert_true(cp_warrant_holds(&key, "demo", &good, body));
    good.proposed_ms = 9; /* the store's word, and nobody's order. */
    assert_true(cp_warrant_holds(&key, "demo", &good, body));
    assert_false(cp_warrant_holds(&key, "dem", &good, body));
    assert_false(cp_warrant_holds(&key, "demo", &good, SLICE_LIT("Body")));
    struct cp_proposal bad[7];
    for (size_t i = 0; i < 7; i++) {
        bad[i] = good;
    }
    bad[0].version++;
    bad[1].epoch++;
    bad[2].origin = 0;
    bad[3].with_trust = true;
    bad[4].sources_digest[31] = 1;
    bad[5].warrant[0] ^= 1;
    memset(bad[6].warrant, 0, sizeof(bad[6].warrant)); /* of a release before. */
    for (size_t i = 0; i < 7; i++) {
        assert_false(cp_warrant_holds(&key, "demo", &bad[i], body));
    }
    struct cp_warrant_key other = key;
    other.bytes[0] ^= 1;
    assert_false(cp_warrant_holds(&other, "demo", &good, body));
}

static void an_address_is_of_its_leader(void **state)
{
    (void)state;
    const struct cp_warrant_key key = make("sixteen letters!", "demo");
    struct cp_lease lease = {.address = "https://cp-1:7800"};
    assert_false(cp_warrant_names(&key, "demo", &lease));
    cp_warrant_address(&key, "demo", "https://cp-1:7800", lease.warrant);
    assert_true(cp_warrant_names(&key, "demo", &lease));
    assert_false(cp_warrant_names(&key, "prod", &lease));
    lease.address[8] = 'x';
    assert_false(cp_warrant_names(&key, "demo", &lease));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_of_token_and_environment),
        cmocka_unit_test(every_word_counts),
        cmocka_unit_test(an_address_is_of_its_leader),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
