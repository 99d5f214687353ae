/* limit: a bucket gives its burst at once and its rate over time, refuses with the time to wait,
 * gives back what another limit refuses, and is exact among threads. */
#include "dataplane/request/limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/proto/strict.h"
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

static struct err build(part_limit *limits, size_t count, struct dp_limit_target **out)
{
    part_limit *list[4];
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

static bool passes(struct dp_limit_table *table, const struct dp_limit_target *target,
                   const struct dp_caller *caller, const char *method, uint64_t now_ns)
{
    struct dp_limit_refusal refusal = {0};
    struct err err = dp_limit_take(table, target, slice_str(method), caller, now_ns, &refusal);
    if (!err_ok(err)) {
        assert_int_equal(err.code, E_RATE_LIMITED);
        assert_true(refusal.retry_ns > 0);
        assert_true(refusal.limit.size > 0);
    }
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
    assert_int_equal(dp_limit_take(table, target, SLICE_LIT("/x/Get"), &web, START, &refusal).code,
                     E_RATE_LIMITED);
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

/* More keys than cells: full buckets are reused freely, others only when nothing else is left. */
static void many_keys_stay_bounded(void **state)
{
    (void)state;
    struct dp_limit_table *table = new_table(64);
    struct dp_limit_target *target = NULL;
    part_limit limit = limit_of(id_a, BY(METHOD), 10 * MS, 1);
    assert_int_equal(build(&limit, 1, &target).code, E_OK);
    for (int i = 0; i < 1000; i++) {
        char method[32];
        (void)snprintf(method, sizeof(method), "/x/M%d", i);
        assert_true(passes(table, target, &web, method, START + (uint64_t)i * 20 * MS));
    }
    assert_int_equal(dp_limit_table_evicted(table), 0);
    for (int i = 0; i < 1000; i++) {
        char method[32];
        (void)snprintf(method, sizeof(method), "/x/N%d", i);
        assert_true(passes(table, target, &web, method, START + 1000000ULL * MS));
    }
    assert_true(dp_limit_table_evicted(table) > 0);
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
    limit = limit_of(id_a, 0, UINT64_MAX / 2, UINT32_MAX);
    assert_int_equal(build(&limit, 1, &target).code, E_PART_MALFORMED);
    assert_int_equal(build(&limit, 0, &target).code, E_PART_MALFORMED);
}

struct race {
    struct dp_limit_table *table;
    struct dp_limit_target *target;
    _Atomic int passed;
};

static void *take_many(void *arg)
{
    struct race *race = arg;
    for (int i = 0; i < 20000; i++) {
        struct dp_limit_refusal refusal = {0};
        struct err err =
            dp_limit_take(race->table, race->target, SLICE_LIT("/x/Get"), &web, START, &refusal);
        if (err_ok(err)) {
            atomic_fetch_add(&race->passed, 1);
        }
    }
    return NULL;
}

static void threads_share_a_bucket_exactly(void **state)
{
    (void)state;
    struct race race = {.table = new_table(64)};
    part_limit limit = limit_of(id_a, BY(CALLER), MS, 5000);
    assert_int_equal(build(&limit, 1, &race.target).code, E_OK);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &race), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(race.passed, 5000);
    dp_limit_free(race.target);
    dp_limit_table_free(race.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_then_rate), cmocka_unit_test(all_or_nothing),
        cmocka_unit_test(methods_select),  cmocka_unit_test(many_keys_stay_bounded),
        cmocka_unit_test(refuses_parts),   cmocka_unit_test(threads_share_a_bucket_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
