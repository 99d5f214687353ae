/* quota_file: see quota_file.h. */
#include "dataplane/request/quota_file.h"

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

#define QUOTA_FILE "quotas"
#define QUOTA_ASIDE "quotas.new"

static const uint8_t magic[4] = {'T', 'R', 'Q', 'U'};

enum {
    FORMAT = 1,
    AT_FORMAT = 4,
    AT_CLEAN = 6,
    AT_COUNT = 8, /* u32; the byte between is zero. */
    AT_SEED = 16, /* what is between is zero. */
    HEADER_SIZE = 24,
    ENTRY_KEY = 0,
    ENTRY_VALUE = 8,
    ENTRY_RESERVE = 16,
    ENTRY_MADE_UP = 20, /* u32. */
    ENTRY_SIZE = 24,
    CHECKSUM_SIZE = 8,
};

size_t dp_quota_file_size(size_t count)
{
    return HEADER_SIZE + count * ENTRY_SIZE + CHECKSUM_SIZE;
}

struct err dp_quota_file_encode(const struct dp_quota_file *file, struct buf *out)
{
    size_t size = dp_quota_file_size(file->count);
    uint8_t *at = NULL;
    TRY(buf_reserve(out, size, &at));
    memset(at, 0, HEADER_SIZE);
    memcpy(at, magic, sizeof(magic));
    wire_put16(at + AT_FORMAT, FORMAT);
    at[AT_CLEAN] = file->clean;
    wire_put32(at + AT_COUNT, (uint32_t)file->count);
    wire_put64(at + AT_SEED, file->seed);
    for (size_t i = 0; i < file->count; i++) {
        uint8_t *entry = at + HEADER_SIZE + i * ENTRY_SIZE;
        wire_put64(entry + ENTRY_KEY, file->entries[i].key);
        wire_put64(entry + ENTRY_VALUE, file->entries[i].value);
        wire_put32(entry + ENTRY_RESERVE, file->entries[i].reserve);
        wire_put32(entry + ENTRY_MADE_UP, file->entries[i].made_up);
    }
    wire_put64(at + size - CHECKSUM_SIZE, XXH3_64bits(at, size - CHECKSUM_SIZE));
    buf_commit(out, size);
    return OK;
}

struct err dp_quota_file_decode(struct slice bytes, size_t count_max,
                                struct dp_quota_entry *entries, struct dp_quota_file *out)
{
    const uint8_t *in = bytes.ptr;
    static const uint8_t zero[4] = {0};
    if (bytes.size < HEADER_SIZE + CHECKSUM_SIZE || memcmp(in, magic, sizeof(magic)) != 0 ||
        wire_get16(in + AT_FORMAT) != FORMAT || in[AT_CLEAN] > 1 || in[AT_CLEAN + 1] != 0 ||
        memcmp(in + AT_COUNT + 4, zero, sizeof(zero)) != 0 ||
        bytes.size != dp_quota_file_size(wire_get32(in + AT_COUNT)) ||
        wire_get64(in + bytes.size - CHECKSUM_SIZE) !=
            XXH3_64bits(in, bytes.size - CHECKSUM_SIZE)) {
        return FAIL(E_MALFORMED);
    }
    size_t count = wire_get32(in + AT_COUNT);
    if (count > count_max) {
        return FAIL(E_TOO_LARGE);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *entry = in + HEADER_SIZE + i * ENTRY_SIZE;
        entries[i] = (struct dp_quota_entry){.key = wire_get64(entry + ENTRY_KEY),
                                             .value = wire_get64(entry + ENTRY_VALUE),
                                             .reserve = wire_get32(entry + ENTRY_RESERVE),
                                             .made_up = wire_get32(entry + ENTRY_MADE_UP) == 1};
        if (entries[i].key == 0 || wire_get32(entry + ENTRY_MADE_UP) > 1) {
            return FAIL(E_MALFORMED);
        }
    }
    *out = (struct dp_quota_file){.seed = wire_get64(in + AT_SEED),
                                  .clean = in[AT_CLEAN] == 1,
                                  .entries = entries,
                                  .count = count};
    return OK;
}

struct err dp_quota_file_read(int dir_fd, size_t size_max, struct buf *out)
{
    auto_close int fd = openat(dir_fd, QUOTA_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    if (!S_ISREG(info.st_mode) || info.st_size < 0) {
        return FAIL(E_MALFORMED);
    }
    if ((uint64_t)info.st_size > size_max) {
        return FAIL(E_TOO_LARGE);
    }
    uint8_t *at = NULL;
    size_t size = 0;
    TRY(buf_reserve(out, (size_t)info.st_size + 1, &at));
    TRY(file_read_at(fd, at, (size_t)info.st_size, 0, &size));
    buf_commit(out, size);
    return OK;
}

static struct err write_aside(int dir_fd, struct slice bytes)
{
    (void)unlinkat(dir_fd, QUOTA_ASIDE, 0);
    auto_close int fd =
        openat(dir_fd, QUOTA_ASIDE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    return err_ok(file_write_at(fd, bytes, 0)) && err_ok(file_sync(fd)) ? OK
                                                                        : FAIL(E_PERSIST_FAILED);
}

struct err dp_quota_file_write(int dir_fd, struct slice bytes)
{
    struct err e = write_aside(dir_fd, bytes);
    if (err_ok(e) && renameat(dir_fd, QUOTA_ASIDE, dir_fd, QUOTA_FILE) != 0) {
        e = FAIL(E_PERSIST_FAILED);
    }
    if (!err_ok(e)) {
        (void)unlinkat(dir_fd, QUOTA_ASIDE, 0); /* gives its blocks back to a full disk. */
        return e;
    }
    return fsync(dir_fd) == 0 ? OK : FAIL(E_PERSIST_FAILED);
}
