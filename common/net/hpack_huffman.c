/* HPACK's Huffman code. It is canonical: the lengths say all (RFC 7541, appendix B). */
#include "common/net/hpack.h"

enum { SYMBOLS = 257, EOS = 256, LENGTH_MAX = 30, PADDING_MAX = 7 };

/* Codes up to this length are found by one look-up: all of printable text but a few. */
enum { SHORT_BITS = 10 };

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
    uint8_t symbol;
    uint8_t length; /* 0: a longer one. */
};

/* Filled before main() runs; read only from then on. */
static struct short_code short_codes[1 << SHORT_BITS];
static uint16_t by_code[SYMBOLS];            /* symbols in the order of their codes. */
static uint32_t first_code[LENGTH_MAX + 2];  /* of a length, with that many bits. */
static uint16_t first_index[LENGTH_MAX + 2]; /* of its symbol in 'by_code'. */

__attribute__((constructor)) static void fill_codes(void)
{
    uint32_t code = 0;
    uint16_t index = 0;
    for (uint8_t length = 1; length <= LENGTH_MAX; length++) {
        code <<= 1;
        first_code[length] = code;
        first_index[length] = index;
        for (uint16_t symbol = 0; symbol < SYMBOLS; symbol++) {
            if (lengths[symbol] != length) {
                continue;
            }
            by_code[index++] = symbol;
            if (length <= SHORT_BITS) {
                uint32_t low = code << (SHORT_BITS - length);
                for (uint32_t i = 0; i < 1U << (SHORT_BITS - length); i++) {
                    short_codes[low + i] = (struct short_code){(uint8_t)symbol, length};
                }
            }
            code++;
        }
    }
    first_index[LENGTH_MAX + 1] = index;
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

bool hpack_huffman_decode(struct slice coded, uint8_t *out, size_t *out_size)
{
    uint64_t bits = 0; /* the next ones, at the top. */
    unsigned have = 0;
    size_t at = 0;
    uint8_t *to = out;
    for (;;) { /* ends: each round takes bits, or returns. */
        while (have <= 56 && at < coded.size) {
            bits |= (uint64_t)coded.ptr[at++] << (56 - have);
            have += 8;
        }
        struct short_code found = short_codes[bits >> (64 - SHORT_BITS)];
        unsigned length = found.length;
        uint16_t symbol = found.symbol;
        if (length == 0) {
            length = find_long(bits, &symbol);
        }
        if (length == 0 || length > have) {
            break;
        }
        if (symbol == EOS) {
            return false;
        }
        *to++ = (uint8_t)symbol;
        bits <<= length;
        have -= length;
    }
    *out_size = (size_t)(to - out);
    return is_padding(bits, have);
}
