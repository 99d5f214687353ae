/* cache: see cache.h. */
#include "dataplane/issuers/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/jose/jwk.h"
#include "common/snapshot/file.h"

/* The first line; a file of another format is none. */
#define FRONT "trilane issuer keys 1\n"

enum { NAME_SIZE = 2 * DIGEST_SIZE + 1, LINES_MAX = 64 };

static struct err open_directory(const char *data_dir, int *out)
{
    auto_close int parent = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 || (mkdirat(parent, "issuers", 0700) != 0 && errno != EEXIST)) {
        return FAIL(E_IO);
    }
    *out = openat(parent, "issuers", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return *out < 0 ? FAIL(E_IO) : OK;
}

static struct err read_whole(int dir, const char *name, struct buf *out)
{
    auto_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint8_t *to = NULL;
    size_t size = 0;
    if (fd < 0) {
        return FAIL(E_NOT_FOUND);
    }
    TRY(buf_reserve(out, out->max, &to));
    TRY(file_read_at(fd, to, out->max, 0, &size));
    buf_commit(out, size);
    return OK;
}

struct err dp_issuer_cache_get(const char *data_dir, const uint8_t source[DIGEST_SIZE],
                               int64_t now_ms, struct buf *out, int64_t *out_read_ms)
{
    auto_close int dir = -1;
    auto_buf struct buf bytes = BUF_MAX(JOSE_KEYS_BYTES_MAX + LINES_MAX);
    char name[NAME_SIZE];
    uint64_t read_ms = 0;
    text_hex(slice_of(source, DIGEST_SIZE), name);
    TRY(open_directory(data_dir, &dir));
    TRY(read_whole(dir, name, &bytes));
    struct slice rest = buf_slice(&bytes);
    struct slice front = SLICE_LIT(FRONT);
    struct slice line = slice_from(rest, front.size);
    line = slice_head(line, slice_find(line, '\n'));
    if (!slice_starts(rest, front) || !slice_to_u64(line, &read_ms) || read_ms > INT64_MAX) {
        return FAIL(E_NOT_FOUND);
    }
    TRY(buf_add(out, slice_from(rest, front.size + line.size + 1)));
    *out_read_ms = (int64_t)read_ms < now_ms ? (int64_t)read_ms : now_ms;
    return OK;
}

static struct err write_file(int dir, const char *name, struct slice bytes)
{
    auto_close int fd =
        openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    TRY(file_write_at(fd, bytes, 0));
    return file_sync(fd);
}

struct err dp_issuer_cache_put(const char *data_dir, const uint8_t source[DIGEST_SIZE],
                               struct slice keys, int64_t read_ms)
{
    auto_close int dir = -1;
    auto_buf struct buf bytes = BUF_MAX(JOSE_KEYS_BYTES_MAX + LINES_MAX);
    char name[NAME_SIZE];
    text_hex(slice_of(source, DIGEST_SIZE), name);
    TRY(open_directory(data_dir, &dir));
    TRY(buf_addf(&bytes, FRONT "%" PRId64 "\n", read_ms));
    TRY(buf_add(&bytes, keys));
    TRY(write_file(dir, "next", buf_slice(&bytes)));
    if (renameat(dir, "next", dir, name) != 0 || fsync(dir) != 0) {
        return FAIL(E_IO);
    }
    return OK;
}
