/*
 * hpack: header compression for HTTP/2, both ways.
 *
 * Shape      A decoder reads a whole header block field by field; an encoder writes one. Each has
 *            a dynamic table, which takes no memory before the first entry. Fields bear tokens
 *            (h2_field.h): the static table and the entries of the dynamic ones know theirs.
 * Units      bytes; the size of a table counts 32 more an entry (RFC 7541, section 4.1).
 * Ownership  What hpack_next() hands out is borrowed until the next call of it, on this decoder or
 *            another with the same scratch. Tables take their memory from the h2_mem given at the
 *            start and give it back with hpack_decoder_free() and hpack_encoder_free().
 * Threads    one worker.
 * Errors     see enum hpack_step; a broken block breaks the connection (COMPRESSION_ERROR), since
 *            the two tables are no longer the same.
 * Source     RFC 7541. Literals of ours are sent as they are, never Huffman coded: what repeats is
 *            sent as a number, and what does not is not worth the time of both sides.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "common/net/h2_field.h"
#include "common/net/h2_mem.h"

/* Largest dynamic table of either direction: the default of SETTINGS_HEADER_TABLE_SIZE. */
enum { HPACK_TABLE_BYTES = 4096 };

/* What an entry counts more than its bytes. */
enum { HPACK_ENTRY_OVERHEAD = 32 };

/* ---- the dynamic table ---- */

struct hpack_entry {
    uint32_t at; /* of the name's first byte, counted from the table's first ever; it may wrap. */
    uint32_t hash;
    uint16_t name_size;
    uint16_t value_size;
    uint8_t token; /* enum h2_token. */
    bool valid;    /* name and value have no byte that a message may not have. */
};

/* Zeroed, but for 'mem' and 'max', it is empty. */
struct hpack_table {
    struct h2_mem *mem;
    struct hpack_entry *entries; /* entry n is at n modulo 'capacity', a power of two. */
    uint8_t *bytes;              /* names and values, the oldest first. */
    uint32_t capacity;           /* entries that have room. */
    uint32_t added;              /* entries ever; wraps. */
    uint32_t evicted;            /* of those, gone. */
    uint32_t room;               /* bytes of 'bytes'. */
    uint32_t end;                /* bytes of it that are used. */
    uint32_t base;               /* what bytes[0] counts as in an entry's 'at'. */
    uint32_t size;               /* as RFC 7541 counts. */
    uint32_t max;
};

/* Adds an entry, evicting what has to go; name and value may lie in the table itself. One that is
 * larger than the table empties it and is not added, which is no error. False: out of memory; what
 * had to go is gone all the same. */
bool hpack_table_add(struct hpack_table *t, struct slice name, struct slice value,
                     const struct hpack_entry *like);

/* Evicts down to a new bound. */
void hpack_table_resize(struct hpack_table *t, uint32_t max);

/* Entry n, of evicted <= n < added, and its bytes until the table changes. */
static inline const struct hpack_entry *hpack_table_entry(const struct hpack_table *t, uint32_t n)
{
    return &t->entries[n & (t->capacity - 1)];
}
struct slice hpack_entry_name(const struct hpack_table *t, const struct hpack_entry *e);
struct slice hpack_entry_value(const struct hpack_table *t, const struct hpack_entry *e);
void hpack_table_free(struct hpack_table *t);

/* ---- the static table: index 1 to 61 (RFC 7541, appendix A) ---- */

enum { HPACK_STATIC_COUNT = 61 };

struct hpack_static {
    struct slice name;
    struct slice value;
    uint8_t token;
};

extern const struct hpack_static *const hpack_statics; /* [0] is not used. */

/* The first static index whose name is a token's; 0: none. */
uint8_t hpack_static_of(enum h2_token token);

/* ---- Huffman coded strings (RFC 7541, appendix B) ---- */

/* Room that 'size' coded bytes decode in: the shortest code has five bits, and two symbols are
 * written where one is meant. */
static inline size_t hpack_huffman_bound(size_t size)
{
    return size * 8 / 5 + 1;
}

/* Decodes into 'out', which has room for hpack_huffman_bound() bytes. False: a code that there is
 * not, or an end that is no padding. */
bool hpack_huffman_decode(struct slice coded, uint8_t *out, size_t *out_size);

/* ---- decoding ---- */

struct hpack_decoder {
    struct hpack_table table;
};

/* A header block on its way through. */
struct hpack_block {
    const uint8_t *at;
    const uint8_t *end;
    uint8_t *scratch; /* where coded strings are decoded to. */
    bool begun;       /* a field was read: no more changes of the table's size. */
};

/* One field. */
struct hpack_field {
    struct slice name;
    struct slice value;
    uint8_t token;
    bool static_value; /* the value's bytes live for ever. */
    bool never_index;  /* the peer wants it in no table, here or behind us. */
    bool valid;        /* see hpack_entry. */
};

enum hpack_step { HPACK_FIELD, HPACK_END, HPACK_BROKEN, HPACK_NO_MEMORY };

void hpack_decoder_init(struct hpack_decoder *d, struct h2_mem *mem);
void hpack_decoder_free(struct hpack_decoder *d);

/* Bytes of scratch that a block of that size may take. */
static inline size_t hpack_scratch_bound(size_t block_size)
{
    return hpack_huffman_bound(block_size) + 16;
}

/* The next field of the block. */
enum hpack_step hpack_next(struct hpack_decoder *d, struct hpack_block *block,
                           struct hpack_field *out);

/* ---- encoding ---- */

enum { HPACK_SLOTS = 64 };

struct hpack_encoder {
    struct hpack_table table;
    uint32_t told_max;              /* what the peer knows of our table's bound. */
    uint32_t least_max;             /* the least that it was since then. */
    uint32_t slots[HPACK_SLOTS];    /* by hash of name and value: an entry's number, perhaps. */
    uint32_t names[H2_TOKEN_COUNT]; /* by token: the same of the last entry with that name. */
};

void hpack_encoder_init(struct hpack_encoder *e, struct h2_mem *mem);
void hpack_encoder_free(struct hpack_encoder *e);

/* The peer's SETTINGS_HEADER_TABLE_SIZE: what our table may have from the next block on. */
void hpack_encoder_limit(struct hpack_encoder *e, uint32_t bytes);

/* Bytes that a block of these fields takes at most. */
size_t hpack_encoded_bound(const struct h2_field *fields, size_t count);

/* Writes the block to 'out', which has room for the bound; returns its size. It has to be sent,
 * in the order in which blocks were written. Without memory for an entry it is sent as a literal.
 */
size_t hpack_encode(struct hpack_encoder *e, const struct h2_field *fields, size_t count,
                    uint8_t *out);
