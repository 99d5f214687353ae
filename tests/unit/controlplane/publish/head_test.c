/* Proves what the leader makes of each thing that may lie under "head" in KV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controlplane/publish/head.h"

struct fixture {
    struct root root;
    struct key_pair head_key;
    struct key_pair manifest_key;
    struct key_pair stranger;
    struct cp_head_own own;
    struct cp_head_judged judged;
    struct buf bytes;
};

static void must(struct err e)
{
    assert_int_equal(e.code, E_OK);
}

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){.bytes = BUF_MAX(64 << 10)};
    must(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("head"), &f.head_key));
    must(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("stranger"), &f.stranger));
    must(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("manifest"), &f.manifest_key));
    (void)memcpy(f.root.environment, "dev", 4);
    snap_environment(SLICE_LIT("dev"), f.root.environment_id);
    f.root.version = 1;
    must(root_add_key(&f.root, &f.head_key.public, clock_wall_ms() + 1000000));
    must(root_add_key(&f.root, &f.manifest_key.public, 0));
    f.root.ring.thresholds[KEY_ROLE_HEAD] = 1;
    f.root.ring.thresholds[KEY_ROLE_MANIFEST] = 1;
    f.own = (struct cp_head_own){.epoch = 5, .sequence = 10, .version_max = 7};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    buf_free(&f->bytes);
    key_pair_wipe(&f->head_key);
    key_pair_wipe(&f->manifest_key);
    key_pair_wipe(&f->stranger);
    return 0;
}

static void seal(struct fixture *f, uint64_t epoch, uint64_t sequence, uint64_t version,
                 const struct key_pair *key)
{
    struct head head = {.root_version = 1,
                        .epoch = epoch,
                        .sequence = sequence,
                        .signed_at_ms = 1000,
                        .expires_at_ms = 2000, /* long ago: the time is not asked. */
                        .target_count = 1};
    head.targets[0].all = true;
    head.targets[0].version = version;
    struct buf body = BUF_MAX(HEAD_BODY_MAX);
    struct container_signature signature;
    must(head_encode(&head, &body));
    must(container_sign(CONTAINER_HEAD, f->root.environment_id, buf_slice(&body), key, &signature));
    buf_clear(&f->bytes);
    must(container_seal(CONTAINER_HEAD, f->root.environment_id, buf_slice(&body), &signature, 1,
                        &f->bytes));
    buf_free(&body);
}

static enum cp_head_verdict judge(struct fixture *f)
{
    cp_head_judge(&f->root, buf_slice(&f->bytes), &f->own, &f->judged);
    return f->judged.verdict;
}

static void remember(struct fixture *f)
{
    struct container c;
    must(container_read(buf_slice(&f->bytes), CONTAINER_HEAD, NULL, &c));
    container_body_digest(&c, f->own.digest);
}

static void our_last_head_is_ours(void **state)
{
    struct fixture *f = *state;
    seal(f, 5, 10, 7, &f->head_key);
    remember(f);
    assert_int_equal(judge(f), CP_HEAD_OURS);
}

static void another_body_of_our_order_is_foreign(void **state)
{
    struct fixture *f = *state;
    seal(f, 5, 10, 6, &f->head_key);
    remember(f);
    seal(f, 5, 10, 7, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_FOREIGN);
}

static void a_lower_order_is_lower(void **state)
{
    struct fixture *f = *state;
    seal(f, 5, 9, 7, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_LOWER);
    seal(f, 4, 900, 7, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_LOWER);
}

static void a_higher_order_is_foreign_up_to_the_jump(void **state)
{
    struct fixture *f = *state;
    seal(f, 5, 11, 7, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_FOREIGN);
    seal(f, 5 + HEAD_EPOCH_JUMP, 1, 7, &f->head_key);
    struct cp_head_judged judged;
    cp_head_judge(&f->root, buf_slice(&f->bytes), &f->own, &judged);
    assert_int_equal(judged.verdict, CP_HEAD_FOREIGN);
    assert_int_equal(judged.epoch, 5 + HEAD_EPOCH_JUMP);
    seal(f, 5 + HEAD_EPOCH_JUMP + 1, 1, 7, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_JUMP);
}

static void a_version_above_the_database_means_that_it_is_behind(void **state)
{
    struct fixture *f = *state;
    seal(f, 4, 1, 8, &f->head_key); /* whatever its order. */
    assert_int_equal(judge(f), CP_HEAD_BEHIND);
    assert_int_equal(f->judged.version_max, 8);
    assert_int_equal(f->judged.order, CP_HEAD_LOWER); /* what it is if nobody published that. */
    seal(f, 6, 1, 8, &f->head_key);
    assert_int_equal(judge(f), CP_HEAD_BEHIND);
    assert_int_equal(f->judged.order, CP_HEAD_FOREIGN);
}

static void a_strangers_signature_counts_for_nothing(void **state)
{
    struct fixture *f = *state;
    seal(f, 50, 1, 8, &f->stranger);
    assert_int_equal(judge(f), CP_HEAD_UNSIGNED);
    seal(f, 50, 1, 8, &f->manifest_key); /* a key of another role. */
    assert_int_equal(judge(f), CP_HEAD_UNSIGNED);
}

static void what_does_not_parse_is_malformed(void **state)
{
    struct fixture *f = *state;
    buf_clear(&f->bytes);
    assert_int_equal(judge(f), CP_HEAD_MALFORMED);
    seal(f, 5, 10, 7, &f->head_key);
    for (size_t size = 0; size < f->bytes.size; size++) {
        struct cp_head_judged judged;
        cp_head_judge(&f->root, slice_head(buf_slice(&f->bytes), size), &f->own, &judged);
        assert_int_equal(judged.verdict, CP_HEAD_MALFORMED);
    }
}

int main(void)
{
    ids_init();
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(our_last_head_is_ours),
        T(another_body_of_our_order_is_foreign),
        T(a_lower_order_is_lower),
        T(a_higher_order_is_foreign_up_to_the_jump),
        T(a_version_above_the_database_means_that_it_is_behind),
        T(a_strangers_signature_counts_for_nothing),
        T(what_does_not_parse_is_malformed),
    };
    return cmocka_run_group_tests_name("publish.head", tests, NULL, NULL);
}
