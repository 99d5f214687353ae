/* slice: see slice.h. */
#include "common/base/slice.h"

#include <stdlib.h>

#include "common/base/check.h"

/* Decimal digits that the largest number of 64 bits has. */
enum { U64_DIGITS = 20 };

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool slice_eq_nocase(struct slice a, struct slice b)
{
    if (a.size != b.size) {
        return false;
    }
    if (slice_eq(a, b)) {
        return true; /* nearly always: names come in lower case. */
    }
    for (size_t i = 0; i < a.size; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

struct slice slice_trim(struct slice s)
{
    while (s.size > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s = slice_from(s, 1);
    }
    while (s.size > 0 && (s.ptr[s.size - 1] == ' ' || s.ptr[s.size - 1] == '\t')) {
        s.size--;
    }
    return s;
}

bool slice_to_u64(struct slice s, uint64_t *out)
{
    if (s.size == 0 || s.size > U64_DIGITS) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < s.size; i++) {
        uint8_t digit = (uint8_t)(s.ptr[i] - '0');
        bool last = i == U64_DIGITS - 1; /* nothing before it can be too much. */
        if (digit > 9 || (last && value > (UINT64_MAX - digit) / 10)) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

char *slice_dup(struct slice s)
{
    char *copy = malloc(s.size + 1);
    CHECK(copy != NULL);
    if (s.size > 0) {
        (void)memcpy(copy, s.ptr, s.size);
    }
    copy[s.size] = '\0';
    return copy;
}

void slice_free(struct slice s)
{
    union {
        const uint8_t *given;
        void *owned;
    } bytes = {.given = s.ptr};
    free(bytes.owned);
}
