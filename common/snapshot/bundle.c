/* bundle: see bundle.h. */
#include "common/snapshot/bundle.h"

#include "common/snapshot/wire.h"

static const struct slice magic = {(const uint8_t *)"TRLB", 4};

static bool key_fits(size_t size)
{
    return size > 0 && size <= BUNDLE_KEY_MAX;
}

static bool count_fits(size_t count)
{
    return count > 0 && count <= BUNDLE_VALUES_MAX;
}

static struct err write_value(const struct bundle_value *v, struct buf *out)
{
    uint8_t header[BUNDLE_VALUE_HEADER_SIZE];
    if (!key_fits(v->key.size) || v->value.size > UINT32_MAX) {
        return FAIL(E_USAGE);
    }
    wire_put16(header, (uint16_t)v->key.size);
    wire_put32(header + 2, (uint32_t)v->value.size);
    TRY(buf_add(out, slice_of(header, sizeof(header))));
    TRY(buf_add(out, v->key));
    return buf_add(out, v->value);
}

struct err bundle_write(const struct bundle_value *values, size_t count, struct buf *out)
{
    uint8_t header[BUNDLE_HEADER_SIZE];
    if (!count_fits(count)) {
        return FAIL(E_USAGE);
    }
    memcpy(header, magic.ptr, magic.size);
    wire_put16(header + 4, BUNDLE_FORMAT);
    wire_put16(header + 6, (uint16_t)count);
    TRY(buf_add(out, slice_of(header, sizeof(header))));
    for (size_t i = 0; i < count; i++) {
        TRY(write_value(&values[i], out));
    }
    return OK;
}

static struct err read_value(struct slice *rest, struct bundle_value *out)
{
    if (rest->size < BUNDLE_VALUE_HEADER_SIZE) {
        return FAIL(E_MALFORMED);
    }
    size_t key_size = wire_get16(rest->ptr);
    size_t value_size = wire_get32(rest->ptr + 2);
    *rest = slice_from(*rest, BUNDLE_VALUE_HEADER_SIZE);
    if (!key_fits(key_size) || key_size > rest->size || value_size > rest->size - key_size) {
        return FAIL(E_MALFORMED);
    }
    out->key = slice_head(*rest, key_size);
    *rest = slice_from(*rest, key_size);
    out->value = slice_head(*rest, value_size);
    *rest = slice_from(*rest, value_size);
    return OK;
}

struct err bundle_read(struct slice bytes, struct bundle *out)
{
    out->count = 0;
    if (bytes.size < BUNDLE_HEADER_SIZE || !slice_starts(bytes, magic) ||
        wire_get16(bytes.ptr + 4) != BUNDLE_FORMAT) {
        return FAIL(E_MALFORMED);
    }
    size_t count = wire_get16(bytes.ptr + 6);
    struct slice rest = slice_from(bytes, BUNDLE_HEADER_SIZE);
    if (!count_fits(count)) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(read_value(&rest, &out->values[i]));
    }
    out->count = rest.size == 0 ? count : 0;
    return rest.size == 0 ? OK : FAIL(E_MALFORMED);
}

bool bundle_find(const struct bundle *b, struct slice key, struct slice *out)
{
    for (size_t i = 0; i < b->count; i++) {
        if (slice_eq(b->values[i].key, key)) {
            *out = b->values[i].value;
            return true;
        }
    }
    return false;
}
