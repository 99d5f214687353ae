/*
 * container: golden bytes; no bit and no length but the true one passes; signatures count once, by
 * role and threshold, and one that is wrong harms nothing.
 */
#include "common/snapshot/container.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

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

/* A container of exactly its size on the heap, so that ASan sees a read past its end. */
static uint8_t *exact(struct slice bytes, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    for (size_t i = 0; i < size; i++) {
        copy[i] = i < bytes.size ? bytes.ptr[i] : 0;
    }
    return copy;
}

/* Made by hand of the tables of docs/formats.md with another BLAKE2b and another Ed25519. */
static void golden(void **state)
{
    (void)state;
    static const char hex[] =
        "54524c4e01000301928b20366943e2afd11ebc0eae2e53a907000000000000005fbccb4848563a20"
        "ccfda83393e0259deae1a8b35979d25413d90df8af62d90faec19475e516a6443fd3aa4fa3e43ba2"
        "07c4eef339f48993e180730ed41e683e10b5bcc64655df0c7472696c616e65";
    const struct key_pair *signer = &fx.heads[0];
    auto_buf struct buf made = BUF_MAX(4096);
    char got[sizeof(hex) + 2];
    fx_seal(CONTAINER_HEAD, "test", SLICE_LIT("trilane"), &signer, 1, &made);
    assert_true(made.size * 2 < sizeof(got));
    text_hex(buf_slice(&made), got);
    assert_string_equal(got, hex);
}

static struct err read_and_verify(struct slice bytes, enum container_kind kind, enum key_role role)
{
    struct container c;
    struct container_signers signers;
    TRY(container_read(bytes, kind, fx.environment, &c));
    return container_verify(&c, &fx.root.ring, role, &signers);
}

static void every_bit_counts(void **state)
{
    (void)state;
    const struct key_pair *signer = &fx.heads[0];
    auto_buf struct buf made = BUF_MAX(4096);
    fx_seal(CONTAINER_HEAD, "test", SLICE_LIT("a body"), &signer, 1, &made);
    EXPECT_OK(read_and_verify(buf_slice(&made), CONTAINER_HEAD, KEY_ROLE_HEAD));
    for (size_t bit = 0; bit < made.size * 8; bit++) {
        made.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        struct err e = read_and_verify(buf_slice(&made), CONTAINER_HEAD, KEY_ROLE_HEAD);
        made.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        enum err_code want = bit < 8 * 8                        ? E_HEAD_MALFORMED
                             : bit < 24 * 8                     ? E_HEAD_WRONG_ENVIRONMENT
                             : bit < CONTAINER_HEADER_SIZE * 8U ? E_HEAD_MALFORMED
                                                                : E_HEAD_UNSIGNED;
        EXPECT(e, want);
    }
}

static void every_length_counts(void **state)
{
    (void)state;
    const struct key_pair *signer = &fx.heads[0];
    auto_buf struct buf made = BUF_MAX(4096);
    fx_seal(CONTAINER_HEAD, "test", SLICE_LIT("a body"), &signer, 1, &made);
    for (size_t size = 0; size < made.size + 3; size++) {
        uint8_t *bytes = exact(buf_slice(&made), size);
        struct err e = read_and_verify(slice_of(bytes, size), CONTAINER_HEAD, KEY_ROLE_HEAD);
        EXPECT(e, size == made.size ? E_OK : E_HEAD_MALFORMED);
        free(bytes);
    }
}

static void each_kind_has_its_codes(void **state)
{
    (void)state;
    const enum err_code malformed[] = {
        [CONTAINER_ROOT] = E_ROOT_MALFORMED, [CONTAINER_MANIFEST] = E_MANIFEST_MALFORMED,
        [CONTAINER_HEAD] = E_HEAD_MALFORMED, [CONTAINER_STATUS] = E_MALFORMED,
        [CONTAINER_SHARES] = E_MALFORMED,    [CONTAINER_DEMAND] = E_MALFORMED};
    struct container c;
    for (unsigned kind = CONTAINER_ROOT; kind < CONTAINER_KIND_COUNT; kind++) {
        auto_buf struct buf made = BUF_MAX(4096);
        const struct key_pair *signer = &fx.heads[0];
        fx_seal((enum container_kind)kind, "test", SLICE_LIT("x"), &signer, 1, &made);
        for (unsigned asked = CONTAINER_ROOT; asked < CONTAINER_KIND_COUNT; asked++) {
            EXPECT(container_read(buf_slice(&made), (enum container_kind)asked, fx.environment, &c),
                   asked == kind ? E_OK : malformed[asked]);
        }
    }
}

static void bodies_are_bounded(void **state)
{
    (void)state;
    for (unsigned kind = CONTAINER_ROOT; kind < CONTAINER_KIND_COUNT; kind++) {
        size_t max = container_body_max((enum container_kind)kind);
        uint8_t *body = calloc(1, max + 1);
        auto_buf struct buf made = BUF_MAX(1 << 20);
        const struct key_pair *signer = &fx.heads[0];
        struct container_signature s;
        struct container c;
        assert_non_null(body);
        fx_seal((enum container_kind)kind, "test", slice_of(body, max), &signer, 1, &made);
        EXPECT_OK(container_read(buf_slice(&made), (enum container_kind)kind, fx.environment, &c));
        assert_int_equal(c.body.size, max);
        EXPECT(container_sign((enum container_kind)kind, fx.environment, slice_of(body, max + 1),
                              signer, &s),
               E_TOO_LARGE);
        /* One more byte, the size told truly: still past the bound. */
        uint8_t *larger = exact(buf_slice(&made), made.size + 1);
        larger[24] = (uint8_t)(max + 1);
        larger[25] = (uint8_t)((max + 1) >> 8);
        larger[26] = (uint8_t)((max + 1) >> 16);
        EXPECT(container_read(slice_of(larger, made.size + 1), (enum container_kind)kind,
                              fx.environment, &c),
               container_codes((enum container_kind)kind)->malformed);
        free(larger);
        free(body);
    }
}

static struct err verify_signed(const struct key_pair *const *pairs, size_t count)
{
    auto_buf struct buf made = BUF_MAX(8192);
    fx_seal(CONTAINER_MANIFEST, "test", SLICE_LIT("body"), pairs, count, &made);
    return read_and_verify(buf_slice(&made), CONTAINER_MANIFEST, KEY_ROLE_MANIFEST);
}

static void thresholds(void **state)
{
    (void)state;
    const struct key_pair stranger = fx_pair(KEY_ROLE_MANIFEST, "stranger", 0x77);
    const struct key_pair *m0 = &fx.manifests[0];
    const struct key_pair *m1 = &fx.manifests[1];
    const struct key_pair *m2 = &fx.manifests[2];
    const struct key_pair *h0 = &fx.heads[0];
    EXPECT(verify_signed(NULL, 0), E_MANIFEST_UNSIGNED);
    EXPECT(verify_signed((const struct key_pair *[]){m0}, 1), E_MANIFEST_UNSIGNED);
    EXPECT_OK(verify_signed((const struct key_pair *[]){m0, m2}, 2));
    EXPECT_OK(verify_signed((const struct key_pair *[]){m0, m1, m2}, 3));
    EXPECT(verify_signed((const struct key_pair *[]){m0, &stranger}, 2), E_MANIFEST_UNSIGNED);
    EXPECT(verify_signed((const struct key_pair *[]){m0, h0}, 2), E_MANIFEST_WRONG_KEY);
    /* A stranger and a key of another role harm nothing. */
    EXPECT_OK(verify_signed((const struct key_pair *[]){&stranger, h0, m1, m0}, 4));
}

static void broken_signature_harms_nothing(void **state)
{
    (void)state;
    struct container_signature s[3];
    for (size_t i = 0; i < 3; i++) {
        EXPECT_OK(container_sign(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"),
                                 &fx.manifests[i], &s[i]));
    }
    s[0].signature[5] ^= 1;
    auto_buf struct buf made = BUF_MAX(8192);
    EXPECT_OK(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"), s, 3, &made));
    EXPECT_OK(read_and_verify(buf_slice(&made), CONTAINER_MANIFEST, KEY_ROLE_MANIFEST));
    buf_clear(&made);
    EXPECT_OK(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"), s, 2, &made));
    EXPECT(read_and_verify(buf_slice(&made), CONTAINER_MANIFEST, KEY_ROLE_MANIFEST),
           E_MANIFEST_UNSIGNED);
}

static void a_key_counts_once(void **state)
{
    (void)state;
    struct container_signature s[2];
    struct container c;
    for (size_t i = 0; i < 2; i++) {
        EXPECT_OK(container_sign(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"),
                                 &fx.manifests[i], &s[i]));
    }
    auto_buf struct buf made = BUF_MAX(8192);
    EXPECT_OK(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"), s, 2, &made));
    uint8_t *first = made.ptr + CONTAINER_HEADER_SIZE;
    memcpy(first + CONTAINER_SIGNATURE_SIZE, first, CONTAINER_SIGNATURE_SIZE);
    EXPECT(container_read(buf_slice(&made), CONTAINER_MANIFEST, fx.environment, &c),
           E_MANIFEST_MALFORMED);
    s[1] = s[0];
    buf_clear(&made);
    EXPECT(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("body"), s, 2, &made),
           E_USAGE);
}

static void sixteen_signatures_and_no_more(void **state)
{
    (void)state;
    struct container_signature s[CONTAINER_SIGNATURES_MAX + 1];
    struct container c;
    memset(s, 0, sizeof(s));
    for (size_t i = 0; i < CONTAINER_SIGNATURES_MAX + 1; i++) {
        s[i].key_id[0] = (uint8_t)i;
    }
    auto_buf struct buf made = BUF_MAX(8192);
    EXPECT(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("b"), s,
                          CONTAINER_SIGNATURES_MAX + 1, &made),
           E_TOO_LARGE);
    EXPECT_OK(container_seal(CONTAINER_MANIFEST, fx.environment, SLICE_LIT("b"), s,
                             CONTAINER_SIGNATURES_MAX, &made));
    EXPECT_OK(container_read(buf_slice(&made), CONTAINER_MANIFEST, fx.environment, &c));
    assert_int_equal(c.signature_count, CONTAINER_SIGNATURES_MAX);
    EXPECT(container_seal(CONTAINER_HEAD, fx.environment, SLICE_LIT("b"), s, 2, &made), E_USAGE);
    EXPECT(container_seal(CONTAINER_HEAD, fx.environment, SLICE_LIT("b"), s, 0, &made), E_USAGE);
}

static void says_who_is_unknown(void **state)
{
    (void)state;
    const struct key_pair stranger = fx_pair(KEY_ROLE_HEAD, "stranger", 0x78);
    const struct key_pair *signer = &stranger;
    auto_buf struct buf made = BUF_MAX(4096);
    struct container c;
    struct container_signers signers;
    fx_seal(CONTAINER_HEAD, "test", SLICE_LIT("body"), &signer, 1, &made);
    EXPECT_OK(container_read(buf_slice(&made), CONTAINER_HEAD, fx.environment, &c));
    EXPECT(container_verify(&c, &fx.root.ring, KEY_ROLE_HEAD, &signers), E_HEAD_UNSIGNED);
    assert_true(signers.unknown);
    signer = &fx.heads[1];
    buf_clear(&made);
    fx_seal(CONTAINER_HEAD, "test", SLICE_LIT("body"), &signer, 1, &made);
    EXPECT_OK(container_read(buf_slice(&made), CONTAINER_HEAD, fx.environment, &c));
    EXPECT_OK(container_verify(&c, &fx.root.ring, KEY_ROLE_HEAD, &signers));
    assert_string_equal(signers.last->name, "two");
    assert_false(signers.unknown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(every_length_counts),
        cmocka_unit_test(each_kind_has_its_codes),
        cmocka_unit_test(bodies_are_bounded),
        cmocka_unit_test(thresholds),
        cmocka_unit_test(broken_signature_harms_nothing),
        cmocka_unit_test(a_key_counts_once),
        cmocka_unit_test(sixteen_signatures_and_no_more),
        cmocka_unit_test(says_who_is_unknown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
