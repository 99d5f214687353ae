/*
 * wire: any bytes walk to their end or are refused; the schema check passes nothing that the walker
 * refuses (but for groups deeper than the walker's own bound), and says a place inside of the
 * bytes.
 *
 * The first two bytes size a part of a schema; it, and the payload behind it, are the input's.
 */
#include "common/proto/wire.h"

#include "common/base/check.h"
#include "common/proto/schema.h"

#include "trilane/parts/v1/parts.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool walk(struct slice bytes)
{
    struct wire w = wire_of(bytes);
    struct wire_field field;
    while (wire_more(&w)) { /* ends: each field takes a byte or more. */
        const uint8_t *before = w.at;
        if (!err_ok(wire_next(&w, &field))) {
            return false;
        }
        CHECK(w.at > before && w.at <= w.end);
        CHECK(field.bytes.size <= bytes.size && field.offset < bytes.size);
    }
    return true;
}

static void check(const struct schema *schema, struct slice payload)
{
    struct schema_fault fault = {0};
    bool good = err_ok(schema_check(schema, payload, &fault));
    CHECK(good == (fault.kind == SCHEMA_FAULT_NONE));
    CHECK(fault.offset <= payload.size);
    CHECK(!good || payload.size > WIRE_GROUP_DEPTH_MAX || walk(payload));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)walk(slice_of(data, size));
    if (size < 2) {
        return 0;
    }
    size_t part_size = (size_t)data[0] | (size_t)data[1] << 8;
    struct slice rest = slice_of(data + 2, size - 2);
    if (part_size > rest.size) {
        return 0;
    }
    Trilane__Parts__V1__Schema *part =
        trilane__parts__v1__schema__unpack(NULL, part_size, rest.ptr);
    struct schema *schema = NULL;
    if (part != NULL && err_ok(schema_build(part, &schema))) {
        check(schema, slice_from(rest, part_size));
    }
    schema_free(schema);
    if (part != NULL) {
        trilane__parts__v1__schema__free_unpacked(part, NULL);
    }
    return 0;
}
