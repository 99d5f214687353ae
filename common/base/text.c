/* text: see text.h. */
#include "common/base/text.h"

#include <string.h>

#include "common/base/check.h"

enum { DISTANCE_MAX = 64 };

/* Two digits a byte; and a digit's value, 255 for what is none. Filled before main() runs. */
static char hex_pairs[256][2];
static uint8_t hex_values[256];
static uint8_t base64_values[256];

__attribute__((constructor)) static void fill_tables(void)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 256; i++) {
        hex_pairs[i][0] = digits[i >> 4];
        hex_pairs[i][1] = digits[i & 15];
        hex_values[i] = 255;
        base64_values[i] = 255;
    }
    for (uint8_t i = 0; i < 64; i++) {
        base64_values[(uint8_t)alphabet[i]] = i;
    }
    for (uint8_t i = 0; i < 16; i++) {
        hex_values[(uint8_t)digits[i]] = i;
        hex_values[(uint8_t) "0123456789ABCDEF"[i]] = i;
    }
}

void text_hex(struct slice bytes, char *out)
{
    for (size_t i = 0; i < bytes.size; i++) {
        (void)memcpy(out + 2 * i, hex_pairs[bytes.ptr[i]], 2);
    }
    out[2 * bytes.size] = '\0';
}

struct err text_unhex(struct slice hex, uint8_t *out, size_t size)
{
    if (hex.size / 2 != size || hex.size % 2 != 0) {
        return FAIL(E_MALFORMED);
    }
    uint8_t seen = 0; /* the high bits of all values: set by a byte that is no digit. */
    for (size_t i = 0; i < hex.size; i++) {
        seen |= hex_values[hex.ptr[i]];
    }
    if (seen > 15) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(hex_values[hex.ptr[2 * i]] << 4 | hex_values[hex.ptr[2 * i + 1]]);
    }
    return OK;
}

/* The 24 bits of four characters; above them when one is none. */
static uint32_t base64_group(const uint8_t *at)
{
    uint32_t a = base64_values[at[0]];
    uint32_t b = base64_values[at[1]];
    uint32_t c = base64_values[at[2]];
    uint32_t d = base64_values[at[3]];
    return (a | b | c | d) > 63 ? UINT32_MAX : a << 18 | b << 12 | c << 6 | d;
}

/* The last group: 'over' characters of it are padding; what they leave over is zero. */
static struct err base64_end(const uint8_t *at, size_t over, uint8_t *out)
{
    uint8_t group[4] = {at[0], at[1], over > 1 ? 'A' : at[2], over > 0 ? 'A' : at[3]};
    uint32_t bits = base64_group(group);
    uint32_t left = over > 0 ? (1U << (8 * over)) - 1 : 0;
    if (bits == UINT32_MAX || (bits & left) != 0) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i + over < 3; i++) {
        out[i] = (uint8_t)(bits >> (16 - 8 * i));
    }
    return OK;
}

struct err text_unbase64(struct slice text, uint8_t *out, size_t *out_size)
{
    if (text.size % 4 != 0) {
        return FAIL(E_MALFORMED);
    }
    if (text.size == 0) {
        *out_size = 0;
        return OK;
    }
    size_t over = 0;
    while (over < 2 && text.ptr[text.size - 1 - over] == '=') {
        over++;
    }
    uint8_t *to = out;
    for (size_t at = 0; at + 4 < text.size; at += 4) {
        uint32_t bits = base64_group(text.ptr + at);
        if (bits == UINT32_MAX) {
            return FAIL(E_MALFORMED);
        }
        *to++ = (uint8_t)(bits >> 16);
        *to++ = (uint8_t)(bits >> 8);
        *to++ = (uint8_t)bits;
    }
    TRY(base64_end(text.ptr + text.size - 4, over, to));
    *out_size = (size_t)(to - out) + 3 - over;
    return OK;
}

bool text_is_name(struct slice s)
{
    if (s.size == 0 || s.size > 63 || s.ptr[0] == '-' || s.ptr[s.size - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return true;
}

/* Size of the UTF-8 sequence at the front of 's', or 0 when it is not valid. */
static size_t utf8_size(struct slice s)
{
    uint8_t c = s.ptr[0];
    if (c < 0x80) {
        return 1;
    }
    size_t size = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || s.size < size) {
        return 0;
    }
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (s.ptr[1] < low || s.ptr[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((s.ptr[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

/* Bytes at the front that are ASCII, eight at a time. */
static size_t ascii_size(struct slice s)
{
    size_t at = 0;
    for (uint64_t word = 0; at + sizeof(word) <= s.size; at += sizeof(word)) {
        (void)memcpy(&word, s.ptr + at, sizeof(word));
        if ((word & UINT64_C(0x8080808080808080)) != 0) {
            break;
        }
    }
    return at;
}

bool text_is_utf8(struct slice s)
{
    s = slice_from(s, ascii_size(s));
    while (s.size > 0) {
        size_t size = utf8_size(s);
        if (size == 0) {
            return false;
        }
        s = slice_from(s, size);
    }
    return true;
}

bool text_glob(struct slice pattern, struct slice text)
{
    size_t p = 0;
    size_t t = 0;
    size_t star = SIZE_MAX; /* pattern index behind the last '*' met. */
    size_t star_text = 0;   /* where its run ends for now. */
    while (t < text.size) {
        if (p < pattern.size && pattern.ptr[p] == '*') {
            star = ++p;
            star_text = t;
        } else if (p < pattern.size && (pattern.ptr[p] == '?' || pattern.ptr[p] == text.ptr[t])) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.ptr[p] == '*') {
        p++;
    }
    return p == pattern.size;
}

struct slice text_glob_front(struct slice pattern)
{
    size_t end = 0;
    while (end < pattern.size && pattern.ptr[end] != '*' && pattern.ptr[end] != '?') {
        end++;
    }
    return slice_head(pattern, end);
}

bool text_is_glob(struct slice pattern)
{
    return text_glob_front(pattern).size < pattern.size;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t text_distance(struct slice a, struct slice b)
{
    if (a.size > DISTANCE_MAX || b.size > DISTANCE_MAX) {
        return SIZE_MAX;
    }
    size_t rows[3][DISTANCE_MAX + 1];
    for (size_t j = 0; j <= b.size; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a.size; i++) {
        size_t *now = rows[i % 3];
        const size_t *before = rows[(i + 2) % 3];
        const size_t *two_before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            size_t change = before[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            now[j] = least(change, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1]) {
                now[j] = least(now[j], two_before[j - 2] + 1);
            }
        }
    }
    return rows[a.size % 3][b.size];
}
