/*
 * envelope: any bytes decode or are refused; what decoded lies inside of the bytes, its maps can be
 * walked as often as they were counted, and what is appended holds afterwards.
 */
#include "common/bus/envelope.h"

#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lies_inside(struct slice part, struct slice whole)
{
    CHECK(part.size == 0 ||
          (part.ptr >= whole.ptr && part.ptr + part.size <= whole.ptr + whole.size));
}

static void count_entries(const struct envelope *e, enum envelope_map map, uint32_t expected)
{
    struct envelope_walk walk = envelope_walk(e, map);
    struct slice key;
    struct slice value;
    uint32_t count = 0;
    while (envelope_walk_next(&walk, &key, &value)) { /* ends: the bytes do. */
        lies_inside(key, e->bytes);
        lies_inside(value, e->bytes);
        struct slice held;
        CHECK(envelope_find(e, map, key, &held));
        count++;
    }
    CHECK(count == expected);
}

static void append_holds(const struct envelope *e)
{
    struct envelope_entry header = {SLICE_LIT("caller-id"), SLICE_LIT("verified")};
    struct envelope_addition addition = {
        .tenant = SLICE_LIT("acme"), .time_ms = 7, .headers = &header, .header_count = 1};
    auto_buf struct buf b = BUF_MAX(1 << 20);
    struct envelope after;
    struct slice value;
    CHECK(err_ok(buf_add(&b, e->bytes)));
    CHECK(err_ok(envelope_append(&addition, &b)));
    if (!err_ok(envelope_decode(buf_slice(&b), &after))) {
        return; /* it was at a bound. */
    }
    CHECK(slice_eq(after.tenant, addition.tenant) && after.time_ms == 7);
    CHECK(envelope_find(&after, ENVELOPE_HEADERS, header.key, &value));
    CHECK(slice_eq(value, header.value) && slice_eq(after.payload, e->payload));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct envelope e;
    if (!err_ok(envelope_decode(slice_of(data, size), &e))) {
        return 0;
    }
    const struct slice parts[] = {e.trace_id, e.event_id, e.canonical_type, e.payload, e.key,
                                  e.tenant,   e.source,   e.key_id,         e.scheme,  e.signature};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        lies_inside(parts[i], e.bytes);
    }
    count_entries(&e, ENVELOPE_TRAITS, e.trait_count);
    count_entries(&e, ENVELOPE_HEADERS, e.header_count);
    count_entries(&e, ENVELOPE_EXTENSIONS, e.extension_count);
    append_holds(&e);
    return 0;
}
