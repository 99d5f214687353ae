/* await: see cp_store_await() of store.h. */
#include <poll.h>

#include "common/base/clock.h"
#include "controlplane/store/store.h"

enum { AWAIT_MS = 10000, PAUSE_MS = 200 };

struct err cp_store_await(const char *url, struct cp_store **out, struct buf *message)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)AWAIT_MS * 1000000;
    struct err e = cp_store_open(url, out, message);
    while ((e.code == E_UNAVAILABLE || e.code == E_STORE_LOCKED || e.code == E_STORE_DEPOSED) &&
           clock_mono_ns() < end_ns) {
        (void)poll(NULL, 0, PAUSE_MS);
        buf_clear(message);
        e = cp_store_open(url, out, message);
    }
    return e;
}
