/* Header blocks out. */
#include <string.h>

#include "common/net/hpack.h"

/* How a literal begins, and how many bits of its first byte are the name's number (RFC 7541,
 * section 6.2). */
struct literal {
    uint8_t first;
    uint8_t bits;
};

static const struct literal indexing = {0x40, 6};
static const struct literal plain = {0x00, 4};
static const struct literal never = {0x10, 4};

/* Bytes that a field takes beside its name and value at most: three numbers. */
enum { FIELD_OVERHEAD = 16 };

/* Bytes that two changes of the table's size take. */
enum { RESIZES_BYTES = 12 };

/* A field whose entry would be larger evicts too much of what repeats. */
enum { INDEXED_MAX_SHARE = 4 };

void hpack_encoder_init(struct hpack_encoder *e, struct h2_mem *mem)
{
    *e = (struct hpack_encoder){.table = {.mem = mem, .max = HPACK_TABLE_BYTES},
                                .told_max = HPACK_TABLE_BYTES,
                                .least_max = HPACK_TABLE_BYTES};
}

void hpack_encoder_free(struct hpack_encoder *e)
{
    hpack_table_free(&e->table);
}

void hpack_encoder_limit(struct hpack_encoder *e, uint32_t bytes)
{
    uint32_t max = bytes < HPACK_TABLE_BYTES ? bytes : HPACK_TABLE_BYTES;
    hpack_table_resize(&e->table, max);
    e->least_max = max < e->least_max ? max : e->least_max;
}

size_t hpack_encoded_bound(const struct h2_field *fields, size_t count)
{
    size_t bound = RESIZES_BYTES;
    for (size_t i = 0; i < count; i++) {
        bound += fields[i].name.size + fields[i].value.size + FIELD_OVERHEAD;
    }
    return bound;
}

static uint8_t *put_integer(uint8_t *to, uint8_t first, unsigned bits, uint32_t value)
{
    uint32_t most = (1U << bits) - 1;
    if (value < most) {
        *to++ = (uint8_t)(first | value);
        return to;
    }
    *to++ = (uint8_t)(first | most);
    value -= most;
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_string(uint8_t *to, struct slice s)
{
    to = put_integer(to, 0, /* bits= */ 7, (uint32_t)s.size);
    if (s.size > 0) {
        memcpy(to, s.ptr, s.size);
    }
    return to + s.size;
}

/* ---- what the table has ---- */

/* Whether an entry of that number is there; 'slot' is one more, and 0 for none. */
static bool is_there(const struct hpack_table *t, uint32_t slot)
{
    uint32_t n = slot - 1;
    return slot != 0 && n - t->evicted < t->added - t->evicted;
}

static uint32_t index_of(const struct hpack_table *t, uint32_t n)
{
    return HPACK_STATIC_COUNT + (t->added - n);
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* For a table of our own peer's making: nobody gains by a collision but a literal. */
static uint64_t hash_bytes(uint64_t hash, struct slice s)
{
    while (s.size >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, s.ptr, sizeof(word));
        hash = mix(hash, word);
        s = slice_from(s, sizeof(word));
    }
    uint64_t last = s.size;
    for (size_t i = 0; i < s.size; i++) {
        last = last << 8 | s.ptr[i];
    }
    return mix(hash, last);
}

static uint32_t hash_of(const struct h2_field *f)
{
    uint64_t hash = f->token == H2_TOKEN_OTHER ? hash_bytes(H2_TOKEN_COUNT, f->name) : f->token;
    return (uint32_t)(hash_bytes(hash, f->value) >> 32);
}

static bool is_same(const struct hpack_table *t, const struct hpack_entry *entry,
                    const struct h2_field *f, uint32_t hash)
{
    return entry->hash == hash && entry->token == f->token &&
           slice_eq(hpack_entry_value(t, entry), f->value) &&
           (f->token != H2_TOKEN_OTHER || slice_eq(hpack_entry_name(t, entry), f->name));
}

/* The number of the whole field in the static table; 0: it is not there. The rows of a name stand
 * together. */
static uint8_t static_field(const struct h2_field *f)
{
    uint8_t i = hpack_static_of(f->token);
    for (; i != 0 && i <= HPACK_STATIC_COUNT && hpack_statics[i].token == f->token; i++) {
        if (slice_eq(hpack_statics[i].value, f->value)) {
            return i;
        }
    }
    return 0;
}

/* Whether the newest entry with the field's name is there, and its number; a name without a token
 * has none. */
static bool newest_of_name(const struct hpack_encoder *e, const struct h2_field *f, uint32_t *out)
{
    uint32_t slot = e->names[f->token];
    *out = slot - 1;
    return f->token != H2_TOKEN_OTHER && is_there(&e->table, slot) &&
           hpack_table_entry(&e->table, *out)->token == f->token; /* numbers wrap. */
}

static uint32_t name_index(const struct hpack_encoder *e, const struct h2_field *f)
{
    uint32_t index = hpack_static_of(f->token);
    uint32_t newest = 0;
    if (index == 0 && newest_of_name(e, f, &newest)) {
        index = index_of(&e->table, newest);
    }
    return index;
}

/* ---- a field ---- */

static uint8_t *put_literal(uint8_t *to, struct literal kind, uint32_t name,
                            const struct h2_field *f)
{
    to = put_integer(to, kind.first, kind.bits, name);
    if (name == 0) {
        to = put_string(to, f->name);
    }
    return put_string(to, f->value);
}

static bool fits(const struct hpack_encoder *e, const struct h2_field *f)
{
    return f->name.size + f->value.size + HPACK_ENTRY_OVERHEAD <= e->table.max / INDEXED_MAX_SHARE;
}

/* A literal that becomes an entry on both sides. */
static uint8_t *put_new(struct hpack_encoder *e, uint8_t *to, const struct h2_field *f,
                        uint32_t hash)
{
    uint32_t name = name_index(e, f);
    struct hpack_entry like = {.hash = hash, .token = f->token};
    uint32_t n = e->table.added;
    if (!fits(e, f) || !hpack_table_add(&e->table, f->name, f->value, &like)) {
        return put_literal(to, plain, name, f);
    }
    e->slots[hash % HPACK_SLOTS] = n + 1;
    e->names[f->token] = n + 1;
    return put_literal(to, indexing, name, f);
}

/* Its value is new each time: all that is worth an entry is the name. */
static uint8_t *put_varying(struct hpack_encoder *e, uint8_t *to, const struct h2_field *f)
{
    uint32_t name = name_index(e, f);
    if (name == 0 && f->token != H2_TOKEN_OTHER) {
        return put_new(e, to, f, /* hash= */ 0);
    }
    return put_literal(to, plain, name, f);
}

static uint8_t *put_field(struct hpack_encoder *e, uint8_t *to, const struct h2_field *f)
{
    if ((f->flags & H2_FIELD_NEVER_INDEX) != 0) {
        return put_literal(to, never, name_index(e, f), f);
    }
    if ((f->flags & H2_FIELD_VARIES) != 0) {
        return put_varying(e, to, f);
    }
    uint8_t fixed = f->token == H2_TOKEN_OTHER ? 0 : static_field(f);
    if (fixed != 0) {
        return put_integer(to, 0x80, /* bits= */ 7, fixed);
    }
    /* Most of what a peer is told is what it was told the last time. */
    uint32_t newest = 0;
    if (newest_of_name(e, f, &newest) &&
        slice_eq(hpack_entry_value(&e->table, hpack_table_entry(&e->table, newest)), f->value)) {
        return put_integer(to, 0x80, /* bits= */ 7, index_of(&e->table, newest));
    }
    uint32_t hash = hash_of(f);
    uint32_t slot = e->slots[hash % HPACK_SLOTS];
    if (is_there(&e->table, slot) &&
        is_same(&e->table, hpack_table_entry(&e->table, slot - 1), f, hash)) {
        return put_integer(to, 0x80, /* bits= */ 7, index_of(&e->table, slot - 1));
    }
    return put_new(e, to, f, hash);
}

/* A bound that went down and up again in between is told twice (section 4.2). */
static uint8_t *put_resizes(struct hpack_encoder *e, uint8_t *to)
{
    if (e->least_max < e->told_max && e->least_max < e->table.max) {
        to = put_integer(to, 0x20, /* bits= */ 5, e->least_max);
        e->told_max = e->least_max;
    }
    if (e->told_max != e->table.max) {
        to = put_integer(to, 0x20, /* bits= */ 5, e->table.max);
        e->told_max = e->table.max;
    }
    e->least_max = e->table.max;
    return to;
}

size_t hpack_encode(struct hpack_encoder *e, const struct h2_field *fields, size_t count,
                    uint8_t *out)
{
    uint8_t *to = put_resizes(e, out);
    for (size_t i = 0; i < count; i++) {
        to = put_field(e, to, &fields[i]);
    }
    return (size_t)(to - out);
}
