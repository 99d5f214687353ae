/* root: what one must hold, every bit of it, and the walk from one to the next. */
#include "common/snapshot/root.h"

#include <stdio.h>
#include <string.h>

#include "common/proto/strict.h"

#include "fixture.h"
#include "tests/support/cmocka.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

static struct fx fx;

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_free(&fx);
    return 0;
}

static void comes_back_the_same(void **state)
{
    (void)state;
    struct root r = fx_root(&fx, 3, &fx.roots[0]);
    r.has_floor = true;
    r.floor = (struct root_floor){.epoch = 4, .version = 5};
    auto_buf struct buf first = BUF_MAX(ROOT_BODY_MAX);
    auto_buf struct buf again = BUF_MAX(ROOT_BODY_MAX);
    auto_buf struct buf sealed = BUF_MAX(1 << 20);
    const struct key_pair *signer = &fx.roots[0];
    struct root got;
    EXPECT_OK(root_encode(&r, &first));
    fx_seal_root(&r, &signer, 1, &sealed);
    EXPECT_OK(root_open(buf_slice(&sealed), &got));
    EXPECT_OK(root_encode(&got, &again));
    assert_true(slice_eq(buf_slice(&first), buf_slice(&again)));
    assert_string_equal(got.environment, "test");
    assert_memory_equal(got.environment_id, fx.environment, ENVIRONMENT_SIZE);
    assert_int_equal(got.ring.count, 6);
    assert_true(got.has_floor && got.floor.epoch == 4 && got.floor.version == 5);
}

static void every_bit_counts(void **state)
{
    (void)state;
    struct root got;
    struct buf *bytes = &fx.root_bytes;
    for (size_t bit = 0; bit < bytes->size * 8; bit++) {
        bytes->ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        struct err e = root_open(buf_slice(bytes), &got);
        bytes->ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_true(e.code == E_ROOT_MALFORMED || e.code == E_ROOT_UNSIGNED);
    }
    for (size_t size = 0; size < bytes->size; size++) {
        EXPECT(root_open(slice_head(buf_slice(bytes), size), &got), E_ROOT_MALFORMED);
    }
}

#define NOT_A_ROOT(change)                                                                         \
    do {                                                                                           \
        struct root r = fx_root(&fx, 3, &fx.roots[0]);                                             \
        auto_buf struct buf body_ = BUF_MAX(ROOT_BODY_MAX);                                        \
        change;                                                                                    \
        EXPECT(root_encode(&r, &body_), E_USAGE);                                                  \
    } while (0)

static void each_bound(void **state)
{
    (void)state;
    NOT_A_ROOT(r.version = 0);
    NOT_A_ROOT(r.not_after_ms = 0);
    NOT_A_ROOT(r.not_after_ms = INT64_MAX);
    NOT_A_ROOT(r.environment[0] = '\0');
    NOT_A_ROOT(r.environment[0] = 'T');
    NOT_A_ROOT(r.ring.thresholds[KEY_ROLE_ROOT] = 0);
    NOT_A_ROOT(r.ring.thresholds[KEY_ROLE_ROOT] = 2);
    NOT_A_ROOT(r.ring.thresholds[KEY_ROLE_MANIFEST] = 4);
    NOT_A_ROOT(r.ring.thresholds[KEY_ROLE_HEAD] = 2); /* a head carries one signature. */
    NOT_A_ROOT(r.ring.count = 4);                     /* no head key is left. */
}

static void no_key_is_there_twice(void **state)
{
    (void)state;
    struct root r = fx_root(&fx, 3, &fx.roots[0]);
    struct key_public key = fx.manifests[0].public;
    EXPECT(root_add_key(&r, &key, 0), E_USAGE);
    key.role = KEY_ROLE_HEAD; /* nor in two roles. */
    EXPECT(root_add_key(&r, &key, 0), E_USAGE);
    key = fx.roots[1].public;
    EXPECT(root_add_key(&r, &key, 5), E_USAGE); /* only head keys have an end. */
    key.role = KEY_ROLE_NODE;
    EXPECT(root_add_key(&r, &key, 0), E_USAGE);
    for (unsigned i = 3; i < ROLE_KEYS_MAX + 1; i++) {
        key = fx_pair(KEY_ROLE_MANIFEST, "more", (uint8_t)(0x80 + i)).public;
        EXPECT(root_add_key(&r, &key, 0), i < ROLE_KEYS_MAX ? E_OK : E_USAGE);
    }
}

/* The same, said by bytes and not through our writer. */
static void doubled_keys_in_bytes_are_refused(void **state)
{
    (void)state;
    struct container c;
    struct root got;
    const struct proto_rules rules = {
        .memory_max = 1 << 20, .malformed = E_MALFORMED, .unknown = E_MALFORMED};
    const struct key_pair *signer = &fx.roots[0];
    for (unsigned way = 0; way < 3; way++) {
        auto_proto ProtobufCMessage *m = NULL;
        auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
        auto_buf struct buf sealed = BUF_MAX(1 << 20);
        EXPECT_OK(container_read(buf_slice(&fx.root_bytes), CONTAINER_ROOT, NULL, &c));
        EXPECT_OK(proto_decode(&trilane__snapshot__v1__root__descriptor, c.body, &rules, &m));
        Trilane__Snapshot__V1__Root *r = (Trilane__Snapshot__V1__Root *)m;
        uint8_t *manifest_key = r->manifests->keys[0]->public_key.data;
        if (way == 0) {
            memcpy(r->manifests->keys[1]->public_key.data, manifest_key, KEY_PUBLIC_SIZE);
        } else if (way == 1) {
            memcpy(r->heads->keys[0]->public_key.data, manifest_key, KEY_PUBLIC_SIZE);
        } else {
            r->heads->keys[0]->public_key.len--;
        }
        EXPECT_OK(proto_encode(m, &body));
        fx_seal(CONTAINER_ROOT, "test", buf_slice(&body), &signer, 1, &sealed);
        EXPECT(root_open(buf_slice(&sealed), &got), E_ROOT_MALFORMED);
    }
}

static void its_name_is_that_of_its_container(void **state)
{
    (void)state;
    struct root r = fx_root(&fx, 1, &fx.roots[0]);
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    auto_buf struct buf sealed = BUF_MAX(1 << 20);
    const struct key_pair *signer = &fx.roots[0];
    struct root got;
    EXPECT_OK(root_encode(&r, &body));
    fx_seal(CONTAINER_ROOT, "other", buf_slice(&body), &signer, 1, &sealed);
    EXPECT(root_open(buf_slice(&sealed), &got), E_ROOT_MALFORMED);
}

/* ---- the walk ---- */

static struct err step(struct root_walk *walk, const struct root *next,
                       const struct key_pair *const *pairs, size_t count)
{
    auto_buf struct buf sealed = BUF_MAX(1 << 20);
    fx_seal_root(next, pairs, count, &sealed);
    return root_walk_step(walk, buf_slice(&sealed));
}

static void a_step_is_signed_by_both_sides(void **state)
{
    (void)state;
    struct root_walk walk;
    struct root next = fx_root(&fx, 2, &fx.roots[1]);
    const struct key_pair *both[] = {&fx.roots[0], &fx.roots[1]};
    const struct key_pair *other[] = {&fx.manifests[0], &fx.roots[1]};
    root_walk_start(&fx.root, &walk);
    EXPECT(step(&walk, &next, &both[0], 1), E_ROOT_UNSIGNED); /* only the old one. */
    EXPECT(step(&walk, &next, &both[1], 1), E_ROOT_UNSIGNED); /* only the new one. */
    EXPECT(step(&walk, &next, other, 2), E_ROOT_UNSIGNED);
    next.version = 3; /* leaves one out. */
    EXPECT(step(&walk, &next, both, 2), E_ROOT_MALFORMED);
    next.version = 1; /* goes back. */
    EXPECT(step(&walk, &next, both, 2), E_ROOT_MALFORMED);
    assert_int_equal(walk.steps, 0);
    assert_int_equal(walk.at.version, 1);
    next.version = 2;
    EXPECT_OK(step(&walk, &next, both, 2));
    assert_int_equal(walk.at.version, 2);
    (void)snprintf(next.environment, sizeof(next.environment), "other");
    next.version = 3;
    EXPECT(step(&walk, &next, both, 2), E_ROOT_MALFORMED);
}

static void only_the_last_root_must_be_in_time(void **state)
{
    (void)state;
    struct root_walk walk;
    const struct key_pair *signer = &fx.roots[0];
    struct root second = fx_root(&fx, 2, &fx.roots[0]);
    struct root third = fx_root(&fx, 3, &fx.roots[0]);
    second.not_after_ms = FX_NOW_MS - 1000;
    root_walk_start(&fx.root, &walk);
    EXPECT_OK(root_walk_end(&walk, FX_NOW_MS * 2, 0)); /* no step, nothing to ask. */
    EXPECT_OK(step(&walk, &second, &signer, 1));
    EXPECT(root_walk_end(&walk, FX_NOW_MS, 999), E_ROOT_EXPIRED);
    EXPECT_OK(root_walk_end(&walk, FX_NOW_MS, 1000));
    EXPECT_OK(step(&walk, &third, &signer, 1));
    EXPECT_OK(root_walk_end(&walk, FX_NOW_MS, 0));
}

static void a_floor_is_not_inherited(void **state)
{
    (void)state;
    struct root_walk walk;
    const struct key_pair *signer = &fx.roots[0];
    struct root second = fx_root(&fx, 2, &fx.roots[0]);
    struct root third = fx_root(&fx, 3, &fx.roots[0]);
    second.has_floor = true;
    second.floor = (struct root_floor){.epoch = 7, .version = 8};
    root_walk_start(&fx.root, &walk);
    EXPECT_OK(step(&walk, &second, &signer, 1));
    EXPECT_OK(step(&walk, &third, &signer, 1));
    assert_true(walk.has_floor && walk.floor.epoch == 7 && walk.floor.version == 8);
    assert_false(walk.at.has_floor);
    struct root_walk again;
    root_walk_start(&walk.at, &again);
    assert_false(again.has_floor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(each_bound),
        cmocka_unit_test(no_key_is_there_twice),
        cmocka_unit_test(doubled_keys_in_bytes_are_refused),
        cmocka_unit_test(its_name_is_that_of_its_container),
        cmocka_unit_test(a_step_is_signed_by_both_sides),
        cmocka_unit_test(only_the_last_root_must_be_in_time),
        cmocka_unit_test(a_floor_is_not_inherited),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
