/* Proves that the signer's memory refuses every lower number, survives on disk, and is never taken
 * for a new one when it cannot be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/signer/state.h"

static const uint8_t environment[ENVIRONMENT_SIZE] = {1, 2, 3};
static const uint8_t one[DIGEST_SIZE] = {1};
static const uint8_t two[DIGEST_SIZE] = {2};
static char directory[] = "/tmp/trilane-signer-XXXXXX";
static char path[64];

static void must(struct err e)
{
    assert_int_equal(e.code, E_OK);
}

static void manifests_only_grow(void **test)
{
    (void)test;
    struct signer_state s = {0};
    bool write = false;
    assert_int_equal(signer_state_manifest(&s, 0, one, &write).code, E_SIGNER_REFUSED);
    must(signer_state_manifest(&s, 3, one, &write));
    assert_true(write);
    must(signer_state_manifest(&s, 3, one, &write)); /* the same body again. */
    assert_false(write);
    assert_int_equal(signer_state_manifest(&s, 3, two, &write).code, E_SIGNER_REFUSED);
    assert_int_equal(signer_state_manifest(&s, 2, one, &write).code, E_SIGNER_REFUSED);
    must(signer_state_manifest(&s, UINT64_MAX, two, &write));
    assert_int_equal(s.version, UINT64_MAX);
}

static void heads_only_grow(void **test)
{
    (void)test;
    struct signer_state s = {0};
    bool write = false;
    assert_int_equal(signer_state_head(&s, 0, 1, one, &write).code, E_SIGNER_REFUSED);
    assert_int_equal(signer_state_head(&s, 1, 0, one, &write).code, E_SIGNER_REFUSED);
    must(signer_state_head(&s, 2, 1, one, &write));
    assert_true(write);
    must(signer_state_head(&s, 2, 2, two, &write));
    assert_false(write);
    must(signer_state_head(&s, 2, 2, two, &write));
    assert_int_equal(signer_state_head(&s, 2, 2, one, &write).code, E_SIGNER_REFUSED);
    assert_int_equal(signer_state_head(&s, 2, 1, one, &write).code, E_SIGNER_REFUSED);
    assert_int_equal(signer_state_head(&s, 1, 9, one, &write).code, E_SIGNER_REFUSED);
    must(signer_state_head(&s, 3, 1, one, &write));
    assert_true(write);
}

static void an_epoch_of_a_former_start_is_refused(void **test)
{
    (void)test;
    struct signer_state s = {.epoch = 4};
    bool write = false;
    assert_int_equal(signer_state_head(&s, 4, 100, one, &write).code, E_SIGNER_REFUSED);
    must(signer_state_head(&s, 5, 1, one, &write));
}

static void the_file_is_read_back(void **test)
{
    (void)test;
    struct signer_state s = {.version = 7, .epoch = 9};
    struct signer_state back;
    (void)memcpy(s.environment, environment, sizeof(s.environment));
    (void)memcpy(s.manifest_digest, one, sizeof(s.manifest_digest));
    must(signer_state_read(path, environment, &back)); /* missing: zero. */
    assert_int_equal(back.version, 0);
    must(signer_state_write(path, &s));
    must(signer_state_read(path, environment, &back));
    assert_int_equal(back.version, 7);
    assert_int_equal(back.epoch, 9);
    assert_memory_equal(back.manifest_digest, one, DIGEST_SIZE);
    assert_false(back.epoch_is_ours);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void no_changed_byte_passes(void **test)
{
    (void)test;
    struct signer_state s = {.version = 7, .epoch = 9};
    (void)memcpy(s.environment, environment, sizeof(s.environment));
    must(signer_state_write(path, &s));
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    for (long at = 0;; at++) { /* ends at the end of the file. */
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        int byte = fgetc(file);
        if (byte == EOF) {
            break;
        }
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
        assert_int_equal(fflush(file), 0);
        struct signer_state back;
        assert_int_equal(signer_state_read(path, environment, &back).code, E_MALFORMED);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(byte, file), byte);
        assert_int_equal(fflush(file), 0);
    }
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, 10), 0);
    struct signer_state back;
    assert_int_equal(signer_state_read(path, environment, &back).code, E_MALFORMED);
    static const uint8_t other[ENVIRONMENT_SIZE] = {9};
    must(signer_state_write(path, &s));
    assert_int_equal(signer_state_read(path, other, &back).code, E_MALFORMED);
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof(path), "%s/signer.state", directory);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifests_only_grow),
        cmocka_unit_test(heads_only_grow),
        cmocka_unit_test(an_epoch_of_a_former_start_is_refused),
        cmocka_unit_test(the_file_is_read_back),
        cmocka_unit_test(no_changed_byte_passes),
    };
    int failed = cmocka_run_group_tests_name("signer.state", tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(directory);
    return failed;
}
