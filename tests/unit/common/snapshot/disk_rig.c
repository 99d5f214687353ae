/* One node's disk, as tests use it. */
#include "disk_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/snapshot/file.h"

#include "tests/support/cmocka.h"

struct bad_read bad_read;
struct fx fx;
struct fx_version versions[VERSIONS];

/* See --wrap in CMakeLists.txt. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
struct err __real_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size);
struct err __wrap_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size);
struct err __wrap_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size)
{
    if (bad_read.code != E_OK && bad_read.countdown-- == 0) {
        struct err e = {bad_read.code, __FILE__};
        bad_read.code = E_OK;
        return e;
    }
    return __real_file_read_at(fd, out, size, offset, out_size);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

int disk_rig_setup(void **state)
{
    (void)state;
    fx_init(&fx);
    for (unsigned i = 0; i < VERSIONS; i++) {
        fx_version_make(&fx, i + 1, PARTS, i, &versions[i]);
    }
    return 0;
}

int disk_rig_teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VERSIONS; i++) {
        fx_version_free(&versions[i]);
    }
    fx_free(&fx);
    return 0;
}

struct disk_options options_of(const char *directory)
{
    return (struct disk_options){.directory = directory,
                                 .environment = fx.environment,
                                 .trust_root = buf_slice(&fx.root_bytes),
                                 .lock_fd = -1};
}

static struct err commit(struct disk *d, const struct fx_version *v, struct snap_set *set)
{
    (void)v;
    const struct disk_apply apply = {
        .manifest = buf_slice(&v->container), .set = set, .epoch = v->manifest.version + 10};
    TRY(disk_commit(d, &apply));
    disk_make_room(d); /* as behind a swap. */
    return OK;
}

struct err apply(struct disk *d, const struct fx_version *v)
{
    struct snap_set *set = fx_set(v, NULL);
    struct err e = commit(d, v, set);
    snap_set_unref(set);
    return e;
}

struct disk *open_alone(const char *directory)
{
    struct disk *d = NULL;
    struct disk_options options = options_of(directory);
    options.trust_root = slice_str("");
    EXPECT_OK(disk_open(&options, &d));
    return d;
}

void assert_same_content(const struct snap_set *set, const struct fx_version *v)
{
    for (size_t i = 0; i < FX_STREAMS - 1; i++) {
        struct part_iter it = {.rest = buf_slice(&v->raw[i])};
        struct snap_cursor at = {0};
        struct snap_part got;
        struct part want;
        bool more = true;
        EXPECT_OK(part_next(&it, &want, &more));
        while (more) {
            assert_true(snap_set_next(set, v->streams[i].kind, &at, &got));
            assert_true(slice_eq(got.key, want.key) && slice_eq(got.bytes, want.bytes));
            EXPECT_OK(part_next(&it, &want, &more));
        }
        assert_false(snap_set_next(set, v->streams[i].kind, &at, &got));
    }
}

uint64_t start_version(struct disk *d)
{
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    uint64_t version = start.version.version;
    assert_true(version >= 1 && version <= VERSIONS);
    assert_same_content(start.set, &versions[version - 1]);
    assert_int_equal(snap_set_version(start.set), version);
    snap_set_unref(start.set);
    return version;
}

void make_first_good(const char *directory)
{
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
}

void read_file(const char *directory, const char *name, struct buf *out)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    uint8_t *at = NULL;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    buf_clear(out);
    EXPECT_OK(buf_reserve(out, (size_t)st.st_size + 1, &at));
    assert_int_equal(read(fd, at, (size_t)st.st_size), st.st_size);
    buf_commit(out, (size_t)st.st_size);
    (void)close(fd);
}

void write_file(const char *directory, const char *name, struct slice bytes)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.ptr, bytes.size), bytes.size);
    (void)close(fd);
}

void make_garbage(const char *directory)
{
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    for (uint64_t n = 2; n < 12; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        struct snap_set *set = fx_set(&v, NULL);
        const struct disk_apply apply = {
            .manifest = buf_slice(&v.container), .set = set, .epoch = n + 10};
        EXPECT_OK(disk_commit(d, &apply));
        snap_set_unref(set);
        fx_version_free(&v);
    }
    disk_close(d);
}
