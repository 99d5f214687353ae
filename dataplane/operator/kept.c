/* kept: see kept.h. */
#include "dataplane/operator/kept.h"

#include <string.h>

#include "common/net/h2.h"

void op_kept_init(struct op_kept *kept, struct h2_env *env, size_t max)
{
    kept->max = max;
    kept->small_size = 0; /* 'small' is valid only that far. */
    h2_queue_init(&kept->large, env);
}

void op_kept_free(struct op_kept *kept)
{
    kept->small_size = 0;
    h2_queue_clear(&kept->large);
}

size_t op_kept_size(const struct op_kept *kept)
{
    return kept->large.size > 0 ? kept->large.size : kept->small_size;
}

struct err op_kept_add(struct op_kept *kept, struct slice bytes)
{
    if (bytes.size > kept->max - op_kept_size(kept)) {
        return FAIL(E_TOO_LARGE);
    }
    if (kept->large.size == 0 && bytes.size <= OP_KEPT_SMALL - kept->small_size) {
        if (bytes.size > 0) {
            (void)memcpy(kept->small + kept->small_size, bytes.ptr, bytes.size);
        }
        kept->small_size += bytes.size;
        return OK;
    }
    if (kept->large.size == 0 &&
        !h2_queue_add(&kept->large, slice_of(kept->small, kept->small_size))) {
        return FAIL(E_NO_MEMORY);
    }
    return h2_queue_add(&kept->large, bytes) ? OK : FAIL(E_NO_MEMORY);
}

struct err op_kept_send(const struct op_kept *kept, size_t skip, struct h2_stream *to, bool end)
{
    if (kept->large.size > 0) {
        return h2_stream_send_shared(to, &kept->large, skip, end);
    }
    return h2_stream_send(to, slice_from(slice_of(kept->small, kept->small_size), skip), end);
}
