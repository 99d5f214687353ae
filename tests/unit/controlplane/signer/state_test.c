/* Proves that the signer's memory refuses every lower number, survives on disk, and is never taken
 * for a new one when it cannot be read. */
#include "controlplane/signer/state.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"

#include "tests/support/cmocka.h"

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

enum { BLOCK = 4096, FORMAT_1_SIZE = 120 };

/* Reads what lies there, as a start of the signer does. */
static struct err read_back(const uint8_t wanted[ENVIRONMENT_SIZE], struct signer_state *out)
{
    auto_close int fd = -1;
    return signer_state_open(path, wanted, out, &fd);
}

static void write_it(const struct signer_state *s)
{
    struct signer_state before;
    auto_close int fd = -1;
    must(signer_state_open(path, environment, &before, &fd));
    must(signer_state_write(fd, s));
}

static struct signer_state some(uint64_t version, uint64_t epoch)
{
    struct signer_state s = {.version = version, .epoch = epoch};
    (void)memcpy(s.environment, environment, sizeof(s.environment));
    (void)memcpy(s.manifest_digest, one, sizeof(s.manifest_digest));
    (void)memcpy(s.head_digest, two, sizeof(s.head_digest));
    return s;
}

static void the_file_is_read_back(void **test)
{
    (void)test;
    struct signer_state s = some(7, 9);
    struct signer_state back;
    (void)unlink(path);
    must(read_back(environment, &back)); /* missing: zero. */
    assert_int_equal(back.version, 0);
    write_it(&s);
    must(read_back(environment, &back));
    assert_int_equal(back.version, 7);
    assert_int_equal(back.epoch, 9);
    assert_memory_equal(back.manifest_digest, one, DIGEST_SIZE);
    assert_memory_equal(back.head_digest, two, DIGEST_SIZE);
    assert_false(back.epoch_is_ours);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(info.st_size, 2 * BLOCK); /* all the room that it will ever need. */
}

static uint8_t bytes[2 * BLOCK];

static void file_get(void)
{
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, sizeof(bytes), file), sizeof(bytes));
    assert_int_equal(fclose(file), 0);
}

static void file_put(size_t size)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void one_copy_may_go_bad(void **test)
{
    (void)test;
    struct signer_state s = some(7, 9);
    write_it(&s);
    file_get();
    for (size_t at = 0; at < FORMAT_1_SIZE; at++) {
        size_t copy = at % 2 * BLOCK;
        bytes[copy + at] ^= 1;
        file_put(sizeof(bytes));
        struct signer_state back;
        must(read_back(environment, &back));
        assert_int_equal(back.version, 7);
        assert_int_equal(back.epoch, 9);
        file_get(); /* the start made it whole again. */
        assert_memory_equal(bytes, bytes + BLOCK, BLOCK);
    }
}

static void no_file_without_a_whole_copy_passes(void **test)
{
    (void)test;
    struct signer_state s = some(7, 9);
    struct signer_state back;
    write_it(&s);
    file_get();
    for (size_t at = 0; at < FORMAT_1_SIZE; at++) {
        bytes[at] ^= 1;
        bytes[BLOCK + (at * 7) % FORMAT_1_SIZE] ^= 1;
        file_put(sizeof(bytes));
        assert_int_equal(read_back(environment, &back).code, E_MALFORMED);
        bytes[at] ^= 1;
        bytes[BLOCK + (at * 7) % FORMAT_1_SIZE] ^= 1;
    }
    static const size_t sizes[] = {0, 10, FORMAT_1_SIZE, BLOCK, 2 * BLOCK - 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        file_put(sizes[i]);
        assert_int_equal(read_back(environment, &back).code, E_MALFORMED);
    }
    static const uint8_t other[ENVIRONMENT_SIZE] = {9};
    file_put(sizeof(bytes));
    assert_int_equal(read_back(other, &back).code, E_MALFORMED);
    must(read_back(environment, &back));
}

/* What a stop between the two copies leaves behind: nothing was signed by the first one yet. */
static void the_newer_of_two_copies_holds(void **test)
{
    (void)test;
    static uint8_t newer[BLOCK];
    struct signer_state s = some(8, 9);
    struct signer_state back;
    write_it(&s);
    file_get();
    (void)memcpy(newer, bytes, BLOCK);
    s = some(7, 9);
    (void)unlink(path);
    write_it(&s);
    file_get();
    (void)memcpy(bytes, newer, BLOCK);
    file_put(sizeof(bytes));
    must(read_back(environment, &back));
    assert_int_equal(back.version, 8);
    s = some(6, 10); /* older by one number and newer by the other: nobody ever wrote that. */
    (void)unlink(path);
    write_it(&s);
    file_get();
    (void)memcpy(bytes, newer, BLOCK);
    file_put(sizeof(bytes));
    assert_int_equal(read_back(environment, &back).code, E_MALFORMED);
    (void)unlink(path);
}

static void an_older_release_s_file_is_taken_over(void **test)
{
    (void)test;
    struct signer_state s = some(7, 9);
    struct signer_state back;
    write_it(&s);
    file_get();
    bytes[4] = 1; /* the format; the rest is as it was. */
    ids_digest_short(slice_of(bytes, FORMAT_1_SIZE - DIGEST_SHORT_SIZE),
                     bytes + FORMAT_1_SIZE - DIGEST_SHORT_SIZE);
    file_put(FORMAT_1_SIZE);
    must(read_back(environment, &back));
    assert_int_equal(back.version, 7);
    assert_int_equal(back.epoch, 9);
    file_get();
    assert_int_equal(bytes[4], 2);
    must(read_back(environment, &back));
    assert_int_equal(back.version, 7);
}

static void a_disk_that_is_full_is_said(void **test)
{
    (void)test;
    struct signer_state s = some(7, 9);
    auto_close int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(full >= 0);
    assert_int_equal(signer_state_write(full, &s).code, E_STORE_FULL);
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
        cmocka_unit_test(one_copy_may_go_bad),
        cmocka_unit_test(no_file_without_a_whole_copy_passes),
        cmocka_unit_test(the_newer_of_two_copies_holds),
        cmocka_unit_test(an_older_release_s_file_is_taken_over),
        cmocka_unit_test(a_disk_that_is_full_is_said),
    };
    int failed = cmocka_run_group_tests_name("signer.state", tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(directory);
    return failed;
}
