/*
 * strict: what is decoded and encoded again is the same bytes; unknown fields below 100 are refused
 * at any depth; memory is capped; an allocation that fails leaks nothing.
 */
#include "common/proto/strict.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define TYPE (&trilane__parts__v1__route_group__descriptor)

/* The allocator of the program, with one call that fails: see --wrap in CMakeLists.txt. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
static unsigned long allocations;
static unsigned long failing; /* zero: none. */

void *__wrap_malloc(size_t size)
{
    allocations++;
    return allocations == failing ? NULL : __real_malloc(size);
}

static struct err decode(struct slice bytes, size_t memory_max)
{
    const struct proto_rules rules = {
        .memory_max = memory_max, .malformed = E_PART_MALFORMED, .unknown = E_CAPABILITY_MISSING};
    auto_proto ProtobufCMessage *m = NULL;
    return proto_decode(TYPE, bytes, &rules, &m);
}

static void expect(struct slice bytes, enum err_code code)
{
    struct err e = decode(bytes, 64 * 1024);
    if (e.code != code) {
        fail_msg("expected %s, got %s", err_name(code), err_name(e.code));
    }
}

/* host "a", one route {id "r", tenants "t", target {cluster "c", weight 1}, timeout 5} */
static const uint8_t whole[] = {0x0a, 1,    'a', 0x1a, 15, 0x0a, 1,    'r', 0x22, 1,
                                't',  0x3a, 5,   0x0a, 1,  'c',  0x10, 1,   0x48, 5};

static struct slice whole_slice(void)
{
    return slice_of(whole, sizeof(whole));
}

static void comes_back_the_same(void **state)
{
    (void)state;
    const struct proto_rules rules = {
        .memory_max = 4096, .malformed = E_PART_MALFORMED, .unknown = E_CAPABILITY_MISSING};
    auto_proto ProtobufCMessage *m = NULL;
    auto_buf struct buf again = BUF_MAX(4096);
    assert_true(err_ok(proto_decode(TYPE, whole_slice(), &rules, &m)));
    assert_true(err_ok(proto_encode(m, &again)));
    assert_true(slice_eq(buf_slice(&again), whole_slice()));
    expect(slice_str(""), E_OK); /* all defaults. */
}

static void every_length_but_the_right_ones_is_refused(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof(whole); size++) {
        uint8_t *exact = malloc(size + 1);
        assert_non_null(exact);
        memcpy(exact, whole, size);
        expect(slice_of(exact, size), size == 0 || size == 3 ? E_OK : E_PART_MALFORMED);
        free(exact);
    }
}

#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void unknown_fields(void **state)
{
    (void)state;
    expect(BYTES(0x98, 0x06, 1), E_CAPABILITY_MISSING);             /* 99 */
    expect(BYTES(0xa0, 0x06, 1), E_OK);                             /* 100 */
    expect(BYTES(0x20, 1), E_CAPABILITY_MISSING);                   /* 4 */
    expect(BYTES(0x1a, 2, 0x50, 1), E_CAPABILITY_MISSING);          /* in a route. */
    expect(BYTES(0x1a, 4, 0x3a, 2, 0x18, 1), E_CAPABILITY_MISSING); /* in its target. */
    expect(BYTES(0x1a, 5, 0x3a, 3, 0xa0, 0x06, 1), E_OK);
}

static void only_the_canonical_form(void **state)
{
    (void)state;
    expect(BYTES(0x0a, 1, 'a', 0x0a, 1, 'b'), E_PART_MALFORMED); /* a field twice. */
    expect(BYTES(0x12, 1, 'a', 0x0a, 1, 'b'), E_PART_MALFORMED); /* not ascending. */
    expect(BYTES(0x0a, 0), E_PART_MALFORMED);                    /* a default spelled out. */
    expect(BYTES(0x1a, 2, 0x48, 0), E_PART_MALFORMED);
    expect(BYTES(0x1a, 3, 0x48, 0x85, 0), E_PART_MALFORMED); /* a varint longer than need be. */
    expect(BYTES(0x0a, 0x81, 0, 'a'), E_PART_MALFORMED);     /* a size likewise. */
    expect(BYTES(0x0a, 3, 'a', 0, 'b'), E_PART_MALFORMED);   /* a NUL inside a string. */
    expect(BYTES(0x0a, 1, 0xff), E_PART_MALFORMED);          /* no UTF-8. */
    expect(BYTES(0x0d, 0, 0, 0, 0), E_PART_MALFORMED);       /* another wire type. */
    expect(BYTES(0x0b, 0x0c), E_PART_MALFORMED);             /* a group. */
    expect(BYTES(0x00), E_PART_MALFORMED);                   /* field zero. */
}

/* Many empty messages, two bytes each: the heap that they would take is what is capped. */
static void memory_is_capped(void **state)
{
    (void)state;
    uint8_t bytes[4000];
    for (size_t i = 0; i < sizeof(bytes); i += 2) {
        bytes[i] = 0x1a;
        bytes[i + 1] = 0;
    }
    struct slice all = slice_of(bytes, sizeof(bytes));
    assert_int_equal(decode(all, 16 * sizeof(bytes)).code, E_PART_MALFORMED);
    assert_int_equal(decode(all, 1 << 20).code, E_OK);
    assert_int_equal(decode(whole_slice(), 0).code, E_PART_MALFORMED);
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    allocations = 0;
    assert_true(err_ok(decode(whole_slice(), 4096)));
    unsigned long total = allocations;
    assert_true(total > 8);
    for (unsigned long n = 1; n <= total; n++) {
        allocations = 0;
        failing = n;
        struct err e = decode(whole_slice(), 4096);
        failing = 0;
        assert_int_equal(e.code, E_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_length_but_the_right_ones_is_refused),
        cmocka_unit_test(unknown_fields),
        cmocka_unit_test(only_the_canonical_form),
        cmocka_unit_test(memory_is_capped),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
