/* Targets reflection_read() and the answers that are made of a request. Property: what was asked
 * for stands in the answer as it came, and the answer parses. */
#include "common/proto/reflection.h"

#include <stddef.h>
#include <stdint.h>

#include "common/base/check.h"
#include "common/proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice message = slice_of(data, size);
    struct reflection_request request = {0};
    if (!err_ok(reflection_read(message, &request))) {
        return 0;
    }
    auto_buf struct buf out = BUF_MAX(SIZE_MAX);
    CHECK(err_ok(reflection_add_asked(&out, message, &request)));
    CHECK(err_ok(reflection_add_services(&out, &request.name, 1)));
    struct wire w = wire_of(buf_slice(&out));
    bool echoed = false;
    while (wire_more(&w)) {
        struct wire_field f;
        CHECK(err_ok(wire_next(&w, &f)));
        echoed = echoed || (f.number == 2 && slice_eq(f.bytes, message));
    }
    CHECK(echoed);
    return 0;
}
