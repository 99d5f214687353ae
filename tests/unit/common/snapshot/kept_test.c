/* Proves that what the release before this one signed and stored is read as it was meant: root,
 * head, status, and a node's disk. */
#include "tests/support/kept.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/snapshot/disk.h"
#include "common/snapshot/head.h"
#include "common/snapshot/status.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

static struct root read_root(void)
{
    struct root root;
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    kept_read("root.1", &bytes);
    EXPECT_OK(root_open(buf_slice(&bytes), &root));
    return root;
}

static void a_root_and_its_head(void **state)
{
    (void)state;
    struct root root = read_root();
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    struct container c;
    struct container_signers signers;
    struct head head;
    assert_string_equal(root.environment, KEPT_ENVIRONMENT);
    kept_read("head", &bytes);
    EXPECT_OK(container_read(buf_slice(&bytes), CONTAINER_HEAD, root.environment_id, &c));
    EXPECT_OK(container_verify(&c, &root.ring, KEY_ROLE_HEAD, &signers));
    EXPECT_OK(head_decode(c.body, &head));
    assert_int_equal(head.targets[0].version, 1);
    head_free(&head);
}

static void a_status_says_its_format(void **state)
{
    (void)state;
    struct root root = read_root();
    struct key_public key;
    struct status status;
    auto_buf struct buf text = BUF_MAX(4096);
    auto_buf struct buf bytes = BUF_MAX(4096);
    kept_read("node-1.pub", &text);
    EXPECT_OK(key_public_parse(slice_head(buf_slice(&text), text.size - 1), &key)); /* one line. */
    kept_read("status", &bytes);
    EXPECT_OK(status_open(buf_slice(&bytes), root.environment_id, &key, &status));
    assert_int_equal(status.format, SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(status.version, 1);
    assert_int_equal(status.state, SNAP_GOOD);
}

static void a_manifest_of_the_format_before(void **state)
{
    (void)state;
    auto_manifest struct manifest m = {0};
    kept_manifest(&m);
    EXPECT_OK(manifest_check_capabilities(&m, CAPABILITIES_HERE));
    assert_int_equal(manifest_format(&m), SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(m.stream_count, 9);
}

static void a_disk_is_started_from(void **state)
{
    (void)state;
    char directory[256];
    struct disk *d = NULL;
    struct disk_start start;
    struct root root = read_root();
    fx_directory(directory);
    kept_copy(directory);
    const struct disk_options options = {
        .directory = directory, .environment = root.environment_id, .lock_fd = -1};
    EXPECT_OK(disk_open(&options, &d));
    assert_false(disk_notes(d).floor_rebuilt);
    EXPECT_OK(disk_start(d, &start));
    assert_int_equal(start.version.version, 1);
    assert_int_equal(snap_set_format(start.set, STREAM_TRUST), 1);
    snap_set_unref(start.set);
    disk_close(d);
    fx_remove_directory(directory);
}

static int setup(void **state)
{
    (void)state;
    ids_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_root_and_its_head),
        cmocka_unit_test(a_status_says_its_format),
        cmocka_unit_test(a_manifest_of_the_format_before),
        cmocka_unit_test(a_disk_is_started_from),
    };
    return cmocka_run_group_tests_name("kept", tests, setup, NULL);
}
