/* head: what is written is read back the same; each bound and each form of a selector. */
#include "common/snapshot/head.h"

#include <stdio.h>
#include <string.h>

#include "fixture.h"
#include "tests/support/cmocka.h"

static const struct head_label labels[] = {
    {{(const uint8_t *)"rack", 4}, {(const uint8_t *)"7", 1}},
    {{(const uint8_t *)"zone", 4}, {(const uint8_t *)"north", 5}},
};

static struct head head_full(void)
{
    struct head h = {.root_version = 3,
                     .epoch = 9,
                     .sequence = 8,
                     .signed_at_ms = FX_NOW_MS,
                     .expires_at_ms = FX_NOW_MS + 1,
                     .target_count = HEAD_TARGETS_MAX};
    for (unsigned i = 0; i < HEAD_TARGETS_MAX; i++) {
        struct head_target *t = &h.targets[i];
        *t = (struct head_target){.per_mille = 1 + i, .version = i + 1, .label_count = 2};
        memset(t->salt, (int)(i + 1), sizeof(t->salt));
        memcpy(t->labels, labels, sizeof(labels));
        t->manifest_digest[0] = (uint8_t)i;
    }
    return h;
}

static void comes_back_the_same(void **state)
{
    (void)state;
    struct head h = head_full();
    auto_buf struct buf first = BUF_MAX(HEAD_BODY_MAX);
    auto_buf struct buf again = BUF_MAX(HEAD_BODY_MAX);
    auto_head struct head got = {0};
    EXPECT_OK(head_encode(&h, &first));
    EXPECT_OK(head_decode(buf_slice(&first), &got));
    EXPECT_OK(head_encode(&got, &again));
    assert_true(slice_eq(buf_slice(&first), buf_slice(&again)));
    assert_int_equal(got.target_count, HEAD_TARGETS_MAX);
    assert_true(slice_eq(got.targets[3].labels[1].value, slice_str("north")));
}

/* Changes one thing of a head and says whether it may still be written, and so be read. */
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct head h = head_full();                                                               \
        auto_buf struct buf body_ = BUF_MAX(HEAD_BODY_MAX);                                        \
        change;                                                                                    \
        EXPECT(head_encode(&h, &body_), E_USAGE);                                                  \
    } while (0)

static void each_bound(void **state)
{
    (void)state;
    REFUSED(h.root_version = 0);
    REFUSED(h.epoch = 0);
    REFUSED(h.sequence = 0);
    REFUSED(h.target_count = HEAD_TARGETS_MAX + 1);
    REFUSED(h.signed_at_ms = -1);
    REFUSED(h.signed_at_ms = INT64_MAX - 1; h.expires_at_ms = INT64_MAX);
    REFUSED(h.expires_at_ms = h.signed_at_ms);
    REFUSED(h.expires_at_ms = h.signed_at_ms + HEAD_VALIDITY_MAX_MS + 1);
    REFUSED(h.targets[0].version = 0);
    REFUSED(h.targets[0].per_mille = 0);
    REFUSED(h.targets[0].per_mille = 1001);
    REFUSED(h.targets[0].label_count = HEAD_LABELS_MAX + 1);
    REFUSED(h.targets[0].labels[1] = h.targets[0].labels[0]);
    REFUSED(h.targets[0].labels[0].name = slice_str("zzz"));
    REFUSED(h.targets[0].labels[0].name = slice_str(""));
    REFUSED(h.targets[0].all = true); /* and labels, and a share. */
    REFUSED(h.targets[0].all = true; h.targets[0].label_count = 0);
    REFUSED(h.targets[0].labels[0].value = slice_of("a\0b", 3));
    REFUSED(h.targets[0].labels[0].value = slice_str("\xff"));
    struct head h = head_full();
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    h.expires_at_ms = h.signed_at_ms + HEAD_VALIDITY_MAX_MS;
    h.targets[0].per_mille = 1000;
    EXPECT_OK(head_encode(&h, &body));
}

static void a_share_grows_and_never_moves(void **state)
{
    (void)state;
    struct head h = {.target_count = 1};
    h.targets[0] = (struct head_target){.version = 1, .salt = {1, 2, 3}};
    unsigned in[3] = {0};
    const uint32_t shares[3] = {10, 300, 1000};
    for (unsigned n = 0; n < 2000; n++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "node-%u", n);
        const struct head_node node = {.id = slice_str(id)};
        bool before = false;
        for (size_t i = 0; i < 3; i++) {
            h.targets[0].per_mille = shares[i];
            bool now = head_target(&h, &node) != NULL;
            assert_true(now || !before); /* who is in stays in. */
            in[i] += now ? 1 : 0;
            before = now;
        }
    }
    assert_in_range(in[0], 8, 36);
    assert_in_range(in[1], 520, 680);
    assert_int_equal(in[2], 2000);
}

static void labels_are_all_equal_and_the_first_target_wins(void **state)
{
    (void)state;
    struct head h = {.target_count = 2};
    h.targets[0] = (struct head_target){.version = 7, .per_mille = 1000, .label_count = 2};
    memcpy(h.targets[0].labels, labels, sizeof(labels));
    h.targets[1] = (struct head_target){.version = 6, .all = true};
    struct head_label mine[2] = {labels[1], labels[0]};
    const struct head_node node = {.id = slice_str("n"), .labels = mine, .label_count = 2};
    assert_int_equal(head_target(&h, &node)->version, 7);
    mine[0].value = slice_str("south");
    assert_int_equal(head_target(&h, &node)->version, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(each_bound),
        cmocka_unit_test(a_share_grows_and_never_moves),
        cmocka_unit_test(labels_are_all_equal_and_the_first_target_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
