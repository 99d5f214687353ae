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

/* The first line, and what stands before the source in the second; a file of another format is
 * none. */
#define FRONT "trilane issuer keys 2\n"
#define SOURCE "source "

enum { NAME_SIZE = 2 * DIGEST_SIZE + 1, LINES_MAX = 192, ASIDE_SIZE = 32 };

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

/* Takes the lines before the key set; false: they are not of this source. */
static bool take_lines(struct slice *rest, const char *source, uint64_t *out_read_ms)
{
    const struct slice lines[] = {SLICE_LIT(FRONT), SLICE_LIT(SOURCE), slice_str(source),
                                  SLICE_LIT("\n")};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (!slice_starts(*rest, lines[i])) {
            return false;
        }
        *rest = slice_from(*rest, lines[i].size);
    }
    struct slice time = slice_head(*rest, slice_find(*rest, '\n'));
    if (time.size == rest->size || !slice_to_u64(time, out_read_ms) || *out_read_ms > INT64_MAX) {
        return false;
    }
    *rest = slice_from(*rest, time.size + 1);
    return true;
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
    if (!take_lines(&rest, name, &read_ms)) {
        return FAIL(E_NOT_FOUND);
    }
    TRY(buf_add(out, rest));
    *out_read_ms = (int64_t)read_ms < now_ms ? (int64_t)read_ms : now_ms;
    return OK;
}

/* Writes a file that was not there, and that nobody's link leads elsewhere. */
static struct err write_file(int dir, const char *name, struct slice bytes)
{
    auto_close int fd =
        openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    TRY(file_write_at(fd, bytes, 0));
    return file_sync(fd);
}

/* Writes aside, and puts it into its place. What lies aside is a process's own: during a hand-over
 * two are there. One of our number that is there already is of a process that has ended. */
static struct err replace(int dir, const char *name, struct slice bytes)
{
    char aside[ASIDE_SIZE];
    (void)snprintf(aside, sizeof(aside), "next.%ld", (long)getpid());
    (void)unlinkat(dir, aside, 0);
    struct err e = write_file(dir, aside, bytes);
    if (err_ok(e) && renameat(dir, aside, dir, name) != 0) {
        e = FAIL(E_IO);
    }
    if (!err_ok(e)) {
        (void)unlinkat(dir, aside, 0);
        return e;
    }
    return fsync(dir) == 0 ? OK : FAIL(E_IO);
}

struct err dp_issuer_cache_put(const char *data_dir, const uint8_t source[DIGEST_SIZE],
                               struct slice keys, int64_t read_ms)
{
    auto_close int dir = -1;
    auto_buf struct buf bytes = BUF_MAX(JOSE_KEYS_BYTES_MAX + LINES_MAX);
    char name[NAME_SIZE];
    text_hex(slice_of(source, DIGEST_SIZE), name);
    TRY(open_directory(data_dir, &dir));
    TRY(buf_addf(&bytes, FRONT SOURCE "%s\n%" PRId64 "\n", name, read_ms));
    TRY(buf_add(&bytes, keys));
    return replace(dir, name, buf_slice(&bytes));
}
