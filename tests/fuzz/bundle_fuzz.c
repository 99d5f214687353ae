/*
 * bundle: any bytes are read or refused; what was read lies inside of them, is found by its key,
 * and written again gives the same bytes.
 */
#include "common/snapshot/bundle.h"

#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_inside(struct slice part, struct slice whole)
{
    return part.ptr >= whole.ptr && part.ptr + part.size <= whole.ptr + whole.size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice bytes = slice_of(data, size);
    struct bundle b;
    if (!err_ok(bundle_read(bytes, &b))) {
        CHECK(b.count == 0);
        return 0;
    }
    CHECK(b.count > 0 && b.count <= BUNDLE_VALUES_MAX);
    for (size_t i = 0; i < b.count; i++) {
        struct slice found;
        CHECK(lies_inside(b.values[i].key, bytes) && lies_inside(b.values[i].value, bytes));
        CHECK(bundle_find(&b, b.values[i].key, &found));
    }
    auto_buf struct buf again = BUF_MAX(size);
    CHECK(err_ok(bundle_write(b.values, b.count, &again)));
    CHECK(slice_eq(buf_slice(&again), bytes));
    return 0;
}
