/* keep: see keep.h. */
#include "controlplane/signer/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/mman.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/file.h"

enum {
    KEPT_MAPPED = SIGNER_KEPT_MAX,
    KEPT_FD_MIN = 64, /* above those that a signer is given. */
    SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
};

/* A pipe or file to its end. */
static struct err read_all(int fd, uint8_t *out, size_t max, size_t *out_size)
{
    size_t size = 0;
    for (;;) { /* ends at the end, or past the bound. */
        ssize_t got = read(fd, out + size, max - size);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return FAIL(errno == EBADF || errno == EISDIR ? E_USAGE : E_IO);
        }
        if (got == 0) {
            break;
        }
        size += (size_t)got;
        if (size == max) {
            return FAIL(E_USAGE);
        }
    }
    *out_size = size;
    return size == 0 ? FAIL(E_USAGE) : OK;
}

/* Locks the only page, and lets nobody of this process read it. */
static struct err lock_pages(int fd, void **out)
{
    void *at = mmap(NULL, KEPT_MAPPED, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        return FAIL(E_NO_MEMORY);
    }
    if (madvise(at, KEPT_MAPPED, MADV_DONTDUMP) != 0 || mlock(at, KEPT_MAPPED) != 0 ||
        mprotect(at, KEPT_MAPPED, PROT_NONE) != 0) {
        (void)munmap(at, KEPT_MAPPED);
        return FAIL(E_NO_MEMORY);
    }
    *out = at;
    return OK;
}

static struct err store(struct slice bytes, struct signer_kept *out)
{
    auto_close int made = memfd_create("trilane-key", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    auto_close int fd = made < 0 ? -1 : fcntl(made, F_DUPFD_CLOEXEC, KEPT_FD_MIN);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    TRY(file_write_at(fd, bytes, 0));
    if (fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        return FAIL(E_IO);
    }
    TRY(lock_pages(fd, &out->mapping));
    out->fd = TAKE_FD(fd);
    return OK;
}

struct err signer_keep(int fd, size_t max, struct signer_kept *out)
{
    *out = (struct signer_kept){.fd = -1};
    CHECK(max <= SIGNER_KEPT_MAX);
    uint8_t *bytes = sodium_malloc(max + 1); /* locked; wiped when it is given back. */
    if (bytes == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    size_t size = 0;
    struct err e = read_all(fd, bytes, max + 1, &size);
    if (err_ok(e)) {
        e = store(slice_of(bytes, size), out);
    }
    sodium_free(bytes);
    (void)close(fd);
    return e;
}

void signer_kept_free(struct signer_kept *kept)
{
    if (kept->mapping != NULL) {
        (void)munmap(kept->mapping, KEPT_MAPPED);
        kept->mapping = NULL;
    }
    scope_close(&kept->fd);
}
