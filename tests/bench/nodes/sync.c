/* sync: see sync.h. */
#include "tests/bench/nodes/sync.h"

#include <sys/types.h>

/* Names that the linker makes of --wrap. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_sync_file_range(int fd, off_t offset, off_t bytes, unsigned int flags);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_sync_file_range(int fd, off_t offset, off_t bytes, unsigned int flags);

static bool skips;

void sync_skip(bool skip)
{
    skips = skip;
}

int __wrap_fsync(int fd)
{
    return skips ? 0 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    return skips ? 0 : __real_fdatasync(fd);
}

int __wrap_sync_file_range(int fd, off_t offset, off_t bytes, unsigned int flags)
{
    return skips ? 0 : __real_sync_file_range(fd, offset, bytes, flags);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
