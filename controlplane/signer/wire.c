/* wire: see wire.h. */
#include "controlplane/signer/wire.h"

#include <errno.h>
#include <sys/socket.h>

#include "controlplane/signer/child.h"

struct err signer_send(int fd, struct slice bytes)
{
    while (bytes.size > 0) {
        ssize_t sent = send(fd, bytes.ptr, bytes.size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return FAIL(E_CLOSED);
        }
        bytes = slice_from(bytes, (size_t)sent);
    }
    return OK;
}

struct err signer_receive(int fd, void *out, size_t size)
{
    uint8_t *at = out;
    while (size > 0) {
        ssize_t got = recv(fd, at, size, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return FAIL(E_CLOSED);
        }
        at += got;
        size -= (size_t)got;
    }
    return OK;
}

bool signer_source_fd(const char *source, int *out_fd)
{
    uint64_t number = 0;
    struct slice text = slice_str(source);
    if (!slice_starts(text, SLICE_LIT("fd:")) || !slice_to_u64(slice_from(text, 3), &number) ||
        number < SIGNER_FD || number > INT16_MAX) {
        return false;
    }
    *out_fd = (int)number;
    return true;
}
