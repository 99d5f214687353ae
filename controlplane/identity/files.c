/* files: see files.h. */
#include "controlplane/identity/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/scope.h"

enum { READ_STEP = 4096 };

struct err cp_file_read(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    for (;;) { /* ends at the end of the file, or past the bound of 'out'. */
        uint8_t bytes[READ_STEP];
        ssize_t size = read(fd, bytes, sizeof(bytes));
        if (size < 0) {
            return FAIL(E_IO);
        }
        if (size == 0) {
            return OK;
        }
        TRY(buf_add(out, slice_of(bytes, (size_t)size)));
    }
}

static struct err fill(int fd, struct slice bytes)
{
    bool fine = write(fd, bytes.ptr, bytes.size) == (ssize_t)bytes.size && fsync(fd) == 0;
    return fine ? OK : FAIL(E_IO);
}

struct err cp_file_write_new(const char *path, struct slice bytes)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return FAIL(errno == EEXIST ? E_EXISTS : E_IO);
    }
    struct err e = fill(fd, bytes);
    if (!err_ok(e)) {
        (void)unlink(path); /* never half of it. */
    }
    return e;
}

struct err cp_file_replace(const char *path, struct slice bytes)
{
    char aside[CP_PATH_SIZE];
    int size = snprintf(aside, sizeof(aside), "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof(aside)) {
        return FAIL(E_TOO_LARGE);
    }
    auto_close int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    struct err e = fill(fd, bytes);
    if (err_ok(e) && rename(aside, path) != 0) {
        e = FAIL(E_IO);
    }
    if (!err_ok(e)) {
        (void)unlink(aside);
    }
    return e;
}

struct err cp_directory_make(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST ? OK : FAIL(E_IO);
}

bool cp_list_next(struct slice *rest, char out[CP_PATH_SIZE])
{
    if (rest->size == 0) {
        return false;
    }
    struct slice item = slice_head(*rest, slice_find(*rest, ','));
    (void)snprintf(out, CP_PATH_SIZE, "%.*s", SLICE_ARG(item));
    *rest = slice_from(*rest, item.size + 1);
    return true;
}

struct err cp_file_say(struct err e, const char *path, struct buf *message)
{
    if (!err_ok(e) && message->size == 0) {
        const char *system = e.code == E_IO ? strerrordesc_np(errno) : NULL;
        TRY(buf_addf(message, "%s: %s", path, system == NULL ? err_text(e.code) : system));
    }
    return e;
}
