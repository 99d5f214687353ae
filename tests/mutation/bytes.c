/* bytes: see bytes.h. */
#include "tests/mutation/bytes.h"

#include <string.h>

#include "common/snapshot/wire.h"

#include "tests/mutation/world.h"

enum {
    FLIPS_MAX = 4,
    RUN_MAX = 24,
    ADDED_MAX = 64,
    AT_COUNT = 7,
    AT_ENVIRONMENT = 8,
    AT_BODY_SIZE = 24,
};

static void flip(struct dice *d, struct buf *b)
{
    for (uint64_t n = dice_between(d, 1, FLIPS_MAX); n > 0; n--) {
        b->ptr[dice_below(d, b->size)] ^= (uint8_t)(1U << dice_below(d, 8));
    }
}

/* Noise, zeros, ones, or bytes of elsewhere in the document. */
static void set(struct dice *d, struct buf *b)
{
    size_t run = (size_t)dice_between(d, 1, RUN_MAX < b->size ? RUN_MAX : b->size);
    size_t at = (size_t)dice_below(d, b->size - run + 1);
    size_t from = (size_t)dice_below(d, b->size - run + 1);
    switch (dice_below(d, 4)) {
    case 0:
        memset(b->ptr + at, 0, run);
        break;
    case 1:
        memset(b->ptr + at, 0xff, run);
        break;
    case 2:
        memmove(b->ptr + at, b->ptr + from, run);
        break;
    default:
        for (size_t i = 0; i < run; i++) {
            b->ptr[at + i] = (uint8_t)dice_next(d);
        }
    }
}

void bytes_change(struct dice *d, struct buf *b)
{
    CHECK(b->size > 0);
    if (dice_even(d)) {
        flip(d, b);
    } else {
        set(d, b);
    }
}

static void add(struct dice *d, struct buf *b)
{
    for (uint64_t n = dice_between(d, 1, ADDED_MAX); n > 0; n--) {
        MUST(buf_add_byte(b, dice_even(d) ? 0 : (uint8_t)dice_next(d)));
    }
}

void bytes_resize(struct dice *d, struct buf *b)
{
    if (dice_even(d)) {
        add(d, b);
    } else {
        b->size = (size_t)dice_below(d, b->size);
    }
}

static size_t body_at(struct slice container)
{
    return CONTAINER_HEADER_SIZE + (size_t)container.ptr[AT_COUNT] * CONTAINER_SIGNATURE_SIZE;
}

void bytes_reframe(struct dice *d, struct buf *b)
{
    size_t at = body_at(buf_slice(b));
    if (dice_even(d)) {
        add(d, b);
    } else {
        b->size = at + (size_t)dice_below(d, b->size - at);
    }
    wire_put32(b->ptr + AT_BODY_SIZE, (uint32_t)(b->size - at));
}

static bool differs(struct slice a, struct slice b, size_t from, size_t to)
{
    return memcmp(a.ptr + from, b.ptr + from, to - from) != 0;
}

/* A copied run may make one key of two, which no container has. */
static bool has_a_key_twice(struct slice container)
{
    const uint8_t *ids = container.ptr + CONTAINER_HEADER_SIZE;
    for (size_t i = 0; i < container.ptr[AT_COUNT]; i++) {
        for (size_t k = 0; k < i; k++) {
            if (memcmp(ids + i * CONTAINER_SIGNATURE_SIZE, ids + k * CONTAINER_SIGNATURE_SIZE,
                       KEY_ID_SIZE) == 0) {
                return true;
            }
        }
    }
    return false;
}

unsigned bytes_parts(struct slice original, struct slice b)
{
    if (original.size != b.size) {
        return PART_SIZE;
    }
    size_t body = body_at(original);
    unsigned parts = 0;
    bool header = differs(original, b, 0, AT_ENVIRONMENT) ||
                  differs(original, b, AT_BODY_SIZE, CONTAINER_HEADER_SIZE);
    parts |= header || has_a_key_twice(b) ? PART_HEADER : 0;
    parts |= differs(original, b, AT_ENVIRONMENT, AT_BODY_SIZE) ? PART_ENVIRONMENT : 0;
    parts |= differs(original, b, CONTAINER_HEADER_SIZE, body) ? PART_SIGNATURES : 0;
    parts |= differs(original, b, body, b.size) ? PART_BODY : 0;
    return parts;
}

enum err_code bytes_code(unsigned parts, const struct bytes_codes *codes)
{
    if ((parts & (PART_SIZE | PART_HEADER)) != 0) {
        return codes->malformed;
    }
    if ((parts & PART_ENVIRONMENT) != 0) {
        return codes->environment;
    }
    return (parts & PART_BODY) != 0 ? codes->body : codes->signature;
}
