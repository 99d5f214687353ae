/* budget_keys: each key of a limit of the fleet has something anyway, and a share of its own when
 * it is asked for more; what it took stays taken when it gets one; keys are bounded, come and go,
 * and mean the same on each node. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/budget.h"
#include "dataplane/request/limit.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

#define MS UINT64_C(1000000)
#define HOUR_NS (UINT64_C(3600000) * MS)

enum {
    PERIOD_MS = 10,
    BURST = 200,          /* a hundred a second, and two hundred at once. */
    MORE = 40,            /* of a budget, that a key may have beyond the burst; */
    ALL = 50,             /* of a budget, that each key has of the whole limit's share at once. */
    ENOUGH = ALL / 2 + 1, /* to be worth a share. */
    CALLER = 1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER,
};

static struct {
    struct dp_limit_table *table;
    struct dp_limit_target *target;
    char id[16];
    uint64_t sequence;
    uint64_t now_ns;
} w = {.now_ns = 24 * HOUR_NS};

/* Of the limits that are built. */
static uint32_t on_unknown;
static uint64_t period_ms = PERIOD_MS;
static uint32_t burst_of_new = BURST;

static struct dp_limit_target *build(uint32_t by, uint32_t burst)
{
    char target_id[] = "service/acme/x";
    char header[] = "x-key";
    char *headers[] = {header};
    part_limit limit;
    part_limit *list[] = {&limit};
    trilane__parts__v1__limit__init(&limit);
    limit.id = w.id;
    limit.period_ns = period_ms * MS;
    limit.burst = burst;
    limit.by = by;
    limit.headers = headers;
    limit.n_headers = by == 0;
    limit.shared = true;
    limit.on_unknown = (Trilane__Parts__V1__LimitUnknown)on_unknown;
    part_target target;
    trilane__parts__v1__limit_target__init(&target);
    target.target = target_id;
    target.n_limits = 1;
    target.limits = list;
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    struct dp_limit_target *built = NULL;
    assert_int_equal(proto_encode(&target.base, &bytes).code, E_OK);
    assert_int_equal(dp_limit_build(buf_slice(&bytes), &built).code, E_OK);
    return built;
}

static void begin(uint32_t by)
{
    (void)snprintf(w.id, sizeof(w.id), "acme/%llu", (unsigned long long)++w.sequence);
    w.now_ns += 24 * HOUR_NS;
    assert_int_equal(dp_limit_table_new(1 << 14, &w.table).code, E_OK);
    w.target = build(by, burst_of_new);
    (void)dp_budget_is_news();
}

static int end(void **state)
{
    struct demand d;
    (void)state;
    on_unknown = 0;
    period_ms = PERIOD_MS;
    burst_of_new = BURST;
    dp_limit_free(w.target);
    dp_limit_table_free(w.table);
    w.target = NULL;
    w.table = NULL;
    w.now_ns += HOUR_NS;
    dp_budget_demand(w.now_ns, &d); /* what is full is forgotten. */
    return d.count == 0 ? 0 : -1;
}

static bool find_key(const void *ctx, struct slice name, struct slice *out)
{
    (void)name;
    *out = slice_str(ctx);
    return true;
}

/* How many of a key pass now, up to 'most'; by header and by caller. */
static unsigned pass(const char *key, unsigned most, enum dp_limit_why why)
{
    const struct dp_caller caller = {.id = slice_str(key), .tenant = SLICE_INIT("acme")};
    unsigned passed = 0;
    while (passed < most) {
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        const struct dp_limit_query query = {.method = SLICE_LIT("/x/Get"),
                                             .caller = &caller,
                                             .now_ns = w.now_ns,
                                             .header = find_key,
                                             .ctx = key};
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

/* What is said now. */
static struct demand say(void)
{
    static struct demand d;
    dp_budget_demand(w.now_ns, &d);
    return d;
}

/* Answers what was said at a moment: 'whole' of the limit, 'key' of each of its keys. */
static void answer(const struct demand *d, uint64_t at_ns, uint32_t whole, uint32_t key)
{
    struct shares s = {.at_ms = at_ns / MS, .nodes = 4, .count = d->count};
    for (uint32_t i = 0; i < d->count; i++) {
        bool limit = d->of[i].budget == share_budget(slice_str(w.id));
        s.of[i] = (struct share_of){d->of[i].budget, limit ? whole : key};
    }
    (void)dp_budget_share(&s, w.now_ns + HOUR_NS, w.now_ns);
}

static void share_all(uint32_t whole, uint32_t key)
{
    struct demand d = say();
    answer(&d, w.now_ns, whole, key);
}

static void each_key_has_something_anyway(void **state)
{
    (void)state;
    begin(CALLER);
    assert_int_equal(pass("a", 1, DP_LIMIT_SHARE), 0);
    share_all(SHARE_WHOLE / 2, 0);
    for (int i = 0; i < 3; i++) { /* a half of that. */
        char key[16];
        (void)snprintf(key, sizeof(key), "caller-%d", i);
        assert_int_equal(pass(key, 1000, DP_LIMIT_RATE), ALL / 2);
    }
}

/* One that is asked for at its leisure needs no share, and takes no place. */
static void who_needs_none_is_not_said(void **state)
{
    (void)state;
    begin(CALLER);
    share_all(SHARE_WHOLE, 0);
    for (int i = 0; i < 100; i++) {
        w.now_ns += 250 * MS; /* each key has five a second. */
        assert_int_equal(pass("a", 1, DP_LIMIT_RATE), 1);
    }
    assert_int_equal(say().count, 1);
    assert_false(dp_budget_is_news());
    assert_int_equal(pass("b", ALL / 2, DP_LIMIT_RATE), ALL / 2); /* half of what it has at once. */
    assert_false(dp_budget_is_news());
    assert_int_equal(pass("b", 1, DP_LIMIT_RATE), 1);
    assert_true(dp_budget_is_news());
    assert_false(dp_budget_is_news());
    assert_int_equal(say().count, 2);
}

/* Without a share each key has what its limit says: an equal part, or as much as it likes. */
static void without_a_share_the_limit_says(void **state)
{
    (void)state;
    on_unknown = TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL;
    begin(0);
    assert_int_equal(pass("a", 1, DP_LIMIT_SHARE), 0); /* of how many nodes, nobody knows. */
    share_all(SHARE_WHOLE / 4, 0);
    (void)pass("a", 1000, DP_LIMIT_RATE);
    w.now_ns += 2 * HOUR_NS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), BURST / 4); /* with an entry, */
    assert_int_equal(pass("b", 1000, DP_LIMIT_RATE), BURST / 4); /* and without. */
    dp_limit_free(w.target);
    on_unknown = TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN;
    w.target = build(0, BURST);
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 1000);
}

static void a_share_of_its_own(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE / 2, 0);
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), ALL / 2);
    struct demand d = say();
    assert_int_equal(d.count, 2);
    answer(&d, w.now_ns, SHARE_WHOLE / 2, SHARE_WHOLE / 2);
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 0); /* no burst comes with it, */
    w.now_ns += 20 * MS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 2); /* and then a half of the rate fills it. */
    w.now_ns += 60000 * MS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), (BURST + MORE) / 2);
    w.now_ns += 1000 * MS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 50);
    d = say();
    for (uint32_t i = 0; i < d.count; i++) {
        assert_int_equal(d.of[i].share, SHARE_WHOLE / 2);
    }
}

/* Of a limit that is published anew, with another burst, nothing is as new. */
static void a_swap_refills_nothing(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE, 0);
    (void)pass("a", 1000, DP_LIMIT_RATE);
    share_all(SHARE_WHOLE, SHARE_WHOLE);
    w.now_ns += 3000 * MS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), BURST + MORE);
    struct dp_limit_target *before = w.target;
    w.target = build(0, 2 * BURST);
    dp_limit_free(before);
    assert_in_range(pass("a", 1000, DP_LIMIT_RATE), 0, BURST); /* what the larger burst adds. */
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 0);
}

/* What answers a word from before a key was said is none of it: it may be another node's. */
static void an_answer_to_what_was_not_said(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE / 2, 0);
    uint64_t before_ns = w.now_ns;
    w.now_ns += 1000 * MS;
    (void)pass("a", 1000, DP_LIMIT_RATE);
    struct demand d = say();
    answer(&d, before_ns, SHARE_WHOLE / 2, SHARE_WHOLE);
    w.now_ns += 1000 * MS;
    assert_in_range(pass("a", 1000, DP_LIMIT_RATE), 0, 5);
    d = say();
    answer(&d, w.now_ns, SHARE_WHOLE / 2, SHARE_WHOLE);
    w.now_ns += 1000 * MS;
    assert_in_range(pass("a", 1000, DP_LIMIT_RATE), 90, 125);
}

/* What nobody asks for gives its share up, and is as new; not before its bucket is full. */
static void keys_come_and_go(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE, 0);
    (void)pass("a", 1000, DP_LIMIT_RATE);
    share_all(SHARE_WHOLE, SHARE_WHOLE);
    w.now_ns += 1000 * MS;
    assert_int_equal(say().count, 2);
    w.now_ns += 8500 * MS;
    assert_int_equal(say().count, 2);
    w.now_ns += 1000 * MS;
    assert_int_equal(say().count, 1);
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), ALL);
}

/* However long nobody asks: what was taken has to fill again before a key is as new. */
static void a_key_that_is_not_full_stays(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE / 100, 0); /* each key has one in twenty seconds. */
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 1);
    share_all(SHARE_WHOLE / 100, 0);
    w.now_ns += 15000 * MS;
    assert_int_equal(say().count, 2);
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 0);
    w.now_ns += 6000 * MS;
    assert_int_equal(pass("a", 1000, DP_LIMIT_RATE), 1);
}

/* Made-up keys have half of the places; the others find theirs. */
static void keys_are_bounded(void **state)
{
    (void)state;
    enum { MANY = 2 * SHARE_BUDGETS_MAX };
    begin(0);
    share_all(SHARE_WHOLE, 0);
    uint64_t crowded = dp_budget_crowded();
    for (int i = 0; i < MANY; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "made-up-%d", i);
        assert_int_equal(pass(key, ENOUGH, DP_LIMIT_RATE), ENOUGH);
    }
    struct demand d = say();
    assert_in_range(d.count, SHARE_BUDGETS_MAX / 2 - 8, SHARE_BUDGETS_MAX / 2);
    assert_true(dp_budget_crowded() > crowded);
    struct dp_limit_target *made_up = w.target;
    (void)snprintf(w.id, sizeof(w.id), "acme/true");
    w.target = build(CALLER, BURST);
    w.now_ns += MS;
    share_all(SHARE_WHOLE, 0);
    for (int i = 0; i < MANY; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "true-%d", i);
        assert_int_equal(pass(key, ENOUGH, DP_LIMIT_RATE), ENOUGH);
    }
    d = say();
    assert_in_range(d.count, SHARE_BUDGETS_MAX - 16, SHARE_BUDGETS_MAX);
    for (uint32_t i = 1; i < d.count; i++) { /* as it can be said. */
        assert_true(d.of[i].budget > d.of[i - 1].budget);
    }
    w.now_ns += 3000 * MS; /* who finds no room, finds that of those that are full by now. */
    (void)say();
    w.now_ns += 3000 * MS;
    (void)say();
    assert_true(dp_budget_has_place(/* made_up= */ false));
    dp_limit_free(made_up);
}

/* When limits come, fewer keys can be said: those that are asked for most. The others have what
 * each has. */
static void what_is_not_said_has_no_share(void **state)
{
    (void)state;
    enum { MANY = SHARE_BUDGETS_MAX / 4, LIMITS = SHARE_BUDGETS_MAX - 2 };
    struct dp_budget *limits[LIMITS];
    begin(0);
    share_all(SHARE_WHOLE, 0);
    for (unsigned i = 0; i < MANY; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "key-%u", i);
        (void)pass(key, ENOUGH, DP_LIMIT_RATE);
    }
    share_all(SHARE_WHOLE, SHARE_WHOLE);
    assert_int_equal(say().count, MANY + 1);
    for (uint32_t i = 0; i < LIMITS; i++) {
        struct slice id = slice_of((const uint8_t *)&i, sizeof(i));
        assert_int_equal(dp_budget_hold(id, 1, 1, &limits[i]).code, E_OK);
    }
    w.now_ns += 1000 * MS;
    assert_int_equal(pass("key-7", 50, DP_LIMIT_RATE), 50);
    assert_int_equal(pass("key-8", 20, DP_LIMIT_RATE), 20);
    struct demand d = say();
    assert_int_equal(d.count, SHARE_BUDGETS_MAX);
    uint32_t most = 0;
    for (uint32_t i = 0; i < d.count; i++) {
        most = d.of[i].asked > most ? d.of[i].asked : most;
    }
    assert_int_equal(most, SHARE_WHOLE / 2);
    w.now_ns += 4000 * MS; /* twenty seconds' worth of a key's budget if it had its share still. */
    assert_int_equal(pass("key-7", 1000, DP_LIMIT_RATE), BURST + MORE);
    assert_int_equal(pass("key-8", 1000, DP_LIMIT_RATE), ALL);
    for (uint32_t i = 0; i < LIMITS; i++) {
        dp_budget_drop(limits[i]);
    }
}

/* One a minute: by a small share a request is worth days, by a larger one it is not. */
static void begin_slow(void)
{
    period_ms = 60000;
    burst_of_new = 1;
    begin(CALLER);
    share_all(SHARE_WHOLE / 1000, 0);
    assert_int_equal(pass("slow", 1, DP_LIMIT_RATE), 1);
    w.now_ns += 1000 * MS;
    share_all(SHARE_WHOLE / 2, 0);
}

static void what_was_taken_by_a_small_share(void **state)
{
    (void)state;
    begin_slow();
    assert_int_equal(pass("slow", 1, DP_LIMIT_RATE), 0);
    w.now_ns += MS;
    share_all(SHARE_WHOLE / 2, SHARE_WHOLE);
    assert_int_equal(pass("slow", 1, DP_LIMIT_RATE), 0);
    w.now_ns += 70000 * MS;
    assert_int_equal(pass("slow", 2, DP_LIMIT_RATE), 1);
}

static void what_was_taken_by_a_small_share_without_room(void **state)
{
    (void)state;
    enum { LIMITS = SHARE_BUDGETS_MAX - 1 };
    struct dp_budget *limits[LIMITS];
    begin_slow();
    for (uint32_t i = 0; i < LIMITS; i++) {
        struct slice id = slice_of((const uint8_t *)&i, sizeof(i));
        assert_int_equal(dp_budget_hold(id, 1, 1, &limits[i]).code, E_OK);
    }
    assert_int_equal(pass("slow", 1, DP_LIMIT_RATE), 0);
    w.now_ns += 2400 * 1000 * MS;
    assert_int_equal(pass("slow", 2, DP_LIMIT_RATE), 1);
    w.now_ns += 2000 * 1000 * MS; /* nobody's share any more. */
    for (uint32_t i = 0; i < LIMITS; i++) {
        dp_budget_drop(limits[i]);
    }
}

/* Of a limit that is gone nothing is said, and its keys' shares are another node's. */
static void a_limit_goes(void **state)
{
    (void)state;
    begin(0);
    share_all(SHARE_WHOLE / 2, 0);
    (void)pass("a", 1000, DP_LIMIT_RATE);
    share_all(SHARE_WHOLE / 2, SHARE_WHOLE);
    w.now_ns += 1000 * MS;
    (void)pass("a", 1000, DP_LIMIT_RATE);
    dp_limit_free(w.target);
    assert_int_equal(say().count, 0);
    w.now_ns += MS;
    w.target = build(0, BURST);
    assert_int_equal(pass("a", 1, DP_LIMIT_SHARE), 0);
}

enum { THREADS = 3, TURNS = 4000 };

static _Atomic uint64_t clock_ns;

/* Takes of a few keys, one behind the other. */
static void *take_all(void *ctx)
{
    uint64_t *passed = ctx;
    static const char *const keys[] = {"a", "b", "c", "d"};
    for (unsigned i = 0; i < TURNS; i++) {
        const struct dp_caller caller = {.id = SLICE_INIT("acme/web")};
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        const struct dp_limit_query query = {.method = SLICE_LIT("/x/Get"),
                                             .caller = &caller,
                                             .now_ns = atomic_load(&clock_ns),
                                             .header = find_key,
                                             .ctx = keys[i % 4]};
        *passed += err_ok(dp_limit_take(w.table, w.target, &query, &held, &refusal));
    }
    return NULL;
}

/* While workers take, keys come, are said, have shares and go. */
static void threads_pass_what_there_is(void **state)
{
    (void)state;
    uint64_t passed[THREADS] = {0};
    pthread_t threads[THREADS];
    begin(0);
    share_all(SHARE_WHOLE, 0);
    uint64_t began_ns = w.now_ns;
    atomic_store(&clock_ns, w.now_ns);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_all, &passed[i]), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        w.now_ns += (i % 10 == 0 ? 12000 : 10) * MS; /* now and then all rest. */
        share_all(SHARE_WHOLE, i % 2 == 0 ? SHARE_WHOLE : SHARE_WHOLE / 2);
        atomic_store(&clock_ns, w.now_ns);
    }
    uint64_t all = 0;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        all += passed[i];
    }
    uint64_t periods = (w.now_ns - began_ns) / (PERIOD_MS * MS);
    assert_in_range(all, 1, 4 * (periods + BURST + 1));
}

/* Two nodes, whose tables have seeds of their own, mean the same by a key. */
static void a_key_is_the_same_everywhere(void **state)
{
    (void)state;
    uint64_t said[2] = {0};
    begin(0);
    for (int i = 0; i < 2; i++) {
        share_all(SHARE_WHOLE, 0);
        (void)pass("a", 1000, DP_LIMIT_RATE);
        struct demand d = say();
        assert_int_equal(d.count, 2);
        bool first = d.of[0].budget == share_budget(slice_str(w.id));
        said[i] = d.of[first ? 1 : 0].budget;
        dp_limit_table_free(w.table);
        assert_int_equal(dp_limit_table_new(1 << 14, &w.table).code, E_OK);
        w.now_ns += HOUR_NS;
        (void)say();
    }
    assert_true(said[0] == said[1]);
    (void)pass("b", 1000, DP_LIMIT_SHARE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, end)
    const struct CMUnitTest tests[] = {
        TEST(each_key_has_something_anyway),
        TEST(who_needs_none_is_not_said),
        TEST(without_a_share_the_limit_says),
        TEST(a_share_of_its_own),
        TEST(a_swap_refills_nothing),
        TEST(an_answer_to_what_was_not_said),
        TEST(keys_come_and_go),
        TEST(a_key_that_is_not_full_stays),
        TEST(keys_are_bounded),
        TEST(what_is_not_said_has_no_share),
        TEST(what_was_taken_by_a_small_share),
        TEST(what_was_taken_by_a_small_share_without_room),
        TEST(a_limit_goes),
        TEST(threads_pass_what_there_is),
        TEST(a_key_is_the_same_everywhere),
    };
    ids_init();
    return cmocka_run_group_tests_name("budget_keys", tests, NULL, NULL);
}
