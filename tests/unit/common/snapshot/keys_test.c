/* keys: files are private, read back the same and nothing else passes; ids and text forms. */
#include "common/snapshot/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/text.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

static char directory[256];
static char path[300];

static int setup(void **state)
{
    (void)state;
    ids_init();
    fx_directory(directory);
    (void)snprintf(path, sizeof(path), "%s/key", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_remove_directory(directory);
    return 0;
}

/* RFC 8032, section 7.1, test 2. */
static void signs_as_the_rfc_says(void **state)
{
    (void)state;
    struct key_pair pair = {0};
    uint8_t signature[KEY_SIGNATURE_SIZE];
    char hex[2 * KEY_SIGNATURE_SIZE + 1];
    static const uint8_t message[] = {0x72};
    EXPECT_OK(
        text_unhex(SLICE_LIT("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
                   pair.seed, KEY_SEED_SIZE));
    EXPECT_OK(
        text_unhex(SLICE_LIT("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
                   pair.public.bytes, KEY_PUBLIC_SIZE));
    key_sign(&pair, slice_of(message, 1), signature);
    text_hex(slice_of(signature, sizeof(signature)), hex);
    assert_string_equal(hex, "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                             "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    assert_true(key_verify(pair.public.bytes, slice_of(message, 1), signature));
    signature[0] ^= 1;
    assert_false(key_verify(pair.public.bytes, slice_of(message, 1), signature));
}

static void a_file_comes_back_the_same(void **state)
{
    (void)state;
    struct stat st;
    struct key_pair pair;
    struct key_pair got;
    EXPECT_OK(key_pair_new(KEY_ROLE_MANIFEST, slice_str("cp-1"), &pair));
    EXPECT_OK(key_file_write(path, &pair));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    EXPECT_OK(key_file_read(path, &got));
    assert_memory_equal(&got, &pair, sizeof(pair));
    EXPECT(key_file_write(path, &pair), E_EXISTS);
    key_pair_wipe(&got);
    struct key_pair zero = {0};
    assert_memory_equal(&got, &zero, sizeof(zero));
}

static void only_a_private_plain_file_is_read(void **state)
{
    (void)state;
    struct key_pair pair;
    char link_path[300];
    EXPECT(key_file_read(path, &pair), E_NOT_FOUND);
    EXPECT_OK(key_pair_new(KEY_ROLE_HEAD, slice_str("cp-1"), &pair));
    EXPECT_OK(key_file_write(path, &pair));
    const mode_t open_modes[] = {0640, 0604, 0620, 0602, 0666};
    for (size_t i = 0; i < sizeof(open_modes) / sizeof(open_modes[0]); i++) {
        assert_int_equal(chmod(path, open_modes[i]), 0);
        EXPECT(key_file_read(path, &pair), E_USAGE);
    }
    assert_int_equal(chmod(path, 0400), 0);
    EXPECT_OK(key_file_read(path, &pair));
    (void)snprintf(link_path, sizeof(link_path), "%s/link", directory);
    assert_int_equal(symlink(path, link_path), 0);
    EXPECT(key_file_read(link_path, &pair), E_USAGE);
    EXPECT(key_file_read(directory, &pair), E_USAGE);
}

static void every_change_of_a_file_is_seen(void **state)
{
    (void)state;
    struct key_pair pair;
    struct key_pair got;
    char text[1024];
    EXPECT_OK(key_pair_new(KEY_ROLE_NODE, slice_str("node-1"), &pair));
    EXPECT_OK(key_file_write(path, &pair));
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof(text), file);
    assert_int_equal(fclose(file), 0);
    for (size_t at = 0; at <= size; at++) {
        file = fopen(path, "we"); /* cut at each length. */
        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, at, file), at);
        assert_int_equal(fclose(file), 0);
        EXPECT(key_file_read(path, &got), at == size ? E_OK : E_MALFORMED);
    }
    char *private = strstr(text, "private: ");
    assert_non_null(private);
    private[9] = private[9] == '0' ? '1' : '0'; /* no longer the half of its public one. */
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    EXPECT(key_file_read(path, &got), E_MALFORMED);
}

static void text_of_a_public_key(void **state)
{
    (void)state;
    struct key_pair pair = fx_pair(KEY_ROLE_HEAD, "cp-2", 7);
    struct key_public got;
    auto_buf struct buf text = BUF_MAX(256);
    EXPECT_OK(key_public_print(&pair.public, &text));
    EXPECT_OK(key_public_parse(buf_slice(&text), &got));
    assert_memory_equal(&got, &pair.public, sizeof(got));
    for (size_t size = 0; size < text.size; size++) {
        EXPECT(key_public_parse(slice_head(buf_slice(&text), size), &got), E_MALFORMED);
    }
    EXPECT(key_public_parse(SLICE_LIT("queen cp-2 00"), &got), E_MALFORMED);
    EXPECT(key_pair_new(KEY_ROLE_HEAD, slice_str("Not A Name"), &pair), E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signs_as_the_rfc_says),
        cmocka_unit_test_setup_teardown(a_file_comes_back_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_private_plain_file_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(every_change_of_a_file_is_seen, setup, teardown),
        cmocka_unit_test(text_of_a_public_key),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
