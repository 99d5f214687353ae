/* wait: see wait.h. */
#include "common/net/wait.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

#include "common/base/clock.h"

struct err net_wait(int fd, short events, uint64_t timeout_ms)
{
    uint64_t end_ms = clock_mono_ns() / 1000000 + timeout_ms;
    for (;;) { /* ends by its time. */
        uint64_t now_ms = clock_mono_ns() / 1000000;
        uint64_t left_ms = now_ms < end_ms ? end_ms - now_ms : 0;
        struct pollfd wanted = {.fd = fd, .events = events};
        int ready = poll(&wanted, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        if (ready > 0) {
            return OK;
        }
        if (ready == 0 && left_ms < INT_MAX) {
            return FAIL(E_TIMEOUT);
        }
        if (ready < 0 && errno != EINTR) {
            return FAIL(E_IO);
        }
    }
}
