/* Header blocks in: one field after the other (RFC 7541, sections 3 and 6). */
#include "common/net/h2_message.h"
#include "common/net/hpack.h"

/* Bytes that go on with an integer: enough for 32 bits, and no more (section 5.1). */
enum { INTEGER_BYTES = 5 };

void hpack_decoder_init(struct hpack_decoder *d, struct h2_mem *mem)
{
    *d = (struct hpack_decoder){.table = {.mem = mem, .max = HPACK_TABLE_BYTES}};
}

void hpack_decoder_free(struct hpack_decoder *d)
{
    hpack_table_free(&d->table);
}

/* An integer whose first byte has 'bits' of it; false when it is cut or beyond 32 bits. */
static bool read_integer(struct hpack_block *b, unsigned bits, uint32_t *out)
{
    uint32_t most = (1U << bits) - 1;
    uint64_t value = *b->at++ & most;
    if (value < most) {
        *out = (uint32_t)value;
        return true;
    }
    for (unsigned i = 0; i < INTEGER_BYTES; i++) {
        if (b->at == b->end) {
            return false;
        }
        uint8_t byte = *b->at++;
        value += (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            *out = (uint32_t)value;
            return value <= UINT32_MAX;
        }
    }
    return false;
}

/* A string literal; a coded one is decoded to the scratch, which moves on. */
static bool read_string(struct hpack_block *b, uint8_t **scratch, struct slice *out)
{
    if (b->at == b->end) {
        return false;
    }
    bool coded = (*b->at & 0x80) != 0;
    uint32_t size = 0;
    if (!read_integer(b, /* bits= */ 7, &size) || size > (size_t)(b->end - b->at)) {
        return false;
    }
    *out = slice_of(b->at, size);
    b->at += size;
    if (!coded) {
        return true;
    }
    size_t decoded = 0;
    if (!hpack_huffman_decode(*out, *scratch, &decoded)) {
        return false;
    }
    *out = slice_of(*scratch, decoded);
    *scratch += decoded;
    return true;
}

/* A name that both tables number. */
static bool name_at(const struct hpack_table *t, uint32_t index, struct hpack_field *out)
{
    if (index <= HPACK_STATIC_COUNT) {
        out->name = hpack_statics[index].name;
        out->token = hpack_statics[index].token;
        return index > 0;
    }
    index -= HPACK_STATIC_COUNT;
    if (index > t->added - t->evicted) {
        return false;
    }
    const struct hpack_entry *entry = hpack_table_entry(t, t->added - index);
    out->name = hpack_entry_name(t, entry);
    out->token = entry->token;
    return true;
}

static enum hpack_step read_indexed(const struct hpack_table *t, struct hpack_block *b,
                                    struct hpack_field *out)
{
    uint32_t index = 0;
    if (!read_integer(b, /* bits= */ 7, &index) || !name_at(t, index, out)) {
        return HPACK_BROKEN;
    }
    if (index <= HPACK_STATIC_COUNT) {
        out->value = hpack_statics[index].value;
        out->static_value = true;
        out->valid = true;
        return HPACK_FIELD;
    }
    const struct hpack_entry *entry = hpack_table_entry(t, t->added - (index - HPACK_STATIC_COUNT));
    out->value = hpack_entry_value(t, entry);
    out->valid = entry->valid;
    return HPACK_FIELD;
}

static bool read_literal(const struct hpack_table *t, struct hpack_block *b, unsigned bits,
                         struct hpack_field *out)
{
    uint32_t index = 0;
    uint8_t *scratch = b->scratch;
    if (!read_integer(b, bits, &index)) {
        return false;
    }
    bool named = index == 0;
    if (named) {
        if (!read_string(b, &scratch, &out->name)) {
            return false;
        }
        out->token = (uint8_t)h2_token_find(out->name);
    } else if (!name_at(t, index, out)) {
        return false;
    }
    if (!read_string(b, &scratch, &out->value)) {
        return false;
    }
    out->valid = h2_value_is_valid(out->value) &&
                 (out->token != H2_TOKEN_OTHER || h2_name_is_valid(out->name));
    return true;
}

static enum hpack_step read_field(struct hpack_decoder *d, struct hpack_block *b,
                                  struct hpack_field *out)
{
    uint8_t first = *b->at;
    bool indexing = (first & 0xc0) == 0x40;
    out->never_index = (first & 0xf0) == 0x10;
    if (!read_literal(&d->table, b, indexing ? 6 : 4, out)) {
        return HPACK_BROKEN;
    }
    if (!indexing) {
        return HPACK_FIELD;
    }
    struct hpack_entry like = {.token = out->token, .valid = out->valid};
    /* The name may lie in an entry that goes now, and in bytes that move: it is read from the new
     * one, unless that was too large to become one. */
    uint32_t added = d->table.added;
    bool stays = out->name.size + out->value.size + HPACK_ENTRY_OVERHEAD <= d->table.max;
    if (!hpack_table_add(&d->table, out->name, out->value, &like)) {
        return HPACK_NO_MEMORY;
    }
    if (stays) {
        const struct hpack_entry *entry = hpack_table_entry(&d->table, added);
        out->name = hpack_entry_name(&d->table, entry);
        out->value = hpack_entry_value(&d->table, entry);
    }
    return HPACK_FIELD;
}

enum hpack_step hpack_next(struct hpack_decoder *d, struct hpack_block *b, struct hpack_field *out)
{
    *out = (struct hpack_field){0};
    while (b->at < b->end) { /* ends: each round takes bytes, or returns. */
        uint8_t first = *b->at;
        if ((first & 0x80) != 0) {
            b->begun = true;
            return read_indexed(&d->table, b, out);
        }
        if ((first & 0xe0) != 0x20) {
            b->begun = true;
            return read_field(d, b, out);
        }
        uint32_t max = 0;
        if (b->begun || !read_integer(b, /* bits= */ 5, &max) || max > HPACK_TABLE_BYTES) {
            return HPACK_BROKEN;
        }
        hpack_table_resize(&d->table, max);
    }
    return HPACK_END;
}
