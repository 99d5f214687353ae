/* Proves what a signer's keys are worth under a root: known, in time, past it, or of no use. */
#include "controlplane/publish/keys.h"

#include <string.h>

#include "tests/support/cmocka.h"

enum { NOW = 1000000 };

static struct key_pair head;
static struct key_pair manifest;
static struct key_pair stranger;

static struct cp_keys judge(int64_t head_end_ms, const struct key_pair *held_head,
                            const struct key_pair *held_manifest)
{
    struct root root = {.version = 1, .not_after_ms = NOW + 5000};
    struct cp_signer_hello hello = {0};
    struct cp_keys keys;
    assert_int_equal(root_add_key(&root, &head.public, head_end_ms).code, E_OK);
    assert_int_equal(root_add_key(&root, &manifest.public, 0).code, E_OK);
    memcpy(hello.head_public, held_head->public.bytes, KEY_PUBLIC_SIZE);
    memcpy(hello.manifest_public, held_manifest->public.bytes, KEY_PUBLIC_SIZE);
    cp_keys_judge(&root, &hello, NOW, &keys);
    assert_int_equal(keys.root_left_ms, 5000);
    return keys;
}

static void a_key_is_good_until_its_end(void **state)
{
    (void)state;
    struct cp_keys keys = judge(NOW + 700, &head, &manifest);
    assert_int_equal(keys.head_code, E_OK);
    assert_int_equal(keys.head_left_ms, 700);
    assert_true(keys.manifest_known);
    assert_string_equal(keys.head, "head");
    assert_string_equal(keys.manifest, "manifest");
    assert_int_equal(judge(NOW, &head, &manifest).head_code, E_OK);
    keys = judge(NOW - 1, &head, &manifest);
    assert_int_equal(keys.head_code, E_KEY_EXPIRED);
    assert_int_equal(keys.head_left_ms, -1);
}

static void a_key_without_an_end_has_none(void **state)
{
    (void)state;
    struct cp_keys keys = judge(0, &head, &manifest);
    assert_int_equal(keys.head_code, E_OK);
    assert_true(keys.head_left_ms == INT64_MAX);
}

static void what_the_root_does_not_know_is_of_no_use(void **state)
{
    (void)state;
    struct cp_keys keys = judge(NOW + 700, &stranger, &manifest);
    assert_int_equal(keys.head_code, E_KEY_UNKNOWN);
    assert_true(keys.manifest_known);
    assert_string_equal(keys.head, "");
    keys = judge(NOW + 700, &head, &stranger);
    assert_int_equal(keys.head_code, E_OK);
    assert_false(keys.manifest_known);
    keys = judge(NOW + 700, &manifest, &head); /* each in the other's place. */
    assert_int_equal(keys.head_code, E_KEY_UNKNOWN);
    assert_false(keys.manifest_known);
}

static void break_glass_is_told_by_its_name(void **state)
{
    (void)state;
    assert_true(cp_key_is_break_glass("break-glass"));
    assert_true(cp_key_is_break_glass("break-glass-2"));
    assert_false(cp_key_is_break_glass("break"));
    assert_false(cp_key_is_break_glass("cp-0"));
}

int main(void)
{
    ids_init();
    assert_int_equal(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("head"), &head).code, E_OK);
    assert_int_equal(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("manifest"), &manifest).code, E_OK);
    assert_int_equal(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("stranger"), &stranger).code, E_OK);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_good_until_its_end),
        cmocka_unit_test(a_key_without_an_end_has_none),
        cmocka_unit_test(what_the_root_does_not_know_is_of_no_use),
        cmocka_unit_test(break_glass_is_told_by_its_name),
    };
    return cmocka_run_group_tests_name("publish.keys", tests, NULL, NULL);
}
