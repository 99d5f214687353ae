/* judge: each check of the table of docs/formats.md, with its code, in its order. */
#include "common/snapshot/judge.h"

#include <stdio.h>
#include <string.h>

#include "common/base/scope.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

enum { TOLERANCE = 30000 };

static struct fx fx;
static struct fx_version v5;
static struct fx_version v6;
static struct fx_version v6_other; /* another content under the same number. */

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    fx_version_make(&fx, 5, 3, 0, &v5);
    fx_version_make(&fx, 6, 3, 1, &v6);
    fx_version_make(&fx, 6, 3, 2, &v6_other);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_version_free(&v5);
    fx_version_free(&v6);
    fx_version_free(&v6_other);
    fx_free(&fx);
    return 0;
}

/* A node that serves version 5 and accepted head (10, 20). */
static struct judge node_at(uint64_t epoch, uint64_t sequence)
{
    struct judge j = {.root = fx.root, .has_order = true, .epoch = epoch, .sequence = sequence};
    judge_raise(&j, 5, v5.manifest.digest);
    return j;
}

static struct judge_now now_at(int64_t wall_ms)
{
    return (struct judge_now){.wall_ms = wall_ms, .tolerance_ms = TOLERANCE};
}

/* Judges bytes, and gives verdict and code; the head goes. */
static enum judge_verdict judge_bytes(const struct judge *j, struct slice bytes,
                                      const struct judge_now *now, struct err *out)
{
    struct judged judged;
    judge_head(j, bytes, now, &judged);
    *out = judged.err;
    enum judge_verdict verdict = judged.verdict;
    head_free(&judged.head);
    return verdict;
}

static void expect_head(const struct judge *j, const struct head *h, const struct judge_now *now,
                        enum judge_verdict want, enum err_code code)
{
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    struct err e;
    fx_seal_head(&fx, h, &bytes);
    enum judge_verdict got = judge_bytes(j, buf_slice(&bytes), now, &e);
    EXPECT(e, code);
    assert_int_equal(got, want);
}

static void takes_what_is_above(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 21, &v6);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
    h = fx_head(11, 1, &v6);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
    struct judge fresh = {.root = fx.root}; /* a node that has no order takes the first. */
    h = fx_head(UINT64_MAX, 1, &v6);
    expect_head(&fresh, &h, &now, JUDGE_NEWS, E_OK);
}

static void replays_are_refused(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 19, &v6);
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_HEAD_REPLAYED);
    h = fx_head(9, 1000, &v6);
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_HEAD_REPLAYED);
    h = fx_head(10, 20, &v6); /* equal, and after a start nobody knows its body. */
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_HEAD_REPLAYED);
}

static void same_and_equivocation(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 21, &v6);
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    struct judged judged;
    fx_seal_head(&fx, &h, &bytes);
    judge_head(&j, buf_slice(&bytes), &now, &judged);
    assert_int_equal(judged.verdict, JUDGE_NEWS);
    judge_accept(&j, &judged);
    head_free(&judged.head);
    assert_int_equal(j.sequence, 21);
    expect_head(&j, &h, &now, JUDGE_SAME, E_OK);
    now.wall_ms += 10 * 60000; /* no news is no news, whatever the time. */
    expect_head(&j, &h, &now, JUDGE_SAME, E_OK);
    now.wall_ms = FX_NOW_MS;
    h.expires_at_ms++;
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_HEAD_EQUIVOCATION);
}

static void epochs_do_not_jump(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10 + HEAD_EPOCH_JUMP, 1, &v6);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
    h = fx_head(11 + HEAD_EPOCH_JUMP, 1, &v6);
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_EPOCH_JUMP);
    h = fx_head(UINT64_MAX, 1, &v6);
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_EPOCH_JUMP);
}

static void time_is_asked_with_a_tolerance(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct head h = fx_head(10, 21, &v6);
    const struct {
        int64_t wall_ms;
        enum err_code code;
    } cases[] = {
        {h.expires_at_ms + TOLERANCE - 1, E_OK},
        {h.expires_at_ms + TOLERANCE, E_HEAD_EXPIRED},
        {h.signed_at_ms - TOLERANCE, E_OK},
        {h.signed_at_ms - TOLERANCE - 1, E_CLOCK_SKEW},
        {0, E_CLOCK_SKEW},
        {INT64_MAX - TOLERANCE, E_HEAD_EXPIRED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct judge_now now = now_at(cases[i].wall_ms);
        expect_head(&j, &h, &now, cases[i].code == E_OK ? JUDGE_NEWS : JUDGE_REFUSED,
                    cases[i].code);
    }
}

static void the_signers_key_is_in_time(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    int64_t end = j.root.ring.keys[j.root.ring.count - 1].not_after_ms; /* of the head keys. */
    struct head h = fx_head(10, 21, &v6);
    h.signed_at_ms = end + TOLERANCE;
    h.expires_at_ms = h.signed_at_ms + 1000;
    struct judge_now now = now_at(end + TOLERANCE);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
    now.wall_ms++;
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_CLOCK_SKEW);
}

static void every_bit_of_a_head_is_refused(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    now.root_asked = true;
    struct head h = fx_head(10, 21, &v6);
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    struct err e;
    fx_seal_head(&fx, &h, &bytes);
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_NEWS);
    for (size_t bit = 0; bit < bytes.size * 8; bit++) {
        bytes.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_REFUSED);
        bytes.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    for (size_t size = 0; size < bytes.size; size++) {
        assert_int_equal(judge_bytes(&j, slice_head(buf_slice(&bytes), size), &now, &e),
                         JUDGE_REFUSED);
        EXPECT(e, E_HEAD_MALFORMED);
    }
}

static void another_environment(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    struct head h = fx_head(10, 21, &v6);
    const struct key_pair *signer = &fx.heads[0];
    struct err e;
    EXPECT_OK(head_encode(&h, &body));
    fx_seal(CONTAINER_HEAD, "production", buf_slice(&body), &signer, 1, &bytes);
    (void)judge_bytes(&j, buf_slice(&bytes), &now, &e);
    EXPECT(e, E_HEAD_WRONG_ENVIRONMENT);
}

static void seal_with(const struct key_pair *signer, const struct head *h, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    EXPECT_OK(head_encode(h, &body));
    fx_seal(CONTAINER_HEAD, "test", buf_slice(&body), &signer, 1, out);
}

static void keys_of_other_roles_and_strangers(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 21, &v6);
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    struct err e;
    seal_with(&fx.manifests[0], &h, &bytes);
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_REFUSED);
    EXPECT(e, E_HEAD_WRONG_KEY);
    /* heads[2] is in no root: the next root is asked for first, then it is judged. */
    buf_clear(&bytes);
    seal_with(&fx.heads[2], &h, &bytes);
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_WANT_ROOT);
    now.root_asked = true;
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_REFUSED);
    EXPECT(e, E_HEAD_UNSIGNED);
}

/* A body that parses only in part is malformed although its signature holds. */
static void a_signed_body_is_judged_all_the_same(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 21, &v6);
    const struct key_pair *signer = &fx.heads[0];
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    struct err e;
    EXPECT_OK(head_encode(&h, &body));
    for (size_t size = 0; size < body.size; size++) {
        auto_buf struct buf bytes = BUF_MAX(16 << 10);
        fx_seal(CONTAINER_HEAD, "test", slice_head(buf_slice(&body), size), &signer, 1, &bytes);
        assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_REFUSED);
        EXPECT(e, E_HEAD_MALFORMED);
    }
    static const uint8_t unknown[] = {0x98, 0x06, 0x01};   /* field 99 */
    static const uint8_t ignorable[] = {0xa0, 0x06, 0x01}; /* field 100 */
    auto_buf struct buf bytes = BUF_MAX(16 << 10);
    EXPECT_OK(buf_add(&body, slice_of(unknown, sizeof(unknown))));
    fx_seal(CONTAINER_HEAD, "test", buf_slice(&body), &signer, 1, &bytes);
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_REFUSED);
    EXPECT(e, E_HEAD_MALFORMED);
    body.size -= sizeof(unknown);
    buf_clear(&bytes);
    EXPECT_OK(buf_add(&body, slice_of(ignorable, sizeof(ignorable))));
    fx_seal(CONTAINER_HEAD, "test", buf_slice(&body), &signer, 1, &bytes);
    assert_int_equal(judge_bytes(&j, buf_slice(&bytes), &now, &e), JUDGE_NEWS);
}

/* ---- roots ---- */

static void a_newer_root_is_walked_to(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(10, 21, &v6);
    h.root_version = 2;
    expect_head(&j, &h, &now, JUDGE_WANT_ROOT, E_ROOT_MISSING);
    now.root_asked = true;
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_ROOT_MISSING);
    auto_buf struct buf second = BUF_MAX(1 << 20);
    struct root next = fx_root(&fx, 2, &fx.roots[1]);
    const struct key_pair *signers[] = {&fx.roots[0], &fx.roots[1]};
    fx_seal_root(&next, signers, 2, &second);
    struct root_walk walk;
    root_walk_start(&j.root, &walk);
    EXPECT_OK(root_walk_step(&walk, buf_slice(&second)));
    EXPECT_OK(root_walk_end(&walk, FX_NOW_MS, TOLERANCE));
    judge_walk(&j, &walk);
    assert_int_equal(j.root.version, 2);
    assert_int_equal(j.epoch, 10); /* a root without a floor changes keys alone. */
    assert_int_equal(j.version, 5);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
}

static void a_floor_in_a_root_takes_effect(void **state)
{
    (void)state;
    struct judge j = node_at(UINT64_MAX - 1, 20); /* locked out by a leaked key. */
    refused_add(&j.refused, v6.manifest.digest);
    struct root_walk walk;
    root_walk_start(&j.root, &walk);
    walk.has_floor = true;
    walk.floor = (struct root_floor){.epoch = 12, .version = 4};
    walk.steps = 1;
    judge_walk(&j, &walk);
    struct judge_now now = now_at(FX_NOW_MS);
    struct head h = fx_head(12, 1, &v5);
    expect_head(&j, &h, &now, JUDGE_NEWS, E_OK);
    h = fx_head(11, 9, &v5);
    expect_head(&j, &h, &now, JUDGE_REFUSED, E_HEAD_REPLAYED);
    assert_int_equal(j.version, 4);
    assert_false(j.has_digest);
    assert_int_equal(j.refused.count, 0);
}

/* ---- targets ---- */

static const struct head_node node_1 = {.id = {(const uint8_t *)"node-1", 6}};

static void expect_target(const struct judge *j, const struct head *h, enum judge_move move,
                          enum err_code code)
{
    struct judge_step step = judge_target(j, h, &node_1);
    EXPECT(step.err, code);
    assert_int_equal(step.move, move);
}

static void the_floor_holds_whatever_the_epoch(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct fx_version old;
    fx_version_make(&fx, 4, 3, 0, &old);
    struct head h = fx_head(5000, 1, &old); /* an old manifest under a new epoch. */
    expect_target(&j, &h, JUDGE_KEEP, E_SNAPSHOT_REPLAYED);
    fx_version_free(&old);
    h = fx_head(11, 1, &v5);
    expect_target(&j, &h, JUDGE_SERVED, E_OK);
    h = fx_head(11, 1, &v6);
    expect_target(&j, &h, JUDGE_FETCH, E_OK);
    judge_raise(&j, 6, v6.manifest.digest);
    h = fx_head(11, 1, &v6_other); /* two manifests of one version. */
    expect_target(&j, &h, JUDGE_KEEP, E_SNAPSHOT_EQUIVOCATION);
    j.has_digest = false; /* a root's floor names a version and no digest. */
    expect_target(&j, &h, JUDGE_FETCH, E_OK);
}

static void refused_digests_are_not_fetched(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct head h = fx_head(11, 1, &v6);
    refused_add(&j.refused, v6.manifest.digest);
    refused_add(&j.refused, v6.manifest.digest);
    assert_int_equal(j.refused.count, 1);
    expect_target(&j, &h, JUDGE_KEEP, E_CRASHED_NODE);
    for (size_t i = 0; i < REFUSED_DIGESTS_MAX; i++) { /* the oldest of eight goes. */
        uint8_t digest[DIGEST_SIZE] = {(uint8_t)i, 1};
        expect_target(&j, &h, JUDGE_KEEP, E_CRASHED_NODE);
        refused_add(&j.refused, digest);
    }
    assert_int_equal(j.refused.count, REFUSED_DIGESTS_MAX);
    expect_target(&j, &h, JUDGE_FETCH, E_OK);
}

static void no_target_matches(void **state)
{
    (void)state;
    struct judge j = node_at(10, 20);
    struct head h = fx_head(11, 1, &v6);
    h.target_count = 0;
    expect_target(&j, &h, JUDGE_KEEP, E_NO_TARGET);
    h.target_count = 1;
    h.targets[0].all = false;
    h.targets[0].per_mille = 1000;
    h.targets[0].label_count = 1;
    h.targets[0].labels[0] = (struct head_label){slice_str("zone"), slice_str("a")};
    expect_target(&j, &h, JUDGE_KEEP, E_NO_TARGET);
    h.targets[0].label_count = 0;
    expect_target(&j, &h, JUDGE_FETCH, E_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_above),
        cmocka_unit_test(replays_are_refused),
        cmocka_unit_test(same_and_equivocation),
        cmocka_unit_test(epochs_do_not_jump),
        cmocka_unit_test(time_is_asked_with_a_tolerance),
        cmocka_unit_test(the_signers_key_is_in_time),
        cmocka_unit_test(every_bit_of_a_head_is_refused),
        cmocka_unit_test(another_environment),
        cmocka_unit_test(keys_of_other_roles_and_strangers),
        cmocka_unit_test(a_signed_body_is_judged_all_the_same),
        cmocka_unit_test(a_newer_root_is_walked_to),
        cmocka_unit_test(a_floor_in_a_root_takes_effect),
        cmocka_unit_test(the_floor_holds_whatever_the_epoch),
        cmocka_unit_test(refused_digests_are_not_fetched),
        cmocka_unit_test(no_target_matches),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
