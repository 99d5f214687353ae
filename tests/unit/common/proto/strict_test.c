/*
 * strict: what is decoded and encoded again is the same bytes; unknown fields below 100 are refused
 * at any depth; memory is capped; an allocation that fails leaks nothing. And it takes exactly the
 * bytes that protobuf-c's own decoder takes and gives back unchanged: over random messages of all
 * types, broken at random. The seed is printed; TRILANE_SEED repeats a run.
 */
#include "common/proto/strict.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/text.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

enum { FIELD_NUMBER_MAX = 0x1fffffff }; /* of protobuf: 2^29 - 1. */

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
    expect(BYTES(0x1a, 3, 0x98, 0x06, 1), E_CAPABILITY_MISSING);    /* in a route. */
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
    expect(BYTES(0x1a, 4, 0x48, 0x85, 0x80, 0), E_PART_MALFORMED);
    expect(BYTES(0x1a, 5, 0x48, 0x85, 0x80, 0x80, 0), E_PART_MALFORMED);
    expect(BYTES(0x1a, 3, 0x48, 0x85, 1), E_OK);
    expect(BYTES(0x1a, 4, 0x48, 0x85, 0x80, 1), E_OK);
    expect(BYTES(0x1a, 5, 0x48, 0x85, 0x80, 0x80, 1), E_OK);
    expect(BYTES(0x0a, 0x81, 0, 'a'), E_PART_MALFORMED);   /* a size likewise. */
    expect(BYTES(0x0a, 3, 'a', 0, 'b'), E_PART_MALFORMED); /* a NUL inside a string. */
    expect(BYTES(0x0a, 1, 0xff), E_PART_MALFORMED);        /* no UTF-8. */
    expect(BYTES(0x0d, 0, 0, 0, 0), E_PART_MALFORMED);     /* another wire type. */
    expect(BYTES(0x0b, 0x0c), E_PART_MALFORMED);           /* a group. */
    expect(BYTES(0x00), E_PART_MALFORMED);                 /* field zero. */
}

static enum err_code decode_revocation(struct slice bytes)
{
    const struct proto_rules rules = {
        .memory_max = 4096, .malformed = E_PART_MALFORMED, .unknown = E_CAPABILITY_MISSING};
    auto_proto ProtobufCMessage *m = NULL;
    return proto_decode(&trilane__parts__v1__revocation__descriptor, bytes, &rules, &m).code;
}

/* A known field above 100 is no field that may be passed over, wherever it stands. */
static void known_fields_above_a_hundred(void **state)
{
    (void)state;
    assert_int_equal(decode_revocation(BYTES(0xa0, 0x06, 1)), E_OK);                /* 100 */
    assert_int_equal(decode_revocation(BYTES(0xa0, 0x06, 1, 0xa8, 0x06, 1)), E_OK); /* 100, 101 */
    assert_int_equal(decode_revocation(BYTES(0xa8, 0x06, 1, 0xa0, 0x06, 1)),        /* 101, 100 */
                     E_PART_MALFORMED);
    assert_int_equal(decode_revocation(BYTES(0xa0, 0x06, 1, 0xa0, 0x06, 2)), E_PART_MALFORMED);
    assert_int_equal(decode_revocation(BYTES(0xa2, 0x06, 0)), E_PART_MALFORMED); /* no number. */
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
    uint8_t bytes[400]; /* empty messages: their memory takes several blocks. */
    for (size_t i = 0; i < sizeof(bytes); i += 2) {
        bytes[i] = 0x1a;
        bytes[i + 1] = 0;
    }
    struct slice all = slice_of(bytes, sizeof(bytes));
    allocations = 0;
    assert_true(err_ok(decode(all, 1 << 20)));
    unsigned long total = allocations;
    assert_true(total > 8);
    for (unsigned long n = 1; n <= total; n++) {
        allocations = 0;
        failing = n;
        struct err e = decode(all, 1 << 20);
        failing = 0;
        assert_int_equal(e.code, E_NO_MEMORY);
    }
}

/* ---- the same as protobuf-c ---- */

static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) % below;
}

static void add_varint(struct buf *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        assert_true(err_ok(buf_add_byte(out, (uint8_t)(value | 0x80))));
    }
    assert_true(err_ok(buf_add_byte(out, (uint8_t)value)));
}

static void add_sized(struct buf *out, struct slice bytes)
{
    add_varint(out, bytes.size);
    assert_true(err_ok(buf_add(out, bytes)));
}

static void add_message(struct buf *out, const ProtobufCMessageDescriptor *type);

/* Mostly values that the type has room for; never a default, unless it is one of a list. */
static uint64_t draw_number(ProtobufCType type, bool list)
{
    uint64_t value = draw(list ? 3 : 8) == 0 ? 0 : 1 + draw(300);
    if (type == PROTOBUF_C_TYPE_BOOL) {
        return list ? draw(2) : 1;
    }
    value = draw(20) == 0 ? UINT64_MAX - draw(3) : value;
    return draw(20) == 0 ? 0xffffffff + draw(3) : value;
}

static void add_item(struct buf *out, const ProtobufCFieldDescriptor *field)
{
    auto_buf struct buf item = BUF_MAX(1 << 20);
    bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        add_message(&item, field->descriptor);
        add_sized(out, buf_slice(&item));
    } else if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES) {
        static const char text[] = "\xc3\xa4"
                                   "bcdefghijklmnopqrstuvwxyz";
        add_sized(out, slice_head(slice_str(text), draw(6) == 0 && list ? 0 : 2 + draw(20)));
    } else if (list) {
        for (uint64_t n = 1 + draw(5); n > 0; n--) {
            add_varint(&item, draw_number(field->type, list));
        }
        add_sized(out, buf_slice(&item));
    } else {
        add_varint(out, draw_number(field->type, list));
    }
}

static bool is_sized(const ProtobufCFieldDescriptor *field)
{
    return field->label == PROTOBUF_C_LABEL_REPEATED || field->type == PROTOBUF_C_TYPE_STRING ||
           field->type == PROTOBUF_C_TYPE_BYTES || field->type == PROTOBUF_C_TYPE_MESSAGE;
}

/* Fields in their order, each there or not; now and then some that are not known. */
static void add_message(struct buf *out, const ProtobufCMessageDescriptor *type)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        bool items = field->label == PROTOBUF_C_LABEL_REPEATED &&
                     (field->flags & PROTOBUF_C_FIELD_FLAG_PACKED) == 0;
        for (uint64_t n = draw(items ? 4 : 2); n > 0; n--) {
            add_varint(out, field->id << 3 | (is_sized(field) ? 2U : 0U));
            add_item(out, field);
        }
    }
    for (uint64_t n = draw(12) == 0 ? 1 + draw(2) : 0; n > 0; n--) {
        add_varint(out, (draw(3) == 0 ? 90 + draw(10) : 100 + draw(2000)) << 3 | 2);
        add_sized(out, SLICE_LIT("later"));
    }
}

static void break_bytes(struct buf *bytes)
{
    for (uint64_t n = draw(3); n > 0 && bytes->size > 0; n--) {
        uint64_t at = draw(bytes->size);
        uint64_t way = draw(4);
        if (way == 0) {
            bytes->ptr[at] ^= (uint8_t)(1U << draw(8));
        } else if (way == 1) {
            bytes->ptr[at] = (uint8_t)draw(256);
        } else if (way == 2) {
            bytes->size = at;
        } else {
            auto_buf struct buf tail = BUF_MAX(1 << 20);
            assert_true(err_ok(buf_add(&tail, slice_from(buf_slice(bytes), at))));
            bytes->size = at + draw(2) * draw(tail.size);
            assert_true(err_ok(buf_add(bytes, buf_slice(&tail))));
        }
    }
}

static bool reference_judges(const ProtobufCMessage *m);

static bool reference_text(const char *const *text)
{
    return text_is_utf8(slice_str(*text));
}

static bool reference_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const uint8_t *member = (const uint8_t *)m + f->offset;
    const uint8_t *item_at = member;
    size_t count = 1;
    if (f->type != PROTOBUF_C_TYPE_MESSAGE && f->type != PROTOBUF_C_TYPE_STRING) {
        return true;
    }
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        memcpy(&count, (const uint8_t *)m + f->quantifier_offset, sizeof(count));
        memcpy(&item_at, member, sizeof(item_at));
    }
    for (size_t i = 0; i < count; i++) {
        const void *item = NULL;
        memcpy(&item, item_at + i * sizeof(item), sizeof(item));
        bool fine = f->type == PROTOBUF_C_TYPE_STRING ? reference_text((const char **)&item)
                                                      : item == NULL || reference_judges(item);
        if (!fine) {
            return false;
        }
    }
    return true;
}

/* protobuf-c keeps an unknown number as it came, however long it is written. */
static bool reference_unknown_number(const ProtobufCMessageUnknownField *f)
{
    bool minimal = f->len == 1 || f->data[f->len - 1] != 0;
    return minimal && (f->len < 10 || f->data[9] <= 1);
}

static bool reference_judges(const ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        uint32_t tag = m->unknown_fields[i].tag; /* protobuf-c reads some that there cannot be. */
        if (tag < PROTO_IGNORABLE_FIELD || tag > FIELD_NUMBER_MAX ||
            (m->unknown_fields[i].wire_type == PROTOBUF_C_WIRE_TYPE_VARINT &&
             !reference_unknown_number(&m->unknown_fields[i]))) {
            return false;
        }
    }
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        if (!reference_field(m, &m->descriptor->fields[i])) {
            return false;
        }
    }
    return true;
}

/* protobuf-c reads it, nothing in it is unknown, and writes the same bytes. */
static bool reference_takes(const ProtobufCMessageDescriptor *type, struct slice bytes)
{
    const uint8_t *from = bytes.size == 0 ? (const uint8_t *)"" : bytes.ptr;
    ProtobufCMessage *m = protobuf_c_message_unpack(type, /* allocator= */ NULL, bytes.size, from);
    if (m == NULL) {
        return false;
    }
    auto_buf struct buf again = BUF_MAX(1 << 22);
    bool takes = reference_judges(m) && err_ok(proto_encode(m, &again)) &&
                 slice_eq(buf_slice(&again), bytes);
    protobuf_c_message_free_unpacked(m, /* allocator= */ NULL);
    return takes;
}

static const ProtobufCMessageDescriptor *const types[] = {
    &trilane__parts__v1__environment_part__descriptor,
    &trilane__parts__v1__caller__descriptor,
    &trilane__parts__v1__cluster__descriptor,
    &trilane__parts__v1__route_group__descriptor,
    &trilane__parts__v1__policy_target__descriptor,
    &trilane__parts__v1__limit_target__descriptor,
    &trilane__parts__v1__transport__descriptor,
    &trilane__parts__v1__egress_part__descriptor,
    &trilane__parts__v1__schema__descriptor,
    &trilane__parts__v1__topic_part__descriptor,
    &trilane__parts__v1__position__descriptor,
    &trilane__parts__v1__revocation__descriptor,
    &trilane__snapshot__v1__root__descriptor,
    &trilane__snapshot__v1__manifest__descriptor,
    &trilane__snapshot__v1__head__descriptor,
    &trilane__snapshot__v1__status__descriptor,
};

static void compare(const ProtobufCMessageDescriptor *type, uint64_t round_seed, bool *out_took)
{
    const struct proto_rules rules = {
        .memory_max = 1 << 22, .malformed = E_PART_MALFORMED, .unknown = E_CAPABILITY_MISSING};
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    auto_buf struct buf again = BUF_MAX(1 << 20);
    auto_proto ProtobufCMessage *m = NULL;
    add_message(&bytes, type);
    break_bytes(&bytes);
    struct err e = proto_decode(type, buf_slice(&bytes), &rules, &m);
    *out_took = err_ok(e);
    if (*out_took != reference_takes(type, buf_slice(&bytes))) {
        fail_msg("seed %llu: %s: %s, and protobuf-c says otherwise", (unsigned long long)round_seed,
                 type->name, err_name(e.code));
    }
    if (*out_took) {
        assert_true(err_ok(proto_encode(m, &again)));
        assert_true(slice_eq(buf_slice(&again), buf_slice(&bytes)));
    }
}

static void takes_what_protobuf_c_gives_back(void **state)
{
    (void)state;
    enum { ROUNDS = 20000 };
    const char *given = getenv("TRILANE_SEED");
    size_t took = 0;
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < ROUNDS; i++) {
        bool taken = false;
        compare(types[i % (sizeof(types) / sizeof(types[0]))], seed, &taken);
        took += taken;
    }
    assert_in_range(took, ROUNDS / 10, ROUNDS * 9 / 10); /* both were asked often. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(every_length_but_the_right_ones_is_refused),
        cmocka_unit_test(unknown_fields),
        cmocka_unit_test(only_the_canonical_form),
        cmocka_unit_test(known_fields_above_a_hundred),
        cmocka_unit_test(memory_is_capped),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(takes_what_protobuf_c_gives_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
