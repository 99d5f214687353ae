/* pread and pwrite until done. */
#include "common/snapshot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

struct err file_write_at(int fd, struct slice bytes, uint64_t offset)
{
    while (bytes.size > 0) {
        ssize_t n = pwrite(fd, bytes.ptr, bytes.size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return FAIL(E_IO);
        }
        bytes = slice_from(bytes, (size_t)n);
        offset += (size_t)n;
    }
    return OK;
}

struct err file_write_two_at(int fd, struct slice first, struct slice second, uint64_t offset)
{
    /* NOLINTBEGIN(performance-no-int-to-ptr): an iovec is not const, and what is written is. */
    const struct iovec both[] = {{(void *)(uintptr_t)first.ptr, first.size},
                                 {(void *)(uintptr_t)second.ptr, second.size}};
    /* NOLINTEND(performance-no-int-to-ptr) */
    ssize_t n = pwritev(fd, both, 2, (off_t)offset);
    if (n < 0 && errno != EINTR) {
        return FAIL(E_IO);
    }
    size_t done = n < 0 ? 0 : (size_t)n;
    if (done < first.size) {
        TRY(file_write_at(fd, slice_from(first, done), offset + done));
        done = first.size;
    }
    return file_write_at(fd, slice_from(second, done - first.size), offset + done);
}

struct err file_sync(int fd)
{
    /* Not every file system has this one; whatever fails is told by the other. */
    (void)sync_file_range(fd, /* offset= */ 0, /* nbytes, to the end: */ 0, SYNC_FILE_RANGE_WRITE);
    return fdatasync(fd) == 0 ? OK : FAIL(E_IO);
}

struct err file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, (uint8_t *)out + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return FAIL(E_IO);
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    *out_size = done;
    return OK;
}
