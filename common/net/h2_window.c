/* Windows for what peers send (RFC 9113, section 5.2). */
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static uint64_t at_most(uint64_t value, uint64_t bound)
{
    return value < bound ? value : bound;
}

/* Not below the default, which a peer may use before it has seen our SETTINGS. */
void h2_window_bounds(struct h2_env *env)
{
    uint64_t first = at_most(limits.stream_window_bytes, limits.stream_buffer_bytes);
    uint64_t most = at_most(limits.stream_window_max_bytes, limits.stream_buffer_bytes);
    env->stream_window = first < H2_WINDOW_DEFAULT ? H2_WINDOW_DEFAULT : first;
    env->stream_window_max = most;
}

void h2_window_init(struct h2_window *w, uint64_t size)
{
    CHECK(size <= H2_WINDOW_MAX);
    *w = (struct h2_window){.size = (int32_t)size, .left = (int32_t)size};
}

bool h2_window_take(struct h2_window *w, size_t size)
{
    if ((int64_t)size > w->left) {
        return false;
    }
    w->left -= (int32_t)size;
    return true;
}

uint32_t h2_window_consume(struct h2_window *w, size_t size, uint64_t max)
{
    w->owed += (uint32_t)size;
    if (w->owed < (uint32_t)w->size / 2) {
        return 0;
    }
    uint32_t back = w->owed;
    w->used += back;
    w->owed = 0;
    if (w->used >= (uint32_t)w->size && (uint64_t)w->size < max) {
        uint32_t more = (uint32_t)at_most((uint64_t)w->size, max - (uint64_t)w->size);
        w->size += (int32_t)more;
        w->used = 0;
        back += more;
    }
    w->left += (int32_t)back;
    return back;
}
