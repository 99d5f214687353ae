/* The floor: read with suspicion, replaced whole. */
#include "common/snapshot/disk_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/scope.h"
#include "common/snapshot/file.h"
#include "common/snapshot/wire.h"

#define FLOOR_FILE "floor"
#define FLOOR_ASIDE "floor.new"

static const uint8_t magic[4] = {'T', 'R', 'F', 'L'};

enum {
    FLOOR_FORMAT = 1,
    AT_FORMAT = 4,
    AT_MARK = 6,
    AT_STARTS = 7,
    AT_ENVIRONMENT = 8,
    AT_ROOT = AT_ENVIRONMENT + ENVIRONMENT_SIZE,
    AT_EPOCH = AT_ROOT + 8,
    AT_PRESENT = AT_EPOCH + 8,
    AT_GOOD = AT_PRESENT + 8 + DIGEST_SIZE,
    AT_REFUSED_COUNT = AT_GOOD + 8 + DIGEST_SIZE,
    AT_REFUSED = AT_REFUSED_COUNT + 4,
    AT_CHECKSUM = AT_REFUSED + REFUSED_DIGESTS_MAX * DIGEST_SIZE,
    FLOOR_SIZE = AT_CHECKSUM + 8,
};

static void put_version(uint8_t *p, const struct disk_version *v)
{
    wire_put64(p, v->version);
    memcpy(p + 8, v->digest, DIGEST_SIZE);
}

static void get_version(const uint8_t *p, struct disk_version *out)
{
    out->version = wire_get64(p);
    memcpy(out->digest, p + 8, DIGEST_SIZE);
}

static void floor_encode(const struct disk_floor *f, const uint8_t *environment,
                         uint8_t out[FLOOR_SIZE])
{
    memset(out, 0, FLOOR_SIZE);
    memcpy(out, magic, sizeof(magic));
    wire_put16(out + AT_FORMAT, FLOOR_FORMAT);
    out[AT_MARK] = (uint8_t)f->mark;
    out[AT_STARTS] = f->starts;
    memcpy(out + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE);
    wire_put64(out + AT_ROOT, f->root_version);
    wire_put64(out + AT_EPOCH, f->epoch);
    put_version(out + AT_PRESENT, &f->present);
    put_version(out + AT_GOOD, &f->good);
    wire_put32(out + AT_REFUSED_COUNT, f->refused.count);
    memcpy(out + AT_REFUSED, f->refused.digests, (size_t)f->refused.count * DIGEST_SIZE);
    wire_put64(out + AT_CHECKSUM, XXH3_64bits(out, AT_CHECKSUM));
}

static struct err floor_decode(const uint8_t in[FLOOR_SIZE], const uint8_t *environment,
                               struct disk_floor *out)
{
    bool whole = memcmp(in, magic, sizeof(magic)) == 0 &&
                 wire_get16(in + AT_FORMAT) == FLOOR_FORMAT &&
                 wire_get64(in + AT_CHECKSUM) == XXH3_64bits(in, AT_CHECKSUM);
    uint32_t refused = wire_get32(in + AT_REFUSED_COUNT);
    if (!whole || in[AT_MARK] >= DISK_MARK_COUNT || refused > REFUSED_DIGESTS_MAX) {
        return FAIL(E_FLOOR_CORRUPT);
    }
    if (memcmp(in + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE) != 0) {
        return FAIL(E_USAGE);
    }
    *out = (struct disk_floor){.root_version = wire_get64(in + AT_ROOT),
                               .epoch = wire_get64(in + AT_EPOCH),
                               .mark = (enum disk_mark)in[AT_MARK],
                               .starts = in[AT_STARTS],
                               .refused.count = refused};
    get_version(in + AT_PRESENT, &out->present);
    get_version(in + AT_GOOD, &out->good);
    memcpy(out->refused.digests, in + AT_REFUSED, (size_t)refused * DIGEST_SIZE);
    return OK;
}

struct err disk_floor_read(int dir_fd, const uint8_t environment[ENVIRONMENT_SIZE],
                           struct disk_floor *out)
{
    /* What lies aside is written over in place only by who knows that its name reached the disk. */
    (void)unlinkat(dir_fd, FLOOR_ASIDE, 0);
    auto_close int fd = openat(dir_fd, FLOOR_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_FLOOR_CORRUPT);
    }
    uint8_t bytes[FLOOR_SIZE + 1]; /* one more, to see that the file ends. */
    size_t size = 0;
    if (!err_ok(file_read_at(fd, bytes, sizeof(bytes), 0, &size)) || size != FLOOR_SIZE) {
        return FAIL(E_FLOOR_CORRUPT);
    }
    return floor_decode(bytes, environment, out);
}

/* It has its size, or none; unless something else stood in the floor's place before, and came here
 * when the two were exchanged: written over, that would be no floor. */
static int open_aside(int dir_fd)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    struct stat info;
    auto_close int fd = openat(dir_fd, FLOOR_ASIDE, flags, 0600);
    if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= FLOOR_SIZE) {
        return TAKE_FD(fd);
    }
    (void)unlinkat(dir_fd, FLOOR_ASIDE, 0);
    return openat(dir_fd, FLOOR_ASIDE, flags | O_EXCL, 0600);
}

static struct err write_aside(int dir_fd, struct slice bytes, const struct disk_steps *steps)
{
    TRY(disk_step(steps, DISK_FLOOR_CREATE));
    auto_close int fd = open_aside(dir_fd);
    if (fd < 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    TRY(disk_step(steps, DISK_FLOOR_WRITE));
    if (!err_ok(file_write_at(fd, bytes, 0))) {
        return FAIL(E_PERSIST_FAILED);
    }
    TRY(disk_step(steps, DISK_FLOOR_SYNC));
    return err_ok(file_sync(fd)) ? OK : FAIL(E_PERSIST_FAILED);
}

/*
 * The floor before this one is written over by the next: to make and to free a file for each apply
 * costs more than to write it. Not every file system exchanges, and the first floor has nothing to
 * be exchanged with.
 */
static int exchange(int dir_fd)
{
    int done = renameat2(dir_fd, FLOOR_ASIDE, dir_fd, FLOOR_FILE, RENAME_EXCHANGE);
    return done == 0 ? 0 : renameat(dir_fd, FLOOR_ASIDE, dir_fd, FLOOR_FILE);
}

static struct err put_in_place(int dir_fd, const struct disk_steps *steps, bool *out_replaced)
{
    TRY(disk_step(steps, DISK_FLOOR_RENAME));
    if (exchange(dir_fd) != 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    *out_replaced = true;
    TRY(disk_step(steps, DISK_FLOOR_DIR_SYNC));
    if (fsync(dir_fd) != 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    return OK;
}

struct err disk_floor_write(int dir_fd, const uint8_t environment[ENVIRONMENT_SIZE],
                            const struct disk_floor *floor, const struct disk_steps *steps,
                            bool *out_replaced)
{
    uint8_t bytes[FLOOR_SIZE];
    floor_encode(floor, environment, bytes);
    *out_replaced = false;
    struct err e = write_aside(dir_fd, slice_of(bytes, sizeof(bytes)), steps);
    if (err_ok(e)) {
        e = put_in_place(dir_fd, steps, out_replaced);
    }
    if (!err_ok(e)) {
        /* Gives its block back to a full disk; and on the disk the one aside may still be the
         * floor: it must not be written over. */
        (void)unlinkat(dir_fd, FLOOR_ASIDE, 0);
        return e;
    }
    return disk_step(steps, DISK_FLOOR_DONE);
}
