/* limit: a bucket gives its burst at once and its rate over time, refuses with the time to wait,
 * takes nothing when another limit refuses, and is exact among threads; what is in flight counts
 * until it is released; keys that callers make up refill nobody's bucket. */
#include "dataplane/request/limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/model.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

#define BY(name) (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_##name)

enum { MS = 1000000, START = 1000 * MS };

static const struct dp_caller web = {.id = SLICE_INIT("acme/web"), .tenant = SLICE_INIT("acme")};
static const struct dp_caller app = {.id = SLICE_INIT("acme/app"), .tenant = SLICE_INIT("acme")};

static char id_a[] = "acme/a";
static char id_b[] = "acme/b";
static char target_id[] = "service/acme/x";
static char glob_get[] = "/x/Get*";
static char header_key[] = "x-key";

static part_limit limit_of(char *id, uint32_t by, uint64_t period_ns, uint32_t burst)
{
    part_limit limit;
    trilane__parts__v1__limit__init(&limit);
    limit.id = id;
    limit.by = by;
    limit.period_ns = period_ns;
    limit.burst = burst;
    return limit;
}

static part_limit in_flight(char *id, uint32_t concurrency)
{
    part_limit limit = limit_of(id, 0, 0, 0);
    limit.concurrency = concurrency;
    return limit;
}

static struct err build(part_limit *limits, size_t count, struct dp_limit_target **out)
{
    part_limit *list[8];
    for (size_t i = 0; i < count; i++) {
        list[i] = &limits[i];
    }
    part_target target;
    trilane__parts__v1__limit_target__init(&target);
    target.target = target_id;
    target.n_limits = count;
    target.limits = list;
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    assert_int_equal(proto_encode(&target.base, &bytes).code, E_OK);
    return dp_limit_build(buf_slice(&bytes), out);
}

static struct dp_limit_table *new_table(size_t cells)
{
    struct dp_limit_table *table = NULL;
    assert_int_equal(dp_limit_table_new(cells, &table).code, E_OK);
    return table;
}

/* The one header that the requests here may have; empty: none. */
static bool find_header(const void *ctx, struct slice name, struct slice *out_value)
{
    *out_value = *(const struct slice *)ctx;
    return slice_eq(name, SLICE_LIT("x-key")) && out_value->ptr != NULL;
}

static struct dp_limit_query ask(const struct dp_caller *caller, const char *method,
                                 uint64_t now_ns)
{
    return (struct dp_limit_query){.method = slice_str(method), .caller = caller, .now_ns = now_ns};
}

static bool passes(struct dp_limit_table *table, const struct dp_limit_target *target,
                   const struct dp_caller *caller, const char *method, uint64_t now_ns)
{
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    struct dp_limit_query query = ask(caller, method, now_ns);
    struct err err = dp_limit_take(table, target, &query, &held, &refusal);
    if (!err_ok(err)) {
        assert_int_equal(err.code, E_RATE_LIMITED);
        assert_int_equal(refusal.why, DP_LIMIT_RATE);
        assert_true(refusal.retry_ns > 0);
        assert_true(refusal.limit.size > 0);
    }
    assert_int_equal(held.count, 0);
    return err_ok(err);
}

static void burst_then_rate(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(64);
    struct dp_limit_target *target = NULL;
    part_limit limit = limit_of(id_a, BY(CALLER), 10 * MS, 3);
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    for (int i = 0; i < 3; i++) {
        assert_true(passes(table, target, &web, "/x/Get", START));
    }
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    struct dp_limit_query query = ask(&web, "/x/Get", START);
    assert_int_equal(dp_limit_take(table, target, &query, &held, &refusal).code, E_RATE_LIMITED);
    assert_int_equal(refusal.retry_ns, 10 * MS);
    assert_true(slice_eq(refusal.limit, SLICE_LIT("acme/a")));
    assert_true(passes(table, target, &app, "/x/Get", START)); /* a bucket of its own. */
    assert_false(passes(table, target, &web, "/x/Get", START + 10 * MS - 1));
    assert_true(passes(table, target, &web, "/x/Get", START + 10 * MS));
    assert_false(passes(table, target, &web, "/x/Get", START + 10 * MS));
    /* A long rest fills it to the burst, never above. */
    for (int i = 0; i < 3; i++) {
        assert_true(passes(table, target, &web, "/x/Get", START + 1000ULL * MS));
    }
    assert_false(passes(table, target, &web, "/x/Get", START + 1000ULL * MS));
    dp_limit_free(target);
    dp_limit_table_free(table);
}

static void all_or_nothing(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(64);
    struct dp_limit_target *target = NULL;
    part_limit limits[] = {limit_of(id_a, BY(TENANT), 10 * MS, 5),
                           limit_of(id_b, BY(CALLER), 10 * MS, 1)};
    assert_int_equal(build(limits, 2, &target).code, E_OK);
    assert_true(passes(table, target, &web, "/x/Get", START));
    for (int i = 0; i < 20; i++) {
        assert_false(passes(table, target, &web, "/x/Get", START)); /* b refuses, a is repaid. */
    }
    assert_true(passes(table, target, &app, "/x/Get", START));
    dp_limit_free(target);
    dp_limit_table_free(table);
}

/* A bucket that another snapshot makes smaller is empty, and not emptier than that. */
static void a_larger_rate_holds_at_once(void **state)
{
    (void)state;
    const uint64_t hour = UINT64_C(3600000) * MS;
    struct dp_limit_table *table = new_table(1024);
    struct dp_limit_target *slow = NULL;
    struct dp_limit_target *quick = NULL;
    part_limit seldom = limit_of(id_a, BY(CALLER), hour, 1);
    part_limit often = limit_of(id_a, BY(CALLER), 10 * MS, 5);
    assert_int_equal(build(&seldom, 1, &slow).code, E_OK);
    assert_int_equal(build(&often, 1, &quick).code, E_OK);
    assert_true(passes(table, slow, &web, "/x/Get", START));
    assert_false(passes(table, slow, &web, "/x/Get", START));
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    struct dp_limit_query query = ask(&web, "/x/Get", START);
    assert_int_equal(dp_limit_take(table, quick, &query, &held, &refusal).code, E_RATE_LIMITED);
    assert_int_equal(refusal.retry_ns, 10 * MS);
    assert_true(passes(table, quick, &web, "/x/Get", START + 10 * MS));
    assert_false(passes(table, quick, &web, "/x/Get", START + 10 * MS));
    assert_true(passes(table, quick, &web, "/x/Get", START + 20 * MS));
    dp_limit_free(slow);
    dp_limit_free(quick);
    dp_limit_table_free(table);
}

static void methods_select(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(64);
    struct dp_limit_target *target = NULL;
    char *globs[] = {glob_get};
    part_limit limit = limit_of(id_a, 0, 10 * MS, 1);
    limit.n_methods = 1;
    limit.methods = globs;
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    assert_true(passes(table, target, &web, "/x/Get", START));
    assert_false(passes(table, target, &app, "/x/GetAll", START)); /* one bucket for all. */
    for (int i = 0; i < 10; i++) {
        assert_true(passes(table, target, &web, "/x/Put", START));
    }
    assert_true(passes(table, NULL, &web, "/x/Get", START)); /* no limits at all. */
    dp_limit_free(target);
    dp_limit_table_free(table);
}

/* A request by header x-key with this value; NULL: it has none. */
static struct err take_by(struct dp_limit_table *table, const struct dp_limit_target *target,
                          const char *value, uint64_t now_ns, bool safe)
{
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    struct slice header = value == NULL ? (struct slice){0} : slice_str(value);
    struct dp_limit_query query = ask(&web, "/x/Get", now_ns);
    query.safe = safe;
    query.header = find_header;
    query.ctx = &header;
    struct err err = dp_limit_take(table, target, &query, &held, &refusal);
    if (err.code == E_LIMIT_KEY_MISSING) {
        assert_true(slice_eq(refusal.header, SLICE_LIT("x-key")));
        assert_int_equal(refusal.why, DP_LIMIT_KEY);
    }
    return err;
}

static void headers_and_services_are_keys(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(64);
    struct dp_limit_target *target = NULL;
    char *names[] = {header_key};
    part_limit limit = limit_of(id_a, 0, 10 * MS, 1);
    limit.n_headers = 1;
    limit.headers = names;
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    assert_int_equal(take_by(table, target, "one", START, false).code, E_OK);
    assert_int_equal(take_by(table, target, "one", START, false).code, E_RATE_LIMITED);
    assert_int_equal(take_by(table, target, "two", START, false).code, E_OK);
    assert_int_equal(take_by(table, target, "", START, false).code, E_OK); /* a value as well. */
    char longer[2001] = {0}; /* as tokens are, which begin alike. */
    memset(longer, 'x', sizeof(longer) - 1);
    assert_int_equal(take_by(table, target, longer, START, false).code, E_OK);
    longer[sizeof(longer) - 2] = 'y';
    assert_int_equal(take_by(table, target, longer, START, false).code, E_OK);
    assert_int_equal(take_by(table, target, longer, START, false).code, E_RATE_LIMITED);
    /* Without one: refused, but for what changes nothing: those are one bucket. */
    assert_int_equal(take_by(table, target, NULL, START, false).code, E_LIMIT_KEY_MISSING);
    assert_int_equal(take_by(table, target, NULL, START, true).code, E_OK);
    assert_int_equal(take_by(table, target, NULL, START, true).code, E_RATE_LIMITED);
    dp_limit_free(target);

    limit.on_unknown = TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN;
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(take_by(table, target, NULL, START, false).code, E_OK);
    }
    dp_limit_free(target);

    part_limit by_service = limit_of(id_b, BY(SERVICE), 10 * MS, 1);
    assert_int_equal(build(&by_service, 1, &target).code, E_OK);
    assert_true(passes(table, target, &web, "/x.A/Get", START));
    assert_false(passes(table, target, &app, "/x.A/Put", START)); /* another method of it. */
    assert_true(passes(table, target, &web, "/x.B/Get", START));
    assert_true(passes(table, target, &web, "GET", START)); /* of no service. */
    assert_false(passes(table, target, &web, "PUT", START));
    dp_limit_free(target);
    dp_limit_table_free(table);
}

/* One key after the other: full buckets are reused, and nothing else is. */
static void full_buckets_are_reused(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(128);
    struct dp_limit_target *target = NULL;
    part_limit limit = limit_of(id_a, BY(METHOD), 10 * MS, 1);
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    for (int i = 0; i < 1000; i++) {
        char method[32];
        (void)snprintf(method, sizeof(method), "/x/M%d", i);
        assert_true(passes(table, target, &web, method, START + (uint64_t)i * 20 * MS));
    }
    assert_int_equal(dp_limit_table_crowded(table), 0);
    dp_limit_free(target);
    dp_limit_table_free(table);
}

/*
 * Somebody makes up a thousand times the keys that there is room for: those have a bucket in common
 * by then. Neither what he used himself nor what others did is forgotten.
 */
static void made_up_keys_refill_nothing(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(256);
    struct dp_limit_target *target = NULL;
    part_limit limits[] = {limit_of(id_a, BY(METHOD), 3600000ULL * MS, 2)};
    struct dp_limit_target *others = NULL;
    part_limit limit = limit_of(id_b, BY(CALLER), 3600000ULL * MS, 1);
    assert_int_equal(build(limits, 1, &target).code, E_OK);
    assert_int_equal(build(&limit, 1, &others).code, E_OK);
    assert_true(passes(table, others, &web, "/x/Get", START));
    assert_true(passes(table, target, &app, "/x/Mine", START));
    assert_true(passes(table, target, &app, "/x/Mine", START));
    int passed = 0;
    for (int i = 0; i < 256000; i++) {
        char method[32];
        (void)snprintf(method, sizeof(method), "/x/M%d", i);
        passed += passes(table, target, &app, method, START + 1);
    }
    assert_true(passed <= 2 * 128 + 2); /* of each cell that was there, and of the one in common. */
    assert_true(passed > 128);
    assert_true(dp_limit_table_crowded(table) > 0);
    assert_false(passes(table, target, &app, "/x/Mine", START + 2));
    assert_false(passes(table, others, &web, "/x/Get", START + 2));
    assert_true(passes(table, others, &app, "/x/Get", START + 2)); /* there is room for him. */
    dp_limit_free(others);
    dp_limit_free(target);
    dp_limit_table_free(table);
}

static void in_flight_counts_until_it_is_over(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(128);
    struct dp_limit_target *target = NULL;
    part_limit limits[] = {in_flight(id_a, 3), limit_of(id_b, BY(CALLER), MS, 1000)};
    assert_int_equal(build(limits, 2, &target).code, E_OK);
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held[4] = {{.count = 0}};
    struct dp_limit_query query = ask(&web, "/x/Get", START);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dp_limit_take(table, target, &query, &held[i], &refusal).code, E_OK);
        assert_int_equal(held[i].count, 1);
    }
    assert_int_equal(dp_limit_take(table, target, &query, &held[3], &refusal).code, E_RATE_LIMITED);
    assert_int_equal(refusal.why, DP_LIMIT_CONCURRENCY);
    assert_true(refusal.retry_ns > 0);
    assert_int_equal(held[3].count, 0);
    query.now_ns += 3600000ULL * MS; /* time brings nothing. */
    assert_int_equal(dp_limit_take(table, target, &query, &held[3], &refusal).code, E_RATE_LIMITED);
    dp_limit_release(table, &held[1]);
    dp_limit_release(table, &held[1]); /* once. */
    assert_int_equal(dp_limit_take(table, target, &query, &held[3], &refusal).code, E_OK);
    assert_int_equal(dp_limit_take(table, target, &query, &held[1], &refusal).code, E_RATE_LIMITED);
    for (int i = 0; i < 4; i++) {
        dp_limit_release(table, &held[i]);
    }
    dp_limit_free(target);
    dp_limit_table_free(table);
}

struct seen {
    size_t count;
    uint32_t left[2]; /* of acme/a, acme/b. */
};

static void see(void *ctx, struct slice limit, uint32_t left_permille)
{
    struct seen *seen = ctx;
    seen->count++;
    seen->left[slice_eq(limit, SLICE_LIT("acme/b"))] = left_permille;
}

static struct seen left_at(const struct dp_limit_table *table, uint64_t now_ns)
{
    struct seen seen = {.count = 0};
    dp_limit_left(table, now_ns, see, &seen);
    return seen;
}

static void says_the_least_that_was_left(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(128);
    struct dp_limit_target *target = NULL;
    part_limit limits[] = {limit_of(id_a, 0, 10 * MS, 10), in_flight(id_b, 4)};
    assert_int_equal(build(limits, 2, &target).code, E_OK);
    assert_int_equal(left_at(table, START).count, 0);
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    struct dp_limit_query query = ask(&web, "/x/Get", START);
    assert_int_equal(dp_limit_take(table, target, &query, &held, &refusal).code, E_OK);
    dp_limit_release(table, &held);
    struct seen seen = left_at(table, START);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.left[0], 900);
    assert_int_equal(seen.left[1], 750);
    for (int i = 0; i < 10; i++) {
        struct err err = dp_limit_take(table, target, &query, &held, &refusal);
        assert_int_equal(err.code, i < 9 ? E_OK : E_RATE_LIMITED);
        dp_limit_release(table, &held);
    }
    seen = left_at(table, START + 1000ULL * MS); /* once it was empty. */
    assert_int_equal(seen.left[0], 0);
    assert_int_equal(seen.left[1], 750);
    seen = left_at(table, START + 30000ULL * MS);
    assert_int_equal(seen.left[0], 1000);
    dp_limit_free(target);
    dp_limit_table_free(table);
}

static void refuses_parts(void **state)
{
    (void)state;
    struct dp_limit_target *target = NULL;
    part_limit limit = limit_of(id_a, 0, 0, 1);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, 1, 0);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 1U << 20, 1, 1);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, LIMIT_BUDGET_MAX_NS, 1);
    assert_true(err_ok(build(&limit, 1, &target)));
    dp_limit_free(target);
    target = NULL;
    limit = limit_of(id_a, 0, LIMIT_BUDGET_MAX_NS + 1, 1);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, UINT64_MAX / 2, UINT32_MAX);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    assert_int_equal(build(&limit, 0, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, 1, 1);
    limit.concurrency = 1; /* either. */
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, 1, 1);
    limit.on_unknown = (Trilane__Parts__V1__LimitUnknown)4;
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    limit = limit_of(id_a, 0, 1, 1);
    char *names[] = {header_key, header_key, header_key, header_key, header_key};
    limit.n_headers = 5;
    limit.headers = names;
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    part_limit held[] = {in_flight(id_a, 1), in_flight(id_a, 1), in_flight(id_a, 1),
                         in_flight(id_a, 1), in_flight(id_a, 1)};
    assert_int_equal(build(held, 5, &target).code, E_PART_MALFORMED);
}

enum { THREADS = 4, ROUNDS = 20000 };

struct race {
    struct dp_limit_table *table;
    struct dp_limit_target *target;
    _Atomic int passed;
    _Atomic int begun;
    _Atomic int open; /* in flight. */
    _Atomic int open_max;
};

static void run_threads(void *(*run)(void *), struct race *race)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run, race), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void *take_many(void *arg)
{
    struct race *race = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        struct dp_limit_query query = ask(&web, "/x/Get", START);
        atomic_fetch_add(&race->passed,
                         err_ok(dp_limit_take(race->table, race->target, &query, &held, &refusal)));
    }
    return NULL;
}

static void threads_share_a_bucket_exactly(void **state)
{
    (void)state;
    struct race race = {.table = new_table(64)};
    part_limit limit = limit_of(id_a, BY(CALLER), MS, 5000);
    assert_int_equal(build(&limit, 1, &race.target).code, E_OK);
    run_threads(take_many, &race);
    assert_int_equal(race.passed, 5000);
    dp_limit_free(race.target);
    dp_limit_table_free(race.table);
}

enum { KEYS = 1000 };

/* All threads begin each key at the same moment, in a table in which each finds a place: in a
 * smaller one eight others may have the few where a key may be. */
static void *take_each_key(void *arg)
{
    struct race *race = arg;
    atomic_fetch_add(&race->begun, 1);
    while (atomic_load(&race->begun) < THREADS) {
    }
    for (int i = 0; i < KEYS * 2; i++) {
        char method[32];
        (void)snprintf(method, sizeof(method), "/x/M%d", i % KEYS);
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        struct dp_limit_query query = ask(&web, method, START + (uint64_t)i);
        atomic_fetch_add(&race->passed,
                         err_ok(dp_limit_take(race->table, race->target, &query, &held, &refusal)));
    }
    return NULL;
}

static void threads_that_begin_a_key_at_once_share_it(void **state)
{
    (void)state;
    struct race race = {.table = new_table(65536)};
    part_limit limit = limit_of(id_a, BY(METHOD), 3600000ULL * MS, 1);
    assert_int_equal(build(&limit, 1, &race.target).code, E_OK);
    run_threads(take_each_key, &race);
    assert_int_equal(race.passed, KEYS); /* each key once. */
    assert_int_equal(dp_limit_table_crowded(race.table), 0);
    dp_limit_free(race.target);
    dp_limit_table_free(race.table);
}

static void *come_and_go(void *arg)
{
    struct race *race = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        struct dp_limit_query query = ask(&web, "/x/Get", START);
        if (err_ok(dp_limit_take(race->table, race->target, &query, &held, &refusal))) {
            int open = atomic_fetch_add(&race->open, 1) + 1;
            int max = atomic_load(&race->open_max);
            while (open > max && !atomic_compare_exchange_weak(&race->open_max, &max, open)) {
            }
            atomic_fetch_sub(&race->open, 1);
            dp_limit_release(race->table, &held);
        }
    }
    return NULL;
}

static void threads_leave_nothing_in_flight(void **state)
{
    (void)state;
    struct race race = {.table = new_table(64)};
    part_limit limit = in_flight(id_a, 2);
    assert_int_equal(build(&limit, 1, &race.target).code, E_OK);
    run_threads(come_and_go, &race);
    assert_true(race.open_max >= 1 && race.open_max <= 2);
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held[2] = {{.count = 0}};
    struct dp_limit_query query = ask(&web, "/x/Get", START);
    for (int i = 0; i < 2; i++) { /* all of it is there again. */
        assert_int_equal(dp_limit_take(race.table, race.target, &query, &held[i], &refusal).code,
                         E_OK);
    }
    dp_limit_free(race.target);
    dp_limit_table_free(race.table);
}

/* A second of the real clock, in which threads ask for much more than the rate. */
static void *take_by_the_clock(void *arg)
{
    struct race *race = arg;
    uint64_t until_ns = clock_mono_ns() + 1000ULL * MS;
    for (uint64_t now_ns = clock_mono_ns(); now_ns < until_ns; now_ns = clock_mono_ns()) {
        struct dp_limit_refusal refusal = {0};
        struct dp_limit_held held = {.count = 0};
        struct dp_limit_query query = ask(&web, "/x/Get", now_ns);
        atomic_fetch_add(&race->passed,
                         err_ok(dp_limit_take(race->table, race->target, &query, &held, &refusal)));
    }
    return NULL;
}

static void threads_pass_what_the_rate_gives(void **state)
{
    (void)state;
    struct race race = {.table = new_table(64)};
    part_limit limit = limit_of(id_a, 0, MS / 20, 1000); /* 20,000 a second. */
    assert_int_equal(build(&limit, 1, &race.target).code, E_OK);
    uint64_t began_ns = clock_mono_ns();
    run_threads(take_by_the_clock, &race);
    uint64_t most = (clock_mono_ns() - began_ns) / (MS / 20) + 1000;
    assert_true((uint64_t)race.passed <= most);
    assert_true(race.passed >= 20000); /* of 21,000: a thread may have waited for its core. */
    dp_limit_free(race.target);
    dp_limit_table_free(race.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_then_rate),
        cmocka_unit_test(all_or_nothing),
        cmocka_unit_test(a_larger_rate_holds_at_once),
        cmocka_unit_test(methods_select),
        cmocka_unit_test(headers_and_services_are_keys),
        cmocka_unit_test(full_buckets_are_reused),
        cmocka_unit_test(made_up_keys_refill_nothing),
        cmocka_unit_test(in_flight_counts_until_it_is_over),
        cmocka_unit_test(says_the_least_that_was_left),
        cmocka_unit_test(refuses_parts),
        cmocka_unit_test(threads_share_a_bucket_exactly),
        cmocka_unit_test(threads_that_begin_a_key_at_once_share_it),
        cmocka_unit_test(threads_leave_nothing_in_flight),
        cmocka_unit_test(threads_pass_what_the_rate_gives),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
