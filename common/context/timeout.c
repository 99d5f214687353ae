/* timeout: see timeout.h. */
#include "common/context/timeout.h"

#include "common/base/check.h"

struct unit {
    char letter;
    uint64_t ns;
};

/* Finest first. */
static const struct unit units[] = {
    {'n', 1},
    {'u', 1000},
    {'m', 1000000},
    {'S', UINT64_C(1000000000)},
    {'M', UINT64_C(60) * 1000000000},
    {'H', UINT64_C(3600) * 1000000000},
};

enum { UNIT_COUNT = sizeof(units) / sizeof(units[0]), GRPC_DIGITS = 8, MS_DIGITS = 12 };

static const uint64_t grpc_value_end = 100000000; /* the first that takes nine digits. */

static struct err parse(struct slice digits, size_t digits_max, uint64_t unit_ns, uint64_t *out_ns)
{
    uint64_t value = 0;
    if (digits.size > digits_max || !slice_to_u64(digits, &value)) {
        return FAIL(E_CONTEXT_INVALID);
    }
    *out_ns = value > TIMEOUT_MAX_NS / unit_ns ? TIMEOUT_MAX_NS : value * unit_ns;
    return OK;
}

struct err timeout_parse_grpc(struct slice text, uint64_t *out_ns)
{
    if (text.size < 2) {
        return FAIL(E_CONTEXT_INVALID);
    }
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (text.ptr[text.size - 1] == (uint8_t)units[i].letter) {
            return parse(slice_head(text, text.size - 1), GRPC_DIGITS, units[i].ns, out_ns);
        }
    }
    return FAIL(E_CONTEXT_INVALID);
}

struct err timeout_parse_ms(struct slice text, uint64_t *out_ns)
{
    return parse(text, MS_DIGITS, 1000000, out_ns);
}

/* The value in decimal, then the unit ('\0': none), then a NUL. */
static size_t format(uint64_t value, char unit, char out[TIMEOUT_TEXT_MAX])
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    size_t size = 0;
    while (count > 0) {
        out[size++] = digits[--count];
    }
    if (unit != '\0') {
        out[size++] = unit;
    }
    out[size] = '\0';
    return size;
}

size_t timeout_format_grpc(uint64_t ns, char out[TIMEOUT_TEXT_MAX])
{
    ns = ns == 0 ? 1 : ns;
    ns = ns > TIMEOUT_MAX_NS ? TIMEOUT_MAX_NS : ns;
    size_t i = 0;
    while (ns / units[i].ns >= grpc_value_end) { /* ends: the bound is 8760 hours. */
        i++;
        CHECK(i < UNIT_COUNT);
    }
    return format(ns / units[i].ns, units[i].letter, out);
}

size_t timeout_format_ms(uint64_t ns, char out[TIMEOUT_TEXT_MAX])
{
    ns = ns > TIMEOUT_MAX_NS ? TIMEOUT_MAX_NS : ns;
    uint64_t ms = ns / 1000000;
    return format(ms == 0 ? 1 : ms, '\0', out);
}
