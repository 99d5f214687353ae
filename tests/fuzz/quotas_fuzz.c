/*
 * quotas: any bytes are read as a file of quotas or refused, with their own checksum and with the
 * right one; what was read, written again, gives the same bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/base/check.h"
#include "common/snapshot/wire.h"
#include "dataplane/request/quota_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ENTRIES = 256, CHECKSUM_SIZE = 8 };

static void read_and_write(struct slice bytes)
{
    struct dp_quota_entry entries[ENTRIES];
    struct dp_quota_file file = {.count = 0};
    if (err_ok(dp_quota_file_decode(bytes, ENTRIES, entries, &file))) {
        auto_buf struct buf again = BUF_MAX(bytes.size);
        CHECK(file.count <= ENTRIES);
        CHECK(err_ok(dp_quota_file_encode(&file, &again)));
        CHECK(slice_eq(buf_slice(&again), bytes));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_and_write(slice_of(data, size));
    uint8_t *copy = malloc(size + 1);
    if (copy != NULL && size >= CHECKSUM_SIZE) {
        memcpy(copy, data, size);
        wire_put64(copy + size - CHECKSUM_SIZE, XXH3_64bits(copy, size - CHECKSUM_SIZE));
        read_and_write(slice_of(copy, size));
    }
    free(copy);
    return 0;
}
