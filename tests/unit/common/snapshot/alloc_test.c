/*
 * alloc: with the n-th allocation failing, for all n, each decoder says so, leaks nothing and
 * leaves its outputs alone.
 */
#include <stdlib.h>
#include <string.h>

#include "common/snapshot/head.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"
#include "common/snapshot/status.h"

#include "fixture.h"
#include "tests/support/cmocka.h"
#include "tests/support/failing_alloc.h"

static struct fx fx;
static struct fx_version v;
static struct buf head_bytes = {.max = 16 << 10};
static struct buf status_bytes = {.max = 4096};

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    fx_version_make(&fx, 3, 60, 0, &v);
    const struct head h = fx_head(1, 1, &v);
    const struct status s = {.node = "node-1", .version = 3};
    fx_seal_head(&fx, &h, &head_bytes);
    EXPECT_OK(status_seal(&s, fx.environment, &fx.node, &status_bytes));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_free(&head_bytes);
    buf_free(&status_bytes);
    fx_version_free(&v);
    fx_free(&fx);
    return 0;
}

static struct err run_root(void)
{
    struct root r;
    return root_open(buf_slice(&fx.root_bytes), &r);
}

static struct err run_head(void)
{
    const struct judge j = {.root = fx.root};
    const struct judge_now now = {.wall_ms = FX_NOW_MS, .root_asked = true};
    struct judged judged;
    judge_head(&j, buf_slice(&head_bytes), &now, &judged);
    head_free(&judged.head);
    return judged.err;
}

static struct err run_manifest(void)
{
    const struct manifest_wanted wanted = {.version = 3};
    auto_manifest struct manifest m = {0};
    return manifest_open(buf_slice(&v.container), &fx.root, &wanted, &m);
}

static struct err run_status(void)
{
    struct status s;
    return status_open(buf_slice(&status_bytes), fx.environment, &fx.node.public, &s);
}

static struct err fill_set(struct snap_set *set)
{
    struct snap_missing missing;
    size_t at = 0;
    while (snap_set_missing(set, &at, &missing)) {
        TRY(snap_set_add(set, &missing.name, fx_stored(&v, missing.name.digest)));
    }
    return snap_set_close(set);
}

static struct err run_set(void)
{
    struct snap_set *set = NULL;
    TRY(snap_set_new(&v.manifest, NULL, &set));
    struct err e = fill_set(set);
    snap_set_unref(set);
    return e;
}

static struct err run_cut(void)
{
    struct cut_stream s;
    TRY(cut_stream(STREAM_TRUST, buf_slice(&v.raw[1]), /* options= */ NULL, &s));
    cut_stream_free(&s);
    return OK;
}

static void each_allocation_fails_once(struct err (*run)(void))
{
    allocations = 0;
    EXPECT_OK(run());
    unsigned long total = allocations;
    assert_true(total > 0);
    for (unsigned long n = 1; n <= total; n++) {
        allocations = 0;
        failing = n;
        struct err e = run();
        failing = 0;
        /* A block that could not be made smaller is kept as it is: success, too. */
        assert_true(e.code == E_NO_MEMORY || e.code == E_OUT_OF_MEMORY ||
                    (err_ok(e) && run == run_cut));
    }
}

static void decoders(void **state)
{
    (void)state;
    each_allocation_fails_once(run_root);
    each_allocation_fails_once(run_head);
    each_allocation_fails_once(run_manifest);
    each_allocation_fails_once(run_status);
    each_allocation_fails_once(run_set);
    each_allocation_fails_once(run_cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoders)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
