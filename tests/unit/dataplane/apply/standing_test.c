/* Proves which state a node says it is in: the order of precedence, and both ages at their bounds;
 * and that the apply thread does not stay awake for a status that cannot be sent. */
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "dataplane/apply/apply_impl.h"

#include "tests/support/cmocka.h"

#define MS UINT64_C(1000000)

static const uint64_t now = 1000000 * MS;

/* Serves a good version, with a fresh head. */
static struct dp_apply_standing good(void)
{
    return (struct dp_apply_standing){.has_model = true,
                                      .adopted = true,
                                      .good = true,
                                      .applies = 2,
                                      .contact_ns = now,
                                      .content_ns = now};
}

static void states(void **state)
{
    (void)state;
    struct dp_apply_standing s = {0};
    assert_int_equal(dp_standing_state(&s, now), SNAP_NONE);
    s.code = E_MANIFEST_MISSING;
    assert_int_equal(dp_standing_state(&s, now), SNAP_REFUSED);
    s.starting = true;
    assert_int_equal(dp_standing_state(&s, now), SNAP_STARTING);
    s = good();
    assert_int_equal(dp_standing_state(&s, now), SNAP_GOOD);
    s.good = false;
    assert_int_equal(dp_standing_state(&s, now), SNAP_APPLIED);
    s.code = E_HEAD_REPLAYED;
    assert_int_equal(dp_standing_state(&s, now), SNAP_REFUSED);
    s.contact_ns = 0;
    assert_int_equal(dp_standing_state(&s, now), SNAP_STALE);
    s.draining = true;
    assert_int_equal(dp_standing_state(&s, now), SNAP_DRAINING);
}

static void stale_after_its_bound(void **state)
{
    (void)state;
    struct dp_apply_standing s = good();
    assert_int_equal(dp_standing_state(&s, now + limits.stale_after_ms * MS), SNAP_GOOD);
    assert_int_equal(dp_standing_state(&s, now + limits.stale_after_ms * MS + 1), SNAP_STALE);
}

static void content_has_an_age_of_its_own(void **state)
{
    (void)state;
    struct dp_apply_standing s = good();
    s.content_ns = now - 100 * MS;
    assert_int_equal(dp_standing_state(&s, now), SNAP_GOOD);
    s.freshness_max_ms = 100;
    assert_int_equal(dp_standing_state(&s, now), SNAP_GOOD);
    assert_int_equal(dp_standing_state(&s, now + 1), SNAP_STALE);
    s.content_ns = 0;
    assert_int_equal(dp_standing_state(&s, now), SNAP_STALE);
}

static void a_status_that_cannot_be_sent_is_not_due(void **state)
{
    (void)state;
    struct key_pair key = {.public.role = KEY_ROLE_NODE};
    struct dp_apply a = {.config.key = &key, .report_due = true, .report_rest_ns = now};
    assert_int_equal(dp_standing_due_ns(&a), 0); /* there is no bus. */
}

static void jitter_is_a_fifth(void **state)
{
    (void)state;
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t ns = dp_jitter_ns(1000);
        least = ns < least ? ns : least;
        most = ns > most ? ns : most;
    }
    assert_true(least >= 800 * MS && least < 810 * MS);
    assert_true(most <= 1200 * MS && most > 1190 * MS);
}

static void the_word_of_a_swap_is_spread(void **state)
{
    (void)state;
    uint64_t spread_ns = limits.status_rest_ms * MS / 5;
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (int i = 0; i < 2000; i++) {
        struct dp_apply a = {.report_due = false};
        uint64_t start_ns = clock_mono_ns();
        dp_standing_spread(&a);
        assert_true(a.report_rest_ns >= start_ns + spread_ns / 2);
        assert_true(a.report_rest_ns <= clock_mono_ns() + spread_ns / 2 + spread_ns);
        uint64_t ns = a.report_rest_ns - start_ns;
        least = ns < least ? ns : least;
        most = ns > most ? ns : most;
    }
    assert_true(most - least > spread_ns / 2);
}

/* Else a node whose versions follow each other would never say one. */
static void what_is_due_is_not_put_off(void **state)
{
    (void)state;
    struct dp_apply due = {.report_due = true, .report_rest_ns = 7};
    dp_standing_spread(&due);
    assert_int_equal(due.report_rest_ns, 7);
    struct dp_apply rests = {.report_rest_ns = UINT64_MAX};
    dp_standing_spread(&rests);
    assert_int_equal(rests.report_rest_ns, UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states),
        cmocka_unit_test(stale_after_its_bound),
        cmocka_unit_test(content_has_an_age_of_its_own),
        cmocka_unit_test(a_status_that_cannot_be_sent_is_not_due),
        cmocka_unit_test(jitter_is_a_fifth),
        cmocka_unit_test(the_word_of_a_swap_is_spread),
        cmocka_unit_test(what_is_due_is_not_put_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
