/* HPACK's Huffman code. It is canonical: the lengths say all (RFC 7541, appendix B). */
#include <endian.h>
#include <string.h>

#include "common/net/hpack.h"

enum { SYMBOLS = 257, EOS = 256, LENGTH_MAX = 30, PADDING_MAX = 7 };

/* Codes up to this length are found by one look-up, all of printable text but a few; and two of
 * them at once where both fit: digits, and most letters. */
enum { SHORT_BITS = 11 };

static const uint8_t lengths[SYMBOLS] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, //
    30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, //
    8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10, 13, 6,  //
    7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  //
    8,  7,  8,  13, 19, 13, 14, 6,  15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  //
    6,  5,  6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, //
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, //
    22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, //
    22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, //
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, //
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};

struct short_code {
    uint8_t symbols[2];
    uint8_t length; /* of all of them; 0: a longer one. */
    uint8_t count;
};

/* Filled before main() runs; read only from then on. */
static struct short_code short_codes[1 << SHORT_BITS];
static uint16_t by_code[SYMBOLS];            /* symbols in the order of their codes. */
static uint32_t first_code[LENGTH_MAX + 2];  /* of a length, with that many bits. */
static uint16_t first_index[LENGTH_MAX + 2]; /* of its symbol in 'by_code'. */

/* Behind a code that is short enough there is room for another one. */
static void add_seconds(void)
{
    static struct short_code alone[1 << SHORT_BITS];
    memcpy(alone, short_codes, sizeof(alone));
    for (uint32_t i = 0; i < 1U << SHORT_BITS; i++) {
        struct short_code first = alone[i];
        struct short_code second = alone[(i << first.length) & ((1U << SHORT_BITS) - 1)];
        if (first.count == 1 && second.count == 1 && first.length + second.length <= SHORT_BITS) {
            short_codes[i].symbols[1] = second.symbols[0];
            short_codes[i].length = (uint8_t)(first.length + second.length);
            short_codes[i].count = 2;
        }
    }
}

__attribute__((constructor)) static void fill_codes(void)
{
    uint32_t code = 0;
    uint16_t index = 0;
    for (uint32_t length = 1; length <= LENGTH_MAX; length++) {
        code <<= 1;
        first_code[length] = code;
        first_index[length] = index;
        for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
            if (lengths[symbol] != length) {
                continue;
            }
            by_code[index++] = (uint16_t)symbol;
            if (length <= SHORT_BITS) {
                uint32_t low = code << (SHORT_BITS - length);
                for (uint32_t i = 0; i < 1U << (SHORT_BITS - length); i++) {
                    short_codes[low + i] = (struct short_code){
                        .symbols = {(uint8_t)symbol}, .length = (uint8_t)length, .count = 1};
                }
            }
            code++;
        }
    }
    first_index[LENGTH_MAX + 1] = index;
    add_seconds();
}

/* A code of more than SHORT_BITS at the top of 'bits'; its length, or 0 when there is none. */
static unsigned find_long(uint64_t bits, uint16_t *out_symbol)
{
    for (unsigned length = SHORT_BITS + 1; length <= LENGTH_MAX; length++) {
        uint32_t code = (uint32_t)(bits >> (64 - length));
        uint32_t count = (uint32_t)first_index[length + 1] - first_index[length];
        if (code - first_code[length] < count) {
            *out_symbol = by_code[first_index[length] + (code - first_code[length])];
            return length;
        }
    }
    return 0;
}

/* What is left is shorter than a byte and all ones (section 5.2). */
static bool is_padding(uint64_t bits, unsigned have)
{
    return have <= PADDING_MAX && (have == 0 || bits >> (64 - have) == (1U << have) - 1);
}

/* A string on its way through. */
struct decoding {
    struct slice coded;
    size_t at;     /* how many bytes of it were loaded. */
    uint64_t bits; /* the next ones, at the top. What stands behind 'have' of them is right, too. */
    unsigned have;
    uint8_t *to;
    bool end; /* EOS was found, which no string has. */
};

/* The next eight bytes, or what is left of them, with the first at the top. */
static uint64_t peek(const struct decoding *d)
{
    uint64_t bits = 0;
    size_t left = d->coded.size - d->at;
    if (left >= sizeof(bits)) {
        memcpy(&bits, d->coded.ptr + d->at, sizeof(bits));
        return be64toh(bits);
    }
    if (left > 0 && d->coded.size >= sizeof(bits)) { /* those at the end, without the first. */
        memcpy(&bits, d->coded.ptr + d->coded.size - sizeof(bits), sizeof(bits));
        return be64toh(bits) << (8 * (sizeof(bits) - left));
    }
    for (size_t i = 0; i < left; i++) {
        bits |= (uint64_t)d->coded.ptr[d->at + i] << (56 - 8 * i);
    }
    return bits;
}

/* Whole bytes that fit behind what is there: more than the longest code, while there are so many.
 */
static void load(struct decoding *d)
{
    size_t left = d->coded.size - d->at;
    size_t more = (63 - d->have) / 8;
    more = more < left ? more : left;
    d->bits |= peek(d) >> d->have;
    d->have += (unsigned)(8 * more);
    d->at += more;
}

/* Short codes while they are whole, by one or two; whether there were any. */
static bool take_short(struct decoding *d)
{
    unsigned before = d->have;
    const struct short_code *found = &short_codes[d->bits >> (64 - SHORT_BITS)];
    while (found->count > 0 && found->length <= d->have) {
        d->to[0] = found->symbols[0];
        d->to[1] = found->symbols[1];
        d->to += found->count;
        d->bits <<= found->length;
        d->have -= found->length;
        found = &short_codes[d->bits >> (64 - SHORT_BITS)];
    }
    return d->have < before;
}

/* One code; false: no whole one is left. */
static bool take_one(struct decoding *d)
{
    const struct short_code *found = &short_codes[d->bits >> (64 - SHORT_BITS)];
    uint16_t symbol = found->symbols[0];
    unsigned length = found->count > 0 ? lengths[symbol] : find_long(d->bits, &symbol);
    if (length == 0 || length > d->have) {
        return false;
    }
    d->end = symbol == EOS;
    *d->to++ = (uint8_t)symbol;
    d->bits <<= length;
    d->have -= length;
    return true;
}

bool hpack_huffman_decode(struct slice coded, uint8_t *out, size_t *out_size)
{
    struct decoding d = {.coded = coded};
    d.to = out;
    do { /* ends: each round takes bits. */
        load(&d);
    } while (!d.end && (take_short(&d) || take_one(&d)));
    *out_size = (size_t)(d.to - out);
    return !d.end && is_padding(d.bits, d.have);
}
