/* Proves when a place is read next: about each refresh; what fails ever more seldom, within bounds,
 * and no sooner for a key that is missed; and that a place goes on over models as it was. */
#include "dataplane/issuers/place.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/jose/jwk.h"

#include "tests/support/cmocka.h"
#include "tests/support/token_maker.h"

#define MS UINT64_C(1000000)

enum { REFRESH_MS = 300000, TRIES = 200 };

static uint64_t rest_of(struct dp_place *place, bool went_well)
{
    const uint64_t now_ns = 77 * MS;
    dp_place_rest(place, went_well, now_ns);
    return (place->due_ns - now_ns) / MS;
}

static void expect_about(uint64_t ms, uint64_t wanted_ms, uint64_t percent)
{
    assert_in_range(ms, wanted_ms * (100 - percent) / 100, wanted_ms * (100 + percent) / 100);
}

static void what_goes_well(void **state)
{
    (void)state;
    struct dp_place place = {.refresh_ms = REFRESH_MS};
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (int i = 0; i < TRIES; i++) {
        uint64_t ms = rest_of(&place, /* went_well= */ true);
        expect_about(ms, REFRESH_MS, 10);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_true(most - least > REFRESH_MS / 20); /* nodes do not come all at once. */
}

static void what_fails(void **state)
{
    (void)state;
    struct dp_place place = {.refresh_ms = REFRESH_MS};
    uint64_t wanted_ms = 1000;
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (int i = 0; i < TRIES; i++) {
        uint64_t ms = rest_of(&place, /* went_well= */ false);
        expect_about(ms, wanted_ms, 20);
        if (wanted_ms == 60000) {
            least = ms < least ? ms : least;
            most = ms > most ? ms : most;
        }
        wanted_ms = wanted_ms * 2 < 60000 ? wanted_ms * 2 : 60000;
    }
    assert_true(most - least > 60000 / 10);
    expect_about(rest_of(&place, /* went_well= */ true), REFRESH_MS, 10);
    expect_about(rest_of(&place, /* went_well= */ false), 1000, 20); /* from the beginning. */
    struct dp_place often = {.refresh_ms = 3000};
    for (int i = 0; i < 10; i++) {
        (void)rest_of(&often, /* went_well= */ false);
    }
    expect_about(rest_of(&often, /* went_well= */ false), 3000, 20);
}

static void a_key_is_missed(void **state)
{
    (void)state;
    struct dp_place place = {.refresh_ms = REFRESH_MS};
    limits.issuer_rest_ms = 1000;
    assert_true(dp_place_may_hurry(&place, 5 * MS));
    place.asked_ns = 5 * MS;
    assert_false(dp_place_may_hurry(&place, 1004 * MS));
    assert_true(dp_place_may_hurry(&place, 1005 * MS));
    dp_place_rest(&place, /* went_well= */ false, 1005 * MS);
    assert_false(dp_place_may_hurry(&place, 500000 * MS));
    dp_place_rest(&place, /* went_well= */ true, 1005 * MS);
    assert_true(dp_place_may_hurry(&place, 1005 * MS));
}

static void it_goes_on(void **state)
{
    (void)state;
    struct token_maker maker;
    bool is_new = false;
    const char *why = "";
    token_maker_init(&maker, "k1");
    const struct token_maker *makers[] = {&maker};
    char *set = token_jwks(makers, 1);
    struct dp_place before = {.refresh_ms = REFRESH_MS, .logged = E_TIMEOUT, .asked_ns = 5};
    assert_true(err_ok(dp_place_take(&before, slice_str(set), 9, &is_new, &why)));
    assert_true(is_new);
    assert_true(err_ok(dp_place_take(&before, slice_str(set), 10, &is_new, &why)));
    assert_false(is_new);
    assert_int_equal(dp_place_take(&before, SLICE_LIT("{}"), 11, &is_new, &why).code, E_MALFORMED);
    assert_int_equal(before.read_ms, 10);
    dp_place_rest(&before, /* went_well= */ false, 0);
    const struct jose_keys *keys = before.keys;
    struct dp_place after = {.refresh_ms = 100};
    dp_place_go_on(&after, &before, 0);
    assert_ptr_equal(after.keys, keys);
    assert_null(before.keys);
    assert_int_equal(after.read_ms, 10);
    assert_int_equal(after.asked_ns, 5);
    assert_int_equal(after.logged, E_TIMEOUT);
    assert_int_equal(after.backoff_ms, 1000);
    assert_int_equal(after.due_ns, 100 * MS); /* it is to be read more often now. */
    assert_true(err_ok(dp_place_take(&after, slice_str(set), 12, &is_new, &why)));
    assert_false(is_new);
    jose_keys_unref(after.keys);
    token_maker_free(&maker);
    free(set);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_well),
        cmocka_unit_test(what_fails),
        cmocka_unit_test(a_key_is_missed),
        cmocka_unit_test(it_goes_on),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
