/* kept: see kept.h. */
#include "dataplane/operator/kept.h"

#include <string.h>

void op_kept_init(struct op_kept *kept, size_t max)
{
    kept->small_size = 0; /* 'small' is valid only that far. */
    kept->large = BUF_MAX(max);
}

void op_kept_free(struct op_kept *kept)
{
    kept->small_size = 0;
    buf_free(&kept->large);
}

struct err op_kept_add(struct op_kept *kept, struct slice bytes)
{
    bool is_small = kept->large.size == 0 && bytes.size <= OP_KEPT_SMALL - kept->small_size;
    if (is_small && kept->small_size + bytes.size <= kept->large.max) {
        if (bytes.size > 0) {
            (void)memcpy(kept->small + kept->small_size, bytes.ptr, bytes.size);
        }
        kept->small_size += bytes.size;
        return OK;
    }
    if (op_kept_slice(kept).size + bytes.size > kept->large.max) {
        return FAIL(E_TOO_LARGE);
    }
    if (kept->large.size == 0) {
        TRY(buf_add(&kept->large, slice_of(kept->small, kept->small_size)));
    }
    return buf_add(&kept->large, bytes);
}

struct slice op_kept_slice(const struct op_kept *kept)
{
    return kept->large.size > 0 ? buf_slice(&kept->large) : slice_of(kept->small, kept->small_size);
}
