/*
 * disk_damage: whatever becomes of the bytes in a node's files, a start serves what is valid and
 * loses no more than what was damaged; and what is live is never taken for garbage.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/snapshot/disk.h"

#include "disk_rig.h"
#include "tests/support/cmocka.h"

/* ---- damaged files ---- */

/* A pack that ends anywhere behind the good version: the tail goes, the good version stays. */
static void torn_tail_is_cut_off(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    auto_buf struct buf good_floor = BUF_MAX(4096);
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    read_file(directory, "floor", &good_floor);
    read_file(directory, "pack", &pack);
    size_t good_size = pack.size;
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    read_file(directory, "pack", &pack);
    assert_true(pack.size > good_size + 1000);
    for (size_t size = good_size; size < pack.size; size += size < good_size + 200 ? 1 : 397) {
        write_file(directory, "pack", slice_head(buf_slice(&pack), size));
        write_file(directory, "floor", buf_slice(&good_floor));
        d = open_alone(directory);
        assert_int_equal(start_version(d), 1);
        assert_false(disk_notes(d).floor_rebuilt);
        EXPECT_OK(apply(d, &versions[1]));
        disk_close(d);
        d = open_alone(directory);
        assert_int_equal(start_version(d), 2);
        disk_close(d);
    }
    fx_remove_directory(directory);
}

/* In place of a file, a link to another directory's. */
static void put_link(const char *directory, const char *other, const char *name)
{
    char path[512];
    char target[512];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    (void)snprintf(target, sizeof(target), "%s/%s", other, name);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(target, path), 0);
}

/* Every bit of the floor: it is rebuilt from the highest manifest, never from zero. */
static void damaged_floor_is_rebuilt(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    auto_buf struct buf floor = BUF_MAX(4096);
    read_file(directory, "floor", &floor);
    for (size_t bit = 0; bit < floor.size * 8; bit += bit < 256 ? 1 : 13) {
        floor.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        write_file(directory, "floor", buf_slice(&floor));
        floor.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        d = open_alone(directory);
        assert_true(disk_notes(d).floor_rebuilt);
        assert_int_equal(disk_floor(d)->present.version, 2);
        assert_int_equal(disk_floor(d)->good.version, 1);
        assert_int_equal(disk_floor(d)->epoch, 12);
        assert_int_equal(disk_floor(d)->root_version, 1);
        disk_close(d);
    }
    for (size_t size = 0; size < floor.size; size++) {
        write_file(directory, "floor", slice_head(buf_slice(&floor), size));
        d = open_alone(directory);
        assert_true(disk_notes(d).floor_rebuilt);
        assert_int_equal(disk_floor(d)->present.version, 2);
        disk_close(d);
    }
    d = open_alone(directory);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

/* An older floor and pack of the same node, to which somebody had links lead. */
static void links_are_not_followed(void **state)
{
    (void)state;
    char directory[256];
    char old[256];
    fx_directory(directory);
    fx_directory(old);
    make_first_good(old);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    put_link(directory, old, "floor");
    d = open_alone(directory);
    assert_true(disk_notes(d).floor_rebuilt);
    assert_int_equal(start_version(d), 2);
    EXPECT_OK(disk_mark_good(d)); /* and it is written over as often as need be. */
    EXPECT_OK(apply(d, &versions[2]));
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
    put_link(directory, old, "pack");
    struct disk_options options = options_of(directory);
    EXPECT(disk_open(&options, &d), E_IO);
    fx_remove_directory(old);
    fx_remove_directory(directory);
}

/* A floor that is longer than one, and is written over by turns with the next. */
static void a_longer_floor_does_not_come_back(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "floor", &floor);
    EXPECT_OK(buf_add_str(&floor, "and more"));
    write_file(directory, "floor", buf_slice(&floor));
    struct disk *d = open_alone(directory);
    assert_true(disk_notes(d).floor_rebuilt);
    for (size_t i = 1; i < VERSIONS; i++) {
        EXPECT_OK(apply(d, &versions[i]));
    }
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
    d = open_alone(directory);
    assert_false(disk_notes(d).floor_rebuilt);
    assert_int_equal(start_version(d), VERSIONS);
    disk_close(d);
    fx_remove_directory(directory);
}

/* A bit of the pack, anywhere: what is served is valid, or nothing is served. */
static void damaged_pack_serves_nothing_wrong(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    unsigned served[VERSIONS + 1] = {0};
    for (size_t at = 0; at < pack.size; at += at < 2000 ? 61 : 1999) {
        pack.ptr[at] ^= 1;
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        pack.ptr[at] ^= 1;
        struct disk_options options = options_of(directory);
        struct disk_start start;
        EXPECT_OK(disk_open(&options, &d));
        struct err e = disk_start(d, &start);
        served[err_ok(e) ? start.version.version : 0]++;
        if (err_ok(e)) {
            assert_same_content(start.set, &versions[start.version.version - 1]);
            snap_set_unref(start.set);
        }
        /* That would say that nothing was ever applied here. */
        assert_int_not_equal(err_ok(e) ? start.why.code : e.code, E_NOT_FOUND);
        disk_close(d);
    }
    assert_true(served[2] > 0 && served[1] > 0);
    fx_remove_directory(directory);
}

/* A chunk that both versions have. */
static const struct cut_chunk *shared_chunk(const struct fx_version *a, const struct fx_version *b)
{
    for (size_t s = 0; s < FX_STREAMS; s++) {
        for (size_t i = 0; i < a->streams[s].chunk_count; i++) {
            for (size_t k = 0; k < b->streams[s].chunk_count; k++) {
                const struct cut_chunk *c = &a->streams[s].chunks[i];
                if (memcmp(c->digest, b->streams[s].chunks[k].digest, DIGEST_SHORT_SIZE) == 0) {
                    return c;
                }
            }
        }
    }
    fail_msg("the versions share no chunk");
    return NULL;
}

/* Flips a bit of the bytes where they lie in the pack; in place, under whoever has it open. */
static void damage(const char *directory, struct slice bytes)
{
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    read_file(directory, "pack", &pack);
    uint8_t *at = memmem(pack.ptr, pack.size, bytes.ptr, bytes.size);
    assert_non_null(at);
    *at ^= 1;
    write_file(directory, "pack", buf_slice(&pack));
}

/* It is fetched again, and what was fetched reaches the disk. */
static void a_chunk_that_went_bad_is_written_again(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    const struct cut_chunk *c = shared_chunk(&versions[0], &versions[1]);
    struct chunk_name name = {.stored_size = (uint32_t)c->stored.size,
                              .raw_size = (uint32_t)c->raw.size};
    memcpy(name.digest, c->digest, DIGEST_SHORT_SIZE);
    auto_buf struct buf stored = BUF_MAX(DISK_CHUNK_ROOM);
    damage(directory, c->stored);
    EXPECT(disk_chunk(d, &name, &stored), E_CHUNK_TAMPERED);
    EXPECT_OK(apply(d, &versions[1]));
    EXPECT_OK(disk_chunk(d, &name, &stored));
    assert_true(slice_eq(buf_slice(&stored), c->stored));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 1);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Every bit of a header in the middle: what lies behind it is there, and the next apply leaves no
 * gap. */
static void a_bad_header_takes_nothing_with_it(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    size_t header =
        pack.size; /* of the first record of version 2, which version 3 does not need. */
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    EXPECT_OK(apply(d, &versions[2]));
    disk_close(d);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    for (size_t bit = 0; bit < (size_t)PACK_HEADER_SIZE * 8; bit++) {
        pack.ptr[header + bit / 8] ^= (uint8_t)(1U << bit % 8);
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        pack.ptr[header + bit / 8] ^= (uint8_t)(1U << bit % 8);
        d = open_alone(directory);
        assert_int_equal(disk_notes(d).bad_records, 1);
        assert_int_equal(disk_notes(d).torn_bytes, 0);
        assert_int_equal(start_version(d), 3);
        disk_close(d);
    }
    memset(pack.ptr + header, 0, PACK_HEADER_SIZE);
    write_file(directory, "pack", buf_slice(&pack));
    d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[3]));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    assert_int_equal(start_version(d), 4);
    disk_close(d);
    fx_remove_directory(directory);
}

/* A record of a root as a chunk might hold it, behind a header that went bad. */
static void add_forged_root(uint64_t version, struct buf *pack)
{
    char directory[256];
    auto_buf struct buf container = BUF_MAX(1 << 20);
    auto_buf struct buf record = BUF_MAX(1 << 20);
    fx_directory(directory);
    struct root root = fx_root(&fx, version, &fx.roots[2]);
    root.has_floor = true;
    root.floor = (struct root_floor){.epoch = 1, .version = 1};
    const struct key_pair *signer = &fx.roots[2];
    fx_seal_root(&root, &signer, 1, &container);
    int dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);
    const struct disk_steps steps = {0};
    struct pack p;
    EXPECT_OK(pack_open(&p, dir_fd, fx.environment, &steps));
    EXPECT_OK(pack_add(&p, PACK_ROOT, buf_slice(&container)));
    pack_close(&p);
    (void)close(dir_fd);
    read_file(directory, "pack", &record);
    EXPECT_OK(buf_add(pack, buf_slice(&record)));
    fx_remove_directory(directory);
}

static void no_root_comes_from_behind_a_gap(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    EXPECT_OK(buf_add_str(&pack, "what was a header"));
    add_forged_root(1, &pack);
    add_forged_root(5, &pack);
    write_file(directory, "pack", buf_slice(&pack));
    struct disk *d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 3);
    assert_int_equal(disk_root(d)->version, 1);
    assert_false(disk_root(d)->has_floor);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    write_file(directory, "floor", SLICE_LIT("torn"));
    d = open_alone(directory);
    assert_int_equal(disk_root(d)->version, 1);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Content that is full of headers is not read for ever: what lies behind it goes, as a tail. */
static void a_search_ends(void **state)
{
    (void)state;
    static const uint8_t header[PACK_HEADER_SIZE] = {'T', 'R', 'P', 'K', 1, 0, PACK_CHUNK};
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    size_t good = pack.size;
    EXPECT_OK(buf_add_str(&pack, "what was a header"));
    for (size_t i = 0; i < 4096; i++) {
        EXPECT_OK(buf_add(&pack, slice_of(header, sizeof(header))));
        EXPECT_OK(buf_add_str(&pack, "?")); /* so that none of them says where the next is. */
    }
    add_forged_root(5, &pack);
    write_file(directory, "pack", buf_slice(&pack));
    struct disk *d = open_alone(directory);
    assert_int_equal(disk_notes(d).torn_bytes, pack.size - good);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

/* ---- compaction ---- */

static void garbage_is_collected(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    uint64_t largest = 0;
    for (uint64_t n = 2; n < 40; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        EXPECT_OK(apply(d, &v));
        EXPECT_OK(disk_mark_good(d));
        struct disk_sizes sizes = disk_sizes(d);
        assert_true(sizes.pack_bytes <= 2 * sizes.live_bytes);
        largest = sizes.pack_bytes > largest ? sizes.pack_bytes : largest;
        fx_version_free(&v);
    }
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    assert_int_equal(start.version.version, 39);
    snap_set_unref(start.set);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Versions that follow each other too fast to be proved: two are live, however many there were. */
static void garbage_is_collected_before_anything_is_good(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    uint64_t first = disk_sizes(d).pack_bytes;
    uint64_t largest = 0;
    for (uint64_t n = 2; n < 40; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        EXPECT_OK(apply(d, &v));
        uint64_t size = disk_sizes(d).pack_bytes;
        largest = size > largest ? size : largest;
        fx_version_free(&v);
    }
    assert_true(largest <= 5 * first); /* twice what is live, and what was live before. */
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    assert_int_equal(start.version.version, 39);
    snap_set_unref(start.set);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Whether three deaths of the present version still lead to the last good one. */
static void assert_good_is_there(const char *directory)
{
    for (size_t i = 1; i <= 3; i++) {
        struct disk *d = open_alone(directory);
        struct disk_start start;
        EXPECT_OK(disk_start(d, &start));
        assert_int_equal(start.version.version, i < 3 ? 11 : 1);
        snap_set_unref(start.set);
        disk_close(d);
    }
}

/* Each read that may fail on the way to what is live: nothing of it is taken for garbage. */
static void garbage_that_cannot_be_told_stays(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_garbage(directory);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    unsigned read = 0;
    for (bool failed = true; failed; read += failed ? 1 : 0) {
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        struct disk *d = open_alone(directory);
        bad_read.countdown = read;
        bad_read.code = E_IO;
        disk_make_room(d);
        failed = bad_read.code == E_OK;
        bad_read.code = E_OK;
        uint64_t size = disk_sizes(d).pack_bytes;
        assert_true(failed ? size == pack.size : size < pack.size / 2);
        disk_close(d);
        assert_good_is_there(directory);
    }
    assert_true(read >= 4); /* two manifests, each with its root. */
    fx_remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torn_tail_is_cut_off),
        cmocka_unit_test(damaged_floor_is_rebuilt),
        cmocka_unit_test(links_are_not_followed),
        cmocka_unit_test(a_longer_floor_does_not_come_back),
        cmocka_unit_test(damaged_pack_serves_nothing_wrong),
        cmocka_unit_test(a_chunk_that_went_bad_is_written_again),
        cmocka_unit_test(a_bad_header_takes_nothing_with_it),
        cmocka_unit_test(no_root_comes_from_behind_a_gap),
        cmocka_unit_test(a_search_ends),
        cmocka_unit_test(garbage_is_collected),
        cmocka_unit_test(garbage_is_collected_before_anything_is_good),
        cmocka_unit_test(garbage_that_cannot_be_told_stays),
    };
    return cmocka_run_group_tests(tests, disk_rig_setup, disk_rig_teardown);
}
