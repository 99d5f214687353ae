/* budget: a share holds for its time and while the machine is awake; a larger one brings no burst
 * with it; what is asked for is said in parts of the whole; without a share onUnknown decides. */
#include "dataplane/request/budget.h"

#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/limit.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

#define MS UINT64_C(1000000)
#define START w.start_ns
#define DAY_NS (UINT64_C(86400000) * MS)

enum { PERIOD_MS = 10, BURST = 100 }; /* 100 a second, and as many at once. */

static const struct dp_caller web = {.id = SLICE_INIT("acme/web"), .tenant = SLICE_INIT("acme")};
static char limit_id[16]; /* another one in each test: what was taken stays taken. */

static struct {
    struct dp_limit_table *table;
    struct dp_limit_target *target;
    uint64_t sequence;
    uint64_t start_ns; /* of a test: behind all that the ones before said. */
} w = {.start_ns = DAY_NS};

static struct err build_at(uint32_t on_unknown, uint32_t by, uint64_t period_ns, uint32_t burst,
                           struct dp_limit_target **out)
{
    char target_id[] = "service/acme/x";
    part_limit limit;
    part_limit *list[] = {&limit};
    trilane__parts__v1__limit__init(&limit);
    limit.id = limit_id;
    limit.period_ns = period_ns;
    limit.burst = burst;
    limit.by = by;
    limit.shared = true;
    limit.on_unknown = (Trilane__Parts__V1__LimitUnknown)on_unknown;
    part_target target;
    trilane__parts__v1__limit_target__init(&target);
    target.target = target_id;
    target.n_limits = 1;
    target.limits = list;
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    assert_int_equal(proto_encode(&target.base, &bytes).code, E_OK);
    return dp_limit_build(buf_slice(&bytes), out);
}

static struct err build(uint32_t on_unknown, uint32_t by)
{
    return build_at(on_unknown, by, PERIOD_MS * MS, BURST, &w.target);
}

static void begin(uint32_t on_unknown)
{
    (void)snprintf(limit_id, sizeof(limit_id), "acme/%llu", (unsigned long long)++w.sequence);
    w.start_ns += 1000 * DAY_NS;
    assert_int_equal(dp_limit_table_new(128, &w.table).code, E_OK);
    assert_int_equal(build(on_unknown, 0).code, E_OK);
}

static void end(void)
{
    dp_limit_free(w.target);
    dp_limit_table_free(w.table);
}

static void give(uint32_t share, uint64_t until_ns, uint64_t now_ns)
{
    const struct shares shares = {.at_ms = now_ns / MS,
                                  .nodes = 4,
                                  .count = 1,
                                  .of = {{share_budget(slice_str(limit_id)), share}}};
    (void)dp_budget_share(&shares, until_ns, now_ns);
}

/* How many pass at a moment, up to 'most'. */
static unsigned pass(uint64_t now_ns, unsigned most, enum dp_limit_why why)
{
    unsigned passed = 0;
    while (passed < most) {
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        const struct dp_limit_query query = {
            .method = SLICE_LIT("/x/Get"), .caller = &web, .now_ns = now_ns};
        struct err err = dp_limit_take(w.table, w.target, &query, &held, &refusal);
        if (!err_ok(err)) {
            assert_int_equal(err.code, E_RATE_LIMITED);
            assert_int_equal(refusal.why, why);
            assert_true(refusal.retry_ns > 0);
            break;
        }
        passed++;
    }
    return passed;
}

static void a_share_holds_for_its_time(void **state)
{
    (void)state;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    assert_int_equal(pass(START, 10, DP_LIMIT_SHARE), 0);
    give(SHARE_WHOLE / 2, START + 3000 * MS, START);
    assert_int_equal(pass(START + 1000 * MS, 1000, DP_LIMIT_RATE), BURST / 2);
    assert_int_equal(pass(START + 2000 * MS, 1000, DP_LIMIT_RATE), BURST / 2);
    assert_int_equal(pass(START + 3000 * MS, 10, DP_LIMIT_SHARE), 0);
    end();
}

/* What one gave away and got back again has filled at its rate meanwhile, and no faster. */
/* A snapshot is built beside the one in force, and may be refused for what else it says. */
static void a_snapshot_says_nothing_before_it_is_in_force(void **state)
{
    (void)state;
    struct dp_limit_target *other = NULL;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    give(SHARE_WHOLE, START + 60000 * MS, START);
    assert_int_equal(pass(START + 2000 * MS, 1000, DP_LIMIT_RATE), BURST);
    assert_int_equal(build_at(0, 0, MS, 10 * BURST, &other).code, E_OK);
    assert_int_equal(pass(START + 3000 * MS, 1000, DP_LIMIT_RATE), BURST);
    dp_limit_free(other); /* refused. */
    assert_int_equal(pass(START + 4000 * MS, 1000, DP_LIMIT_RATE), BURST);
    assert_int_equal(build_at(0, 0, MS, BURST, &other).code, E_OK);
    dp_limit_free(w.target);
    w.target = other; /* in force. */
    assert_int_equal(pass(START + 5000 * MS, 1000, DP_LIMIT_RATE), BURST);
    assert_int_equal(pass(START + 5010 * MS, 1000, DP_LIMIT_RATE), 10);
    end();
}

/* What was taken by a lower rate empties the bucket of a higher one, and no more. */
static void a_larger_rate_holds_soon(void **state)
{
    (void)state;
    struct demand d;
    struct dp_limit_target *quick = NULL;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    dp_limit_free(w.target);
    assert_int_equal(build_at(0, 0, 3600000 * MS, 1, &w.target).code, E_OK);
    give(SHARE_WHOLE, START + 60000 * MS, START);
    assert_int_equal(pass(START + 1, 10, DP_LIMIT_RATE), 1);
    assert_int_equal(build_at(0, 0, MS, 10, &quick).code, E_OK);
    dp_limit_free(w.target);
    w.target = quick;
    assert_int_equal(pass(START + 500 * MS, 100, DP_LIMIT_RATE), 0);
    dp_budget_demand(START + 1000 * MS, &d);
    assert_int_equal(pass(START + 1000 * MS, 100, DP_LIMIT_RATE), 0); /* nothing is refilled. */
    assert_int_equal(pass(START + 1005 * MS, 100, DP_LIMIT_RATE), 5);
    dp_budget_demand(START + 2000 * MS, &d);
    assert_int_equal(pass(START + 2000 * MS, 100, DP_LIMIT_RATE), 10);
    end();
}

static void moving_to_and_fro_makes_nothing(void **state)
{
    (void)state;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    uint64_t far = START + 3600000 * MS;
    unsigned passed = 0;
    for (uint64_t i = 0; i < 100; i++) { /* ten seconds. */
        give(i % 2 == 0 ? SHARE_WHOLE / 10 : SHARE_WHOLE, far, START + i * 100 * MS);
        passed += pass(START + i * 100 * MS + 99 * MS, 1000, DP_LIMIT_RATE);
    }
    assert_in_range(passed, 500, 560); /* half of the time a hundred a second, else ten. */
    end();
}

static void a_small_share_lets_one_pass_at_times(void **state)
{
    (void)state;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    give(SHARE_WHOLE / 1000, START + 3600000 * MS, START); /* one in ten seconds. */
    assert_int_equal(pass(START + 1000 * MS, 10, DP_LIMIT_RATE), 1);
    assert_int_equal(pass(START + 10000 * MS, 10, DP_LIMIT_RATE), 0);
    assert_int_equal(pass(START + 11000 * MS, 10, DP_LIMIT_RATE), 1);
    end();
}

static void a_machine_that_slept_has_no_share(void **state)
{
    (void)state;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    dp_budget_slept(500 * MS, START - 3000 * MS);
    give(SHARE_WHOLE, START + 3000 * MS, START - 2000 * MS);
    dp_budget_slept(500 * MS + 1000, START);
    assert_int_equal(pass(START, 1, DP_LIMIT_SHARE), 1);
    dp_budget_slept(5000 * MS, START);
    assert_int_equal(pass(START, 1, DP_LIMIT_SHARE), 0);
    end();
}

/* From a share to an equal part, by sleep or since it was given up: the bucket goes on as it is. */
static void the_end_of_a_share_refills_nothing(void **state)
{
    (void)state;
    static uint64_t slept_ns = 10000 * MS;
    for (int i = 0; i < 2; i++) {
        begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL);
        give(SHARE_WHOLE / 10, START + 3000 * MS, START);
        assert_int_equal(pass(START + 1000 * MS, 1000, DP_LIMIT_RATE), BURST / 10);
        if (i == 0) {
            dp_budget_slept(slept_ns, START + 1000 * MS);
        } else {
            dp_budget_give_up(START + 1000 * MS);
        }
        assert_int_equal(pass(START + 1000 * MS, 1000, DP_LIMIT_RATE), 0);
        end();
    }
}

/* A limit that goes and comes back while another one came meanwhile has its bucket as it was. */
static void a_limit_that_comes_back(void **state)
{
    (void)state;
    struct dp_budget *used = NULL;
    struct dp_budget *others[2] = {NULL};
    struct dp_budget_view view = {.share = SHARE_WHOLE, .now_ns = START, .ahead_ns = 5 * MS};
    uint64_t retry_ns = 0;
    assert_int_equal(dp_budget_hold(SLICE_LIT("used"), 5 * MS, 5 * MS, &used).code, E_OK);
    assert_true(dp_budget_take(used, &view, SHARE_WHOLE, &retry_ns));
    assert_false(dp_budget_has_room(used, &view, SHARE_WHOLE, &retry_ns));
    dp_budget_drop(used);
    assert_int_equal(dp_budget_hold(SLICE_LIT("more"), 1, 1, &others[0]).code, E_OK);
    assert_int_equal(dp_budget_hold(SLICE_LIT("others"), 1, 1, &others[1]).code, E_OK);
    assert_int_equal(dp_budget_hold(SLICE_LIT("used"), 5 * MS, 5 * MS, &used).code, E_OK);
    assert_false(dp_budget_has_room(used, &view, SHARE_WHOLE, &retry_ns));
    dp_budget_drop(used);
    dp_budget_drop(others[0]);
    dp_budget_drop(others[1]);
}

static void without_a_share_the_limit_says(void **state)
{
    (void)state;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN);
    assert_int_equal(pass(START, 1000, DP_LIMIT_SHARE), 1000);
    end();
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL);
    give(SHARE_WHOLE, START + 1, START - 5000 * MS);
    assert_int_equal(pass(START + 10 * MS, 1000, DP_LIMIT_RATE), BURST / 4); /* of four nodes. */
    end();
}

static void what_is_asked_is_in_parts_of_the_whole(void **state)
{
    (void)state;
    struct demand d;
    begin(TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_NONE);
    dp_budget_demand(START, &d);
    assert_int_equal(d.count, 1);
    give(SHARE_WHOLE / 5, START + 10000 * MS, START);
    (void)pass(START, 1, DP_LIMIT_RATE);
    for (int i = 0; i < 49; i++) { /* what is refused is asked for, too. */
        (void)pass(START, 1, DP_LIMIT_RATE);
    }
    dp_budget_demand(START + 1000 * MS, &d);
    assert_true(d.of[0].budget == share_budget(slice_str(limit_id)));
    assert_int_equal(d.of[0].asked, SHARE_WHOLE / 2); /* fifty of a hundred. */
    assert_int_equal(d.of[0].share, SHARE_WHOLE / 5);
    dp_budget_demand(START + 2000 * MS, &d);
    assert_int_equal(d.of[0].asked, 0);
    end();
    dp_budget_demand(START + 3000 * MS, &d); /* of a limit that is gone nobody speaks. */
    assert_int_equal(d.count, 0);
}

/* Numbers that do not fit are as large as there are, and not small. */
static void what_is_too_large(void **state)
{
    (void)state;
    const uint64_t day_ns = 86400000 * MS;
    struct demand d;
    struct dp_budget *b = NULL;
    struct dp_budget_view view = {.share = 1, .now_ns = START, .ahead_ns = day_ns};
    uint64_t retry_ns = 0;
    assert_int_equal(dp_budget_hold(SLICE_LIT("rare"), day_ns, day_ns, &b).code, E_OK);
    dp_budget_demand(START, &d);
    for (int i = 0; i < 1000000; i++) {
        dp_budget_ask(b);
    }
    dp_budget_demand(START, &d); /* in no time. */
    assert_int_equal(d.of[0].asked, 4 * SHARE_WHOLE);
    dp_budget_ask(b);
    dp_budget_demand(START + day_ns * 200, &d);
    assert_in_range(d.of[0].asked, 1, SHARE_WHOLE / 100);
    assert_true(dp_budget_take(b, &view, 1, &retry_ns));
    assert_false(dp_budget_has_room(b, &view, 1, &retry_ns));
    assert_true(retry_ns > day_ns * 200000); /* by a millionth of the whole: some 3000 years. */
    dp_budget_drop(b);
    /* What is given back is never more than what was taken, whatever the period is by now. */
    assert_int_equal(dp_budget_hold(SLICE_LIT("often"), 1, 10, &b).code, E_OK);
    view = (struct dp_budget_view){.share = SHARE_WHOLE, .now_ns = 0, .ahead_ns = 10};
    assert_true(dp_budget_take(b, &view, SHARE_WHOLE, &retry_ns));
    struct dp_budget *again = NULL;
    assert_int_equal(dp_budget_hold(SLICE_LIT("often"), day_ns, day_ns, &again).code, E_OK);
    dp_budget_return(b);
    assert_in_range(dp_budget_left(b, &view, SHARE_WHOLE), 9, 10);
    dp_budget_drop(again);
    dp_budget_drop(b);
}

/* So many budgets, each with an id of its own. */
static void hold_many(uint32_t first, size_t count, struct dp_budget **out)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t name = first + i;
        struct slice id = slice_of((const uint8_t *)&name, sizeof(name));
        assert_int_equal(dp_budget_hold(id, 1, 1, &out[i]).code, E_OK);
    }
}

static void drop_many(struct dp_budget **held, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dp_budget_drop(held[i]);
    }
}

/* Says all, and that each has the whole. */
static uint32_t say_and_share(uint64_t now_ns)
{
    static struct demand d;
    static struct shares s;
    dp_budget_demand(now_ns, &d);
    s = (struct shares){.at_ms = now_ns / MS, .nodes = 1, .count = d.count};
    for (uint32_t i = 0; i < d.count; i++) {
        s.of[i] = (struct share_of){d.of[i].budget, SHARE_WHOLE};
    }
    (void)dp_budget_share(&s, now_ns + 3000 * MS, now_ns);
    return d.count;
}

static uint32_t share_of(const struct dp_budget *b, uint64_t now_ns)
{
    struct dp_budget_view view;
    dp_budget_look(b, now_ns, &view);
    return view.share;
}

/* A snapshot with as many limits as may be, none of which the one before has: until that is gone
 * its limits are said, and then the others. */
static void all_limits_are_others(void **state)
{
    (void)state;
    enum { MANY = SHARE_BUDGETS_MAX };
    struct dp_budget *before[MANY];
    struct dp_budget *after[MANY];
    w.start_ns += 1000 * DAY_NS;
    hold_many(1000, MANY, before);
    assert_int_equal(say_and_share(START), MANY);
    hold_many(2000, MANY, after);
    assert_int_equal(say_and_share(START + 1000 * MS), MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(share_of(before[i], START + 1001 * MS), SHARE_WHOLE);
        assert_int_equal(share_of(after[i], START + 1001 * MS), 0);
    }
    drop_many(before, MANY);
    assert_int_equal(say_and_share(START + 2000 * MS), MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(share_of(after[i], START + 2001 * MS), SHARE_WHOLE);
    }
    hold_many(1000, MANY, before); /* and back. */
    assert_int_equal(say_and_share(START + 3000 * MS), MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(share_of(after[i], START + 3001 * MS), SHARE_WHOLE);
        assert_int_equal(share_of(before[i], START + 3001 * MS), 0);
    }
    drop_many(before, MANY);
    drop_many(after, MANY);
}

static void refuses_what_cannot_be_shared(void **state)
{
    (void)state;
    static struct dp_budget *held[DP_BUDGET_LIMITS_MAX];
    struct dp_budget *more = NULL;
    hold_many(0, DP_BUDGET_LIMITS_MAX, held);
    assert_int_equal(dp_budget_hold(SLICE_LIT("one more"), 1, 1, &more).code, E_TOO_LARGE);
    drop_many(held, DP_BUDGET_LIMITS_MAX);
    assert_int_equal(dp_budget_hold(SLICE_LIT("one more"), 1, 1, &more).code, E_OK);
    dp_budget_drop(more);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_share_holds_for_its_time),
        cmocka_unit_test(a_snapshot_says_nothing_before_it_is_in_force),
        cmocka_unit_test(a_larger_rate_holds_soon),
        cmocka_unit_test(moving_to_and_fro_makes_nothing),
        cmocka_unit_test(a_small_share_lets_one_pass_at_times),
        cmocka_unit_test(a_machine_that_slept_has_no_share),
        cmocka_unit_test(the_end_of_a_share_refills_nothing),
        cmocka_unit_test(a_limit_that_comes_back),
        cmocka_unit_test(without_a_share_the_limit_says),
        cmocka_unit_test(what_is_asked_is_in_parts_of_the_whole),
        cmocka_unit_test(what_is_too_large),
        cmocka_unit_test(all_limits_are_others),
        cmocka_unit_test(refuses_what_cannot_be_shared),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
